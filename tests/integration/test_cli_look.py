"""`status`, `wait`, `results`, `failures`: what is shown of a run, while it goes on and afterwards."""

import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_fixture import SQUARES, Machine
from tests.server_fixture import eventually

PROMISED: dict[str, type | tuple[type, ...]] = {
    "run": str, "state": str, "paused": bool, "sealed": bool, "total": int, "done": int, "failed": int,
    "duplicates": int, "in_flight": int, "workers": int, "items_per_second": float, "elapsed_seconds": float,
    "eta_seconds": (float, type(None)),
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def submitted(machine: Machine, run: str, *arguments: str) -> None:
    ended = machine.ask("submit", *(arguments or ("tasks:square", "--range", "0:20")), "--run", run)
    assert (ended.code, ended.out) == (0, f"{run}\n"), ended.err


def test_status_of_a_run_that_goes_on_and_of_one_that_is_over(machine: Machine) -> None:
    command = machine.start("run", "tasks:gated", "--range", "0:20", "--chunk-size", "5", "--run", "r1", "-p", "2")
    eventually(lambda: command.out, 20.0)

    status = machine.status("r1")
    assert {name: status[name] for name in ("state", "paused", "sealed", "total", "done", "failed")} == {
        "state": "running", "paused": False, "sealed": True, "total": 20, "done": 1, "failed": 0
    }  # fmt: skip
    assert status["workers"] == 2
    assert status["in_flight"] == 9
    assert status["eta_seconds"] > 0
    header, row = machine.ask("status", "r1").out.splitlines()
    assert header.split() == [
        "NAME",
        "STATUS",
        "COMPLETIONS",
        "FAILED",
        "IN",
        "FLIGHT",
        "WORKERS",
        "RATE",
        "ETA",
        "DURATION",
    ]
    assert row.split()[:6] == ["r1", "running", "1/20", "0", "9", "2"]

    (machine.home / "gate").touch()
    command.ended()
    status = machine.status("r1")
    for name, kind in PROMISED.items():
        assert isinstance(status[name], kind), name
    assert (status["state"], status["done"], status["in_flight"], status["workers"]) == ("succeeded", 20, 0, 0)
    assert status["eta_seconds"] is None
    assert status["elapsed_seconds"] > 0


def test_status_of_all_runs(machine: Machine) -> None:
    none = machine.ask("status")
    assert (none.code, none.out) == (0, "")
    assert "no runs; start one: piecework run --help" in none.err
    assert machine.ask("status", "-o", "json").out == "[]\n"

    for run in ("one", "two"):
        submitted(machine, run)
    machine.ask("cancel", "one", "--reason", "not wanted")

    shown = machine.ask("status").out.splitlines()
    assert [line.split()[:2] for line in shown[1:3]] == [["one", "cancelled"], ["two", "running"]]
    assert shown[3] == "one: not wanted"
    assert [one["run"] for one in json.loads(machine.ask("status", PIECEWORK_OUTPUT="json").out)] == ["one", "two"]


@pytest.mark.parametrize(
    "verb", ["status", "wait", "results", "failures", "pause", "resume", "cancel", "delete", "retry"]
)
def test_an_unknown_run_and_a_bad_id(machine: Machine, verb: str) -> None:
    unknown = machine.ask(verb, "nothing")
    assert (unknown.code, unknown.out) == (2, "")
    told = "piecework: error: run nothing is not on this server; `piecework status` lists the runs that are"
    assert unknown.err.startswith(told)
    assert len(unknown.err.splitlines()) == 1
    bad = machine.ask(verb, "Bad_Id")
    assert bad.code == 2
    assert "run id 'Bad_Id' is not allowed" in bad.err
    missing = machine.ask(verb) if verb != "status" else machine.ask(verb, "--output", "xml")
    assert missing.code == 2


def test_wait_tells_how_a_run_ended(machine: Machine) -> None:
    command = machine.start("run", "tasks:gated", "--range", "0:6", "--run", "r1")
    eventually(lambda: command.out, 20.0)
    waiting = machine.start("wait", "r1")
    eventually(lambda: machine.processes("cli wait"))
    (machine.home / "gate").touch()

    ended = waiting.ended()

    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines()[-1] == "piecework: run r1 succeeded: 6/6 items"
    assert command.ended().code == 0
    assert machine.ask("wait", "r1").code == 0


def test_wait_has_a_code_for_each_end(machine: Machine) -> None:
    submitted(machine, "open")
    begun = time.monotonic()
    late = machine.ask("wait", "open", "--timeout", "0.5")
    assert 0.5 <= time.monotonic() - begun < 10
    assert late.code == 4
    assert "run open has no worker now; drain it here:" in late.err
    assert "run open is still running: 0 of 20 done" in late.err
    assert machine.ask("wait", "open", PIECEWORK_TIMEOUT="0").code == 4

    machine.ask("cancel", "open")
    assert machine.ask("wait", "open").code == 3
    assert machine.run("run", "tasks:odd_fails", "--range", "0:4", "--run", "partly").code == 1
    assert machine.ask("wait", "partly").code == 1


def test_wait_and_run_tell_of_a_run_that_is_deleted_under_them(machine: Machine) -> None:
    command = machine.start("run", "tasks:gated", "--range", "0:20", "--run", "r1", "--grace", "1")
    eventually(lambda: command.out, 20.0)
    waiting = machine.start("wait", "r1")
    eventually(lambda: machine.processes("cli wait"))
    with machine.client():
        eventually(lambda: machine.status("r1")["done"])
        assert machine.ask("delete", "r1", "--force").code == 0
        for ended in (waiting.ended(), command.ended()):
            assert ended.code in (2, 3), ended.err
            assert "run r1 is gone: somebody has deleted it" in ended.err or "is not on this server" in ended.err
            assert "Traceback" not in ended.err


def test_results_while_the_run_goes_on(machine: Machine) -> None:
    command = machine.start("run", "tasks:gated", "--range", "0:20", "--chunk-size", "10", "--run", "r1")
    eventually(lambda: command.out, 20.0)

    assert machine.ask("results", "r1").lines == SQUARES[:1]
    follower = machine.start("results", "r1", "--follow")
    eventually(lambda: follower.out, 20.0, "told before it is over")
    assert json.loads(follower.out) == SQUARES[0]
    unordered = machine.start("results", "r1", "--follow", "--unordered")
    (machine.home / "gate").touch()

    assert follower.ended().lines == SQUARES
    ended = unordered.ended()
    assert (ended.code, ended.err) == (0, "")
    assert sorted(ended.lines, key=lambda line: int(line["index"])) == SQUARES
    assert command.ended().code == 0
    assert machine.ask("results", "r1").lines == SQUARES


def test_results_of_all_types(machine: Machine) -> None:
    ended = machine.run("run", "tasks:all_types", "--range", "0:6", "--run", "r1")
    assert ended.code == 0, ended.err

    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        for out in (ended, machine.ask("results", "r1")):
            big, data, when, nan, text, negative = (line["result"] for line in out.lines)
            assert big == 3**20_000
            assert base64.b64decode(data) == b"\xff\x00"
            assert (when, nan, text, negative) == ("2024-02-29T12:00:00Z", None, "ä😀", -(2**70))
    finally:
        sys.set_int_max_str_digits(limit)


def test_failures_name_the_error_and_on_request_the_traceback(machine: Machine) -> None:
    items = machine.home / "items"
    items.write_text("1\n2\n123456789012345678901234567891\n")
    assert machine.run("run", "tasks:odd_fails", "--jsonl", "items", "--run", "r1").code == 1

    big = 123456789012345678901234567891
    assert machine.ask("failures", "r1").lines == [
        {"index": 0, "item": 1, "error": {"type": "ValueError", "message": "1 is odd", "attempt": 1}},
        {"index": 2, "item": big, "error": {"type": "ValueError", "message": f"{big} is odd", "attempt": 1}},
    ]
    traceback = machine.ask("failures", "r1", "--traceback").lines[0]["error"]["traceback"]
    assert "in odd_fails" in traceback
    assert "tasks.py" in traceback
    submitted(machine, "r2")
    assert machine.ask("failures", "r2").out == ""


@pytest.mark.parametrize("verb", ["results", "status"])
def test_a_reader_that_leaves_is_no_error(machine: Machine, verb: str) -> None:
    if verb == "results":
        big = machine.run("run", "tasks:square", "--range", "0:20000", "--run", "r1", "--results", "none")
        assert big.code == 0
    else:
        submitted(machine, "r1")
    reading, writing = os.pipe()
    os.close(reading)

    ended = machine.start(*(["results", "r1"] if verb == "results" else ["status"]), stdout=writing).ended()

    os.close(writing)
    assert (ended.code, ended.err) == (130, "")


def test_output_that_cannot_be_written_is_told(machine: Machine) -> None:
    submitted(machine, "r1")
    with Path("/dev/full").open("wb") as full:
        ended = machine.start("status", stdout=full.fileno()).ended()
    assert ended.code == 3
    assert "No space left on device" in ended.err
    assert "Traceback" not in ended.err
    assert "Exception ignored" not in ended.err
