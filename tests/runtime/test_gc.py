"""runtime/gc.py: objects that a block of code hides from the garbage collector."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import gc
from tfmodels.runtime.gc import quick_collections
gc.unfreeze()  # Python may freeze objects of its own
if {frozen}:
    gc.freeze()
before = gc.get_freeze_count()
with quick_collections():
    inside = gc.get_freeze_count()
print(before, inside, gc.get_freeze_count())
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_quick_collections_hide_objects_and_leave_frozen_ones_alone(frozen):
    """A process of its own: this one has frozen what it imported."""
    printed = subprocess.check_output([sys.executable, "-c", CODE.format(frozen=frozen)], text=True)
    before, inside, after = map(int, printed.split())
    assert (before > 0) == frozen and inside > 0
    assert before == after and (inside == before) == frozen
