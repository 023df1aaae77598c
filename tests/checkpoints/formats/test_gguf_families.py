"""GGUF files of other decoders than Llama, written as llama.cpp writes them, give the model they were made from."""

import re

import numpy as np
import pytest
import small_models
from safetensors.numpy import load_file

from tfmodels import TFAutoModel, TFAutoModelForCausalLM, TFBertModel
from tfmodels.auto import FAMILIES, gguf_maps
from tfmodels.checkpoints.reader import CheckpointError

gguf = pytest.importorskip("gguf", reason="reading GGUF files needs the gguf package")
IDS = np.array([[1, 5, 60, 7, 33]])
# Family -> its architecture in GGUF files, changes to the small configuration, and settings of its own.
CASES = {
    "qwen2": ("qwen2", {"use_sliding_window": False}, {}),
    "qwen3": ("qwen3", {"use_sliding_window": False, "attention_bias": True}, {"attention.key_length": 6}),
    "granite": (
        "granite",
        {"attention_multiplier": 0.3},
        {"embedding_scale": 3.0, "residual_scale": 0.4, "attention.scale": 0.3, "logit_scale": 2.0},
    ),
    "smollm3": ("smollm3", {"use_sliding_window": False, "no_rope_layer_interval": 4, "rope_theta": 1e4}, {}),
    "gemma3_text": (
        "gemma3",
        {"layer_types": ["sliding_attention"] * 2, "query_pre_attn_scalar": 6, "final_logit_softcapping": 2.0},
        {"attention.key_length": 6, "attention.sliding_window": 3, "rope.freq_base": 1e6}
        | {"final_logit_softcapping": 2.0},
    ),
    "gpt2": ("gpt2", {}, {}),
    "gpt_neox": ("gptneox", {}, {"use_parallel_residual": 1, "rope.dimension_count": 2}),
    "mpt": ("mpt", {}, {"attention.max_alibi_bias": 8.0}),
    "mpt with norms and biases": (
        "mpt",
        {"attn_config": {"clip_qkv": 0.5, "qk_ln": True, "alibi": False}, "no_bias": False},
        {"attention.max_alibi_bias": 0.0, "attention.clamp_kqv": 0.5},
    ),
}


def stored(gguf_map, name):
    """The name in GGUF files of a tensor that safetensors files call `name`."""
    block = re.match(rf"{re.escape(gguf_map.blocks)}\.(\d+)\.(.*)\.(weight|bias)$", name)
    layers = {there: here for here, there in gguf_map.names.items()}
    if block:
        return f"blk.{block[1]}.{layers[block[2]]}.{block[3]}"
    layer, _, parameter = name.rpartition(".")
    return f"{layers[layer]}.{parameter}"


def write(folder, model, architecture, settings, more=()):
    """A GGUF file of a model, matrices in float32."""
    gguf_map, config = gguf_maps()[architecture], model.config
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
    values = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "vocab_size": config.vocab_size,
        **settings,
    }
    if architecture in ("gpt2", "bert", "gptneox", "mpt"):
        values["attention.layer_norm_epsilon"] = getattr(config, "layer_norm_eps", 1e-5)
    else:
        values |= {"attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": config.rms_norm_eps}
    for key, value in values.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{architecture}.{key}", value)
    for key, value in dict(more).items():
        writer.add_uint32(key, value)
    model.save_pretrained(folder / "plain")
    for name, rows in load_file(folder / "plain" / "model.safetensors").items():
        if name.startswith("classifier."):
            continue
        heads = gguf_map.rotated.get(name.split(".")[-2])
        if heads:
            pairs = rows.reshape(getattr(config, heads), 2, -1, *rows.shape[1:])
            rows = pairs.swapaxes(1, 2).reshape(rows.shape)
        if name.split(".")[-2] in gguf_map.fused:
            parts = rows.reshape(config.num_attention_heads, 3, -1, *rows.shape[1:])
            rows = parts.swapaxes(0, 1).reshape(rows.shape)
        rows = rows + sum(added for end, added in gguf_map.shifted.items() if name.endswith(end))
        rows = rows.T if name.endswith(gguf_map.turned) else rows
        writer.add_tensor(stored(gguf_map, name), np.ascontiguousarray(rows, "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def made(name, head="ForCausalLM", **changes):
    model = small_models.make(name, head, **changes)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight * 15 if len(weight.shape) == 2 else weight + rng.normal(0, 0.2, weight.shape))
    return model


@pytest.mark.parametrize("name", CASES)
def test_the_same_model(name, tmp_path):
    architecture, changes, settings = CASES[name]
    model = made(name.partition(" ")[0], **changes)
    write(tmp_path, model, architecture, settings)
    again = TFAutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert type(again) is type(model)
    np.testing.assert_allclose(again(IDS).logits, model(IDS).logits, atol=1e-6)
    model.export(tmp_path / "exported.gguf", "gguf", tokenizer=small_models.byte_pairs())
    exported = TFAutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="exported.gguf")
    np.testing.assert_allclose(exported(IDS).logits, model(IDS).logits, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*pooler.* did not come from the checkpoint")
@pytest.mark.parametrize("types", [2, 1])
def test_the_same_encoder(types, tmp_path):
    model = made("bert", "ForTokenClassification", type_vocab_size=types)
    settings = {"attention.causal": 0, "pooling_type": 1}
    write(tmp_path, model, "bert", settings, {"tokenizer.ggml.token_type_count": types})
    again = TFAutoModel.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert type(again) is TFBertModel and again.config.type_vocab_size == types
    inputs = {
        "attention_mask": np.array([[1, 1, 1, 1, 0]]),
        "token_type_ids": np.minimum([[0, 0, 1, 1, 0]], types - 1),
    }
    want = model.backbone(IDS, **inputs).last_hidden_state
    np.testing.assert_allclose(again(IDS, **inputs).last_hidden_state, want, atol=1e-6)


def test_settings_of_another_family_are_refused(tmp_path):
    write(tmp_path, made("qwen2", use_sliding_window=False), "qwen2", {"logit_scale": 2.0})
    with pytest.raises(CheckpointError, match="what no Qwen2 model here does: qwen2.logit_scale = 2.0"):
        TFAutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")


@pytest.mark.parametrize("name", [name for name in CASES if not re.search("gpt|mpt", name)])
def test_names_are_those_of_the_gguf_package(name):
    """The package maps the names of safetensors files to those that llama.cpp reads."""
    architecture = CASES[name][0]
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names, gguf_map = gguf.get_tensor_name_map(number, 2), gguf_maps()[architecture]
    for here, plain in gguf_map.names.items():
        inside = plain if plain.split(".")[0] in ("model", "lm_head") else f"model.layers.1.{plain}"
        theirs = names.get_name(f"{inside}.weight", try_suffixes=(".weight",))
        assert theirs in (f"{here}.weight", f"blk.1.{here}.weight"), inside
        assert gguf_map.stored_name(theirs) == f"{inside}.weight"


def test_every_architecture_is_covered():
    maps = {family.gguf for family in FAMILIES.values() if family.gguf}
    assert len(maps) == len(gguf_maps()) == len({case[0] for case in CASES.values()}) + 2  # llama's and BERT's
