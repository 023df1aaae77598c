"""Refuse to compute in a forked child of a process that has computed: it would hang."""

from __future__ import annotations

import os

_started_in: int | None = None


def note_process() -> None:
    """Note that this process has made a model, if it is the first: its forked children cannot use one."""
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()


def check_not_forked() -> None:
    """Note which process computes first, and raise in its forked children.

    A forked child has none of the backend's threads, so that operations which wait for them never end.

    Raises:
        RuntimeError: this process was forked from the one that made a model or computed first.

    Example:
        >>> check_not_forked()
    """
    note_process()
    if _started_in != os.getpid():
        raise RuntimeError(
            f"process {os.getpid()} was forked from process {_started_in}, which has made or used a model: "
            "the backend's threads are not there, and it would hang. Start processes by "
            'multiprocessing.get_context("spawn"), or load the model in the children only.'
        )
