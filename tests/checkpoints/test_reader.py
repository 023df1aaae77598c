from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfmodels.checkpoints import (
    CheckpointError,
    CheckpointNotFoundError,
    TensorSpec,
    open_checkpoint,
    write_checkpoint,
)

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference" / "llama"
SAFETENSORS_INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A copy of a reference case with three safetensors shards."""
    return Path(shutil.copytree(REFERENCE / "weights_sharded", tmp_path / "sharded"))


def edit_index(folder: Path, change) -> None:
    index = json.loads((folder / SAFETENSORS_INDEX).read_text())
    change(index)
    (folder / SAFETENSORS_INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("case", "expected_format", "files", "dtype"),
    [
        ("model", "safetensors", 1, "float32"),
        ("saved_bfloat16", "safetensors", 1, "bfloat16"),
        ("saved_float16", "safetensors", 1, "float16"),
        ("weights_sharded", "safetensors", 3, "float32"),
        ("weights_bin", "pytorch", 1, "float32"),
        ("weights_bin_sharded", "pytorch", 3, "float32"),
    ],
)
def test_reads_the_reference_folders(case, expected_format, files, dtype):
    config = json.loads((REFERENCE / case / "config.json").read_text())
    prefix = "" if case == "model" else "model."
    with open_checkpoint(REFERENCE / case) as checkpoint:
        assert checkpoint.format == expected_format
        assert len(checkpoint.files) == files
        embedding = f"{prefix}embed_tokens.weight"
        info = checkpoint.info(embedding)
        assert info.shape == (config["vocab_size"], config["hidden_size"])
        assert info.dtype == dtype
        total = 0
        for name in checkpoint.names():
            info, array = checkpoint.info(name), checkpoint.read(name)
            assert (info.name, info.shape, info.dtype, info.nbytes) == (
                name,
                array.shape,
                array.dtype.name,
                array.nbytes,
            )
            assert (REFERENCE / case / info.file) in checkpoint.files
            assert np.isfinite(array.astype("float64")).all()
            total += info.nbytes
    held = sum(path.stat().st_size for path in checkpoint.files)
    assert 0.5 * held < total < held


def test_sharded_and_single_files_hold_the_same_values(tmp_path):
    with open_checkpoint(REFERENCE / "weights_sharded") as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
        entries = [(name, checkpoint.info(name), lambda array=array: array) for name, array in tensors.items()]
        write_checkpoint(tmp_path, entries)
    with open_checkpoint(tmp_path) as single:
        assert [path.name for path in single.files] == ["model.safetensors"]
        assert sorted(single.names()) == sorted(tensors)
        for name, array in tensors.items():
            np.testing.assert_array_equal(single.read(name), array)


def test_arrays_are_read_only_and_outlive_the_checkpoint():
    with open_checkpoint(REFERENCE / "saved_bfloat16") as checkpoint:
        array = checkpoint.read("model.norm.weight")
        before = array.astype("float32")
        checkpoint.read("lm_head.weight")  # lets the pages of the first go
    checkpoint.close()
    np.testing.assert_array_equal(array.astype("float32"), before)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(CheckpointError, match=r"was closed"):
        checkpoint.read("model.norm.weight")


def test_unknown_tensor_names_close_ones():
    with open_checkpoint(REFERENCE / "model") as checkpoint:
        for ask in (checkpoint.info, checkpoint.read):
            with pytest.raises(CheckpointError, match=r"no tensor 'embed_token.weight'.*'embed_tokens.weight'"):
                ask("embed_token.weight")


def test_safetensors_come_before_pytorch_files(tmp_path):
    shutil.copy(REFERENCE / "weights_bin" / "pytorch_model.bin", tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "pytorch"
    shutil.copytree(REFERENCE / "weights_sharded", tmp_path, dirs_exist_ok=True)
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.format, len(checkpoint.files)) == ("safetensors", 3)
    shutil.copy(REFERENCE / "model" / "model.safetensors", tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        assert [path.name for path in checkpoint.files] == ["model.safetensors"]


def test_empty_folder_lists_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="the folder is empty") as caught:
        open_checkpoint(tmp_path)
    for name in ("model.safetensors", SAFETENSORS_INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json"):
        assert name in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointNotFoundError, match=r"there are 'notes.txt'"):
        open_checkpoint(tmp_path)


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFoundError, match="is a file"):
        open_checkpoint(REFERENCE / "model" / "model.safetensors")


def test_shards_without_an_index(sharded):
    (sharded / SAFETENSORS_INDEX).unlink()
    with pytest.raises(CheckpointNotFoundError, match="no index that names them"):
        open_checkpoint(sharded)


def test_missing_shard(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"lacks 1 of the 3 shards.*'model-00002-of-00003.safetensors'"):
        open_checkpoint(sharded)


def test_index_names_a_tensor_that_is_nowhere(sharded):
    edit_index(sharded, lambda index: index["weight_map"].update(extra="model-00001-of-00003.safetensors"))
    with pytest.raises(CheckpointError, match=r"tensor 'extra' is in model-00001.*but it is in none"):
        open_checkpoint(sharded)


def test_index_names_the_wrong_shard(sharded):
    def move(index):
        name = next(name for name, file in index["weight_map"].items() if "00001-of" in file)
        index["weight_map"][name] = "model-00002-of-00003.safetensors"

    edit_index(sharded, move)
    with pytest.raises(CheckpointError, match=r"is in model-00002.*but it is in model-00001"):
        open_checkpoint(sharded)


def test_shard_left_out_of_the_index(sharded):
    def leave_out(index):
        index["weight_map"] = {name: file for name, file in index["weight_map"].items() if "00003-of" not in file}

    edit_index(sharded, leave_out)
    with pytest.raises(CheckpointError, match=r"does not name: 'model-00003-of-00003.safetensors'"):
        open_checkpoint(sharded)


def test_left_over_shards_of_another_save_are_no_part_of_it(sharded):
    shutil.copy(sharded / "model-00001-of-00003.safetensors", sharded / "model-00001-of-00007.safetensors")
    with open_checkpoint(sharded) as checkpoint:
        assert len(checkpoint.files) == 3


def test_tensors_beyond_the_index_are_read(sharded):
    edit_index(sharded, lambda index: index["weight_map"].pop("model.embed_tokens.weight"))
    with open_checkpoint(sharded) as checkpoint:
        assert "model.embed_tokens.weight" in checkpoint.names()


def test_tensor_in_two_shards(tmp_path):
    spec = TensorSpec((2,), "float32")
    for number in (1, 2):
        write_checkpoint(tmp_path / str(number), [("same", spec, lambda: np.zeros(2, "float32"))])
        shutil.copy(
            tmp_path / str(number) / "model.safetensors", tmp_path / f"model-0000{number}-of-00002.safetensors"
        )
    weight_map = {"same": "model-00001-of-00002.safetensors", "other": "model-00002-of-00002.safetensors"}
    (tmp_path / SAFETENSORS_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="'same' is in two shards"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "target",
    ["../model.safetensors", "/etc/passwd", "..", ".", "", "sub/model", "sub\\model", "C:model", "a\0b", 7, None],
)
def test_index_may_not_point_out_of_the_folder(tmp_path, sharded, target):
    shutil.copy(REFERENCE / "model" / "model.safetensors", tmp_path)
    edit_index(sharded, lambda index: index["weight_map"].update(evil=target))
    with pytest.raises(CheckpointError, match="a file's name without any folder was expected"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"weight_map": {"a": "x", "a": "x"}}', "key 'a' twice"),
        ("[]", "holds a JSON list"),
        ("{}", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": ["a"]}', "no weight_map"),
        ("[" * 100000, "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not valid JSON"),
    ],
)
def test_damaged_index(sharded, text, message):
    (sharded / SAFETENSORS_INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(sharded)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_lfs_pointer_and_empty_file(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345678\n")
    with pytest.raises(CheckpointError, match=r"Git-LFS pointer.*git lfs pull"):
        open_checkpoint(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        open_checkpoint(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(tmp_path)


def test_needs_neither_tensorflow_nor_torch():
    program = (
        "import sys; from tfmodels.checkpoints import *;"
        f"c = open_checkpoint({str(REFERENCE / 'weights_bin')!r}); [c.read(n) for n in c.names()];"
        "heavy = {'tensorflow', 'keras', 'torch', 'transformers', 'huggingface_hub'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory where Linux tells it")
def test_reading_everything_keeps_one_tensor_in_memory(tmp_path):
    spec = TensorSpec((4 << 20,), "float32")  # 16 MiB, of which there are eight
    array = np.ones(spec.shape, spec.dtype)
    write_checkpoint(tmp_path, [(f"t{number}", spec, lambda: array) for number in range(8)], max_shard_size="64MiB")
    program = f"""
import numpy as np
from tfmodels.checkpoints import open_checkpoint
def resident():
    return max(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
with open_checkpoint({str(tmp_path)!r}) as checkpoint:
    before, peak, kept = resident(), 0, []
    for name in checkpoint.names():
        kept.append(checkpoint.read(name))
        assert kept[-1].sum() == kept[-1].size
        peak = max(peak, resident() - before)
print(peak / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 2.5 * 16
