"""`piecework_producer.submit` and `run`: from Python, with functions, generators and errors."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import piecework_producer
from piecework.errors import BadInput, SpecConflict, UnknownRun, UsageError
from piecework_producer import Outcome, Run, State, Status
from piecework_producer.run import RunVanished
from tests import cli_handlers
from tests.cli_fixture import Machine
from tests.server_fixture import ServerProcess, eventually


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name in [name for name in os.environ if name.startswith("PIECEWORK_")]:
        monkeypatch.delenv(name)
    with Machine(tmp_path) as machine:
        monkeypatch.setenv("PIECEWORK_STATE_DIR", str(machine.state_dir))
        monkeypatch.chdir(machine.home)
        yield machine


def test_run_a_function_of_a_module_from_any_directory(machine: Machine) -> None:
    """The tests' directory is on the path of this process only; its workers start elsewhere."""
    with piecework_producer.run(cli_handlers.square, range(20), parallelism=2) as run:
        status: Status = run.status()
        assert (status.state, status.done) == (State.SUCCEEDED, 20)
        outcomes: list[Outcome] = list(run.results())
        assert [(one.index, one.item, one.result) for one in outcomes] == [(x, x, x * x) for x in range(20)]
        assert run.wait(0).state is State.SUCCEEDED


def test_run_with_a_generator_and_failures(machine: Machine) -> None:
    with piecework_producer.run("tasks:odd_fails", (x for x in (2, 3, 4)), parallelism=1, retries=0) as run:
        assert run.status().state is State.COMPLETED_WITH_FAILURES
        assert [one.result for one in run.results() if one.error is None] == [2, 4]
        (failed,) = run.failures()
        assert failed.error is not None
        assert (failed.index, failed.item, failed.error.type) == (1, 3, "ValueError")
        assert "odd_fails" in failed.error.traceback


def test_the_embedded_server_has_no_replicas(machine: Machine) -> None:
    with pytest.raises(UsageError, match="--wait-replicas needs a server that has replicas"):
        piecework_producer.submit("tasks:noted", range(5), run="none", wait_replicas=1)


def test_run_goes_on_under_its_id(machine: Machine) -> None:
    for _ in range(2):
        with piecework_producer.run("tasks:noted", range(5), run="again", parallelism=1) as run:
            assert run.id == "again"
            assert len(list(run.results(ordered=False))) == 5
    assert sorted(machine.noted()) == list(range(5))
    with pytest.raises(SpecConflict, match="its total is 5, yours is 6"):
        piecework_producer.run("tasks:noted", range(6), run="again")


def test_a_run_whose_handler_is_bad_has_failed_with_the_reason(machine: Machine) -> None:
    with piecework_producer.run("tasks:nothing_there", [1], parallelism=1) as run:
        status = run.status()
        assert status.state is State.FAILED
        assert "nothing_there" in status.reason


def test_submit_wait_follow_and_steer(machine: Machine) -> None:
    with piecework_producer.submit("tasks:gated", range(6), run="r1", parallelism=1) as run:
        assert run.status().total == 6
        with pytest.raises(TimeoutError, match="run r1 is still running: 0 of 6 done"):
            run.wait(timeout_seconds=0.3)
        worker = machine.start("retry", "r1", "-p", "1")
        follower = run.results(follow=True)
        assert next(follower).result == 0
        (machine.home / "gate").touch()
        assert [one.result for one in follower] == [1, 4, 9, 16, 25]
        assert run.wait(10).state is State.SUCCEEDED
        assert worker.ended().code == 0
        assert run.cancel() is State.SUCCEEDED
        assert run.retry() == 0
        run.delete()
        with pytest.raises(RunVanished, match="run r1 is gone"):
            run.status()


def test_pause_resume_cancel(machine: Machine) -> None:
    with piecework_producer.submit("tasks:square", range(6)) as run:
        assert run.pause() is State.RUNNING
        assert run.status().paused
        assert run.resume() is State.RUNNING
        assert run.cancel("enough") is State.CANCELLED
        assert (run.wait().state, run.status().reason) == (State.CANCELLED, "enough")
        with pytest.raises(UnknownRun):
            Run(run.session, "another")


def test_errors_leave_nothing(machine: Machine) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise RuntimeError("of the generator")

    with pytest.raises(RuntimeError, match="of the generator"):
        piecework_producer.submit("tasks:square", failing())
    with pytest.raises(BadInput, match="item 1: a value of type object"):
        piecework_producer.submit("tasks:square", [1, object()])
    with pytest.raises(UsageError, match="parallelism"):
        piecework_producer.run("tasks:square", range(3), parallelism=0)
    nothing: Callable[[int], int] = lambda item: item  # noqa: E731
    with pytest.raises(UsageError, match="no importable name"):
        piecework_producer.run(nothing, range(3))
    assert machine.ask("status", "-o", "json").out == "[]\n"
    assert machine.server() == [], "the server was let go"


def test_waiting_outlives_a_restart_of_the_server(machine: Machine) -> None:
    with (
        ServerProcess("--appendonly", "yes", "--appendfsync", "always") as server,
        piecework_producer.submit("tasks:square", range(6), redis=server.url) as run,
    ):
        told: list[int] = []

        def restart_once(status: Status) -> None:
            told.append(status.total)
            if len(told) == 2:
                server.restart()
            if len(told) == 4:
                run.cancel()

        assert run.wait(30, restart_once).state is State.CANCELLED
        follower = threading.Timer(0.0, server.restart)
        follower.start()
        assert list(run.results(follow=True)) == []
        follower.join()


def test_the_embedded_server_is_killed_between_two_calls(machine: Machine) -> None:
    with piecework_producer.submit("tasks:square", range(6), run="r1") as run:
        (server,) = machine.server()
        os.kill(server, 9)
        assert run.session.lasting(run.status).total == 6
        assert eventually(machine.server) != [server]


SCRIPT = """
import piecework_producer

def square(item):
    return item * item

{guard}with piecework_producer.run(square, range(4), parallelism=1) as run:
{indent}    print(run.status().state, [one.result for one in run.results()], run.status().reason)
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_runs_its_own_functions(machine: Machine, guarded: bool) -> None:
    """Without the guard the worker, which imports the script, must not start runs of its own, and so on."""
    guard = "if __name__ == '__main__':\n    " if guarded else ""
    elsewhere = machine.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "script.py").write_text(SCRIPT.format(guard=guard, indent="    " if guarded else ""))

    ended = subprocess.run(
        [sys.executable, str(elsewhere / "script.py")],
        cwd=machine.home,
        env=machine.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    if guarded:
        assert ended.stdout == "succeeded [0, 1, 4, 9] \n"
    else:
        assert ended.stdout.startswith("failed [] ")
        assert "if __name__ == '__main__'" in ended.stdout
        assert len(machine.ask("status").out.splitlines()) == 3, "one run, and why it failed"
