#!/usr/bin/env python
"""Run the benchmarks of tools/bench: `python tools/benchmark.py --help`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools.bench.command import main  # noqa: E402

if __name__ == "__main__":
    main()
