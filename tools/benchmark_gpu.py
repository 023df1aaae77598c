#!/usr/bin/env python
"""Measure tfmodels on a GPU, and transformers with PyTorch on the same GPU in the same run.

    python tools/benchmark_gpu.py train,forward --batch 1,2,4 --length 512,2048 --peer eager,sdpa --compile-threads 6
    python tools/benchmark_gpu.py decode --batch 1,4 --length 2048 --peer static-compile
    python tools/benchmark_gpu.py embed --peer sdpa
    python tools/benchmark_gpu.py scale --batch 4 --length 512 --devices 2
    python tools/benchmark_gpu.py plot measured.json --plot speed_up.png

Every side runs in a process of its own, because TensorFlow, PyTorch and JAX may need different CUDA libraries;
--torch-python and --jax-python give the commands of their interpreters. Models have random weights. A round is one
synchronised call, and the median of the rounds is reported; the first call, with compilation, is timed apart, and peak
memory is the allocators' own, of the calls after the first. Rows are reported, and --json and --markdown written
anew, as soon as a cell is measured.

train is a forward and a backward pass, gradients of all weights included. decode is the time of a token: that of --new
tokens less that of one, over the difference. What it has to read, the weights and the cached positions, is set against
the rate of a copy on the same device. embed is an encoder with mean pooling, its vectors fetched. The peer
static-compile is torch.compile, and for decode transformers' static cache with it. scale trains on one and on several
devices, by MirroredStrategy on TensorFlow and by keras.distribution on JAX, and compares loss, weights and time.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gc
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WHAT = ("train", "forward", "decode", "embed")
PEERS = ("eager", "sdpa", "flash_attention_2", "static-compile")
HOW = ("mirrored", "mirrored-fit", "jax-data", "jax-model")

_PYTHIA = {
    "model_type": "gpt_neox",
    "vocab_size": 50304,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "rotary_pct": 0.25,
    "max_position_embeddings": 4096,
}
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "rope_theta": 500000.0,
}
_GPT_NEO = {
    "model_type": "gpt_neo",
    "hidden_size": 768,
    "num_layers": 12,
    "num_heads": 12,
    "attention_types": [[["global", "local"], 6]],
    "max_position_embeddings": 4096,
}
_MPT = {"model_type": "mpt", "d_model": 2048, "n_heads": 16, "n_layers": 24, "vocab_size": 50368, "max_seq_len": 4096}
_MPNET = {"model_type": "mpnet", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_TINY = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_TINY_MPNET = {
    **_MPNET,
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

# name -> stem of the class and configuration; the tiny ones are for trying this tool
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "pythia-410m": ("GPTNeoXForCausalLM", _PYTHIA),
    "llama-3.2-1b": ("LlamaForCausalLM", _LLAMA),
    "gpt-neo-125m": ("GPTNeoForCausalLM", _GPT_NEO),
    "mpt-1b": ("MptForCausalLM", _MPT),
    "mpnet-base": ("MPNetModel", _MPNET),
    "tiny": ("LlamaForCausalLM", _TINY),
    "tiny-mpnet": ("MPNetModel", _TINY_MPNET),
}

# What is measured where nothing else is asked for.
DEFAULTS = {"shape": "pythia-410m", "dtype": "float16", "batch": [1, 4], "length": [512, 2048]}
EMBED_DEFAULTS = {"shape": "mpnet-base", "dtype": "bfloat16", "batch": [64], "length": [128]}

Measured = dict[str, Any]
Cell = tuple[str, int, int]  # what, batch, length


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - start)


def random_ids(batch: int, length: int, vocab: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, vocab, (batch, length))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Measuring cells, the same for every side ----------------------------------------------------------------------------


class Side:
    """A library on a device; subclasses say how it does things.

    Fields:
        name: in tables.
        config: the library's own, of the model.
        out_of_memory: the exception for that.
        item, weight_item: bytes of a number, and of one in a weight.
    """

    name: str
    config: Any
    out_of_memory: type[Exception]

    def __init__(self, job: Measured):
        self.job = job
        self.item = self.weight_item = 4 if job["dtype"] == "float32" else 2
        self.gpu = job["device"] == "gpu"
        self.causal = SHAPES[job["shape"]][0].endswith("CausalLM")
        self.copy_rate = 0.0

    def prepare(self, what: str, batch: int, length: int) -> Callable[..., None]:
        """A synchronised call; that of decode takes the number of new tokens. Traced here, compiled when called."""
        raise NotImplementedError

    def start_counting_memory(self) -> None:
        raise NotImplementedError

    def peak_memory(self) -> int | None:
        """Bytes since the count was started; None where nothing counts them."""
        raise NotImplementedError

    def copier(self, size: int) -> Callable[[int], None]:
        """A synchronised call that copies `size` bytes on the device so many times."""
        raise NotImplementedError

    def bytes_read(self, batch: int, length: int) -> float:
        """What decoding a token has to read: weights, but no table that is only looked up, and the cache's tokens."""
        config = self.config
        heads = config.num_attention_heads
        kept = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads)
        cache = kept * config.hidden_size // heads * batch * (length + self.job["new"] / 2)
        table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        return self.weights_bytes() + self.item * cache - self.weight_item * table

    def weights_bytes(self) -> int:
        raise NotImplementedError

    def describe(self) -> str:
        """How attention was computed, in words."""
        return ""


