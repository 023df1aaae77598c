"""The recorded cases below tests/reference in float32, without TF32, forward and step by step.

The largest difference of a case folder, as a fraction of what the case allows.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import reference_cases
from gpu.checks import Check, Found, Settings
from gpu.models import FAMILIES, tensorflow_only

pytestmark = [pytest.mark.gpu, tensorflow_only]


def checks(settings: Settings) -> list[Check]:
    calls: dict[Path, list[dict[str, Any]]] = {}
    for _, folder, call in reference_cases.find({"forward", "steps"}):
        if folder.parent.name in FAMILIES and call.get("dtype", "float32") == "float32":
            calls.setdefault(folder, []).append(call)
    return [
        Check(folder.parent.name, "float32", folder.name, functools.partial(worst, folder, own))
        for folder, own in calls.items()
    ]


def test_reference_cases(check, holds):
    holds(check)


def worst(folder: Path, calls: list[dict[str, Any]]) -> Found:
    most, place = 0.0, ""
    for call in calls:
        run = getattr(reference_cases, f"{call['kind']}_differences")
        for found in run(folder, call):
            part = found.worst / found.atol
            if not part <= most:  # also where it is no number
                most, place = part, f"{call['name']} {found.where}"
    return Found(most, None, (1.0,), place)
