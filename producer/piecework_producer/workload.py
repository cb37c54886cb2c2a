"""What a benchmark's runs consist of: a handler, and for each degree of parallelism a pile of items.

A built-in workload makes its items itself, and unless their number is given, as many for each worker as take about so
many seconds: N workers get N times the items of one. (Throughput is compared, not duration.) A user's handler, `pi`,
and whatever has `--items` have the same pile at each degree.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import repeat

from piecework.errors import UsageError
from piecework.items import Pile, checked_range, iterable
from piecework_producer import quantities as q
from piecework_producer.references import load

BUILT_IN = ("noop", "spin", "sleep", "pi")
_MODULE = "piecework_worker.workloads"
_PI_PARTS = 64
_PARTS_PER_WORKER = 8


@dataclass(frozen=True)
class Workload:
    """What is measured."""

    name: str
    pile: Callable[[int], AbstractContextManager[Pile]]
    """The items for a number of workers, anew for each run."""
    words: str
    """What one run consists of."""


@dataclass(frozen=True)
class Sizes:
    """How much of a built-in workload: the options of `bench`. None: not given."""

    items: int | None = None
    seconds: float | None = None
    item_seconds: float | None = None
    digits: int | None = None


def handler_of(name: str) -> str:
    """The handler of a built-in workload, as workers import it."""
    return "piecework_worker.pi:terms" if name == "pi" else f"{_MODULE}:{name}"


def refuse_misfits(name: str, sizes: Sizes) -> None:
    """Raise `UsageError` for sizes that do not go with the workload, or with each other."""
    misfits = [
        ("--items", sizes.items, BUILT_IN),
        ("--seconds", sizes.seconds, ("noop", "spin", "sleep")),
        ("--item-seconds", sizes.item_seconds, ("spin", "sleep")),
        ("--digits", sizes.digits, ("pi",)),
    ]
    for option, value, of in misfits:
        if value is not None and name not in of:
            raise UsageError(f"{option} goes with {', '.join(of)}, not with {name}")
    if sizes.items is not None and sizes.seconds is not None:
        raise UsageError("--items and --seconds exclude each other: each says how large a run is")


def built_in(name: str, sizes: Sizes, most_workers: int, rate: float | None = None) -> Workload:
    """A built-in workload. `rate`: items per second of one worker, where only a first run can tell (`noop`)."""
    if name == "pi":
        return _pi(sizes, most_workers)
    item_seconds = 0.01 if sizes.item_seconds is None else sizes.item_seconds
    each = f" of {q.seconds(item_seconds)}" if name != "noop" else ""

    def pile(count: int) -> AbstractContextManager[Pile]:
        return nullcontext(checked_range(0, count, 1) if name == "noop" else iterable(repeat(item_seconds, count)))

    if sizes.items is not None:
        fixed = sizes.items
        return Workload(name, lambda workers: pile(fixed), f"{fixed:,} items{each}, the same at each degree.")
    seconds = 3.0 if sizes.seconds is None else sizes.seconds
    for_each = max(1, round(seconds * (1 / item_seconds if rate is None else rate)))
    words = f"{for_each:,} items{each} for each worker: with N workers N times as many, about {q.seconds(seconds)}."
    return Workload(name, lambda workers: pile(for_each * workers), words)


def _pi(sizes: Sizes, most_workers: int) -> Workload:
    digits = 5_000_000 if sizes.digits is None else sizes.digits
    parts = sizes.items or max(_PI_PARTS, _PARTS_PER_WORKER * most_workers)
    try:
        ranges = load("piecework_worker.pi:ranges", "pi")(digits, parts)
    except ValueError as error:
        raise UsageError(str(error)) from None
    words = f"The series of {digits:,} digits of pi in {len(ranges):,} items of about the same cost, at each degree."
    return Workload("pi", lambda workers: nullcontext(iterable(ranges)), words)
