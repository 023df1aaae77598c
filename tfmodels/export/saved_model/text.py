"""Tokenizers inside a SavedModel, by TensorFlow Text: strings in; vectors, labels or text out.

What can be put in a graph exactly: SentencePiece models (`tokenizer.model` of Llama checkpoints) and uncased WordPiece
(MPNet). Byte-level BPE (GPT-2, GPT-NeoX, MPT, Llama 3) cannot, and says so. Ids are the tokenizer's own, except that a
special token written out in a text ("</s>") is cut like any other text, as it should be where strangers write them.

Signatures:

- `serving_text`: `text` (batch,) to what `serving_default` gives and, for sequence classification, `label` and
  `scores`.
- `generate_text`: `text` (batch,), `max_new_tokens` to `text`, prompt and greedy continuation.

Whoever loads the SavedModel needs TensorFlow Text's operators: TensorFlow Serving has them, Python gets them by
`import tensorflow_text`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.checkpoints import hub
from tfmodels.export.extras import require
from tfmodels.export.models import causal, transformer_of
from tfmodels.export.saved_model.functions import graph_function
from tfmodels.tokenization.pipeline import SPACE, leaves_leading_spaces
from tfmodels.utils.text import quote

_PURPOSE = 'signatures="text"'
_EXAMPLES = ("Once upon a time", "Good morning")
# Texts that tokenizers of other options cut in other ways.
_SAMPLES = ("Once Upon", " a", " ", "a  b", "\n a ", "")


def check(model: Any, tokenizer: Any) -> None:
    """Raise where a model has no text signatures.

    Raises:
        ImportError: tensorflow-text is not installed.
        ValueError: the head takes more than one text, there is no tokenizer, or it cannot be put in a graph.
    """
    if not transformer_of(model).takes_one_text:
        raise ValueError(f"{_PURPOSE}: {type(model).__name__} takes several texts at once and has no such signature.")
    require("tensorflow_text", "text", _PURPOSE)
    if tokenizer is None:
        raise ValueError(f"{_PURPOSE} needs the model's tokenizer: pass tokenizer=AutoTokenizer.from_pretrained(...).")
    tokenizer_in_graph(tokenizer)


def signatures(model: Any, functions: dict[str, Any], own: Any, module: tf.Module, limit: int) -> dict[str, Any]:
    """Make the text signatures.

    Args:
        model: the model.
        functions: its other signatures, which these call.
        own: its tokenizer.
        module: what is saved; it gets the tokenizer's resources.
        limit: most tokens of a text, or of prompt and continuation.
    """
    module.tokenizer = tokenizer = tokenizer_in_graph(own)
    config = transformer_of(model).config
    texts = {"text": tf.TensorSpec((None,), tf.string, name="text")}
    if causal(model):
        pad = config.pad_token_id if config.pad_token_id is not None else 0

        def generate_text(text: Any, max_new_tokens: Any) -> dict[str, Any]:
            ids = tokenizer.encode(text, limit - 1)
            # Padded on the left: rows turned around, padded and turned back.
            mask = tf.ones_like(ids)[:, ::-1].to_tensor()[:, ::-1]
            prompt = ids[:, ::-1].to_tensor(pad)[:, ::-1]
            eos = tf.constant(np.asarray(model.generation_config.eos_token_ids, "int32"))
            sequences = functions["generate"](prompt, mask, max_new_tokens, eos)["sequences"]
            added = sequences[:, tf.shape(prompt)[1] :]
            return {"text": tokenizer.decode(tf.concat([ids, tf.RaggedTensor.from_tensor(added)], axis=1))}

        specs = {**texts, "max_new_tokens": tf.TensorSpec((), tf.int32, name="max_new_tokens")}
        return {"generate_text": graph_function(generate_text, specs, {"max_new_tokens": min(128, limit - 1)})}

    labels = None
    if transformer_of(model).classifies_texts and config.num_labels > 1:
        labels = tf.constant([config.id2label[index] for index in range(config.num_labels)])
    several = config.problem_type == "multi_label_classification"
    settings = getattr(model, "settings", None)
    # As `SentenceEncoder.encode` prepares its texts and limits their length.
    prompt = settings.prompts.get(settings.default_prompt_name, "") if settings else ""
    lengths = (limit, getattr(settings, "max_seq_length", None), own.model_max_length)
    longest = min(length for length in lengths if length is not None)

    def serving_text(text: Any) -> dict[str, Any]:
        if settings:
            text = tf.strings.strip(prompt + text)
            text = tf.strings.lower(text, encoding="utf-8") if settings.lower_case else text
        ids = tokenizer.encode(text, longest)
        pad = config.pad_token_id if config.pad_token_id is not None else 0
        output = functions["serving_default"](ids.to_tensor(pad), tf.ones_like(ids).to_tensor())
        if labels is None:
            return output
        logits = output["logits"]
        scores = tf.sigmoid(logits) if several else tf.nn.softmax(logits)
        return {**output, "scores": scores, "label": tf.gather(labels, tf.argmax(logits, axis=-1))}

    return {"serving_text": graph_function(serving_text, texts)}


def example_requests(functions: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Make inputs of the text signatures, for warming up and for showing."""
    text = {"text": np.array(_EXAMPLES, "object")}
    requests = {"serving_text": [text], "generate_text": [{**text, "max_new_tokens": np.int32(2)}]}
    return {name: inputs for name, inputs in requests.items() if name in functions}


