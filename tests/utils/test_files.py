"""A save is seen whole or not at all: errors, kills, threads, links and what dead processes left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfmodels.checkpoints import CheckpointError, TensorSpec, open_checkpoint, write_checkpoint
from tfmodels.configs.files import read_config_file
from tfmodels.generation.config import GenerationConfig
from tfmodels.utils import files
from tfmodels.utils.files import MARKER_NAME, replacing_file, staged, sweep, write_text
from tfmodels.utils.json_files import read_object, write_object


def save(folder: Path, number: int, limit: int, meanwhile: Callable[[], None] | None = None) -> None:
    """Save JSON files, generation settings and weights in shards of `limit` bytes, all marked with a number.

    Args:
        meanwhile: called when all is written, before the files take their names.
    """
    with staged(folder) as stage:
        for name in ("config.json", "adapter_config.json", "modules.json"):
            write_object(stage.folder / name, {"number": number})
        GenerationConfig(max_new_tokens=number).save_pretrained(stage.folder)
        spec = TensorSpec((10,), "float32")
        tensors = [(name, spec, lambda: np.full(10, number, "float32")) for name in "abcd"]
        write_checkpoint(stage, tensors, max_shard_size=limit)
        if meanwhile is not None:
            meanwhile()


def save_and_be_killed(folder: Path, number: int, limit: int, call: str, left: int) -> bool:
    """Save in a process that is killed at call number `left` of a function of `os`; whether it came to its end."""
    process = os.fork()
    if process == 0:
        real = getattr(os, call)
        calls = iter(range(1, 1000))

        def counted(*arguments: object, **options: object) -> object:
            if next(calls) == left:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, call, counted)
        save(folder, number, limit)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == 0


FILES = ("config.json", "adapter_config.json", "modules.json", "generation_config.json")


def numbers(folder: Path) -> set[float]:
    """The numbers of the saves that a folder's files come from."""
    found = {float(next(iter(json.loads((folder / name).read_text()).values()))) for name in FILES}
    read_config_file(folder)
    with open_checkpoint(folder) as checkpoint:
        assert sorted(checkpoint.names()) == list("abcd")
        for name in checkpoint.names():
            found |= set(np.asarray(checkpoint.read(name)).tolist())
    return found


@pytest.mark.quick(1)
@pytest.mark.parametrize("call", ["replace", "fsync", "unlink"])
@pytest.mark.parametrize("before, after", [(80, 80), (80, 10**6), (10**6, 80)])
def test_a_kill_never_mixes_two_saves_unseen(tmp_path, call, before, after):
    outcomes = []
    for left in range(1, 100):
        folder = tmp_path / str(left)
        save(folder, 1, before)
        ended = save_and_be_killed(folder, 2, after, call, left)
        try:
            found = numbers(folder)
        except ValueError as error:
            message = str(error)
            outcomes.append("refused" if "was interrupted" in message else message)
        else:
            outcomes.append(*found) if len(found) == 1 else outcomes.append(found)
        # Whatever happened, the next save is whole and leaves nothing else behind.
        save(folder, 3, before)
        assert numbers(folder) == {3.0}
        assert not [path.name for path in folder.rglob(".*")]
        if ended:
            break
    assert set(outcomes) <= {1.0, "refused", 2.0}
    assert outcomes[-1] == 2.0
    assert outcomes[0] == 1.0 or call == "unlink"


