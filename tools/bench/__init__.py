"""Benchmarks on CPUs and GPUs, with PyTorch as a peer: `python -m tools.bench --help`; see `command`."""