def measure_cells(side: Side) -> None:
    """Print a row of JSON for every cell.

    Programs are compiled several at once, but nothing is compiled while something is timed: as many cells as there
    are compile threads are compiled, then measured one after the other, and so on.
    """
    job = side.job
    threads = job["compile_threads"]
    if any(what == "decode" for what, *_ in job["cells"]):
        side.copy_rate = copy_rate(side)
    tracing = threading.Lock()  # it is Python and would not be faster at once; nor would times be a program's own

    def first_call(cell: Cell) -> tuple[Callable[..., None] | None, Measured]:
        """What was prepared, if that went well, and what was seen."""
        try:
            with tracing:
                start = time.perf_counter()
                run = side.prepare(*cell)
                attention = side.describe()
            if cell[0] == "decode":
                run(job["new"])
                attention = side.describe()
            else:
                run()
        except side.out_of_memory:
            return None, {"note": "out of memory"}
        except Exception as error:  # one cell that fails is a row that says so
            return None, {"note": f"failed: {type(error).__name__}: {str(error)[:200]}"}
        ms = 1e3 * (time.perf_counter() - start)
        say(f"{side.name}: first call of {cell[0]} {cell[1]} x {cell[2]} took {ms / 1e3:.1f} s")
        return run, {"first_ms": ms, "attention": attention}

    def measure(cell: Cell, run: Callable[..., None]) -> Measured:
        rounds = job["rounds"]
        side.start_counting_memory()
        try:
            if cell[0] == "decode":
                run(job["new"])
                one = statistics.median(timed(lambda: run(1)) for _ in range(rounds))
                every = statistics.median(timed(lambda: run(job["new"])) for _ in range(rounds))
                ms = (every - one) / (job["new"] - 1)
                rate = side.bytes_read(*cell[1:]) / ms / 1e6
                row = {"ms": ms, "prefill_ms": one, "read_gb_s": rate, "copy_gb_s": side.copy_rate}
            else:
                run()
                row = {"ms": statistics.median(timed(run) for _ in range(rounds))}
        except side.out_of_memory:
            return {"note": "out of memory"}
        peak = side.peak_memory()
        row["peak_mib"] = None if peak is None else peak / 2**20
        return row | ({"sentences_per_s": 1e3 * cell[1] / row["ms"]} if cell[0] == "embed" else {})

    for wave in waves(job["cells"], threads):
        if time.time() >= job["deadline"]:
            say(f"{side.name}: out of time from {' '.join(map(str, wave[0]))} on")
            break
        if len(wave) == 1:
            made = [first_call(wave[0])]
        else:
            with concurrent.futures.ThreadPoolExecutor(len(wave)) as pool:
                made = list(pool.map(first_call, wave))
        for cell in wave:
            run, row = made.pop(0)
            if row.get("note") == "out of memory" and len(wave) > 1:  # the others' first calls took it
                run, row = first_call(cell)
            if run is not None:
                row |= measure(cell, run)
            run = None
            row |= {"at_once": len(wave), "weights_bytes": side.weights_bytes()}
            print_row(side.name, job, cell, row)


def print_row(side: str, job: Measured, cell: Cell, row: Measured) -> None:
    what, batch, length = cell
    head = {"side": side, "what": what, "shape": job["shape"], "dtype": job["dtype"], "batch": batch, "length": length}
    print(json.dumps(head | row), flush=True)


def waves(cells: list[Cell], threads: int) -> Iterator[list[Cell]]:
    """Cells to compile at once; decoding, which traces several programs by itself, alone."""
    together = [cell for cell in cells if cell[0] != "decode"]
    for start in range(0, len(together), threads):
        yield together[start : start + threads]
    for cell in cells:
        if cell[0] == "decode":
            yield [cell]


def copy_rate(side: Side) -> float:
    """GB/s of a copy on the device, bytes read and bytes written."""
    size, times = (2**30, 20) if side.gpu else (2**26, 5)
    run = side.copier(size)
    run(2)
    return statistics.median(2 * size * times / timed(lambda: run(times)) / 1e6 for _ in range(5))


