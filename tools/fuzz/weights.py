"""Files of weights: safetensors, PyTorch, HDF5, Flax and GGUF."""

from __future__ import annotations

import io
import itertools
import json
import pickletools
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from tfmodels.checkpoints import TensorSpec, open_checkpoint, write_checkpoint
from tfmodels.configs.files import read_config_file
from tfmodels.tokenization import LlamaTokenizer
from tools.fuzz.damage import Random, damage_bytes, damage_json, damage_safetensors, damage_tree
from tools.fuzz.kind import Kind
from tools.fuzz.tokenizers import use

# A state dict of three tensors of ones as `torch.save` of PyTorch 2 writes it, and with
# `_use_new_zipfile_serialization=False`.
SAVED_BY_PYTORCH = Path(__file__).parents[2] / "tests" / "data" / "fuzz"


def _tensors(count: int = 4) -> list[Any]:
    shapes = [(4, 6), (6,), (2, 3, 4), ()]
    arrays = {f"model.layers.{n}.weight": np.ones(shapes[n % 4], "float32") for n in range(count)}
    return [(name, TensorSpec(array.shape, "float32"), lambda array=array: array) for name, array in arrays.items()]


def read_weights(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        for name in checkpoint.names():
            array, info = checkpoint.read(name), checkpoint.info(name)
            assert (array.shape, array.dtype.name) == (info.shape, info.dtype)
            if array.size:
                array.reshape(-1)[:1].tobytes()
                array[(-1,) * array.ndim].tobytes()


@cache
def _safetensors(max_shard_size: str = "1GB") -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in write_checkpoint(folder, _tensors(), max_shard_size)}


def write_safetensors(rng: Random, folder: Path) -> None:
    (data,) = _safetensors().values()
    (folder / "model.safetensors").write_bytes(damage_safetensors(rng, data))


def write_index(rng: Random, folder: Path) -> None:
    for name, data in _safetensors("100B").items():
        is_index = name.endswith(".json")
        (folder / name).write_bytes(damage_json(rng, json.loads(data)) if is_index else data)


def damage_pickle(rng: Random, data: bytes) -> bytes:
    """Leave out, repeat, swap or add instructions, or change bytes."""
    if rng.random() < 0.3:
        return damage_bytes(rng, data)
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    parts = [data[start:stop] for start, stop in itertools.pairwise(starts)]
    extra = (
        *(bytes([instruction]) for instruction in b"02(1tld]})RbQasueN.\x85\x86\x87\x93\x81"),
        *(b"cos\nsystem\n", b"ctorch\nSize\n", b"I1\n", b"F1e999\n", b"Vx\n", b"\x8a\x02\xff\xff"),
        *(b"q\x05", b"h\x05", b"h\x00", b"r\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f"),
    )
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(parts))
        change = rng.randrange(5)
        if change == 0:
            parts[at] = b""
        elif change == 1:
            parts[at:at] = parts[at : at + rng.choice((1, 3, 10))] * rng.choice((1, 1, 5, 500))
        elif change == 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts.insert(at, rng.choice(extra) * rng.choice((1, 1, 2, 3, 2000)))
    return b"".join(parts)


def write_zip(rng: Random, folder: Path) -> None:
    data = (SAVED_BY_PYTORCH / "pytorch_zip.bin").read_bytes()
    if rng.random() < 0.3:
        data = damage_bytes(rng, data)
    else:
        whole, data = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name in whole.namelist():
                content = whole.read(name)
                archive.writestr(name, damage_pickle(rng, content) if name.endswith("data.pkl") else content)
        data = data.getvalue()
    (folder / "pytorch_model.bin").write_bytes(data)


def write_legacy(rng: Random, folder: Path) -> None:
    file = io.BytesIO((SAVED_BY_PYTORCH / "pytorch_legacy.bin").read_bytes())
    parts = []
    for _ in range(5):  # a magic number, a version, the system, the tensors, and the names of the storages behind
        start = file.tell()
        list(pickletools.genops(file))
        parts.append(file.getvalue()[start : file.tell()])
    if rng.random() < 0.7:
        at = rng.randrange(len(parts))
        parts[at] = damage_pickle(rng, parts[at])
    data = b"".join([*parts, file.read()])
    (folder / "pytorch_model.bin").write_bytes(data if rng.random() < 0.7 else damage_bytes(rng, data))


@cache
def _hdf5() -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for layer in range(3):
            group = file.create_group(f"layer{layer}")
            names = [f"m/layer{layer}/{part}:0".encode() for part in ("kernel", "bias")]
            group.attrs["weight_names"] = names
            for name, shape in zip(names, ((4, 6), (6,)), strict=True):
                group.create_dataset(name.decode(), data=np.ones(shape, "float32"))
        file.attrs["layer_names"] = [b"layer0", b"layer1", b"layer2"]
        file.attrs["backend"] = "tensorflow"
    return buffer.getvalue()


