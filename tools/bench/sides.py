"""The sides of a comparison: this package, and transformers or sentence-transformers on PyTorch.

On a CPU they open a checkpoint, and all are in one process unless memory is measured. For a GPU, where TensorFlow and
PyTorch may need different CUDA libraries, each builds a model of random weights in its own process, as a job says.
The file is long because a side knows how its library does each thing that is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfmodels.utils.cores import available_cores
from tools.bench.shapes import SHAPES, model_class

Batch = dict[str, np.ndarray]

# Of AdamW.
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01

# --quantize -> arguments of `quantize` beside the mode; "gguf" keeps the numbers of a GGUF file.
QUANTIZED: dict[str, dict[str, Any]] = {
    "int8": {"group_size": "channel", "embeddings": "int8"},
    "int4": {"group_size": 32, "embeddings": "int8"},
    "gguf": {},
}


def exactly(new: int) -> dict[str, Any]:
    """Arguments of `generate` for so many tokens."""
    return {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Side:
    """A model of a library: of a checkpoint on a CPU, or on the device of a `job`.

    Subclasses have a `name` for tables, and `load_libraries()`, since imports belong to no measurement. Their
    `prepare(what, batch)` traces a synchronised call that is compiled when called and gives what the model makes, or a
    number of it in a job; that of decode takes the number of new tokens. `loss(batch)` is the one before training.

    For jobs they have `build(job)`, the model's `config`, the exception `out_of_memory`, `peak_memory()` in bytes
    since `start_counting_memory()`, None where nothing counts them; and `copier(size)`, a synchronised call that
    copies so many bytes on the device as often as it is told.
    """

    model: Any
    job: dict[str, Any] | None = None
    gpu = False
    packed = False

    @classmethod
    def of_job(cls, job: dict[str, Any]) -> Any:
        side = cls.__new__(cls)
        side.job, side.gpu = job, job["device"] == "gpu"
        side.build(job)
        return side

    @property
    def no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if type(self.model).__name__.endswith("ForCausalLM") else {}

    def variants(self, action: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
        """The ways in which an action of this side is measured, by name."""
        return {self.name: action}

    def weights_bytes(self) -> int:
        return self.model.get_memory_footprint(return_buffers=False)

    def bytes_read(self, batch: int, length: int) -> float:
        """The bytes that decoding a token reads: the cache's tokens and all weights but tables that are looked up."""
        config, item = self.config, 4 if self.job["dtype"] == "float32" else 2
        heads = config.num_attention_heads
        kept = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads)
        cache = kept * config.hidden_size // heads * batch * (length + self.job["new"] / 2)
        table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        return self.weights_bytes() + item * cache - (1 if self.packed else item) * table

    def describe(self) -> str:
        """The way attention was computed, in words."""
        return ""


