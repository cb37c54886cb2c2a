"""Filling runs: streaming, going on, refusing, cleaning up. The producer's own death is for the chaos tests."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import RedisError

from piecework.errors import BadInput, PieceworkError, RunIsOver, SpecConflict, UnknownRun, UsageError
from piecework.items import Pile, Range, iterable
from piecework.keys import run_keys
from piecework.ledger import Ledger
from piecework.payload import Items
from piecework.records import Spec, budget
from piecework.states import State
from piecework_producer import pile as pile_module
from piecework_producer.pile import fill
from piecework_producer.session import Session
from tests.server_fixture import ServerProcess

ITEMS = [f"item {index} " + "x" * 1000 for index in range(2000)]
"""Some eight blocks."""


def spec(pile: Pile, **fields: Any) -> Spec:
    if isinstance(pile, Range):
        fields = {"items": "range", "start": pile.start, "step": pile.step, "total": pile.total} | fields
    else:
        fields = {"items": pile.kind} | fields
    return Spec(handler="m:f", **fields)


def filled(client: Redis, run: str, values: Any, **options: Any) -> tuple[bool, State]:
    pile = iterable(values)
    fields = options.pop("spec", {})
    return fill(Ledger(client, run), spec(pile, **fields), pile, **{"parallelism": 2, "keep_seconds": 600} | options)


def chunks(client: Redis, run: str) -> list[tuple[int, int]]:
    packed = cast(list[bytes], client.hvals(run_keys(run).chunks))
    return sorted((int(start), int(stop)) for start, stop, *_ in (chunk.split() for chunk in packed))


def items(client: Redis, run: str) -> list[Any]:
    ledger = Ledger.find(client, run)
    return Items(ledger, ledger.spec()).span(0, ledger.status().total)


def exists(client: Redis, run: str) -> bool:
    return bool(client.exists(run_keys(run).run))


def test_items_come_back_as_they_were_and_chunks_tile_them(client: Redis, run_id: str) -> None:
    told: list[int] = []

    assert filled(client, run_id, iter(ITEMS), progress=told.append) == (True, State.RUNNING)

    assert items(client, run_id) == ITEMS
    assert chunks(client, run_id) == [(start, start + 250) for start in range(0, 2000, 250)]
    assert told == sorted(told)
    assert told[-1] == 2000
    assert len(told) >= 7, "in blocks, not at once"


@pytest.mark.parametrize("values", [range(0), [], range(5, 0)])
def test_an_empty_pile_succeeds_at_once(client: Redis, run_id: str, values: Any) -> None:
    assert filled(client, run_id, values) == (True, State.SUCCEEDED)
    assert filled(client, run_id, values) == (False, State.SUCCEEDED)


@pytest.mark.parametrize(
    ("total", "parallelism", "size", "expected"),
    [(1, 4, None, [1]), (17, 2, None, [3, 3, 3, 3, 3, 2]), (10, 1, 4, [4, 4, 2]), (3, 1, 100, [3])],
)
def test_sizes_of_chunks(
    client: Redis, run_id: str, total: int, parallelism: int, size: int | None, expected: list[int]
) -> None:
    filled(client, run_id, range(total), parallelism=parallelism, chunk_size=size)
    assert [stop - start for start, stop in chunks(client, run_id)] == expected


def test_chunks_of_large_items_are_bounded_by_their_bytes(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pile_module, "_CHUNK_BYTES", 3000)
    filled(client, run_id, ["x" * 997 for _ in range(100)], parallelism=1)
    assert {stop - start for start, stop in chunks(client, run_id)} == {3, 1}


def test_a_billion_items_are_submitted_at_once_and_cost_no_memory(client: Redis, run_id: str) -> None:
    client.info()
    begun, cpu = time.perf_counter(), time.process_time()

    filled(client, run_id, range(1_000_000_000), parallelism=8)

    assert time.process_time() - cpu < 1.0
    assert time.perf_counter() - begun < 5.0
    assert sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter()) < 100_000
    assert Ledger(client, run_id).status().total == 1_000_000_000


def test_too_many_chunks_are_refused_before_anything_is_kept(client: Redis, run_id: str) -> None:
    with pytest.raises(UsageError, match=r"1,000,000,000 chunks .* give at least 1000$"):
        filled(client, run_id, range(1_000_000_000), chunk_size=1)
    assert not exists(client, run_id)


PEAK = """
import atexit, re
from pathlib import Path
from piecework_producer.cli import main
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]))
main()
"""
"""A command that prints its peak in KiB. (`ru_maxrss` counts what the process was before exec: pytest.)"""


def test_memory_of_the_producer_does_not_grow_with_the_input(
    client: Redis, run_id: str, shared_server: ServerProcess, tmp_path: Path
) -> None:
    """200,000 lines of 100 bytes are 20 MB, and were they held, a hundred at least in Python."""
    peaks = []
    for count in (1000, 200_000):
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as file:
            file.writelines(f'{{"index": {index:>10}, "text": "{"x" * 66}"}}\n' for index in range(count))
        assert source.stat().st_size == count * 100
        command = [sys.executable, "-c", PEAK, "submit", "m:f", "--jsonl", str(source)]
        command += ["--run", f"{run_id}-{count}", "--redis", shared_server.url]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        assert told[0] == f"{run_id}-{count}"
        peaks.append(int(told[1]))

    assert Ledger(client, f"{run_id}-200000").status().total == 200_000
    assert peaks[1] < 200_000
    assert peaks[1] - peaks[0] < 10_000


# --- going on


def test_the_same_submission_goes_on_and_stores_nothing_twice(client: Redis, run_id: str) -> None:
    filled(client, run_id, ITEMS)
    before = client.hgetall(run_keys(run_id).payload)

    assert filled(client, run_id, ITEMS, parallelism=7, chunk_size=3) == (False, State.RUNNING)

    assert client.hgetall(run_keys(run_id).payload) == before
    assert len(chunks(client, run_id)) == 8, "a run that is sealed is not cut again"


@pytest.mark.parametrize("left_after", [0, 1, 700, 1999, 2000])
def test_a_fill_that_was_left_goes_on_where_it_stopped(client: Redis, run_id: str, left_after: int) -> None:
    class Killed(RedisError):
        """Stands for the process's end: nothing is tidied up."""

    def leaving() -> Iterator[str]:
        yield from ITEMS[:left_after]
        raise Killed

    with pytest.raises(Killed):
        filled(client, run_id, leaving())
    assert Ledger(client, run_id).status().state is State.FILLING
    assert client.ttl(run_keys(run_id).run) > 0, "a run that nobody seals does not stay for ever"

    assert filled(client, run_id, iter(ITEMS)) == (False, State.RUNNING)

    assert items(client, run_id) == ITEMS


