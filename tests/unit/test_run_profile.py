"""What a run's commits and events say about its time, from streams made by hand: two workers, ten seconds."""

from collections.abc import Iterable

import pytest

from piecework.records import Spec, Status
from piecework.states import State
from piecework_producer.item_times import ItemTimes, edge
from piecework_producer.run_profile import MOST_ROWS, RunProfile, profile
from piecework_producer.run_streams import Commit, Event, Meta

BEGIN = 1_700_000_000.0


def status(seconds: float = 10.0, state: State = State.SUCCEEDED, done: int = 0, failed: int = 0) -> Status:
    return Status(
        run="r", state=state, paused=False, sealed=True, total=done + failed, done=done, failed=failed, duplicates=0,
        in_flight=0, workers=0, items_per_second=0.0, elapsed_seconds=seconds, eta_seconds=None,
        created_at=BEGIN - 1, ended_at=BEGIN + seconds if state.over else None,
    )  # fmt: skip


def event(at: float, kind: str, worker: str = "") -> Event:
    return Event(BEGIN + at, kind, worker)


def commit(
    at: float, worker: str, seconds: float, items: int, *, failed: bool = False, told: bool = False, bucket: int = 5
) -> Commit:
    times = [0] * 24
    times[bucket] = items
    return Commit(BEGIN + at, items, failed, Meta(worker, seconds, times), told)


def profiled(happened: Iterable[Event], committed: Iterable[Commit], **of: object) -> RunProfile:
    return profile(status(**of), Spec(handler="m:f"), BEGIN, happened, committed)  # type: ignore[arg-type]


JOINED = [event(-1, "open"), event(-0.5, "join", "a"), event(0, "seal"), event(1, "join", "b")]


def test_shares_of_the_worker_time() -> None:
    made = profiled(
        [*JOINED, event(10, "end")],
        [commit(4, "a", 4, 40), commit(10, "a", 5, 50), commit(3, "b", 1, 5), commit(7, "b", 3, 5)],
        done=100,
    )
    a, b = made.workers
    assert (a.windows, b.windows) == ([(0, 10)], [(1, 10)])
    assert (a.items, b.items) == (90, 10)
    assert (a.busy_seconds, b.busy_seconds) == pytest.approx((9, 4))
    assert made.worker_seconds == pytest.approx(19)
    assert made.queue_share == pytest.approx(6 / 19)
    assert made.tail_begin == pytest.approx(7)
    assert made.tail_share == pytest.approx(6 / 19)
    assert made.idle_tail_share == pytest.approx(3 / 19)
    assert made.first_work_seconds == pytest.approx(0)
    assert made.items_per_second == pytest.approx(10)
    assert sum(made.recorded) == pytest.approx(100)
    assert made.recorded[0] == pytest.approx(40 / 4 * made.bin_seconds)
    assert made.item_times.total == 100
    assert sum(a.bins or ()) == pytest.approx(9)


def test_failures_and_results_of_one_commit_are_one_stretch_of_work() -> None:
    made = profiled(
        [*JOINED, event(10, "end")],
        [commit(2, "a", 2, 3, failed=True), commit(2, "a", 2, 7, told=True), Commit(BEGIN + 5, 1, True, None)],
        done=7,
        failed=4,
    )
    a, b = made.workers
    assert (a.items, a.failed) == (10, 3)
    assert a.busy_seconds == pytest.approx(2)
    assert made.item_times.total == 3, "told once"
    assert sum(made.recorded) == pytest.approx(11), "an item that nobody lived to tell of too"
    assert b.ran_out == 1, "one that never had work was out of it when it came"
    assert made.tail_begin == 1


def test_workers_that_leave_die_or_come_again() -> None:
    made = profiled(
        [
            event(-1, "open"),
            event(-1, "join", "early"),
            event(-0.5, "leave", "early"),
            event(0, "seal"),
            event(0, "join", "a"),
            event(2, "reap", "a"),
            event(2, "crash", "b"),
            event(3, "join", "b"),
            event(5, "end"),
            event(7, "retry"),
            event(7.5, "join", "c"),
            event(10, "end"),
        ],
        [commit(1.5, "a", 1.5, 1), commit(5, "b", 2, 1), commit(10, "c", 2.5, 1)],
        done=3,
    )
    windows = {worker.name: worker.windows for worker in made.workers}
    assert windows == {"a": [(0, 2)], "b": [(3, 5)], "c": [(7.5, 10)]}
    assert made.worker_seconds == pytest.approx(6.5)
    assert made.tail_share == pytest.approx(0), "b was not there at the end, and c worked until it"
    assert [kind for _, kind, _ in made.marks] == ["reap", "crash", "retry"]


def test_workers_whose_joining_is_forgotten_are_there_from_their_first_work() -> None:
    made = profiled(
        [event(5, "claim", "a"), event(8, "leave", "b"), event(10, "end")],
        [commit(3, "a", 1, 1), commit(6, "a", 1, 1), commit(4, "b", 2, 1)],
        done=3,
    )
    assert made.events_trimmed
    windows = {worker.name: worker.windows for worker in made.workers}
    assert windows == {"a": [(2, 10)], "b": [(2, 8)]}
    assert not profiled(JOINED, []).events_trimmed


def test_nothing_to_share() -> None:
    empty = profiled([event(0, "open"), event(0, "seal"), event(0, "end")], [], seconds=0.0)
    assert (empty.queue_share, empty.tail_share, empty.tail_begin, empty.items_per_second) == (None,) * 4
    assert empty.item_times.percentile(50) is None
    going_on = profiled(JOINED, [commit(2, "a", 2, 5)], state=State.RUNNING, done=5)
    assert going_on.queue_share is not None
    assert (going_on.tail_share, going_on.idle_tail_share) == (None, None)


def test_many_workers_take_bounded_room() -> None:
    happened = [event(-1, "open"), *(event(0, "join", f"w{number}") for number in range(3 * MOST_ROWS))]
    made = profiled(happened, [commit(9, f"w{number}", 9, 1) for number in range(3 * MOST_ROWS)])
    assert sum(worker.bins is not None for worker in made.workers) == MOST_ROWS
    assert made.busy_seconds == pytest.approx(9 * 3 * MOST_ROWS)


def test_percentiles_are_within_their_bucket() -> None:
    times = ItemTimes()
    times.add([0, 90, 0, 9, 1])
    assert list(times.used) == [1, 2, 3, 4]
    for percent, bucket in ((1, 1), (50, 1), (90, 1), (91, 3), (99, 3), (99.5, 4), (100, 4)):
        found = times.percentile(percent)
        assert found is not None
        assert edge(bucket) <= found <= edge(bucket + 1), percent
