"""What is saved here loads in transformers with equal outputs, and the other way round.

Skipped where transformers is not installed.
"""

import keras
import numpy as np
import pytest

import tfmodels
from tfmodels.auto import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IDS = np.random.default_rng(1).integers(3, 50, (2, 9))
SMALL = {
    "llama": {
        "vocab_size": 61,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_theta": 5000.0,
    },
    "gpt_neox": {
        "vocab_size": 61,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "rotary_pct": 0.5,
        "pad_token_id": 0,
    },
    "gpt_neo": {
        "vocab_size": 61,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 3,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
    },
    "mpt": {
        "vocab_size": 61,
        "d_model": 18,
        "n_layers": 2,
        "n_heads": 3,
        "max_seq_len": 32,
        "pad_token_id": 0,
        "attn_config": {"clip_qkv": 0.5},
    },
    "mpnet": {
        "vocab_size": 61,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
    },
}
CASES = [(name, head) for name in SMALL for head in FAMILIES[name].heads]


def first(output):
    return next(np.asarray(value.detach()) for value in output.to_tuple() if value is not None)


@pytest.mark.quick(8)
@pytest.mark.parametrize("name, head", CASES)
def test_both_ways(name, head, tmp_path):
    family = FAMILIES[name]
    ids = np.stack([IDS, IDS[::-1]], axis=1) if head == "ForMultipleChoice" else IDS
    keras.utils.set_random_seed(0)
    model_class = getattr(tfmodels, f"TF{family.stem}{head}")
    model = model_class(getattr(tfmodels, f"{family.stem}Config")(**SMALL[name]))
    model.save_pretrained(tmp_path / "ours")
    peer_class = getattr(transformers, family.stem + head)
    peer, report = peer_class.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    with torch.inference_mode():
        theirs = first(peer(torch.tensor(ids)))
    np.testing.assert_allclose(np.asarray(model(ids)[0]), theirs, atol=1e-5)
    peer.save_pretrained(tmp_path / "theirs")
    again = model_class.from_pretrained(tmp_path / "theirs")
    np.testing.assert_array_equal(np.asarray(again(ids)[0]), np.asarray(model(ids)[0]))
