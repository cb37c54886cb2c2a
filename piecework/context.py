"""What a handler may ask of the item that it works on: `piecework.current()`."""

import shutil
import tempfile
from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self


class Context:
    """The item in hand. Valid until the handler returns; one for each item, also with `--concurrency`."""

    scheduled_time: ClassVar[datetime | None] = None
    """The time that the run was scheduled for, if a schedule submitted it; the same for all items."""

    def __init__(self, run: str, attempt: int, position: Callable[[], int]) -> None:
        self.run = run
        """Id of the run."""
        self.attempt = attempt
        """1 for the first attempt, 2 for the first retry, …"""
        self._position = position
        self._scratch: Path | None = None
        self._scratch_index = -1

    @property
    def index(self) -> int:
        """Index of the item, 0..total-1; of the first item of the list for a batch handler."""
        return self._position()

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and delivery of this item, and for no other item: `RUN/INDEX`."""
        return f"{self.run}/{self.index}"

    @property
    def scratch(self) -> Path:
        """An empty directory of this item's own; it is removed when the item is over."""
        if self._scratch is None or self._scratch_index != self.index:
            self.close()
            self._scratch_index = self.index
            self._scratch = Path(tempfile.mkdtemp(prefix=f"piecework-{self.run}-{self.index}-"))
        return self._scratch

    def close(self) -> None:
        """Remove the scratch directory, if there is one. The worker calls it."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def __enter__(self) -> Self:
        self._token: Token[Context] = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        self.close()


_current: ContextVar[Context] = ContextVar("piecework.current")


def current() -> Context:
    """The item that the calling handler works on.

    Raises `LookupError` outside of a worker; call the handler there with its item as a plain function.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("piecework.current() is for handlers: no item is being worked on here") from None
