"""Any interleaving of the ledger's transitions, on a real server, records each index exactly once.

A model in Python keeps what was accepted: for each index the outcome that must be in the streams. After each
step all that the run has in Redis is read and checked against it and against itself. Workers are simulated by
the claims that they hold; a claim is never forgotten, so that its worker may come back as a zombie at any
time. At the end the run is drained by legal moves, and must end.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from piecework.errors import RunIsOver
from piecework.keys import chunk_of_job, job_id
from piecework.records import Failure
from piecework.states import State
from tests.ledger_fixture import (
    Chunk,
    at_pace,
    chunk,
    chunks,
    commit,
    keys_of,
    opened,
    outcomes,
    queued,
    set_all_to_the_past,
)

WORKERS = ("a", "b", "c")
CRASH_LIMIT, LOSS_LIMIT = 2, 2
numbers = st.integers(0, 1_000)
which_held = st.sampled_from([0, 0, 0, 1, 2, -1, -2, -5])
"""Which claim: mostly one of the last that are good still, sometimes that of a zombie (negative)."""


@dataclass
class Held:
    """A claim, or a copy, as its worker sees it: perhaps long out of date."""

    chunk: int
    worker: str
    next: int
    stop: int


@dataclass(frozen=True)
class Picture:
    """All that the ledger has of a run."""

    run: dict[str, str]
    chunks: dict[int, Chunk]
    waiting: dict[int, float]
    leases: dict[int, float]
    delayed: dict[int, float]
    copies: dict[int, tuple[int, str]]
    results: list[tuple[int, Any]]
    failures: list[tuple[int, Any]]
    queue: list[int]

    @property
    def state(self) -> State:
        return State(self.run["state"])

    @property
    def open(self) -> dict[int, Chunk]:
        return {number: c for number, c in self.chunks.items() if c.next < c.stop}


class LedgerMachine(RuleBasedStateMachine):
    """The rules are what producers, workers, launchers, and bad luck may do; the order is anybody's."""

    runs = 0

    def __init__(self, client: Redis) -> None:
        super().__init__()
        LedgerMachine.runs += 1
        self.client = client
        self.run_id = f"machine-{LedgerMachine.runs}"
        self.recorded: dict[int, str] = {}
        """index -> what was accepted as its result"""
        self.failed: set[int] = set()
        self.held: list[Held] = []
        self.delivered: list[int] = []
        self.said = 0
        self.aborted: State | None = None
        self.jobs_lost: set[int] = set()

    @initialize(
        blocks=st.sampled_from([[9], [6], [3, 4], [5, 1, 6], [2], [1], []]),
        size=st.sampled_from([6, 3, 1]),
        budget=st.sampled_from([None, None, None, (3, False), (50, True)]),
        claims=st.sampled_from([2, 3, 1, 0, None]),
    )
    def open(self, blocks: list[int], size: int, budget: tuple[float, bool] | None, claims: int | None) -> None:
        """`claims`: how many chunks are claimed to begin with; None: it is to be filled and sealed first."""
        self.blocks, self.size, self.budget = blocks, size, budget
        self.total = sum(blocks)
        self.ledger = opened(self.client, self.run_id, loss_limit=LOSS_LIMIT, crash_limit=CRASH_LIMIT)
        if claims is not None:
            for _ in blocks:
                self.fill(False)
            self.ledger.cut(size)
            self.seal(0)
            for worker in WORKERS[:claims]:
                if (number := self.popped()) is not None:
                    self.deliver(number, worker)
        self.now = self.look()

    @property
    def limit(self) -> int:
        """Most failures that the run survives; -1: any number."""
        if self.budget is None:
            return -1
        number, percent = self.budget
        return int(self.total * number / 100 if percent else number)

    # --- what is there

    def look(self) -> Picture:
        keys = self.ledger.keys
        with self.client.pipeline() as pipe:
            pipe.hgetall(keys.run)
            pipe.hgetall(keys.chunks)
            pipe.hgetall(keys.copies)
            for zset in (keys.waiting, keys.leases, keys.delayed):
                pipe.zrange(zset, 0, -1, withscores=True)
            run, packed, copies, *zsets = pipe.execute()
        waiting, leases, delayed = ({int(number): score for number, score in zset} for zset in zsets)
        return Picture(
            {name.decode(): value.decode() for name, value in run.items()},
            {int(number): Chunk.parse(number, text) for number, text in packed.items()},
            waiting,
            leases,
            delayed,
            {int(number): (int(text.split()[0]), text.split()[1].decode()) for number, text in copies.items()},
            outcomes(self.client, keys.results),
            outcomes(self.client, keys.failures),
            queued(self.ledger),
        )

    def state(self) -> State:
        return self.ledger.status().state

    # --- the producer

    @precondition(lambda self: self.now.state is State.FILLING)
    @rule(repeat=st.booleans())
    def fill(self, repeat: bool) -> None:
        filled, _ = self.ledger.filled()
        starts = [sum(self.blocks[:i]) for i in range(len(self.blocks))]
        if repeat and filled:
            accepted, now = self.ledger.fill(starts[0], self.blocks[0], b"x", "")
            assert (accepted, now) == (False, filled)
        if filled in starts and not chunks(self.ledger):
            count = self.blocks[starts.index(filled)]
            assert self.ledger.fill(filled, count, b"block", "digest") == (True, filled + count)

    @precondition(lambda self: self.now.state is State.FILLING and self.now.run["filled"] == str(self.total))
    @rule(most=st.integers(1, 3))
    def cut(self, most: int) -> None:
        at = int(self.client.hget(self.ledger.keys.run, "cut") or 0)
        self.ledger._scripts.call("cut", at, self.size, most)

    @precondition(lambda self: self.now.state is State.FILLING or self.said % 8 == 7)
    @rule(wrong=st.sampled_from([0, 0, 0, 1, -1]))
    def seal(self, wrong: int) -> None:
        before = self.look()
        total = self.total + wrong
        whole = int(before.run["filled"]) == int(before.run["cut"]) == total
        may = int(before.run["total"]) == total if before.run["sealed"] == "1" else whole
        if may and (before.run["sealed"] == "1" or before.state is State.FILLING):
            self.total = total  # nothing filled and sealed as nothing: an empty pile
            state = self.ledger.seal(total, self.budget)
            if before.run["sealed"] == "1":
                assert state is before.state
            else:
                assert state is (State.SUCCEEDED if total == 0 else State.RUNNING)
        else:
            with pytest.raises(RunIsOver):
                self.ledger.seal(total, self.budget)

    @precondition(lambda self: not self.now.state.over)
    @rule(paused=st.sampled_from([False, False, True]))
    def pause(self, paused: bool) -> None:
        assert self.ledger.pause(paused) is self.state()

    @precondition(lambda self: self.aborted is None)
    @rule(cancel=st.sampled_from([False, False, True]), really=st.integers(0, 3))
    def abort(self, cancel: bool, really: int) -> None:
        if really != 1:
            return
        before, state = self.state(), State.CANCELLED if cancel else State.FAILED
        after = self.ledger.abort(state, "because")
        changes = not before.over or (before is State.FAILED and cancel)
        assert after is (state if changes else before)
        self.aborted = after if changes else None

    @precondition(lambda self: bool(self.failed) or self.now.state is State.FAILED or self.said % 8 == 7)
    @rule()
    def retry(self) -> None:
        before = self.now
        try:
            reopened = self.ledger.retry()
        except RunIsOver:
            assert before.run["sealed"] == "0" or before.state is State.CANCELLED
            return
        assert before.run["sealed"] == "1"
        assert before.state is not State.CANCELLED
        assert reopened == len(before.failures) == len(self.failed)
        self.failed.clear()
        if before.state is not State.SUCCEEDED:
            self.aborted = None
            assert self.state() is State.RUNNING
            after = self.look()
            made = [c for number, c in after.chunks.items() if number not in before.chunks]
            assert sorted(i for c in made for i in range(c.start, c.stop)) == sorted(i for i, _ in before.failures)
            assert before.state is State.RUNNING or set(after.open) == set(queued(self.ledger)) == set(after.waiting)

    @precondition(lambda self: bool(self.now.leases))
    @rule(
        worker=st.sampled_from(WORKERS),
        since=st.sampled_from([0.0, 0.1, 30.0]),
        item_seconds=st.sampled_from([0.0, 0.08, 1.0, 60.0]),
        in_hand=st.sampled_from([1, 1, 2, 9]),
    )
    def steal(self, worker: str, since: float, item_seconds: float, in_hand: int) -> None:
        for number in self.now.leases:
            there = self.now.chunks[number]
            begun = min(there.next + in_hand, there.stop)
            at_pace(self.ledger, number, since=since, item_seconds=item_seconds, begun=begun)
        before = self.look()
        stolen, _ = self.ledger.steal(worker)
        after = self.look()
        if not stolen:
            assert after == before
            return
        assert before.state is State.RUNNING
        assert before.run["paused"] == "0"
        (taken,) = (c for number, c in after.chunks.items() if number not in before.chunks)
        (number,) = (number for number in before.leases if after.chunks[number] != before.chunks[number])
        victim = before.chunks[number]
        assert victim.owner != worker
        assert victim.begun <= taken.start < taken.stop
        assert after.chunks[number] == replace(victim, stop=taken.start)
        assert taken == Chunk(taken.id, taken.start, victim.stop, taken.start, attempt=victim.attempt)
        self.is_first_on_the_queue(taken)

    @precondition(lambda self: bool(self.now.leases))
    @rule(worker=st.sampled_from(WORKERS), since=st.sampled_from([1.0, 30.0, 30.0]))
    def copy(self, worker: str, since: float) -> None:
        for number in self.look().leases:
            at_pace(self.ledger, number, since=since, item_seconds=1)
        before = self.look()
        claim, _ = self.ledger.copy(worker, 3600)
        after = self.look()
        now = round(self.client.time()[0] * 1000)
        free = {
            number
            for number in before.leases
            if (there := before.chunks[number]).stop - there.next == 1
            and not there.careful
            and there.owner != worker
            and before.copies.get(number, (1, ""))[0] < now
        }
        idle = not before.waiting and not before.delayed and before.run["paused"] == "0" and since > 3
        assert (claim is not None) == bool(idle and free)
        if claim is None:
            assert after == before
            return
        assert claim.chunk in free
        there = before.chunks[claim.chunk]
        assert (claim.start, claim.stop, claim.next, claim.copy) == (there.start, there.stop, there.next, True)
        assert after == replace(before, copies=before.copies | {claim.chunk: after.copies[claim.chunk]})
        assert after.copies[claim.chunk][1] == worker
        self.held.append(Held(claim.chunk, worker, claim.next, claim.stop))

    @precondition(lambda self: bool(self.now.open) and not self.now.delayed and self.now.state is State.RUNNING)
    @rule(copier=st.sampled_from(WORKERS))
    def all_are_at_their_last_item_and_one_is_copied(self, copier: str) -> None:
        """Nothing waits: chunk by chunk the workers take turns."""
        self.ledger.pause(False)
        set_all_to_the_past(self.ledger, self.ledger.keys.waiting)
        while (number := self.popped()) is not None:
            self.deliver(number, WORKERS[number % len(WORKERS)])
        for number in self.look().leases:
            there = chunk(self.ledger, number)
            last = there.stop - 1
            assert commit(self.ledger, number, there.next, last - there.next, say="early").status == "recorded"
            self.accept(range(there.next, last), [], False, "early")
            self.held.append(Held(number, there.owner, last, there.stop))
        self.copy(copier, 30.0)

    @precondition(lambda self: bool(self.now.copies))
    @rule(number=numbers)
    def copy_runs_out(self, number: int) -> None:
        known = sorted(self.now.copies)
        chosen = known[number % len(known)]
        expiry, worker = self.now.copies[chosen]
        if expiry:
            self.client.hset(self.ledger.keys.copies, str(chosen), f"1 {worker}")

    # --- the queue

    @precondition(lambda self: bool(self.now.queue))
    @rule()
    def pop(self) -> None:
        number = self.popped()
        if number is not None:
            self.delivered.append(number)

    def popped(self) -> int | None:
        """What RQ would give a worker: None if the queue is empty, or if the job's hash is gone."""
        keys = self.ledger.keys
        job = cast(bytes | None, self.client.lmove(keys.queue, keys.intermediate, "LEFT", "RIGHT"))
        if job is None:
            return None
        number = chunk_of_job(self.run_id, job.decode())
        assert number is not None
        return number if self.client.exists(keys.job_prefix + str(number)) else None

    @precondition(lambda self: bool(self.now.queue))
    @rule(worker=st.sampled_from(WORKERS))
    def pop_and_claim(self, worker: str) -> None:
        number = self.popped()
        if number is not None:
            self.deliver(number, worker)

    @precondition(lambda self: bool(self.now.chunks))
    @rule(number=numbers)
    def deliver_any_chunk_again(self, number: int) -> None:
        known = sorted(self.now.chunks)
        self.delivered.append(known[number % len(known)])

    @precondition(lambda self: bool(self.delivered))
    @rule()
    def worker_dies_before_its_claim(self) -> None:
        self.delivered.pop(0)

    @precondition(lambda self: bool(self.now.queue))
    @rule()
    def queue_is_lost(self) -> None:
        self.client.delete(self.ledger.keys.queue)

    @precondition(lambda self: bool(self.now.queue))
    @rule(number=numbers)
    def job_is_lost(self, number: int) -> None:
        lost = self.now.queue[number % len(self.now.queue)]
        self.client.delete(self.ledger.keys.job_prefix + str(lost))
        self.jobs_lost.add(lost)

    # --- workers

    @rule(worker=st.sampled_from(WORKERS), joins=st.booleans())
    def join_or_leave(self, worker: str, joins: bool) -> None:
        state = self.ledger.join(worker) if joins else self.ledger.leave(worker, "because")
        assert state is self.now.state

    @precondition(lambda self: bool(self.delivered))
    @rule(number=numbers, worker=st.sampled_from(WORKERS), forgets=st.booleans())
    def claim(self, number: int, worker: str, forgets: bool) -> None:
        self.deliver(self.delivered.pop(number % len(self.delivered)), worker, forgets)

    def deliver(self, number: int, worker: str, forgets: bool = False) -> None:
        before = self.look()
        there = before.chunks[number]
        claimed = self.ledger.claim(number, worker, 3600)
        lease = before.leases.get(number)
        theirs = lease is not None and there.owner != worker and lease > 1
        free = number in before.open and number not in before.delayed and not theirs
        may = before.state is State.RUNNING and before.run["paused"] == "0" and free
        assert (claimed is not None) == may
        after = chunk(self.ledger, number)
        assert job_id(self.run_id, number).encode() not in self.client.lrange(self.ledger.keys.intermediate, 0, -1)
        if claimed is None:
            assert after == there
            return
        careful = 1 if there.careful or lease is not None else 0
        assert after == replace(there, careful=careful, deliveries=there.deliveries + 1, owner=worker)
        assert (claimed.start, claimed.stop, claimed.next) == (there.start, there.stop, there.next)
        assert claimed.careful == bool(careful)
        assert claimed.deliveries == after.deliveries
        if not forgets:
            self.held.append(Held(number, worker, there.next, there.stop))

    @precondition(lambda self: bool(self.held))
    @rule(
        which=which_held,
        count=st.sampled_from([0, 1, 1, 1, 2, 3, 9]),
        fits=st.sampled_from([True, True, True, False]),
        bad=st.sets(st.integers(0, 4)),
        again=st.booleans(),
        careful=st.integers(0, 3),
        shift=st.sampled_from([0, 0, 0, 0, -1, 1]),
        learns=st.booleans(),
    )
    def commit(
        self,
        which: int,
        count: int,
        fits: bool,
        bad: set[int],
        again: bool,
        careful: int,
        shift: int,
        learns: bool,
    ) -> None:
        held = self.chosen(which)
        start = max(0, held.next + shift)
        if fits:
            count = min(count, max(0, held.stop - start))
        failing = [start + i for i in sorted(bad) if i < count]
        self.said += 1
        say = f"{held.worker}{self.said}"
        before = self.now
        there = before.chunks[held.chunk]
        reply = commit(
            self.ledger,
            held.chunk,
            start,
            count,
            failing=[] if again else failing,
            retries=dict.fromkeys(failing, 3600.0) if again else {},
            careful=careful,
            say=say,
            worker=held.worker,
        )
        after = self.look()
        copied = before.copies.get(held.chunk)
        if before.state is not State.RUNNING:
            assert reply.status == "over"
            assert after == before
        elif start == there.next and start + count <= there.stop:
            assert reply.status == "recorded"
            assert (reply.next, reply.stop) == (start + count, there.stop)
            self.accept(range(start, start + count), failing, again, say)
            made = [c for number, c in after.chunks.items() if number not in before.chunks]
            tried = [replace(c, id=0) for c in made]
            assert tried == [Chunk(0, i, i + 1, i, attempt=there.attempt + 1) for i in failing if again]
            assert after.state is not State.RUNNING or {c.id for c in made} <= set(after.delayed)
            finished = count > 0 and start + count == there.stop
            second = self.second(held, there, copied) if finished else None
            assert int(after.run["duplicates"]) - int(before.run["duplicates"]) == (second is not None)
            if finished and after.state is State.RUNNING:
                assert after.copies.get(held.chunk) == (second and (0, second))
        else:
            assert reply.status == "refused"
            assert (reply.next, reply.stop) == (there.next, there.stop)
            duplicates = sum(1 for i in range(start, start + count) if i < there.next or i >= there.stop)
            left = dict(before.copies)
            if duplicates and copied == (0, held.worker):
                duplicates -= 1
                del left[held.chunk]
            assert int(after.run["duplicates"]) - int(before.run["duplicates"]) == duplicates
            assert after == replace(before, copies=left, run={**before.run, "duplicates": after.run["duplicates"]})
        assert reply.state is after.state
        assert reply.paused == (before.run["paused"] == "1")
        if learns and reply.status != "over":
            held.next, held.stop = reply.next, reply.stop

    def second(self, held: Held, there: Chunk, copied: tuple[int, str] | None) -> str | None:
        """Who was at the last item too, when `held` was the first."""
        if copied is None:
            return None
        expiry, copier = copied
        if copier == held.worker:
            return there.owner if there.owner not in ("", held.worker) else None
        return copier if expiry > 1 else None

    def accept(self, done: range, failing: list[int], again: bool, say: str) -> None:
        for index in done:
            assert index not in self.recorded
            assert index not in self.failed
            if index not in failing:
                self.recorded[index] = say
            elif not again:
                self.failed.add(index)

    @precondition(lambda self: bool(self.held))
    @rule(which=which_held)
    def renew(self, which: int) -> None:
        held = self.chosen(which)
        before = self.now
        renewed, state, paused = self.ledger.renew(held.chunk, held.worker, 3600)
        assert state is before.state
        there = before.chunks[held.chunk]
        yields = before.run["paused"] == "1" or bool(before.waiting.keys() - {held.chunk})
        copies = self.copies(before, held) and not yields and not self.owns(before, held)
        assert renewed == ((self.owns(before, held) or copies) and not before.state.over)
        assert paused == (before.run["paused"] == "1" and not before.state.over)
        after = self.look()
        assert replace(after, leases={}, copies={}) == replace(before, leases={}, copies={})
        assert set(after.leases) == set(before.leases)
        assert after.copies.keys() == before.copies.keys()
        assert not (copies and renewed) or after.copies[there.id][0] > 1

    def chosen(self, which: int) -> Held:
        good = [held for held in self.held if self.owns(self.now, held) or self.copies(self.now, held)]
        claims = good if which >= 0 and good else self.held
        return claims[-1 - min(abs(which), len(claims) - 1)]

    @staticmethod
    def owns(picture: Picture, held: Held) -> bool:
        return held.chunk in picture.leases and picture.chunks[held.chunk].owner == held.worker

    @staticmethod
    def copies(picture: Picture, held: Held) -> bool:
        return held.chunk in picture.open and picture.copies.get(held.chunk, (0, ""))[1] == held.worker

    @precondition(lambda self: bool(self.held))
    @rule(which=which_held, careful=st.booleans())
    def release(self, which: int, careful: bool) -> None:
        held = self.chosen(which)
        before = self.now
        released = self.ledger.release(held.chunk, held.worker, "because", careful)
        assert released == (self.owns(before, held) and before.state is State.RUNNING)
        if released:
            there = before.chunks[held.chunk]
            self.is_first_on_the_queue(replace(there, owner="", careful=1 if careful else there.careful))

    def is_first_on_the_queue(self, expected: Chunk) -> None:
        assert queued(self.ledger)[0] == expected.id
        assert chunk(self.ledger, expected.id) == expected

    @precondition(lambda self: bool(self.now.leases))
    @rule(worker=st.sampled_from(WORKERS))
    def reap(self, worker: str) -> None:
        before = self.now
        theirs, popped = [], set[int]()
        if before.state is State.RUNNING:
            theirs = [number for number in before.leases if before.chunks[number].owner == worker]
            jobs = cast(list[bytes], self.client.lrange(self.ledger.keys.intermediate, 0, -1))
            popped = {number for job in jobs if (number := chunk_of_job(self.run_id, job.decode())) in before.waiting}
        assert self.ledger.reap(worker) == len(theirs) + len(popped)
        after = self.look()
        for number in theirs:
            assert after.chunks[number] == replace(before.chunks[number], owner="", careful=1)
        assert {*theirs, *popped} <= {*after.waiting} & {*queued(self.ledger)}

    @precondition(lambda self: bool(self.held))
    @rule(
        which=which_held,
        offset=st.sampled_from([0, 0, 0, 1, 1, 2, -1, 9]),
        kind=st.sampled_from(["crash", "crash", "time-out with retries", "time-out"]),
    )
    def blame(self, which: int, offset: int, kind: str) -> None:
        held = self.chosen(which)
        index = max(0, held.next + offset)
        before = self.now
        there = before.chunks[held.chunk]
        failure = Failure("Crash", "because")
        if kind == "crash":
            final = self.ledger.blame_crash(held.chunk, held.worker, index, failure, CRASH_LIMIT)
        else:
            delay = 3600.0 if kind == "time-out with retries" else None
            final = self.ledger.blame_failure(held.chunk, held.worker, index, failure, delay)
        after = self.look()
        if not (before.state is State.RUNNING and self.owns(before, held) and there.next <= index < there.stop):
            assert final is None
            assert after == before
            return
        alone = there.next == index and there.stop == index + 1
        crashes = 1 + (there.crashes if alone else 0)
        assert final == (kind == "time-out" or (kind == "crash" and crashes >= CRASH_LIMIT))
        if final:
            assert index not in self.failed
            self.failed.add(index)
        if after.state.over:
            return
        mine = next((c for c in after.open.values() if c.next <= index < c.stop), None)
        assert (mine is None) == final
        if mine is not None:
            assert (mine.next, mine.stop, mine.owner) == (index, index + 1, "")
            assert mine.crashes == (crashes if kind == "crash" else there.crashes if alone else 0)
            assert mine.attempt == there.attempt + (kind != "crash")
            assert mine.id in (after.waiting if kind == "crash" else after.delayed)
        for other in after.open.values():
            if other is not mine and (other.id not in before.chunks or other.id == there.id):
                assert (other.crashes, other.owner, other.careful) == (0, "", 0), "a neighbour is not charged"

    # --- time

    @precondition(lambda self: bool(self.now.leases))
    @rule(number=numbers)
    def lease_expires(self, number: int) -> None:
        leased = sorted(self.now.leases)
        self.client.zadd(self.ledger.keys.leases, {str(leased[number % len(leased)]): 1})

    @precondition(lambda self: bool(self.now.leases))
    @rule(worker=st.sampled_from(WORKERS))
    def all_leases_expire_and_the_first_chunk_is_claimed(self, worker: str) -> None:
        set_all_to_the_past(self.ledger, self.ledger.keys.leases)
        self.tended()
        if (number := self.popped()) is not None:
            self.deliver(number, worker)

    @precondition(lambda self: bool(self.now.delayed))
    @rule()
    def retries_become_due(self) -> None:
        set_all_to_the_past(self.ledger, self.ledger.keys.delayed)

    @precondition(lambda self: bool(set(self.now.waiting.values()) - {1}))
    @rule()
    def waiting_chunks_grow_old(self) -> None:
        set_all_to_the_past(self.ledger, self.ledger.keys.waiting)

    @precondition(lambda self: not self.now.state.over or self.said % 8 == 7)
    @rule(worker=st.sampled_from(["", *WORKERS]), most=st.sampled_from([1, 100]))
    def tend(self, worker: str, most: int) -> None:
        self.tended(worker, most)

    def tended(self, worker: str = "", most: int = 100) -> None:
        before = self.look()
        later_ms = round(self.client.time()[0] * 1000) + 60_000
        for number, score in before.waiting.items():
            if score != 1:
                self.client.zadd(self.ledger.keys.waiting, {str(number): later_ms})
        before = self.look()
        lost = not before.queue
        tended = self.ledger.tend(worker, most)
        after = self.look()
        assert tended.state is after.state
        if before.state is not State.RUNNING:
            assert after == before
            return
        expired = [before.chunks[number] for number, score in before.leases.items() if score == 1]
        given_up = {index for index, _ in after.failures} - {index for index, _ in before.failures}
        for index in given_up:
            (blamed,) = [c for c in expired if c.next == index]
            assert blamed.losses + 1 >= LOSS_LIMIT
            assert blamed.careful == 1 or blamed.stop == blamed.next + 1
        assert len(given_up) <= most
        self.failed |= given_up
        if after.state.over:
            return
        assert (tended.waiting, tended.leased, tended.delayed) == (
            len(after.waiting),
            len(after.leases),
            len(after.delayed),
        )
        if most == 100:
            assert 1 not in after.leases.values()
            assert 1 not in after.delayed.values()
            for there in expired:
                self.redone_carefully(there, after)
            due = [number for number, score in before.delayed.items() if score == 1]
            if lost and not expired and not due and all(score == 1 for score in before.waiting.values()):
                assert set(after.waiting) <= set(queued(self.ledger))

    def redone_carefully(self, there: Chunk, after: Picture) -> None:
        """What was leased and has expired is whole again; its first item is charged for a reason only."""
        first = [c for c in after.open.values() if c.next == there.next]
        if there.careful == 1 or there.stop == there.next + 1:
            if there.next not in self.failed:
                (alone,) = first
                assert (alone.stop, alone.careful, alone.losses) == (there.next + 1, 1, there.losses + 1)
        else:
            assert first == [replace(there, owner="", careful=1)]

    # --- what always holds

    @invariant()
    def everything_is_in_its_place(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.now = now = self.look()
        self.each_index_is_in_one_place(now)
        self.each_chunk_is_in_one_place(now)
        self.the_verdict_is_right(now)
        self.lifetimes_are_right(now)

    def each_index_is_in_one_place(self, now: Picture) -> None:
        assert {index: say for index, (_, say) in now.results} == self.recorded
        assert all(index == said for index, (said, _) in now.results)
        assert {index for index, _ in now.failures} == self.failed
        places = Counter(index for index, _ in [*now.results, *now.failures])
        for there in now.chunks.values():
            assert there.start <= there.next <= there.stop
            places.update(range(there.next, there.stop))
        assert places == Counter(range(int(now.run["cut"])))
        assert int(now.run["done"]) == len(now.results)
        assert int(now.run["failed"]) == len(now.failures)
        status = self.ledger.status()
        assert (status.done, status.failed) == (len(now.results), len(now.failures))
        assert status.in_flight == sum(now.chunks[n].stop - now.chunks[n].next for n in now.leases)

    def each_chunk_is_in_one_place(self, now: Picture) -> None:
        places = Counter([*now.waiting, *now.leases, *now.delayed])
        assert places == Counter(now.open.keys())
        jobs = {int(key.rpartition("-")[2]) for key in keys_of(self.client, self.run_id) if key.startswith("rq:job:")}
        if now.state.over:
            assert not now.leases
            assert not now.delayed
            assert not now.queue
            assert not now.copies
            assert not jobs
            return
        assert jobs <= set(now.waiting) | set(now.leases)
        self.jobs_lost -= jobs
        assert set(now.waiting) <= jobs | self.jobs_lost
        assert {number for number, there in now.open.items() if there.owner} == set(now.leases)
        assert all((expiry == 0) == (number not in now.open) for number, (expiry, _) in now.copies.items())

    def the_verdict_is_right(self, now: Picture) -> None:
        done, lost = len(now.results), len(now.failures)
        drained = now.run["sealed"] == "1" and done + lost == self.total
        over_budget = now.run["sealed"] == "1" and 0 <= self.limit < lost
        assert now.run["sealed"] == "0" or int(now.run["failure_budget"]) == self.limit
        if self.aborted is not None:
            assert now.state is self.aborted
        elif over_budget:
            assert now.state is State.FAILED
            assert "max-failures" in now.run["reason"]
        elif drained:
            assert now.state is (State.COMPLETED_WITH_FAILURES if lost else State.SUCCEEDED)
            assert not now.open
        else:
            assert now.state is (State.RUNNING if now.run["sealed"] == "1" else State.FILLING)
        assert (now.run["ended_ms"] != "") == now.state.over
        in_queues = self.client.sismember(self.ledger.keys.queues, self.ledger.keys.queue)
        assert bool(in_queues) == (now.state is State.RUNNING)

    def lifetimes_are_right(self, now: Picture) -> None:
        names = keys_of(self.client, self.run_id)
        with self.client.pipeline() as pipe:
            for name in names:
                pipe.ttl(name)
            lifetimes = dict(zip(names, pipe.execute(), strict=True))
        if now.state is State.RUNNING:
            assert set(lifetimes.values()) == {-1}, lifetimes
        else:
            lifetimes.pop(self.ledger.keys.intermediate, None)  # the test made it, as RQ would
            assert -1 not in lifetimes.values(), lifetimes

    # --- the end

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        try:
            self.drain()
            self.everything_is_in_its_place()
        finally:
            assert self.ledger.delete()
            left = [key.decode() for key in self.client.scan_iter(count=1000)]
            assert not left, left

    def drain(self) -> None:
        ledger, keys = self.ledger, self.ledger.keys
        if self.state() is State.FILLING:
            for _ in self.blocks:
                self.fill(False)
            ledger.cut(self.size)
            ledger.seal(self.total, self.budget)
        if self.state() is State.CANCELLED or (self.state() is State.FAILED and not ledger.status().sealed):
            return
        if self.state() is State.FAILED:
            self.retry()
        ledger.pause(False)
        rounds = 0
        while self.state() is State.RUNNING:
            rounds += 1
            assert rounds < 10 * self.total + 50, "the run does not end"
            if rounds % 5 == 0:
                set_all_to_the_past(ledger, keys.leases, keys.delayed, keys.waiting)
            self.tended("a")
            number = self.popped()
            if number is None:
                continue
            self.deliver(number, "drainer")
            there = chunk(ledger, number)
            if there.owner == "drainer" and there.next < there.stop:
                reply = commit(ledger, number, there.next, there.stop - there.next, say="drainer")
                assert reply.status == "recorded"
                self.accept(range(there.next, there.stop), [], False, "drainer")
        assert self.state() in (State.SUCCEEDED, State.COMPLETED_WITH_FAILURES, State.FAILED)
        if self.state() is not State.FAILED:
            assert sorted([*self.recorded, *self.failed]) == list(range(self.total))


def test_any_order_of_transitions_records_each_index_once(client: Redis) -> None:
    machine = cast(type[RuleBasedStateMachine], partial(LedgerMachine, client))
    many = settings.get_profile(settings.get_current_profile_name()).max_examples // 2  # each takes a while
    # Without shrinking, which takes minutes here; what failed is printed step by step.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    run_state_machine_as_test(machine, settings=settings(max_examples=many, stateful_step_count=50, phases=phases))