@pytest.mark.parametrize(
    "others",
    [ITEMS[:-1], [*ITEMS, "one more"], ["other", *ITEMS[1:]], [*ITEMS[:-1], "other"], ["only one"], []],
    ids=["one less", "one more", "first", "last", "one", "none"],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_other_items_under_the_same_id_are_refused_and_change_nothing(
    client: Redis, run_id: str, others: list[str], sealed: bool
) -> None:
    if sealed:
        filled(client, run_id, ITEMS)
    else:
        ledger = Ledger(client, run_id)
        ledger.open(spec(iterable(ITEMS)), pile_module.rq_job_template(client, run_id))
        pile_module._Filling(ledger, lambda _: None, pile_module._once).stream(iterable(ITEMS).encoded)  # type: ignore[union-attr]
    before = client.hgetall(run_keys(run_id).payload)
    if not sealed and len(others) > len(ITEMS):
        return  # the input has grown since: it is the same so far

    with pytest.raises(SpecConflict, match=rf"run {run_id} .*(exists with other items|filled with other items)"):
        filled(client, run_id, others)

    assert client.hgetall(run_keys(run_id).payload) == before


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (range(10), range(11), "total"),
        (range(10), range(1, 11), "start"),
        (range(10), range(0, 100, 10), "step"),
        (range(10), list(range(10)), "items"),
    ],
)
def test_another_specification_is_refused_naming_the_field(
    client: Redis, run_id: str, first: Any, second: Any, field: str
) -> None:
    filled(client, run_id, first)
    with pytest.raises(SpecConflict, match=rf"run {run_id} exists with another specification: its {field} is"):
        filled(client, run_id, second)


@pytest.mark.parametrize("field", [{"retries": 1}, {"max_failures": "5%"}, {"batch": True}, {"crash_limit": 2}])
def test_other_options_are_refused_naming_the_field(client: Redis, run_id: str, field: dict[str, Any]) -> None:
    filled(client, run_id, range(3))
    with pytest.raises(SpecConflict, match=f"its {next(iter(field))} is"):
        filled(client, run_id, range(3), spec=field)


