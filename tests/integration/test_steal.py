"""Stealing: what the script splits, by what it estimates, and what every party learns of it."""

from dataclasses import replace
from typing import Any, cast

import pytest
from redis import Redis

from piecework.keys import nudge_channel
from piecework.ledger import Ledger
from piecework.records import Claim
from piecework.states import State
from tests.ledger_fixture import (
    at_pace,
    chunk,
    chunks,
    claimed,
    commit,
    done,
    members,
    outcomes,
    queued,
    sealed,
    store,
)


def leased(client: Redis, run: str, total: int = 100, size: int = 100) -> Ledger:
    """A run whose chunks are all held: chunk N by worker wN."""
    ledger = sealed(client, run, total, size)
    for number in range(1, -(-total // size) + 1):
        claimed(ledger, number, f"w{number}")
    client.delete(ledger.keys.queue)
    return ledger


@pytest.mark.parametrize(
    ("begun", "since", "item_seconds", "split"),
    [
        (1, 0.0, 1.0, 50),  # fresh news: half of what is not begun
        (21, 0.0, 1.0, 60),  # items in hand of a batch stay
        (1, 0.5, 0.01, 75),  # it is at 51 by now
        (1, 10.0, 0.01, 1),  # nothing came for long: one long item, and all behind it can go
        (1, 10.0, 20.0, 50),  # a long item, like all of them, half done
        (99, 0.0, 1.0, 99),  # one item is left
        (1, 5.0, 0.0, 51),  # nothing is known yet but that the first item takes over 5 s
    ],
)
def test_half_of_what_is_left_by_estimate(
    client: Redis, run_id: str, begun: int, since: float, item_seconds: float, split: int
) -> None:
    ledger = leased(client, run_id)
    at_pace(ledger, 1, since=since, item_seconds=item_seconds, begun=begun)
    before = chunk(ledger, 1)
    stolen, _ = ledger.steal("thief")
    assert stolen
    victim, taken = chunks(ledger)
    assert abs(victim.stop - split) <= 1, "the clock of the test runs meanwhile"
    assert victim == replace(before, stop=victim.stop)
    assert (taken.start, taken.next, taken.stop, taken.owner) == (victim.stop, victim.stop, 100, "")
    assert queued(ledger) == [taken.id]
    assert members(ledger, ledger.keys.waiting) == {taken.id}


@pytest.mark.parametrize(
    ("begun", "since", "item_seconds", "again"),
    [
        (1, 0.0, 0.0005, 0.75),  # 50 ms of work: it is done before another has begun
        (99, 0.6, 0.5, 0.15),  # the last item is being begun just now
        (100, 20.0, 1.0, 0.0),  # the last item is in hand: nothing is left to take
        (1, 0.1, 0.0, 0.65),  # nothing is known yet
    ],
)
def test_what_is_done_sooner_where_it_is(
    client: Redis, run_id: str, begun: int, since: float, item_seconds: float, again: float
) -> None:
    ledger = leased(client, run_id)
    at_pace(ledger, 1, since=since, item_seconds=item_seconds, begun=begun)
    before = chunks(ledger)
    stolen, seconds = ledger.steal("thief")
    assert not stolen
    assert abs(seconds - again) < 0.1
    assert chunks(ledger) == before
    assert queued(ledger) == []


def test_the_victim_is_who_has_the_longest_to_go(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id, 300, 100)
    at_pace(ledger, 1, item_seconds=0.01)
    at_pace(ledger, 2, item_seconds=0.01, begun=101, since=5)
    at_pace(ledger, 3, item_seconds=1.0, begun=280)
    assert ledger.steal("thief")[0]
    assert [c.stop for c in chunks(ledger)[:3]] == [100, 200, 290]


def test_nobody_steals_from_himself_or_from_a_run_that_stands(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id)
    at_pace(ledger, 1)
    assert not ledger.steal("w1")[0]
    ledger.pause(True)
    assert not ledger.steal("thief")[0]
    ledger.pause(False)
    ledger.abort(State.CANCELLED, "")
    assert not ledger.steal("thief")[0]
    ledger.delete()
    assert not ledger.steal("thief")[0]
    assert not client.exists(ledger.keys.run)


def test_stolen_from_again_and_again_down_to_single_items(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id, 48, 48)
    held = [1]
    rounds = 0
    while True:
        for number in held:
            at_pace(ledger, number, item_seconds=60.0)
        if not ledger.steal(f"t{rounds}")[0]:
            break
        rounds += 1
        (number,) = queued(ledger)
        client.delete(ledger.keys.queue)
        assert ledger.claim(number, f"t{rounds}", 60) is not None
        held.append(number)
    assert rounds == 47
    assert sorted((c.start, c.stop) for c in chunks(ledger)) == [(i, i + 1) for i in range(48)]
    for there in chunks(ledger):
        assert commit(ledger, there.id, there.next, 1).status == "recorded"
    assert ledger.status().state is State.SUCCEEDED
    assert done(ledger) == list(range(48))


def test_the_victim_in_the_middle_of_a_commit(client: Redis, run_id: str) -> None:
    """It has computed more than it has left: what is beyond is refused, and the thief's counts."""
    ledger = leased(client, run_id, 10, 10)
    at_pace(ledger, 1)
    ledger.steal("thief")
    assert chunk(ledger, 1).stop == 5
    reply = commit(ledger, 1, 0, 8, say="victim")
    assert (reply.status, reply.next, reply.stop) == ("refused", 0, 5)
    assert ledger.status().duplicates == 3
    assert commit(ledger, 1, 0, 5, say="victim").status == "recorded"
    assert claimed(ledger, 2, "thief") == Claim(2, 5, 10, 5, False, 0, 1)
    assert commit(ledger, 2, 5, 5, say="thief").state is State.SUCCEEDED
    assert [say for _, (_, say) in outcomes(client, ledger.keys.results)] == ["victim"] * 5 + ["thief"] * 5


def test_the_victim_dies_and_so_does_the_thief(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id, 10, 10)
    at_pace(ledger, 1)
    ledger.steal("thief")  # and dies: the chunk is on the queue, for anybody
    ledger.reap("w1")
    assert sorted(queued(ledger)) == [1, 2]
    for number in (1, 2):
        there = claimed(ledger, number, "third")
        assert commit(ledger, number, there.next, there.stop - there.next).status == "recorded"
    assert ledger.status().state is State.SUCCEEDED


def test_what_was_stolen_has_as_many_attempts_left(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id, 10, 10)
    commit(ledger, 1, 0, 2)
    at_pace(ledger, 1)
    store(ledger, replace(chunk(ledger, 1), attempt=3))
    ledger.steal("thief")
    assert [c.attempt for c in chunks(ledger)] == [3, 3]


def test_the_victim_is_told_on_its_own_channel(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id)
    at_pace(ledger, 1)
    listener: Any = client.pubsub()  # type: ignore[no-untyped-call]
    listener.subscribe(nudge_channel(run_id, "w1"), nudge_channel(run_id, "w2"))
    for _ in range(2):
        assert listener.get_message(timeout=5)["type"] == "subscribe"
    ledger.steal("thief")
    message = listener.get_message(timeout=5)
    assert (message["channel"].decode(), message["data"]) == (nudge_channel(run_id, "w1"), b"1")
    listener.close()


def test_to_ask_where_the_chunk_ends_changes_nothing(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id)
    commit(ledger, 1, 0, 10)
    at_pace(ledger, 1)
    ledger.steal("thief")
    before = client.hget(ledger.keys.chunks, "1")
    reply = ledger.commit(1, 10, 0)
    assert (reply.status, reply.next, reply.stop) == ("recorded", 10, chunk(ledger, 1).stop)
    assert client.hget(ledger.keys.chunks, "1") == before


def test_a_new_chunk_is_estimated_by_what_the_run_knows(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id, 200, 100)
    ledger.commit(1, 0, 1, results=([(0, 1)], b""), begun=2, item_seconds=0.25)
    assert chunk(ledger, 1).item_ns == 250_000_000
    ledger.release(2, "w2", "because")
    claimed(ledger, 2, "w3")
    assert chunk(ledger, 2).item_ns == 250_000_000


def test_events_tell_who_stole_what(client: Redis, run_id: str) -> None:
    ledger = leased(client, run_id)
    at_pace(ledger, 1)
    ledger.steal("thief")
    events = [fields for _, fields in cast(Any, client.xrange(ledger.keys.events))]
    stolen = next(fields for fields in events if fields[b"kind"] == b"steal")
    told = {name.decode(): value.decode() for name, value in stolen.items()}
    assert told == {"kind": "steal", "worker": "thief", "chunk": "1", "detail": "50-100"}
