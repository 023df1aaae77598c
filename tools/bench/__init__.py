"""Benchmarks on CPUs and GPUs, with PyTorch as a peer: `python -m tools.bench --help`; see `command`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
