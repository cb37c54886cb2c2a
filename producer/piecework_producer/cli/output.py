"""Where results go: JSON Lines on standard output or in a file, or nowhere; and tables for people."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from piecework.errors import UsageError
from piecework.results import Outcome
from piecework_producer.cli.errors import OutputLost


class ResultsOutput:
    """Writes outcomes as JSON Lines. `target`: `-` (standard output), `none`, or a file, which is replaced.

    A file keeps what it has until the first write or flush: a command that is refused before destroys nothing.
    On a terminal lines are held until `flush`, whose `aside` gets a progress bar out of the way.
    """

    def __init__(self, target: str = "-", error_fields: Sequence[str] = ("type", "message")) -> None:
        """Raises `UsageError` if it cannot be opened."""
        self._error_fields = error_fields
        self._stream: BinaryIO | None = None
        self._name = "standard output" if target == "-" else target
        self._owned = target not in ("-", "none")
        if target == "-":
            if sys.stdout is None:
                raise UsageError("standard output is closed: give --results FILE, or --results none")
            self._stream = sys.stdout.buffer
        elif self._owned:
            try:
                self._stream = Path(target).open("ab")  # noqa: SIM115 - for as long as the output is open
            except OSError as error:
                raise UsageError(f"--results {target} cannot be written: {error.strerror}") from None
        self._to_empty = self._owned and self._stream is not None and S_ISREG(os.fstat(self._stream.fileno()).st_mode)
        self._held: list[bytes] | None = [] if self._stream is not None and self._stream.isatty() else None

    def write(self, outcome: Outcome) -> None:
        """One line. Raises `BrokenPipeError` if whoever read has left, `OutputLost` for other errors."""
        if self._stream is None:
            return
        json_line = outcome.to_json(self._error_fields) + b"\n"
        if self._held is not None:
            self._held.append(json_line)
        else:
            self._put(json_line)

    def write_text(self, text: str) -> None:
        """A line that is no outcome."""
        self._put(text.encode(errors="backslashreplace") + b"\n")

    def flush(self, aside: Callable[[], AbstractContextManager[object]] | None = None) -> None:
        """Let whoever reads see what is there."""
        if self._stream is None:
            return
        held = b"".join(self._held or ())
        if self._held:
            self._held.clear()
        with aside() if held and aside is not None else nullcontext():
            self._put(held, flush=True)

    def close(self) -> None:
        """After the last outcome."""
        self.flush()
        if self._owned and self._stream is not None:
            self._stream.close()

    def _put(self, data: bytes, flush: bool = False) -> None:
        if self._stream is None:
            return
        try:
            if self._to_empty:
                self._to_empty = False
                self._stream.truncate(0)
            self._stream.write(data)
            if flush:
                self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(f"results cannot be written to {self._name}: {error.strerror}") from None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def check_writable(option: str, path: Path) -> None:
    """That a file can be written is better known before the work than after it. Raises `UsageError`."""
    is_new = not path.exists()
    try:
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be written: {error.strerror}") from None


def write_file(option: str, path: Path, text: str) -> None:
    """Replace a file. Raises `UsageError` if it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be written: {error.strerror}") from None
