"""The speed of decoding, without the time in which programs are traced or compiled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Arrivals = Sequence[tuple[float, int]]
"""Time in seconds, and number of tokens, of each chunk that came."""


def steps_of(arrivals: Arrivals) -> list[tuple[float, int]]:
    """Seconds and tokens of each chunk after the first one; the end of a text may have none and is left out."""
    pairs = itertools.pairwise(arrivals)
    return [(now - before, count) for (before, _), (now, count) in pairs if count]


def seconds_per_token(arrivals: Arrivals) -> float | None:
    """The median over the tokens after the first chunk; None where half of them came in one chunk.

    Any chunk may wait for the trace or the compilation of a program, and a median of one chunk would be that wait.

    Example:
        >>> f"{seconds_per_token([(1.0, 1), (3.0, 4), (3.1, 10), (3.2, 10)]):.2f}"
        '0.01'
        >>> seconds_per_token([(1.0, 1), (3.0, 4)]) is None
        True
    """
    steps = steps_of(arrivals)
    counts = [count for _, count in steps]
    if 2 * max(counts, default=0) >= sum(counts):
        return None
    each = sorted(seconds / count for seconds, count in steps for _ in range(count))
    return max(each[len(each) // 2], 1e-6)
