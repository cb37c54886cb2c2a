"""Finding a handler, the runner that fits it, and how large the runners' batches grow."""

import asyncio
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import piecework
from piecework.context import Context
from piecework.errors import HandlerUnusable
from piecework_worker import handlers
from piecework_worker.concurrent_items import ConcurrentItems
from piecework_worker.each_item import EachItem
from piecework_worker.handlers import Runner, load
from piecework_worker.many_items import ManyItems
from piecework_worker.progress import IDLE, UNKNOWN, Progress
from tests.unit.test_recorder import FakeLedger, made


class Lab:
    """A runner at work on a chunk of a ledger in memory."""

    def __init__(self, runner: Runner, total: int = 1000, *, careful: bool = False) -> None:
        self.ledger = FakeLedger(stop=total)
        self.recorder = made(self.ledger, careful=careful)
        self.progress = Progress()
        self.context = Context("nightly", 1, lambda: self.recorder.position)
        self.runner = runner

    def batch(self, count: int | None = None) -> int:
        """Run one batch, of the runner's own choice; returns its size."""
        size = count or self.runner.batch_size(self.recorder)
        first = self.recorder.position
        batch: list[Any] = list(range(first, min(self.ledger.stop, first + size)))
        self.recorder.begin(batch)
        self.runner.run(batch, self.recorder, self.context, self.progress)
        assert self.progress.index == IDLE
        return size


def made_runner(function: Callable[..., Any], **options: Any) -> Runner:
    given: dict[str, Any] = {"batch": False, "batch_size": None, "concurrency": 1, "item_timeout": None}
    return handlers.runner(function, **given | options)


async def nap(item: int) -> int:
    await asyncio.sleep(0)
    return item


class Callables:
    def __call__(self, item: int) -> int:
        return item

    async def method(self, item: int) -> int:
        return item


class AsyncCallable:
    async def __call__(self, item: int) -> int:
        return item


@pytest.mark.parametrize(
    ("function", "options", "kind"),
    [
        (abs, {}, EachItem),
        (Callables(), {}, EachItem),
        (functools.partial(max, 1), {}, EachItem),
        (abs, {"batch": True}, ManyItems),
        (nap, {}, ConcurrentItems),
        (nap, {"concurrency": 5}, ConcurrentItems),
        (functools.partial(nap), {}, ConcurrentItems),
        (Callables().method, {}, ConcurrentItems),
        (AsyncCallable(), {}, ConcurrentItems),
    ],
)
def test_runner_fits_the_handler(function: Callable[..., Any], options: dict[str, Any], kind: type) -> None:
    assert type(made_runner(function, **options)) is kind


def test_options_that_do_not_fit() -> None:
    with pytest.raises(HandlerUnusable, match="--batch"):
        made_runner(nap, batch=True)
    with pytest.raises(HandlerUnusable, match="--concurrency"):
        made_runner(abs, concurrency=2)


def test_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loadable.py").write_text("class A:\n    class B:\n        f = staticmethod(abs)\n")
    assert load("loadable:A.B.f") is abs
    assert load("builtins:abs") is abs
    for reference in ("", ":", "m", "m:", ":f"):
        with pytest.raises(HandlerUnusable, match=r"package\.module:function"):
            load(reference)
    with pytest.raises(HandlerUnusable, match=f"looked in .*{tmp_path}"):
        load("no_such_module:f")
    sys.modules.pop("loadable")


