"""Runs a plain function, called with one item at a time."""

import time
from collections.abc import Callable
from typing import Any

from piecework.context import Context
from piecework_worker.progress import Progress
from piecework_worker.recorder import Recorder

_RAW_BELOW_SECONDS = 20e-6
"""Items faster than this are not timed and traced one by one."""
_BATCH_SECONDS = 0.25
_LARGEST_BATCH = 32768


class EachItem:
    """See `handlers.Runner`."""

    def __init__(self, function: Callable[[Any], Any], item_timeout: float | None) -> None:
        self._function = function
        self._timeout_ns = None if item_timeout is None else round(item_timeout * 1e9)
        self._average = _RAW_BELOW_SECONDS
        self._size = 16

    def batch_size(self, recorder: Recorder) -> int:
        """As many as the recorder allows and a quarter of a second takes."""
        return recorder.careful or self._size

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Call the function with each item; slow ones, and all if they are watched, are timed one by one."""
        traced = bool(recorder.careful) or self._timeout_ns is not None or self._average >= _RAW_BELOW_SECONDS
        function = self._traced(recorder, context, progress) if traced else self._function
        before, begun = recorder.position, time.monotonic()
        self._call(function, batch, recorder, context)
        done, seconds = recorder.position - before, time.monotonic() - begun
        progress.end()
        if done:
            self._average = seconds / done
            self._size = max(1, min(_LARGEST_BATCH, 8 * self._size, round(_BATCH_SECONDS / (self._average or 1e-9))))
            if not traced:
                recorder.timed(self._average, done)

    def close(self) -> None:
        """Nothing is held."""

    @staticmethod
    def _call(function: Callable[[Any], Any], batch: list[Any], recorder: Recorder, context: Context) -> None:
        append = recorder.results.append
        items = iter(batch)
        with context:
            while True:
                try:
                    for item in items:
                        append(function(item))
                    return
                except BaseException as error:  # what a handler raises, SystemExit too, is that item's failure
                    recorder.fail_with(error)

    def _traced(self, recorder: Recorder, context: Context, progress: Progress) -> Callable[[Any], Any]:
        function, timeout_ns, clock = self._function, self._timeout_ns, time.monotonic_ns

        def call(item: Any) -> Any:
            begun = clock()
            progress.begin(recorder.position, None if timeout_ns is None else begun + timeout_ns)
            try:
                result = function(item)
            finally:
                recorder.timed((clock() - begun) / 1e9)
                context.close()
            recorder.end_stray_fork()
            return result

        return call
