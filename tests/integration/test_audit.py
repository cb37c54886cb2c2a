"""Ledgers that are broken in every way that was thought of: found, named, put back, and drained to the end.

A run is broken behind the ledger's back on a real server. Then `audit` has to find it, `repair` has to leave a run in
which it finds nothing, and draining that run has to record each index exactly once.
"""

import io
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from piecework.audit import Auditor, audit
from piecework.codec import pack
from piecework.errors import CorruptData, SpecConflict, UnknownRun
from piecework.findings import ranges
from piecework.items import lines
from piecework.keys import chunk_of_job
from piecework.ledger import Ledger
from piecework.payload import Items
from piecework.records import Spec
from piecework.repair import Repaired, repair
from piecework.states import State
from piecework_producer.pile import fill, rq_job_template
from tests.ledger_fixture import (
    Chunk,
    at_pace,
    commit,
    done,
    failed,
    keys_without_lifetime,
    members,
    opened,
    outcomes,
    sealed,
    set_all_to_the_past,
    store,
)
from tests.server_fixture import ServerProcess

TOTAL = 20
Break = Callable[[Ledger], object]


def items(start: int, stop: int) -> bytes:
    """A block of the payload."""
    return pack([f"item {index}" for index in range(start, stop)])


def at_work(client: Redis, run: str, **spec: Any) -> Ledger:
    """Four chunks of five of 20 lines: 1 is finished with a failure, 2 is half done by a worker and has an item that is
    delayed, 3 waits, and the lease of 4 has run out.
    """
    ledger = opened(client, run, items="lines", **spec)
    for start in (0, 8, 16):
        stop = min(start + 8, TOTAL)
        ledger.fill(start, stop - start, items(start, stop), "digest")
    ledger.cut(5)
    ledger.seal(TOTAL, None)
    for number, worker in ((1, "a"), (2, "b"), (4, "c")):
        ledger.join(worker)
        assert ledger.claim(number, worker, 3600)
    for start in range(5):
        commit(ledger, 1, start, 1, failing=[1] if start == 1 else [])
    commit(ledger, 2, 5, 2)
    commit(ledger, 2, 7, 1, retries={7: 3600})
    client.zadd(ledger.keys.leases, {"4": 1})
    return ledger


def ranged(client: Redis, run: str, budget: str | None = None) -> Ledger:
    """A run of a range, in four chunks that wait."""
    ledger = opened(client, run, total=TOTAL, max_failures=budget)
    ledger.fill(0, TOTAL, b"", "")
    ledger.cut(5)
    ledger.seal(TOTAL, (10, True) if budget else None)
    return ledger


def over(client: Redis, run: str, state: State = State.COMPLETED_WITH_FAILURES) -> Ledger:
    """A run that has ended so."""
    if state in (State.CANCELLED, State.FAILED):
        ledger = at_work(client, run)
        assert ledger.abort(state, "because") is state
        return ledger
    ledger = ranged(client, run)
    for number in range(1, 5):
        ledger.claim(number, "a", 3600)
        start = (number - 1) * 5
        commit(ledger, number, start, 5, failing=[start] if state is State.COMPLETED_WITH_FAILURES else [])
    assert ledger.status().state is state
    return ledger


def repaired(ledger: Ledger) -> Repaired:
    return repair(ledger, rq_job_template(ledger.client, ledger.run))


def drain(ledger: Ledger) -> None:
    """Work through what RQ delivers until the run is over."""
    client, keys = ledger.client, ledger.keys
    ledger.pause(False)
    for _ in range(20 * TOTAL):
        set_all_to_the_past(ledger, keys.waiting, keys.leases, keys.delayed)
        if (state := ledger.tend("drainer").state) is None or state.over:
            return
        job = cast(bytes | None, client.lmove(keys.queue, keys.intermediate, "LEFT", "RIGHT"))
        number = None if job is None else chunk_of_job(ledger.run, job.decode())
        if number is None or not client.exists(keys.job_prefix + str(number)):
            continue
        claim = ledger.claim(number, "drainer", 3600)
        if claim is not None:
            commit(ledger, number, claim.next, claim.stop - claim.next, say="drainer")
    raise AssertionError(f"the run does not end: {audit(ledger)}")


