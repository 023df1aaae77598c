"""Griffe extension: the sections of the package's docstrings under the names that Griffe knows.

`Example:` holds doctests, which Griffe shows as code below `Examples:`; `Fields:` are attributes of tuples and data
classes.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_TITLES = {"Example": "Examples", "Fields": "Attributes"}


class Sections(griffe.Extension):
    """Renames the sections of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^(Example|Fields):$", lambda found: f"{_TITLES[found[1]]}:", obj.docstring.value, flags=re.MULTILINE
            )
