"""Cross-encoders: scores of pairs of texts, which one model reads together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.auto import TFAutoModelForSequenceClassification
from tfmodels.checkpoints import hub
from tfmodels.kernels import decoding
from tfmodels.layers.activations import get_activation
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.runtime.buckets import bucket_batch, bucket_length
from tfmodels.runtime.device import has_gpu
from tfmodels.runtime.gc import pause_gc
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.sentence.config import ACTIVATIONS, cross_encoder_settings, write_cross_encoder
from tfmodels.tokenization import AutoTokenizer
from tfmodels.utils.arguments import old_name
from tfmodels.utils.files import staged
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

Activation = str | Callable[[np.ndarray], Any] | None


class CrossEncoder:
    """A sequence classifier that scores pairs of texts, such as a query and a document.

    Names of methods and arguments are those of sentence-transformers.

    Args:
        model_name_or_path: folder or hub id, or a `...ForSequenceClassification` model.
        tokenizer: of the model; default: the one beside its files.
        num_labels: number of scores per pair; default: what the files say.
        max_length: pairs are cut to so many tokens, the longer text first; None: to what model and tokenizer can do.
        activation_fn: what makes scores of logits: a name ("sigmoid", "tanh", "linear" for none, ...), or a function
            of float32 (pairs, labels). None: what the files say, else the sigmoid for one label and none for several.
        prompts: texts to put in front of the first text of each pair, by name; default: what the files say.
        default_prompt_name: the prompt that is put in front where none is asked for.
        dtype, attn_implementation: as in `TFPreTrainedModel.from_pretrained`.
        **hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder`.

    Attributes:
        model: trains and exports as any model does.

    Raises:
        FileNotFoundError: no such folder, or no weights in it.
        ValueError: broken files; modules or an activation that are not known here.
        TypeError: an unknown argument.

    Source:
        Nogueira and Cho, https://arxiv.org/abs/1901.04085; Reimers and Gurevych, https://arxiv.org/abs/1908.10084.

    Example:
        >>> from tfmodels import BertConfig, BertTokenizer, CrossEncoder, TFBertForSequenceClassification
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rain", "sun"]
        >>> config = BertConfig(len(words), 8, 1, 2, 8, num_labels=1)
        >>> encoder = CrossEncoder(TFBertForSequenceClassification(config), tokenizer=BertTokenizer(vocab=words))
        >>> encoder.predict([("rain", "sun"), ("sun", "sun sun")]).shape
        (2,)
        >>> [one["corpus_id"] for one in encoder.rank("rain", ["sun"])]
        [0]
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike | TFPreTrainedModel,
        *,
        tokenizer: Any = None,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        dtype: Any = None,
        attn_implementation: str | None = None,
        **hub_options: Any,
    ):
        hub_options, unknown = hub.split_options(hub_options)
        if unknown:
            raise TypeError(f"CrossEncoder got an unknown argument {quote(next(iter(unknown)))}.")
        settings: dict[str, Any] = {}
        if isinstance(model_name_or_path, TFPreTrainedModel):
            given = {"num_labels": num_labels, "dtype": dtype, "attn_implementation": attn_implementation}
            wrong = [name for name, value in {**given, **hub_options}.items() if value is not None]
            if wrong:
                raise TypeError(f"CrossEncoder takes {wrong[0]} for a folder or hub id; a model was given.")
            self.model = model_name_or_path
        else:
            settings = cross_encoder_settings(hub.resolve(model_name_or_path, patterns=("*.json",), **hub_options))
            changes = {} if num_labels is None else {"num_labels": num_labels}
            options = {"dtype": dtype, "attn_implementation": attn_implementation, **changes, **hub_options}
            self.model = TFAutoModelForSequenceClassification.from_pretrained(model_name_or_path, **options)
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **hub_options)
        if not self.model.classifies_texts:
            raise TypeError(
                f"{type(self.model).__name__} scores no texts; a ...ForSequenceClassification was expected."
            )
        self.tokenizer = tokenizer
        self.max_seq_length = settings.get("max_seq_length") if max_length is None else max_length
        self.prompts = dict(settings.get("prompts") or {}) if prompts is None else dict(prompts)
        self.default_prompt_name = default_prompt_name or settings.get("default_prompt_name")
        if activation_fn is None:
            activation_fn = settings.get("activation_fn") or _stored_activation(self.model.config)
        if activation_fn is None:
            activation_fn = "sigmoid" if self.num_labels == 1 else "linear"
        self.activation_fn = _checked_activation(activation_fn)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **options: Any) -> CrossEncoder:
        """Read a checkpoint; arguments as of the constructor."""
        return cls(name_or_path, **options)

    @property
    def num_labels(self) -> int:
        """Number of scores per pair."""
        return self.model.config.num_labels

    @property
    def config(self) -> Any:
        """The configuration of the model."""
        return self.model.config

    @old_name("sentences", "inputs")
    @old_name("activation_fct", "activation_fn")
    def predict(
        self,
        inputs: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        *,
        jit_compile: bool | None = None,
    ) -> Any:
        """Scores of pairs of texts.

        Pairs of similar length share a batch, the longest go first.

        Args:
            inputs: pairs of texts, or one pair.
            prompt_name: one of the prompts, put in front of the first text of every pair.
            prompt: a text to put in front instead.
            batch_size: pairs at a time.
            show_progress_bar: whether to show a progress bar; None does not.
            activation_fn: in place of the cross-encoder's.
            apply_softmax: with several labels, make their scores sum to 1, after the activation.
            convert_to_numpy: whether to return an array rather than a list of tensors.
            convert_to_tensor: whether to return one tensor.
            jit_compile: compile by XLA. Default: where there is a GPU.

        Returns:
            float32 (pairs,) for one label, (pairs, labels) for several; without the first axis for one pair.

        Raises:
            TypeError: `inputs` holds something else than pairs of texts.
            ValueError: no tokenizer, an unknown prompt, a batch size below 1.
        """
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(f"batch_size={quote(batch_size)}; a positive number was expected.")
        pairs, single = _pairs_of(inputs)
        rows = self._tokenize(pairs, self._prompt(prompt_name, prompt))
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
        starts: Iterable[int] = range(0, len(rows), batch_size)
        if show_progress_bar:
            from rich.progress import track

            starts = track(starts, description="Scoring")
        jit_compile = has_gpu() if jit_compile is None else jit_compile
        logits = np.zeros((len(rows), self.num_labels), "float32")
        for start in starts:
            own = order[start : start + batch_size]
            arrays = self._pad([rows[index] for index in own], to_buckets=jit_compile)
            logits[own] = ops.convert_to_numpy(self._run(arrays, jit_compile))[: len(own)]
        scores = self._scores(logits, activation_fn, bool(apply_softmax))
        scores = scores[0] if single else scores
        if convert_to_tensor:
            return ops.convert_to_tensor(scores)
        return scores if convert_to_numpy or single else [ops.convert_to_tensor(score) for score in scores]

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation = None,
    ) -> list[dict[str, Any]]:
        """Sort documents by how well they fit a query.

        Args:
            query: the first text of each pair.
            documents: the second ones.
            top_k: return so many; None for all.
            return_documents: whether to return the documents, too.
            prompt_name, prompt, batch_size, show_progress_bar, activation_fn: as of `predict`.

        Returns:
            Dicts of `corpus_id`, the document's number, `score`, and `text` where it is asked for, best first.

        Raises:
            ValueError: the model has several labels.
        """
        if self.num_labels != 1:
            raise ValueError(
                f"rank needs one score per pair; this model has num_labels={self.num_labels}: use predict."
            )
        documents = list(documents)
        pairs = [(query, document) for document in documents]
        scores = self.predict(pairs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn)
        results = [{"corpus_id": index, "score": float(score)} for index, score in enumerate(scores)]
        if return_documents:
            results = [{**result, "text": documents[result["corpus_id"]]} for result in results]
        return sorted(results, key=lambda result: result["score"], reverse=True)[:top_k]

    def _scores(self, logits: np.ndarray, activation_fn: Activation, apply_softmax: bool) -> np.ndarray:
        activation = self.activation_fn if activation_fn is None else _checked_activation(activation_fn)
        function = get_activation(activation) if isinstance(activation, str) else activation
        scores = np.asarray(ops.convert_to_numpy(function(logits)), "float32")
        if self.num_labels == 1:
            return scores.reshape(len(logits))
        if apply_softmax:
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
        return scores

    def _prompt(self, name: str | None, text: str | None) -> str:
        if text is not None:
            return text
        if name is not None and name not in self.prompts:
            known = ", ".join(self.prompts) or "no prompts"
            raise ValueError(f"prompt_name={quote(name)} is unknown; there are {known}.")
        return self.prompts.get(self.default_prompt_name if name is None else name, "")

    def _tokenize(self, pairs: list[tuple[str, str]], prompt: str) -> list[tuple[list[int], list[int]]]:
        """Ids and token types of each pair; no types where the model takes none."""
        if self.tokenizer is None:
            raise ValueError("this CrossEncoder has no tokenizer: set its `tokenizer` to score texts.")
        if not pairs:
            return []
        limits = (self.max_seq_length, self.model.backbone.longest_input, self.tokenizer.model_max_length)
        longest = min(limit for limit in limits if limit is not None)
        cut = {"truncation": True, "max_length": longest} if longest < 1 << 30 else {"truncation": False}
        firsts, seconds = [prompt + first for first, _ in pairs], [second for _, second in pairs]
        encoded = self.tokenizer(firsts, seconds, return_attention_mask=False, **cut)
        takes_types = "token_type_ids" in self.model.input_names and "token_type_ids" in encoded
        types = encoded["token_type_ids"] if takes_types else [[] for _ in pairs]
        return list(zip(encoded["input_ids"], types, strict=True))

    def _pad(self, rows: list[tuple[list[int], list[int]]], to_buckets: bool) -> tuple[Any, ...]:
        """Ids, mask and, where there are some, token types, int32 (batch, length), padded on the right."""
        batch, length = len(rows), max(1, *(len(ids) for ids, _ in rows))
        if to_buckets:
            limit = self.model.backbone.longest_input
            batch, length = bucket_batch(batch), min(bucket_length(length), limit or bucket_length(length))
        pad = self.tokenizer.pad_token_id
        ids = np.full((batch, length), (self.config.pad_token_id or 0) if pad is None else pad, "int32")
        mask, types = np.zeros((2, batch, length), "int32")
        for index, (own, own_types) in enumerate(rows):
            ids[index, : len(own)], mask[index, : len(own)] = own, 1
            types[index, : len(own_types)] = own_types
        arrays = (ids, mask, types) if rows[0][1] else (ids, mask)
        return tuple(map(ops.convert_to_tensor, arrays))

    def _run(self, arrays: tuple[Any, ...], jit_compile: bool) -> Any:
        """The logits as a compiled program: of one shape by XLA, else of any."""
        variables = self.model.variables if keras.backend.backend() == "jax" else ()
        run = self._logits_for_device if jit_compile else self._logits
        key = ("pairs", len(arrays))
        return self.model.programs.run(
            key, run, *arrays, jit_compile=jit_compile, variables=variables, any_shape=not jit_compile
        )

    def _logits(self, ids: Any, mask: Any, types: Any = None, *, lowering: Lowering = PLAIN) -> Any:
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= {} if types is None else {"token_type_ids": types}
        return ops.cast(self.model(**inputs, lowering=lowering).logits, "float32")

    def _logits_for_device(self, *arrays: Any) -> Any:
        with pause_gc():
            return self._logits(*arrays, lowering=decoding.for_xla())

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write a folder that `CrossEncoder` here and in sentence-transformers load.

        A warning says where the activation is a function, which files cannot hold.
        """
        path = next((path for path, name in ACTIVATIONS.items() if name == self.activation_fn), None)
        if path is None:
            warn(
                f"{quote(self.activation_fn)} is not written; give activation_fn again where {os.fspath(folder)} is "
                f"loaded."
            )
        self.config.update({"sentence_transformers": {} if path is None else {"activation_fn": path}})
        with staged(folder) as stage:
            self.model.write_files(stage)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(stage.folder)
            write_cross_encoder(stage.folder, self.max_seq_length, self.prompts, self.default_prompt_name)


def _stored_activation(config: Any) -> str | None:
    """The activation that a model's config.json names, as sentence-transformers writes it."""
    stored = getattr(config, "sentence_transformers", None)
    path = stored.get("activation_fn") if isinstance(stored, dict) else None
    return path or getattr(config, "sbert_ce_default_activation_function", None)


def _checked_activation(activation: Any) -> str | Callable[[np.ndarray], Any]:
    """An activation by its name here, from a name or from the path of PyTorch's class.

    Raises:
        ValueError: it is unknown.
    """
    if callable(activation):
        return activation
    known = {path.rsplit(".", 1)[-1]: name for path, name in ACTIVATIONS.items()}
    if isinstance(activation, str) and activation.startswith("torch.") and activation.rsplit(".", 1)[-1] in known:
        return known[activation.rsplit(".", 1)[-1]]
    if activation not in known.values():
        raise ValueError(
            f"activation_fn={quote(activation)}; {', '.join(sorted(known.values()))} or a function was expected."
        )
    return activation


def _pairs_of(inputs: Any) -> tuple[list[tuple[str, str]], bool]:
    """Pairs of texts as a list, and whether one pair was given."""
    inputs = inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
    if isinstance(inputs, (str, bytes, dict)) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs={quote(inputs)}; pairs of texts were expected.")
    inputs = list(inputs)
    single = bool(inputs) and isinstance(inputs[0], str)
    pairs = [inputs] if single else inputs
    for index, pair in enumerate(pairs):
        whole = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        if not whole:
            raise TypeError(f"inputs[{index}]={quote(pair)}; a pair of texts was expected.")
    return [(first, second) for first, second in pairs], single