@pytest.mark.parametrize("name", ["generation_config.json", "config.json", "modules.json", "adapter_config.json"])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_file_of_its_own_is_the_old_or_the_new_one(tmp_path, name, call):
    def write(number: int) -> None:
        if name == "generation_config.json":
            GenerationConfig(max_new_tokens=number).save_pretrained(tmp_path)
        else:
            write_object(tmp_path / name, {"number": number})

    write(1)
    process = os.fork()
    if process == 0:
        setattr(os, call, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
        write(2)
        os._exit(0)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert list(read_object(tmp_path / name).values()) == [1]
    write(3)
    assert list(read_object(tmp_path / name).values()) == [3]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_leaves_the_folder_as_it_was(tmp_path):
    save(tmp_path, 1, 80)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with contextlib.suppress(RuntimeError), staged(tmp_path) as stage:
        write_text(stage.folder / "config.json", "{}")
        raise RuntimeError
    with contextlib.suppress(RuntimeError), replacing_file(tmp_path / "config.json") as file:
        file.write(b"half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("first, second", [(80, 80), (80, 10**6), (10**6, 80), (80, 40)])
def test_the_last_save_to_take_its_names_is_there_alone(tmp_path, first, second):
    """Another save came after this one had looked at the folder: its files go."""
    save(tmp_path, 1, first, meanwhile=lambda: save(tmp_path, 2, second))
    assert numbers(tmp_path) == {1}
    left = {path.name for path in tmp_path.iterdir()}
    save(tmp_path / "alone", 1, first)
    assert left == {path.name for path in (tmp_path / "alone").iterdir()}


def test_threads_that_save_into_one_folder_do_not_mix(tmp_path):
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                save(tmp_path, number, (80, 10**6)[number % 2])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(numbers(tmp_path)) == 1
    assert not list(tmp_path.glob(".*"))


def test_temporaries_of_dead_processes_are_swept(tmp_path):
    program = (
        "import sys, pathlib; from tfmodels.utils.files import temporary_path; folder = pathlib.Path(sys.argv[1]);"
        "temporary_path(folder / 'a.json').write_text('x'); path = temporary_path(folder / 'save'); path.mkdir();"
        "(path / 'inner').write_text('x')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    ours, theirs = files.temporary_path(tmp_path / "b.json"), tmp_path / ".c.json.0123abcd-1-0123456789ab.tmp"
    files._in_use.add(ours.name)
    for path in (ours, theirs, tmp_path / ".hidden.tmp", tmp_path / "model.tmp"):
        path.write_text("x")
    assert len(list(tmp_path.iterdir())) == 6
    sweep(tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {ours.name, theirs.name, ".hidden.tmp", "model.tmp"}
    files._in_use.discard(ours.name)
    # Another machine's process cannot be asked: its temporaries go when they are a day old.
    os.utime(theirs, (time.time() - 90_000,) * 2)
    write_text(tmp_path / "a.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {".hidden.tmp", "model.tmp", "a.json"}


def test_symbolic_links_are_replaced_and_not_followed(tmp_path):
    folder, outside = tmp_path / "model", tmp_path / "outside"
    outside.mkdir()
    save(outside, 1, 80)
    folder.mkdir()
    for path in outside.iterdir():
        (folder / path.name).symlink_to(path)
    save(folder, 2, 80)
    assert numbers(folder) == {2.0}
    assert numbers(outside) == {1.0}
    assert not any(path.is_symlink() for path in folder.iterdir())
    (folder / "1_Pooling").symlink_to(outside)

    def save_inside() -> None:
        with staged(folder) as stage:
            (stage.folder / "1_Pooling").mkdir()
            write_text(stage.folder / "1_Pooling" / "config.json", "{}")

    with pytest.raises(ValueError, match="1_Pooling is a symbolic link"):
        save_inside()
    assert numbers(outside) == {1.0}


def test_a_reader_waits_for_a_save_that_is_under_way(tmp_path):
    save(tmp_path, 1, 80)
    temporary = files.temporary_path(tmp_path / "save")
    files._in_use.add(temporary.name)
    (tmp_path / MARKER_NAME).write_text(temporary.name)
    timer = threading.Timer(0.3, (tmp_path / MARKER_NAME).unlink)
    timer.start()
    with open_checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint.names()) == 4
    files._in_use.discard(temporary.name)
    (tmp_path / MARKER_NAME).write_text(temporary.name)
    with pytest.raises(CheckpointError, match=r"interrupted .* delete"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_weights_that_are_no_file(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(CheckpointError, match=f"is a {kind}, not a file"):
        open_checkpoint(tmp_path)


def test_an_index_leads_nowhere_else(tmp_path):
    for name in ("../x", "/etc/passwd", "x" * 5000, "a\0b", "\ud800", ".", ["a"], None, 3, {}):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="without any folder|half of a character"):
            open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="gguf_file='../x.gguf'"):
        open_checkpoint(tmp_path, gguf_file="../x.gguf")
    with contextlib.suppress(CheckpointError):
        write_checkpoint(tmp_path / "new", [("a", TensorSpec((1,), "int8"), lambda: np.ones(1, "int8"))])
