"""Makes the files beside it, with PyTorch: `python tests/data/checkpoints/make.py`. The tests only read them.

Made with torch 2.13. `expected.npz` has every tensor's values from `torch.Tensor.contiguous`, bfloat16 and float8 as
their bits in unsigned integers; `dtypes.json` names the true types.
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def state_dict() -> OrderedDict:
    import torch

    torch.manual_seed(3)
    shared = torch.randn(6, 8)
    state = OrderedDict(
        plain=torch.randn(3, 5),
        transposed=torch.randn(4, 7).T,
        rows_of_shared=shared[2:5],
        columns_of_shared=shared[:, 1::3],
        all_of_shared=shared,
        corner_of_shared=shared.T[3:5, 1:],
        permuted=torch.randn(2, 3, 4).permute(2, 0, 1),
        expanded=torch.randn(3, 1).expand(3, 4),
        scalar=torch.tensor(2.5),
        empty=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        float64=torch.randn(3, dtype=torch.float64),
        float16=torch.randn(5).to(torch.float16),
        bfloat16=torch.randn(4, 3).to(torch.bfloat16),
        bfloat16_transposed=torch.randn(4, 3).to(torch.bfloat16).T,
        bfloat16_special=torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 1e-40]).to(torch.bfloat16),
        float8=torch.randn(6).to(torch.float8_e4m3fn),
        float8_wide=torch.randn(6).to(torch.float8_e5m2),
        int64=torch.tensor([-(2**62), 0, 2**62]),
        int32=torch.tensor([-5, 7], dtype=torch.int32),
        int16=torch.tensor([-5, 7], dtype=torch.int16),
        int8=torch.tensor([-5, 7], dtype=torch.int8),
        uint8=torch.tensor([5, 255], dtype=torch.uint8),
        uint16=torch.tensor([5, 65535], dtype=torch.uint16),
        bool=torch.tensor([[True, False], [False, True]]),
    )
    # What torch.nn.Module.state_dict attaches.
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


def main() -> None:
    # Here and not above, since the tests' doctest run imports this module where PyTorch need not be.
    import torch

    state = state_dict()
    torch.save(state, HERE / "zip.bin")
    torch.save(state, HERE / "zip_protocol4.bin", pickle_protocol=4)
    torch.save(state, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, HERE / "wrapped.bin")
    arrays, dtypes = {}, {}
    for name, tensor in state.items():
        dtypes[name] = str(tensor.dtype).removeprefix("torch.")
        values = tensor.detach().contiguous()
        if dtypes[name] == "bfloat16":
            values = values.view(torch.int16)
        elif dtypes[name].startswith("float8"):
            values = values.view(torch.uint8)
        arrays[name] = values.numpy().view(np.uint16) if dtypes[name] == "bfloat16" else values.numpy()
    np.savez_compressed(HERE / "expected.npz", **arrays)
    (HERE / "dtypes.json").write_text(json.dumps(dtypes, indent=1) + "\n")


if __name__ == "__main__":
    main()