class TFModelsSide(Side):
    """This package."""

    name = "tfmodels"

    @property
    def tf(self) -> Any:
        return importlib.import_module("tensorflow")

    @staticmethod
    def load_libraries() -> None:
        for library in ("tensorflow", "keras", "tfmodels.auto"):
            importlib.import_module(library)

    def __init__(
        self,
        folder: str,
        dtype: str,
        head: str = "ForCausalLM",
        quantize: str | None = None,
        gguf_file: str | None = None,
    ):
        import tfmodels

        options = {} if gguf_file is None else {"gguf_file": gguf_file}
        if quantize == "gguf":
            options["quantization_config"] = {"quant_method": "gguf"}
        self.model = getattr(tfmodels, f"TFAutoModel{head}").from_pretrained(folder, dtype=dtype, **options)
        if QUANTIZED.get(quantize):
            self.model.quantize(quantize, **QUANTIZED[quantize])

    def build(self, job: dict[str, Any]) -> None:
        tf = tensorflow_on(job["device"])
        import keras

        from tfmodels.sentence.pooling import Pooling

        self.out_of_memory, self.pool = tf.errors.ResourceExhaustedError, Pooling(("mean",))
        model_of, self.config = model_class(SHAPES[job["shape"]])
        self.model = model_of(self.config, dtype=job["dtype"], attn_implementation=job["attn"])
        if job["quantize"]:
            self.packed = True
            group = job["group"] if job["group"] == "channel" else int(job["group"])
            self.model.quantize(job["quantize"], group_size=group, embeddings="int8")
        device = tensorflow_device_name(tf) if self.gpu else "CPU"
        about(self.name, device, tensorflow=tf.__version__, keras=keras.__version__)

    def prepare(self, what: str, batch: Batch, **compile_options: Any) -> Callable[..., Any]:
        import keras

        tf, model = self.tf, self.model
        given = {name: tf.constant(values, "int32") for name, values in batch.items()}
        if what == "decode":
            return lambda new: model.generate(**given, **exactly(new)).numpy()
        if what == "fit":
            keras.utils.set_random_seed(0)
            model.compile(keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY), **compile_options)
            data = tf.data.Dataset.from_tensors(given).repeat()

            def fit(steps: int | None = None) -> float:
                """A step by itself, or several in one call of `fit`, which waits for the last alone."""
                if steps is None:
                    return float(model.train_on_batch(given))
                return model.fit(data, steps_per_epoch=steps, verbose=0).history["loss"][0]

            return fit
        weights = [variable.value for variable in model.trainable_variables]

        def forward(**given: Any) -> Any:
            return model(**given, **self.no_cache, return_dict=True)[0]

        def train(**given: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = model(**given, use_cache=False, training=True).loss
            return loss, tape.gradient(loss, weights)

        def embed(**given: Any) -> Any:
            return self.pool(model(**given).last_hidden_state, given["attention_mask"])

        function = {"train": train, "forward": forward, "embed": embed}[what]
        program = tf.function(function, jit_compile=True, autograph=False).get_concrete_function(**given)

        def run() -> np.ndarray:
            result = tf.nest.flatten(program(**given))[0]
            return (tf.reshape(result, [-1])[0] if self.job and what != "embed" else result).numpy()

        return run

    def loss(self, batch: Batch) -> float:
        return float(self.model(**batch, training=False).loss)

    def start_counting_memory(self) -> None:
        gc.collect()
        if self.gpu:
            self.tf.config.experimental.reset_memory_stats("GPU:0")

    def peak_memory(self) -> int | None:
        return self.tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.gpu else None

    def copier(self, size: int) -> Callable[[int], None]:
        source = self.tf.zeros([size // 4], "float32")

        def copy(times: int) -> None:
            for _ in range(times):
                target = self.tf.raw_ops.DeepCopy(x=source)
            target[0].numpy()

        return copy

    def kernels(self, run: Callable[[], None]) -> list[tuple[str, int, float]]:
        """Name, launches and microseconds together of every kernel of a call, the longest first, by CUPTI."""
        from tensorflow.tsl.profiler.protobuf import xplane_pb2

        space = xplane_pb2.XSpace()
        with tempfile.TemporaryDirectory() as folder:
            with self.tf.profiler.experimental.Profile(folder):
                run()
            for file in Path(folder).rglob("*.xplane.pb"):
                space.MergeFromString(file.read_bytes())
        found: dict[str, list[float]] = {}
        for plane in (plane for plane in space.planes if plane.name.startswith("/device:GPU")):
            for line in (line for line in plane.lines if line.name.startswith("Stream")):
                for event in line.events:
                    name = plane.event_metadata[event.metadata_id].name
                    found.setdefault(name, []).append(event.duration_ps / 1e6)
        kernels = ((name, len(times), sum(times)) for name, times in found.items())
        return sorted(kernels, key=lambda kernel: -kernel[2])

    def describe(self) -> str:
        weights = f"; {self.job['quantize']} weights" if self.job["quantize"] else ""
        return self.model.attention_report() + weights


class TorchSide(Side):
    """transformers on PyTorch; on a CPU with its defaults, with one thread and with all cores.

    Small models are faster with one, and beside other work PyTorch's threads wait for each other. Compare with
    whichever is faster.
    """

    name = "torch"
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    device = "cpu"
    static = mixed = False

    @classmethod
    def load_libraries(cls) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        try:
            for library in cls.needs:
                importlib.import_module(library)
        except ImportError as error:
            sys.exit(f"benchmark: --peer torch: {error}; run pip install -e '.[bench]'")
        import torch
        import transformers

        torch.set_num_threads(available_cores())
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __init__(self, folder: str, dtype: str, head: str = "ForCausalLM"):
        import torch
        import transformers

        from tfmodels.checkpoints import bundled

        self.torch = torch
        auto, where = getattr(transformers, f"AutoModel{head}"), str(bundled.resolve(folder))
        self.model = auto.from_pretrained(where, dtype=getattr(torch, dtype))

    def build(self, job: dict[str, Any]) -> None:
        import torch
        import transformers

        self.name, self.torch, self.out_of_memory = "torch " + job["peer"], torch, torch.OutOfMemoryError
        self.device, device_name = ("cuda", torch.cuda.get_device_name()) if self.gpu else ("cpu", "CPU")
        about(self.name, device_name, torch=torch.__version__, transformers=transformers.__version__)
        transformers.logging.set_verbosity_error()
        model_type, head, values = SHAPES[job["shape"]]
        self.static = job["peer"] == "static-compile"
        self.config = transformers.AutoConfig.for_model(model_type, **values)
        self.config._attn_implementation = "sdpa" if self.static else job["peer"]
        self.mixed = job["dtype"].startswith("mixed_")
        dtype = torch.float32 if self.mixed else getattr(torch, job["dtype"])
        torch.set_default_dtype(dtype)
        with torch.device(self.device):
            model = getattr(transformers, f"AutoModel{head.removeprefix('Model')}").from_config(self.config)
        self.model = model.to(self.device, dtype)

    def variants(self, action: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
        def run(threads: int, *arguments: Any) -> Any:
            self.torch.set_num_threads(threads)
            return action(*arguments)

        counts = sorted({1, available_cores()})
        return {f"{self.name}, {n} thread{'s' if n > 1 else ''}": functools.partial(run, n) for n in counts}

    def prepare(self, what: str, batch: Batch) -> Callable[..., Any]:
        torch, model, training = self.torch, self.model, what in ("train", "fit")
        model.zero_grad(set_to_none=True)
        model.train(training)
        given = self.tensors(batch)
        if self.static:
            torch.compiler.reset()
        call = torch.compile(model) if self.static and what != "decode" else model
        optimizer = None
        if what == "fit":
            torch.manual_seed(0)
            # As transformers' Trainer takes it.
            optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

        def forward() -> Any:
            output = call(**given, **self.no_cache)[0]
            return output.reshape(-1)[0] if self.job else output

        def step() -> Any:
            model.zero_grad(set_to_none=True)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
                loss = call(**given, **self.no_cache).loss
            loss.backward()
            if optimizer:
                optimizer.step()
            return loss.detach()

        def fit(steps: int = 1) -> Any:
            return [step() for _ in range(steps)][-1]

        def embed() -> Any:
            hidden, own = call(**given).last_hidden_state.float(), given["attention_mask"][:, :, None].float()
            return (hidden * own).sum(1) / own.sum(1).clamp(min=1)

        def decode(new: int) -> Any:
            settings = {"cache_implementation": "static"} if self.static else {}
            return model.generate(**given, **exactly(new), **settings, pad_token_id=0)

        action = {"train": step, "fit": fit, "forward": forward, "embed": embed, "decode": decode}[what]

        def run(*new: int) -> np.ndarray:
            with contextlib.nullcontext() if training else torch.inference_mode():
                result = action(*new)
            self.synchronize()
            return (result.float() if result.is_floating_point() else result).cpu().numpy()

        return run

    def tensors(self, batch: Batch) -> dict[str, Any]:
        return {name: self.torch.from_numpy(values).to(self.device) for name, values in batch.items()}

    def loss(self, batch: Batch) -> float:
        with self.torch.inference_mode():
            return self.model.eval()(**self.tensors(batch)).loss.item()

    def synchronize(self) -> None:
        if self.gpu:
            self.torch.cuda.synchronize()

    def start_counting_memory(self) -> None:
        gc.collect()
        if self.gpu:
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats()

    def peak_memory(self) -> int | None:
        return self.torch.cuda.max_memory_allocated() if self.gpu else None

    def copier(self, size: int) -> Callable[[int], None]:
        source = self.torch.zeros(size // 4, dtype=self.torch.float32, device=self.device)
        target = self.torch.empty_like(source)

        def copy(times: int) -> None:
            for _ in range(times):
                target.copy_(source)
            self.synchronize()

        return copy


class TFModelsEncoderSide(TFModelsSide):
    """This package's `SentenceEncoder`."""

    def __init__(self, folder: str, dtype: str):
        from tfmodels import SentenceEncoder

        self.model = SentenceEncoder.from_pretrained(folder, dtype=dtype)

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        return self.model.encode(texts, batch_size=batch, normalize=True)

    def prepare(self, what: str, batch: Batch) -> Callable[..., Any]:
        """Vectors of rows of ids without padding."""
        run = self.tf.function(lambda **given: self.model(**given).sentence_embedding)
        given = {name: self.tf.constant(values, "int32") for name, values in batch.items()}
        return lambda: unit_rows(run(**given).numpy())


class TorchEncoderSide(TorchSide):
    """sentence-transformers on PyTorch, with its defaults."""

    needs = (*TorchSide.needs, "sentence_transformers")

    def __init__(self, folder: str, dtype: str):
        import torch
        from sentence_transformers import SentenceTransformer

        self.torch = torch
        self.model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}).eval()

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        with self.torch.inference_mode():
            return self.model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    def prepare(self, what: str, batch: Batch) -> Callable[..., Any]:
        return functools.partial(self.vectors, self.tensors(batch))

    def vectors(self, given: dict[str, Any]) -> np.ndarray:
        with self.torch.inference_mode():
            return unit_rows(self.model(given)["sentence_embedding"].float().numpy())


# This package first, then the peers.
SIDES: dict[str, Any] = {"tfmodels": TFModelsSide, "torch": TorchSide}
ENCODER_SIDES: dict[str, Any] = {"tfmodels": TFModelsEncoderSide, "torch": TorchEncoderSide}


def open_sides(options: argparse.Namespace, folder: str, sides: dict[str, Any] = SIDES) -> list[Any]:
    """This package and --peer, each with the model of a folder, and this package with the weights of --quantize."""
    found = []
    # The floats of a GGUF file are no model that anybody decodes with.
    for name in (None if getattr(options, "gguf_file", None) else "tfmodels", options.peer):
        if name:
            sides[name].load_libraries()
            found.append(sides[name](folder, options.dtype))
    for mode in getattr(options, "quantize", ()):
        found.append(TFModelsSide(folder, options.dtype, quantize=mode, gguf_file=options.gguf_file))
        found[-1].name = f"tfmodels {mode}"
    return found


def about(side: str, device: str, **versions: str) -> None:
    """Say what a side runs on, once."""
    print(json.dumps({"about": side, "device": device, "python": sys.version.split()[0], **versions}), flush=True)


def tensorflow_on(device: str, count: int = 1) -> Any:
    """TensorFlow, on the GPUs or on so many devices that are the CPU."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        (cpu,) = tf.config.list_physical_devices("CPU")
        if count > 1:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    elif len(tf.config.list_physical_devices("GPU")) < count:
        sys.exit(f"TensorFlow sees {len(tf.config.list_physical_devices('GPU'))} GPUs, not {count}")
    return tf


def tensorflow_device_name(tf: Any) -> str:
    return tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0]).get("device_name", "?")
