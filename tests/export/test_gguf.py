"""GGUF files that are written hold the model that they were made from; see also `test_gguf_families.py`."""

import numpy as np
import pytest
import small_models as small

from tfmodels import AutoTokenizer, TFAutoModelForCausalLM
from tfmodels.cli.common import Place
from tfmodels.cli.inspect import inspect_checkpoint
from tfmodels.export import export
from tfmodels.training.lora import add_lora, merge_lora

gguf = pytest.importorskip("gguf", reason="writing GGUF files needs the gguf package")
IDS = np.array([[1, 5, 60, 7, 33]])
GGUF = {"quant_method": "gguf"}


def make(**changes):
    """A small model whose weights differ so much that rounding them shows, with widths of whole blocks."""
    changes = {"hidden_size": 64, "intermediate_size": 96, **changes}
    model = small.make("llama", "ForCausalLM", **changes)
    for weight in model.weights:
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


def read(path, **options):
    return TFAutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)


def types(path):
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    "options, inner, outer, most",
    [
        ({"dtype": "float16"}, "F16", "F16", 3e-3),
        ({"quantize": "int8"}, "Q8_0", "Q8_0", 0.1),
        ({"quantize": "q4_1"}, "Q4_1", "Q8_0", 0.3),
    ],
)
def test_types(options, inner, outer, most, tmp_path):
    model = make(rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
                 | {"original_max_position_embeddings": 8192})  # fmt: skip
    path = export(model, tmp_path / "model.gguf", "gguf", tokenizer=small.byte_pairs(), **options).path
    found = types(path)
    assert found.pop("token_embd.weight") == found.pop("output.weight") == outer
    assert {kind for name, kind in found.items() if "norm" not in name and "rope" not in name} == {inner}
    kinds = inspect_checkpoint(Place(str(tmp_path), {"gguf_file": path.name}))["dtypes"]
    assert set(kinds) == {"float32", *({"F16": "float16"}.get(kind, kind) for kind in (inner, outer))}
    bits = {"F16": 16, "Q8_0": 8.5, "Q4_1": 5}[inner]
    inside = kinds[{"F16": "float16"}.get(inner, inner)]
    assert 8 * inside["bytes"] == bits * inside["parameters"]
    wanted, again = (np.asarray(one(IDS).logits) for one in (model, read(path)))
    assert np.linalg.norm(again - wanted) < most * np.linalg.norm(wanted)
    if "quantize" in options:
        kept = read(path, quantization_config=GGUF)
        assert kept.quantization == {"Q8_0": "int8", "Q4_1": "int4, int8"}[inner]
        np.testing.assert_allclose(kept(IDS).logits, again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"mode": "int8", "group_size": 32}, {"mode": "int4", "group_size": 64},
                                      {"mode": "int4", "group_size": 32, "symmetric": False}], ids=str)  # fmt: skip
def test_packed_weights_stay_as_they_are(settings, tmp_path):
    model = make()
    model.quantize(**settings)
    path = export(model, tmp_path / "model.gguf", "gguf", tokenizer=small.byte_pairs(), dtype=None).path
    kinds = {"Q8_0": 1, "Q4_0": 1, "Q4_1": 1}.keys() & set(types(path).values())
    assert kinds == {"Q8_0"} if settings["mode"] == "int8" else {"Q4_1" if "symmetric" in settings else "Q4_0"}
    wanted, again = (np.asarray(one(IDS).logits) for one in (model, read(path)))
    assert np.abs(again - wanted).max() < 5e-3 * np.abs(wanted).max()  # scales of 16 bits


def test_the_tokenizer_is_in_the_file(tmp_path):
    model, tokenizer = make(vocab_size=512), AutoTokenizer.from_pretrained("stories260K")
    path = model.export(tmp_path / "model.gguf", "gguf", tokenizer=tokenizer, verify=True).path
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in ("Once upon a time,  there was a café.", "Lily's dog\nran 12 miles!"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.decode(again("a dog")["input_ids"]) == tokenizer.decode(tokenizer("a dog")["input_ids"])


def test_adapters_are_merged_first(tmp_path):
    model = make()
    add_lora(model, "q_proj", rank=2)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.5)
    want = np.asarray(model(IDS).logits)
    options = {"format": "gguf", "tokenizer": small.byte_pairs()}
    with pytest.raises(ValueError, match=r"has adapters, .* call merge_lora\(model\)"):
        export(model, tmp_path / "model.gguf", **options)
    merge_lora(model)
    got = read(export(model, tmp_path / "model.gguf", **options).path)(IDS).logits
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_what_files_have_no_place_for(tmp_path):
    target = tmp_path / "model.gguf"
    with pytest.raises(ValueError, match="hidden_act='gelu' of the configuration has no place"):
        export(make(hidden_act="gelu"), target, "gguf", tokenizer=small.byte_pairs())
    with pytest.raises(ValueError, match="pass tokenizer="):
        export(make(), target, "gguf")
    with pytest.raises(ValueError, match="takes causal language models; TFLlamaModel is none"):
        export(small.make("llama", "Model"), target, "gguf")
    with pytest.raises(ValueError, match="is written for Llama, .*; TFGPTNeoForCausalLM is none"):
        export(small.make("gpt_neo", "ForCausalLM"), target, "gguf", tokenizer=small.byte_pairs())
    with pytest.raises(ValueError, match="quantize='int3'; int8 or int4 or q8_0 or q4_0 or q4_1 is expected"):
        export(make(), target, "gguf", quantize="int3")
    model = make()
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"was quantised by Keras \(int8\)"):
        export(model, target, "gguf", tokenizer=small.byte_pairs(), quantize="int8")
    assert not list(tmp_path.iterdir())
