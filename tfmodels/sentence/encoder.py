"""Sentence embeddings: texts to vectors. The file is long because it is one class, `SentenceEncoder`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tfmodels.auto import TFAutoModel
from tfmodels.checkpoints import CheckpointError, TensorSpec, hub, open_checkpoint, write_checkpoint
from tfmodels.dtypes import dtype_name
from tfmodels.kernels import decoding
from tfmodels.layers.activations import get_activation
from tfmodels.layers.linear import build_all, linear
from tfmodels.layers.norms import layer_norm
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.calling import CallingConvention
from tfmodels.models.outputs import SentenceEmbeddingOutput
from tfmodels.models.training import TrainedModel
from tfmodels.runtime.buckets import bucket_batch, bucket_length
from tfmodels.runtime.compile import ProgramCache
from tfmodels.runtime.device import has_gpu, in_turn
from tfmodels.runtime.gc import pause_gc
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.sentence.config import (
    MODULES_NAME,
    Dense,
    Dropout,
    LayerNorm,
    Part,
    SentenceFolder,
    part_of,
    read_folder,
    write_folder,
)
from tfmodels.sentence.pooling import Pooling
from tfmodels.sentence.similarity import SIMILARITIES, similarity
from tfmodels.tokenization import AutoTokenizer
from tfmodels.utils.arguments import old_name
from tfmodels.utils.files import staged
from tfmodels.utils.text import quote

# PyTorch's default, which sentence-transformers keeps.
_NORM_EPSILON = 1e-5


class SentenceEncoder(CallingConvention, TrainedModel):
    """A model with pooling, and what follows it, as one Keras model: ids and mask in, one vector per text out.

    Called with `input_ids` and `attention_mask`, int (batch, length), it gives a `SentenceEmbeddingOutput`; it
    composes and trains as any Keras model does, with the vectors as its prediction. `encode` takes texts.

    Args:
        model: a bare model such as `TFMPNetModel`.
        tokenizer: what `encode` makes ids with; it is no part of a `.keras` file, nor of a copy.
        pooling: modes of `tfmodels.sentence.pooling.Pooling`.
        tail: what follows: "normalize", dicts of `out_features`, `bias` and `activation` for dense layers,
            {"layer_norm": size} or {"dropout": rate}.
        max_seq_length: texts are cut to so many tokens; None: to what model and tokenizer can do.
        lower_case: whether texts become lower case before they are tokenized.
        prompts: texts to put in front, by name.
        default_prompt_name: the prompt that is put in front where none is asked for.
        truncate_dim: `encode` and exports return so many of the first values of each vector; None: all. Calling the
            model returns all of them.
        similarity_fn_name: how `similarity` compares: "cosine" (default), "dot", "euclidean" or "manhattan".
        more_settings, more_sentence: further content of sentence_bert_config.json and
            config_sentence_transformers.json, written again.
    """

    input_names: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")

    # The programs that `encode` has compiled.
    _programs: ProgramCache | None = None

    def __init__(
        self,
        model: TFPreTrainedModel,
        tokenizer: Any = None,
        *,
        pooling: Iterable[str] = ("mean",),
        tail: Iterable[str | dict[str, Any]] = (),
        max_seq_length: int | None = None,
        lower_case: bool = False,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        similarity_fn_name: str | None = None,
        more_settings: dict[str, Any] | None = None,
        more_sentence: dict[str, Any] | None = None,
        name: str | None = None,
    ):
        if isinstance(model, (str, os.PathLike)):
            raise TypeError(
                f"model={quote(str(model))}: a model is expected; SentenceEncoder.from_pretrained loads one from a "
                f"folder or the hub."
            )
        super().__init__(name=name, dtype=model.dtype_policy)
        self.model = model
        self.tokenizer = tokenizer
        parts = [part_of(part) for part in tail]
        if similarity_fn_name is not None and similarity_fn_name not in SIMILARITIES:
            raise ValueError(
                f"similarity_fn_name={quote(similarity_fn_name)}; {', '.join(SIMILARITIES)} were expected."
            )
        self.settings = SentenceFolder(
            pooling=tuple(pooling),
            tail=parts,
            max_seq_length=max_seq_length,
            lower_case=lower_case,
            prompts=dict(prompts or {}),
            default_prompt_name=default_prompt_name,
            truncate_dim=_checked_dim(truncate_dim),
            similarity_fn_name=similarity_fn_name,
            more_settings=dict(more_settings or {}),
            more_sentence=dict(more_sentence or {}),
        )
        self.pooling = Pooling(self.settings.pooling, dtype=self.dtype_policy, name="pooling")
        self.tail = [self._tail_layer(part, index) for index, part in enumerate(parts)]
        self.build()

    def _tail_layer(self, part: Part, index: int) -> keras.layers.Layer:
        if isinstance(part, Dropout):
            return keras.layers.Dropout(part.dropout, dtype=self.dtype_policy, name=f"dropout_{index}")
        if isinstance(part, LayerNorm):
            return layer_norm(_NORM_EPSILON, dtype=self.dtype_policy, name=f"layer_norm_{index}")
        if not isinstance(part, Dense):
            return keras.layers.UnitNormalization(dtype="float32", name=f"normalize_{index}")
        options = {"std": self.model.config.initializer_range, "use_bias": part.bias, "dtype": self.dtype_policy}
        layer = linear(part.out_features, name=f"dense_{index}", **options)
        layer.activation = get_activation(part.activation)
        return layer

    def build(self, input_shape: Any = None) -> None:
        self._width = self.model.config.hidden_size * len(self.pooling.modes)
        for layer, part in zip(self.tail, self.settings.tail, strict=True):
            if isinstance(part, LayerNorm) and part.layer_norm != self._width:
                raise ValueError(
                    f"tail holds a layer_norm of {quote(part.layer_norm)} values; vectors have {self._width} there."
                )
            build_all(self._width, layer)
            self._width = getattr(layer, "units", self._width)
        self.built = True

    @property
    def dimension(self) -> int:
        """The size of the vectors that `encode` returns."""
        return min(self._width, self.settings.truncate_dim or self._width)

    def get_sentence_embedding_dimension(self) -> int:
        """The size of the vectors that `encode` returns, by the name it has in sentence-transformers."""
        return self.dimension

    @property
    def truncate_dim(self) -> int | None:
        """Number of leading values of each vector that `encode` returns; None for all."""
        return self.settings.truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self.settings.truncate_dim = _checked_dim(value)

    @property
    def similarity_fn_name(self) -> str:
        """Name of the function by which `similarity` compares vectors."""
        return self.settings.similarity_fn_name or "cosine"

    def forward(
        self, *, input_ids: Any, attention_mask: Any, training: bool | None, lowering: Lowering = PLAIN
    ) -> SentenceEmbeddingOutput:
        if attention_mask is None:
            attention_mask = ops.ones_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "training": training, "return_dict": True}
        if "use_cache" in self.model.input_names:
            inputs["use_cache"] = False
        vectors = self.pooling(self.model(**inputs, lowering=lowering).last_hidden_state, attention_mask)
        for layer in self.tail:
            vectors = layer(vectors, training=training) if isinstance(layer, keras.layers.Dropout) else layer(vectors)
        return SentenceEmbeddingOutput(sentence_embedding=vectors)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(x, y, y_pred["sentence_embedding"], *args, **kwargs)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return super().compute_metrics(x, y, y_pred["sentence_embedding"], sample_weight)

    def get_config(self) -> dict[str, Any]:
        settings = dataclasses.asdict(self.settings)
        del settings["transformer"]
        return {"model": keras.saving.serialize_keras_object(self.model), "name": self.name, **settings}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SentenceEncoder:
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config["model"])})

    # Texts -----------------------------------------------------------------------------------------------------------

    @in_turn
    @old_name("sentences", "texts")
    @old_name("normalize_embeddings", "normalize")
    @old_name("show_progress_bar", "show_progress")
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_size: int = 32,
        normalize: bool = False,
        show_progress: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        jit_compile: bool | None = None,
    ) -> Any:
        """Vectors of texts.

        sentence-transformers' names of arguments are taken, too: `sentences`, `normalize_embeddings` and
        `show_progress_bar`.

        Texts of similar length share a batch, the longest go first. By XLA, batches are padded to a few bucketed
        shapes, each compiled once; otherwise one graph serves every shape, and a batch is as long as its longest text.

        Args:
            texts: one text or many.
            batch_size: texts at a time.
            normalize: scale the vectors to length 1; many models do so by themselves.
            show_progress: show a progress bar.
            prompt_name: one of the prompts, put in front of every text.
            prompt: a text to put in front instead.
            truncate_dim: return so many of the first values of each vector; default: the encoder's.
            convert_to_numpy: return an array rather than a list of tensors.
            convert_to_tensor: return one tensor.
            jit_compile: compile by XLA. Default: where there is a GPU.

        Returns:
            float32 (texts, dimension) in the order of the texts, or (dimension,) for one text.

        Raises:
            ValueError: no tokenizer, an unknown prompt name, a batch size below 1.
            TypeError: `texts` is neither a text nor a list of texts.

        Example:
            >>> from tfmodels import AutoTokenizer, SentenceEncoder, TFAutoModel
            >>> model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModel, AutoTokenizer))
            >>> SentenceEncoder(model, tokenizer).encode(["Once upon a time", "Hello"]).shape
            (2, 64)
        """
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(f"batch_size={quote(batch_size)}; a positive number was expected.")
        single = isinstance(texts, str)
        rows = self._tokenize([texts] if single else _list_of(texts), self._prompt(prompt_name, prompt))
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        starts: Iterable[int] = range(0, len(rows), batch_size)
        if show_progress:
            from rich.progress import track

            starts = track(starts, description="Encoding")
        jit_compile = has_gpu() if jit_compile is None else jit_compile
        width = min(self._width, _checked_dim(truncate_dim) or self.dimension)
        vectors = np.zeros((len(rows), width), "float32")
        for start in starts:
            own = order[start : start + batch_size]
            ids, mask = self._pad([rows[index] for index in own], to_buckets=jit_compile)
            vectors[own] = ops.convert_to_numpy(self._run(ids, mask, jit_compile))[: len(own), :width]
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        vectors = vectors[0] if single else vectors
        if convert_to_tensor or (single and not convert_to_numpy):
            return ops.convert_to_tensor(vectors)
        return vectors if convert_to_numpy else [ops.convert_to_tensor(vector) for vector in vectors]

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Compare every vector with every other, as `similarity_fn_name` says; float32 (rows 1, rows 2)."""
        return similarity(self.similarity_fn_name, embeddings1, embeddings2, pairwise=False)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Compare vectors row by row, as `similarity_fn_name` says; float32 (rows,)."""
        return similarity(self.similarity_fn_name, embeddings1, embeddings2, pairwise=True)

    def _prompt(self, name: str | None, text: str | None) -> str:
        if text is not None:
            return text
        name = self.settings.default_prompt_name if name is None else name
        known = self.settings.prompts
        if name is not None and name not in known:
            raise ValueError(f"prompt_name={quote(name)} is unknown; there are {', '.join(known) or 'no prompts'}.")
        return known.get(name, "")

    def _tokenize(self, texts: list[str], prompt: str) -> list[list[int]]:
        if self.tokenizer is None:
            raise ValueError("this SentenceEncoder has no tokenizer: set its `tokenizer` to encode texts.")
        if not texts:
            return []
        texts = [(prompt + text).strip() for text in texts]
        if self.settings.lower_case:
            texts = [text.lower() for text in texts]
        limits = (self.settings.max_seq_length, self.model.backbone.longest_input, self.tokenizer.model_max_length)
        longest = min(limit for limit in limits if limit is not None)
        cut = {"truncation": True, "max_length": longest} if longest < 1 << 30 else {"truncation": False}
        return self.tokenizer(texts, return_attention_mask=False, **cut)["input_ids"]

    def _pad(self, rows: list[list[int]], to_buckets: bool) -> tuple[Any, Any]:
        """Ids and mask, int32 (batch, length), padded on the right."""
        batch, length = len(rows), max(1, *map(len, rows))
        if to_buckets:
            limit = self.model.backbone.longest_input
            batch, length = bucket_batch(batch), min(bucket_length(length), limit or bucket_length(length))
        ids = np.full((batch, length), self.tokenizer.pad_token_id or 0, "int32")
        mask = np.zeros((batch, length), "int32")
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return ops.convert_to_tensor(ids), ops.convert_to_tensor(mask)

    def _vectors(self, ids: Any, mask: Any, lowering: Lowering = PLAIN) -> Any:
        return ops.cast(self(input_ids=ids, attention_mask=mask, lowering=lowering).sentence_embedding, "float32")

    @property
    def programs(self) -> ProgramCache:
        """The compiled programs of `encode`."""
        if self._programs is None:
            self._programs = ProgramCache()
        return self._programs

    def _run(self, ids: Any, mask: Any, jit_compile: bool) -> Any:
        """The vectors of texts as a compiled program: of one shape by XLA, else of any."""
        variables = self.variables if keras.backend.backend() == "jax" else ()
        run = self._vectors_for_device if jit_compile else self._vectors
        return self.programs.run(
            "vectors", run, ids, mask, jit_compile=jit_compile, variables=variables, any_shape=not jit_compile
        )

    def _vectors_for_device(self, ids: Any, mask: Any) -> Any:
        with pause_gc():
            return self._vectors(ids, mask, decoding.for_xla())

    # Files -----------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        *,
        dtype: Any = None,
        attn_implementation: str | None = None,
        **hub_options: Any,
    ) -> SentenceEncoder:
        """Read what sentence-transformers wrote.

        A checkpoint without modules.json gets mean pooling, as it does there.

        Args:
            name_or_path: folder or hub id.
            dtype, attn_implementation: as in `TFPreTrainedModel.from_pretrained`.
            **hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, `subfolder`.

        Raises:
            FileNotFoundError: no such folder, or no weights in it.
            ValueError: broken files, or modules and options that are not known here.
            TypeError: an unknown argument.
        """
        hub_options, unknown = hub.split_options(hub_options)
        if unknown:
            raise TypeError(f"SentenceEncoder.from_pretrained got an unknown argument {quote(next(iter(unknown)))}.")
        found = read_folder(hub.resolve(name_or_path, patterns=("*.json",), **hub_options))

        def inside(path: str) -> dict[str, Any]:
            parts = (hub_options.get("subfolder", ""), path)
            return {**hub_options, "subfolder": "/".join(part for part in parts if part)}

        options = inside(found.transformer)
        model = TFAutoModel.from_pretrained(
            name_or_path, dtype=dtype, attn_implementation=attn_implementation, **options
        )
        settings = dataclasses.asdict(found)
        del settings["transformer"]
        encoder = cls(model, AutoTokenizer.from_pretrained(name_or_path, **options), **settings)
        for layer, part in zip(encoder.tail, found.tail, strict=True):
            if isinstance(part, (Dense, LayerNorm)):
                _load(layer, hub.resolve(name_or_path, patterns=(hub.WEIGHT_FILES,), **inside(part.path)))
        return encoder

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write a folder that `from_pretrained` here and sentence-transformers load."""
        with staged(folder) as stage:
            stage.last.append(MODULES_NAME)
            self.model.write_files(stage)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(stage.folder)
            write_folder(stage.folder, self.settings, self.model.config.hidden_size)
            for layer, part in zip(self.tail, self.settings.tail, strict=True):
                if isinstance(part, (Dense, LayerNorm)):
                    _save(layer, stage.folder / part.path)

    def export(self, path: str | os.PathLike, format: str = "saved_model", **options: Any) -> Any:
        """Write the model in a format that runs without tfmodels; arguments and result as `tfmodels.export.export`."""
        from tfmodels.export import export

        return export(self, path, format, **options)


