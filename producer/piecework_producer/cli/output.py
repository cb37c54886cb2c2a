"""Where results go: JSON Lines on standard output or in a file, or nowhere; and tables for people."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from piecework.errors import UsageError
from piecework.results import Outcome


class ResultsOutput:
    """Writes outcomes as JSON Lines. `target`: `-` (standard output), `none`, or a file, which is replaced."""

    def __init__(self, target: str = "-") -> None:
        self._stream: BinaryIO | None = None
        self._owned = target not in ("-", "none")
        if target == "-":
            self._stream = sys.stdout.buffer
        elif target != "none":
            try:
                self._stream = Path(target).open("wb")
            except OSError as error:
                raise UsageError(f"--results {target} cannot be written: {error.strerror}") from None

    def write(self, outcome: Outcome) -> None:
        """One line."""
        if self._stream is not None:
            self._stream.write(outcome.to_json() + b"\n")

    def flush(self) -> None:
        """Let whoever reads see what is there."""
        if self._stream is not None:
            self._stream.flush()

    def close(self) -> None:
        """After the last outcome."""
        self.flush()
        if self._owned and self._stream is not None:
            self._stream.close()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)
    )
