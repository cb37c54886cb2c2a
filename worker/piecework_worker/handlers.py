"""Handlers: what turns items into results. Finds the callable, and runs it over a batch of items.

A runner appends the outcome of each item to the recorder, in index order, whatever the handler does: return, raise,
exit. It stops at the next item boundary when the batch is emptied under it (see `Recorder.begin`).
"""

import asyncio
import importlib
import inspect
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from piecework.context import Context
from piecework.errors import HandlerUnusable
from piecework.records import Failure
from piecework_worker.progress import UNKNOWN, Progress
from piecework_worker.recorder import Recorder

_RAW_BELOW_SECONDS = 20e-6
"""Items faster than this are not timed and traced one by one."""
_BATCH_SECONDS = 0.25
_LOOKAHEAD = 16


class Runner(Protocol):
    """Runs a handler over batches; one for each horse."""

    def batch_size(self, recorder: Recorder) -> int:
        """How many items the next batch may hold."""

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Append an outcome for each item of `batch`, until it is exhausted."""

    def close(self) -> None:
        """Let go of what the runner holds."""


def load(reference: str) -> Callable[..., Any]:
    """Import `package.module:function`. Raises `HandlerUnusable` with what could not be found, and where."""
    module_name, colon, path = reference.partition(":")
    if not colon or not module_name or not path:
        raise HandlerUnusable(f"handler {reference!r} is not of the form package.module:function")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise HandlerUnusable(
            f"handler {reference}: there is no module {error.name!r}; looked in {', '.join(p or '.' for p in sys.path)}"
        ) from error
    except Exception as error:
        raise HandlerUnusable(
            f"handler {reference}: importing {module_name} raised {type(error).__name__}: {error}"
        ) from error
    for name in path.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            raise HandlerUnusable(f"handler {reference}: {module_name} has no {path!r}") from None
    if not callable(target):
        raise HandlerUnusable(f"handler {reference} is a {type(target).__name__}, not a callable")
    return target  # type: ignore[no-any-return]


class EachItem:
    """A plain function, called with one item."""

    def __init__(self, function: Callable[[Any], Any], item_timeout: float | None) -> None:
        self._function = function
        self._timeout_ns = None if item_timeout is None else round(item_timeout * 1e9)
        self._average = _RAW_BELOW_SECONDS
        self._size = 16

    def batch_size(self, recorder: Recorder) -> int:
        """As many as the recorder allows; grows, so that fast items cost no more than a list's iteration."""
        return recorder.careful or self._size

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Call the function with each item; slow ones, and all if they are watched, are timed one by one."""
        traced = bool(recorder.careful) or self._timeout_ns is not None or self._average >= _RAW_BELOW_SECONDS
        function = self._traced(recorder, progress) if traced else self._function
        before, begun = recorder.position, time.monotonic()
        self._call(function, batch, recorder, context)
        done, seconds = recorder.position - before, time.monotonic() - begun
        progress.end()
        if done:
            self._average = seconds / done
            if not traced:
                recorder.timed(self._average, done)
        self._size = min(32768, self._size * 8)

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
                except BaseException as error:  # whatever a handler raises, SystemExit too, is that item's failure
                    recorder.fail_with(error)

    def _traced(self, recorder: Recorder, progress: Progress) -> Callable[[Any], Any]:
        function, timeout_ns, clock = self._function, self._timeout_ns, time.monotonic_ns

        def call(item: Any) -> Any:
            begun = clock()
            progress.begin(recorder.position, None if timeout_ns is None else begun + timeout_ns)
            try:
                return function(item)
            finally:
                recorder.timed((clock() - begun) / 1e9)

        return call


class ManyItems:
    """A batch handler: a list of items in, a list of as many results out."""

    def __init__(
        self, function: Callable[[list[Any]], Sequence[Any]], item_timeout: float | None, most: int | None
    ) -> None:
        self._function = function
        self._timeout_ns = None if item_timeout is None else round(item_timeout * 1e9)
        self._most = most
        self._size = min(64, most or 64)

    def batch_size(self, recorder: Recorder) -> int:
        """At most `--batch-size`; without it, as many as take about a quarter of a second."""
        return recorder.careful or self._size

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Call the function with the whole batch; if it raises, with each item alone, to find the one that fails."""
        items, begun = list(batch), time.monotonic()
        with context:
            try:
                recorder.results.extend(self._call(items, recorder, progress))
            except BaseException as error:
                if len(items) == 1:
                    recorder.fail_with(error)
                else:
                    self._one_by_one(items, batch, recorder, progress)
        progress.end()
        seconds = time.monotonic() - begun
        recorder.timed(seconds / len(items), len(items))
        if self._most is None:
            self._size = max(1, min(100_000, 4 * self._size, round(len(items) * _BATCH_SECONDS / max(seconds, 1e-6))))
        else:
            self._size = self._most

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, items: list[Any], recorder: Recorder, progress: Progress) -> list[Any]:
        deadline = None if self._timeout_ns is None else time.monotonic_ns() + self._timeout_ns * len(items)
        progress.begin(recorder.position if len(items) == 1 else UNKNOWN, deadline)
        results = self._function(items)
        if not isinstance(results, list | tuple):
            raise TypeError(f"a batch handler must return a list, not {type(results).__name__}")
        if len(results) != len(items):
            raise ValueError(f"the batch handler returned {len(results)} results for {len(items)} items")
        return list(results)

    def _one_by_one(self, items: list[Any], batch: list[Any], recorder: Recorder, progress: Progress) -> None:
        for item in items:
            if not batch:
                return
            try:
                recorder.results.extend(self._call([item], recorder, progress))
            except BaseException as error:
                recorder.fail_with(error)


