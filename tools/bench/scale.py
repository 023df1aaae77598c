"""Train on one and on several devices, and compare loss, weights and time.

    python -m tools.bench scale --batch 4 --length 512 --devices 2

By MirroredStrategy on TensorFlow, and by keras.distribution on JAX in the interpreter that --jax-python names.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tools.bench.arguments import Row, benchmark, some_of
from tools.bench.report import GPU, Report, say
from tools.bench.shapes import SHAPES, model_class, random_ids
from tools.bench.sides import about, tensorflow_device_name, tensorflow_on

HOW = ("mirrored", "mirrored-fit", "jax-data", "jax-model")
_RATE = 0.1  # of SGD: one step moves the weights by much more than they are rounded

# A model, and a function that takes ids, steps and times: it trains so many steps on those ids, so many times over,
# and gives the last loss and milliseconds of each time.
Trainer = tuple[Any, Callable[[np.ndarray, int, int], tuple[float, list[float]]]]


class Trained:
    """Loss and weights after one step from the same start, to compare with."""

    def __init__(self, loss: Any, before: list[np.ndarray], after: list[np.ndarray]):
        self.loss = float(loss)
        self.after = np.concatenate([array.ravel() for array in after])
        self.update = self.after - np.concatenate([array.ravel() for array in before])

    def difference(self, other: Trained) -> Row:
        """Relative, in the Euclidean norm."""
        return {
            "loss_difference": abs(self.loss - other.loss) / abs(other.loss),
            "weights_difference": float(np.linalg.norm(self.after - other.after) / np.linalg.norm(other.after)),
            "update_difference": float(np.linalg.norm(self.update - other.update) / np.linalg.norm(other.update)),
        }


def scale_cells(job: Row, ways: dict[str, Callable[[int], Trainer]]) -> None:
    """Print a row for every way of the job, of functions of a number of devices, on one device and on several."""
    most, vocab = job["devices"], model_class(SHAPES[job["shape"]])[1].vocab_size
    whole = random_ids(most * job["batch"], job["length"], vocab).astype("int32")
    alone: dict[str, Trained] = {}
    for how, devices in itertools.product([how for how in ways if how in job["how"]], (1, most)):
        if time.time() >= job["deadline"]:
            say(f"scale: out of time from {how}, {devices} devices on")
            return
        batch = devices * job["batch"]
        try:
            trained = first_step(*ways[how](devices), whole)
            row: Row = {"loss": trained.loss}
            if devices == 1:
                alone[how] = trained
            elif how in alone:
                row |= trained.difference(alone[how])
            gc.collect()
            _, (row["first_ms"], *spans) = ways[how](devices)[1](whole[:batch], job["rounds"], 4)
            row["ms"] = statistics.median(spans) / job["rounds"]
        except Exception as error:
            row = {"note": f"failed: {type(error).__name__}: {str(error)[:300]}"}
        head = {"side": "scale", "how": how, "devices": devices, "batch": batch}
        head |= {name: job[name] for name in ("shape", "dtype", "length")}
        print(json.dumps({**head, **row}), flush=True)
        gc.collect()


def first_step(model: Any, train: Callable[..., Any], ids: np.ndarray) -> Trained:
    import keras

    def arrays() -> list[np.ndarray]:
        cast, numpy = keras.ops.cast, keras.ops.convert_to_numpy
        return [np.array(numpy(cast(variable.value, "float32"))) for variable in model.trainable_variables]

    before = arrays()
    loss, _ = train(ids, 1, 1)
    return Trained(loss, before, arrays())


def settle(model: Any) -> None:
    """Wait for what is under way; a large variable would take as long to copy as some steps do."""
    import keras

    smallest = min(model.trainable_variables, key=lambda variable: math.prod(variable.shape))
    np.asarray(keras.ops.convert_to_numpy(smallest.value))


def fitted(make_model: Callable[[], Any], scope: Callable[[], Any]) -> Trainer:
    """By `fit`, inside a `scope`."""
    import keras

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            settle(self.model)
            ends.append(time.perf_counter())

    with scope():
        model = make_model()
        model.compile(keras.optimizers.SGD(_RATE))

    def train(ids: np.ndarray, steps: int, times: int) -> tuple[float, list[float]]:
        rows = np.tile(ids, (steps, 1))
        data: Any = {"input_ids": rows, "labels": rows}
        settings: Row = {"batch_size": len(ids), "shuffle": False}
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            data, settings = tf.data.Dataset.from_tensor_slices(data).batch(len(ids), drop_remainder=True), {}
        ends[:] = [time.perf_counter()]
        with scope():
            history = model.fit(data, epochs=times, verbose=0, callbacks=[Clock()], **settings)
        return history.history["loss"][-1], [1e3 * (end - begin) for begin, end in itertools.pairwise(ends)]

    return model, train


def looped(make_model: Callable[[], Any], strategy: Any) -> Trainer:
    """By a loop whose gradients XLA computes, on TensorFlow."""
    import keras
    import tensorflow as tf

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

    def train(ids: np.ndarray, steps: int, times: int) -> tuple[float, list[float]]:
        own = tf.constant(ids)
        if replicas > 1:
            parts = tf.split(own, replicas)
            own = strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group]
            )

        spans = []
        for _ in range(times):
            start = time.perf_counter()
            for _ in range(steps):
                loss = step(own)
            settle(model)
            spans.append(1e3 * (time.perf_counter() - start))
        return float(loss), spans

    return model, train


def model_maker(job: Row) -> Callable[[], Any]:
    import keras

    cls, config = model_class(SHAPES[job["shape"]])

    def make() -> Any:
        keras.utils.set_random_seed(0)
        return cls(config, dtype=job["dtype"], attn_implementation=job["attn"])

    return make


def tensorflow_scale(job: Row) -> None:
    """MirroredStrategy: by a loop, and by `fit`."""
    tf = tensorflow_on(job["device"], job["devices"])
    import keras

    kind, count = job["device"].upper(), job["devices"]
    name = tensorflow_device_name(tf) if kind == "GPU" else "CPU"
    about("scale, TensorFlow", f"{count} x {name}", tensorflow=tf.__version__, keras=keras.__version__)
    make_model = model_maker(job)
    # One in a process: TensorFlow numbers their talk.
    mirrored = tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(count)])
    strategies = {1: tf.distribute.get_strategy(), count: mirrored}
    ways = {
        "mirrored": lambda devices: looped(make_model, strategies[devices]),
        "mirrored-fit": lambda devices: fitted(make_model, strategies[devices].scope),
    }
    scale_cells(job, ways)


def jax_scale(job: Row) -> None:
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
    alone = contextlib.nullcontext
    data = distribution.data_parallel(names)
    parts = distribution.tensor_parallel(config, devices=names)
    ways = {
        "jax-data": lambda devices: fitted(make_model, data.scope if devices > 1 else alone),
        "jax-model": lambda devices: fitted(make_model, parts.scope if devices > 1 else alone),
    }
    scale_cells(job, ways)


@benchmark(
    "scale",
    f"shape:name=pythia-410m dtype:gpu=float16 {GPU}",
    {
        "--batch": ("4", "of one device"),
        "--length": ("512", "tokens of a row"),
        "--devices": ("2", "compared with one"),
        "--how": {"type": some_of(HOW), "default": [*HOW], "metavar": "NAME,...", "help": f"({','.join(HOW)})"},
        "--jax-python": {"default": sys.executable, "help": "command of the interpreter that has JAX"},
    },
)
def run_scale(options: argparse.Namespace) -> None:
    job: Row = {**vars(options), "json": None, "markdown": None, "deadline": time.time() + options.budget}
    report = Report(options)
    if any(how.startswith("mirrored") for how in options.how):
        report.run_side([sys.executable], "tensorflow", job, {"KERAS_BACKEND": "tensorflow"})
    if any(how.startswith("jax") for how in options.how):
        environment = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if options.device == "cpu":
            flags = f"--xla_force_host_platform_device_count={options.devices}"
            environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        report.run_side(shlex.split(options.jax_python), "jax", job, environment)
    report.finish()
