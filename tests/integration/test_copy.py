"""Copies: which item a second worker may do as well, who wins, and what every party learns of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from redis import Redis

from piecework.audit import audit
from piecework.keys import nudge_channel
from piecework.ledger import Ledger
from piecework.records import Claim
from piecework.repair import repair
from piecework.states import State
from piecework_producer.pile import rq_job_template
from tests.ledger_fixture import (
    BOOM,
    at_pace,
    chunk,
    claimed,
    commit,
    done,
    failed,
    keys_of,
    members,
    outcomes,
    sealed,
    set_all_to_the_past,
    store,
)

Change = Callable[[Ledger], object]


def straggling(client: Redis, run: str, total: int = 5, **spec: Any) -> Ledger:
    """Chunk 1, items 0 to 4, is w1's, and has 4 in hand for ten times as long as each of the others took."""
    ledger = sealed(client, run, total, 5, **spec)
    claimed(ledger, 1, "w1")
    commit(ledger, 1, 0, 4, worker="w1")
    at_pace(ledger, 1, since=10)
    return ledger


def copied(ledger: Ledger, worker: str = "w2") -> Claim:
    claim, _ = ledger.copy(worker, 60)
    assert claim is not None
    return claim


def copies(ledger: Ledger) -> dict[int, tuple[float, str]]:
    """Chunk -> seconds until its copy runs out, and whose it is."""
    now = ledger.client.time()[0]
    stored = cast(dict[bytes, bytes], ledger.client.hgetall(ledger.keys.copies))
    pairs = {int(number): text.decode().split(" ", 1) for number, text in stored.items()}
    return {number: (int(expiry) / 1000 - now if expiry != "0" else 0, who) for number, (expiry, who) in pairs.items()}


def run_out(ledger: Ledger, number: int = 1) -> None:
    """A copy that nobody has renewed."""
    ((_, who),) = copies(ledger).values()
    ledger.client.hset(ledger.keys.copies, str(number), f"1 {who}")


@pytest.fixture
def hears(client: Redis, run_id: str) -> Iterator[Callable[[], list[tuple[str, bytes]]]]:
    """What the workers w1 and w2 have been told by now."""
    listener: Any = client.pubsub()  # type: ignore[no-untyped-call]
    names = {nudge_channel(run_id, worker).encode(): worker for worker in ("w1", "w2")}
    listener.subscribe(*names)
    for _ in names:
        assert listener.get_message(timeout=5)["type"] == "subscribe"

    def heard() -> list[tuple[str, bytes]]:
        client.publish(nudge_channel(run_id, "w1"), "the last")
        found = []
        while (message := listener.get_message(timeout=5))["data"] != b"the last":
            found.append((names[message["channel"]], message["data"]))
        return found

    yield heard
    listener.close()


def test_a_copy_leaves_chunk_and_lease_as_they_are(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    before, lease = chunk(ledger, 1), client.zscore(ledger.keys.leases, "1")
    assert copied(ledger) == Claim(1, 0, 5, 4, False, 0, 1, copy=True)
    assert chunk(ledger, 1) == before
    assert client.zscore(ledger.keys.leases, "1") == lease
    ((left, who),) = copies(ledger).values()
    assert (who, 55 < left <= 61) == ("w2", True)
    assert ledger.status().in_flight == 1, "the item is not counted twice"


def held_otherwise(**change: Any) -> Change:
    return lambda ledger: store(ledger, replace(chunk(ledger, 1), **change))


def test_who_has_done_nothing_yet_is_measured_by_the_others(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    held_otherwise(item_ns=0)(ledger)
    assert ledger.copy("w2", 60) == (None, 0.0)
    client.hset(ledger.keys.run, "item_ns", 10**9)
    assert copied(ledger).chunk == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(held_otherwise(careful=1), id="careful: its horse may have died of it"),
        pytest.param(held_otherwise(stop=6), id="two items are left"),
        pytest.param(held_otherwise(item_ns=0), id="nobody knows how long an item takes"),
        pytest.param(held_otherwise(owner="w2"), id="its own"),
        pytest.param(lambda ledger: ledger.pause(True), id="paused"),
        pytest.param(lambda ledger: ledger.abort(State.CANCELLED, ""), id="over"),
        pytest.param(lambda ledger: ledger.client.zadd(ledger.keys.waiting, {"2": 1}), id="a chunk waits"),
        pytest.param(lambda ledger: ledger.client.zadd(ledger.keys.delayed, {"2": 1}), id="a retry is to come"),
        pytest.param(lambda ledger: copied(ledger, "w3"), id="copied by another"),
        pytest.param(lambda ledger: copied(ledger, "w2"), id="copied by itself, which died"),
        pytest.param(lambda ledger: ledger.delete(), id="deleted"),
    ],
)
def test_what_is_not_copied(client: Redis, run_id: str, change: Change) -> None:
    ledger = straggling(client, run_id)
    change(ledger)
    before = copies(ledger).keys()
    assert ledger.copy("w2", 60) == (None, 0.0)
    assert copies(ledger).keys() == before


