"""Handlers: what turns items into results. Finds the callable, and the runner that fits it."""

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, Protocol

from piecework.context import Context
from piecework.errors import HandlerUnusable
from piecework_worker.concurrent_items import ConcurrentItems
from piecework_worker.each_item import EachItem
from piecework_worker.many_items import ManyItems
from piecework_worker.progress import Progress
from piecework_worker.recorder import Recorder


class Runner(Protocol):
    """Runs a handler over batches; one for each horse.

    It appends the outcome of each item to the recorder, in index order, whatever the handler does: return,
    raise, exit. It stops at the next item boundary when the batch is emptied under it (see
    `Recorder.begin`).
    """

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
        places = ", ".join(place or "." for place in sys.path)
        raise HandlerUnusable(f"handler {reference}: there is no module {error.name!r}; looked in {places}") from error
    except (
        Exception,
        SystemExit,
    ) as error:  # a script that exits, perhaps with 0, must not make a worker do so
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