def test_two_producers_of_one_run_at_once(client: Redis, shared_server: ServerProcess, run_id: str) -> None:
    meet = threading.Barrier(2)
    answers: list[tuple[bool, State]] = []

    def produce() -> None:
        def together() -> Iterator[str]:
            for number, item in enumerate(ITEMS):
                if number % 500 == 0:
                    meet.wait(10)
                yield item

        with shared_server.client() as own:
            answers.append(filled(own, run_id, together()))

    threads = [threading.Thread(target=produce) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(created for created, _ in answers) == [False, True]
    assert items(client, run_id) == ITEMS
    tiles = chunks(client, run_id)
    assert [start for start, _ in tiles] == [0, *(stop for _, stop in tiles[:-1])]
    assert tiles[-1][1] == 2000


# --- errors


def failing_after(good: list[Any], error: BaseException) -> Iterator[Any]:
    yield from good
    raise error


@pytest.mark.parametrize("good", [0, 1, 2000])
@pytest.mark.parametrize("error", [ValueError("of the generator"), KeyboardInterrupt(), BadInput("bad line")])
def test_a_new_run_whose_input_fails_is_removed(client: Redis, run_id: str, good: int, error: BaseException) -> None:
    with pytest.raises(type(error)):
        filled(client, run_id, failing_after(ITEMS[:good], error))
    assert not exists(client, run_id)
    assert not client.exists("piecework:1:runs")


def test_an_item_that_cannot_be_stored_is_named_and_leaves_nothing(client: Redis, run_id: str) -> None:
    with pytest.raises(BadInput, match=r"^item 1500: a value of type object"):
        filled(client, run_id, [*ITEMS[:1500], object()])
    assert not exists(client, run_id)


def test_a_half_filled_run_is_removed_for_bad_input_only_if_it_is_the_same_input(client: Redis, run_id: str) -> None:
    with pytest.raises(RedisError):
        filled(client, run_id, failing_after(ITEMS[:1000], RedisError("gone")))

    with pytest.raises(BadInput):
        filled(client, run_id, failing_after(["other"], BadInput("bad line")))
    assert exists(client, run_id), "another file by mistake"
    with pytest.raises(BadInput):
        filled(client, run_id, failing_after(ITEMS[:1500], BadInput("bad line")))
    assert not exists(client, run_id)


def test_bad_input_leaves_a_run_alone_that_has_begun(client: Redis, run_id: str) -> None:
    filled(client, run_id, ITEMS)
    with pytest.raises(BadInput):
        filled(client, run_id, failing_after(ITEMS, BadInput("bad line")))
    assert Ledger(client, run_id).status().state is State.RUNNING


def test_the_error_is_told_also_when_the_run_is_gone(client: Redis, run_id: str) -> None:
    def vanishing() -> Iterator[str]:
        yield from ITEMS[:10]
        Ledger(client, run_id).delete()
        raise BadInput("bad line")

    with pytest.raises(BadInput, match="bad line"):
        filled(client, run_id, vanishing())


def test_a_run_that_is_deleted_meanwhile_is_told_of(client: Redis, run_id: str) -> None:
    def deleting() -> Iterator[str]:
        for number, item in enumerate(ITEMS):
            if number == 1000:
                Ledger(client, run_id).delete()
            yield item

    with pytest.raises((SpecConflict, UnknownRun), match="deleted"):
        filled(client, run_id, deleting())


def test_a_run_that_is_cancelled_meanwhile_is_told_of(client: Redis, run_id: str) -> None:
    def cancelling() -> Iterator[str]:
        for number, item in enumerate(ITEMS):
            if number == 1000:
                Ledger(client, run_id).abort(State.CANCELLED, "enough")
            yield item

    with pytest.raises(RunIsOver, match=f"run {run_id} is cancelled: it takes no more items"):
        filled(client, run_id, cancelling())
    assert Ledger(client, run_id).status().state is State.CANCELLED


def test_ctrl_c_while_chunks_are_cut_leaves_nothing(
    client: Redis, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Ledger.cut

    def interrupted(self: Ledger, size: int) -> None:
        cut(self, size)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "cut", interrupted)
    with pytest.raises(KeyboardInterrupt):
        filled(client, run_id, range(1000), chunk_size=1)
    assert client.keys() == []


def test_a_server_that_restarts_in_between_costs_nothing(run_id: str) -> None:
    with ServerProcess("--appendonly", "yes", "--appendfsync", "always") as server:

        def restarting() -> Iterator[str]:
            for number, item in enumerate(ITEMS):
                if number in (300, 1200):
                    server.restart()
                yield item

        with Session(server.url, patience_seconds=20) as session:
            created, state = filled(session.client, run_id, restarting(), lasting=session.lasting)
            assert (created, state) == (True, State.RUNNING)
            assert items(session.client, run_id) == ITEMS


def test_a_server_that_stays_away_leaves_a_run_to_go_on_with(run_id: str) -> None:
    with ServerProcess("--appendonly", "yes", "--appendfsync", "always") as server:

        def killing() -> Iterator[str]:
            yield from ITEMS[:1000]
            server.kill()
            yield from ITEMS[1000:]

        with (
            Session(server.url, patience_seconds=0.3) as session,
            pytest.raises(PieceworkError, match=r"was away for 0\.3 s"),
        ):
            filled(session.client, run_id, killing(), lasting=session.lasting)
        server.restart()
        with Session(server.url) as session:
            assert filled(session.client, run_id, ITEMS, lasting=session.lasting) == (False, State.RUNNING)
            assert items(session.client, run_id) == ITEMS


# --- failure budgets


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("0", (0, False)), ("12", (12, False)), ("5%", (5.0, True)), ("0.5%", (0.5, True))],
)
def test_budgets(text: str | None, expected: tuple[float, bool] | None) -> None:
    assert budget(text) == expected


@pytest.mark.parametrize("text", ["", "%", "x", "-1", "101%", "-1%", "1.5", "nan%", "inf%", "5 %%"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-failures"):
        budget(text)


def test_progress_that_fails_is_an_error_like_others(client: Redis, run_id: str) -> None:
    def broken(_: int) -> None:
        raise BrokenPipeError

    progress: Callable[[int], None] = broken
    with pytest.raises(BrokenPipeError):
        filled(client, run_id, ITEMS, progress=progress)
    assert not exists(client, run_id)