class TFModelsSide(Side):
    """tfmodels on TensorFlow."""

    name = "tfmodels"

    def __init__(self, job: Measured):
        super().__init__(job)
        tf = tensorflow_on(job["device"])
        import keras

        import tfmodels
        from tfmodels.sentence.pooling import Pooling

        self.tf, self.out_of_memory = tf, tf.errors.ResourceExhaustedError
        stem, values = SHAPES[job["shape"]]
        cls = getattr(tfmodels, "TF" + stem)
        self.config = cls.config_class.from_dict(values)
        self.model = cls(self.config, dtype=job["dtype"], attn_implementation=job["attn"])
        if job["int8"]:
            self.weight_item = 1
            self.model.quantize("int8", config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
        self.pool = Pooling(("mean",))
        about(self.name, self._device_name(), tensorflow=tf.__version__, keras=keras.__version__)

    def _device_name(self) -> str:
        return tensorflow_device_name(self.tf) if self.gpu else "CPU"

    def prepare(self, what: str, batch: int, length: int) -> Callable[..., None]:
        tf, model = self.tf, self.model
        ids = tf.constant(random_ids(batch, length, self.config.vocab_size), "int32")
        mask = tf.ones_like(ids)
        if what == "decode":
            return lambda new: model.generate(
                ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False
            )
        weights = [variable.value for variable in model.trainable_variables]

        def forward(ids: Any, mask: Any) -> Any:
            no_cache = {"use_cache": False} if self.causal else {}
            return model(input_ids=ids, return_dict=True, **no_cache)[0]

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
        sizes = (
            self.tf.as_dtype(variable.dtype).size * int(np.prod(variable.shape)) for variable in self.model.weights
        )
        return sum(sizes)

    def describe(self) -> str:
        return self.model.attention_report() + ("; int8 weights" if self.job["int8"] else "")


class TorchSide(Side):
    """transformers on PyTorch."""

    def __init__(self, job: Measured):
        super().__init__(job)
        import torch
        import transformers

        self.name, self.torch, self.out_of_memory = "torch " + job["peer"], torch, torch.OutOfMemoryError
        self.device = "cuda" if self.gpu else "cpu"
        device_name = torch.cuda.get_device_name() if self.gpu else "CPU"
        about(self.name, device_name, torch=torch.__version__, transformers=transformers.__version__)
        transformers.logging.set_verbosity_error()
        stem, values = SHAPES[job["shape"]]
        self.static = job["peer"] == "static-compile"
        self.config = transformers.AutoConfig.for_model(**values)
        self.config._attn_implementation = "sdpa" if self.static else job["peer"]
        torch.set_default_dtype(getattr(torch, job["dtype"]))
        with torch.device(self.device):
            model = getattr(transformers, stem)(self.config)
        self.model = model.to(self.device, getattr(torch, job["dtype"]))

    def prepare(self, what: str, batch: int, length: int) -> Callable[..., None]:
        torch, model = self.torch, self.model
        model.zero_grad(set_to_none=True)
        ids = torch.from_numpy(random_ids(batch, length, self.config.vocab_size)).to(self.device)
        mask = torch.ones_like(ids)
        model.train(what == "train")
        if self.static:
            torch.compiler.reset()
        call = torch.compile(model) if self.static and what != "decode" else model

        def forward() -> None:
            with torch.inference_mode():
                output = call(ids, **({"use_cache": False} if self.causal else {}))
            float(output[0].reshape(-1)[0])

        def train() -> None:
            model.zero_grad(set_to_none=True)
            call(ids, labels=ids, use_cache=False).loss.backward()
            self.synchronize()

        def embed() -> None:
            with torch.inference_mode():
                hidden, own = call(ids, attention_mask=mask).last_hidden_state.float(), mask[:, :, None].float()
                ((hidden * own).sum(1) / own.sum(1).clamp(min=1)).cpu()

        def decode(new: int) -> None:
            settings = {"cache_implementation": "static"} if self.static else {}
            settings |= {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
            with torch.inference_mode():
                model.generate(ids, attention_mask=mask, **settings)
            self.synchronize()

        return {"train": train, "forward": forward, "embed": embed, "decode": decode}[what]

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


# Several devices -----------------------------------------------------------------------------------------------------

_RATE = 0.1  # of SGD: one step moves the weights by much more than they are rounded


class Trained:
    """Loss and weights after one step from the same start, to compare with."""

    def __init__(self, loss: Any, before: list[np.ndarray], after: list[np.ndarray]):
        self.loss = float(loss)
        self.after = np.concatenate([array.ravel() for array in after])
        self.update = self.after - np.concatenate([array.ravel() for array in before])

    def difference(self, other: Trained) -> Measured:
        """Relative, in the Euclidean norm."""
        return {
            "loss_difference": abs(self.loss - other.loss) / abs(other.loss),
            "weights_difference": float(np.linalg.norm(self.after - other.after) / np.linalg.norm(other.after)),
            "update_difference": float(np.linalg.norm(self.update - other.update) / np.linalg.norm(other.update)),
        }


def scale_row(how: str, devices: int, batch: int, job: Measured, row: Measured) -> None:
    head = {"side": "scale", "how": how, "devices": devices, "batch": batch}
    head |= {name: job[name] for name in ("shape", "dtype", "length")}
    print(json.dumps({**head, **row}), flush=True)


def scale_cells(job: Measured, ways: dict[str, list[tuple[int, Callable[[], Any]]]]) -> None:
    """Print a row for every way and number of devices.

    Args:
        ways: name -> (devices, maker) in order, one device first. A maker gives (step_once, time_steps): the first
            takes ids and gives `Trained`, the second takes ids and gives milliseconds of the first call and of a step.
    """
    most, vocab = job["devices"], SHAPES[job["shape"]][1].get("vocab_size", 50257)
    whole = random_ids(most * job["batch"], job["length"], vocab).astype("int32")
    alone: dict[str, Trained] = {}
    for how, variants in ways.items():
        for devices, make in variants:
            if time.time() >= job["deadline"]:
                say(f"scale: out of time from {how}, {devices} devices on")
                return
            batch = devices * job["batch"]
            try:
                step_once, time_steps = make()
                trained = step_once(whole)
                row: Measured = {"loss": trained.loss}
                if devices == 1:
                    alone[how] = trained
                elif how in alone:
                    row |= trained.difference(alone[how])
                row["first_ms"], row["ms"] = time_steps(whole[:batch])
            except Exception as error:
                row = {"note": f"failed: {type(error).__name__}: {str(error)[:300]}"}
            scale_row(how, devices, batch, job, row)
            step_once = time_steps = None
            gc.collect()


def steps_of_fit(model: Any, ids: np.ndarray, rounds: int, epochs: int) -> tuple[float, list[float]]:
    """Loss of the last epoch, and milliseconds of each, of `rounds` steps of `fit` over the same rows."""
    import keras

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            np.asarray(keras.ops.convert_to_numpy(self.model.trainable_variables[0].value))  # what is under way ends
            ends.append(time.perf_counter())

    rows = np.tile(ids, (rounds, 1))
    data: Any = {"input_ids": rows, "labels": rows}
    settings: Measured = {"batch_size": len(ids), "shuffle": False}
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        data, settings = tf.data.Dataset.from_tensor_slices(data).batch(len(ids), drop_remainder=True), {}
    start = time.perf_counter()
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=[Clock()], **settings)
    spans = [1e3 * (end - begin) for begin, end in itertools.pairwise([start, *ends])]
    return history.history["loss"][-1], spans


def fitted(make_model: Callable[[], Any], rounds: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(step_once, time_steps) by `fit`."""
    import keras

    def model_to_fit() -> Any:
        model = make_model()
        model.compile(keras.optimizers.SGD(_RATE))
        return model

    def step_once(ids: np.ndarray) -> Trained:
        model = model_to_fit()
        before = arrays_of(model)
        loss, _ = steps_of_fit(model, ids, 1, 1)
        return Trained(loss, before, arrays_of(model))

    def time_steps(ids: np.ndarray) -> tuple[float, float]:
        _, (first, *spans) = steps_of_fit(model_to_fit(), ids, rounds, 4)
        return first, statistics.median(spans) / rounds

    return step_once, time_steps


def arrays_of(model: Any) -> list[np.ndarray]:
    import keras

    cast, numpy = keras.ops.cast, keras.ops.convert_to_numpy
    return [np.array(numpy(cast(variable.value, "float32"))) for variable in model.trainable_variables]


def model_maker(job: Measured) -> Callable[[], Any]:
    import keras

    import tfmodels

    stem, values = SHAPES[job["shape"]]
    cls = getattr(tfmodels, "TF" + stem)

    def make() -> Any:
        keras.utils.set_random_seed(0)
        return cls(cls.config_class.from_dict(values), dtype=job["dtype"], attn_implementation=job["attn"])

    return make


def tensorflow_scale(job: Measured) -> None:
    """MirroredStrategy: by a loop whose gradients XLA computes, and by `fit`."""
    tf = tensorflow_on(job["device"], job["devices"])
    import keras

    kind = job["device"].upper()
    name = tensorflow_device_name(tf) if kind == "GPU" else "CPU"
    about("scale, TensorFlow", f"{job['devices']} x {name}", tensorflow=tf.__version__, keras=keras.__version__)
    make_model = model_maker(job)
    # One in a process: TensorFlow numbers their talk.
    mirrored = tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(job["devices"])])

    def loop(strategy: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        replicas = strategy.num_replicas_in_sync
        with strategy.scope():
            model = make_model()
            optimizer = keras.optimizers.SGD(_RATE)
            optimizer.build(model.trainable_variables)
        weights = model.trainable_variables

        @tf.function(jit_compile=True, autograph=False)
        def gradients(ids: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = model(input_ids=ids, labels=ids, use_cache=False, training=True).loss
            flows = tape.gradient(loss, [weight.value for weight in weights])
            return loss, [flow / replicas for flow in flows]  # the optimizer adds them up over the replicas

        def replica(ids: Any) -> Any:
            loss, flows = gradients(ids)
            optimizer.apply(flows, weights)
            return loss

        @tf.function(autograph=False)
        def step(ids: Any) -> Any:
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(replica, (ids,)), axis=None)

        def spread(ids: np.ndarray) -> Any:
            parts = np.split(ids, replicas)
            if replicas == 1:
                return tf.constant(ids)
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(parts[context.replica_id_in_sync_group])
            )

        def settle() -> None:
            tf.reshape(weights[0].value, [-1])[0].numpy()

        def step_once(ids: np.ndarray) -> Trained:
            before = arrays_of(model)
            loss = step(spread(ids)).numpy()
            return Trained(loss, before, arrays_of(model))

        def time_steps(ids: np.ndarray) -> tuple[float, float]:
            own = spread(ids)

            def steps(count: int) -> None:
                for _ in range(count):
                    step(own)
                settle()

            first = timed(lambda: steps(1))
            steps(1)
            return first, statistics.median(timed(lambda: steps(job["rounds"])) for _ in range(3)) / job["rounds"]

        return step_once, time_steps

    def fit(strategy: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def make() -> Any:
            with strategy.scope():
                return make_model()

        def scoped(action: Callable[..., Any]) -> Callable[..., Any]:
            def run(ids: np.ndarray) -> Any:
                with strategy.scope():
                    return action(ids)

            return run

        once, times = fitted(make, job["rounds"])
        return scoped(once), scoped(times)

    ways = {"mirrored": loop, "mirrored-fit": fit}
    strategies = {1: tf.distribute.get_strategy(), job["devices"]: mirrored}
    scale_cells(
        job,
        {
            how: [(count, lambda build=build, it=it: build(it)) for count, it in strategies.items()]
            for how, build in ways.items()
            if how in job["how"]
        },
    )


def jax_scale(job: Measured) -> None:
    """`fit` under `keras.distribution`: the batch split, and the model split."""
    import jax
    import keras

    from tfmodels.training import distribution

    names = keras.distribution.list_devices()[: job["devices"]]
    if len(names) < job["devices"]:
        sys.exit(f"JAX sees {len(names)} devices, not {job['devices']}")
    device = f"{job['devices']} x {jax.devices()[0].device_kind}"
    about("scale, JAX", device, jax=jax.__version__, keras=keras.__version__)
    make_model = model_maker(job)
    config = make_model().config

    def spread(make: Callable[[], Any]) -> Callable[[], Any]:
        def build() -> Any:
            it = make()
            once, times = fitted(make_model, job["rounds"])

            def scoped(action: Callable[..., Any]) -> Callable[..., Any]:
                def run(ids: np.ndarray) -> Any:
                    with it.scope():
                        return action(ids)

                return run

            return scoped(once), scoped(times)

        return build

    several = {
        "jax-data": spread(lambda: distribution.data_parallel(names)),
        "jax-model": spread(lambda: distribution.tensor_parallel(config, devices=names)),
    }
    one = (1, lambda: fitted(make_model, job["rounds"]))
    scale_cells(job, {how: [one, (job["devices"], make)] for how, make in several.items() if how in job["how"]})


# The command ---------------------------------------------------------------------------------------------------------


def measure_tfmodels(job: Measured) -> None:
    measure_cells(TFModelsSide(job))


def measure_torch(job: Measured) -> None:
    try:
        side = TorchSide(job)
    except (ImportError, ValueError) as error:  # not every model has every attention, nor every machine
        for cell in job["cells"]:
            print_row("torch " + job["peer"], job, cell, {"note": f"failed: {str(error)[:200]}", "at_once": 1})
        return
    measure_cells(side)


SIDES = {"tfmodels": measure_tfmodels, "torch": measure_torch, "tensorflow": tensorflow_scale, "jax": jax_scale}


class Report:
    """What was measured so far, written out at every row.

    Args:
        command: its arguments.
        as_json, as_markdown: files, or None.
    """

    def __init__(self, command: list[str], as_json: Path | None, as_markdown: Path | None):
        self.command, self.as_json, self.as_markdown = command, as_json, as_markdown
        self.rows: list[Measured] = []
        self.about: list[Measured] = []
        self.failed = False

    def run_side(self, python: list[str], name: str, job: Measured, environment: dict[str, str] | None = None) -> None:
        """Run a side in its own process and collect its rows as they come."""
        say(f"{name} {job.get('peer', '')}: {job['deadline'] - time.time():.0f} s to start cells in")
        arguments = [*python, __file__, "--side", name, json.dumps(job)]
        environment = {**os.environ, **(environment or {})}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stdout or ():
                if line.startswith('{"about"'):
                    self.about.append(json.loads(line))
                elif line.startswith('{"side"'):
                    self.rows.append(json.loads(line))
                    say(line.rstrip())
                    self.write()
        if process.returncode:
            say(f"benchmark_gpu: {name} {job.get('peer', '')} ended with code {process.returncode}")
            self.failed = True

    def write(self) -> None:
        if self.as_json:
            replace(
                self.as_json, json.dumps({"command": self.command, "about": self.about, "rows": self.rows}, indent=1)
            )
        if self.as_markdown:
            replace(self.as_markdown, self.markdown())

    def markdown(self) -> str:
        lines = ["    " + shlex.join(["python", "tools/benchmark_gpu.py", *self.command]), ""]
        for side in self.about:
            versions = ", ".join(f"{name} {value}" for name, value in side.items() if name not in ("about", "device"))
            lines.append(f"- {side['about']}: {side['device']}; {versions}")
        return "\n".join([*lines, "", *tables(self.rows)])

    def finish(self) -> None:
        self.write()
        print(self.markdown(), flush=True)
        bad = self.failed or any(row.get("note", "").startswith("failed") for row in self.rows if is_ours(row))
        sys.exit(bad)


def is_ours(row: Measured) -> bool:
    return row["side"] in ("tfmodels", "scale")


def replace(file: Path, text: str) -> None:
    """Write a file whole: whoever is stopped in between leaves the one before."""
    other = file.with_name(file.name + ".part")
    other.write_text(text + "\n")
    other.replace(file)


def tables(rows: list[Measured]) -> list[str]:
    """Markdown, a table for every shape, dtype and task."""
    lines = []
    groups = dict.fromkeys((row["shape"], row["dtype"], row.get("what", "scale")) for row in rows)
    for shape, dtype, what in groups:
        own = [row for row in rows if (row["shape"], row["dtype"], row.get("what", "scale")) == (shape, dtype, what)]
        lines += [
            f"**{what}**, {shape}, {dtype}",
            "",
            *(scale_table(own) if what == "scale" else table(own, what)),
            "",
        ]
    return lines


def markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(rows: list[Measured], what: str) -> list[str]:
    """A line per cell: our time and memory, and each peer's with the ratio to ours; then notes."""
    ours_first = sorted(dict.fromkeys(row["side"] for row in rows), key=lambda side: side != "tfmodels")
    unit = "ms/token" if what == "decode" else "ms"
    extra = {"decode": ["GB/s (of a copy's)"], "embed": ["sentences/s"]}.get(what, [])
    headings = ["batch x length"]
    for side in ours_first:
        headings += [f"{side} {unit}", *extra, "MiB", "first s"] + (["slower by"] if side != "tfmodels" else [])
    lines = [markdown_row(headings), "|" + "---|" * len(headings)]
    found = {(row["side"], row["batch"], row["length"]): row for row in rows}
    notes = {}
    for batch, length in sorted(dict.fromkeys((row["batch"], row["length"]) for row in rows)):
        ours = found.get(("tfmodels", batch, length), {})
        cells = [f"{batch} x {length}"]
        for side in ours_first:
            row = found.get((side, batch, length), {})
            if "ms" not in row:
                note = row.get("note", "-")
                cells += [note if note == "out of memory" else note.split(":")[0], "", "", *[""] * len(extra)]
                if note.startswith("failed"):
                    notes[f"{side}: {note}"] = None
            else:
                cells.append(f"{row['ms']:.2f}")
                if what == "decode":
                    cells.append(f"{row['read_gb_s']:.0f} ({100 * row['read_gb_s'] / row['copy_gb_s']:.0f} %)")
                elif what == "embed":
                    cells.append(f"{row['sentences_per_s']:.0f}")
                cells += ["-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}", f"{row['first_ms'] / 1e3:.1f}"]
            if side != "tfmodels":
                cells.append(f"{row['ms'] / ours['ms']:.2f}x" if "ms" in row and "ms" in ours else "")
        lines.append(markdown_row(cells))
    for row in rows:
        if row.get("attention"):
            notes.setdefault("attention: " + row["attention"].replace("\n", "; "), []).append(
                f"{row['batch']} x {row['length']}"
            )
        if what == "decode" and "copy_gb_s" in row:
            notes[f"{row['side']}: a copy on the device moves {row['copy_gb_s']:.0f} GB/s, read and written"] = None
        if row["at_once"] > 1:
            notes[f"first calls of tfmodels: up to {max(r['at_once'] for r in rows)} programs compiled at once"] = None
    return [*lines, "", *(f"- {text}" + (f" ({', '.join(cells)})" if cells else "") for text, cells in notes.items())]


def scale_table(rows: list[Measured]) -> list[str]:
    """A line per way and number of devices; efficiency is tokens per second and device against one device."""
    headings = ["how", "devices", "batch x length", "ms/step", "tokens/s", "efficiency", "first s"]
    headings += ["loss differs by", "weights by", "their update by"]
    lines = [markdown_row(headings), "|" + "---|" * len(headings)]
    notes = []
    for row in rows:
        cells = [row["how"], str(row["devices"]), f"{row['batch']} x {row['length']}"]
        if "ms" not in row:
            lines.append(markdown_row([*cells, "failed", *[""] * (len(headings) - len(cells) - 1)]))
            notes.append(f"- {row['how']}, {row['devices']}: {row['note']}")
            continue
        rate = row["batch"] * row["length"] / row["ms"]
        one = next((r for r in rows if r["how"] == row["how"] and r["devices"] == 1 and "ms" in r), None)
        efficiency = rate / row["devices"] / (one["batch"] * one["length"] / one["ms"]) if one else None
        cells += [f"{row['ms']:.2f}", f"{1e3 * rate:.0f}", "" if efficiency is None else f"{100 * efficiency:.0f} %"]
        cells.append(f"{row['first_ms'] / 1e3:.1f}")
        for name in ("loss_difference", "weights_difference", "update_difference"):
            cells.append(f"{row[name]:.1e}" if name in row else "")
        lines.append(markdown_row(cells))
    return [*lines, *([""] if notes else []), *notes]


def plot(rows: list[Measured], file: Path) -> None:
    """Speed-up over each peer against the length, a panel per task and shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ours = {cell_of(row): row for row in rows if row["side"] == "tfmodels" and "ms" in row}
    panels: dict[tuple[str, ...], dict[tuple[str, int], list[tuple[int, float]]]] = {}
    for row in rows:
        own = ours.get(cell_of(row))
        if own and row["side"] not in ("tfmodels", "scale") and "ms" in row:
            lines = panels.setdefault((row["what"], row["shape"], row["dtype"]), {})
            lines.setdefault((row["side"], row["batch"]), []).append((row["length"], row["ms"] / own["ms"]))
    if not panels:
        sys.exit("benchmark_gpu: nothing to plot: no cell of tfmodels has a peer")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.2), squeeze=False)
    for axis, (panel, lines) in zip(axes[0], panels.items(), strict=True):
        sides = sorted({side for side, _ in lines})
        batches = sorted({batch for _, batch in lines})
        for (side, batch), points in sorted(lines.items()):
            lengths, ratios = zip(*sorted(points), strict=True)
            style = ("-", "--", ":", "-.")[batches.index(batch) % 4]
            label = f"{side}, batch {batch}"
            axis.plot(lengths, ratios, style, marker="o", color=f"C{sides.index(side)}", label=label)
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log", base=2)
        ticks = sorted({length for points in lines.values() for length, _ in points})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_ylim(bottom=0)
        axis.set(title=", ".join(panel), xlabel="length", ylabel="time of the peer / time of tfmodels")
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def cell_of(row: Measured) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("what", "shape", "dtype", "batch", "length"))


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The type of an argument that is a comma-separated list of some names."""

    def parse(text: str) -> list[str]:
        chosen = [part for part in text.split(",") if part]
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: {', '.join(names)} are possible")
        return chosen

    return parse


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, help="(pythia-410m; to embed mpnet-base)")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="(float16; to embed bfloat16)")
    parser.add_argument("--attn", default="auto", help="attn_implementation of tfmodels (%(default)s)")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: to try the tool (%(default)s)")
    parser.add_argument(
        "--budget", type=float, default=float("inf"), metavar="SECONDS", help="start no cell after so long (no limit)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here too")