@pytest.mark.parametrize(
    ("since", "item_seconds", "again"),
    [
        (0.5, 0.001, 0.25),  # nothing is a straggler below 0.75 s
        (1.0, 0.001, None),
        (5.0, 2.0, 1.0),  # three times as long as the others, less is nothing unusual
        (6.5, 2.0, None),
    ],
)
def test_when_an_item_is_a_straggler(
    client: Redis, run_id: str, since: float, item_seconds: float, again: float | None
) -> None:
    ledger = straggling(client, run_id)
    at_pace(ledger, 1, since=since, item_seconds=item_seconds)
    claim, seconds = ledger.copy("w2", 60)
    assert (claim is None) == (again is not None)
    assert abs(seconds - (again or 0.0)) < 0.15, "the clock of the test runs meanwhile"


def test_the_one_in_hand_longest_and_each_once(client: Redis, run_id: str) -> None:
    ledger = sealed(client, run_id, 3, 1)
    for number in (1, 2, 3):
        claimed(ledger, number, f"w{number}")
        at_pace(ledger, number, since=[9, 20, 15][number - 1])
    assert [copied(ledger, f"c{i}").chunk for i in range(3)] == [2, 3, 1]
    assert ledger.copy("c4", 60) == (None, 0.0)


@pytest.mark.parametrize(("first", "second"), [("w1", "w2"), ("w2", "w1")])
def test_the_first_commit_wins_and_the_other_is_a_duplicate_and_told(
    client: Redis, run_id: str, hears: Callable[[], list[tuple[str, bytes]]], first: str, second: str
) -> None:
    ledger = straggling(client, run_id, total=10)
    claimed(ledger, 2, "w3")
    copied(ledger)
    assert commit(ledger, 1, 4, 1, worker=first, say=first).status == "recorded"
    assert hears() == [(second, b"over")]
    assert ledger.status().duplicates == 1
    assert not ledger.renew(1, second, 60)[0]
    assert commit(ledger, 1, 4, 1, worker=second).status == "refused"
    assert ledger.status().duplicates == 1, "it was counted already"
    assert dict(outcomes(client, ledger.keys.results))[4] == [4, first]
    assert copies(ledger) == {}
    assert commit(ledger, 1, 4, 1, worker=second).status == "refused"
    assert ledger.status().duplicates == 2, "once"


def test_to_ask_where_the_ledger_is_takes_nothing_off_the_count(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id, total=10)
    claimed(ledger, 2, "w3")
    copied(ledger)
    commit(ledger, 1, 4, 1, worker="w1")
    assert ledger.commit(1, 4, 0, worker="w2").status == "refused"
    assert ledger.status().duplicates == 1
    commit(ledger, 1, 4, 1, worker="w2")
    assert ledger.status().duplicates == 1


