"""Several devices compute what one does: `keras.distribution` on JAX, `tf.distribute` on TensorFlow."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where this file runs as a script

import small_models  # noqa: E402

from tfmodels.checkpoints import deferred  # noqa: E402
from tfmodels.models import replicas  # noqa: E402
from tfmodels.training import distribution  # noqa: E402

LANGUAGE_MODELS = {name: "ForMaskedLM" if name == "mpnet" else "ForCausalLM" for name in small_models.SMALL}


def batch(name, head):
    """Four rows: for four devices one each."""
    inputs = {**small_models.inputs_of(name, head), **small_models.labels_of(name, head)}
    return {key: np.concatenate([value, np.roll(value, 1, axis=0)]) for key, value in inputs.items()}


def compiled(model, **options):
    """Ready for `fit`, without dropout, which draws anew on every device."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.1), **options)
    return model


def train(model, inputs):
    """Losses of three steps."""
    return model.fit(inputs, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"]


def results_of(task: str, folder: Path, environment: dict[str, str] | None = None) -> dict:
    """The results of a task in a process of this file, which knows its devices from the start."""
    command = [sys.executable, __file__, task, str(folder)]
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})}, cwd=ROOT)
    return json.loads((folder / "results.json").read_text())


# keras.distribution on JAX -------------------------------------------------------------------------------------------


def shares(variables):
    """Per variable the part of it that one device holds."""
    return {v.path: v.value.addressable_shards[0].data.size / v.value.size for v in variables}


def divided(out: Path) -> dict:
    """The numbers of every family on one device of four and on all."""
    return {name: work(name, out / name) for name in LANGUAGE_MODELS}


def work(name: str, out: Path) -> dict:
    """The numbers of a family on one device of four and on all; Llama in every way, the others with split weights.

    How rows are split is code that knows no family.
    """
    head = LANGUAGE_MODELS[name]
    inputs = batch(name, head)
    results = {}
    undivided = small_models.make(name, head, vocab_size=64)
    undivided.save_pretrained(out / "model")
    model_class, config = type(undivided), undivided.config

    unlabelled = {key: value for key, value in inputs.items() if key != "labels"}

    def logits(model):
        return np.asarray(model.predict(unlabelled, batch_size=4, verbose=0)["logits"]).tolist()

    def measure(label):
        model = compiled(model_class.from_pretrained(out / "model"))
        result = {"logits": logits(model)}
        if name == "llama" and label in ("one", "tensor"):  # every operation by itself, which takes its time
            result["eager logits"] = np.asarray(model(**unlabelled).logits).tolist()
        if head == "ForCausalLM" and label != "both":
            prompt = inputs["input_ids"][[0, 3], :3]
            result["ids"] = np.asarray(model.generate(prompt, max_new_tokens=5, eos_token_id=None)).tolist()
        result |= {"losses": train(model, inputs), "logits after": logits(model)}
        result["weights"], result["optimizer"] = shares(model.weights), shares(model.optimizer.variables)
        results[label] = result

    measure("one")
    with distribution.tensor_parallel(config).scope():
        measure("tensor")
    if name != "llama":
        return results
    with distribution.tensor_parallel(config, shards=2).scope():
        measure("both")
    with distribution.data_parallel().scope():
        measure("data")
    return results


