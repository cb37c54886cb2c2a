"""What is left, and what goes on, when the producer, its workers or its server are stopped or killed."""

import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_fixture import Command, Ended, Machine
from tests.server_fixture import ServerProcess, eventually


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path, 2) as machine:
        yield machine


def begun(machine: Machine, command: Command, items: int = 5) -> str:
    """The id of the run, when so many items have been computed."""
    eventually(lambda: len(machine.noted()) >= items or command.process.poll() is not None, 30.0)
    assert command.process.poll() is None, command.err
    return command.run


def gone_on(machine: Machine, stopped: Ended) -> Ended:
    """Type the command that was printed."""
    found = re.search(r"^piecework: go on with: (piecework .*)$", stopped.err, re.MULTILINE)
    assert found, stopped.err
    return machine.run(*shlex.split(found[1])[1:])


def all_squares(ended: Ended, count: int) -> None:
    assert ended.code == 0, ended.err
    assert [line["index"] for line in ended.lines] == list(range(count))
    assert [line["result"] for line in ended.lines] == [index * index for index in range(count)]


# --- stopped


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_run_that_is_stopped_hands_back_and_goes_on_repeating_no_item(machine: Machine, how: str) -> None:
    command = machine.start("run", "tasks:noted", "--range", "0:60")
    begun(machine, command)

    stopped_at = time.monotonic()
    if how == "Ctrl-C":
        command.ctrl_c()
    else:
        command.send(signal.Signals[how])
    ended = command.ended()
    seconds = time.monotonic() - stopped_at

    assert ended.code == 130
    assert seconds < 10, "a second or two on a machine that is not busy"
    assert "Traceback" not in ended.err
    assert re.search(r"handed back; nothing that was recorded is lost: run \S+ running: \d+/60 items", ended.err)
    assert machine.workers() == []
    computed = len(machine.noted())
    assert 5 <= computed < 60

    all_squares(gone_on(machine, ended), 60)
    assert sorted(machine.noted()) == list(range(60)), "each item was computed once"


def test_stopped_while_it_reads_its_items_it_leaves_nothing(machine: Machine) -> None:
    reading, writing = os.pipe()
    command = machine.start("run", "tasks:square", "--lines", "-", "--run", "r1", stdin=reading)
    os.close(reading)
    with os.fdopen(writing, "wb") as stdin:
        stdin.write(b"a line\n" * 100_000)
        stdin.flush()
        eventually(lambda: machine.status("r1")["total"] > 0 if _knows(machine, "r1") else False, 20.0)
        command.ctrl_c()
        ended = command.ended()

    assert (ended.code, ended.out) == (130, "")
    assert "Traceback" not in ended.err
    assert not _knows(machine, "r1")


def _knows(machine: Machine, run: str) -> bool:
    return machine.ask("status", run).code == 0


def test_a_second_ctrl_c_does_not_wait_for_items_in_hand(machine: Machine) -> None:
    command = machine.start("run", "tasks:gated", "--range", "0:4", "--grace", "600", "--run", "r1", "-p", "2")
    eventually(lambda: command.out, 20.0)
    eventually(lambda: machine.status("r1")["in_flight"] == 2, 30.0, "each worker has an item in hand")
    command.ctrl_c()
    eventually(lambda: "once more ends them at once" in command.err, 30.0)
    command.ctrl_c()
    assert command.ended().code == 130


# --- killed


def test_everything_is_killed_and_the_same_command_goes_on(machine: Machine) -> None:
    """At once: not when the leases of ten minutes are over."""
    arguments = ("run", "tasks:noted", "--range", "0:60", "--run", "r1", "--lease", "600")
    command = machine.start(*arguments)
    begun(machine, command, 20)
    recorded = eventually(lambda: machine.status("r1")["done"])

    machine.kill_everything()
    command.ended()
    ended = machine.run(*arguments)

    all_squares(ended, 60)
    assert re.search(r"going on: run r1 running: \d+/60", ended.err)
    computed = machine.noted()
    assert set(computed) == set(range(60))
    assert len(computed) <= 60 + (60 - recorded), "what was recorded is not computed again"


def test_workers_leave_when_the_command_alone_is_killed(machine: Machine) -> None:
    command = machine.start("run", "tasks:noted", "--range", "0:1000")
    run = begun(machine, command)
    command.send(signal.SIGKILL)
    command.ended()

    eventually(lambda: machine.processes("piecework_worker") == [], 15.0, "workers hand back by themselves")
    status = machine.status(run)
    assert (status["state"], status["in_flight"]) == ("running", 0), "handed back, not left to a lease"
    assert status["done"] == len(machine.noted())
    assert sorted(set(machine.noted())) == sorted(machine.noted())


