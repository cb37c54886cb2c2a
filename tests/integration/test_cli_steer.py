"""`pause`, `resume`, `cancel`, `delete`, `retry --detach`: steering a run from a second terminal."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.cli_fixture import Machine
from tests.server_fixture import ServerProcess, eventually


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def test_pause_and_resume(machine: Machine) -> None:
    command = machine.start("run", "tasks:noted", "--range", "0:60", "--run", "r1")
    eventually(lambda: len(machine.noted()) > 5, 20.0)

    paused = machine.ask("pause", "r1")
    assert (paused.code, paused.err) == (0, "piecework: run r1 is paused; go on with: piecework resume r1\n")
    eventually(lambda: machine.status("r1")["in_flight"] == 0, message="handed back")
    status = machine.status("r1")
    assert (status["state"], status["paused"]) == ("running", True)
    assert "running (paused)" in machine.ask("status", "r1").out
    computed = machine.noted()
    assert status["done"] == len(computed) < 60
    assert machine.ask("status", "r1", "-o", "json").code == 0
    assert machine.noted() == computed, "nothing is done meanwhile"

    assert machine.ask("resume", "r1").code == 0
    ended = command.ended()
    assert (ended.code, len(ended.lines)) == (0, 60)
    assert sorted(machine.noted()) == list(range(60))


def test_cancel_ends_the_workers_and_keeps_what_is_recorded(machine: Machine) -> None:
    command = machine.start("run", "tasks:noted", "--range", "0:1000", "--run", "r1")
    eventually(lambda: len(machine.noted()) > 5, 20.0)
    eventually(lambda: machine.status("r1")["done"] > 0)

    cancelled = machine.ask("cancel", "r1", "--reason", "wrong input")
    assert (cancelled.code, cancelled.err) == (0, "piecework: run r1 is cancelled\n")

    ended = command.ended()
    assert ended.code == 3
    assert "run r1 cancelled: wrong input" in ended.err
    assert "go on with" not in ended.err
    results = machine.ask("results", "r1").lines
    assert 0 < len(results) == machine.status("r1")["done"]
    assert ended.lines == results


def test_a_run_that_is_over_is_not_steered(machine: Machine) -> None:
    assert machine.run("run", "tasks:square", "--range", "0:3", "--run", "r1").code == 0
    for verb, told in (
        ("pause", "run r1 is over (succeeded): there is nothing to pause"),
        ("resume", "run r1 is over (succeeded): there is nothing to resume"),
        ("cancel", "run r1 is over already (succeeded); it stays as it is"),
    ):
        ended = machine.ask(verb, "r1")
        assert ended.code == 2
        assert told in ended.err
    assert machine.status("r1")["state"] == "succeeded"
    again = machine.run("retry", "r1")
    assert again.code == 0
    assert "failed items are open again" not in again.err


def test_cancelled_runs_cannot_be_tried_again(machine: Machine) -> None:
    machine.ask("submit", "tasks:square", "--range", "0:3", "--run", "r1")
    machine.ask("cancel", "r1")
    ended = machine.ask("retry", "r1")
    assert ended.code == 2
    assert "run r1 is cancelled: its failed items cannot be tried again" in ended.err
    run = machine.run("run", "tasks:square", "--range", "0:3", "--run", "r1")
    assert run.code == 3
    assert "there already: run r1 cancelled" in run.err


@pytest.mark.parametrize("while_it_goes_on", [False, True])
def test_nothing_of_a_deleted_run_stays(
    machine: Machine, client: Redis, shared_server: ServerProcess, while_it_goes_on: bool
) -> None:
    machine.environ |= {"PIECEWORK_REDIS": shared_server.url}
    command = machine.start("run", "tasks:odd_fails" if not while_it_goes_on else "tasks:gated", "--range", "0:50",
                            "--run", "r1", "--grace", "1", "--retries", "1")  # fmt: skip
    if while_it_goes_on:
        eventually(lambda: command.out, 20.0)
        refused = machine.ask("delete", "r1")
        assert refused.code == 2
        assert "run r1 is running: cancel it first (piecework cancel r1), or delete it with --force" in refused.err
        assert machine.ask("delete", "r1", "--force").code == 0
        ended = command.ended()
        assert ended.code in (2, 3)
        assert "Traceback" not in ended.err
    else:
        assert command.ended().code == 1
        assert client.keys("piecework:*")
        assert machine.ask("delete", "r1").code == 0

    eventually(lambda: not client.keys(), message=lambda: client.keys())
    assert not (machine.state_dir / "logs" / "r1").exists() or while_it_goes_on


def test_retry_detached_opens_the_items_and_starts_nothing(machine: Machine) -> None:
    ended = machine.run("run", "tasks:odd_fails", "--range", "0:4", "--run", "r1")
    assert ended.code == 1

    retried = machine.ask("retry", "r1", "--detach")

    assert retried.code == 0
    assert "run r1: 2 failed items are open again" in retried.err
    status = machine.status("r1")
    assert (status["state"], status["done"], status["failed"]) == ("running", 2, 0)


def test_retry_has_the_options_of_the_submission(machine: Machine) -> None:
    ended = machine.run("run", "tasks:four_failures", "--range", "6:8", "--item-timeout", "0.5", "--run", "r1")
    assert ended.code == 1

    again = machine.run("retry", "r1", "-p", "1")

    assert again.code == 1, "it hangs again, and is ended again"
    assert [line["error"]["type"] for line in machine.ask("failures", "r1").lines] == ["TimeoutError"]


def test_help_of_every_verb_shows_an_example(machine: Machine) -> None:
    top = machine.ask("--help").out
    verbs = [*re.findall(r"^│ ([a-z]+) ", top, re.MULTILINE)]
    assert {"run", "submit", "retry", "pi", "status", "wait", "results", "failures", "pause", "resume", "cancel",
            "delete", "doctor"} <= set(verbs)  # fmt: skip
    assert "Example: piecework run" in top
    for verb in verbs:
        ended = machine.ask(verb, "--help")
        assert ended.code == 0
        assert re.search(rf"Examples?: piecework {verb}\b", " ".join(ended.out.split())), verb
        assert machine.ask(verb, "-h").out == ended.out
    assert machine.ask("nonsense").code == 2
    assert machine.ask("run", "--nonsense").code == 2


def test_shell_completion(machine: Machine) -> None:
    machine.environ |= {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = machine.run("--show-completion", "bash")
    assert (shown.code, shown.err) == (0, "")
    assert "complete -o default -F" in shown.out
    machine.environ |= {"_PIECEWORK_COMPLETE": "complete_bash", "COMP_WORDS": "piecework re", "COMP_CWORD": "1"}
    assert set(machine.run().out.split()) >= {"results", "resume", "retry"}
