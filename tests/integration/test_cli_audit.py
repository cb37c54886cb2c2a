"""`piecework audit` and `piecework repair`: what they print, and their exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from piecework.keys import run_keys
from piecework.ledger import Ledger
from tests.cli_fixture import SQUARES, Ended, Machine
from tests.ledger_fixture import commit
from tests.server_fixture import ServerProcess


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


def rows(ended: Ended) -> dict[str, tuple[str, str]]:
    lines = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in ended.out.splitlines()]
    assert lines[0][0] == "CHECK"
    return {check: (second, third) for check, second, third in lines[1:]}


def test_a_run_is_sound_then_broken_then_repaired_and_drained(machine: Machine, server: ServerProcess) -> None:
    at = ("--redis", server.url)
    submitted = machine.ask("submit", "tasks:square", "--range", "0:20", "--run", "r1", "--chunk-size", "5", *at)
    assert submitted.code == 0, submitted.err
    with server.client() as client:
        for number in range(1, 5):
            assert Ledger(client, "r1").claim(number, "a", 60)
            commit(Ledger(client, "r1"), number, 5 * (number - 1), 5)

    sound = machine.ask("audit", "r1", *at)
    assert (sound.code, sound.err) == (0, "piecework: run r1 is sound\n")
    assert {verdict for verdict, _ in rows(sound).values()} == {"ok"}
    assert rows(sound)["total"][1] == "20 items = 20 done + 0 failed + 0 open"
    assert machine.ask("repair", "r1", *at).err == "piecework: there is nothing to repair\npiecework: run r1 is sound\n"

    with server.client() as client:
        client.delete(run_keys("r1").results)
    broken = machine.ask("audit", "r1", *at)
    assert broken.code == 1
    assert broken.err == "piecework: run r1 is not sound, 3 findings: piecework repair r1\n"
    assert rows(broken)["indices"] == ("FAIL", "items 0-19 are in no result, no failure and no open chunk")
    assert rows(broken)["chunks"][0] == "ok"

    dry = machine.ask("repair", "r1", "--dry-run", *at)
    assert (dry.code, dry.err) == (0, "piecework: 3 findings would be repaired; nothing was changed\n")
    assert machine.ask("audit", "r1", *at).out == broken.out
    done = machine.ask("repair", "r1", *at)
    assert (done.code, done.out) == (0, dry.out)
    assert done.err == "piecework: 3 findings repaired\npiecework: run r1 is sound\n"

    again = machine.run("run", "tasks:square", "--range", "0:20", "--run", "r1", *at)
    assert (again.code, again.lines) == (0, SQUARES)


def test_json_and_what_cannot_be_put_back(machine: Machine, server: ServerProcess) -> None:
    at = ("--redis", server.url, "--output", "json")
    submit = ("submit", "tasks:square", "--lines", "-", "--run", "r2", "--redis", server.url)
    assert machine.ask(*submit, stdin=b"1\n2\n3\n").code == 0
    with server.client() as client:
        client.delete(run_keys("r2").payload)

    found = machine.ask("audit", "r2", *at)
    record = json.loads(found.out)
    assert found.code == 1
    assert (record["run"], record["sound"], record["state"], record["total"], record["open"]) == (
        "r2", False, "running", 3, 3
    )  # fmt: skip
    assert {finding["check"] for finding in record["findings"] if finding["error"]} == {"payload"}

    repaired = machine.ask("repair", "r2", *at)
    assert repaired.code == 1
    told = json.loads(repaired.out)
    (left,) = told["left"]
    assert left["text"] == "the payload of items 0-2 is gone (item 0 is the first of the input)"
    assert told["repaired"]
    assert "left: the payload of items 0-2 is gone" in repaired.err
    assert "submit the same items under the id r2 again" in repaired.err

    assert machine.ask(*submit, stdin=b"1\n2\n3\n").code == 0
    assert machine.ask("audit", "r2", *at).code == 0


def test_wrong_usage(machine: Machine, server: ServerProcess) -> None:
    for verb in ("audit", "repair"):
        unknown = machine.ask(verb, "nowhere", "--redis", server.url)
        assert (unknown.code, unknown.out) == (2, "")
        assert unknown.err.startswith("piecework: error: run nowhere is not on this server")
        assert machine.ask(verb, "r1", "--output", "xml", "--redis", server.url).code == 2
        assert machine.ask(verb, "no/run", "--redis", server.url).code == 2