def benchmark(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", type=one_of(WHAT), help=f"{', '.join(WHAT)}, comma-separated; or scale, or plot")
    add_common(parser)
    parser.add_argument("--batch", type=numbers, metavar="N,...", help="(1,4; to embed 64)")
    parser.add_argument("--length", type=numbers, metavar="N,...", help="(512,2048; to embed 128)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="(%(default)s)")
    parser.add_argument("--new", type=int, default=128, metavar="N", help="tokens to decode (%(default)s)")
    parser.add_argument("--int8", action="store_true", help="tfmodels with int8 weights; not to train")
    parser.add_argument("--peer", type=one_of(PEERS), default=[], metavar="NAME,...", help=", ".join(PEERS))
    parser.add_argument(
        "--compile-threads",
        type=int,
        default=1,
        metavar="N",
        help="programs of tfmodels to compile at once (%(default)s)",
    )
    parser.add_argument("--torch-python", default=sys.executable, help="command of the interpreter that has PyTorch")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the speed-up over each peer, PNG")
    options = parser.parse_args(arguments)
    embeds = "embed" in options.what
    for name, value in (EMBED_DEFAULTS if embeds else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.int8 and "train" in options.what:
        parser.error("int8 weights are not trained")
    causal = SHAPES[options.shape][0].endswith("CausalLM")
    if unfit := [what for what in options.what if what != "forward" and (what == "embed") == causal]:
        parser.error(f"{options.shape} is no model to {', '.join(unfit)}")
    job: Measured = {
        name: getattr(options, name) for name in ("shape", "dtype", "int8", "new", "attn", "rounds", "device")
    }
    cells = itertools.product(options.length, options.batch, options.what)
    job["cells"] = [(what, batch, length) for length, batch, what in cells]
    report = Report(arguments, options.json, options.markdown)
    # Peers come first and have their part of the time each: they rarely need it, and compiling takes what is left.
    end = time.time() + options.budget
    for index, peer in enumerate(options.peer):
        left = (end - time.time()) / (len(options.peer) + 1 - index)
        python = shlex.split(options.torch_python)
        report.run_side(python, "torch", {**job, "peer": peer, "compile_threads": 1, "deadline": time.time() + left})
    ours = {**job, "compile_threads": options.compile_threads, "deadline": end}
    report.run_side([sys.executable], "tfmodels", ours)
    if options.plot:
        plot(report.rows, options.plot)
    report.finish()


def scale(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark_gpu.py scale", description="Train on one and on several devices.")
    add_common(parser)
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="of one device (%(default)s)")
    parser.add_argument("--length", type=int, default=512, metavar="N", help="(%(default)s)")
    parser.add_argument("--devices", type=int, default=2, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="steps that are timed, thrice (%(default)s)"
    )
    parser.add_argument("--how", type=one_of(HOW), default=list(HOW), metavar="NAME,...", help=f"({','.join(HOW)})")
    parser.add_argument("--jax-python", default=sys.executable, help="command of the interpreter that has JAX")
    options = parser.parse_args(arguments)
    names = ("attn", "device", "batch", "length", "devices", "rounds", "how")
    job: Measured = {name: getattr(options, name) for name in names}
    job |= {name: getattr(options, name) or DEFAULTS[name] for name in ("shape", "dtype")}
    job["deadline"] = time.time() + options.budget
    report = Report(["scale", *arguments], options.json, options.markdown)
    if any(how.startswith("mirrored") for how in options.how):
        report.run_side([sys.executable], "tensorflow", job, {"KERAS_BACKEND": "tensorflow"})
    if any(how.startswith("jax") for how in options.how):
        environment = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if options.device == "cpu":
            flags = f"--xla_force_host_platform_device_count={options.devices}"
            environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        report.run_side(shlex.split(options.jax_python), "jax", job, environment)
    report.finish()


def plot_files(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark_gpu.py plot", description="Draw what --json has written.")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--plot", type=Path, default=Path("speed_up.png"), metavar="FILE", help="(%(default)s)")
    options = parser.parse_args(arguments)
    plot([row for file in options.files for row in json.loads(file.read_text())["rows"]], options.plot)


def main(arguments: list[str] | None = None) -> None:
    first, *others = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if first == "--side":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # whatever the interpreter's surroundings are
        SIDES[others[0]](json.loads(others[1]))
    elif first in ("scale", "plot"):
        {"scale": scale, "plot": plot_files}[first](others)
    else:
        benchmark([first, *others])


if __name__ == "__main__":
    main()