def test_the_rest_of_a_killed_worker_is_taken_up_at_once_and_it_is_replaced(machine: Machine) -> None:
    command = machine.start("run", "tasks:noted", "--range", "0:200", "--chunk-size", "100", "--lease", "600")
    begun(machine, command)
    eventually(lambda: len({item // 100 for item in machine.noted()}) == 2, 20.0, "both work")
    victim = machine.workers()[0]
    os.kill(victim, signal.SIGKILL)
    killed_at = time.monotonic()

    # Each half has one worker, busy for five seconds: who stopped is the victim's.
    before = machine.noted()

    def both_go_on() -> bool:
        news = machine.noted()[len(before) + 2 :]
        return len({item // 100 for item in news}) == 2

    eventually(both_go_on, 15.0, "the rest is taken up")
    seconds = time.monotonic() - killed_at
    assert len(machine.workers()) == 2
    assert victim not in machine.workers()
    assert seconds < 8, f"{seconds:.1f} s; two on a machine that is not busy, and not the lease of ten minutes"

    ended = command.ended(40)
    all_squares(ended, 200)
    assert "was killed by signal 9; replaced in 0.1 s" in ended.err
    assert len(machine.noted()) <= 201 + 20, "the items since the last commit, at most half a second of them"


def test_workers_that_die_again_and_again_end_the_run_with_the_reason(machine: Machine) -> None:
    (machine.home / "deadly.py").write_text("import os\nprint('about to die', flush=True)\nos.kill(os.getpid(), 9)\n")
    command = machine.start("run", "deadly:f", "--range", "0:4", "-p", "1", "--run", "r1")

    ended = command.ended(60)

    assert ended.code == 3
    assert "7 workers died and nothing was recorded; the last: worker 0 was killed by signal 9" in ended.err
    assert "(failure 1 of 6 without progress)" in ended.err
    assert str(machine.state_dir / "logs" / "r1") in ended.err
    assert machine.status("r1")["state"] == "failed"


def test_the_embedded_server_is_killed_and_the_run_ends_well(machine: Machine) -> None:
    command = machine.start("run", "tasks:noted", "--range", "0:100")
    begun(machine, command)
    for _ in range(2):
        count = len(machine.noted())
        (server,) = eventually(machine.server, 20.0, "the server is there, again")
        os.kill(server, signal.SIGKILL)
        eventually(lambda: len(machine.noted()) > count + 5, 20.0, "it goes on")  # noqa: B023

    ended = command.ended(60)

    all_squares(ended, 100)
    assert "is back after" in ended.err or "does not take a call" not in ended.err
    assert "Traceback" not in ended.err


def test_a_server_that_stays_away_is_exit_4_and_the_command_goes_on_later(machine: Machine) -> None:
    with ServerProcess("--appendonly", "yes") as server:
        arguments = ("run", "tasks:noted", "--range", "0:60", "--run", "r1", "--redis", server.url, "--patience", "1")
        command = machine.start(*arguments)
        begun(machine, command)
        server.kill()
        ended = command.ended()

        assert ended.code == 4
        assert "was away for 1 s" in ended.err
        assert "go on with: piecework run tasks:noted" in ended.err
        assert "Traceback" not in ended.err
        server.restart()
        all_squares(machine.run(*arguments), 60)


# --- killed while it fills


def test_killed_while_it_reads_its_items_the_same_command_goes_on(machine: Machine) -> None:
    lines = [f"item {number} {'x' * 200}" for number in range(20_000)]
    data = "\n".join(lines).encode()
    reading, writing = os.pipe()
    command = machine.start("submit", "tasks:echo", "--lines", "-", "--run", "r1", stdin=reading)
    os.close(reading)
    with os.fdopen(writing, "wb") as stdin:
        stdin.write(data[: len(data) // 2])
        stdin.flush()
        eventually(lambda: machine.status("r1")["total"] > 5000 if _knows(machine, "r1") else False, 20.0)
        command.send(signal.SIGKILL)
        command.ended()
    status = machine.status("r1")
    assert (status["state"], status["sealed"]) == ("filling", False)

    ended = machine.run("run", "tasks:echo", "--lines", "-", "--run", "r1", stdin=data)

    assert ended.code == 0, ended.err
    assert [line["result"] for line in ended.lines] == lines


def test_killed_while_it_cuts_chunks_the_same_command_goes_on(machine: Machine) -> None:
    arguments = ("submit", "tasks:square", "--range", "0:30000", "--chunk-size", "1", "--run", "r1")
    with machine.client() as client:
        command = machine.start(*arguments)
        eventually(lambda: int(client.hget("piecework:1:r1:run", "cut") or 0) >= 1000, 20.0)
        command.send(signal.SIGKILL)
        command.ended()
        cut = int(client.hget("piecework:1:r1:run", "cut"))
        assert 1000 <= cut < 30_000
        assert machine.status("r1")["state"] == "filling"

        again = machine.run(*arguments)

        assert again.code == 0, again.err
        assert "run r1 running: 0/30000" in again.err
        starts = sorted(int(chunk.split()[0]) for chunk in client.hvals("piecework:1:r1:chunks"))
        assert starts == list(range(30_000))
        assert client.llen("rq:queue:piecework-r1") == 30_000
        assert machine.ask("delete", "r1", "--force").code == 0
        assert client.keys() == []


def test_two_commands_for_one_run_at_once(machine: Machine) -> None:
    arguments = ("run", "tasks:noted", "--range", "0:60", "--run", "r1")
    commands = [machine.start(*arguments) for _ in range(2)]

    for command in commands:
        all_squares(command.ended(60), 60)

    computed = machine.noted()
    assert set(computed) == set(range(60))
    assert len(computed) <= 60 + 4, "once, but for what was in hand when it was stolen on a busy machine"