# Tokenizers ----------------------------------------------------------------------------------------------------------


def tokenizer_in_graph(tokenizer: Any) -> SentencePiece | WordPiece:
    """A tokenizer as graph operations.

    Raises:
        ValueError: it is of a kind that cannot be put in a graph; the message says which can.
    """
    backend = json.loads(tokenizer._tokenizer.to_str())
    kind = backend["model"]["type"]
    if kind == "WordPiece" and (backend["normalizer"] or {}).get("type") == "BertNormalizer":
        return WordPiece(tokenizer, backend)
    if kind == "BPE" and backend["model"].get("byte_fallback"):
        return SentencePiece(tokenizer)
    raise ValueError(
        f"{_PURPOSE}: {type(tokenizer).__name__} is byte-level BPE or of another kind that TensorFlow Text cannot cut "
        f"alike; SentencePiece (Llama) and WordPiece (MPNet) can be put in a graph. Send token ids instead."
    )


class SentencePiece(tf.Module):
    """Llama's tokenizer, from its `tokenizer.model`."""

    def __init__(self, tokenizer: Any):
        super().__init__()
        try:
            file = hub.resolve(tokenizer.name_or_path, patterns=("tokenizer.model",)) / "tokenizer.model"
            model = Path(file).read_bytes()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{_PURPOSE} needs the SentencePiece file tokenizer.model beside the tokenizer; "
                f"{tokenizer.name_or_path or 'this tokenizer'} has none."
            ) from error
        text = require("tensorflow_text", "text", _PURPOSE)
        self.leaves_leading_spaces = leaves_leading_spaces(tokenizer.backend_tokenizer)
        ends = {"add_bos": tokenizer.add_bos_token, "add_eos": tokenizer.add_eos_token}
        self.pieces = text.SentencepieceTokenizer(model, out_type=tf.int32, **ends)
        if int(self.pieces.vocab_size()) != tokenizer.vocab_size:
            raise ValueError(
                f"{file} has {int(self.pieces.vocab_size())} tokens, its tokenizer {tokenizer.vocab_size}."
            )
        self.lone_space = tf.constant([tokenizer(" ")["input_ids"]], tf.int32)
        for sample in _SAMPLES:
            if self.encode(tf.constant([sample]), 1 << 20).to_list() != tokenizer([sample])["input_ids"]:
                raise ValueError(
                    f"{_PURPOSE}: {file} does not cut {quote(sample)} as this tokenizer does, whose options (such as "
                    "add_prefix_space) are not the file's. Load it without them, or send token ids instead."
                )

    def encode(self, text: Any, longest: int) -> Any:
        """Ids of texts (batch,), int32 ragged (batch, length), cut on the right."""
        if not self.leaves_leading_spaces:
            return self.pieces.tokenize(text)[:, :longest]
        # SentencePiece puts a space in front of every text that holds anything, so none is cut as a space alone is.
        ids = self.pieces.tokenize(tf.strings.regex_replace(text, f"^[ {SPACE}]", ""))
        is_space = tf.strings.regex_full_match(text, f"[ {SPACE}]")
        rows = tf.where(is_space, tf.cast(ids.nrows(), tf.int32), tf.range(tf.size(text)))
        lone_space = tf.RaggedTensor.from_tensor(self.lone_space, row_splits_dtype=ids.row_splits.dtype)
        return tf.gather(tf.concat([ids, lone_space], axis=0), rows)[:, :longest]

    def decode(self, ids: Any) -> Any:
        """Texts of ragged ids; control tokens give nothing."""
        return self.pieces.detokenize(ids)


