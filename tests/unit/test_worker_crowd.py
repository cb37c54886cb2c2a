"""How often idle workers ask: each by itself, until there are so many that the server would be busy with that."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from piecework.records import Tended
from piecework.states import State
from piecework_worker.worker import DrainWorker, idle_seconds


@pytest.mark.parametrize(("workers", "seconds"), [(0, 0.8), (1000, 0.8), (2500, 2.0), (5000, 4.0), (100_000, 4.0)])
def test_many_idle_workers_ask_no_more_often_than_a_thousand(workers: int, seconds: float) -> None:
    assert idle_seconds(workers) == seconds


@pytest.mark.parametrize(
    ("steal_again", "copy_again", "waits", "due"),
    [
        (0.0, 0.0, 0.8, 4.0),  # all is in hand and copied: what is put back comes by the queue
        (0.3, 0.0, 0.3, 0.3),
        (0.3, 0.1, 0.1, 0.1),
        (0.0, 0.1, 0.1, 0.1),
        (0.0, 1800.0, 0.8, 4.0),  # a copy is due in half an hour, but there may be something to steal before
    ],
)
def test_who_may_copy_asks_when_something_is_due_and_else_as_rarely_as_others(
    steal_again: float, copy_again: float, waits: float, due: float
) -> None:
    ledger = SimpleNamespace(steal=lambda worker: (False, steal_again), copy=lambda worker, lease: (None, copy_again))
    settings = SimpleNamespace(speculate=True, lease=15.0)
    worker: Any = SimpleNamespace(ledger=ledger, settings=settings, name="w", _steal_due=0.0)
    worker.patience = lambda call: call()
    began = time.monotonic()
    tended = Tended(State.RUNNING, False, waiting=0, leased=1, delayed=0, workers=2)
    assert DrainWorker._looked_elsewhere(worker, tended) == (waits, None)
    assert worker._steal_due - began == pytest.approx(due, abs=0.2)
