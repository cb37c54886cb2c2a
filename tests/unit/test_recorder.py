"""The recorder against a ledger in memory: what it commits, and how each answer leaves it."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from piecework import codec
from piecework.errors import ServerLost
from piecework.ledger import Ledger
from piecework.patience import Patience
from piecework.records import Claim, Committed
from piecework.spans import Span, indices
from piecework.states import State
from piecework_worker import outcomes, recorder
from piecework_worker.nudge import Nudge
from piecework_worker.outcomes import failure_of, retry_delay
from piecework_worker.recorder import Recorder
from tests.server_fixture import eventually


@dataclass
class FakeLedger:
    """One chunk, with the rules of the commit script."""

    stop: int
    next: int = 0
    state: State | None = State.RUNNING
    paused: bool = False
    replies_lost: int = 0
    error: Exception | None = None
    results: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, list[Any]] = field(default_factory=dict)
    retries: dict[int, float] = field(default_factory=dict)
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    meta: list[dict[str, Any]] = field(default_factory=list)

    def commit(
        self,
        chunk: int,
        start: int,
        count: int,
        *,
        worker: str = "",
        careful: int = 0,
        results: tuple[list[Span], bytes] = ([], b""),
        failures: tuple[list[Span], bytes] = ([], b""),
        retries: dict[int, float] | None = None,
        meta: bytes = b"",
        begun: int = 0,
        item_seconds: float = 0.0,
    ) -> Committed:
        if self.error:
            raise self.error
        self.calls.append((start, count, careful))
        if self.state is not State.RUNNING:
            return Committed("over", 0, 0, self.state, False)
        if start != self.next or start + count > self.stop:
            return Committed("refused", self.next, self.stop, self.state, self.paused)
        if not count:
            return Committed("recorded", self.next, self.stop, self.state, self.paused)
        assert start + count <= begun
        assert item_seconds >= 0
        retries = retries or {}
        found = list(indices(results[0])), list(indices(failures[0])), list(retries)
        assert sorted(itertools.chain(*found)) == list(range(start, start + count))
        for to, (spans, packed) in ((self.results, results), (self.failures, failures)):
            values = codec.unpack(packed, "test") if packed else []
            to.update(zip(indices(spans), values, strict=True))
        self.retries |= retries
        self.meta.append(msgspec.msgpack.decode(meta))
        self.next = start + count
        if self.replies_lost:
            self.replies_lost -= 1
            raise redis.ConnectionError("the reply was lost")
        return Committed("recorded", self.next, self.stop, self.state, self.paused)


def made(
    ledger: FakeLedger,
    *,
    retries: int = 0,
    attempt: int = 0,
    careful: bool = False,
    patience: float = 5.0,
    replicated: Callable[[], None] = lambda: None,
) -> Recorder:
    claim = Claim(7, 0, ledger.stop, ledger.next, careful, attempt, 1)
    waiting = Patience(patience, redis.Redis(), lambda text: None, wait=lambda seconds: None)
    return Recorder(cast(Ledger, ledger), claim, "w", retries, waiting, Nudge(), replicated=replicated)


def work(recorder: Recorder, count: int) -> list[int]:
    """Begin a batch of `count` items, and go through it as a runner does."""
    batch = list(range(recorder.position, recorder.position + count))
    recorder.begin(batch)
    for item in batch:
        recorder.results.append(item * item)
    return batch


def is_full(recorder: Recorder) -> bool:
    return recorder.full


def squares(start: int, stop: int) -> dict[int, int]:
    return {i: i * i for i in range(start, stop)}


def test_results_failures_and_retries_in_one_commit() -> None:
    for retries, attempt in ((0, 0), (3, 2), (3, 3)):
        ledger = FakeLedger(stop=10)
        ours = made(ledger, retries=retries, attempt=attempt)
        work(ours, 3)
        ours.fail_with(ValueError("four"))
        ours.fail_with(KeyError("five"))
        work(ours, 5)
        assert ours.uncommitted == 10
        ours.flush()
        assert ours.complete
        assert ours.uncommitted == 0
        assert ledger.results == squares(0, 3) | squares(5, 10)
        if attempt < retries:
            assert ledger.retries == {3: 4.0, 4: 4.0}
            assert ledger.failures == {}
        else:
            assert ledger.retries == {}
            assert [ledger.failures[i][:2] for i in (3, 4)] == [
                ["ValueError", "four"],
                ["KeyError", "'five'"],
            ]
            assert {failure[3] for failure in ledger.failures.values()} == {attempt + 1}


def test_retry_delays_grow_up_to_a_minute() -> None:
    assert [retry_delay(attempt) for attempt in (1, 2, 3, 6, 7, 8, 10_000)] == [1, 2, 4, 32, 60, 60, 60]


def test_lost_reply_is_sent_again_and_counts_once() -> None:
    ledger = FakeLedger(stop=10, replies_lost=1)
    ours = made(ledger)
    work(ours, 10)
    ours.flush()
    assert ours.complete
    assert ledger.results == squares(0, 10)
    assert len(ledger.calls) == 2


@pytest.mark.parametrize(("missing", "ends"), [(2, True), (1000, False)])
def test_a_commit_counts_when_replicas_have_it(missing: int, ends: bool) -> None:
    answers = itertools.chain([redis.ResponseError("NOREPLICAS 0 of 1")] * missing, itertools.repeat(None))

    def replicated() -> None:
        if error := next(answers):
            raise error

    ledger = FakeLedger(stop=10)
    recorder = made(ledger, replicated=replicated, patience=5.0 if ends else 0.0)
    work(recorder, 4)
    if ends:
        recorder.flush()
    else:
        with pytest.raises(ServerLost):
            recorder.flush()
    assert (ledger.next, recorder.uncommitted) == (4, 0 if ends else 4)


@pytest.mark.parametrize("others", range(11))
def test_goes_on_behind_what_another_worker_has_recorded(others: int) -> None:
    ledger = FakeLedger(stop=10)
    ours = made(ledger)
    work(ours, 6)
    ours.fail_with(ValueError())
    ledger.next = others
    ours.flush()
    if others <= 7:
        assert sorted(ledger.results | ledger.failures) == list(range(others, 7))
        assert not ours.stopped
        work(ours, 3)
        ours.flush()
        assert ledger.next == 10
        assert ours.complete
    else:
        assert ours.stopped == "the rest of the chunk is somebody else's"
        assert not ours.complete
        assert ledger.results == {}


def test_server_that_has_lost_commits() -> None:
    ledger = FakeLedger(stop=10)
    ours = made(ledger)
    work(ours, 5)
    ours.flush()
    ledger.next, ledger.results = 2, squares(0, 2)
    work(ours, 3)
    ours.flush()
    assert ours.stopped
    assert not ours.complete
    assert ledger.results == squares(0, 2), "what is in between is gone here too"


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_chunk_is_cut_short(stop: int) -> None:
    ledger = FakeLedger(stop=10)
    ours = made(ledger)
    work(ours, 5)
    ledger.stop = stop
    ours.flush()
    if stop == 8:  # seen at the commit after the next
        assert work(ours, 5) == [5, 6, 7]
        ours.flush()
    assert ours.complete
    assert ours.stop_index == stop
    assert ledger.results == squares(0, stop)


@pytest.mark.parametrize(
    ("state", "says"), [(State.CANCELLED, "cancelled"), (None, "gone"), (State.SUCCEEDED, "succeeded")]
)
def test_run_is_over(state: State | None, says: str) -> None:
    ledger = FakeLedger(stop=10, state=state)
    ours = made(ledger)
    work(ours, 5)
    ours.flush()
    assert says in (ours.stopped or "")
    assert not ours.complete
    assert work(ours, 5) == []


def test_paused_run_and_told_to_stop() -> None:
    ledger = FakeLedger(stop=10, paused=True)
    ours = made(ledger)
    work(ours, 5)
    ours.flush()
    assert (ours.stopped, ours.complete, ledger.next) == ("paused", False, 5)
    ours.stop("told to stop")
    assert ours.stopped == "paused"


def test_stop_empties_the_batch_in_hand() -> None:
    ours = made(FakeLedger(stop=10))
    batch = list(range(10))
    ours.begin(batch)
    seen = []
    for item in batch:
        seen.append(item)
        ours.results.append(item)
        if item == 3:
            ours.stop("told to stop")
    assert seen == [0, 1, 2, 3]
    ours.flush()
    assert not ours.complete


def test_careful_steps_grow_and_end() -> None:
    ledger = FakeLedger(stop=1000)
    ours = made(ledger, careful=True)
    steps = []
    while ours.position < 200:
        steps.append(ours.careful)
        work(ours, ours.careful)
        ours.flush()
    assert steps == [1, 2, 4, 8, 16, 32, 64, 128]
    ours._since -= 1
    work(ours, ours.careful)
    ours.flush()
    assert ours.careful == 0, "so many items take half a second: that is small enough"


def test_thread_commits_while_an_item_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.02)
    ledger = FakeLedger(stop=10)
    ours = made(ledger)
    ours.start()
    work(ours, 4)
    eventually(lambda: ledger.next == 4)
    ours.fail_with(ValueError())
    eventually(lambda: ledger.next == 5)
    ours.close()


def test_error_in_the_thread_stops_the_loop_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.01)
    ledger = FakeLedger(stop=10, error=redis.ConnectionError("away"))
    ours = made(ledger, patience=0.0)
    ours.start()
    work(ours, 4)
    eventually(lambda: ours.stopped)
    ledger.error = AssertionError("the patience is not to begin again")
    with pytest.raises(ServerLost):
        ours.flush()
    ours.close()


def test_thread_ends_when_the_worker_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.01)
    ours = made(FakeLedger(stop=10))
    ours._alive = lambda: False
    ours.start()
    eventually(lambda: ours.stopped == "the worker has died")
    ours.close()


def test_what_cannot_be_stored_fails_alone_among_many() -> None:
    ledger = FakeLedger(stop=6)
    ours = made(ledger)
    ours.results += [0, object(), 2, {1: 1}]
    ours.fail_with(ValueError("four"))
    ours.results.append(5)
    ours.flush()
    assert ledger.results == {0: 0, 2: 2, 5: 5}
    assert [ledger.failures[i][0] for i in (1, 3, 4)] == ["Unstorable", "Unstorable", "ValueError"]
    assert list(ledger.failures) == [1, 3, 4]


def test_too_large_together_and_too_large_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_BYTES", 10_000)
    ledger = FakeLedger(stop=8)
    ours = made(ledger)
    values = [bytes(size) for size in (3000, 3000, 3000, 3000, 20_000, 0, 9000, 9000)]
    ours.results += values
    ours.flush()
    assert ours.complete
    assert list(ledger.failures) == [4]
    assert ledger.results == {i: value for i, value in enumerate(values) if i != 4}


def test_large_results_go_in_several_commits_and_hold_the_loop_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_COMMIT_BYTES", 10_000)
    monkeypatch.setattr(recorder, "_UNCOMMITTED_BYTES", 20_000)
    ledger = FakeLedger(stop=100)
    ours = made(ledger)
    ours.results.append(bytes(1000))
    assert not is_full(ours)
    ours.flush()
    ours.results += [bytes(1000)] * 15
    assert not is_full(ours)
    ours.results += [bytes(1000)] * 15
    assert is_full(ours)
    ours.flush()
    assert not is_full(ours)
    assert max(count for _, count, _ in ledger.calls) <= 10


@pytest.mark.parametrize("retries", [0, 1])
def test_no_commit_has_more_than_so_many_failures(monkeypatch: pytest.MonkeyPatch, retries: int) -> None:
    monkeypatch.setattr(recorder, "_MOST_FAILURES", 3)
    ledger = FakeLedger(stop=20)
    ours = made(ledger, retries=retries)
    for kind in 5 * [ValueError, object]:
        work(ours, 1)
        if kind is object:
            ours.results.append(object())
        else:
            ours.fail_with(ValueError())
    assert is_full(ours)
    ours.flush()
    assert ours.complete
    assert not is_full(ours)
    assert list(ledger.retries if retries else ledger.failures) == list(range(1, 20, 2))
    assert len(ledger.calls) == 4


def test_committed_results_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_COMPACT", 10)
    ledger = FakeLedger(stop=100)
    ours = made(ledger)
    work(ours, 15)
    ours.fail_with(ValueError())
    with ours._lock:
        ours._commit_all()
    assert len(ours.results) == 16
    assert work(ours, 4) == [16, 17, 18, 19]
    assert len(ours.results) == 4
    ours.fail_with(ValueError())
    ours.flush()
    assert sorted(ledger.results | ledger.failures) == list(range(21))


def test_meta_has_the_item_times() -> None:
    ledger = FakeLedger(stop=10)
    ours = made(ledger)
    work(ours, 3)
    ours.timed(0.0)
    ours.timed(4e-6)
    ours.timed(1e9, 2)
    ours.flush()
    (meta,) = ledger.meta
    assert meta["worker"] == "w"
    assert meta["seconds"] >= 0
    assert [(i, n) for i, n in enumerate(meta["times"]) if n] == [(0, 1), (1, 1), (23, 2)]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda ours: ours.flush(), 1),
        (lambda ours: ours.begin([]), 1),
        (lambda ours: ours.fail_with(ValueError()), 1),
        (lambda ours: ours.fail_with(SystemExit(7)), 7),
        (lambda ours: ours.fail_with(SystemExit()), 0),
        (lambda ours: ours.fail_with(SystemExit("words")), 1),
    ],
)
def test_fork_of_a_handler_ends_instead_of_going_on(end: Callable[[Recorder], None], code: int) -> None:
    ledger = FakeLedger(stop=10)
    ours = made(ledger)
    work(ours, 3)
    child = os.fork()
    if child == 0:
        end(ours)
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    ours.flush()
    assert ledger.results == squares(0, 3)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_failure_of_an_exception_that_cannot_tell() -> None:
    failure = failure_of(Mute(), 2)
    assert (failure.type, failure.attempt) == ("Mute", 2)
    assert "RuntimeError" in failure.message


def test_outcomes_without_any_result() -> None:
    failure = failure_of(ValueError(), 1)
    only = outcomes.Outcomes(3, [None, None], {3: failure, 4: failure, 5: failure}, 1)
    assert only.pack(10) == b""
    assert list(only.failures) == [3, 4]
    assert only.item_bytes == 0


Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(["work", "fail", "flush", "steal", "lose"]), st.integers(0, 1), st.integers(1, 6))
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_two_workers_at_one_chunk_record_each_item_once(plan: list[Step]) -> None:
    """Whatever the order: the fake ledger's `results` would be written twice only with a wrong start."""
    ledger = FakeLedger(stop=30)
    recorded: list[int] = []
    both = [made(ledger), made(ledger)]

    def flush(ours: Recorder) -> None:
        before = ledger.next
        ours.flush()
        recorded.extend(range(before, ledger.next))

    for what, who, number in plan:
        ours = both[who]
        if what == "work":
            work(ours, min(number, max(0, ours.stop_index - ours.position)))
        elif what == "fail" and ours.position < ours.stop_index and not ours.stopped:
            ours.fail_with(ValueError())
        elif what == "flush":
            flush(ours)
        elif what == "steal":
            ledger.stop = max(ledger.next + 1, ledger.stop - number) if ledger.next < ledger.stop else ledger.stop
        elif what == "lose":
            ledger.replies_lost = 1
    for ours in both:
        flush(ours)
    last = made(ledger)
    work(last, ledger.stop - ledger.next)
    flush(last)
    assert recorded == list(range(ledger.stop))
    assert sorted(ledger.results | ledger.failures) == recorded
    assert not ledger.results.keys() & ledger.failures.keys()
    assert all(ledger.results[i] == i * i for i in ledger.results)
