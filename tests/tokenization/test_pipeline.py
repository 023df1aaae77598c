"""Changing how a backend treats spaces, case and special tokens."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from vocabulary_files import (
    byte_level_files,
    tiny_sentencepiece,
)

from tfmodels.tokenization import pipeline
from tfmodels.tokenization.conversions.byte_level import byte_level_backend


def test_space_behind_special_tokens():
    backend = tiny_sentencepiece()
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "b"]
    assert backend.encode("</s>b").tokens == ["</s>", "b"]
    pipeline.configure(backend, legacy=True)
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "▁b"]
    assert backend.encode(" a</s> b").tokens == ["▁", "▁a", "</s>", "▁", "▁b"]
    pipeline.configure(backend, legacy=False)
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "b"]


@pytest.mark.parametrize("legacy", [False, True])
def test_prefix_space_off_and_on(legacy):
    backend = tiny_sentencepiece()
    pipeline.configure(backend, legacy=legacy, add_prefix_space=False)
    assert backend.encode("a b").tokens == ["a", "▁b"]
    assert backend.decode(backend.encode(" a b").ids) == " a b"
    pipeline.configure(backend, legacy=legacy, add_prefix_space=True)
    assert backend.encode("a b").tokens == ["▁a", "▁b"]
    assert backend.decode(backend.encode(" a b").ids) == " a b"


@pytest.mark.parametrize(
    ("scheme", "legacy"),
    [("always", True), ("first", False)],
)
def test_spaces_of_other_pipelines_are_understood(scheme, legacy):
    # As transformers writes them; an unrelated change keeps what they do behind special tokens.
    backend = tiny_sentencepiece()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    pipeline.configure(backend, add_prefix_space=True)
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "▁b" if legacy else "b"]
    assert backend.encode(" a").tokens == ["▁", "▁a"]


def test_prefix_space_of_byte_level(tmp_path):
    vocabulary = {letter: index for index, letter in enumerate(["a", "b", "Ġ", "Ġa", "Ġb"])}
    backend = byte_level_backend(*byte_level_files(tmp_path, vocabulary, "Ġ a\nĠ b\n"))
    pipeline.configure(backend, add_prefix_space=True, trim_offsets=True)
    encoding = backend.encode("a b")
    assert encoding.tokens == ["Ġa", "Ġb"]
    assert encoding.offsets == [(0, 1), (2, 3)]
    pipeline.configure(backend, trim_offsets=False)
    assert backend.encode("a b").offsets == [(0, 1), (1, 3)]
    pipeline.configure(backend, add_prefix_space=False)
    assert backend.encode("a b").tokens == ["a", "Ġb"]


def test_options_without_effect_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do_lower_case=False has nothing to act on"):
        pipeline.configure(tiny_sentencepiece(), do_lower_case=False)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="this one cuts text by Whitespace"):
        pipeline.configure(words, legacy=True)


def test_template_keeps_byte_level_offsets(tmp_path):
    vocabulary = {letter: index for index, letter in enumerate(["a", "b", "Ġ", "Ġb", "<s>"])}
    backend = byte_level_backend(*byte_level_files(tmp_path, vocabulary, "Ġ b\n"), nfc=True)
    backend.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    pipeline.set_template(backend, "<s>", None)
    encoding = backend.encode("a b", "b")
    assert encoding.tokens == ["<s>", "a", "Ġb", "<s>", "b"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]
    assert encoding.offsets == [(0, 0), (0, 1), (2, 3), (0, 0), (0, 1)]
    pipeline.set_template(backend, None, "<s>")
    assert backend.encode("a b").tokens == ["a", "Ġb", "<s>"]
    pipeline.set_template(backend, None, None)
    assert backend.encode("a b").tokens == ["a", "Ġb"]


def test_template_errors():
    backend = tiny_sentencepiece()
    with pytest.raises(ValueError, match="'<bos>', to be added to every text, is not in the vocabulary"):
        pipeline.set_template(backend, "<bos>", None)
    backend.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    with pytest.raises(ValueError, match="cannot change this tokenizer's BertProcessing"):
        pipeline.set_template(backend, "<s>", None)


@pytest.mark.parametrize(
    ("processor", "single", "pair"),
    [
        (None, ([], [], []), ([], [], [])),
        (processors.BertProcessing(("</s>", 2), ("<s>", 1)), ([1], [], [2]), ([1], [2], [2])),
        (processors.RobertaProcessing(("</s>", 2), ("<s>", 1)), ([1], [], [2]), ([1], [2, 2], [2])),
        (
            processors.TemplateProcessing("$A </s>", "<s> $A </s> $B", [("<s>", 1), ("</s>", 2)]),
            ([], [], [2]),
            ([1], [2], []),
        ),
    ],
)
def test_special_frame(processor, single, pair):
    backend = tiny_sentencepiece()
    if processor is not None:
        backend.post_processor = processor
    assert pipeline.special_frame(backend, pair=False) == single
    assert pipeline.special_frame(backend, pair=True) == pair
