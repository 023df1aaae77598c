"""The report of an export: its files, its signatures, and the comparison with its source."""

from __future__ import annotations

import dataclasses
from io import StringIO
from pathlib import Path
from typing import Any

from tfmodels.export.artifact import Signature
from tfmodels.utils.text import human_bytes


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The result of an export. `print(report)` shows it as a table.

    Fields:
        path: the file, or the folder of the version.
        format: name of the format.
        bytes: size of all of it.
        signatures: what can be called.
        verification: how it compares with its source, where that was asked for.
    """

    path: Path
    format: str
    bytes: int
    signatures: tuple[Signature, ...]
    verification: Any = None

    @property
    def largest_difference(self) -> float | None:
        """Largest difference of any output from the source's; None where it was not verified."""
        return None if self.verification is None else self.verification.largest_difference

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of one call, see `tfmodels.export.verify.VerifyReport`; None where it was not verified."""
        return None if self.verification is None else self.verification.latency_ms

    def table(self) -> Any:
        """The report as a `rich` table."""
        from rich.table import Table

        table = Table(title=str(self.path), title_justify="left", show_header=False)
        table.add_row("format", self.format)
        table.add_row("size", human_bytes(self.bytes))
        for index, signature in enumerate(self.signatures):
            inputs, outputs = (_describe(tensors) for tensors in (signature.inputs, signature.outputs))
            table.add_row("" if index else "signatures", f"{signature.name}({inputs}) -> {outputs}")
        if self.verification is None:
            table.add_row("verified", "no")
        else:
            for label, text in self.verification.rows():
                table.add_row(label, text)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=100).print(self.table())
        return text.getvalue().rstrip()


def _describe(tensors: dict[str, Any], most: int = 6) -> str:
    """Names of tensors, for people: a long list is cut."""
    names = list(tensors)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
