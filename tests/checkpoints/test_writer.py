from __future__ import annotations

import builtins
import errno
import importlib.util
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tfmodels.checkpoints import DTYPES, CheckpointError, TensorSpec, open_checkpoint, write_checkpoint
from tfmodels.checkpoints.writer import parse_size

INDEX = "model.safetensors.index.json"


def entries(arrays: dict[str, np.ndarray]) -> list:
    return [
        (name, TensorSpec(array.shape, array.dtype.name), lambda array=array: array) for name, array in arrays.items()
    ]


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape) + len(dtype))
    count = int(np.prod(shape)) * DTYPES[dtype].itemsize
    raw = rng.integers(0, 2 if dtype == "bool" else 256, count, "uint8")
    return raw.view(DTYPES[dtype]).reshape(shape)


def read_all(folder: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes(), name


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_keeps_every_bit(tmp_path, dtype):
    arrays = {f"t{shape}": values(dtype, shape) for shape in [(), (0,), (3,), (2, 5), (2, 0, 3), (1, 2, 3, 4)]}
    assert write_checkpoint(tmp_path, entries(arrays)) == [tmp_path / "model.safetensors"]
    assert_same_bits(read_all(tmp_path), arrays)


@settings(max_examples=20)
@given(
    kinds=st.lists(
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=12
    ),
    limit=st.integers(1, 400),
)
def test_any_mixture_in_any_shards(tmp_path_factory, kinds, limit):
    folder = tmp_path_factory.mktemp("mixture")
    arrays = {f"layer.{number}": values(dtype, tuple(shape)) for number, (dtype, shape) in enumerate(kinds)}
    files = write_checkpoint(folder, entries(arrays), max_shard_size=limit)
    assert_same_bits(read_all(folder), arrays)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)
    for path in files:
        if path.suffix == ".json":
            continue
        # The reference implementation accepts every file; its header is padded and its tensors are aligned.
        with safe_open(path, "np") as reference:
            assert reference.metadata() == {"format": "pt"}
            names = list(reference.keys())
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        assert length % 8 == 0
        header = json.loads(content[8 : 8 + length])
        for name in names:
            assert header[name]["data_offsets"][0] % arrays[name].itemsize == 0
        assert sum(arrays[name].nbytes for name in names) <= limit or len(names) == 1


def test_equals_the_reference_writer_byte_for_byte_in_the_data(tmp_path):
    from safetensors.numpy import load_file

    arrays = {"b": values("float32", (3, 4)), "a": values("float16", (7,)), "c": values("int64", (2,))}
    write_checkpoint(tmp_path, entries(arrays))
    loaded = load_file(tmp_path / "model.safetensors")
    for name, array in arrays.items():
        assert loaded[name].tobytes() == array.tobytes()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch to compare with")
