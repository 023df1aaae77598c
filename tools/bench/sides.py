"""The sides of a comparison on a CPU: this package, and transformers or sentence-transformers on PyTorch."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from tfmodels.utils.cores import available_cores

LEARNING_RATE = 1e-4

# --quantize -> arguments of `quantize` beside the mode; "gguf" keeps the numbers of a GGUF file.
QUANTIZED: dict[str, dict[str, Any]] = {
    "int8": {"group_size": "channel", "embeddings": "int8"},
    "int4": {"group_size": 32, "embeddings": "int8"},
    "gguf": {},
}


class TFModelsSide:
    """This package."""

    name = "tfmodels"

    @staticmethod
    def prepare() -> None:
        for library in ("tensorflow", "keras", "tfmodels.auto"):  # imports belong to no measurement
            importlib.import_module(library)

    def __init__(self, folder: str, dtype: str, quantize: str | None = None, gguf_file: str | None = None):
        from tfmodels import TFAutoModelForCausalLM

        options = {} if gguf_file is None else {"gguf_file": gguf_file}
        if quantize == "gguf":
            options["quantization_config"] = {"quant_method": "gguf"}
        self.model = TFAutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
        if QUANTIZED.get(quantize):
            self.model.quantize(quantize, **QUANTIZED[quantize])

    def variants(self) -> dict[str, TFModelsSide]:
        """The measured variants of this side, by name."""
        return {self.name: self}

    def generate(self, ids: np.ndarray, new: int) -> np.ndarray:
        mask = np.ones_like(ids)
        return self.model.generate(input_ids=ids, attention_mask=mask, **exactly(new)).numpy()

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        """A forward pass compiled for these ids, to be called again and again."""
        import tensorflow as tf

        run = tf.function(lambda ids: self.model(input_ids=ids, use_cache=False).logits, jit_compile=True)
        given = tf.constant(ids, tf.int32)
        return lambda: run(given).numpy()


def exactly(new: int) -> dict[str, Any]:
    """Arguments of `generate` for so many tokens."""
    return {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}


class TorchSide:
    """transformers on PyTorch, with its defaults, with one thread and with all cores.

    Small models are faster with one, and beside other work PyTorch's threads wait for each other. Compare with
    whichever is faster.
    """

    name = "torch"
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    threads: int

    @classmethod
    def prepare(cls) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        try:
            for library in cls.needs:  # imports belong to no measurement
                importlib.import_module(library)
        except ImportError as error:
            sys.exit(f"benchmark: --peer torch: {error}; run pip install -e '.[bench]'")
        import torch
        import transformers

        torch.set_num_threads(available_cores())
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __init__(self, folder: str, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM

        from tfmodels.checkpoints import bundled

        self.torch = torch
        where = str(bundled.resolve(folder))
        self.model = AutoModelForCausalLM.from_pretrained(where, dtype=getattr(torch, dtype)).eval()

    def variants(self) -> dict[str, TorchSide]:
        found = {}
        for threads in sorted({1, available_cores()}):
            side = copy.copy(self)
            side.threads = threads
            found[f"{self.name}, {threads} thread{'s' if threads > 1 else ''}"] = side
        return found

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """With this side's threads, and without gradients."""
        self.torch.set_num_threads(self.threads)
        with self.torch.inference_mode():
            yield

    def generate(self, ids: np.ndarray, new: int) -> np.ndarray:
        given = self.torch.from_numpy(ids)
        settings = {**exactly(new), "pad_token_id": 0}
        with self.at_work():
            return self.model.generate(given, attention_mask=self.torch.ones_like(given), **settings).numpy()

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        """A forward pass for these ids."""
        return functools.partial(self.outputs, self.torch.from_numpy(ids))

    def outputs(self, ids: Any) -> np.ndarray:
        with self.at_work():
            return self.model(ids, use_cache=False).logits.float().numpy()


