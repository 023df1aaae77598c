"""The sides of a comparison on a GPU, each of which has a process of its own."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.report import Measured
from tools.bench.shapes import SHAPES, model_class, random_ids
from tools.bench.sides import exactly

STEP_SIZE = 1e-5  # of AdamW


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - start)


class Side:
    """A library on a device.

    Subclasses have a `name` for tables, the exception `out_of_memory`, and the library's own `config` of the model.
    They add `prepare(what, batch, length)`, which traces a synchronised call that is compiled when called (that of
    decode takes the number of new tokens); `start_counting_memory()`, and `peak_memory()` in bytes since then, None
    where nothing counts them; `copier(size)`, a synchronised call that copies so many bytes on the device as often as
    it is told; and `weights_bytes()`.
    """

    def __init__(self, job: Measured):
        self.job = job
        self.item = 4 if job["dtype"] == "float32" else 2  # bytes of a number, and of a weight's
        self.weight_item = 4 if job["dtype"].startswith("mixed_") else self.item
        self.gpu = job["device"] == "gpu"
        self.no_cache = {"use_cache": False} if SHAPES[job["shape"]][1] == "ForCausalLM" else {}

    def bytes_read(self, batch: int, length: int) -> float:
        """The bytes that decoding a token reads: the cache's tokens and all weights but tables that are looked up."""
        config = self.config
        heads = config.num_attention_heads
        kept = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads)
        cache = kept * config.hidden_size // heads * batch * (length + self.job["new"] / 2)
        table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        return self.weights_bytes() + self.item * cache - self.weight_item * table

    def describe(self) -> str:
        """How attention was computed, in words."""
        return ""


class TFModelsSide(Side):
    """tfmodels on TensorFlow."""

    name = "tfmodels"

    def __init__(self, job: Measured):
        super().__init__(job)
        tf = tensorflow_on(job["device"])
        import keras

        from tfmodels.sentence.pooling import Pooling

        self.tf, self.out_of_memory, self.pool = tf, tf.errors.ResourceExhaustedError, Pooling(("mean",))
        cls, self.config = model_class(SHAPES[job["shape"]])
        self.model = cls(self.config, dtype=job["dtype"], attn_implementation=job["attn"])
        if job["quantize"]:
            self.weight_item = 1  # the table's, of which a token reads a row
            group = job["group"] if job["group"] == "channel" else int(job["group"])
            self.model.quantize(job["quantize"], group_size=group, embeddings="int8")
        device = tensorflow_device_name(tf) if self.gpu else "CPU"
        about(self.name, device, tensorflow=tf.__version__, keras=keras.__version__)

    def prepare(self, what: str, batch: int, length: int) -> Callable[..., None]:
        from keras.optimizers import AdamW

        tf, model = self.tf, self.model
        ids = tf.constant(random_ids(batch, length, self.config.vocab_size), "int32")
        mask = tf.ones_like(ids)
        if what == "decode":
            return lambda new: model.generate(ids, attention_mask=mask, **exactly(new))
        if what == "fit":
            model.compile(AdamW(STEP_SIZE))
            return lambda: model.train_on_batch({"input_ids": ids, "labels": ids})
        weights = [variable.value for variable in model.trainable_variables]

        def forward(ids: Any, mask: Any) -> Any:
            return model(input_ids=ids, return_dict=True, **self.no_cache)[0]

        def train(ids: Any, mask: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = model(input_ids=ids, labels=ids, use_cache=False, training=True).loss
            return loss, tape.gradient(loss, weights)

        def embed(ids: Any, mask: Any) -> Any:
            return self.pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

        function = {"train": train, "forward": forward, "embed": embed}[what]
        program = tf.function(function, jit_compile=True, autograph=False).get_concrete_function(ids, mask)

        def run() -> None:
            result = tf.nest.flatten(program(ids, mask))[0]
            (result if what == "embed" else tf.reshape(result, [-1])[0]).numpy()

        return run

    def start_counting_memory(self) -> None:
        gc.collect()
        if self.gpu:
            self.tf.config.experimental.reset_memory_stats("GPU:0")

    def peak_memory(self) -> int | None:
        return self.tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.gpu else None

    def copier(self, size: int) -> Callable[[int], None]:
        tf = self.tf
        source = tf.zeros([size // 4], "float32")

        def copy(times: int) -> None:
            for _ in range(times):
                target = tf.raw_ops.DeepCopy(x=source)
            target[0].numpy()

        return copy

    def weights_bytes(self) -> int:
        weights = self.model.weights
        return sum(self.tf.as_dtype(weight.dtype).size * int(np.prod(weight.shape)) for weight in weights)

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
    """transformers on PyTorch."""

    def __init__(self, job: Measured):
        super().__init__(job)
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

    def prepare(self, what: str, batch: int, length: int) -> Callable[..., None]:
        torch, model = self.torch, self.model
        model.zero_grad(set_to_none=True)
        ids = torch.from_numpy(random_ids(batch, length, self.config.vocab_size)).to(self.device)
        mask = torch.ones_like(ids)
        model.train(what in ("train", "fit"))
        if self.static:
            torch.compiler.reset()
        call = torch.compile(model) if self.static and what != "decode" else model

        def forward() -> None:
            with torch.inference_mode():
                output = call(ids, **self.no_cache)
            float(output[0].reshape(-1)[0])

        def train() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
                loss = call(ids, labels=ids, use_cache=False).loss
            loss.backward()
            self.synchronize()

        def fit() -> None:
            train()
            optimizer.step()
            self.synchronize()

        def embed() -> None:
            with torch.inference_mode():
                hidden, own = call(ids, attention_mask=mask).last_hidden_state.float(), mask[:, :, None].float()
                ((hidden * own).sum(1) / own.sum(1).clamp(min=1)).cpu()

        def decode(new: int) -> None:
            settings = {"cache_implementation": "static"} if self.static else {}
            settings |= {**exactly(new), "pad_token_id": 0}
            with torch.inference_mode():
                model.generate(ids, attention_mask=mask, **settings)
            self.synchronize()

        optimizer = torch.optim.AdamW(model.parameters(), STEP_SIZE, fused=True) if what == "fit" else None
        return {"train": train, "fit": fit, "forward": forward, "embed": embed, "decode": decode}[what]

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

    def weights_bytes(self) -> int:
        return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())


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
