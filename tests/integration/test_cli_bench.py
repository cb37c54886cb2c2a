"""`piecework bench` and `piecework report` as typed on a machine: figures, pages, and nothing left behind."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from piecework.errors import CorruptData
from piecework.records import Failure, pack_failures
from piecework_producer.run_profile import profile_of
from tests.cli_fixture import Machine
from tests.ledger_fixture import commit, opened, sealed
from tests.server_fixture import eventually
from tests.unit.test_pages import checked


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def nothing_left(machine: Machine) -> None:
    """Neither runs nor logs."""
    assert json.loads(machine.ask("list", "--output", "json").out) == []
    logs = machine.state_dir / "logs"
    assert not logs.exists() or not list(logs.iterdir())


def test_bench_and_a_report_of_a_run_that_it_keeps(machine: Machine) -> None:
    words = ["noop", "-p", "2,1,1", "--items", "2000", "--repetitions", "1", "--json", "b.json", "--keep", "600"]
    ended = machine.run("bench", *words, "--output", "json")

    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert record == json.loads((machine.home / "b.json").read_text())
    assert [degree["parallelism"] for degree in record["degrees"]] == [1, 2]
    for degree in record["degrees"]:
        (repetition,) = degree["repetitions"]
        assert (repetition["state"], repetition["done"]) == ("succeeded", 2000)
        assert repetition["workers"] == degree["parallelism"], "all had joined before the seal"
        assert repetition["items_per_second"] > 0
        assert degree["start_seconds"] > 0
    assert "at least 3 degrees" in record["why_no_law"]
    text = checked((machine.home / "bench.html").read_text(encoding="utf-8"))
    assert "piecework bench noop -p 2,1,1" in text

    (kept, *_) = json.loads(machine.ask("list", "--output", "json").out)
    reported = machine.ask("report", kept["run"])
    assert reported.code == 0, reported.err
    assert "2000/2000" in reported.out
    assert "2,000 items" in checked((machine.home / f"{kept['run']}.html").read_text(encoding="utf-8"))
    refused = machine.ask("report", kept["run"], "--out", "no/such/place.html")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert machine.ask("report", "unknown").code == 2


def test_bench_of_a_handler_that_is_stopped_leaves_nothing(machine: Machine) -> None:
    command = machine.start("bench", "tasks:noted", "--range", "0:1000", "-p", "2", "--out", "none")
    eventually(machine.noted, 30, lambda: command.err)
    command.ctrl_c()
    ended = command.ended()
    assert ended.code == 130, ended.err
    assert not (machine.home / "none").exists()
    nothing_left(machine)


def test_bench_of_what_cannot_be_measured(machine: Machine) -> None:
    ended = machine.run("bench", "tasks:missing", "--range", "0:10", "-p", "1")
    assert ended.code == 3
    assert "has no 'missing'" in ended.err
    assert not (machine.home / "bench.html").exists()
    assert json.loads(machine.ask("list", "--output", "json").out) == []
    for words, said in [
        (("nope",), "neither package.module:function nor one of noop, spin, sleep, pi"),
        (("noop", "-p", "1,zwei"), "--parallelism '1,zwei' is not a list of numbers"),
        (("noop", "-p", "0"), "--parallelism '0' is not a list of numbers"),
        (("noop", "--range", "0:5"), "--range goes with a handler of yours"),
        (("noop", "--digits", "5"), "--digits goes with pi"),
        (("spin", "--items", "5", "--seconds", "1"), "exclude each other"),
        (("tasks:square", "-p", "1"), "no items"),
        (("tasks:square", "--range", "0:5", "--item-seconds", "1"), "--item-seconds goes with"),
        (("tasks:square", "--lines", "-"), "give a FILE, not standard input"),
        (("noop", "--json", "no/such/place"), "--json no/such/place cannot be written"),
        (("noop", "--on", "kubernetes", "--image", "w"), "--redis is missing"),
        (("noop", "--on", "kubernetes", "--redis", "redis://localhost:1"), "--image is missing"),
    ]:
        refused = machine.ask("bench", *words)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), (words, refused.err)
        assert said in refused.err


def test_report_of_runs_in_any_state(machine: Machine) -> None:
    with machine.client() as client:
        opened(client, "half-filled")
        ledger = sealed(client, "going-on", total=10, size=5)
        ledger.join("w")
        assert ledger.claim(1, "w", 15) is not None
        sealed(client, "empty", total=0)
        for run, state in (("half-filled", "filling"), ("going-on", "running"), ("empty", "succeeded")):
            ended = machine.ask("report", run, "--output", "json", "--out", "page.html")
            assert ended.code == 0, ended.err
            record = json.loads(ended.out)
            assert (record["state"], record["page"]) == (state, "page.html")
            text = checked((machine.home / "page.html").read_text(encoding="utf-8"))
            for told in (text, ended.err):
                assert (f"is not over ({state})" in told) == (state != "succeeded")


def test_what_the_server_keeps_of_a_run(client: Redis, run_id: str) -> None:
    """Commits with results and failures, an item that nobody lived to tell of, and events that were trimmed."""
    ledger = sealed(client, run_id, total=10, size=5)
    ledger.join("w")
    claim = ledger.claim(1, "w", 15)
    assert claim is not None
    times = [0] * 24
    times[3], times[4] = 3, 1
    meta = msgspec.msgpack.encode({"worker": "w", "seconds": 0.001, "times": times})
    failures = ([(1, 1)], pack_failures([Failure("ValueError", "boom")]))
    ledger.commit(1, 0, 4, results=([(0, 1), (2, 2)], b"packed"), failures=failures, meta=meta)
    assert ledger.blame_crash(1, "w", 4, Failure("Crash", "signal 6"), 1) is True

    made = profile_of(ledger)
    (worker,) = made.workers
    assert (worker.items, worker.failed, made.items, sum(made.item_times.counts)) == (4, 1, 5, 4)
    assert sum(made.recorded) == pytest.approx(5)
    assert (made.events_trimmed, made.events["crash"]) == (False, 1)
    client.xtrim(ledger.keys.events, maxlen=1, approximate=False)
    assert profile_of(ledger).events_trimmed

    assert ledger.claim(2, "w", 15) is not None
    commit(ledger, 2, 5, 5)  # its meta is no meta
    with pytest.raises(CorruptData, match=rf"run {run_id}, .*results .*: not an entry of piecework"):
        profile_of(ledger)