def test_torch_reads_it(tmp_path):
    arrays = {dtype: values(dtype, (3, 2)) for dtype in DTYPES}
    write_checkpoint(tmp_path, entries(arrays))
    program = (
        "import json, sys, torch; from safetensors.torch import load_file;"
        "found = load_file(sys.argv[1]);"
        "print(json.dumps({n: (str(t.dtype), t.view(torch.uint8).flatten().tolist()) for n, t in found.items()}))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "model.safetensors")]
    found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    assert found == {name: [f"torch.{name}", list(array.tobytes())] for name, array in arrays.items()}


def test_shards_and_index(tmp_path):
    arrays = {name: values("float32", (10,)) for name in "abcde"}
    files = write_checkpoint(tmp_path / "new" / "folder", entries(arrays), max_shard_size="80B")
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert [path.name for path in files] == [*shards, INDEX]
    index = json.loads(files[-1].read_text())
    assert index["metadata"] == {"total_size": 200}
    assert index["weight_map"] == dict(zip("abcde", [shards[0]] * 2 + [shards[1]] * 2 + [shards[2]], strict=True))
    assert_same_bits(read_all(tmp_path / "new" / "folder"), arrays)


def test_tensors_are_asked_for_one_at_a_time(tmp_path):
    alive: list[weakref.ref] = []
    most = 0

    def make():
        nonlocal most
        array = np.ones(1000, "float32")
        most = max(most, sum(reference() is not None for reference in alive) + 1)
        alive.append(weakref.ref(array))
        return array

    spec = TensorSpec((1000,), "float32")
    write_checkpoint(tmp_path, [(str(number), spec, make) for number in range(6)], max_shard_size="10KB")
    assert len(alive) == 6
    assert most == 1


def test_takes_other_layouts_and_anything_with_a_shape_and_dtype(tmp_path):
    import tensorflow as tf

    array = np.arange(6, dtype="float32").reshape(2, 3)
    strided, swapped = np.ones((4, 6), "float32")[::2, ::2], array.astype(">f4")
    strided[...] = array
    tensor = tf.constant(array, tf.bfloat16)
    tensors = [
        ("fortran", array, lambda: np.asfortranarray(array)),
        ("strided", array, lambda: strided),
        ("big_endian", array, lambda: swapped),
        ("tensor", tensor, lambda: tensor),
    ]
    write_checkpoint(tmp_path, tensors)
    found = read_all(tmp_path)
    assert found["tensor"].dtype == "bfloat16"
    for name in found:
        np.testing.assert_array_equal(found[name].astype("float32"), array)


def test_a_later_save_replaces_the_earlier_one_whole(tmp_path):
    arrays = {name: values("float32", (10,)) for name in "abcde"}
    for other in ("config.json", "consolidated.safetensors", "model-extra.safetensors", "pytorch_model.bin"):
        (tmp_path / other).write_text("kept")
    kept = set(snapshot(tmp_path))
    for limit, count in ((40, 6), (80, 4), ("1MB", 1), (120, 3)):
        arrays = {name: array + 1 for name, array in arrays.items()}
        files = write_checkpoint(tmp_path, entries(arrays), max_shard_size=limit)
        assert len(files) == count
        assert set(snapshot(tmp_path)) == kept | {path.name for path in files}
        assert_same_bits(read_all(tmp_path), arrays)


def fails_to_be_made():
    raise RuntimeError("no such tensor")


@pytest.mark.parametrize("limit", ["1MB", 40])
def test_an_error_in_a_tensor_leaves_the_old_files_whole(tmp_path, limit):
    arrays = {name: values("float32", (10,)) for name in "abc"}
    write_checkpoint(tmp_path, entries(arrays), max_shard_size=limit)
    before = snapshot(tmp_path)
    good = entries(arrays)
    for bad, error, message in [
        (("d", TensorSpec((2,), "float32"), fails_to_be_made), RuntimeError, "no such tensor"),
        (("d", TensorSpec((2,), "float32"), lambda: np.zeros(3, "float32")), CheckpointError, r"'d' was announced as"),
        (("d", TensorSpec((2,), "float32"), lambda: np.zeros(2)), CheckpointError, r"but is float64 \(2,\)"),
        (("d", TensorSpec((2,), "float32"), lambda: 1 / 0), ZeroDivisionError, "division"),
    ]:
        with pytest.raises(error, match=message):
            write_checkpoint(tmp_path, [*good, bad], max_shard_size=limit)
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("limit", ["1MB", 400])
@pytest.mark.parametrize("room", [0, 100, 700, 1600])
def test_a_full_disk_leaves_the_old_files_whole(tmp_path, monkeypatch, limit, room):
    arrays = {name: values("float32", (100,)) for name in "abcd"}
    write_checkpoint(tmp_path, entries(arrays), max_shard_size=limit)
    before = snapshot(tmp_path)
    left = room

    class FullDisk:
        """A file on a disk with `room` bytes left."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            nonlocal left
            size = len(data)
            self.file.write(data[: max(left, 0)])
            left -= size
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return size

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    real_open = builtins.open

    def open_on_full_disk(path, mode="r", **options):
        file = real_open(path, mode, **options)
        return FullDisk(file) if "x" in mode else file

    monkeypatch.setattr(builtins, "open", open_on_full_disk)
    changed = {name: array + 1 for name, array in arrays.items()}
    with pytest.raises(OSError, match="No space left on device"):
        write_checkpoint(tmp_path, entries(changed), max_shard_size=limit)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before
    assert_same_bits(read_all(tmp_path), arrays)


def test_an_error_of_fsync_leaves_the_old_files_whole(tmp_path, monkeypatch):
    arrays = {"a": values("float32", (10,))}
    write_checkpoint(tmp_path, entries(arrays))
    before = snapshot(tmp_path)

    def fail(descriptor):
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="quota"):
        write_checkpoint(tmp_path, entries({"a": arrays["a"] + 1}))
    assert snapshot(tmp_path) == before


def test_writing_over_the_files_that_are_being_read(tmp_path):
    arrays = {name: values("bfloat16", (1000,)) for name in "abc"}
    write_checkpoint(tmp_path, entries(arrays))
    with open_checkpoint(tmp_path) as checkpoint:
        tensors = [(name, checkpoint.info(name), lambda name=name: checkpoint.read(name)) for name in "cba"]
        write_checkpoint(tmp_path, tensors, max_shard_size=2000)
    assert_same_bits(read_all(tmp_path), arrays)


def test_names_and_dtypes_that_cannot_be_written(tmp_path):
    one = np.zeros(1, "float32")
    with pytest.raises(ValueError, match="'a' is given twice"):
        write_checkpoint(tmp_path, [*entries({"a": one}), *entries({"a": one})])
    with pytest.raises(ValueError, match="'__metadata__' is reserved"):
        write_checkpoint(tmp_path, entries({"__metadata__": one}))
    with pytest.raises(ValueError, match="dtype complex64 cannot be written"):
        write_checkpoint(tmp_path, entries({"a": one.astype("complex64")}))
    assert snapshot(tmp_path) == {}


def test_any_name_is_kept(tmp_path):
    arrays = {name: values("int8", (2,)) for name in ("", "ä β", 'quo"te', "a/b", "new\nline", "\U0001f600")}
    write_checkpoint(tmp_path, entries(arrays), max_shard_size=2)
    assert_same_bits(read_all(tmp_path), arrays)


def test_nothing_to_write(tmp_path):
    write_checkpoint(tmp_path, [])
    assert read_all(tmp_path) == {}


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 1), ("1B", 1), ("5GB", 5 * 10**9), ("200MB", 2 * 10**8), ("2 gib", 2**31), ("0.5KB", 500), ("1TiB", 2**40)],
)
def test_sizes(size, expected):
    assert parse_size(size) == expected


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, "", "5", "GB", "5 XB", "5IB", "-5GB", "0GB", "1e3MB"])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="max_shard_size is"):
        parse_size(size)