def devices(count):
    """XLA's flags for so many devices of a CPU, beside those that the tests run with."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"


@pytest.mark.slow
def test_four_devices_compute_what_one_does(tmp_path):
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    flags = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices(4)}
    families = results_of("divided", tmp_path, flags)
    assert families.keys() == LANGUAGE_MODELS.keys()
    for name, results in families.items():
        one = results.pop("one")
        assert results.keys() == ({"tensor", "both", "data"} if name == "llama" else {"tensor"})
        for how, four in results.items():
            for key in one.keys() & four.keys() - {"weights", "optimizer", "ids"}:
                tolerance = {"rtol": 1e-5} if key == "losses" else {"atol": 1e-5}
                np.testing.assert_allclose(four[key], one[key], **tolerance, err_msg=f"{name}, {how}: {key}")
            assert four.get("ids", one.get("ids")) == one.get("ids"), (name, how)
        assert {"logits", "losses", "logits after"} <= results["tensor"].keys()
        assert ("eager logits" in results["tensor"]) is (name == "llama")
        assert ("ids" in results["tensor"]) is (name != "mpnet")
        each_device_holds_its_part(name, results["tensor"])
    assert set(families["llama"]["both"]["weights"].values()) == {0.5, 1.0}
    assert set(families["llama"]["data"]["weights"].values()) == {1.0}


def each_device_holds_its_part(name, results):
    weights = results["weights"]
    is_split = {path: part for path, part in weights.items() if part < 1}
    assert set(is_split.values()) == {0.25}, name
    # Every matrix and table but positions; with two key/value heads, Llama's keys and values are whole on four.
    whole = [p for p, part in weights.items() if part == 1 and p.endswith(("kernel", "embeddings"))]
    allowed = ("k_proj/kernel", "v_proj/kernel", "wpe/embeddings", "embed_positions/embeddings", "table/embeddings")
    assert [path for path in whole if not path.endswith((*allowed, "lm_head/dense/kernel"))] == []
    assert not [path for path in whole if name != "llama" and "_proj" in path]
    # Adam's two averages lie as the weights do.
    slots = results["optimizer"].values()
    assert sum(part == 0.25 for part in slots) == 2 * len(is_split)


def held() -> int:
    """Bytes that the device that holds most holds of all arrays that are alive."""
    import jax

    gc.collect()  # a model is in cycles: it stays alive until the collector comes by
    counts = dict.fromkeys(jax.devices(), 0)
    for array in jax.live_arrays():  # to look at their parts would make more of them
        for device in array.sharding.device_set:
            counts[device] += int(np.prod(array.sharding.shard_shape(array.shape))) * array.dtype.itemsize
    return max(counts.values())


def sizes_read() -> list[int]:
    """A list to which, from now on, the size of every array that is read of a file is added."""
    read, copy = [], deferred.to_array

    def spy(array, **options):
        read.append(array.size)
        return copy(array, **options)

    deferred.to_array = spy
    return read


def within_budget(out: Path) -> dict:
    """The memory that a Llama takes of a device, whole and on two, and the parts of its file read for each."""
    import jax

    model = small_models.make("llama", "ForCausalLM", **WIDE)
    model.save_pretrained(out / "model")
    model_class, config = type(model), model.config
    inputs = {key: value % 61 for key, value in batch("llama", "ForCausalLM").items()}
    results, read = {}, sizes_read()
    del model
    for label, how in {"one": None, "two": distribution.tensor_parallel(config)}.items():
        read.clear()
        before = held()
        with how.scope() if how else contextlib.nullcontext():
            model = compiled(model_class.from_pretrained(out / "model"))
            result = {"weights": sum(int(np.prod(v.shape)) for v in model.weights), "read": sum(read)}
            result |= {"largest read": max(read), "loaded": held() - before}
            result["losses"], result["trained"] = train(model, inputs), held() - before
            ids = model.generate(inputs["input_ids"][[0, 3], :3], max_new_tokens=5, eos_token_id=None)
            result |= {"ids": np.asarray(ids).tolist(), "generated": held() - before}
        results[label] = result
        del model, ids
        jax.clear_caches()
    return results


# Nearly all weights of this shape are matrices and tables that two devices split.
WIDE = {"hidden_size": 128, "intermediate_size": 256, "vocab_size": 512, "tie_word_embeddings": False}


@pytest.mark.slow
def test_a_model_beyond_the_memory_of_one_device(tmp_path):
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    flags = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices(2)}
    one, two = results_of("within_budget", tmp_path, flags).values()
    for moment in ("loaded", "trained", "generated"):
        budget = 0.6 * one[moment]  # of a device, which the whole model is too large for
        assert two[moment] <= budget, moment
    # Loaded weights lie on the device, and are not sent there anew at every call; so do Adam's averages.
    assert 4 * one["weights"] <= one["loaded"] < one["trained"] / 2.9
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    assert two["ids"] == one["ids"]
    # Every number is read once, by the device that it is for; none reads a whole matrix.
    assert one["read"] == two["read"] == one["weights"]
    assert one["largest read"] == 128 * 512 and two["largest read"] == 64 * 512


def host(out: Path, name: str, head: str, address: str, count: int, index: int) -> dict:
    """What one of several processes computes, each of which has two of the devices."""
    import tensorflow as tf  # for tf.data alone

    keras.distribution.initialize(address, num_processes=count, process_id=index)
    devices = keras.distribution.list_devices()
    results = {"devices": len(devices)}
    config = small_models.class_of(name, head).from_pretrained(out / "model").config
    # The two devices of a process share a model, and the processes a batch.
    with distribution.tensor_parallel(config, shards=2).scope():
        model = compiled(small_models.class_of(name, head).from_pretrained(out / "model"))
        rows = tf.data.Dataset.from_tensor_slices(batch(name, head)).batch(4)
        results["losses"] = model.fit(rows, epochs=3, verbose=0).history["loss"]
        results["shares"] = sorted(set(shares(model.weights).values()))
        model.save_pretrained(out / f"trained{index}")
    read = sizes_read()
    with distribution.tensor_parallel(config).scope():  # over both processes
        model = small_models.class_of(name, head).from_pretrained(out / "model")
    results["read"] = sum(read) / sum(int(np.prod(weight.shape)) for weight in model.weights)
    return results


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path):
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    name, head = "llama", "ForCausalLM"
    model = small_models.make(name, head, vocab_size=64)
    model.save_pretrained(tmp_path / "model")
    flags = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices(2)}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, __file__, "host", str(tmp_path), name, head, address, "2"]
    processes = [subprocess.Popen([*command, str(index)], env={**os.environ, **flags}, cwd=ROOT) for index in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    want = train(compiled(model), batch(name, head))
    logits = model(**small_models.inputs_of(name, head)).logits
    for index in range(2):
        results = json.loads((tmp_path / f"results{index}.json").read_text())
        assert results["devices"] == 4
        np.testing.assert_allclose(results["losses"], want, rtol=1e-5)
        assert results["shares"] == [0.5, 1.0]
        assert 0.5 < results["read"] < 0.6  # its devices' halves of what is split, and the rest
        saved = small_models.class_of(name, head).from_pretrained(tmp_path / f"trained{index}")
        np.testing.assert_allclose(saved(**small_models.inputs_of(name, head)).logits, logits, atol=1e-5)


def test_sizes_that_do_not_divide():
    mesh = keras.distribution.DeviceMesh((1, 4), ("batch", "model"), [f"cpu:{index}" for index in range(4)])
    config = small_models.config_of("llama", vocab_size=62)
    layouts = distribution.layout_map(config, mesh)
    assert layouts["m/embed_tokens/embeddings"].axes == (None, "model")
    assert layouts["m/lm_head/kernel"].axes == ("model", None)
    assert layouts["m/layers_0/self_attn/k_proj/kernel"] is None
    assert layouts["m/layers_0/self_attn/q_proj/kernel"].axes == (None, "model")
    with pytest.raises(ValueError, match="intermediate_size=26 does not split over 4"):
        distribution.layout_map(small_models.config_of("llama", intermediate_size=26), mesh)
    with pytest.raises(ValueError, match="num_attention_heads=2 does not split over 4"):
        distribution.layout_map(small_models.config_of("mpnet", num_attention_heads=2), mesh)
    with pytest.raises(ValueError, match="axis='heads'; the mesh has batch, model"):
        distribution.layout_map(config, mesh, axis="heads")


@pytest.mark.parametrize("name", small_models.SMALL)
def test_every_matrix_of_a_block_is_split(name):
    mesh = keras.distribution.DeviceMesh((1, 2), ("batch", "model"), [f"cpu:{index}" for index in range(2)])
    head = "ForMaskedLM" if name == "mpnet" else "ForCausalLM"
    config = small_models.config_of(name, tie_word_embeddings=False, vocab_size=62)
    layouts = distribution.layout_map(config, mesh)
    model = small_models.class_of(name, head)(config)
    ways = {}
    for weight in model.backbone.layers[0].weights:
        if len(weight.shape) == 2:
            layer = weight.path.split("/")[-2]
            ways[layer] = layouts[weight.path].axes
            assert (ways[layer] == ("model", None)) == (weight.shape[1] == config.hidden_size and layer in ROWS), layer
    assert set(ways) & ROWS and set(ways.values()) == {(None, "model"), ("model", None)}
    assert layouts[model.get_input_embeddings().embeddings.path].axes == ("model", None)
    scores = next(weight for weight in model.weights if weight.shape == (config.hidden_size, 62))
    assert layouts[scores.path].axes == (None, "model")


# The second of two products that follow each other.
ROWS = {"o_proj", "down_proj", "dense", "dense_4h_to_h", "out_proj", "c_proj", "o"}


def test_tensorflow_is_told_what_to_use_instead():
    for make in (lambda: distribution.tensor_parallel(small_models.config_of("llama")), distribution.data_parallel):
        with pytest.raises(RuntimeError, match="does nothing on tensorflow.*tf.distribute"):
            make()


# tf.distribute on TensorFlow -----------------------------------------------------------------------------------------

HEADS = [("llama", "ForCausalLM"), ("mpnet", "ForSequenceClassification"), ("llama", "ForQuestionAnswering")]


def unequal(name, head):
    """A batch of which the first half has fewer labels that count than the second."""
    inputs = batch(name, head)
    for label in small_models.labels_of(name, head):
        ignored = 5 if head == "ForQuestionAnswering" else -100  # a position beyond the input
        inputs[label].reshape(4, -1)[0, :3] = ignored
    return inputs


def mirrored(out: Path) -> dict:
    """What two devices of one process compute: training, uneven batches, other calls and sentence vectors."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # one in a process: TensorFlow numbers their talk
    replicas.PART_BYTES = 2000
    found = {"fit": {}, "uneven": {}}

    def load(head, name, **options):
        with strategy.scope():
            return compiled(small_models.class_of(name, head).from_pretrained(out / head), **options)

    for name, head in HEADS:
        model = load(head, name)
        data = tf.data.Dataset.from_tensor_slices(unequal(name, head)).batch(4)
        before = model.evaluate(data, verbose=0)
        losses = model.fit(data, epochs=3, verbose=0).history["loss"]
        model.save_pretrained(out / f"{head} trained")
        found["fit"][head] = [before, *losses]
        # Batches of three rows and of one: two and one, one and none. With XLA every shape of a batch has a program
        # of its own; those of CPUs are plain graphs.
        model = load(head, name, jit_compile=name == "llama")
        found["uneven"][head] = uneven(model, name, head)
        if head == "ForCausalLM":
            size = sum(4 * int(np.prod(weight.shape)) for weight in model.trainable_weights)
            found |= {"sums": sums_of_a_step(model), "bytes": size}
    return {**found, "calls": calls(load("ForCausalLM", "llama")), "vectors": vectors(strategy)}