def each_index_is_recorded_once(ledger: Ledger, total: int = TOTAL) -> None:
    assert Counter([*done(ledger), *failed(ledger)]) == Counter(range(total))
    status = ledger.status()
    assert status.state in (State.SUCCEEDED, State.COMPLETED_WITH_FAILURES)
    assert (status.done, status.failed) == (len(done(ledger)), len(failed(ledger)))
    assert keys_without_lifetime(ledger.client, ledger.run) in ([], [ledger.keys.intermediate])


# --- sound runs


def filling(client: Redis, run: str) -> Ledger:
    ledger = opened(client, run, items="lines")
    ledger.fill(0, 8, items(0, 8), "digest")
    return ledger


def cut_in_part(client: Redis, run: str) -> Ledger:
    ledger = filling(client, run)
    ledger._scripts.call("cut", 0, 2, 2)
    ledger.join("early")
    return ledger


def abandoned(client: Redis, run: str) -> Ledger:
    ledger = cut_in_part(client, run)
    ledger.abort(State.CANCELLED, "no")
    return ledger


def with_duplicates(client: Redis, run: str) -> Ledger:
    ledger = at_work(client, run)
    assert commit(ledger, 1, 0, 5).status == "refused"
    assert commit(ledger, 2, 7, 9).status == "refused"
    at_pace(ledger, 4)
    assert ledger.steal("thief")[0]
    ledger.pause(True)
    return ledger


def failed_by_its_budget(client: Redis, run: str) -> Ledger:
    ledger = ranged(client, run, "10%")
    ledger.claim(1, "a", 3600)
    commit(ledger, 1, 0, 4, failing=[0, 1, 3])
    assert ledger.status().state is State.FAILED
    return ledger


def opened_again(client: Redis, run: str) -> Ledger:
    ledger = failed_by_its_budget(client, run)
    ledger.retry()
    return ledger


def crashed_and_lost(client: Redis, run: str) -> Ledger:
    ledger = at_work(client, run)
    ledger.tend("a")
    ledger.release(2, "b", "because", careful=True)
    ledger.reap("a")
    ledger.leave("b", "because")
    return ledger


SOUND: list[Callable[[Redis, str], Ledger]] = [
    filling,
    cut_in_part,
    abandoned,
    lambda client, run: sealed(client, run, 0),
    ranged,
    with_duplicates,
    failed_by_its_budget,
    opened_again,
    crashed_and_lost,
    *(lambda client, run, state=state: over(client, run, state) for state in State if state.over),
]


@pytest.mark.parametrize("made", SOUND)
def test_a_run_that_nobody_broke_is_sound(client: Redis, run_id: str, made: Callable[[Redis, str], Ledger]) -> None:
    ledger = made(client, run_id)
    before = everything(client)
    found = audit(ledger)
    assert {finding.check for finding in found.findings} <= {"leases"}
    assert found.sound
    status = ledger.status()
    assert (found.state, found.done, found.failed) == (status.state, status.done, status.failed)
    assert found.total == found.done + found.failed + found.open
    assert everything(client) == before
    assert repaired(ledger).mended == ()
    assert everything(client) == before


def everything(client: Redis) -> dict[bytes, object]:
    """All that is on the server, but for lifetimes."""
    return {key: client.dump(key) for key in client.scan_iter(count=1000)}


def test_stale_leases_are_told_and_are_no_error(client: Redis, run_id: str) -> None:
    ledger = at_work(client, run_id)
    client.zrem(ledger.keys.workers, "b")
    first, second = sorted(finding.text for finding in audit(ledger).findings)
    assert first == "the lease of chunk 2, held by b, belongs to a worker that has left"
    assert second.startswith("the lease of chunk 4, held by c, has run out ")
    assert audit(ledger).sound


