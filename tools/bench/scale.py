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

from tools.bench.arguments import add_number, some_of
from tools.bench.gpu_sides import about, tensorflow_device_name, tensorflow_on, timed
from tools.bench.report import Measured, Report, add_common, say
from tools.bench.shapes import SHAPES, model_class, random_ids

HOW = ("mirrored", "mirrored-fit", "jax-data", "jax-model")
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


def scale_cells(job: Measured, ways: dict[str, list[tuple[int, Callable[[], Any]]]]) -> None:
    """Print a row for every way and number of devices.

    Args:
        ways: name -> (devices, maker) in order, one device first. A maker gives (step_once, time_steps): the first
            takes ids and gives `Trained`, the second takes ids and gives milliseconds of the first call and of a step.
    """
    most, vocab = job["devices"], model_class(SHAPES[job["shape"]])[1].vocab_size
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
            head = {"side": "scale", "how": how, "devices": devices, "batch": batch}
            head |= {name: job[name] for name in ("shape", "dtype", "length")}
            print(json.dumps({**head, **row}), flush=True)
            step_once = time_steps = None
            gc.collect()


def steps_of_fit(model: Any, ids: np.ndarray, rounds: int, epochs: int) -> tuple[float, list[float]]:
    """Loss of the last epoch, and milliseconds of each, of `rounds` steps of `fit` over the same rows."""
    import keras

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            # Waits for what is under way; a large variable would take as long to copy as some steps do.
            smallest = min(self.model.trainable_variables, key=lambda variable: math.prod(variable.shape))
            np.asarray(keras.ops.convert_to_numpy(smallest.value))
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


def fitted(
    make_model: Callable[[], Any], rounds: int, scope: Callable[[], Any] = contextlib.nullcontext
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(step_once, time_steps) by `fit`, each inside a `scope`."""
    import keras

    def model_to_fit() -> Any:
        model = make_model()
        model.compile(keras.optimizers.SGD(_RATE))
        return model

    def step_once(ids: np.ndarray) -> Trained:
        with scope():
            model = model_to_fit()
            before = arrays_of(model)
            loss, _ = steps_of_fit(model, ids, 1, 1)
            return Trained(loss, before, arrays_of(model))

    def time_steps(ids: np.ndarray) -> tuple[float, float]:
        with scope():
            _, (first, *spans) = steps_of_fit(model_to_fit(), ids, rounds, 4)
        return first, statistics.median(spans) / rounds

    return step_once, time_steps


def arrays_of(model: Any) -> list[np.ndarray]:
    import keras

    cast, numpy = keras.ops.cast, keras.ops.convert_to_numpy
    return [np.array(numpy(cast(variable.value, "float32"))) for variable in model.trainable_variables]


def model_maker(job: Measured) -> Callable[[], Any]:
    import keras

    cls, config = model_class(SHAPES[job["shape"]])

    def make() -> Any:
        keras.utils.set_random_seed(0)
        return cls(config, dtype=job["dtype"], attn_implementation=job["attn"])

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
        return fitted(make_model, job["rounds"], strategy.scope)

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
        return lambda: fitted(make_model, job["rounds"], make().scope)

    several = {
        "jax-data": spread(lambda: distribution.data_parallel(names)),
        "jax-model": spread(lambda: distribution.tensor_parallel(config, devices=names)),
    }
    one = (1, lambda: fitted(make_model, job["rounds"]))
    scale_cells(job, {how: [one, (job["devices"], make)] for how, make in several.items() if how in job["how"]})


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="tools.bench scale", description="Train on one and on several devices.")
    add_common(parser, "steps that are timed, thrice")
    add_number(parser, "--batch", 4, "of one device")
    add_number(parser, "--length", 512)
    add_number(parser, "--devices", 2)
    parser.add_argument("--how", type=some_of(HOW), default=list(HOW), metavar="NAME,...", help=f"({','.join(HOW)})")
    parser.add_argument("--jax-python", default=sys.executable, help="command of the interpreter that has JAX")
    options = parser.parse_args(arguments)
    names = ("attn", "device", "batch", "length", "devices", "rounds", "how")
    job: Measured = {name: getattr(options, name) for name in names}
    job |= {"shape": options.shape or "pythia-410m", "dtype": options.dtype or "float16"}
    job["deadline"] = time.time() + options.budget
    report = Report(["scale", *arguments], options)
    if any(how.startswith("mirrored") for how in options.how):
        report.run_side([sys.executable], "tensorflow", job, {"KERAS_BACKEND": "tensorflow"})
    if any(how.startswith("jax") for how in options.how):
        environment = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if options.device == "cpu":
            flags = f"--xla_force_host_platform_device_count={options.devices}"
            environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        report.run_side(shlex.split(options.jax_python), "jax", job, environment)
    report.finish()
