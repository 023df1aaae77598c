"""Reads damaged files in worker processes and says what came of each."""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.fuzz.kinds import KINDS
from tools.memory import memory_of, peak_memory, reset_peak

SECONDS = 5.0
FREE_MEMORY = 64 << 20
"""Bytes that reading a file may take beyond three times its size: arenas of allocators, caches of libraries."""
FREE_ADDRESSES = 4 << 30
"""Bytes of addresses beyond which a process gets no more memory at all, so that a bomb ends it and not the machine."""
MAX_MESSAGE = 1500


class Failure(NamedTuple):
    """A file whose reading ended otherwise than documented."""

    kind: str
    number: int
    outcome: str
    message: str


def make(kind: str, seed: int, number: int, folder: Path) -> None:
    """Write file `number` of a kind, with the good files that belong to it, into an empty folder."""
    rng = random.Random(f"{kind} {seed} {number}")
    KINDS[kind].write(rng, folder)


def read(kind: str, folder: Path) -> str:
    """Read what `make` wrote; the outcome in a word, "undocumented" with details behind it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind].read(folder)
    except (ValueError, FileNotFoundError) as error:  # CheckpointError is a ValueError
        message = str(error)
        if len(message) > MAX_MESSAGE:
            return f"undocumented: a message of {len(message)} characters: {message[:300]}"
        if isinstance(error, (UnicodeError, json.JSONDecodeError)):
            return f"undocumented: {type(error).__name__}: {message[:300]}"
        return "refused" if str(folder) in message else f"unnamed: {message[:300]}"
    except MemoryError:
        return "memory"
    except BaseException as error:
        return f"undocumented: {type(error).__name__}: {str(error)[:300]}{_place(error)}"
    return "read"


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def run(kind: str, seed: int, numbers: Iterator[int]) -> tuple[collections.Counter[str], list[Failure]]:
    """Make and read files, in processes that may hang or die.

    Args:
        kind: a key of `KINDS`.
        seed: with the number, what a file is made from.
        numbers: which files.

    Returns:
        How many files had which outcome, and those that failed.
    """
    KINDS[kind].prepare()
    counts: collections.Counter[str] = collections.Counter()
    failures: list[Failure] = []
    waiting = collections.deque(numbers)
    while waiting:
        for outcome in _work(kind, seed, list(waiting)):
            number = waiting.popleft()
            word, _, message = outcome.partition(": ")
            counts[word] += 1
            if word not in ("read", "refused"):
                failures.append(Failure(kind, number, word, message))
    return counts, failures


def _work(kind: str, seed: int, numbers: list[int]) -> Iterator[str]:
    """The outcomes of files, one after the other, that one process reads until it is done, hangs, or dies."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        _read_all(kind, seed, numbers, writer)
    os.close(writer)
    told = 0
    with os.fdopen(reader, "rb") as results:
        for line in results:
            told += 1
            yield line.decode("utf-8", "replace").rstrip("\n")
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if told < len(numbers):
        yield f"hang: more than {SECONDS:g} seconds" if -code in _ALARMS else f"died: exit code {code}"


# They end a process that has used its own time up, or that just waits.
_ALARMS = (signal.SIGPROF, signal.SIGALRM)


def _read_all(kind: str, seed: int, numbers: list[int], writer: int) -> None:
    """Read files one after the other, a line for each; the process ends here."""
    import resource

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # the tokenizers library prints its panics
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = memory_of("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (used + FREE_ADDRESSES, resource.RLIM_INFINITY))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for number in numbers:
            target = folder / str(number)
            target.mkdir()
            make(kind, seed, number, target)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            before = reset_peak()
            # Of its own time: on a busy machine the clock on the wall says little.
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
            outcome = read(kind, target)
            grown = peak_memory() - before
            if grown > FREE_MEMORY + 3 * size:
                outcome = f"memory: {grown} bytes for a file of {size}; {outcome}"
            shutil.rmtree(target, ignore_errors=True)
            os.write(writer, outcome.replace("\n", " ").encode("utf-8", "replace") + b"\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
