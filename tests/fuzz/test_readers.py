"""Damaged files of every kind raise documented errors that name them, in bounded time and memory."""

from __future__ import annotations

import pytest

from tools.fuzz import command, engine
from tools.fuzz.kind import Kind
from tools.fuzz.kinds import KINDS

FILES = 150
MORE = 500


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_raise_documented_errors(kind):
    counts, failures = engine.run(kind, seed=1, numbers=iter(range(FILES)))
    assert not failures
    assert sum(counts.values()) == FILES
    # Damage that nothing notices, and damage that stops everything at the first byte, would test little.
    assert counts["read"] and counts["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(kind):
    _, failures = engine.run(kind, seed=2, numbers=iter(range(MORE)))
    assert not failures


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_the_same_again(kind, tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        engine.make(kind, 1, 7, folder)
        made.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert made[0] == made[1] and made[0]


def test_hangs_deaths_and_other_errors_are_seen(monkeypatch):
    """The engine itself: what it is made to find, it finds."""
    import os
    import signal
    import time

    def read(folder):
        number = int(folder.name)
        if number == 0:
            time.sleep(60)
        elif number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        elif number == 2:
            raise KeyError("secret")
        elif number == 3:
            raise ValueError("no name of a file")
        elif number == 4:
            raise ValueError(f"{folder} {'x' * 5000}")
        elif number == 5:
            memory = bytearray(200 << 20)
            memory[::4096] = b"x" * len(memory[::4096])
        elif number == 6:
            raise ValueError(f"{folder} is bad")

    monkeypatch.setattr(engine, "SECONDS", 1.0)
    kind = Kind(lambda rng, folder: None, read)
    monkeypatch.setitem(KINDS, "made up", kind)
    counts, failures = engine.run("made up", 1, iter(range(8)))
    outcomes = {failure.number: failure.outcome for failure in failures}
    assert outcomes == {0: "hang", 1: "died", 2: "undocumented", 3: "unnamed", 4: "undocumented", 5: "memory"}
    assert counts["refused"] == counts["read"] == 1


def test_a_log_lets_a_run_go_on(monkeypatch, tmp_path):
    read = []

    def run(kind, seed, numbers):
        numbers = list(numbers)
        read.extend(numbers)
        if 6 in numbers:
            raise KeyboardInterrupt
        return command.collections.Counter(read=len(numbers)), [command.Failure(kind, numbers[0], "hang", "long")]

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "PART", 3)
    log = tmp_path / "log.jsonl"
    with pytest.raises(KeyboardInterrupt):
        command.in_parts("flax", 1, 8, log)
    assert read == list(range(8))
    read.clear()
    monkeypatch.setattr(
        command,
        "run",
        lambda kind, seed, numbers: (read.extend(numbers), (command.collections.Counter(read=2), []))[1],
    )
    counts, failures = command.in_parts("flax", 1, 8, log)
    assert read == [6, 7]
    assert counts == {"read": 8} and [failure.number for failure in failures] == [0, 3]
    command.in_parts("flax", 2, 2, log)
    assert read == [6, 7, 0, 1]
