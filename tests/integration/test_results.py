"""Reading outcomes back: in order, as they come, while workers add to them and servers fail. On a real server."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from piecework import results as results_module
from piecework.errors import CorruptData
from piecework.items import iterable
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework.results import Outcome, ResultReader
from piecework_producer.pile import fill
from tests.ledger_fixture import Chunk, commit, sealed, store


def reader_of(ledger: Ledger, **options: bool) -> ResultReader:
    return ResultReader(ledger, ledger.spec(), **options)


def indices(outcomes: Iterator[Outcome]) -> list[int]:
    return [outcome.index for outcome in outcomes]


def claimed(ledger: Ledger, *chunks: int) -> Ledger:
    for chunk in chunks:
        assert ledger.claim(chunk, f"w{chunk}", 60) is not None
    return ledger


def test_order_is_restored_across_chunks(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 30, 10), 1, 2, 3)
    reader = reader_of(ledger)

    commit(ledger, 3, 20, 10)
    commit(ledger, 1, 0, 4)
    assert indices(reader.in_order()) == [0, 1, 2, 3]
    commit(ledger, 2, 10, 5)
    assert indices(reader.in_order()) == []
    commit(ledger, 1, 4, 6)
    assert indices(reader.in_order()) == list(range(4, 15))
    assert indices(reader.rest()) == list(range(20, 30))
    commit(ledger, 2, 15, 5)
    assert indices(reader.in_order()) == [], "who asked for the rest has left the order"


def test_items_results_and_failures_come_together(client: Redis, run_id: str) -> None:
    pile = iterable([f"item {index}" for index in range(20)])
    ledger = Ledger(client, run_id)
    fill(ledger, Spec(handler="m:f", items="iterable"), pile, parallelism=1, chunk_size=20, keep_seconds=60)
    claimed(ledger, 1)

    commit(ledger, 1, 0, 20, failing=[3, 4, 11], say="x")

    found = list(reader_of(ledger).in_order())
    assert [(one.index, one.item) for one in found] == [(index, f"item {index}") for index in range(20)]
    assert [one.index for one in found if one.error] == [3, 4, 11]
    assert found[2].result == [2, "x"]
    assert found[3].error is not None
    assert (found[3].error.type, found[3].error.message, found[3].result) == ("ValueError", "boom", None)


def test_failures_alone_do_not_read_the_results(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 20, 10), 1, 2)
    commit(ledger, 2, 10, 10, failing=[12, 19])
    commit(ledger, 1, 0, 10, failing=[0, 1, 7])
    client.xadd(ledger.keys.results, {"s": "nonsense", "d": "nonsense"})

    reader = reader_of(ledger, failures_only=True)

    assert indices(reader.in_order()) + indices(reader.rest()) == [0, 1, 7, 12, 19]


def test_an_item_that_is_tried_again_holds_the_order_up(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 10, 10), 1)
    reader = reader_of(ledger)

    commit(ledger, 1, 0, 10, retries={4: 0.0})
    assert indices(reader.in_order()) == [0, 1, 2, 3]
    ledger.tend()
    claimed(ledger, 2)
    commit(ledger, 2, 4, 1)
    assert indices(reader.in_order()) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("room", [0, 3000])
def test_what_has_to_wait_beyond_the_room_is_read_again(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(results_module, "_ROOM_BYTES", room)
    ledger = claimed(sealed(client, run_id, 100, 10), *range(1, 11))
    reader = reader_of(ledger)

    for chunk in range(10, 1, -1):
        for part in range(2):
            start = (chunk - 1) * 10 + part * 5
            commit(ledger, chunk, start, 5, failing=[start + 2], say=str(chunk) * 300)
            assert indices(reader.in_order()) == []
    commit(ledger, 1, 0, 10)

    assert indices(reader.in_order()) == list(range(100))
    assert reader._kept_bytes == 0


def test_an_entry_of_many_spans_is_read_in_linear_time(client: Redis, run_id: str) -> None:
    """Every second of 20,000 items failed: 10,000 spans in one entry."""
    ledger = claimed(sealed(client, run_id, 20_000, 20_000), 1)
    commit(ledger, 1, 0, 20_000, failing=range(0, 20_000, 2))

    begun = time.process_time()
    assert indices(reader_of(ledger).in_order()) == list(range(20_000))
    reader = reader_of(ledger, failures_only=True)
    assert indices(reader.in_order()) + indices(reader.rest()) == list(range(0, 20_000, 2))
    assert time.process_time() - begun < 5.0


def test_as_they_come_is_by_entry_and_leaves_nothing_out(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 20, 10), 1, 2)
    reader = reader_of(ledger)

    commit(ledger, 2, 10, 10)
    commit(ledger, 1, 0, 5, failing=[1])
    assert sorted(indices(reader.as_they_come())) == [0, 1, 2, 3, 4, *range(10, 20)]
    commit(ledger, 1, 5, 5)
    assert indices(reader.as_they_come()) == [5, 6, 7, 8, 9]


def test_more_entries_than_are_read_at_once(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 230, 230), 1)
    for index in range(230):
        commit(ledger, 1, index, 1, failing=[index] if index % 3 == 0 else [])

    assert indices(reader_of(ledger).in_order()) == list(range(230))
    assert sorted(indices(reader_of(ledger).as_they_come())) == list(range(230))


def test_a_caller_with_other_things_to_do_gets_a_part(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 100, 100), 1)
    for index in range(100):
        commit(ledger, 1, index, 1)
    reader = reader_of(ledger)

    first = indices(reader.in_order(at_most_seconds=0.0))

    assert 0 < len(first) < 100
    assert first + indices(reader.in_order()) == list(range(100))


def test_waiting_ends_with_news_and_without(client: Redis, run_id: str) -> None:
    ledger = claimed(sealed(client, run_id, 10, 10), 1)
    reader = reader_of(ledger)

    begun = time.monotonic()
    assert indices(reader.in_order(0.2)) == []
    assert 0.15 < time.monotonic() - begun < 2.0
    commit(ledger, 1, 0, 10)
    begun = time.monotonic()
    assert indices(reader.in_order(30.0)) == list(range(10))
    assert time.monotonic() - begun < 5.0


class Flaky:
    """A client that loses its connection every few calls."""

    def __init__(self, client: Redis) -> None:
        self._client, self._calls = client, 0

    def __getattr__(self, name: str) -> Any:
        self._calls += 1
        if self._calls % 7 == 0:
            raise RedisConnectionError("gone")
        return getattr(self._client, name)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_a_reader_keeps_its_place_when_the_server_goes_away(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch, ordered: bool, room: int
) -> None:
    monkeypatch.setattr(results_module, "_ROOM_BYTES", room)
    ledger = Ledger(client, run_id)
    pile = iterable(["x" * 10_000 for _ in range(300)])
    fill(ledger, Spec(handler="m:f", items="iterable"), pile, parallelism=1, chunk_size=100, keep_seconds=60)
    claimed(ledger, 1, 2, 3)
    for chunk in (3, 1, 2):
        for part in range(10):
            start = (chunk - 1) * 100 + part * 10
            commit(ledger, chunk, start, 10, failing=[start + 3])
    reader = reader_of(ledger)
    ledger.client = Flaky(client)  # type: ignore[assignment]

    found: list[int] = []
    losses = 0
    while True:
        try:
            for outcome in reader.in_order() if ordered else reader.as_they_come():
                found.append(outcome.index)
            break
        except RedisConnectionError:
            losses += 1
            assert losses < 1000

    assert losses > 3
    assert (found if ordered else sorted(found)) == list(range(300))


@pytest.mark.parametrize(
    "entry",
    [
        {"s": "0+5"},
        {"d": "x"},
        {"s": "0+5", "d": "damaged"},
        {"s": "-1+5", "d": "x"},
        {"s": "\xff", "d": "x"},
    ],
)
def test_damage_is_told_with_the_place(client: Redis, run_id: str, entry: dict[str, str]) -> None:
    ledger = sealed(client, run_id, 10, 10)
    client.xadd(ledger.keys.results, {name: value.encode("latin-1") for name, value in entry.items()})

    with pytest.raises(CorruptData, match=rf"run {run_id}, piecework:1:{run_id}:results \d+-\d+"):
        indices(reader_of(ledger).in_order())


def test_a_damaged_payload_is_told(client: Redis, run_id: str) -> None:
    ledger = Ledger(client, run_id)
    fill(ledger, Spec(handler="m:f", items="iterable"), iterable(["a", "b"]), parallelism=2, keep_seconds=60)
    claimed(ledger, 1, 2)
    commit(ledger, 2, 1, 1)
    packed = client.hget(ledger.keys.payload, "0")
    fill(
        Ledger(client, run_id + "x"),
        Spec(handler="m:f", items="iterable"),
        iterable(["a"]),
        parallelism=1,
        keep_seconds=60,
    )
    short = client.hget(Ledger(client, run_id + "x").keys.payload, "0")
    assert packed is not None
    assert short is not None
    client.hset(ledger.keys.payload, "0", short)

    with pytest.raises(CorruptData, match=rf"run {run_id}, block 0: item 1 is missing"):
        indices(reader_of(ledger).as_they_come())


def test_a_server_that_forgot_its_last_writes_has_them_told_once_they_are_made_anew(client: Redis, run_id: str) -> None:
    """0..19 were told; the server comes back without 10..19, which are recorded anew in other spans."""
    ledger = claimed(sealed(client, run_id, 40, 40), 1)
    reader = reader_of(ledger)
    commit(ledger, 1, 0, 10)
    commit(ledger, 1, 10, 10)
    assert indices(reader.in_order()) == list(range(20))
    entries: Any = client.xrevrange(ledger.keys.results, count=1)
    client.xdel(ledger.keys.results, entries[0][0])
    store(ledger, Chunk(1, 0, 40, 10, deliveries=1, owner="worker"))
    commit(ledger, 1, 10, 25)
    commit(ledger, 1, 35, 5)
    assert indices(reader.in_order()) == list(range(20, 40))
    assert list(reader.rest()) == []