@pytest.mark.parametrize("again", [False, True])
def test_the_first_commit_wins_if_it_is_a_failure_too(client: Redis, run_id: str, again: bool) -> None:
    """With retries left it is tried again, alone: once."""
    ledger = straggling(client, run_id)
    copied(ledger)
    retries = {4: 60.0} if again else None
    assert commit(ledger, 1, 4, 1, worker="w2", failing=[] if again else [4], retries=retries).status == "recorded"
    assert commit(ledger, 1, 4, 1, worker="w1").status == ("refused" if again else "over")
    assert ledger.status().duplicates == 1
    assert failed(ledger) == ([] if again else [4])
    assert len(members(ledger, ledger.keys.delayed)) == again


def test_the_end_of_the_run_forgets_all_copies(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    assert commit(ledger, 1, 4, 1, worker="w2").state is State.SUCCEEDED
    assert ledger.status().duplicates == 1
    assert not client.exists(ledger.keys.copies)
    assert ledger.renew(1, "w1", 60) == (False, State.SUCCEEDED, False)


def test_a_copy_lasts_as_long_as_it_is_renewed(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    run_out(ledger)
    assert ledger.renew(1, "w2", 60)[0], "nobody took it"
    assert ledger.copy("w3", 60)[0] is None
    run_out(ledger)
    copied(ledger, "w3")
    assert not ledger.renew(1, "w2", 60)[0]
    assert [who for _, who in copies(ledger).values()] == ["w3"]


def test_a_copy_that_has_run_out_is_no_duplicate_unless_it_is_committed(
    client: Redis, run_id: str, hears: Callable[[], list[tuple[str, bytes]]]
) -> None:
    ledger = straggling(client, run_id, total=10)
    claimed(ledger, 2, "w3")
    copied(ledger)
    run_out(ledger)
    commit(ledger, 1, 4, 1, worker="w1")
    assert hears() == []
    assert (ledger.status().duplicates, copies(ledger)) == (0, {})
    commit(ledger, 1, 4, 1, worker="w2")
    assert ledger.status().duplicates == 1


def test_a_copy_yields_to_real_work(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id, total=10)
    claimed(ledger, 2, "w3")
    copied(ledger)
    assert ledger.renew(1, "w2", 60)[0]
    ledger.release(2, "w3", "because")
    assert not ledger.renew(1, "w2", 60)[0]
    assert ledger.renew(1, "w1", 60)[0], "the owner stays"


def test_a_copy_ends_at_a_pause(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    ledger.pause(True)
    assert ledger.renew(1, "w2", 60) == (False, State.RUNNING, True)


@pytest.mark.parametrize("how", ["expires", "reaped", "hands back"])
def test_the_owner_goes_and_the_copy_goes_on(client: Redis, run_id: str, how: str) -> None:
    """Its own chunk on the queue is no other work: nobody else may be there to take it."""
    ledger = straggling(client, run_id)
    copied(ledger)
    if how == "expires":
        set_all_to_the_past(ledger, ledger.keys.leases)
        ledger.tend()
    elif how == "reaped":
        ledger.reap("w1")
    else:
        ledger.release(1, "w1", "because")
    assert members(ledger, ledger.keys.waiting) == {1}
    assert ledger.renew(1, "w2", 60)[0]
    assert commit(ledger, 1, 4, 1, worker="w2").state is State.SUCCEEDED
    assert (done(ledger), ledger.status().duplicates) == ([0, 1, 2, 3, 4], 0)


def test_the_owner_and_its_successor_and_the_copy(client: Redis, run_id: str) -> None:
    """Whoever is first; the zombie's work is counted as ever."""
    ledger = straggling(client, run_id, total=10)
    claimed(ledger, 2, "w4")
    copied(ledger)
    ledger.reap("w1")
    claimed(ledger, 1, "w3")
    assert commit(ledger, 1, 4, 1, worker="w2").status == "recorded"
    assert copies(ledger) == {1: (0, "w3")}
    commit(ledger, 1, 4, 1, worker="w1")
    assert ledger.status().duplicates == 2
    commit(ledger, 1, 4, 1, worker="w3")
    assert ledger.status().duplicates == 2


def test_whose_copy_failed_may_become_the_owner(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    ledger.reap("w1")
    claimed(ledger, 1, "w2")
    assert commit(ledger, 1, 4, 1, worker="w2").state is State.SUCCEEDED
    assert ledger.status().duplicates == 0


def test_a_copy_is_charged_with_nothing_and_hands_nothing_back(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    before = chunk(ledger, 1)
    assert not ledger.release(1, "w2", "because")
    assert ledger.blame_crash(1, "w2", 4, BOOM, 1) is None
    assert ledger.reap("w2") == 0
    assert chunk(ledger, 1) == before
    assert members(ledger, ledger.keys.leases) == {1}


def test_the_owner_s_item_is_ended_while_a_copy_is_out(client: Redis, run_id: str) -> None:
    """`--item-timeout`: recorded as failed, and the copy comes too late."""
    ledger = straggling(client, run_id, total=10)
    claimed(ledger, 2, "w3")
    copied(ledger)
    assert ledger.blame_failure(1, "w1", 4, BOOM, None) is True
    assert copies(ledger) == {}
    assert not ledger.renew(1, "w2", 60)[0]
    assert commit(ledger, 1, 4, 1, worker="w2").status == "refused"
    assert failed(ledger) == [4]


def test_a_failed_item_that_is_opened_again(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    commit(ledger, 1, 4, 1, worker="w1", failing=[4])
    assert ledger.retry() == 1
    assert commit(ledger, 1, 4, 1, worker="w2").status == "refused", "the copy was of another chunk"
    claimed(ledger, 2, "w2")
    assert commit(ledger, 2, 4, 1, worker="w2").state is State.SUCCEEDED


def test_events_tell_who_copied_what(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    events = [fields for _, fields in cast(Any, client.xrange(ledger.keys.events))]
    told = {name.decode(): value.decode() for name, value in events[-1].items()}
    assert told == {"kind": "copy", "worker": "w2", "chunk": "1", "detail": "4"}


def test_delete_leaves_no_copy(client: Redis, run_id: str) -> None:
    ledger = straggling(client, run_id)
    copied(ledger)
    ledger.delete()
    assert keys_of(client, run_id) == []


@pytest.mark.parametrize("won", [False, True])
def test_a_run_with_copies_is_sound(client: Redis, run_id: str, won: bool) -> None:
    ledger = straggling(client, run_id, total=10)
    for worker in ("w1", "w3"):
        ledger.join(worker)
    claimed(ledger, 2, "w3")
    copied(ledger)
    if won:
        commit(ledger, 1, 4, 1, worker="w2")
        assert copies(ledger) == {1: (0, "w1")}
    assert audit(ledger).findings == ()


@pytest.mark.parametrize(
    ("number", "text"),
    [("1", "soon w2"), ("1", ""), ("1", "0 w2"), ("2", "99999999999999 w2"), ("77", "0 w2"), ("x", "5 w2")],
)
def test_foreign_copies_are_named_and_dropped(client: Redis, run_id: str, number: str, text: str) -> None:
    """They hold nobody up meanwhile."""
    ledger = straggling(client, run_id, total=15)
    for worker in ("w1", "w3"):
        ledger.join(worker)
        claimed(ledger, {"w1": 3, "w3": 2}[worker], worker)
    commit(ledger, 2, 5, 5, worker="w3")
    client.hset(ledger.keys.copies, number, text)
    (finding,) = audit(ledger).findings
    assert finding.text == f"what {ledger.keys.copies} has for {number!r}, {text!r}, is no copy of a chunk"
    assert not ledger.renew(1, "w9", 60)[0]
    assert repair(ledger, rq_job_template(client, run_id)).left.findings == ()
    assert not client.exists(ledger.keys.copies)
    client.hset(ledger.keys.copies, number, text)
    assert commit(ledger, 1, 4, 1, worker="w1").status == "recorded"