def test_a_run_that_is_not_there(client: Redis, run_id: str) -> None:
    with pytest.raises(UnknownRun):
        audit(Ledger(client, run_id))


# --- what can go wrong


def deleted(key: str) -> Break:
    return lambda ledger: ledger.client.delete(getattr(ledger.keys, key))


def field(name: str, value: str | int | None) -> Break:
    def change(ledger: Ledger) -> None:
        if value is None:
            ledger.client.hdel(ledger.keys.run, name)
        else:
            ledger.client.hset(ledger.keys.run, name, value)

    return change


def entries(ledger: Ledger, stream: str = "results") -> list[tuple[bytes, dict[bytes, bytes]]]:
    return cast(list[tuple[bytes, dict[bytes, bytes]]], ledger.client.xrange(getattr(ledger.keys, stream)))


def rewritten(change: dict[bytes, bytes | None], at: int = 1, stream: str = "results") -> Break:
    """An entry whose bytes were changed in place."""

    def rewrite(ledger: Ledger) -> None:
        key, there = getattr(ledger.keys, stream), entries(ledger, stream)
        ledger.client.delete(key)
        for place, (entry, fields) in enumerate(there):
            changed: dict[Any, Any] = {**fields, **change} if place == at % len(there) else fields
            ledger.client.xadd(key, {k: v for k, v in changed.items() if v is not None}, entry.decode())

    return rewrite


def removed(stream: str = "results", at: int = 1) -> Break:
    def remove(ledger: Ledger) -> None:
        for entry, _ in entries(ledger, stream)[at : at + 1]:
            ledger.client.xdel(getattr(ledger.keys, stream), entry)

    return remove


def doubled(stream: str = "results", into: str = "results") -> Break:
    """The first entry once more."""

    def double(ledger: Ledger) -> None:
        for _, fields in entries(ledger, stream)[:1]:
            ledger.client.xadd(getattr(ledger.keys, into), cast(Any, fields))

    return double


def added(spans: str, count: int, stream: str = "results") -> Break:
    values: list[object] = [["T", "m", "", 1] if stream == "failures" else f"foreign {i}" for i in range(count)]
    fields: Any = {"s": spans, "d": pack(values), "m": "meta"}
    return lambda ledger: ledger.client.xadd(getattr(ledger.keys, stream), fields)


def record(number: int, **change: Any) -> Break:
    def rewrite(ledger: Ledger) -> None:
        packed = cast(bytes | None, ledger.client.hget(ledger.keys.chunks, str(number)))
        with suppress(CorruptData):
            if packed is not None:
                store(ledger, replace(Chunk.parse(b"%d" % number, packed), **change))

    return rewrite


def raw(number: int | str, text: str) -> Break:
    return lambda ledger: ledger.client.hset(ledger.keys.chunks, str(number), text)


def dropped(number: int) -> Break:
    return lambda ledger: ledger.client.hdel(ledger.keys.chunks, str(number))


def placed(number: int | str, *zsets: str) -> Break:
    """In these sets alone."""

    def place(ledger: Ledger) -> None:
        for zset in ("waiting", "leases", "delayed"):
            ledger.client.zrem(getattr(ledger.keys, zset), str(number))
        for zset in zsets:
            ledger.client.zadd(getattr(ledger.keys, zset), {str(number): 1})

    return place


def all_jobs(ledger: Ledger) -> None:
    ledger.client.delete(*(ledger.keys.job_prefix + str(number) for number in (2, 3, 4)))


def forgot_a_block(ledger: Ledger) -> None:
    ledger.client.zrem(ledger.keys.blocks, "8")


