"""Refuse to compute in a forked child of a process that has computed: it would hang."""

from __future__ import annotations

import os

_started_in: int | None = None


def check_not_forked() -> None:
    """Note which process computes first, and raise in its forked children.

    A forked child has none of the backend's threads, so that operations which wait for them never end.

    Raises:
        RuntimeError: this process was forked from the one that computed first.

    Example:
        >>> check_not_forked()
    """
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise RuntimeError(
            f"process {os.getpid()} was forked from process {_started_in}, which has computed with a model: the "
            "backend's threads are not there, and it would hang. Start processes by "
            'multiprocessing.get_context("spawn"), or load the model in the children only.'
        )
