"""Runs a batch handler: a list of items in, a list of as many results out."""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from piecework.context import Context
from piecework_worker.progress import UNKNOWN, Progress
from piecework_worker.recorder import Recorder

_BATCH_SECONDS = 0.25
_LARGEST_BATCH = 100_000
_FIRST_BATCH = 64


class ManyItems:
    """See `handlers.Runner`. `most`: largest list that the handler takes; None: about 0.25 s of work."""

    def __init__(
        self, function: Callable[[list[Any]], Sequence[Any]], item_timeout: float | None, most: int | None
    ) -> None:
        self._function = function
        self._timeout_ns = None if item_timeout is None else round(item_timeout * 1e9)
        self._most = most
        self._size = min(_FIRST_BATCH, most or _FIRST_BATCH)

    def batch_size(self, recorder: Recorder) -> int:
        """At most `--batch-size`; without it, as many as take about a quarter of a second."""
        return recorder.careful or self._size

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Call the function with the whole batch; if it raises, with each item alone, to find which it is."""
        items, begun = list(batch), time.monotonic()
        recorder.begun = recorder.position + len(items)
        with context:
            try:
                recorder.results.extend(self._call(items, recorder, progress))
            except BaseException as error:
                if len(items) == 1:
                    recorder.fail_with(error)
                else:
                    recorder.end_stray_fork(error)
                    traceback.clear_frames(error.__traceback__)  # the memory that the call holds: --item-memory
                    self._one_by_one(items, batch, recorder, progress)
        progress.end()
        seconds = time.monotonic() - begun
        recorder.timed(seconds / len(items), len(items))
        if self._most is None:
            fitting = round(len(items) * _BATCH_SECONDS / max(seconds, 1e-6))
            self._size = max(1, min(_LARGEST_BATCH, 4 * self._size, fitting))
        else:
            self._size = self._most

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, items: list[Any], recorder: Recorder, progress: Progress) -> list[Any]:
        deadline = None if self._timeout_ns is None else time.monotonic_ns() + self._timeout_ns * len(items)
        progress.begin(recorder.position if len(items) == 1 else UNKNOWN, deadline)
        results = self._function(list(items))  # a list of its own: it may well eat it up
        if not isinstance(results, list | tuple):
            raise TypeError(f"a batch handler must return a list, not {type(results).__name__}")
        if len(results) != len(items):
            raise ValueError(f"the batch handler returned {len(results)} results for {len(items)} items")
        recorder.end_stray_fork()
        return list(results)

    def _one_by_one(self, items: list[Any], batch: list[Any], recorder: Recorder, progress: Progress) -> None:
        for item in items:
            if not batch:
                return
            try:
                recorder.results.extend(self._call([item], recorder, progress))
            except BaseException as error:
                recorder.fail_with(error)