class WordPiece(tf.Module):
    """MPNet's tokenizer.

    TensorFlow Text's own lower-casing also folds compatibility characters, so the text is prepared here as the
    tokenizer does it: control characters go, accents are parted from their letters and go, letters become small.
    """

    def __init__(self, tokenizer: Any, backend: dict[str, Any]):
        super().__init__()
        normalizer = backend["normalizer"]
        lower, accents = normalizer["lowercase"], normalizer["strip_accents"]
        if not (normalizer["clean_text"] and normalizer["handle_chinese_chars"]):
            raise ValueError(
                f"{_PURPOSE}: only tokenizers with clean_text and tokenize_chinese_chars can be in a graph."
            )
        self._text = require("tensorflow_text", "text", _PURPOSE)
        self.lower, self.strip_accents = lower, lower if accents is None else accents
        words = backend["model"]["vocab"]
        entries = tf.lookup.KeyValueTensorInitializer(list(words), tf.constant(list(words.values()), tf.int64))
        self.table = tf.lookup.StaticVocabularyTable(entries, num_oov_buckets=1)
        self.words = require("tensorflow_text.python.ops.bert_tokenizer", "text", _PURPOSE).BasicTokenizer()
        self.longest_word = backend["model"]["max_input_chars_per_word"]
        self.pieces = self._text.WordpieceTokenizer(
            self.table,
            suffix_indicator=backend["model"]["continuing_subword_prefix"],
            max_bytes_per_word=4 * self.longest_word,
            unknown_token=backend["model"]["unk_token"],
            token_out_type=tf.int64,
        )
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id

    def encode(self, text: Any, longest: int) -> Any:
        """Ids of texts (batch,), int32 ragged (batch, length), cut on the right between the two special tokens."""
        text = tf.strings.regex_replace(text, r"[^\P{C}\t\n\r]|\x{FFFD}", "")
        text = tf.strings.regex_replace(text, r"[\t\n\r\p{Z}]", " ")
        if self.strip_accents:
            text = tf.strings.regex_replace(self._text.normalize_utf8(text, "NFD"), r"\p{Mn}", "")
        if self.lower:
            # Letter by letter: a capital sigma at a word's end becomes the common small one.
            text = tf.strings.lower(tf.strings.regex_replace(text, "\u03a3", "\u03c3"), encoding="utf-8")
        # TensorFlow Text counts a word's bytes, the tokenizer its characters; what is in no vocabulary is unknown.
        words = tf.ragged.map_flat_values(
            lambda word: tf.where(tf.strings.length(word, "UTF8_CHAR") > self.longest_word, "\ufffd", word),
            self.words.tokenize(text),
        )
        ids = tf.cast(self.pieces.tokenize(words).merge_dims(-2, -1), tf.int32)[:, : longest - 2]
        column = tf.ones_like(ids[:, :0].to_tensor(shape=(None, 1)))
        return tf.concat([column * self.start, ids, column * self.end], axis=1)
