"""Damage files of every kind that the package reads, and see that reading them raises documented errors only.

    python tools/fuzz.py --files 50000 --seed 1

Each file is made from a good one by changes that know its structure (a JSON tree, a header, the instructions of a
pickle) or by changes of bytes. Worker processes read the files: one may take 5 seconds, and memory of three times its
size beside what an interpreter needs anyway. A table says what came of each kind; whatever is not documented is listed
with the number that makes the same file again: `--kind KIND --only NUMBER --keep FOLDER`.

`tests/fuzz` runs some hundred files of each kind over the same engine. TensorFlow is loaded for `config` alone.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

try:
    import fuzz_files
except ImportError:  # as a module of a package, from the tests
    from tools import fuzz_files

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
    fuzz_files.KINDS[kind].write(rng, folder)


def read(kind: str, folder: Path) -> str:
    """Read what `make` wrote; the outcome in a word, "undocumented" with details behind it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fuzz_files.KINDS[kind].read(folder)
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
        kind: a key of `fuzz_files.KINDS`.
        seed: with the number, what a file is made from.
        numbers: which files.

    Returns:
        How many files had which outcome, and those that failed.
    """
    fuzz_files.KINDS[kind].prepare()
    counts: collections.Counter[str] = collections.Counter()
    failures: list[Failure] = []
    waiting = collections.deque(numbers)
    while waiting:
        for number, outcome in _work(kind, seed, waiting):
            word, _, message = outcome.partition(": ")
            counts[word] += 1
            if word not in ("read", "refused"):
                failures.append(Failure(kind, number, word, message))
    return counts, failures


def _work(kind: str, seed: int, waiting: collections.deque[int]) -> Iterator[tuple[int, str]]:
    """Let one process read files until it is done, hangs, or dies."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        _read_all(kind, seed, list(waiting), writer)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as results:
        pending = b""
        while waiting:
            number = waiting.popleft()
            # Of its own time: on a busy machine the clock on the wall says little, but a process may also just wait.
            used, until = _seconds(process), time.monotonic() + 6 * SECONDS
            while b"\n" not in pending:
                ready, _, _ = select.select([results], [], [], SECONDS / 10)
                if not ready and time.monotonic() < until and _seconds(process) - used < SECONDS:
                    continue
                part = results.read(65536) if ready else b""
                if not part:
                    break
                pending += part
            line, newline, pending = pending.partition(b"\n")
            if not newline:
                os.kill(process, signal.SIGKILL)
                status = os.waitpid(process, 0)[1]
                yield number, "hang: more than 5 seconds" if not ready else f"died: signal {os.WTERMSIG(status)}"
                return
            yield number, line.decode("utf-8", "replace")
    os.waitpid(process, 0)


def _seconds(process: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read_all(kind: str, seed: int, numbers: list[int], writer: int) -> None:
    """Read files one after the other, a line for each; the process ends here."""
    import resource

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # the tokenizers library prints its panics
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + FREE_ADDRESSES, resource.RLIM_INFINITY))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for number in numbers:
            target = folder / str(number)
            target.mkdir()
            make(kind, seed, number, target)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            before = _resident("VmRSS")
            outcome = read(kind, target)
            grown = _resident("VmHWM") - before
            if grown > FREE_MEMORY + 3 * size:
                outcome = f"memory: {grown} bytes for a file of {size}; {outcome}"
            shutil.rmtree(target, ignore_errors=True)
            os.write(writer, outcome.replace("\n", " ").encode("utf-8", "replace") + b"\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def _resident(key: str) -> int:
    """Bytes of memory of this process, now (VmRSS) or at most since the last question for now (VmHWM)."""
    if key == "VmRSS":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000, help="files of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=fuzz_files.KINDS, help="this kind alone; may be repeated")
    parser.add_argument("--only", type=int, help="make and read this one file of --kind in this process")
    parser.add_argument("--keep", type=Path, help="with --only: where to leave the file")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(fuzz_files.KINDS)
    if arguments.only is not None:
        folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
        folder.mkdir(parents=True, exist_ok=True)
        make(kinds[0], arguments.seed, arguments.only, folder)
        fuzz_files.KINDS[kinds[0]].prepare()
        print(folder, *sorted(path.name for path in folder.rglob("*")))
        fuzz_files.KINDS[kinds[0]].read(folder)
        return 0
    each = -(-arguments.files // len(kinds))
    columns = ("read", "refused", "unnamed", "undocumented", "memory", "hang", "died")
    print(f"{'kind':24}" + "".join(f"{column:>13}" for column in columns), flush=True)
    total: collections.Counter[str] = collections.Counter()
    failed: list[Failure] = []
    for kind in kinds:
        counts, failures = run(kind, arguments.seed, iter(range(each)))
        print(f"{kind:24}" + "".join(f"{counts[column]:13}" for column in columns), flush=True)
        total += counts
        failed += failures
    print(f"{'all ' + str(sum(total.values())):24}" + "".join(f"{total[column]:13}" for column in columns))
    shown: collections.Counter[str] = collections.Counter()
    for failure in failed:
        key = f"{failure.kind} {failure.outcome} {failure.message[:60]}"
        shown[key] += 1
        if shown[key] == 1:
            print(f"\n{failure.outcome}: {failure.message}")
            print(f"  python tools/fuzz.py --seed {arguments.seed} --kind {failure.kind} --only {failure.number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
