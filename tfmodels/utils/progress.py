"""A bar in the terminal that counts what is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counting(name: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Draw a bar; what it yields takes how many more are done.

    Example:
        >>> with counting("Reading", 3, shown=False) as advance:
        ...     advance(3)
    """
    if not shown:
        yield lambda count: None
        return
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)
