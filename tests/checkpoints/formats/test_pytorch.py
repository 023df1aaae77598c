from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.formats.pytorch import PytorchFile

FIXTURES = Path(__file__).parents[2] / "data" / "checkpoints"
EXPECTED = dict(np.load(FIXTURES / "expected.npz"))
DTYPES = json.loads((FIXTURES / "dtypes.json").read_text())


def open_bytes(folder: Path, content: bytes) -> PytorchFile:
    path = folder / "pytorch_model.bin"
    path.unlink(missing_ok=True)  # what is mapped must not be cut short
    path.write_bytes(content)
    return PytorchFile(path)


@pytest.mark.parametrize("name", ["zip.bin", "zip_protocol4.bin", "legacy.bin", "wrapped.bin"])
def test_reads_what_torch_saved(name):
    file = PytorchFile(FIXTURES / name)
    assert file.tensors.keys() == EXPECTED.keys() == DTYPES.keys()
    for tensor, expected in EXPECTED.items():
        info, array = file.tensors[tensor], file.read(tensor)
        assert (info.shape, info.dtype, info.file) == (expected.shape, DTYPES[tensor], name)
        assert (array.shape, array.dtype.name, array.nbytes) == (info.shape, info.dtype, info.nbytes)
        assert not array.flags.writeable
        np.testing.assert_array_equal(np.array(array, order="C").view(expected.dtype), expected, err_msg=tensor)


def test_order_is_that_of_the_file():
    file = PytorchFile(FIXTURES / "zip.bin")
    full = file.read("all_of_shared")
    places = [file.read(name).__array_interface__["data"][0] for name in file.tensors if name != "empty"]
    assert places == sorted(places)
    # Views on one storage share its bytes.
    assert np.shares_memory(full, file.read("rows_of_shared"))
    np.testing.assert_array_equal(full.T[3:5, 1:], file.read("corner_of_shared"))


# A zip archive as torch.save writes it, put together by hand so that each part can be made wrong.


def rebuild(
    storage: bytes, offset: int = 0, shape: tuple = (2,), strides: tuple = (1,), metadata: bytes = b""
) -> bytes:
    """Pickle instructions for one tensor."""
    numbers = b"".join(b"J" + struct.pack("<i", offset) if False else integer(value) for value in (offset,))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + numbers
        + b"("
        + b"".join(map(integer, shape))
        + b"t"
        + b"("
        + b"".join(map(integer, strides))
        + b"t"
        + b"\x89ccollections\nOrderedDict\n)R"
        + metadata
        + b"tR"
    )


def integer(value: int) -> bytes:
    return b"I%d\n" % value


def storage(count: int = 4, key: str = "0", kind: str = "FloatStorage", view: bytes = b"") -> bytes:
    return (
        b"(X\x07\x00\x00\x00storagectorch\n"
        + kind.encode()
        + b"\nX"
        + struct.pack("<I", len(key))
        + key.encode()
        + b"X\x03\x00\x00\x00cpu"
        + integer(count)
        + view
        + b"tQ"
    )