def sums_of_a_step(model) -> int:
    """How many sums over the replicas a replica takes part in, in a step of `fit`."""
    programs = model.train_function.programs._programs.values()
    graphs = [function.graph for program in programs for function in program._list_all_concrete_functions()]
    counts = [sum(one.type.startswith("Collective") for one in graph.get_operations()) for graph in graphs]
    return max(counts) // 2


def uneven(model, name, head) -> list[float]:
    """Losses of `evaluate` and of two epochs of `fit`, in batches of three rows and of one."""
    data = unequal(name, head)
    before = model.evaluate(data, batch_size=3, verbose=0)
    return [before, *model.fit(data, batch_size=3, epochs=2, shuffle=False, verbose=0).history["loss"]]


def calls(model) -> dict:
    """Results of every way to run a model but training."""
    inputs = batch("llama", "ForCausalLM")
    tokens = {key: value for key, value in inputs.items() if key != "labels"}
    prompt = inputs["input_ids"][:, :3]
    return {
        "ids": np.asarray(model.generate(prompt, max_new_tokens=5, eos_token_id=None)).tolist(),
        "logits": np.asarray(model.predict(tokens, batch_size=4, verbose=0)["logits"]).tolist(),
        "loss": model.evaluate(inputs, batch_size=4, verbose=0),
    }