class ConcurrentItems:
    """An `async def` handler, with `--concurrency` items at once in one event loop."""

    def __init__(
        self, function: Callable[[Any], Awaitable[Any]], item_timeout: float | None, concurrency: int
    ) -> None:
        self._function, self._timeout, self._concurrency = function, item_timeout, concurrency
        self._loop = asyncio.Runner()

    def batch_size(self, recorder: Recorder) -> int:
        """As many as the recorder allows."""
        return recorder.careful or 1024

    def run(self, batch: list[Any], recorder: Recorder, context: Context, progress: Progress) -> None:
        """Run the items in the event loop; outcomes are recorded in index order."""
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
        begun = time.monotonic()
        try:
            with Context(context.run, context.attempt, lambda: index):
                async with asyncio.timeout(self._timeout):
                    return await self._function(item)
        except TimeoutError as error:
            if self._timeout is not None and time.monotonic() - begun >= self._timeout:
                return TimeoutError(f"the item took longer than --item-timeout {self._timeout:g} s")
            return error
        except BaseException as error:  # as in EachItem
            return error
        finally:
            recorder.timed(time.monotonic() - begun)

    async def _watch(self, progress: Progress) -> None:
        """Let the worker see that the event loop turns: an item that blocks it can only be ended from outside."""
        while True:
            progress.begin(UNKNOWN, self._deadline_ns())
            await asyncio.sleep(0.1)

    def _deadline_ns(self) -> int | None:
        # The event loop's own time-out comes first; it spares the other items.
        return None if self._timeout is None else time.monotonic_ns() + round((self._timeout + 1.0) * 1e9)


def runner(
    function: Callable[..., Any],
    *,
    batch: bool,
    batch_size: int | None,
    concurrency: int,
    item_timeout: float | None,
) -> Runner:
    """The runner that fits a handler. Raises `HandlerUnusable` for options that do not go with it."""
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - asks whether the call is a coroutine
    )
    if is_async and batch:
        raise HandlerUnusable("--batch is for plain functions; an async handler takes --concurrency")
    if concurrency > 1 and not is_async:
        raise HandlerUnusable("--concurrency is for async handlers; use --parallelism for more processes")
    if is_async:
        return ConcurrentItems(function, item_timeout, concurrency)
    if batch:
        return ManyItems(function, item_timeout, batch_size)
    return EachItem(function, item_timeout)


def timed_out(item_timeout: float, attempt: int) -> Failure:
    """The failure of an item that was killed because its time was over."""
    return Failure("TimeoutError", f"the item took longer than --item-timeout {item_timeout:g} s", "", attempt)