def state(**tensors: bytes) -> bytes:
    items = b"".join(b"X" + struct.pack("<I", len(name)) + name.encode() + value for name, value in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def archive(folder: Path, data_pkl: bytes, members: dict[str, bytes] | None = None, **options) -> bytes:
    path = folder / "made.zip"
    with zipfile.ZipFile(path, "w", **options) as made:
        made.writestr("made/data.pkl", data_pkl)
        for name, content in ({"data/0": np.arange(4, dtype="<f4").tobytes()} if members is None else members).items():
            made.writestr(f"made/{name}", content)
    return path.read_bytes()


def test_hand_made_archive(tmp_path):
    file = open_bytes(
        tmp_path, archive(tmp_path, state(w=rebuild(storage(), 1, (3,)), v=rebuild(storage(), 0, (2, 2), (2, 1))))
    )
    assert file.read("w").tolist() == [1, 2, 3]
    assert file.read("v").tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (rebuild(storage(), 3, (2,)), "beyond its storage of 16 bytes"),
        (rebuild(storage(), 0, (5,)), "beyond its storage"),
        (rebuild(storage(), 0, (2, 2), (3, 1)), "beyond its storage"),
        (rebuild(storage(), 0, (2,), (2**62,)), "beyond its storage"),
        (rebuild(storage(), -1, (2,)), "no numbers >= 0"),
        (rebuild(storage(), 0, (2,), (-1,)), "no numbers >= 0"),
        (rebuild(storage(), 0, (-2,), (1,)), "no numbers >= 0"),
        (rebuild(storage(), 0, (2, 1), (1,)), "no numbers >= 0"),
        (rebuild(storage(), 0, (2**60,), (0,)), "larger than any can be"),
        (rebuild(storage(), 0, (1,) * 40, (1,) * 40), "no numbers >= 0"),
        (rebuild(storage(count=5)), "should be 5 elements of float32, but takes 16 bytes"),
        (rebuild(storage(count=3)), "should be 3 elements of float32, but takes 16 bytes"),
        (rebuild(storage(kind="HalfStorage")), "should be 4 elements of float16, but takes 16 bytes"),
        (rebuild(storage(key="1")), "storage '1', which the file does not have"),
        (rebuild(storage(key="../0")), "which the file does not have"),
        (rebuild(storage(kind="QInt8Storage")), "global torch.QInt8Storage"),
        (rebuild(storage(kind="ComplexFloatStorage")), "global torch.ComplexFloatStorage"),
        (rebuild(storage(), metadata=b"}(X\x03\x00\x00\x00neg\x88u"), "conjugated or negated"),
        (b"I5\n", "other things among its tensors: 'w'|no tensors at its top level"),
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR", "global os.system"),
    ],
)
def test_tensors_that_lie(tmp_path, tensor, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        open_bytes(tmp_path, archive(tmp_path, state(w=tensor)))
    assert "pytorch_model.bin" in str(caught.value)


def test_sizes_of_one_may_have_any_stride(tmp_path):
    tensor = rebuild(storage(), 2, (1, 2, 1), (2**62, 1, 2**62))
    file = open_bytes(tmp_path, archive(tmp_path, state(w=tensor)))
    assert file.read("w").tolist() == [[[2], [3]]]


def test_empty_tensors_may_lie_anywhere(tmp_path):
    file = open_bytes(tmp_path, archive(tmp_path, state(w=rebuild(storage(), 10**9, (0, 3), (3, 2**62)))))
    assert file.read("w").shape == (0, 3)
    assert not file.read("w").flags.writeable


def test_views_on_storages(tmp_path):
    def view(offset, length):
        return storage(view=b"(X\x01\x00\x00\x009" + integer(offset) + integer(length) + b"t")

    file = open_bytes(tmp_path, archive(tmp_path, state(w=rebuild(view(1, 3), 1, (2,)))))
    assert file.read("w").tolist() == [2, 3]
    with pytest.raises(CheckpointError, match="beyond its storage of 12 bytes"):
        open_bytes(tmp_path, archive(tmp_path, state(w=rebuild(view(1, 3), 1, (3,)))))
    with pytest.raises(CheckpointError, match="beyond its 4 elements"):
        open_bytes(tmp_path, archive(tmp_path, state(w=rebuild(view(2, 3)))))


GOOD = state(w=rebuild(storage()))


@pytest.mark.parametrize(
    ("data_pkl", "members", "options", "message"),
    [
        (GOOD, {}, {}, "storage '0', which the file does not have"),
        (GOOD, None, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        (GOOD, {"data/0": bytes(16), "byteorder": b"big"}, {}, "byte order b'big'"),
        (GOOD, {"data/0": bytes(16), "constants.pkl": b""}, {}, "TorchScript"),
        (GOOD, {"data/0": bytes(16), "sub/data.pkl": GOOD}, {}, "2 members called data.pkl"),
        (b"\x80\x02K\x01.", None, {}, "holds a int"),
        (b"\x80\x02}K\x01" + rebuild(storage()) + b"s.", None, {}, "names are no text"),
        (state(w=rebuild(storage()), step=b"K\x01"), None, {}, "other things among its tensors: 'step'"),
        (
            state(epoch=b"K\x01", optimizer=b"}"),
            None,
            {},
            "no tensors at its top level, but the keys 'epoch', 'optimizer'",
        ),
        (state(model=b"}", state_dict=b"}"), None, {}, "no tensors at its top level"),
        (GOOD[:-9], None, {}, "damaged"),
    ],
)
def test_archives_that_lie(tmp_path, data_pkl, members, options, message):
    with pytest.raises(CheckpointError, match=message):
        open_bytes(tmp_path, archive(tmp_path, data_pkl, members, **options))


def test_other_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
        made.writestr("made/data.pkl", GOOD)
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("made/data.pkl", GOOD)
    with pytest.raises(CheckpointError, match="two members of one name"):
        open_bytes(tmp_path, (tmp_path / "made.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
        made.writestr("made/other", b"")
    with pytest.raises(CheckpointError, match="0 members called"):
        open_bytes(tmp_path, (tmp_path / "made.zip").read_bytes())


@pytest.mark.parametrize("content", [b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", b"<!doctype html>", b"\x80\x02}q\x00.", b"P"])
def test_other_files(tmp_path, content):
    with pytest.raises(CheckpointError, match="is no PyTorch file"):
        open_bytes(tmp_path, content)


def test_nothing_in_a_file_is_executed(tmp_path):
    target = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {target}",)

    for value in (Evil(), {"w": Evil()}, {"state_dict": {"w": Evil()}}):
        with pytest.raises(CheckpointError, match=f"global {os.system.__module__}.system.*Nothing was executed"):
            open_bytes(tmp_path, archive(tmp_path, pickle.dumps(value, 2)))
        legacy = (FIXTURES / "legacy.bin").read_bytes()
        third = legacy.index(b"little_endian")
        start = legacy.index(b".", legacy.index(b"type_sizes", third)) + 1
        with pytest.raises(CheckpointError, match="Nothing was executed"):
            open_bytes(tmp_path, legacy[:start] + pickle.dumps(value, 2) + legacy[start:])
    assert not target.exists()


def legacy_bytes(
    magic=0x1950A86A20F9469CFC6C, version=1001, little=True, keys=("0",), count=4, data=bytes(16)
) -> bytes:
    system = {"protocol_version": version, "little_endian": little}
    parts = [pickle.dumps(value, 2) for value in (magic, version, system)]
    return b"".join(
        [*parts, state(w=rebuild(storage(view=b"N"))), pickle.dumps(list(keys), 2), struct.pack("<q", count), data]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1002}, "version 1002"),
        ({"little": False}, "little-endian"),
        ({"keys": ("1",)}, "storage '1' belongs to no tensor"),
        ({"keys": ("0", "0")}, "list of storages is damaged"),
        ({"keys": (0,)}, "list of storages is damaged"),
        ({"keys": ()}, "storage '0', which the file does not have"),
        ({"count": 5}, "should have 4 elements, but the file has 5"),
        ({"count": -1}, "should have 4 elements"),
        ({"data": bytes(15)}, "cut short inside storage '0'"),
        ({"data": b""}, "cut short inside storage '0'"),
        ({"magic": 5}, "is no PyTorch file"),
    ],
)
def test_legacy_files_that_lie(tmp_path, changes, message):
    assert open_bytes(tmp_path, legacy_bytes(data=struct.pack("<4f", 1, 2, 3, 4))).read("w").tolist() == [1, 2]
    with pytest.raises(CheckpointError, match=message):
        open_bytes(tmp_path, legacy_bytes(**changes))


def check_consistent(file: PytorchFile) -> None:
    for name, info in file.tensors.items():
        array = file.read(name)
        assert (array.shape, array.dtype.name, array.nbytes) == (info.shape, info.dtype, info.nbytes)
        if array.nbytes < 1 << 20:  # a size with stride 0 may be any number at no cost
            array.tobytes()


CONTENTS = {name: (FIXTURES / name).read_bytes() for name in ("zip.bin", "legacy.bin")}


@settings(max_examples=150)
@pytest.mark.parametrize("name", CONTENTS)
@given(draw=st.data())
def test_flipped_bytes_read_consistently_or_raise(tmp_path_factory, name, draw):
    damaged = bytearray(CONTENTS[name])
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        file = open_bytes(tmp_path_factory.mktemp("flip"), bytes(damaged))
    except CheckpointError:
        return
    check_consistent(file)


@pytest.mark.parametrize("name", CONTENTS)
@given(draw=st.data())
def test_truncated_files_raise(tmp_path_factory, name, draw):
    length = draw.draw(st.integers(0, len(CONTENTS[name]) - 1))
    with pytest.raises(CheckpointError):
        open_bytes(tmp_path_factory.mktemp("cut"), CONTENTS[name][:length])
