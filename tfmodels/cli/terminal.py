"""The terminal of `tfmodels chat`: messages of several lines in, Markdown out while it is being written."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

_FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
# Seconds between two drawings of the block that is being written.
_REDRAW_S = 0.08


def read_message(prompt: str, more: str) -> str:
    r"""Read a message from standard input.

    A line that ends in a backslash goes on in the next one, and lines between two lines of three quotation marks are
    one message.

    Args:
        prompt: written before the first line, where somebody types.
        more: written before further lines.

    Raises:
        EOFError: there is none any more.
    """
    lines = [_line(prompt)]
    if lines[0].strip() == '"""':
        lines = []
        with contextlib.suppress(EOFError):
            while (line := _line(more)).strip() != '"""':
                lines.append(line)
        return "\n".join(lines)
    with contextlib.suppress(EOFError):
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(_line(more))
    return "\n".join(lines)


def _line(prompt: str) -> str:
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # lines can be edited, and earlier ones recalled
            import readline  # noqa: F401
        return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def finished(text: str) -> int:
    r"""Number of characters of a growing Markdown text in whole blocks, which nothing to come can change.

    Example:
        >>> text = "A line.\n\n```\ncode\n\nmore"
        >>> text[:finished(text)]
        'A line.\n\n'
    """
    end = len(text)
    while (end := text.rfind("\n\n", 0, end)) > 0:
        if len(_FENCE.findall(text[:end])) % 2 == 0:
            return end + 2
    return 0


class Writer:
    """Writes an answer: Markdown on a terminal, the bare text elsewhere.

    Args:
        console: of rich; None writes the bare text to standard output.
    """

    def __init__(self, console: Any):
        self.console = console

    def write(self, pieces: Iterable[str]) -> Iterator[str]:
        """Write pieces of text as they come, and hand them on.

        Blocks that are whole are printed for good; only the last one is drawn again as it grows, so that answers
        longer than the screen can be scrolled back to.
        """
        if self.console is None:
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
                yield piece
            return
        from rich.live import Live
        from rich.markdown import Markdown

        text, drawn = "", 0.0
        with Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
            try:
                for piece in pieces:
                    text += piece
                    if whole := finished(text):
                        live.update("", refresh=True)
                        self.console.print(Markdown(text[:whole]))
                        text = text[whole:]
                    if time.monotonic() - drawn > _REDRAW_S:
                        live.update(Markdown(text), refresh=True)
                        drawn = time.monotonic()
                    yield piece
            finally:
                live.update("", refresh=True)
                if text.strip():
                    self.console.print(Markdown(text))