def _checked_dim(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"truncate_dim={quote(value)}; a positive number of values or None was expected.")
    return value


def _variables(layer: keras.layers.Layer) -> dict[str, Any]:
    """The variables of a dense layer or a layer normalisation by their names in its file."""
    if isinstance(layer, keras.layers.LayerNormalization):
        return {"norm.weight": layer.gamma, "norm.bias": layer.beta}
    variables = {"linear.weight": layer.kernel, "linear.bias": layer.bias}
    return {name: variable for name, variable in variables.items() if variable is not None}


def _load(layer: keras.layers.Layer, folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        for name, variable in _variables(layer).items():
            values = np.asarray(checkpoint.read(name), "float32").T
            if values.shape != tuple(variable.shape):
                raise CheckpointError(f"{folder}: {name} gives {values.shape}; {tuple(variable.shape)} was expected.")
            variable.assign(values)


def _save(layer: keras.layers.Layer, folder: Path) -> None:
    tensors = []
    for name, variable in _variables(layer).items():
        values = ops.convert_to_numpy(variable.value).T
        spec = TensorSpec(values.shape, dtype_name(variable.dtype))
        tensors.append((name, spec, lambda values=values: np.ascontiguousarray(values)))
    write_checkpoint(folder, tensors)


keras.saving.register_keras_serializable("tfmodels")(SentenceEncoder)


def _list_of(texts: Any) -> list[str]:
    """Texts as a list.

    Raises:
        TypeError: it holds something else.
    """
    if isinstance(texts, (bytes, bytearray, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(f"texts={quote(texts)}; a text or a list of texts was expected.")
    texts = list(texts)
    wrong = next((index for index, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise TypeError(f"texts[{wrong}]={quote(texts[wrong])}; a text was expected.")
    return texts