BROKEN: dict[str, tuple[Break, str]] = {
    "no results": (deleted("results"), "items 0, 2-6 are in no result, no failure and no open chunk"),
    "no failures": (deleted("failures"), "item 1 is in no result"),
    "no chunks": (deleted("chunks"), "items 7-19 are in no result"),
    "none waiting": (deleted("waiting"), "chunk 3, with items 10-14 open: in none of waiting, leases, delayed"),
    "no leases": (deleted("leases"), "chunks 2, 4, with items 8-9, 15-19 open: in none of"),
    "none delayed": (deleted("delayed"), "chunk 5, with item 7 open: in none of"),
    "no index of blocks": (deleted("blocks"), "block 8 of the payload is not in its index"),
    "a block not in the index": (forgot_a_block, "block 8 of the payload is not in its index"),
    "no template": (deleted("template"), ":template, the RQ job that delivers chunks, is gone"),
    "no list of runs": (deleted("runs"), "the run is not in piecework:1:runs"),
    "state": (field("state", "succeeded"), "the run's state is 'succeeded', but 13 of 20 items are not recorded"),
    "state before the seal": (field("state", "filling"), "the run's state is 'filling', but it has begun"),
    "no state": (field("state", "walking"), "the run's state is 'walking', but that is no state"),
    "total": (field("total", 19), "the run's total is 19, but the run has 20 items"),
    "filled": (field("filled", "many"), "the run's filled is many, but the run has 20 items"),
    "cut": (field("cut", None), "the run's cut is missing, but the run has 20 items"),
    "done": (field("done", 7), "the run's done is 7, but the results hold 6 items"),
    "failed": (field("failed", 20), "the run's failed is 20, but the failures hold 1 items"),
    "sealed": (field("sealed", 0), "the run's sealed is 0, but the run was begun"),
    "started": (field("started_ms", ""), "the run's started_ms is missing, but it is no number"),
    "ended": (field("ended_ms", 5), "the run's ended_ms is 5, but the run is not over"),
    "chunk count": (field("chunk_count", 3), "the run's chunk_count is 3, but there is a chunk 5"),
    "budget": (field("failure_budget", 0), "the run's failure_budget is 0, but --max-failures is not set"),
    "lifetime": (field("keep_seconds", "x"), "the run's keep_seconds is x, but it is no lifetime"),
    "pause": (field("paused", ""), "the run's paused is missing, but it is a flag"),
    "limit of losses": (field("loss_limit", None), "the run's loss_limit is missing"),
    "an entry removed": (removed(), "item 2 is in no result"),
    "a failure removed": (removed("failures", 0), "item 1 is in no result"),
    "an entry doubled": (doubled(), ":results records item 0 again"),
    "a result as a failure": (added("0+1", 1, "failures"), ":failures records item 0 again"),
    "a failure as a result": (added("1+1", 1), ":failures records item 1 again"),
    "a foreign entry": (
        lambda ledger: ledger.client.xadd(ledger.keys.results, {"foo": "bar"}),
        ":results: not an entry of piecework",
    ),
    "an entry for open items": (
        added("10+2", 2),
        "chunk 3, open from 10 to 14, overlaps what is recorded: items 10-11",
    ),
    "an entry that mixes": (
        added("0+1,9+3,19+4", 8),
        ":results records item 0 again and items 20-22, beyond the range",
    ),
    "an entry beyond": (added("900719925474099299999+1", 1), "has an impossible span"),
    "an entry doubled in itself": (added("12+1,12+1", 2), ":results records item 12 again"),
    "no outcomes": (rewritten({b"d": None}), ":results: not an entry of piecework"),
    "damaged outcomes": (rewritten({b"d": b"\x28\xb5\x2f\xfd damage"}), ":results: its outcomes: the stored bytes are"),
    "other outcomes": (rewritten({b"d": pack([1, 2])}), ":results: it has 2 outcomes for 1 items"),
    "other spans": (rewritten({b"s": b"2+1,x"}), ":results: its spans: '2+1,x' is not a list of spans"),
    "moved spans": (rewritten({b"s": b"13+1"}), "items 2, 14 are in no result"),
    "damaged failures": (rewritten({b"d": pack([7])}, 0, "failures"), ":failures: its outcomes: not a failure"),
    "a damaged chunk": (raw(3, "10 15 what"), "chunk 3: b'10 15 what' is no chunk"),
    "a damaged chunk at work": (raw(2, ""), "chunk 2: b'' is no chunk"),
    "an impossible chunk": (record(3, next=16), "chunk 3 begins at 10, is at 16 and ends at 15"),
    "a foreign chunk": (raw("x", "0 1 0 0 0 0 0 0 "), "chunk x: "),
    "a chunk beyond": (record(4, stop=25), "chunk 4 ends at 25, and the run has 20 items"),
    "a chunk moved on": (record(2, next=9), "item 8 is in no result"),
    "a chunk moved back": (record(2, next=6), "chunk 2, open from 6 to 9, overlaps what is recorded: item 6"),
    "a finished chunk opened": (record(1, next=3), "chunk 1, open from 3 to 4, overlaps what is recorded: items 3-4"),
    "chunks that overlap": (record(3, stop=17), "chunk 3, open from 10 to 16, overlaps other open chunks: items 15-16"),
    "a chunk cut short": (record(3, stop=12), "items 12-14 are in no result"),
    "a chunk dropped": (dropped(3), "items 10-14 are in no result"),
    "a chunk nowhere": (placed(3), "chunk 3, with items 10-14 open: in none of"),
    "a chunk in two places": (placed(4, "waiting", "leases"), "chunk 4, with items 15-19 open: in waiting and leases"),
    "a finished chunk waiting": (placed(1, "waiting"), "chunk 1: in waiting, but not open"),
    "an unknown chunk waiting": (placed(77, "delayed", "leases"), "chunk 77: in leases and delayed, but not open"),
    "no chunk at all waiting": (placed("?", "waiting"), "what is no chunk: in waiting, but not open"),
    "a foreign copy": (
        lambda ledger: ledger.client.hset(ledger.keys.copies, "3", "soon w"),
        ":copies has for '3', 'soon w', is no copy of a chunk",
    ),
    "a copy of what is done": (
        lambda ledger: ledger.client.hset(ledger.keys.copies, "1", "99999999999999 w"),
        ":copies has for '1', '99999999999999 w', is no copy of a chunk",
    ),
    "a key that expires": (lambda ledger: ledger.client.expire(ledger.keys.results, 60), ":results: expires in "),
    "the record expires": (lambda ledger: ledger.client.expire(ledger.keys.run, 60), ":run: expires in "),
    "no queue": (deleted("queue"), "chunk 3: waiting, but RQ does not deliver"),
    "no jobs": (all_jobs, "chunk 3: waiting, but RQ does not deliver"),
    "no queues of RQ": (deleted("queues"), "the queue is not in rq:queues"),
}
HEALS = {"no queue", "no jobs", "no queues of RQ"}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_named_and_put_back(client: Redis, run_id: str, name: str) -> None:
    ledger = at_work(client, run_id)
    break_it, told = BROKEN[name]
    break_it(ledger)

    found = audit(ledger)
    assert any(told in finding.text for finding in found.findings), [finding.text for finding in found.findings]
    assert found.sound == (name in HEALS)
    result = repaired(ledger)
    assert result.left.sound
    assert any(told in finding.text for finding in result.mended)
    assert {finding.check for finding in audit(ledger).findings} <= {"leases"}
    drain(ledger)
    each_index_is_recorded_once(ledger)
    assert audit(ledger).findings == ()


