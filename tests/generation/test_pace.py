"""generation/pace.py: many steps share a call, unless somebody waits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfmodels.generation.pace import Pace


def steps(rows=((5, 100),), lefts=(100,), seconds=None, limited=(), **options):
    """The steps for rows of (tokens so far, tokens left), of which some have a grammar."""
    pace = Pace()
    if seconds is not None:
        pace.note(8 * seconds, 8)
    made = [
        SimpleNamespace(new=[0] * new, left=left, matcher=object() if index in limited else None)
        for index, (new, left) in enumerate(rows)
    ]
    given = {"streaming": False, "has_prompts": False, "has_waiting": False, **options}
    return pace.steps(made, lefts, **given)


@pytest.mark.parametrize(
    "options, want",
    [
        ({}, 8),
        ({"has_prompts": True}, 2),
        ({"streaming": True}, 8),  # nothing is known of the time yet
        ({"streaming": True, "seconds": 0.005}, 8),
        ({"streaming": True, "seconds": 0.045}, 3),  # events at least every 150 ms
        ({"streaming": True, "seconds": 2.0}, 1),
        ({"seconds": 2.0}, 8),
        ({"streaming": True, "rows": ((5, 100), (0, 100)), "lefts": (100, 100)}, 1),  # a first token is waited for
        ({"rows": ((5, 100), (0, 100)), "lefts": (100, 100)}, 8),
        ({"rows": ((5, 3), (5, 100)), "lefts": (3, 100)}, 8),
        ({"rows": ((5, 3), (5, 100)), "lefts": (3, 100), "has_waiting": True}, 3),
        ({"limited": (0,), "lefts": (1,)}, 1),  # more would do nothing
        ({"limited": (0,), "lefts": (4,), "seconds": 0.0004}, 4),  # forced tokens, and a call that costs as much as 3
        ({"limited": (0,), "lefts": (4,), "seconds": 0.1}, 2),
        # Where steps are slow, a row with a grammar does not wait for one that could go on.
        ({"rows": ((5, 99), (5, 99)), "lefts": (1, 99), "limited": (0,), "seconds": 0.1}, 1),
    ],
)
def test_steps(options, want):
    assert steps(**options) == want
