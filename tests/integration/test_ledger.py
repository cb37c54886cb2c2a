"""Each transition of the ledger on a real server: what it does, what it refuses, and what it answers."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from piecework.codec import pack
from piecework.errors import ContractMismatch, CorruptData, RunIsOver, SpecConflict, UnknownRun
from piecework.keys import RUNS, chunk_of_job, job_id, queue_name, run_keys
from piecework.ledger import Ledger, runs
from piecework.patience import Patience
from piecework.records import Claim, Failure, Spec, to_failure
from piecework.spans import Span
from piecework.states import State
from piecework_producer.pile import rq_job_template
from tests.ledger_fixture import (
    BOOM,
    Chunk,
    chunk,
    chunks,
    claimed,
    commit,
    done,
    failed,
    keys_of,
    keys_without_lifetime,
    members,
    opened,
    outcomes,
    queued,
    sealed,
    set_all_to_the_past,
    store,
)
from tests.server_fixture import eventually

LEASE = 3600.0
BIG = 10**15
NAMES_OF_ENDS = [State.SUCCEEDED, State.COMPLETED_WITH_FAILURES, State.FAILED, State.CANCELLED]


def ended(client: Redis, run: str, state: State) -> Ledger:
    """A run of two items that is over, in any of the four ways."""
    ledger = sealed(client, run, 2, 1, budget=(0, False) if state is State.FAILED else None)
    if state is State.CANCELLED:
        ledger.abort(State.CANCELLED, "not needed")
    else:
        commit(ledger, 1, 0, 1, failing=[] if state is State.SUCCEEDED else [0])
        commit(ledger, 2, 1, 1)
    assert ledger.status().state is state
    return ledger


def why_not(ledger: Ledger, number: int, worker: str = "w") -> str:
    """The status of a claim that the ledger does not grant."""
    assert ledger.claim(number, worker, LEASE) is None
    return str(ledger._scripts.call("claim", number, worker, 1)[0].decode())


def events(ledger: Ledger) -> list[tuple[str, ...]]:
    """(kind, worker, chunk, detail) of all events."""
    return [
        tuple(fields[name].decode() for name in (b"kind", b"worker", b"chunk", b"detail"))
        for fields in entries(ledger, ledger.keys.events)
    ]


def entries(ledger: Ledger, stream: str) -> list[dict[bytes, bytes]]:
    """The fields of each entry of a stream."""
    found = cast(list[tuple[bytes, dict[bytes, bytes]]], ledger.client.xrange(stream))
    return [fields for _, fields in found]


# --- open


def test_open_makes_a_run_once(client: Redis, run_id: str) -> None:
    template = rq_job_template(client, run_id)
    ledger, spec = Ledger(client, run_id), Spec(handler="m:f", total=10, max_failures="5%")
    assert ledger.open(spec, template)
    before = {key: client.dump(key) for key in keys_of(client, run_id)}
    assert not ledger.open(spec, template)
    assert not Ledger(client, run_id).open(spec, {"other": "template"})
    assert {key: client.dump(key) for key in keys_of(client, run_id)} == before
    assert ledger.spec() == spec
    status = ledger.status()
    assert (status.state, status.total, status.sealed, status.paused) == (State.FILLING, 0, False, False)


def test_open_with_another_specification_names_the_field(client: Redis, run_id: str) -> None:
    opened(client, run_id, retries=1)
    with pytest.raises(SpecConflict, match=f"run {run_id} exists .* its retries is 1, yours is 2"):
        opened(client, run_id, retries=2)


def test_find(client: Redis, run_id: str) -> None:
    with pytest.raises(UnknownRun, match=f"run {run_id} is not on this server"):
        Ledger.find(client, run_id)
    opened(client, run_id)
    assert Ledger.find(client, run_id).spec().handler == "m:f"
    client.hset(run_keys(run_id).run, "contract", 99)
    with pytest.raises(ContractMismatch, match="contract version 99"):
        Ledger.find(client, run_id)


@pytest.mark.parametrize(
    "call",
    [
        Ledger.status,
        Ledger.spec,
        Ledger.retry,
        lambda ledger: ledger.pause(True),
        lambda ledger: ledger.abort(State.FAILED, "x"),
        lambda ledger: ledger.block_at(0),
    ],
)
def test_what_raises_for_a_run_that_is_gone(client: Redis, run_id: str, call: Callable[[Ledger], object]) -> None:
    with pytest.raises(UnknownRun, match=run_id):
        call(Ledger(client, run_id))


def test_transitions_of_a_run_that_is_gone_make_no_key(client: Redis, run_id: str) -> None:
    ledger = Ledger(client, run_id)
    assert ledger.filled() == (0, "")
    assert ledger.fill(0, 5, b"x", "d") == (False, 0)
    ledger.cut(5)
    with pytest.raises(RunIsOver, match="it is gone"):
        ledger.seal(0, None)
    assert ledger.join("w") is None
    assert ledger.leave("w", "x") is None
    assert ledger.claim(1, "w", LEASE) is None
    assert ledger.renew(1, "w", LEASE) == (False, None, False)
    reply = commit(ledger, 1, 0, 1)
    assert (reply.status, reply.state) == ("over", None)
    assert not ledger.release(1, "w", "x")
    assert ledger.blame_crash(1, "w", 0, BOOM, 3) is None
    assert ledger.blame_failure(1, "w", 0, BOOM, None) is None
    assert ledger.tend("w").state is None
    assert ledger.reap("w") == 0
    assert not ledger.delete()
    assert keys_of(client, run_id) == []


# --- fill, cut, seal


def test_fill_appends_and_refuses_what_it_has(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id, items="lines")
    assert ledger.fill(0, 3, pack(["a", "b", "c"]), "d3") == (True, 3)
    assert ledger.fill(0, 3, pack(["x", "y", "z"]), "other") == (False, 3)
    assert ledger.fill(4, 1, pack(["e"]), "other") == (False, 3)
    assert ledger.fill(3, 1, pack(["d"]), "d4") == (True, 4)
    assert ledger.filled() == (4, "d4")
    assert ledger.status().total == 4
    assert [ledger.block_at(index) for index in (0, 2, 3)] == [(0, ["a", "b", "c"])] * 2 + [(3, ["d"])]


def test_nothing_is_filled_once_chunks_are_cut(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    ledger.fill(0, 10, b"", "")
    ledger.cut(5)
    assert ledger.fill(10, 5, b"", "") == (False, 10)
    ledger.seal(10, None)
    assert ledger.fill(10, 5, b"", "") == (False, 10)


def test_damaged_payload_is_told_with_its_block(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id, items="lines")
    ledger.fill(0, 3, b"damaged", "")
    with pytest.raises(CorruptData, match=f"run {run_id}, block 0"):
        ledger.block_at(2)
    client.delete(ledger.keys.payload)
    with pytest.raises(UnknownRun, match="payload of item 2 is gone"):
        ledger.block_at(2)


def test_cut_tiles_what_is_filled(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    ledger.fill(0, 12, b"", "")
    ledger.cut(5)
    assert chunks(ledger) == [Chunk(1, 0, 5, 0), Chunk(2, 5, 10, 5), Chunk(3, 10, 12, 10)]
    assert queued(ledger) == [1, 2, 3]
    ledger.cut(5)
    assert len(chunks(ledger)) == 3


def test_cut_goes_on_after_a_crash_with_another_size_if_need_be(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    ledger.fill(0, 2500, b"", "")
    assert ledger._scripts.call("cut", 0, 1, 3) == [3, 2500, b"filling"]
    assert ledger._scripts.call("cut", 0, 1, 3) == [3, 2500, b"filling"], "a repeated call changes nothing"
    with pytest.raises(RunIsOver, match="cannot be sealed with 2500 items: it is filling"):
        ledger.seal(2500, None)
    ledger.cut(2)
    assert [(c.start, c.stop) for c in chunks(ledger)[:5]] == [(0, 1), (1, 2), (2, 3), (3, 5), (5, 7)]
    assert sum(c.stop - c.start for c in chunks(ledger)) == 2500
    assert len(queued(ledger)) == len(members(ledger, ledger.keys.waiting)) == len(chunks(ledger))
    assert ledger.seal(2500, None) is State.RUNNING


@pytest.mark.parametrize("total", [0, 9, 11])
def test_seal_with_another_total_is_refused(client: Redis, run_id: str, total: int) -> None:
    ledger = opened(client, run_id)
    ledger.fill(0, 10, b"", "")
    ledger.cut(5)
    with pytest.raises(RunIsOver, match=f"sealed with {total} items: it is filling"):
        ledger.seal(total, None)
    assert ledger.seal(10, None) is State.RUNNING
    assert ledger.seal(10, None) is State.RUNNING, "safe to repeat"
    with pytest.raises(RunIsOver, match=f"sealed with {total} items: it is running"):
        ledger.seal(total, None)
    assert ledger.status().total == 10


def test_an_empty_pile_has_succeeded(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    ledger.cut(5)
    assert ledger.seal(0, (0, False)) is State.SUCCEEDED
    status = ledger.status()
    assert (status.total, status.done, status.failed, status.eta_seconds) == (0, 0, 0, None)
    assert status.ended_at is not None


def test_seal_after_the_end_tells_the_state(client: Redis, run_id: str) -> None:
    assert ended(client, run_id, State.COMPLETED_WITH_FAILURES).seal(2, None) is State.COMPLETED_WITH_FAILURES
    ledger = opened(client, run_id + "-2")
    ledger.abort(State.CANCELLED, "x")
    with pytest.raises(RunIsOver, match="it is cancelled"):
        ledger.seal(0, None)


def test_no_chunk_is_given_out_before_the_seal(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    ledger.fill(0, 10, b"", "")
    ledger.cut(5)
    assert not client.sismember(ledger.keys.queues, ledger.keys.queue)
    assert why_not(ledger, 1) == "not_running"
    assert ledger.tend("w").state is State.FILLING
    assert commit(ledger, 1, 0, 5).status == "over"
    with pytest.raises(RunIsOver, match=f"run {run_id} is filling"):
        ledger.retry()


# --- claim, renew, release, lease expiry


def test_claim_tells_what_is_to_do(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    assert claimed(ledger, 2, "a") == Claim(2, 5, 10, 5, False, 0, 1)
    assert chunk(ledger, 2) == Chunk(2, 5, 10, 5, deliveries=1, owner="a")
    assert members(ledger, ledger.keys.leases) == {2}
    assert members(ledger, ledger.keys.waiting) == {1}
    status = ledger.status()
    assert (status.in_flight, status.waiting, status.leased, status.workers) == (5, 1, 1, 1)
    commit(ledger, 2, 5, 2)
    assert ledger.status().in_flight == 3


def test_claim_takes_the_job_from_where_rq_put_it(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    client.lmove(ledger.keys.queue, ledger.keys.intermediate, "LEFT", "RIGHT")
    client.rpush(ledger.keys.intermediate, job_id(run_id, 2))
    assert ledger.claim(1, "w", LEASE)
    assert client.lrange(ledger.keys.intermediate, 0, -1) == [job_id(run_id, 2).encode()]


def test_why_a_claim_is_not_granted(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 20, 5)
    assert why_not(ledger, 99) == "unknown"
    claimed(ledger, 1, "a")
    assert why_not(ledger, 1, "b") == "held"
    ledger.blame_failure(1, "a", 4, BOOM, 60.0)
    (late,) = members(ledger, ledger.keys.delayed)
    assert why_not(ledger, late) == "delayed"
    claimed(ledger, 2, "a")
    commit(ledger, 2, 5, 5)
    assert why_not(ledger, 2) == "done"
    ledger.pause(True)
    assert why_not(ledger, 3) == "paused"
    ledger.pause(False)
    assert ledger.claim(3, "b", LEASE)
    ledger.abort(State.CANCELLED, "x")
    assert why_not(ledger, 4) == "not_running"


def test_a_claim_whose_reply_was_lost_may_be_asked_for_again(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "a")
    again = claimed(ledger, 1, "a")
    assert (again.careful, again.deliveries) == (True, 2)
    assert chunk(ledger, 1).losses == 0


def test_a_lease_expires_and_its_chunk_is_redone_carefully(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5)
    claimed(ledger, 1, "a", lease=0.05)
    assert ledger.tend().leased == 1
    eventually(lambda: ledger.tend().waiting == 1, timeout=2)
    assert chunk(ledger, 1) == Chunk(1, 0, 5, 0, careful=1, deliveries=1)
    assert queued(ledger) == [1]
    again = claimed(ledger, 1, "b")
    assert (again.careful, again.deliveries, again.stop) == (True, 2, 5)


def test_an_expired_lease_may_be_taken_before_anybody_tends(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "a", lease=0.02)
    claim = eventually(lambda: ledger.claim(1, "b", LEASE), timeout=2)
    assert claim is not None
    assert claim.careful, "a was lost while it worked on it"
    assert ledger.renew(1, "a", LEASE)[0] is False


def test_renew_extends_the_owner_s_lease_only(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "a", lease=0.02)
    eventually(lambda: ledger.status().leased == 1 and client.zscore(ledger.keys.leases, "1") is not None)
    assert ledger.renew(1, "b", LEASE) == (False, State.RUNNING, False)
    assert ledger.renew(1, "a", LEASE) == (True, State.RUNNING, False), "expired, but nobody took it"
    assert ledger.tend().leased == 1
    assert ledger.renew(2, "a", LEASE) == (False, State.RUNNING, False), "waiting"
    assert ledger.renew(99, "a", LEASE) == (False, State.RUNNING, False), "unknown"
    ledger.pause(True)
    assert ledger.renew(1, "a", LEASE) == (True, State.RUNNING, True)
    ledger.abort(State.FAILED, "x")
    assert ledger.renew(1, "a", LEASE) == (False, State.FAILED, False)


def test_release_hands_the_rest_back_to_the_front(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 15, 5)
    claimed(ledger, 2, "a")
    commit(ledger, 2, 5, 2)
    assert not ledger.release(2, "b", "not mine")
    assert not ledger.release(1, "a", "not claimed")
    assert not ledger.release(99, "a", "unknown")
    assert ledger.release(2, "a", "SIGTERM")
    assert queued(ledger) == [2, 1, 3]
    assert chunk(ledger, 2) == Chunk(2, 5, 10, 7, deliveries=1)
    assert not ledger.release(2, "a", "again")
    assert ("release", "a", "2", "SIGTERM") in events(ledger)
    assert claimed(ledger, 2, "b").next == 7
    assert ledger.release(2, "b", "horse died", careful=True)
    assert chunk(ledger, 2).careful == 1
    assert ledger.status().duplicates == 0


def test_a_chunk_that_is_done_is_not_handed_back(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "a")
    commit(ledger, 1, 0, 5)
    assert not ledger.release(1, "a", "late")
    assert ledger.renew(1, "a", LEASE) == (False, State.RUNNING, False)
    assert ledger.blame_crash(1, "a", 4, BOOM, 1) is None
    assert ledger.reap("a") == 0
    assert queued(ledger) == [2]
    assert members(ledger, ledger.keys.waiting) == {2}


def test_reap_releases_all_that_a_dead_worker_held(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 4, 1)
    for number, worker in ((1, "a"), (2, "b"), (3, "a")):
        ledger.join(worker)
        claimed(ledger, number, worker)
    client.sadd(ledger.keys.rq_workers, "rq:worker:a")
    client.sadd(ledger.keys.all_rq_workers, "rq:worker:a")
    client.hset("rq:worker:a", "pid", 1)
    client.sadd("rq:worker:a:executions", "x")
    assert ledger.reap("a") == 2
    assert members(ledger, ledger.keys.leases) == {2}
    assert {1, 3} <= set(queued(ledger)[:2])
    assert (chunk(ledger, 1).careful, chunk(ledger, 1).losses, chunk(ledger, 1).owner) == (1, 0, "")
    assert client.zrange(ledger.keys.workers, 0, -1) == [b"b"]
    assert client.exists("rq:worker:a", "rq:worker:a:executions", ledger.keys.all_rq_workers) == 0
    assert ledger.reap("a") == 0


def test_reap_puts_back_what_a_dead_worker_had_popped(client: Redis, run_id: str) -> None:
    """It died before it could claim; others are not to wait for it until the queue is empty."""
    ledger = sealed(client, run_id, 4, 1)
    popped = client.lmove(ledger.keys.queue, ledger.keys.intermediate, "LEFT", "LEFT")
    client.lpush(ledger.keys.intermediate, "somebody-else-s", job_id(run_id, 77))
    assert popped == job_id(run_id, 1).encode()
    assert queued(ledger) == [2, 3, 4]
    assert ledger.reap("a") == 1
    assert queued(ledger) == [1, 2, 3, 4]
    assert client.llen(ledger.keys.intermediate) == 0
    claimed(ledger, 1, "b")
    client.rpush(ledger.keys.intermediate, job_id(run_id, 1))  # a second delivery of what is held
    assert ledger.reap("a") == 0
    assert queued(ledger) == [2, 3, 4]


# --- commit


def test_a_server_that_restarts_between_loading_a_script_and_running_it(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger)
    load, restarts = client.script_load, iter([True, True, False])

    def load_then_forget(source: str) -> Any:
        loaded = load(source)
        if next(restarts):
            client.script_flush()
        return loaded

    client.script_flush()
    monkeypatch.setattr(client, "script_load", load_then_forget)
    said: list[str] = []
    patience = Patience(10.0, client, said.append, wait=lambda seconds: None)
    assert patience(lambda: commit(ledger, 1, 0, 5)).status == "recorded"
    assert "No matching script" in said[0]


def test_commit_records_each_item_once(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "a")
    reply = commit(ledger, 1, 0, 3, say="first")
    assert (reply.status, reply.next, reply.stop, reply.state) == ("recorded", 3, 5, State.RUNNING)
    for start, count, duplicates in ((0, 3, 3), (1, 4, 2), (2, 1, 1), (4, 1, 0), (3, 3, 1), (0, 9, 7)):
        before = ledger.status().duplicates
        reply = commit(ledger, 1, start, count, say="late")
        assert (reply.status, reply.next, reply.stop) == ("refused", 3, 5), (start, count)
        assert ledger.status().duplicates - before == duplicates, (start, count)
    assert outcomes(client, ledger.keys.results) == [(i, [i, "first"]) for i in range(3)]
    assert commit(ledger, 1, 3, 2).status == "recorded"
    assert why_not(ledger, 1) == "done"
    assert not client.exists(ledger.keys.job_prefix + "1")
    assert members(ledger, ledger.keys.leases) == set()
    assert commit(ledger, 1, 3, 2).status == "refused"


def test_a_zombie_s_commit_counts_if_it_is_the_first(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5)
    claimed(ledger, 1, "zombie")
    set_all_to_the_past(ledger, ledger.keys.leases)
    ledger.tend()
    assert commit(ledger, 1, 0, 2, say="zombie").status == "recorded"
    assert claimed(ledger, 1, "b").next == 2
    assert commit(ledger, 1, 2, 2, say="zombie").status == "recorded"
    reply = commit(ledger, 1, 2, 3, say="b")
    assert (reply.status, reply.next, reply.stop) == ("refused", 4, 5)
    assert commit(ledger, 1, 4, 1, say="b").state is State.SUCCEEDED
    assert [say for _, (_, say) in outcomes(client, ledger.keys.results)] == ["zombie"] * 4 + ["b"]
    assert ledger.status().duplicates == 2


def test_a_zombie_s_commit_takes_a_waiting_chunk_from_the_queue(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "zombie")
    ledger.release(1, "zombie", "x")
    commit(ledger, 1, 0, 5)
    assert members(ledger, ledger.keys.waiting) == {2}
    assert not client.exists(ledger.keys.job_prefix + "1")


def test_a_zombie_s_commit_of_an_item_that_waits_for_its_next_attempt(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 2, 1)
    claimed(ledger, 1, "a")
    assert ledger.blame_failure(1, "a", 0, BOOM, 60.0) is False
    assert members(ledger, ledger.keys.delayed) == {1}
    assert not client.exists(ledger.keys.job_prefix + "1")
    assert commit(ledger, 1, 0, 1).status == "recorded"
    assert members(ledger, ledger.keys.delayed) == set()
    assert commit(ledger, 2, 1, 1).state is State.SUCCEEDED


def test_failures_and_retries_beside_results(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1)
    reply = commit(ledger, 1, 0, 5, failing=[1, 2], retries={4: 0.0})
    assert reply.status == "recorded"
    assert (done(ledger), failed(ledger)) == ([0, 3], [1, 2])
    assert [to_failure(f, "") for _, f in outcomes(client, ledger.keys.failures)] == [BOOM, BOOM]
    (again,) = members(ledger, ledger.keys.delayed)
    assert chunk(ledger, again) == Chunk(again, 4, 5, 4, attempt=1)
    assert not client.exists(ledger.keys.job_prefix + str(again))
    status = ledger.status()
    assert (status.done, status.failed, status.delayed) == (2, 2, 1)
    assert eventually(lambda: ledger.tend().delayed == 0)
    assert queued(ledger) == [2, again]
    assert claimed(ledger, again).attempt == 1
    assert commit(ledger, again, 4, 1, retries={4: 3600.0}).next == 5
    (third,) = members(ledger, ledger.keys.delayed)
    assert chunk(ledger, third).attempt == 2
    commit(ledger, 2, 5, 5)
    assert ledger.tend().state is State.RUNNING
    assert ledger.tend().delayed == 1, "it is not due"
    set_all_to_the_past(ledger, ledger.keys.delayed)
    ledger.tend()
    assert commit(ledger, third, 4, 1).state is State.COMPLETED_WITH_FAILURES


def test_a_commit_of_failures_only_and_one_of_retries_only(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    assert commit(ledger, 1, 0, 5, failing=range(5)).status == "recorded"
    assert commit(ledger, 2, 5, 5, retries=dict.fromkeys(range(5, 10), 9.0)).status == "recorded"
    assert client.xlen(ledger.keys.results) == 0
    assert client.xlen(ledger.keys.failures) == 1
    assert ledger.status().delayed == 5
    assert ledger.status().state is State.RUNNING


def test_a_commit_that_does_not_account_for_its_items_changes_nothing(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    spans: list[Span] = [(0, 2)]
    for retries in ({}, {2: 0.0, 3: 0.0}):
        with pytest.raises(ResponseError, match="commit of 3 items accounts for another number"):
            ledger.commit(1, 0, 3, results=(spans, b"x"), retries=retries)
    assert chunk(ledger, 1) == Chunk(1, 0, 5, 0)
    assert client.xlen(ledger.keys.results) == 0
    assert ledger.status().delayed == 0


def test_careful_is_as_the_commit_says_and_one_again_at_each_claim(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1, "a")
    ledger.release(1, "a", "horse died", careful=True)
    assert claimed(ledger, 1, "a").careful
    commit(ledger, 1, 0, 1, careful=2)
    assert chunk(ledger, 1).careful == 2
    ledger.release(1, "a", "SIGTERM")
    assert claimed(ledger, 1, "b").careful
    assert chunk(ledger, 1).careful == 1
    commit(ledger, 1, 1, 1, careful=0)
    ledger.release(1, "b", "SIGTERM")
    assert not claimed(ledger, 1, "b").careful


def test_paused_is_told_by_commit_and_does_not_hinder_it(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1)
    ledger.pause(True)
    reply = commit(ledger, 1, 0, 5)
    assert (reply.status, reply.paused) == ("recorded", True)
    assert ledger.tend().paused


def test_a_commit_to_a_run_that_is_over(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1)
    ledger.abort(State.CANCELLED, "x")
    reply = commit(ledger, 1, 0, 5)
    assert (reply.status, reply.state) == ("over", State.CANCELLED)
    assert done(ledger) == []
    assert commit(ledger, 99, 0, 5).status == "over"


def test_commit_of_an_unknown_chunk(client: Redis, run_id: str) -> None:
    reply = commit(sealed(client, run_id), 99, 0, 5)
    assert (reply.status, reply.state) == ("over", State.RUNNING)


def test_meta_is_kept_with_each_entry(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    commit(ledger, 1, 0, 5, failing=[0])
    for stream in (ledger.keys.results, ledger.keys.failures):
        assert [fields[b"m"] for fields in entries(ledger, stream)] == [b"meta"]


# --- the verdict


def test_the_run_ends_with_its_last_item(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    assert commit(ledger, 2, 5, 5).state is State.RUNNING
    assert commit(ledger, 1, 0, 4).state is State.RUNNING
    assert commit(ledger, 1, 4, 1).state is State.SUCCEEDED
    status = ledger.status()
    assert (status.state, status.done, status.failed, status.eta_seconds) == (State.SUCCEEDED, 10, 0, None)
    assert ledger.tend("w").state is State.SUCCEEDED
    assert client.zcard(ledger.keys.workers) == 0, "a worker that comes late makes no key"


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [
        (None, 10),
        ((0, False), 0),
        ((2, False), 2),
        ((10, False), 10),
        ((0, True), 0),
        ((19.9, True), 1),
        ((20, True), 2),
        ((100, True), 10),
    ],
)
def test_failure_budget(client: Redis, run_id: str, budget: tuple[float, bool] | None, allowed: int) -> None:
    ledger = sealed(client, run_id, 10, 1, budget=budget)
    for index in range(10):
        reply = commit(ledger, index + 1, index, 1, failing=[index])
        if index + 1 > allowed:
            assert reply.state is State.FAILED
            break
        assert reply.state is (State.RUNNING if index < 9 else State.COMPLETED_WITH_FAILURES)
    status = ledger.status()
    assert status.failed == min(allowed + 1, 10)
    if status.state is State.FAILED:
        assert status.reason == f"{allowed + 1} items failed, more than --max-failures allows ({allowed})"
        assert (status.leased, status.delayed) == (0, 0)


@pytest.mark.parametrize(("percent", "total", "allowed"), [(0.57, 10_000, 57), (2.3, 3000, 69), (1 / 3, 300, 1)])
def test_percentages_do_not_lose_an_item_to_rounding(
    client: Redis, run_id: str, percent: float, total: int, allowed: int
) -> None:
    ledger = sealed(client, run_id, total, total, budget=(percent, True))
    assert client.hget(ledger.keys.run, "failure_budget") == b"%d" % allowed


def test_the_budget_ends_the_run_in_mid_chunk_and_keeps_what_is_open(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 10, 5, budget=(0, False))
    claimed(ledger, 2, "other")
    claimed(ledger, 1)
    reply = commit(ledger, 1, 0, 3, failing=[1], retries={2: 60.0})
    assert (reply.status, reply.state, reply.next) == ("recorded", State.FAILED, 3)
    assert members(ledger, ledger.keys.waiting) == {1, 2, 3}
    assert ledger.retry() == 1
    assert {c.id: (c.next, c.stop) for c in chunks(ledger)} == {1: (3, 5), 2: (5, 10), 3: (2, 3), 4: (1, 2)}
    assert sorted(queued(ledger)) == [1, 2, 3, 4]
    assert all(chunk(ledger, number).owner == "" for number in range(1, 5))
    assert commit(ledger, 2, 5, 5, say="zombie").status == "recorded", "it did work on it"
    for number, start, count in ((1, 3, 2), (3, 2, 1), (4, 1, 1)):
        reply = commit(ledger, number, start, count)
    assert reply.state is State.SUCCEEDED
    assert done(ledger) == list(range(10))


# --- blame


@pytest.mark.parametrize("index", [0, 2, 4])
def test_a_crash_puts_its_item_alone_and_the_rest_back(client: Redis, run_id: str, index: int) -> None:
    ledger = sealed(client, run_id, 5, 5)
    claimed(ledger, 1, "a")
    assert ledger.blame_crash(1, "a", index, BOOM, 3) is False
    open_chunks = sorted((c.next, c.stop, c.careful, c.crashes) for c in chunks(ledger) if c.next < c.stop)
    expected = [(0, index, 0, 0), (index, index + 1, 1, 1), (index + 1, 5, 0, 0)]
    assert open_chunks == [part for part in expected if part[0] < part[1]]
    assert members(ledger, ledger.keys.leases) == set()
    assert sorted(queued(ledger)) == sorted(c.id for c in chunks(ledger) if c.next < c.stop)
    assert chunk(ledger, queued(ledger)[0]).start == index, "the item in question is next"
    assert ("crash", "a", "1", str(index)) in events(ledger)


def test_the_parts_of_a_chunk_keep_its_attempt(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5)
    store(ledger, replace(chunk(ledger, 1), attempt=2))
    claimed(ledger, 1, "a")
    ledger.blame_crash(1, "a", 2, BOOM, 3)
    assert {c.attempt for c in chunks(ledger)} == {2}


def test_crashes_of_one_item_up_to_the_limit(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5)
    claimed(ledger, 1, "w")
    commit(ledger, 1, 0, 1)
    failure = Failure("Crash", "killed by SIGSEGV", attempt=1)
    for crash in (1, 2, 3):
        number = queued(ledger)[0] if crash > 1 else 1
        if crash > 1:
            assert claimed(ledger, number).careful
        assert ledger.blame_crash(number, "w", 2, failure, 3) is (crash == 3)
    assert failed(ledger) == [2]
    assert to_failure(outcomes(client, ledger.keys.failures)[0][1], "") == failure
    assert sorted((c.next, c.stop) for c in chunks(ledger) if c.next < c.stop) == [(1, 2), (3, 5)]
    for there in chunks(ledger):
        if there.next < there.stop:
            reply = commit(ledger, there.id, there.next, there.stop - there.next)
    assert reply.state is State.COMPLETED_WITH_FAILURES


def test_a_zombie_horse_commits_what_it_had_before_the_item_it_is_blamed_for(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 10, 10)
    claimed(ledger, 1, "a")
    ledger.blame_crash(1, "a", 4, BOOM, 3)
    reply = commit(ledger, 1, 0, 6)
    assert (reply.status, reply.next, reply.stop) == ("refused", 0, 4)
    assert commit(ledger, 1, 0, 4).status == "recorded"
    assert commit(ledger, 1, 4, 2).status == "refused"
    assert done(ledger) == [0, 1, 2, 3]


@pytest.mark.parametrize("limit", [1, 2])
def test_the_last_item_of_a_run_crashes(client: Redis, run_id: str, limit: int) -> None:
    ledger = sealed(client, run_id, 1, 1)
    for _ in range(limit):
        claimed(ledger, 1, "w")
        ledger.blame_crash(1, "w", 0, BOOM, limit)
    assert ledger.status().state is State.COMPLETED_WITH_FAILURES
    assert not queued(ledger)


def test_blame_runs_the_budget_out(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5, budget=(0, False))
    claimed(ledger, 1, "w")
    assert ledger.blame_failure(1, "w", 2, BOOM, None) is True
    assert ledger.status().state is State.FAILED
    assert not any(client.exists(ledger.keys.job_prefix + str(c.id)) for c in chunks(ledger))


def test_an_item_that_had_to_be_killed_is_tried_again_after_a_delay(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5)
    claimed(ledger, 1, "w")
    assert ledger.blame_failure(1, "w", 2, BOOM, 3600.0) is False
    (late,) = members(ledger, ledger.keys.delayed)
    assert (chunk(ledger, late).start, chunk(ledger, late).stop, chunk(ledger, late).attempt) == (2, 3, 1)
    assert (chunk(ledger, late).crashes, failed(ledger)) == (0, [])
    assert {(c.next, c.stop) for c in chunks(ledger) if c.id in queued(ledger)} == {(0, 2), (3, 5)}
    assert ledger.tend().delayed == 1
    set_all_to_the_past(ledger, ledger.keys.delayed)
    assert ledger.tend().delayed == 0
    claim = claimed(ledger, late, "w")
    assert (claim.attempt, claim.careful) == (1, True)
    assert ledger.blame_failure(late, "w", 2, BOOM, None) is True
    assert failed(ledger) == [2]


def test_who_may_blame(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)

    def refused(worker: str, index: int, number: int = 1) -> bool:
        crash = ledger.blame_crash(number, worker, index, BOOM, 1)
        return crash is None and ledger.blame_failure(number, worker, index, BOOM, None) is None

    assert refused("a", 0), "not claimed"
    claimed(ledger, 1, "a")
    commit(ledger, 1, 0, 2)
    assert refused("b", 2), "not its own"
    assert refused("a", 1), "recorded already"
    assert refused("a", 5), "of another chunk"
    assert refused("a", 2, 99), "unknown"
    set_all_to_the_past(ledger, ledger.keys.leases)
    ledger.tend()
    assert refused("a", 2), "taken back"
    claimed(ledger, 1, "a")
    ledger.abort(State.FAILED, "x")
    assert refused("a", 2), "over"
    assert failed(ledger) == []


# --- tend


def test_losses_are_charged_to_an_item_that_was_alone_in_progress(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5, loss_limit=3)
    lost = 0
    while not failed(ledger):
        number = queued(ledger)[0]
        claimed(ledger, number, f"w{lost}")
        set_all_to_the_past(ledger, ledger.keys.leases)
        ledger.tend()
        lost += 1
        assert lost < 10
    assert lost == 4, "one to be careful, then the limit of three"
    assert failed(ledger) == [0]
    failure = to_failure(outcomes(client, ledger.keys.failures)[0][1], "")
    assert failure.type == "WorkerLost"
    assert [(c.next, c.stop, c.losses) for c in chunks(ledger) if c.next < c.stop] == [(1, 5, 0)]
    commit(ledger, queued(ledger)[0], 1, 4)
    assert ledger.status().state is State.COMPLETED_WITH_FAILURES


def test_losses_must_be_in_a_row(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 3, 3, loss_limit=2)
    store(ledger, replace(chunk(ledger, 1), careful=1, losses=1))
    claimed(ledger, 1, "w")
    commit(ledger, 1, 0, 1, careful=1)
    set_all_to_the_past(ledger, ledger.keys.leases)
    ledger.tend()
    assert failed(ledger) == []
    assert {(c.next, c.stop): c.losses for c in chunks(ledger) if c.next < c.stop} == {(1, 2): 1, (2, 3): 0}


def test_a_loss_in_the_middle_of_many_items_is_charged_to_none(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 100, 100, loss_limit=1)
    for expected in (0, 10, 20):
        claimed(ledger, 1, "w")
        commit(ledger, 1, expected, 10)
        set_all_to_the_past(ledger, ledger.keys.leases)
        ledger.tend()
        assert (chunk(ledger, 1).careful, chunk(ledger, 1).losses) == (1, 0)
    assert [c.id for c in chunks(ledger)] == [1]


def test_a_loss_after_a_first_careful_commit_is_charged_to_none(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 5, 5, loss_limit=1)
    claimed(ledger, 1, "w")
    commit(ledger, 1, 0, 1, careful=2)
    set_all_to_the_past(ledger, ledger.keys.leases)
    ledger.tend()
    assert failed(ledger) == []
    assert chunk(ledger, 1) == Chunk(1, 0, 5, 1, careful=1, deliveries=1)


def test_the_last_item_of_a_chunk_is_alone(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 2, 2, loss_limit=1, budget=(0, False))
    claimed(ledger, 1, "w")
    commit(ledger, 1, 0, 1)
    set_all_to_the_past(ledger, ledger.keys.leases)
    assert ledger.tend().state is State.FAILED
    assert failed(ledger) == [1]


def test_tend_takes_back_no_more_than_it_is_told(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 6, 2)
    for number in (1, 2, 3):
        claimed(ledger, number, "w")
    set_all_to_the_past(ledger, ledger.keys.leases)
    assert [ledger.tend(most=2).leased for _ in range(2)] == [1, 0]


def test_a_chunk_that_the_queue_has_lost_is_put_back(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    client.delete(ledger.keys.queue, ledger.keys.job_prefix + "1")
    ledger.tend()
    assert queued(ledger) == [], "a worker may be about to claim it"
    eventually(lambda: [ledger.tend(), *queued(ledger)][1:], timeout=5)
    assert queued(ledger) == [1, 2]
    assert Job.fetch(job_id(run_id, 1), connection=client, serializer=JSONSerializer).id == job_id(run_id, 1)
    ledger.tend()
    assert queued(ledger) == [1, 2]


def test_a_chunk_whose_claim_was_refused_for_a_pause_comes_back(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    ledger.pause(True)
    for number in (1, 2):
        client.lpop(ledger.keys.queue)
        assert why_not(ledger, number) == "paused"
    ledger.pause(False)
    set_all_to_the_past(ledger, ledger.keys.waiting)
    ledger.tend()
    assert queued(ledger) == [1, 2]


def test_tend_sees_rq_suspend_as_a_pause(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    assert not ledger.tend("w").paused
    client.set(ledger.keys.suspended, 1)
    assert ledger.tend("w").paused
    client.delete(ledger.keys.suspended)
    ledger.pause(True)
    assert ledger.tend("w").paused
    assert ledger.pause(False) is State.RUNNING
    assert not ledger.tend("w").paused


# --- abort, pause, retry


def test_abort_keeps_what_is_recorded(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1)
    commit(ledger, 1, 0, 2)
    assert ledger.abort(State.CANCELLED, "not needed") is State.CANCELLED
    status = ledger.status()
    assert (status.state, status.reason, status.done) == (State.CANCELLED, "not needed", 2)
    assert (status.waiting, status.leased, status.delayed, status.in_flight) == (2, 0, 0, 0)
    assert not queued(ledger)
    assert not [key for key in keys_of(client, run_id) if key.startswith("rq:")]
    with pytest.raises(RunIsOver, match="is cancelled"):
        ledger.retry()


@pytest.mark.parametrize("state", NAMES_OF_ENDS)
def test_a_run_that_is_over_is_not_changed(client: Redis, run_id: str, state: State) -> None:
    ledger = ended(client, run_id, state)
    client.delete(ledger.keys.workers)
    before = {key: client.dump(key) for key in keys_of(client, run_id)}
    assert ledger.abort(State.FAILED, "late") is state
    assert ledger.pause(True) is state
    assert ledger.join("late") is state
    assert ledger.leave("late", "x") is state
    assert ledger.renew(1, "w", LEASE) == (False, state, False)
    assert ledger.tend("late").state is state
    assert ledger.reap("w") == 0
    assert not ledger.release(1, "w", "late")
    assert ledger.fill(2, 1, b"", "") == (False, 2)
    ledger.cut(1)
    assert ledger.claim(1, "w", LEASE) is None
    assert commit(ledger, 1, 0, 1).status == "over"
    assert {key: client.dump(key) for key in keys_of(client, run_id)} == before


def test_a_failed_run_may_be_cancelled_and_no_other(client: Redis, run_id: str) -> None:
    for state in NAMES_OF_ENDS:
        ledger = ended(client, f"{run_id}-{state[:2]}", state)
        expected = State.CANCELLED if state in (State.FAILED, State.CANCELLED) else state
        assert ledger.abort(State.CANCELLED, "x") is expected


def test_retry_opens_the_failed_items_again(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 10, 5)
    commit(ledger, 1, 0, 5, failing=[0, 1, 4])
    commit(ledger, 2, 5, 5, failing=[9])
    assert ledger.status().state is State.COMPLETED_WITH_FAILURES
    assert ledger.retry() == 4
    status = ledger.status()
    assert (status.state, status.done, status.failed, status.reason) == (State.RUNNING, 6, 0, "")
    assert status.ended_at is None
    assert client.xlen(ledger.keys.failures) == 0
    assert [(c.start, c.stop, c.attempt) for c in chunks(ledger)[2:]] == [(0, 2, 0), (4, 5, 0), (9, 10, 0)]
    assert queued(ledger) == [3, 4, 5]
    assert client.sismember(ledger.keys.queues, ledger.keys.queue)
    assert keys_without_lifetime(client, run_id) == keys_of(client, run_id)
    assert commit(ledger, 1, 0, 5).status == "refused", "a zombie of the first time"
    for there in chunks(ledger)[2:]:
        reply = commit(ledger, there.id, there.start, there.stop - there.start)
    assert reply.state is State.SUCCEEDED
    assert done(ledger) == list(range(10))
    assert ledger.retry() == 0
    assert ledger.status().state is State.SUCCEEDED


def test_retry_while_the_run_goes_on(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 10, 5)
    claimed(ledger, 2, "w")
    commit(ledger, 1, 0, 5, failing=[3])
    assert ledger.retry() == 1
    assert ledger.retry() == 0
    assert chunk(ledger, 2).owner == "w"
    assert members(ledger, ledger.keys.leases) == {2}
    assert commit(ledger, 2, 5, 5).state is State.RUNNING
    assert commit(ledger, 3, 3, 1).state is State.SUCCEEDED


def test_retry_of_more_failures_than_are_read_at_once(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 450, 1)
    for index in range(450):
        commit(ledger, index + 1, index, 1, failing=[index])
    assert ledger.retry() == 450
    assert sorted(c.start for c in chunks(ledger) if c.next < c.stop) == list(range(450))


def test_retry_after_an_abort_goes_on_with_what_was_open(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 15, 5)
    claimed(ledger, 1, "w")
    commit(ledger, 1, 0, 2, retries={1: 3600.0})
    ledger.abort(State.FAILED, "the handler cannot be imported")
    # RQ's bookkeeping of a worker that did not know yet.
    client.hset(ledger.keys.job_prefix + "2", "status", "started")
    assert ledger.retry() == 0
    assert sorted(queued(ledger)) == [1, 2, 3, 4]
    assert members(ledger, ledger.keys.waiting) == {1, 2, 3, 4}
    job = Job.fetch(job_id(run_id, 2), connection=client, serializer=JSONSerializer)
    assert job.func_name == "piecework_worker.chunk.drain"
    for number, start, count in ((1, 2, 3), (2, 5, 5), (3, 10, 5), (4, 1, 1)):
        reply = commit(ledger, number, start, count)
    assert reply.state is State.SUCCEEDED


def test_a_run_that_failed_before_its_seal_cannot_be_retried(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    ledger.abort(State.FAILED, "x")
    with pytest.raises(RunIsOver, match="is failed and was never sealed"):
        ledger.retry()


# --- join, leave, status, events


def test_workers_come_and_go(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id)
    assert ledger.join("a") is State.FILLING
    assert ledger.join("b") is State.FILLING
    assert ledger.status().workers == 2
    ledger.tend("c")
    assert ledger.status().workers == 3
    assert ledger.leave("a", "SIGTERM") is State.FILLING
    assert ledger.status().workers == 2
    client.zadd(ledger.keys.workers, {"b": time.time() * 1000 - 31_000})
    assert ledger.status().workers == 1, "not seen for two leases"
    assert ledger.status(lease_seconds=60).workers == 2
    assert [event for event in events(ledger) if event[0] in ("join", "leave")] == [
        ("join", "a", "", ""),
        ("join", "b", "", ""),
        ("leave", "a", "", "SIGTERM"),
    ]


def test_status_rate_and_estimate(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 100, 100)
    assert (ledger.status().items_per_second, ledger.status().eta_seconds) == (0.0, None)
    started = int(client.hget(ledger.keys.run, "started_ms") or 0)
    client.hset(ledger.keys.run, "started_ms", started - 10_000)
    commit(ledger, 1, 0, 20)
    status = ledger.status()
    assert 10 <= status.elapsed_seconds < 12
    assert 1.6 < status.items_per_second <= 2.0
    assert 40 <= (status.eta_seconds or 0) < 50
    assert status.created_at == pytest.approx(time.time(), abs=5)
    commit(ledger, 1, 20, 80)
    over = ledger.status()
    assert over.eta_seconds is None
    assert over.ended_at == pytest.approx(time.time(), abs=5)


def test_status_as_json_has_what_is_promised(client: Redis, run_id: str) -> None:
    import msgspec

    status = json.loads(msgspec.json.encode(sealed(client, run_id).status()))
    promised = "run state paused sealed total done failed duplicates in_flight workers items_per_second"
    assert {*promised.split(), "elapsed_seconds", "eta_seconds"} <= set(status)
    assert (status["run"], status["state"], status["total"]) == (run_id, "running", 10)


def test_events_are_capped(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    for _ in range(2500):
        ledger.join("w")
    assert 2000 <= client.xlen(ledger.keys.events) < 2200


def test_a_worker_s_name_may_be_anything(client: Redis, run_id: str) -> None:
    ledger, worker = sealed(client, run_id), "a worker 1 2\n3 ü"
    claimed(ledger, 1, worker)
    assert ledger.renew(1, worker, LEASE)[0]
    assert ledger.release(1, worker, "x\ny")


# --- large numbers


def test_indices_beyond_what_a_float_prints(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, BIG, BIG // 4 + 7, budget=(10, True))
    assert client.hget(ledger.keys.run, "failure_budget") == b"100000000000000"
    *_, last = chunks(ledger)
    assert (last.id, last.start, last.stop) == (4, 3 * (BIG // 4 + 7), BIG)
    claim = claimed(ledger, 4, "w")
    assert (claim.start, claim.stop, claim.next) == (last.start, BIG, last.start)
    skipped = BIG - last.start - 100
    reply = ledger.commit(4, last.start, skipped, results=([(last.start, skipped)], b"x"))
    assert (reply.status, reply.next, reply.stop) == ("recorded", BIG - 100, BIG)
    assert ledger.status().done == skipped
    assert ledger.status().in_flight == 100
    assert commit(ledger, 4, BIG - 101, 1).status == "refused"
    reply = commit(ledger, 4, BIG - 100, 10, failing=[BIG - 99], retries={BIG - 98: 0.0, BIG - 97: 3600.0})
    assert reply.next == BIG - 90
    assert failed(ledger) == [BIG - 99]
    assert {(c.start, c.stop) for c in chunks(ledger)[4:]} == {(BIG - 98, BIG - 97), (BIG - 97, BIG - 96)}
    assert ledger.blame_crash(4, "w", BIG - 50, BOOM, 2) is False
    alone = chunk(ledger, queued(ledger)[0])
    assert (alone.start, alone.stop) == (BIG - 50, BIG - 49)
    claimed(ledger, alone.id, "w")
    assert ledger.blame_crash(alone.id, "w", BIG - 50, BOOM, 2) is True
    assert failed(ledger) == [BIG - 99, BIG - 50]
    assert ledger.retry() == 2
    assert {(c.start, c.stop) for c in chunks(ledger)[-2:]} == {(BIG - 99, BIG - 98), (BIG - 50, BIG - 49)}
    (rest,) = [c for c in chunks(ledger) if c.stop == BIG and c.next < BIG]
    claimed(ledger, rest.id, "w")
    store(ledger, replace(chunk(ledger, rest.id), careful=1))
    set_all_to_the_past(ledger, ledger.keys.leases)
    ledger.tend()
    assert (BIG - 49, BIG - 48) in {(c.start, c.stop) for c in chunks(ledger)}
    assert (BIG - 48, BIG) in {(c.start, c.stop) for c in chunks(ledger)}


def test_payload_beyond_what_a_float_prints(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id, items="lines")
    assert ledger.fill(0, BIG, pack(["first"]), "") == (True, BIG)
    assert ledger.fill(BIG, 1, pack(["second"]), "") == (True, BIG + 1)
    assert ledger.fill(BIG + 1, 2, pack(["third", "fourth"]), "") == (True, BIG + 3)
    assert ledger.block_at(BIG) == (BIG, ["second"])
    assert ledger.block_at(BIG + 2) == (BIG + 1, ["third", "fourth"])


def test_a_range_of_a_thousand_million_costs_nothing(client: Redis, run_id: str) -> None:
    begun = time.monotonic()
    sealed(client, run_id, 10**9, 10**9 // 16)
    assert time.monotonic() - begun < 1.0
    assert sum(client.memory_usage(key) or 0 for key in keys_of(client, run_id)) < 100_000


# --- keys


def test_a_run_that_is_being_filled_has_a_lifetime(client: Redis, run_id: str) -> None:
    ledger = opened(client, run_id, keep=1000)

    def all_expire() -> bool:
        return all(900 < client.ttl(key) <= 1000 for key in keys_of(client, run_id))

    assert all_expire()
    ledger.fill(0, 5, b"x", "")
    ledger.fill(5, 5, b"x", "")
    assert all_expire()
    ledger.join("waits for the seal")
    assert all_expire()
    client.delete(ledger.keys.workers)
    ledger.tend("waits for the seal")
    assert all_expire()
    client.sadd(ledger.keys.rq_workers, "rq:worker:w")
    ledger.tend("waits for the seal")
    assert all_expire()
    ledger.cut(2)
    assert all_expire()
    ledger.pause(True)
    assert all_expire()
    for key in keys_of(client, run_id):
        client.expire(key, 500)
    ledger.fill(10, 1, b"", "")
    assert client.ttl(ledger.keys.run) == 500, "refused: no change"
    ledger.abort(State.FAILED, "x")
    assert all_expire()


def test_a_running_run_has_none(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 10, 2, keep=1000)
    assert client.exists(ledger.keys.job_prefix + "1")
    assert keys_without_lifetime(client, run_id) == keys_of(client, run_id)
    claimed(ledger, 1)
    commit(ledger, 1, 0, 2, failing=[0], retries={1: 0.0})
    eventually(lambda: ledger.tend("w").delayed == 0)
    assert keys_without_lifetime(client, run_id) == keys_of(client, run_id)


@pytest.mark.parametrize("state", NAMES_OF_ENDS)
def test_the_end_gives_all_keys_a_lifetime(client: Redis, run_id: str, state: State) -> None:
    ended(client, run_id, state)
    keys = keys_of(client, run_id)
    assert keys
    assert all(604_000 < client.ttl(key) <= 604_800 for key in keys)
    assert not client.smembers(run_keys(run_id).queues)


def test_keys_do_expire_and_the_index_forgets(client: Redis, run_id: str) -> None:
    names = [f"{run_id}-{i}" for i in range(3)]
    for name in names:
        sealed(client, name, 1, 1, keep=1 if name == names[1] else 1000)
        client.zadd(RUNS, {name: names.index(name)})
    assert runs(client) == names
    Ledger(client, names[1]).abort(State.CANCELLED, "x")
    eventually(lambda: not keys_of(client, names[1]), timeout=5)
    assert runs(client) == [names[0], names[2]]
    assert client.zcard(RUNS) == 2
    Ledger(client, names[0]).delete()
    assert runs(client) == [names[2]]


def test_delete_leaves_nothing_whatever_goes_on(client: Redis, run_id: str) -> None:
    other = sealed(client, f"{run_id}-1")
    theirs = keys_of(client, other.run)
    ledger = sealed(client, run_id, 30, 5)
    queue = Queue(queue_name(run_id), connection=client, serializer=JSONSerializer)
    worker = Worker([queue], connection=client, serializer=JSONSerializer, name="w")
    worker.register_birth()  # type: ignore[no-untyped-call]
    ledger.join("w")
    for number in (1, 2, 3):
        client.lmove(ledger.keys.queue, ledger.keys.intermediate, "LEFT", "RIGHT")
        claimed(ledger, number, "w")
    job = Job.fetch(job_id(run_id, 1), connection=client, serializer=JSONSerializer)
    worker.prepare_execution(job)
    commit(ledger, 1, 0, 5, failing=[0], retries={1: 60.0})
    with client.pipeline() as pipe:
        job.prepare_for_execution("w", pipeline=pipe)  # RQ's bookkeeping, too late: it makes the hash again
        pipe.execute()
    ledger.blame_crash(2, "w", 7, BOOM, 3)
    refused = Job.create("os.abort", connection=client, serializer=JSONSerializer, origin=queue.name)
    refused.save()
    queue.failed_job_registry.add(refused)
    foreign = Job.create("os.abort", connection=client, serializer=JSONSerializer, origin=queue.name)
    foreign.save()
    client.rpush(ledger.keys.queue, foreign.id)
    assert ledger.delete()
    assert not ledger.delete()
    left = {key.decode() for key in client.scan_iter(count=1000)}
    assert left == {*theirs, RUNS, ledger.keys.queues}
    assert runs(client) == [other.run]
    assert client.smembers(ledger.keys.queues) == {other.keys.queue.encode()}


def test_workers_of_a_deleted_run_make_no_key(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    claimed(ledger, 1)
    ledger.delete()
    test_transitions_of_a_run_that_is_gone_make_no_key(client, run_id)


# --- RQ


def test_key_names_are_rq_s_own(client: Redis, run_id: str) -> None:
    keys = run_keys(run_id)
    queue = Queue(queue_name(run_id), connection=client)
    assert keys.queue == queue.key
    assert keys.intermediate == queue.intermediate_queue_key
    assert keys.started == StartedJobRegistry(queue=queue).key
    assert keys.failed_jobs == FailedJobRegistry(queue=queue).key
    assert keys.queues == Queue.redis_queues_keys
    assert keys.rq_workers == WORKERS_BY_QUEUE_KEY % queue.name
    assert keys.all_rq_workers == REDIS_WORKER_KEYS == Worker.redis_workers_keys
    assert keys.suspended == WORKERS_SUSPENDED
    assert keys.job_prefix + "7" == Job.key_for(job_id(run_id, 7))
    worker = Worker([queue], connection=client, name="w")
    assert worker.key == "rq:worker:w"
    assert worker.executions_key == "rq:worker:w:executions"
    execution = Execution("e", "j", client)
    assert execution.key == "rq:execution:j:e"


def test_rq_reads_the_chunks_jobs(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    assert [queue.name for queue in Queue.all(connection=client)] == [queue_name(run_id)]
    queue = Queue(queue_name(run_id), connection=client, serializer=JSONSerializer)
    assert queue.count == 2
    assert queue.job_ids == [job_id(run_id, 1), job_id(run_id, 2)]
    for number, job in enumerate(queue.get_jobs(), 1):
        assert chunk_of_job(run_id, job.id) == number
        assert job.get_status() is JobStatus.QUEUED
        assert (job.func_name, list(job.args), job.kwargs) == ("piecework_worker.chunk.drain", [], {})
        assert job.origin == queue.name
        assert job.description == f"a chunk of piecework run {run_id}"
        assert (job.timeout, job.result_ttl) == (-1, 0)
    popped = Queue.dequeue_any([queue], None, connection=client, serializer=JSONSerializer)
    assert popped is not None
    assert popped[0].id == job_id(run_id, 1)
    assert client.lrange(ledger.keys.intermediate, 0, -1) == [job_id(run_id, 1).encode()]
    claimed(ledger, 1)
    assert client.exists(ledger.keys.intermediate) == 0


def test_rq_passes_over_a_chunk_that_is_done(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    commit(ledger, 1, 0, 5, say="zombie")
    queue = Queue(queue_name(run_id), connection=client, serializer=JSONSerializer)
    popped = Queue.dequeue_any([queue], None, connection=client, serializer=JSONSerializer)
    assert popped is not None
    assert popped[0].id == job_id(run_id, 2)


def test_rq_empty_does_not_lose_a_chunk(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id)
    Queue(queue_name(run_id), connection=client, serializer=JSONSerializer).empty()  # type: ignore[no-untyped-call]
    set_all_to_the_past(ledger, ledger.keys.waiting)
    ledger.tend()
    assert queued(ledger) == [1, 2]
