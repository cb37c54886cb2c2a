"""Runs an `async def` handler, with `--concurrency` items at once in one event loop."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from piecework.context import Context
from piecework_worker.progress import UNKNOWN, Progress
from piecework_worker.recorder import Recorder

_LOOKAHEAD = 16
_SMALLEST_BATCH = 1024
_AFTER_TIMEOUT_SECONDS = 1.0
"""The event loop ends an item that is overdue, and spares the others; the horse is killed so long after."""
_WATCH_SECONDS = 0.1


class ConcurrentItems:
    """See `handlers.Runner`. Outcomes are recorded in index order."""

    def __init__(self, function: Callable[[Any], Awaitable[Any]], item_timeout: float | None, concurrency: int) -> None:
        self._function, self._timeout, self._concurrency = function, item_timeout, concurrency
        self._begun: dict[int, float] = {}
        self._loop = asyncio.Runner()

    def batch_size(self, recorder: Recorder) -> int:
        """As many as the recorder allows; large, as its end is waited for before the next begins."""
        return recorder.careful or max(_SMALLEST_BATCH, _LOOKAHEAD * self._concurrency)

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Run the items in the event loop."""
        self._loop.run(self._drain(batch, recorder, context, progress))
        progress.end()

    def close(self) -> None:
        """Close the event loop."""
        self._loop.close()

    async def _drain(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        at_once = 1 if recorder.careful else self._concurrency
        items, index = iter(batch), recorder.position
        in_order: deque[asyncio.Task[Any]] = deque()
        running: set[asyncio.Task[Any]] = set()
        watch = asyncio.create_task(self._watch(progress)) if self._timeout and at_once > 1 else None
        while True:
            while len(running) < at_once and len(in_order) < _LOOKAHEAD * at_once:
                try:
                    item = next(items)
                except StopIteration:
                    break
                if at_once == 1:
                    progress.begin(index, self._deadline_ns())
                task = asyncio.create_task(self._one(item, index, recorder, context))
                in_order.append(task)
                running.add(task)
                index += 1
                recorder.begun = index
            if not in_order:
                break
            if running:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            while in_order and in_order[0].done():
                outcome = in_order.popleft().result()
                if isinstance(outcome, BaseException):
                    recorder.fail_with(outcome)
                else:
                    recorder.results.append(outcome)
        if watch:
            watch.cancel()

    async def _one(self, item: Any, index: int, recorder: Recorder, context: Context) -> object:
        begun = self._begun[index] = time.monotonic()
        try:
            with Context(context.run, context.attempt, lambda: index):
                async with asyncio.timeout(self._timeout):
                    return await self._function(item)
        except TimeoutError as error:
            if self._timeout is not None and time.monotonic() - begun >= self._timeout:
                return TimeoutError(f"the item took longer than --item-timeout {self._timeout:g} s")
            return error
        except BaseException as error:  # as in EachItem
            recorder.end_stray_fork(error)
            return error
        finally:
            del self._begun[index]
            recorder.timed(time.monotonic() - begun)

    async def _watch(self, progress: Progress) -> None:
        """Let the worker see that the event loop turns, and that no item has refused to be cancelled.

        Such items can only be ended from outside.
        """
        while True:
            oldest = min(self._begun.values(), default=None)
            stuck = oldest is not None and time.monotonic() - oldest > (self._timeout or 0) + _AFTER_TIMEOUT_SECONDS
            progress.begin(UNKNOWN, time.monotonic_ns() if stuck else self._deadline_ns())
            await asyncio.sleep(_WATCH_SECONDS)

    def _deadline_ns(self) -> int | None:
        if self._timeout is None:
            return None
        return time.monotonic_ns() + round((self._timeout + _AFTER_TIMEOUT_SECONDS) * 1e9)