@pytest.mark.parametrize("source", ["raise SystemExit(0)", "import sys; sys.exit()", "x = ", "0/0", "import nothing_"])
def test_module_that_cannot_be_imported(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"unloadable_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(HandlerUnusable, match=name):
        load(f"{name}:f")


def test_batches_of_fast_items_grow() -> None:
    lab = Lab(EachItem(abs, None), 1_000_000)
    assert [lab.batch() for _ in range(5)] == [16, 128, 1024, 8192, 32768]
    lab.recorder.flush()
    assert len(lab.ledger.results) == lab.recorder.position


def test_batches_of_slow_items_take_a_quarter_of_a_second() -> None:
    lab = Lab(EachItem(lambda item: time.sleep(0.02), None))
    assert lab.batch(5) == 5
    assert 5 <= lab.runner.batch_size(lab.recorder) <= 13


def test_careful_batches_are_the_recorders() -> None:
    runners: list[Runner] = [EachItem(abs, None), ManyItems(list, None, None), ConcurrentItems(nap, None, 9)]
    for runner in runners:
        lab = Lab(runner, careful=True)
        for size in (1, 2, 4):
            assert lab.batch() == size
            lab.recorder.flush()
        runner.close()


def test_item_in_hand_and_its_deadline() -> None:
    seen: list[tuple[int, bool, int]] = []

    def look(item: int) -> None:
        progress = lab.progress
        seen.append((progress.index, progress.overdue(time.monotonic_ns()), piecework.current().index))
        assert progress.overdue(time.monotonic_ns() + 6 * 10**9)

    lab = Lab(EachItem(look, 5.0))
    lab.batch(3)
    assert seen == [(i, False, i) for i in range(3)]
    assert not lab.progress.overdue(time.monotonic_ns() + 10**12)


def test_scratch_goes_with_its_item() -> None:
    seen: list[Path] = []

    def use(item: int) -> None:
        assert not any(path.exists() for path in seen)
        seen.append(piecework.current().scratch)
        (seen[-1] / "file").touch()
        if item == 1:
            raise ValueError

    Lab(EachItem(use, None)).batch(3)
    assert len(seen) == 3
    assert not any(path.exists() for path in seen)


def test_batch_sizes_follow_the_time() -> None:
    sizes: list[int] = []

    def collect(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    lab = Lab(ManyItems(collect, None, None), 10**6)
    for _ in range(4):
        lab.batch()
    assert sizes == [64, 256, 1024, 4096]

    def slowly(items: list[int]) -> list[int]:
        time.sleep(0.05)
        return items

    slow = Lab(ManyItems(slowly, None, None))
    slow.batch()
    assert slow.runner.batch_size(slow.recorder) <= 4 * 64
    capped = Lab(ManyItems(collect, None, 10))
    assert [capped.batch(), capped.batch()] == [10, 10]


def test_batch_that_raises_is_done_one_by_one_until_stopped() -> None:
    calls: list[list[int]] = []

    def bad(items: list[int]) -> list[int]:
        calls.append(items)
        if items == [2]:
            lab.recorder.stop("told to stop")
        if len(items) > 1 or items == [1]:
            raise ValueError(items)
        return items

    lab = Lab(ManyItems(bad, None, 5))
    lab.batch()
    assert calls == [[0, 1, 2, 3, 4], [0], [1], [2]]
    lab.recorder.flush()
    assert lab.ledger.results == {0: 0, 2: 2}
    assert list(lab.ledger.failures) == [1]


def test_item_of_a_batch_is_unknown_until_it_is_alone() -> None:
    seen: list[int] = []

    def look(items: list[int]) -> list[int]:
        seen.append(lab.progress.index)
        if len(items) > 1:
            raise ValueError
        return items

    lab = Lab(ManyItems(look, 1.0, None))
    lab.batch(3)
    assert seen == [UNKNOWN, 0, 1, 2]


def test_async_items_run_at_once_and_are_recorded_in_order() -> None:
    running, most = 0, 0

    async def handler(item: int) -> list[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (item % 5))
        running -= 1
        return [item, piecework.current().index]

    lab = Lab(ConcurrentItems(handler, None, 20), 200)
    lab.batch(200)
    lab.recorder.flush()
    assert lab.ledger.results == {i: [i, i] for i in range(200)}
    assert most == 20
    lab.runner.close()


def test_slow_async_item_does_not_let_the_others_run_ahead_for_ever() -> None:
    begun: list[int] = []

    async def handler(item: int) -> None:
        begun.append(item)
        if item == 0:
            await asyncio.sleep(0.1)
            assert len(begun) <= 16 * 2

    lab = Lab(ConcurrentItems(handler, None, 2), 500)
    lab.batch(500)
    lab.recorder.flush()
    assert lab.ledger.failures == {}
    lab.runner.close()


def test_async_batches_are_large_enough_for_the_concurrency() -> None:
    lab = Lab(ConcurrentItems(nap, None, 1)).recorder
    assert ConcurrentItems(nap, None, 1).batch_size(lab) == 1024
    assert ConcurrentItems(nap, None, 1000).batch_size(lab) == 16_000