def write_hdf5(rng: Random, folder: Path) -> None:
    (folder / "tf_model.h5").write_bytes(damage_bytes(rng, _hdf5()))


def _flax_array(array: np.ndarray) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def write_flax(rng: Random, folder: Path) -> None:
    ones = np.ones((4, 6), "float32")
    pieces = {"__msgpack_chunked_array__": True, "shape": {"0": 4, "1": 6}, "chunks": {"0": ones.reshape(-1)}}
    tree = {"model": {"layers": {"0": {"kernel": ones, "bias": ones[0]}, "1": {"kernel": pieces}}}}
    data = msgpack.packb(tree, default=_flax_array)
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.2:  # an empty map, or maps within maps, where an array is
            data = data.replace(b"\xc7", rng.choice((b"\x80\xc7", b"\x81\xa1a" * 100 + b"\xc7")), 1)
        data = damage_bytes(rng, data)
    (folder / "flax_model.msgpack").write_bytes(data)


def _gguf_value(value: Any) -> bytes:
    """Type and content of a metadata value."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        kind, form = (4, "I") if 0 <= value < 2**32 else (11, "q")
        return struct.pack("<I" + form, kind, (value + 2**63) % 2**64 - 2**63 if kind == 11 else value)
    if isinstance(value, float):
        return struct.pack("<Id", 12, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _gguf_text(value)
    if isinstance(value, list):
        inner = [_gguf_value(item if not isinstance(item, (list, dict)) else "x") for item in value]
        kind = inner[0][:4] if inner else struct.pack("<I", 8)
        same = [item[4:] for item in inner if item[:4] == kind]
        return struct.pack("<I", 9) + kind + struct.pack("<Q", len(same)) + b"".join(same)
    return struct.pack("<I", 8) + _gguf_text(json.dumps(value))


def _gguf_text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


_ARCHITECTURES = ("qwen2", "qwen3", "granite", "smollm3", "gemma3", "gpt2", "bert")


def write_gguf(rng: Random, folder: Path) -> None:
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a"]
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 8,
        "llama.block_count": 1,
        "llama.context_length": 16,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.scaling.type": "none",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.scores": [-float(n) for n in range(len(vocabulary))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(vocabulary) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    tensors: dict[str, Any] = {
        "token_embd.weight": [8, len(vocabulary)],
        "blk.0.attn_q.weight": [8, 8],
        "blk.0.attn_k.weight": [8, 4],
        "output_norm.weight": [8],
        "rope_freqs.weight": [2],
    }
    architecture = rng.choice(("llama", "llama", "llama", *_ARCHITECTURES))
    if architecture != "llama":
        metadata = {key.replace("llama.", f"{architecture}.", 1): value for key, value in metadata.items()}
        metadata |= {"general.architecture": architecture, f"{architecture}.attention.layer_norm_epsilon": 1e-5}
    if architecture in ("qwen2", "qwen3", "smollm3", "gpt2"):
        metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["a b"]}
    inner = rng.random() < 0.6
    if inner:
        both = damage_tree(rng, {"metadata": metadata, "tensors": tensors})
        metadata, tensors = (
            both.get(key) if isinstance(both.get(key), dict) else {} for key in ("metadata", "tensors")
        )
    described, size = b"", 0
    for name, shape in tensors.items():
        shape = [item % 2**64 for item in shape if type(item) is int] if isinstance(shape, list) else []
        described += _gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, size)
        count = int(np.prod([min(item, 1000) for item in shape], dtype="int64")) if len(shape) < 3 else 1
        size += -(-4 * min(count, 100_000) // 32) * 32
    pairs = b"".join(_gguf_text(key) + _gguf_value(value) for key, value in metadata.items())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + pairs + described
    data = head + bytes(-len(head) % 32) + np.ones(size // 4, "float32").tobytes()
    (folder / "model.gguf").write_bytes(data if inner else damage_bytes(rng, data))


def read_gguf(folder: Path) -> None:
    read_config_file(folder, gguf_file="model.gguf")
    with open_checkpoint(folder, gguf_file="model.gguf") as checkpoint:
        for name in checkpoint.names():
            checkpoint.read(name)
    use(LlamaTokenizer.from_pretrained(folder, gguf_file="model.gguf"))


def _prepare_gguf() -> None:
    import gguf.quants  # noqa: F401


KINDS = {
    "safetensors": Kind(write_safetensors, read_weights),
    "safetensors-index": Kind(write_index, read_weights),
    "pytorch-zip": Kind(write_zip, read_weights),
    "pytorch-legacy": Kind(write_legacy, read_weights),
    "hdf5": Kind(write_hdf5, read_weights, lambda: (_hdf5(), None)[1]),
    "flax": Kind(write_flax, read_weights),
    "gguf": Kind(write_gguf, read_gguf, _prepare_gguf),
}