TEXTS = ["Once upon a time", "Hello", "The little dog ran far away from home", "a", "There was a girl"]


def vectors(strategy=None, ways=None) -> dict:
    """What a sentence encoder gives for texts, and `predict` for their ids: five rows, uneven for any batch size.

    `ways` names the results wanted, else all.
    """
    from tfmodels import AutoTokenizer, SentenceEncoder, TFAutoModel

    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    with strategy.scope() if strategy else contextlib.nullcontext():
        encoder = SentenceEncoder(TFAutoModel.from_pretrained("stories260K"), tokenizer, tail=["normalize"])
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    mask = np.arange(max(map(len, rows))) < np.array([len(row) for row in rows])[:, None]
    ids = np.zeros(mask.shape, int)
    ids[mask] = [token for row in rows for token in row]
    data = [ids, mask.astype(int)]
    possible = {
        "encode 2": lambda: encoder.encode(TEXTS, batch_size=2),
        "encode 4": lambda: encoder.encode(TEXTS, batch_size=4),
        "compiled": lambda: encoder.encode(TEXTS, batch_size=4, jit_compile=True),
    }
    if "TF_CONFIG" not in os.environ:  # where every worker would have a part of the rows
        for size in (3, 4):
            possible[f"predict {size}"] = lambda size=size: encoder.predict(data, batch_size=size, verbose=0)[
                "sentence_embedding"
            ]
    return {name: np.asarray(possible[name]()).tolist() for name in ways or possible}


