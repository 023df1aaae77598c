"""LiteRT-LM: the engine writes what the model writes, with the tokenizers of all decoder families."""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models

import tfmodels
from tfmodels.export import export, litert_lm

pytest.importorskip("litert_lm_builder")

TOKENIZERS = Path(__file__).parent.parent / "data" / "tokenizers"
FILES = {
    "gpt_neox": (tfmodels.GPTNeoXTokenizer, ("neox/tokenizer.json",)),
    "mpt": (tfmodels.GPTNeoXTokenizer, ("neox/tokenizer.json",)),
    "gpt_neo": (tfmodels.GPT2Tokenizer, ("gpt2/vocab.json", "gpt2/merges.txt")),
}
CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def stories():
    return tfmodels.TFLlamaForCausalLM.from_pretrained("stories260K")


@pytest.fixture
def tokenizer():
    return tfmodels.AutoTokenizer.from_pretrained("stories260K")


def tokenizer_of(name, folder):
    cls, files = FILES[name]
    for file in files:
        (folder / Path(file).name).write_bytes(lzma.decompress((TOKENIZERS / f"{file}.xz").read_bytes()))
    return cls.from_pretrained(folder)


def written(model, tokenizer, text, new):
    """The model's own greedy continuation."""
    ids = np.array([tokenizer(text)["input_ids"]])
    full = np.asarray(model.generate(ids, max_new_tokens=new, use_cache=True, jit_compile=False))
    return tokenizer.decode(full[0, ids.shape[1] :], skip_special_tokens=True)


def metadata_of(path, folder):
    from google.protobuf import text_format
    from litert_lm_builder import litertlm_builder
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    litertlm_builder.unpack(str(path), str(folder))
    return text_format.Parse(next(Path(folder).glob("*LlmMetadata*")).read_text(), llm_metadata_pb2.LlmMetadata())


@pytest.mark.slow
def test_engine_writes_the_same_story(stories, tokenizer, tmp_path):
    pytest.importorskip("litert_lm")
    tokenizer.chat_template = CHAT
    report = export(stories, tmp_path / "stories.litertlm", "litert_lm", tokenizer=tokenizer, max_length=96)
    assert [signature.name for signature in report.signatures] == ["decode", "prefill_16", "prefill_64"]
    runner = litert_lm.open(report.path)
    for text in ("Once upon a time", 'Lily said: "No!"'):
        assert runner.generate_text(text, 64) == written(stories, tokenizer, text, 64)
    ids = np.array([[1, 403, 407, 261]])
    assert runner.max_length == 96
    np.testing.assert_array_equal(runner.generate(ids, 8), stories.generate(ids, max_new_tokens=8, jit_compile=False))
    metadata = metadata_of(report.path, tmp_path / "parts")
    assert metadata.max_num_tokens == 96
    assert metadata.start_token.token_ids.ids == [1]
    assert [token.token_ids.ids for token in metadata.stop_tokens] == [[2]]
    assert metadata.llm_model_type.WhichOneof("model_type") == "generic_model"
    assert metadata.jinja_prompt_template == CHAT


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_engine_of_other_families(name, tmp_path):
    pytest.importorskip("litert_lm")
    tokenizer = tokenizer_of(name, tmp_path)
    model = small_models.make(name, "ForCausalLM", vocab_size=len(tokenizer) + 3)
    path = tmp_path / "model.litertlm"
    runner = litert_lm.open(export(model, path, "litert_lm", tokenizer=tokenizer, max_length=32).path)
    text = "The meaning of life, in 3 words:"
    assert runner.generate_text(text, 12) == written(model, tokenizer, text, 12)
    if name == "gpt_neo":
        # The prompt's last 64 tokens of room are padding that reaches beyond the cache.
        assert runner.generate_text(text + " a b c d e f", 8) == written(model, tokenizer, text + " a b c d e f", 8)


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_stories15m(stories15m, tmp_path, quantize):
    pytest.importorskip("litert_lm")
    model = tfmodels.TFLlamaForCausalLM.from_pretrained(stories15m)
    tokenizer = tfmodels.AutoTokenizer.from_pretrained(stories15m)
    path = tmp_path / "model.litertlm"
    runner = litert_lm.open(export(model, path, "litert_lm", tokenizer=str(stories15m), quantize=quantize).path)
    new = 64 if quantize is None else 16
    assert runner.generate_text("Once upon a time", new) == written(model, tokenizer, "Once upon a time", new)


# What cannot be ------------------------------------------------------------------------------------------------------


def test_needs_a_tokenizer(stories, tmp_path):
    with pytest.raises(ValueError, match="needs tokenizer=, a tokenizer or where to find one"):
        export(stories, tmp_path / "model.litertlm", "litert_lm")


def test_needs_a_language_model(tokenizer, tmp_path):
    model = small_models.make("mpnet", "ForMaskedLM")
    with pytest.raises(ValueError, match="TFMPNetForMaskedLM does not generate text"):
        export(model, tmp_path / "model.litertlm", "litert_lm", tokenizer=tokenizer)


def test_tokenizer_of_another_model(tokenizer, tmp_path):
    model = small_models.make("llama", "ForCausalLM")
    with pytest.raises(ValueError, match="the tokenizer has 512 tokens, the model's vocabulary 61"):
        export(model, tmp_path / "model.litertlm", "litert_lm", tokenizer=tokenizer)


def test_tokenizer_that_ends_texts(stories, tokenizer, tmp_path):
    tokenizer.add_eos_token = True
    with pytest.raises(ValueError, match=r"puts \['<s>', '</s>'\] around a text; .*add_eos_token=False"):
        export(stories, tmp_path / "model.litertlm", "litert_lm", tokenizer=tokenizer)


def test_needs_an_end_of_sequence_token(tmp_path):
    from tokenizers import Tokenizer, models

    words = tfmodels.tokenization.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    )
    model = small_models.make("mpt", "ForCausalLM")
    with pytest.raises(ValueError, match="an end-of-sequence token, which LiteRT-LM needs: set eos_token_id"):
        export(model, tmp_path / "model.litertlm", "litert_lm", tokenizer=words)


def test_missing_extra(stories, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_lm_builder", None)
    with pytest.raises(ImportError, match=r"needs litert_lm_builder, .*pip install 'tfmodels\[export\]'"):
        export(stories, tmp_path / "model.litertlm", "litert_lm", tokenizer=tokenizer)
