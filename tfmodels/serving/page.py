"""The page at /: one file, and the policy under which browsers show it."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

FILE = Path(__file__).with_name("page.html")


@functools.lru_cache(maxsize=1)
def content() -> bytes:
    """The page."""
    return FILE.read_bytes()


@functools.lru_cache(maxsize=1)
def headers() -> dict[str, str]:
    """Its headers: nothing runs but its own script, and it talks to nobody but this server."""
    policy = {
        "default-src": "'none'",
        "script-src": _hashes("script"),
        "style-src": _hashes("style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _hashes(tag: str) -> str:
    """The hashes of the page's own elements of a kind."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), content(), re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one).digest()).decode()}'" for one in found)