def test_what_was_recorded_first_stays_and_an_entry_is_split(client: Redis, run_id: str) -> None:
    ledger = at_work(client, run_id)
    before = outcomes(client, ledger.keys.results)
    BROKEN["an entry that mixes"][0](ledger)
    BROKEN["a failure as a result"][0](ledger)
    added("0+1,12+1", 2, "failures")(ledger)
    repaired(ledger)
    # Item 1 has a result now, foreign as it is: results come before failures.
    assert dict(outcomes(client, ledger.keys.results)) == {
        **dict(before), 1: "foreign 0", 9: "foreign 1", 10: "foreign 2", 11: "foreign 3", 19: "foreign 4"
    }  # fmt: skip
    assert outcomes(client, ledger.keys.failures) == [(12, ["T", "m", "", 1])]


def test_an_overfull_plan_is_done_in_several_scripts(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of them the run is in order as far as its workers can tell: none ends it too early."""
    monkeypatch.setattr("piecework.repair._MOST_STEPS", 1)
    ledger = at_work(client, run_id)
    for name in ("no results", "done", "failed", "an entry that mixes", "a damaged chunk", "none delayed"):
        BROKEN[name][0](ledger)
    scripts: list[State] = []
    repair_once = ledger.repair

    def watched(version: bytes, steps: Any) -> bytes:
        ledger.tend("a")
        scripts.append(ledger.status().state)
        return repair_once(version, steps)

    monkeypatch.setattr(ledger, "repair", watched)
    client.hset(ledger.keys.run, "done", 3)
    assert repaired(ledger).left.sound
    assert len(scripts) > 5
    assert set(scripts) == {State.RUNNING}
    drain(ledger)
    each_index_is_recorded_once(ledger)


def test_a_repair_that_dies_between_two_scripts_is_repeated(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for survived in (1, 2, 3, 5, 7):
        ledger = at_work(client, f"{run_id}-{survived}")
        for name in ("no results", "an entry that mixes", "a damaged chunk", "none waiting", "chunk count", "state"):
            BROKEN[name][0](ledger)
        script, left = ledger.repair, iter(range(survived))
        monkeypatch.setattr("piecework.repair._MOST_STEPS", 1)
        monkeypatch.setattr(ledger, "repair", lambda *call, script=script, left=left: (next(left), script(*call))[1])
        with pytest.raises(StopIteration):
            repaired(ledger)
        monkeypatch.undo()
        assert not audit(ledger).sound
        assert repaired(ledger).left.sound
        drain(ledger)
        each_index_is_recorded_once(ledger)


def test_a_repair_of_a_run_that_has_changed_since_does_nothing(client: Redis, run_id: str) -> None:
    ledger = at_work(client, run_id)
    deleted("template")(ledger)
    auditor = Auditor(ledger)
    steps = [step for finding in auditor.audit().findings for step in finding.steps]
    assert steps == [("template",)]
    commit(ledger, 2, 8, 1)
    before = everything(client)
    assert not ledger.repair(auditor.version, [("set", "done", 1)])
    assert everything(client) == before
    auditor.audit()
    assert ledger.repair(auditor.version, [("set", "done", 1)])


def test_workers_go_on_while_a_run_is_broken_audited_and_repaired(shared_server: ServerProcess, run_id: str) -> None:
    """Audits of the sound run find nothing at any moment; then it is broken five times under its workers' hands."""
    total = 3000
    with shared_server.client() as client:
        ledger = sealed(client, run_id, total, 100)
        with ThreadPoolExecutor() as pool:
            workers = [pool.submit(work, shared_server, run_id, name) for name in ("a", "b", "c")]
            try:
                audits = 0
                while ledger.status().done < total // 3:
                    assert audit(ledger).sound
                    audits += 1
                assert audits > 2
                for _ in range(5):
                    for name in ("an entry removed", "a foreign entry", "an entry doubled", "done", "no leases"):
                        BROKEN[name][0](ledger)
                    assert repaired(ledger).left.sound
            finally:
                client.set(f"stop-{run_id}", 1, ex=60)
        for worker in workers:
            worker.result()
        client.delete(f"stop-{run_id}")
        drain(ledger)
        each_index_is_recorded_once(ledger, total)
        assert audit(ledger).findings == ()


def work(server: ServerProcess, run: str, worker: str) -> None:
    """A worker that commits three items at a time, fails some, and sometimes forgets what it holds."""
    with server.client() as client:
        ledger = Ledger(client, run)
        while not client.exists(f"stop-{run}"):
            ledger.tend(worker)
            job = cast(bytes | None, client.lmove(ledger.keys.queue, ledger.keys.intermediate, "LEFT", "RIGHT"))
            claim = ledger.claim(int(job.rpartition(b"-")[2]), worker, 3600) if job else None
            at, stop = (claim.next, claim.stop) if claim else (0, 0)
            while at < stop and claim:
                count = min(3, stop - at)
                retries = {at: 0.0} if at % 50 == 7 and claim.attempt == 0 else {}
                failing = [at + 1] if at % 70 == 3 and count > 1 else []
                reply = commit(ledger, claim.chunk, at, count, failing=failing, retries=retries)
                if reply.status == "over":
                    break
                at, stop = reply.next, reply.stop


def test_a_run_whose_record_is_gone_is_submitted_again_and_keeps_its_results(client: Redis, run_id: str) -> None:
    ledger = at_work(client, run_id)
    recorded = done(ledger)
    for break_it in (deleted("run"), field("spec", "{")):
        break_it(ledger)
        found = audit(ledger)
        (finding,) = found.findings
        assert f"the run's record {ledger.keys.run} is " in finding.text
        assert "submit the same items under the same id, with no worker, then repair" in finding.remedy
        assert not repaired(ledger).left.sound
    client.delete(ledger.keys.run)
    pile = lines(io.BytesIO(b"".join(b"item %d\n" % index for index in range(TOTAL))), "items")
    fill(ledger, Spec(handler="m:f", items="lines"), pile, parallelism=2, keep_seconds=60)
    assert repaired(ledger).left.sound
    assert done(ledger) == recorded
    drain(ledger)
    each_index_is_recorded_once(ledger)


def test_a_key_of_somebody_else_is_named(client: Redis, run_id: str) -> None:
    ledger = at_work(client, run_id)
    client.set(ledger.keys.waiting, "mine")
    (finding,) = repaired(ledger).left.findings
    assert finding.text == f"the key {ledger.keys.waiting} holds something else than piecework writes there"
    client.delete(ledger.keys.waiting)
    assert repaired(ledger).left.sound


# --- the payload


def of_lines(client: Redis, run: str, text: bytes) -> Ledger:
    """A run over lines, submitted as a person would."""
    ledger = Ledger(client, run)
    fill(ledger, Spec(handler="m:f", items="lines"), lines(io.BytesIO(text), "items"), parallelism=2, keep_seconds=60)
    return ledger


LOSSES: dict[str, Break] = {
    "all of it": deleted("payload"),
    "all of it and its index": lambda ledger: ledger.client.delete(ledger.keys.payload, ledger.keys.blocks),
    "a block": lambda ledger: ledger.client.hdel(ledger.keys.payload, payload_fields(ledger)[1]),
    "bytes of the last block": lambda ledger: ledger.client.hset(
        ledger.keys.payload, payload_fields(ledger)[-1].decode(), b"\x28\xb5damage"
    ),
    "some items of the first block": lambda ledger: ledger.client.hset(
        ledger.keys.payload, "0", pack(ledger.block_at(0)[1][:3])
    ),
}


def payload_fields(ledger: Ledger) -> list[bytes]:
    return sorted(cast(list[bytes], ledger.client.hkeys(ledger.keys.payload)), key=int)


@pytest.mark.parametrize("name", LOSSES)
def test_lost_items_are_put_back_by_submitting_the_same_input(client: Redis, run_id: str, name: str) -> None:
    text = b"".join(b"%d %s\n" % (index, bytes([97 + index % 26]) * 30_000) for index in range(40))
    ledger = of_lines(client, run_id, text)
    assert len(payload_fields(ledger)) > 3
    claim = ledger.claim(1, "a", 3600)
    assert claim
    commit(ledger, 1, 0, 3)
    LOSSES[name](ledger)

    found = repaired(ledger).left
    (finding,) = (finding for finding in found.findings if finding.error)
    lost = ledger.lost()
    assert finding.text == f"the payload of {ranges(lost)} is gone (item 0 is the first of the input)"
    assert f"submit the same items under the id {run_id} again" in finding.remedy
    assert ledger.status().paused

    with pytest.raises(SpecConflict):
        of_lines(client, run_id, text.replace(b"a", b"A"))
    assert not audit(ledger).sound, "other input changes nothing"
    assert repaired(ledger).left.findings == found.findings

    of_lines(client, run_id, text)
    assert audit(ledger).findings == ()
    assert not ledger.status().paused
    found_items = Items(ledger, ledger.spec()).span(0, 40)
    assert "".join(f"{item}\n" for item in found_items).encode() == text
    drain(ledger)
    each_index_is_recorded_once(ledger, 40)


def test_recorded_items_need_no_pause_when_their_payload_is_gone(client: Redis, run_id: str) -> None:
    ledger = of_lines(client, run_id, b"a\nb\n")
    ledger.claim(1, "a", 3600)
    commit(ledger, 1, 0, 1)
    client.hdel(ledger.keys.payload, "0")
    ledger.fill(0, 1, b"", "")
    client.hset(ledger.keys.payload, "1", pack(["b"]))
    (finding,) = (finding for finding in repaired(ledger).left.findings if finding.error)
    assert "payload of item 0 is gone" in finding.text
    assert not ledger.status().paused


# --- size


def test_memory_grows_with_gaps_and_not_with_items(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 1_000_000, 100_000)
    packed = pack([0] * 10_000)
    for number in range(1, 11):
        ledger.claim(number, "a", 3600)
        for start in range((number - 1) * 100_000, number * 100_000, 10_000):
            ledger.commit(number, start, 10_000, results=([(start, 10_000)], packed))
    tracemalloc.start()
    try:
        assert audit(ledger).done == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


WORLDS: list[Callable[[Redis, str], Ledger]] = [
    at_work,
    ranged,
    opened_again,
    failed_by_its_budget,
    crashed_and_lost,
    with_duplicates,
    *(lambda client, run, state=state: over(client, run, state) for state in State if state.over),
]
TELL_WHETHER_IT_WAS_BEGUN = {"state before the seal", "no state", "state", "sealed", "started"}


def essence(ledger: Ledger) -> object:
    """What must not be other than an audit thinks: the record, the open chunks and where they are, the streams."""
    client, keys = ledger.client, ledger.keys
    packed = cast(dict[bytes, bytes], client.hgetall(keys.chunks))
    open_ = {number: text for number, text in packed.items() if text.split()[1:2] != text.split()[2:3]}
    places = [members(ledger, zset) & set(map(int, open_)) for zset in (keys.waiting, keys.leases, keys.delayed)]
    fields = {name: value for name, value in client.hgetall(keys.run).items() if name != b"ended_ms"}
    return fields, open_, places, entries(ledger), entries(ledger, "failures")


@given(data=st.data(), made=st.sampled_from(WORLDS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_broken_together(client: Redis, data: st.DataObject, made: Callable[[Redis, str], Ledger]) -> None:
    client.flushdb()
    ledger = made(client, "broken")
    before = essence(ledger)
    names = data.draw(st.lists(st.sampled_from(sorted(BROKEN)), min_size=1, max_size=4, unique=True))
    if len(TELL_WHETHER_IT_WAS_BEGUN.intersection(names)) > 1:
        return
    for name in names:
        BROKEN[name][0](ledger)
    with suppress(ValueError):  # a chunk whose number is none
        assert essence(ledger) == before or not audit(ledger).sound
    result = repaired(ledger)
    assert result.left.sound
    assert repaired(ledger).mended == ()
    assert audit(ledger).total == TOTAL
    if ledger.status().state is State.CANCELLED:
        return
    if ledger.status().state is State.FAILED:
        ledger.retry()
    drain(ledger)
    each_index_is_recorded_once(ledger)
    assert audit(ledger).findings == ()
