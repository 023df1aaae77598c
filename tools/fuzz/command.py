"""Damage files of every kind that the package reads, and see that reading them raises documented errors only.

    python -m tools.fuzz --files 50000 --seed 1

Each file is made from a good one by changes that know its structure (a JSON tree, a header, the instructions of a
pickle) or by changes of bytes. Worker processes read the files: one may take 5 seconds, and memory of three times its
size beside what an interpreter needs anyway. A table says what came of each kind; whatever is not documented is listed
with the number that makes the same file again: `--kind KIND --only NUMBER --keep FOLDER`.

`--log FILE` keeps what came of every part of a long run, a line of JSON for 250 files of a kind. A run that was ended
goes on where its log ends; another seed or kind counts for itself.

`tests/fuzz` runs some hundred files of each kind over the same engine. TensorFlow is loaded for `config` alone.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
from pathlib import Path

from tools.fuzz.engine import Failure, make, run
from tools.fuzz.kinds import KINDS

PART = 250
"""Files of a kind whose outcome is one line of a log."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000, help="files of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=KINDS, help="this kind alone; may be repeated")
    parser.add_argument("--log", type=Path, help="where each part's outcome is kept, and whence a run goes on")
    parser.add_argument("--only", type=int, help="make and read this one file of --kind in this process")
    parser.add_argument("--keep", type=Path, help="with --only: where to leave the file")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(KINDS)
    if arguments.only is not None:
        folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
        folder.mkdir(parents=True, exist_ok=True)
        make(kinds[0], arguments.seed, arguments.only, folder)
        KINDS[kinds[0]].prepare()
        print(folder, *sorted(path.name for path in folder.rglob("*")))
        KINDS[kinds[0]].read(folder)
        return 0
    each = -(-arguments.files // len(kinds))
    columns = ("read", "refused", "unnamed", "undocumented", "memory", "hang", "died")
    print(f"{'kind':24}" + "".join(f"{column:>13}" for column in columns), flush=True)
    total: collections.Counter[str] = collections.Counter()
    failed: list[Failure] = []
    for kind in kinds:
        counts, failures = in_parts(kind, arguments.seed, each, arguments.log)
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
            print(f"  python -m tools.fuzz --seed {arguments.seed} --kind {failure.kind} --only {failure.number}")
    return 1 if failed else 0


def in_parts(kind: str, seed: int, files: int, log: Path | None) -> tuple[collections.Counter[str], list[Failure]]:
    """Run files of a kind in parts, each once for a log.

    Args:
        kind: a key of `KINDS`.
        seed: what files are made from.
        files: how many.
        log: a file of JSON lines; parts that it holds are not run again. None: nothing is kept.

    Returns:
        What `run` returns, over all parts.
    """
    done = {}
    if log is not None and log.exists():
        for line in log.read_text().splitlines():
            part = json.loads(line)
            done[part["kind"], part["seed"], part["start"], part["stop"]] = part
    counts: collections.Counter[str] = collections.Counter()
    failed: list[Failure] = []
    for start in range(0, files, PART):
        stop = min(start + PART, files)
        part = done.get((kind, seed, start, stop))
        if part is None:
            new, failures = run(kind, seed, iter(range(start, stop)))
            part = {"kind": kind, "seed": seed, "start": start, "stop": stop, "counts": new, "failures": failures}
            if log is not None:
                with log.open("a") as file:
                    file.write(json.dumps(part) + "\n")
        counts += collections.Counter(part["counts"])
        failed += [Failure(*failure) for failure in part["failures"]]
    return counts, failed
