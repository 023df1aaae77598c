"""`tf_model.h5`: the same weights as the PyTorch file, whole or sharded; and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfmodels import TFMPNetForMaskedLM
from tfmodels.checkpoints import CheckpointError, open_checkpoint
from tfmodels.checkpoints.formats.hdf5 import TensorFlowFile

REFERENCE = Path(__file__).parents[2] / "reference" / "mpnet"
PATH = REFERENCE / "tf_h5_model" / "tf_model.h5"


def read_all(folder: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(folder) as checkpoint:
        arrays = {name: checkpoint.read(name) for name in checkpoint.names()}
        for name, array in arrays.items():
            info = checkpoint.info(name)
            assert (info.shape, info.dtype, info.nbytes) == (array.shape, array.dtype.name, array.nbytes)
    return arrays  # they stay valid when the file is closed


@pytest.mark.parametrize(("case", "twin"), [("tf_h5_model", "model"), ("tf_h5_masked_lm", "masked_lm")])
def test_equals_the_pytorch_checkpoint(case, twin):
    got, want = read_all(REFERENCE / case), read_all(REFERENCE / twin)
    # The former masked language model had a pooler; the base model was stored under its own name.
    got = {name.removeprefix("mpnet.") if case == "tf_h5_model" else name: array for name, array in got.items()}
    assert got.keys() - want.keys() <= {"mpnet.pooler.dense.weight", "mpnet.pooler.dense.bias"}
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert not got[name].flags.writeable


def test_shards(tmp_path):
    """Shards have no groups of layers; their index has the names of the variables."""
    index, contents = {}, ({}, {})
    with h5py.File(PATH) as file:
        for number, name in enumerate(file["mpnet"].attrs["weight_names"]):
            shard = number % 2
            index[name] = f"tf_model-0000{shard + 1}-of-00002.h5"
            contents[shard][name.split("/", 1)[1]] = file["mpnet"][name][()]
    for shard, arrays in enumerate(contents):
        with h5py.File(tmp_path / f"tf_model-0000{shard + 1}-of-00002.h5", "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
    (tmp_path / "tf_model.h5.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    got, want = read_all(tmp_path), read_all(PATH.parent)
    assert got.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


def test_cut_short(tmp_path):
    content = PATH.read_bytes()
    path = tmp_path / "tf_model.h5"
    for size in (1, 7, 8, 100, 2000, len(content) // 2, len(content) - 1000, len(content) - 1):
        path.unlink(missing_ok=True)
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"tf_model\.h5 is"):
            open_checkpoint(tmp_path)


def test_damaged_anywhere(tmp_path):
    """Whatever bytes are wrong: a clear error, or a file that reads as one; never another exception."""
    content, path = PATH.read_bytes(), tmp_path / "tf_model.h5"
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, 4000, 8):
            damaged[place] ^= int(rng.integers(1, 256))
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(damaged))
        try:
            read_all(tmp_path)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > 20 and all("tf_model.h5" in message for message in messages)


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100), b"{}" * 50], ids=str)
def test_another_format(tmp_path, content):
    (tmp_path / "tf_model.h5").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, cut short, or no HDF5 file"):
        open_checkpoint(tmp_path)


def test_floats_in_the_other_byte_order(tmp_path):
    values = np.array([1.5, -2.0, 3.25], ">f4")
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file["a/b/bias:0"] = values
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read(checkpoint.names()[0]).tolist() == values.tolist()


def test_many_attributes_cost_no_more_than_their_bytes(tmp_path):
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layer", track_order=True)
        for number in range(1500):
            group.attrs[f"a{number}"] = number
            group[f"d{number}"] = np.ones(1, "float32")
    start = time.process_time()
    assert len(TensorFlowFile(path).tensors) == 1500
    assert time.process_time() - start < 10


class TestRefused:
    def refuse(self, folder, fill, message):
        with h5py.File(folder / "tf_model.h5", "w") as file:
            fill(file)
        with pytest.raises(CheckpointError, match=message):
            TensorFlowFile(folder / "tf_model.h5")

    def test_compressed(self, tmp_path):
        data = np.zeros((64, 64), "float32")
        self.refuse(
            tmp_path,
            lambda file: file.create_dataset("a/kernel:0", data=data, compression="gzip"),
            r"a/kernel:0.*not stored as one plain block",
        )

    def test_links_out_of_the_file(self, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["kernel:0"] = np.zeros((2, 2), "float32")
        link = h5py.ExternalLink(str(tmp_path / "other.h5"), "/kernel:0")
        self.refuse(tmp_path, lambda file: file.__setitem__("a/kernel:0", link), "'a/kernel:0' is a link out of the")

    def test_groups_within_groups_without_end(self, tmp_path):
        self.refuse(tmp_path, lambda file: file.create_group("g/" * 300), "longer than that of any weight")

    def test_floats_of_another_layout(self, tmp_path):
        def fill(file):
            kind = h5py.h5t.IEEE_F32LE.copy()
            kind.set_fields(31, 22, 9, 0, 22)
            kind.set_ebias(255)
            h5py.h5d.create(file.id, b"kernel:0", kind, h5py.h5s.create_simple((3,)))

        self.refuse(tmp_path, fill, "layout of its own")

    def test_a_driver_block(self, tmp_path):
        path = tmp_path / "tf_model.h5"
        content = bytearray(PATH.read_bytes())
        content[48:56] = (13081).to_bytes(8, "little")
        path.write_bytes(bytes(content))
        with pytest.raises(CheckpointError, match="names a driver block"):
            TensorFlowFile(path)

    def test_data_in_another_file(self, tmp_path):
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(64))
        self.refuse(
            tmp_path,
            lambda file: file.create_dataset("a/kernel:0", (16,), "float32", external=[(str(secret), 0, 64)]),
            "not stored as one plain block",
        )

    def test_never_written(self, tmp_path):
        self.refuse(
            tmp_path,
            lambda file: file.create_dataset("a/kernel:0", (10**7, 10**4), "float32"),
            "not stored as one plain block",
        )

    def test_text(self, tmp_path):
        self.refuse(
            tmp_path, lambda file: file.create_dataset("a/names:0", data=[b"abc"]), "element type .* cannot be read"
        )

    def test_two_shapes_for_one_name(self, tmp_path):
        def fill(file):
            for number, group in enumerate("ab"):
                file.create_group(group).attrs["weight_names"] = ["m/dense/bias:0"]
                file[group].create_dataset("m/dense/bias:0", data=np.zeros(3 + number, "float32"))

        self.refuse(tmp_path, fill, r"there twice, of shape \(3,\) and \(4,\)")

    def test_two_values_for_one_name(self, tmp_path):
        def fill(file):
            for number, group in enumerate("ab"):
                file.create_group(group).attrs["weight_names"] = ["m/dense/bias:0"]
                file[group].create_dataset("m/dense/bias:0", data=np.arange(3, dtype="float32") + number)

        self.refuse(tmp_path, fill, r"weight 'b/m/dense/bias:0' is there twice, with different values")


class TestTiedHeads:
    """The old TensorFlow classes stored no matrix of the head; files that were changed since may hold one."""

    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("config.json", "tf_model.h5"):
            (tmp_path / name).write_bytes((REFERENCE / "tf_h5_masked_lm" / name).read_bytes())
        return tmp_path

    def add_head(self, folder, change):
        with h5py.File(folder / "tf_model.h5", "r+") as file:
            group = next(iter(file["lm_head"]))
            table = file["lm_head"][group]["mpnet/embeddings/word_embeddings/weight:0"][()]
            name = f"{group}/lm_head/decoder/weight:0"
            file["lm_head"].create_dataset(name, data=table + np.float32(change))
        return table + np.float32(change)

    def test_a_head_of_its_own(self, folder):
        stored = self.add_head(folder, 0.5)
        with pytest.warns(UserWarning, match=r"lm_head.decoder.weight differs from the embeddings; loaded with tie_w"):
            model = TFMPNetForMaskedLM.from_pretrained(folder)
        assert model.config.tie_word_embeddings is False
        np.testing.assert_array_equal(model.get_output_embeddings().kernel, stored.T)

    def test_the_table_once_more(self, folder, recwarn):
        self.add_head(folder, 0.0)
        assert TFMPNetForMaskedLM.from_pretrained(folder).config.tie_word_embeddings is True
        assert not [one for one in recwarn if "differs" in str(one.message)]

    def test_an_untied_configuration_whose_file_has_no_head(self, folder):
        with pytest.warns(UserWarning, match=r"lm_head.decoder.weight did not come from the checkpoint and start at"):
            TFMPNetForMaskedLM.from_pretrained(folder, tie_word_embeddings=False)


def write_floats(path: Path, change) -> None:
    """A weight of two floats whose description in HDF5 was changed; the bytes are those of bfloat16 1.0 and -2.5."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    change(kind)
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        space = h5py.h5s.create_simple((2,))
        dataset = h5py.h5d.create(group.id, b"bias:0", kind, space)
        content = np.array([0x3F80, 0xC020], "uint16").tobytes().ljust(2 * kind.get_size(), b"\0")
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(content, np.dtype(f"V{kind.get_size()}")), kind)


def as_bfloat16(kind) -> None:
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)


def test_bfloat16_is_read_as_it_is_stored(tmp_path):
    """h5py converts it to float32, so the size in memory is not that in the file."""
    write_floats(tmp_path / "tf_model.h5", as_bfloat16)
    with open_checkpoint(tmp_path) as checkpoint:
        (name,) = checkpoint.names()
        assert checkpoint.info(name).dtype == "bfloat16"
        assert checkpoint.read(name).astype("float32").tolist() == [1.0, -2.5]


@pytest.mark.parametrize("bias", [127, 255])
def test_floats_of_another_layout_are_refused(bias, tmp_path):
    def change(kind):
        if bias == 127:
            kind.set_fields(31, 20, 11, 0, 20)
        kind.set_ebias(bias + 1)

    write_floats(tmp_path / "tf_model.h5", change)
    with pytest.raises(CheckpointError, match="layout of its own|element type .* cannot be read"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("dtype", [">f4", ">f2", ">f8", "<f4", "<f2"])
def test_either_byte_order_is_read(dtype, tmp_path):
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.create_dataset("a/bias:0", data=np.array([1.5, -3.25], dtype))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read(checkpoint.names()[0]).tolist() == [1.5, -3.25]