class TFModelsEncoderSide(TFModelsSide):
    """This package's `SentenceEncoder`."""

    def __init__(self, folder: str, dtype: str):
        from tfmodels import SentenceEncoder

        self.model = SentenceEncoder.from_pretrained(folder, dtype=dtype)

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        return self.model.encode(texts, batch_size=batch, normalize=True)

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        """Vectors of rows of ids without padding."""
        import tensorflow as tf

        run = tf.function(lambda ids, mask: self.model(input_ids=ids, attention_mask=mask).sentence_embedding)
        given = tf.constant(ids, tf.int32)
        return lambda: unit_rows(run(given, tf.ones_like(given)).numpy())


class TorchEncoderSide(TorchSide):
    """sentence-transformers on PyTorch, with its defaults."""

    needs = (*TorchSide.needs, "sentence_transformers")

    def __init__(self, folder: str, dtype: str):
        import torch
        from sentence_transformers import SentenceTransformer

        self.torch = torch
        self.model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}).eval()

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        with self.at_work():
            return self.model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    def outputs(self, ids: Any) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": self.torch.ones_like(ids)}
        with self.at_work():
            return unit_rows(self.model(given)["sentence_embedding"].float().numpy())


class TFModelsTrainingSide(TFModelsSide):
    """This package, trained as its users do: `compile` with an optimizer, then batches."""

    def __init__(self, folder: str, head: str, compile_options: dict[str, Any]):
        import keras

        import tfmodels

        keras.utils.set_random_seed(0)
        self.model = getattr(tfmodels, f"TFAutoModel{head}").from_pretrained(folder)
        self.model.compile(keras.optimizers.AdamW(LEARNING_RATE, weight_decay=0.01), **compile_options)
        self.name = ", ".join([self.name, *(f"{key}={value}" for key, value in compile_options.items())])

    def loss(self, batch: dict[str, np.ndarray]) -> float:
        return float(self.model(**batch, training=False).loss)

    def step(self, batch: dict[str, np.ndarray]) -> float:
        return float(self.model.train_on_batch(batch))


class TorchTrainingSide(TorchSide):
    """transformers on PyTorch in the usual loop, with the fused AdamW that transformers' Trainer takes."""

    def __init__(self, folder: str, head: str, compile_options: dict[str, Any]):
        import torch
        import transformers

        torch.manual_seed(0)
        self.torch = torch
        self.model = getattr(transformers, f"AutoModel{head}").from_pretrained(folder, dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)

    def loss(self, batch: dict[str, np.ndarray]) -> float:
        with self.torch.inference_mode():
            return self.model.eval()(**self.tensors(batch)).loss.item()

    def step(self, batch: dict[str, np.ndarray]) -> float:
        self.torch.set_num_threads(self.threads)
        loss = self.model.train()(**self.tensors(batch)).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def tensors(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.torch.from_numpy(values) for name, values in batch.items()}


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# This package first, then the peers.
SIDES: dict[str, Any] = {"tfmodels": TFModelsSide, "torch": TorchSide}
ENCODER_SIDES: dict[str, Any] = {"tfmodels": TFModelsEncoderSide, "torch": TorchEncoderSide}
TRAINING_SIDES: dict[str, Any] = {"tfmodels": TFModelsTrainingSide, "torch": TorchTrainingSide}


def open_sides(options: argparse.Namespace, folder: str, sides: dict[str, Any] = SIDES) -> dict[str, Any]:
    """The variants of this package and of --peer by name, each with the model of a folder."""
    found = {}
    # The floats of a GGUF file are no model that anybody decodes with.
    for name in (None if getattr(options, "gguf_file", None) else "tfmodels", options.peer):
        if name:
            sides[name].prepare()
            found |= sides[name](folder, options.dtype).variants()
    for mode in getattr(options, "quantize", ()):
        found[f"tfmodels {mode}"] = TFModelsSide(folder, options.dtype, mode, options.gguf_file)
    return found