@pytest.mark.slow
def test_mirrored_strategy_computes_what_one_device_does(tmp_path):
    for name, head in HEADS:
        small_models.make(name, head).save_pretrained(tmp_path / head)
    found = results_of("mirrored", tmp_path)
    # Gradients are summed in parts of 2000 bytes and little more; all at once there are four sums.
    assert found["sums"] >= max(8, found["bytes"] / 3000)
    for name, head in HEADS:
        model = compiled(small_models.make(name, head), jit_compile=False)
        want = uneven(model, name, head)
        np.testing.assert_allclose(found["uneven"][head], want, rtol=1e-4, err_msg=head)
        model = compiled(small_models.make(name, head), jit_compile=False)
        before = model.evaluate(unequal(name, head), batch_size=4, verbose=0)
        want = [before, *train(model, unequal(name, head))]
        np.testing.assert_allclose(found["fit"][head], want, rtol=1e-5, err_msg=head)
        trained = small_models.class_of(name, head).from_pretrained(tmp_path / f"{head} trained")
        for ours, theirs in zip(model.weights, trained.weights, strict=True):
            # Some gradients are zero but for rounding (a bias that softmax takes out again), and Adam magnifies
            # them; a step of a wrong gradient is ten times as long as what is allowed here.
            np.testing.assert_allclose(theirs, ours, atol=1e-4)
    two, one = found["calls"], calls(compiled(small_models.make("llama", "ForCausalLM"), jit_compile=False))
    assert two["ids"] == one["ids"]
    np.testing.assert_allclose(two["logits"], one["logits"], atol=1e-5)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
    assert len(found["vectors"]) == 5
    assert_same_vectors(found["vectors"])


def assert_same_vectors(found):
    want = np.array(vectors(ways=("encode 2",))["encode 2"])
    for way, got in found.items():
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=way)


def workers_vectors(out: Path) -> dict:
    """`vectors` in one of two processes, as TF_CONFIG says."""
    import tensorflow as tf

    return vectors(tf.distribute.MultiWorkerMirroredStrategy())


@pytest.mark.slow
def test_workers_encode_what_one_device_does(tmp_path):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    processes = []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        setting = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        command = [sys.executable, __file__, "workers_vectors", str(tmp_path / str(index))]
        processes.append(subprocess.Popen(command, env={**os.environ, "TF_CONFIG": setting}, cwd=ROOT))
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    for index in range(2):
        found = json.loads((tmp_path / str(index) / "results.json").read_text())
        assert len(found) == 3
        assert_same_vectors(found)


class Workers:
    """Processes of examples/multi_worker.py, of which the first writes down its losses."""

    def __init__(self, count, *arguments):
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        workers = ",".join(f"localhost:{one.getsockname()[1]}" for one in sockets)
        for one in sockets:
            one.close()
        sizes = ("--limit", "16", "--batch-size", "4", "--max-length", "32", "--save-every", "2")
        command = [sys.executable, str(ROOT / "examples" / "multi_worker.py"), *sizes, *arguments]
        self.processes = [
            subprocess.Popen(
                [*command, "--workers", workers, "--index", str(index)], stdout=subprocess.PIPE, text=True
            )
            for index in range(count)
        ]

    def losses(self, until=None):
        """{step: loss} of a run, killed in the midst of it after step `until`."""
        losses = {}
        for line in self.processes[0].stdout:
            if line.startswith("step "):
                step, loss = line.removeprefix("step ").split(": loss ")
                losses[int(step)] = float(loss)
                if int(step) == until:
                    for process in self.processes:
                        process.kill()
        statuses = [process.wait() for process in self.processes]
        assert until is not None or statuses == [0] * len(statuses)
        return losses


@pytest.mark.slow
def test_two_workers_learn_what_one_does_and_go_on_after_being_killed(tmp_path):
    one = Workers(1, "--steps", "6").losses()
    assert one.keys() == set(range(1, 7))
    checkpoints = ("--checkpoints", str(tmp_path), "--steps", "6")
    killed = Workers(2, *checkpoints).losses(until=3)
    resumed = Workers(2, *checkpoints).losses()
    assert min(resumed) == 3 and max(resumed) == 6  # the last checkpoint was after the second step
    for losses in (killed, resumed):
        for step, loss in losses.items():
            assert loss == pytest.approx(one[step], rel=1e-5)


if __name__ == "__main__":
    task, folder = sys.argv[1], Path(sys.argv[2])
    if task == "host":
        name, head, address, *numbers = sys.argv[3:]
        results = host(folder, name, head, address, *map(int, numbers))
        (folder / f"results{numbers[-1]}.json").write_text(json.dumps(results))
    else:
        tasks = {"divided": divided, "within_budget": within_budget}
        tasks |= {"mirrored": mirrored, "workers_vectors": workers_vectors}
        (folder / "results.json").write_text(json.dumps(tasks[task](folder)))
