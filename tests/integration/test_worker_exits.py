"""Every way in which a worker ends, but by a fault: its exit code, its last words, and how fast."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from piecework.keys import CONTRACT
from piecework.states import State
from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import ROOT, Pile, alive, squares

SOON = 2.0
"""For what takes less than a second on an idle machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--appendonly", "yes") as process:
        yield process


@pytest.fixture
def pile(server: ServerProcess, tmp_path: Path) -> Iterator[Pile]:
    with Pile(server, tmp_path) as pile:
        yield pile


# --- 78: can never work


@pytest.mark.parametrize(
    ("handler", "source", "says"),
    [
        ("absent_module:f", None, "there is no module 'absent_module'"),
        ("broken:f", "def f(:\n", "importing broken raised SyntaxError"),
        ("broken:f", "import absent_too", "there is no module 'absent_too'"),
        ("broken:f", "import sys; sys.exit(0)", "importing broken raised SystemExit"),
        ("broken:f", "1 / 0", "raised ZeroDivisionError: division by zero"),
        ("broken:f", "", "broken has no 'f'"),
        ("broken:A.b", "class A: pass", "broken has no 'A.b'"),
        ("broken:f", "f = 5", "is a int, not a callable"),
        ("broken", None, "not of the form package.module:function"),
    ],
)
def test_handler_that_cannot_be_loaded(pile: Pile, tmp_path: Path, handler: str, source: str | None, says: str) -> None:
    if source is not None:
        (tmp_path / "broken.py").write_text(source)
    worker = pile.worker("--handler", handler, cwd=tmp_path)
    assert worker.exit_code() == 78
    assert says in worker.last_line


def test_current_directory_is_importable(pile: Pile, tmp_path: Path) -> None:
    (tmp_path / "of_mine.py").write_text("class Tasks:\n    square = staticmethod(lambda item: item * item)\n")
    pile.submit("of_mine:Tasks.square", 3, 3)
    assert pile.worker(cwd=tmp_path).exit_code() == 0
    assert pile.outcomes() == squares(3)


def test_module_whose_thread_never_ends_does_not_keep_a_worker(pile: Pile, tmp_path: Path) -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nf = int\n"
    (tmp_path / "threaded.py").write_text(source)
    pile.submit("threaded:f", 3, 3)
    assert pile.worker(cwd=tmp_path).exit_code() == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--batch"], "--batch is for plain functions"),
        (
            ["--handler", "tests.handlers_for_tests:square", "--concurrency", "2"],
            "--concurrency is for async",
        ),
    ],
)
def test_options_that_do_not_go_with_the_handler(pile: Pile, options: list[str], says: str) -> None:
    worker = pile.worker("--handler", "tests.handlers_for_tests:napping", *options)
    assert worker.exit_code() == 78
    assert says in worker.last_line


def test_bad_settings_are_told_together(pile: Pile) -> None:
    worker = pile.worker(
        "--lease", "0", "--item-timeout", "-1", "--isolation", "some", environ={"PIECEWORK_GRACE": "soon"}
    )
    assert worker.exit_code() == 78
    for setting in ("--lease", "--item-timeout", "--isolation", "--handler", "--exec"):
        assert setting in worker.last_line, worker.last_line


def test_unknown_run(pile: Pile) -> None:
    worker = pile.worker("--handler", "tests.handlers_for_tests:square")
    assert worker.exit_code() == 78
    assert f"run {pile.run} is not on this server" in worker.last_line


@pytest.mark.parametrize("options", [["--handler", "tests.handlers_for_tests:slow"], ["--batch"]])
def test_other_work_than_what_was_submitted(pile: Pile, options: list[str]) -> None:
    pile.submit("square", 3, 3)
    worker = pile.worker(*options)
    assert worker.exit_code() == 78
    assert "was submitted with" in worker.last_line
    assert pile.recorded == 0


def test_other_contract_version(pile: Pile) -> None:
    pile.submit("square", 3, 3)
    pile.client.hset(pile.ledger.keys.run, "contract", CONTRACT + 1)
    worker = pile.worker()
    assert worker.exit_code() == 78
    assert f"contract version {CONTRACT + 1}" in worker.last_line


# --- 0 and 65: the run is over


def test_run_that_is_over(pile: Pile) -> None:
    pile.submit("square", 3, 3)
    pile.drained()
    for _ in range(2):
        worker = pile.worker()
        assert worker.exit_code() == 0
        assert "succeeded: 3 done, 0 failed of 3" in worker.last_line
    pile.client.hset(pile.ledger.keys.run, "state", "failed")
    assert pile.worker().exit_code() == 65


def test_nobody_listens_to_the_last_words(pile: Pile) -> None:
    pile.submit("in_item_5", 20, 10)
    command = [sys.executable, "-m", "piecework_worker.main", pile.run, "--redis", server_url(pile)]
    command += ["--handler", "tests.handlers_for_tests:in_item_5"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=write,
        stderr=write,
        check=False,
        timeout=15,
        env=os.environ | {"TEST_DO": "print"},
    )
    os.close(write)
    assert done.returncode == 0
    assert list(pile.failures()) == [5], "its print has failed, and nothing else"


def server_url(pile: Pile) -> str:
    return pile.server.url


def test_idle_workers_leave_within_a_second_of_the_end(pile: Pile) -> None:
    pile.submit("slow", 40, 40)
    workers = [pile.worker() for _ in range(3)]
    pile.wait_state(State.SUCCEEDED)
    begun = time.monotonic()
    assert [each.exit_code() for each in workers] == [0, 0, 0]
    assert time.monotonic() - begun < SOON, "0.8 s of waiting for the queue, and the interpreter's end"


def test_workers_wait_for_the_seal(pile: Pile) -> None:
    pile.submit("square", 10, 5, seal=False)
    worker = pile.worker()
    eventually(lambda: pile.events("join"))
    assert pile.recorded == 0
    pile.ledger.seal(10, None)
    assert worker.exit_code() == 0


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_cancelled_while_working(pile: Pile, isolation: str) -> None:
    pile.submit("slow", 1000, 500)
    workers = [pile.worker("--isolation", isolation) for _ in range(2)]
    pile.wait_recorded(20)
    pile.ledger.abort(State.CANCELLED, "by a test")
    begun = time.monotonic()
    for each in workers:
        assert each.exit_code() == 65
        assert "cancelled: by a test" in each.last_line
    assert time.monotonic() - begun < 2.5


def test_cancelled_in_a_long_item(pile: Pile) -> None:
    pile.submit("endless_from_5", 20, 20)
    worker = pile.worker("--lease", "1.5")
    pile.wait_recorded(5)
    pile.ledger.abort(State.CANCELLED, "by a test")
    assert worker.exit_code(3.0) == 65


def test_deleted_while_working(pile: Pile) -> None:
    pile.submit("slow", 1000, 500)
    workers = [pile.worker() for _ in range(2)]
    pile.wait_recorded(20)
    pile.ledger.delete()
    for each in workers:
        assert each.exit_code() == 78
        assert f"run {pile.run} is gone" in each.last_line
    assert [key for key in pile.client.scan_iter() if pile.run.encode() in key] == []
    assert pile.client.smembers("rq:workers") == set()


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_pause_and_resume(pile: Pile, isolation: str) -> None:
    pile.submit("slow", 60, 30)
    worker = pile.worker("--isolation", isolation)
    pile.wait_recorded(5)
    pile.ledger.pause(True)
    eventually(lambda: pile.status.leased == 0)
    recorded = pile.recorded
    assert recorded < 60
    assert pile.events("release")
    pile.ledger.pause(False)
    assert worker.exit_code() == 0
    assert pile.outcomes() == {i: i * i for i in range(60)}
    assert pile.status.duplicates == 0


# --- 75: told to stop


@pytest.mark.parametrize(
    ("isolation", "number"),
    [("process", signal.SIGTERM), ("process", signal.SIGINT), ("none", signal.SIGTERM)],
)
def test_stopped_between_short_items(pile: Pile, isolation: str, number: signal.Signals) -> None:
    pile.submit("slow", 100, 100)
    worker = pile.worker("--isolation", isolation)
    pile.wait_recorded(5)
    other = pile.worker()
    eventually(lambda: len(pile.events("join")) == 2)
    worker.send(number)
    begun = time.monotonic()
    assert worker.exit_code() == 75
    assert time.monotonic() - begun < SOON
    assert "the run is not over" in worker.last_line
    recorded = pile.recorded
    pile.wait_recorded(recorded + 1)
    assert time.monotonic() - begun < SOON + 1.0, "the rest is taken up at once"
    other.send(signal.SIGKILL)
    assert pile.status.duplicates == 0


def test_stop_lets_the_item_in_hand_finish_whatever_is_sent(pile: Pile, tmp_path: Path) -> None:
    pile.submit("long", 3, 3)
    worker = pile.worker(environ={"TEST_FILE": str(tmp_path / "begun")})
    eventually((tmp_path / "begun").exists)
    for _ in range(5):
        worker.send(signal.SIGTERM)
        time.sleep(0.05)  # so that they do not come as one
    assert worker.exit_code() == 75
    assert 1 <= pile.recorded < 3


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize(("grace", "signals"), [("0.3", [signal.SIGTERM]), ("60", [signal.SIGINT, signal.SIGINT])])
def test_the_grace_ends(pile: Pile, isolation: str, grace: str, signals: list[signal.Signals]) -> None:
    pile.submit("endless_from_5", 20, 20)
    worker = pile.worker("--isolation", isolation, "--grace", grace)
    pile.wait_recorded(5)
    for number in signals:
        worker.send(number)
        time.sleep(0.1)  # two of the same kind at once would be one
    begun = time.monotonic()
    assert worker.exit_code() == 75
    assert time.monotonic() - begun < SOON
    assert (pile.status.leased, pile.status.waiting) == (0, 1)
    assert pile.results() == squares(5)
    assert pile.events("crash") == []


def test_stopped_handler_with_the_default_action_is_not_charged(pile: Pile) -> None:
    pile.submit("in_item_5", 10, 10)
    worker = pile.worker(environ={"TEST_DO": "default SIGTERM"})
    pile.wait_recorded(5)
    eventually(lambda: not hears(worker.horse(), signal.SIGTERM))
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 75
    assert pile.events("crash") == []
    assert pile.results() == squares(5)


def test_idle_worker_stops_at_once(pile: Pile) -> None:
    pile.submit("square", 10, 5, seal=False)
    worker = pile.worker()
    eventually(lambda: pile.events("join"))
    worker.send(signal.SIGTERM)
    begun = time.monotonic()
    assert worker.exit_code() == 75
    assert time.monotonic() - begun < SOON


def test_stopped_while_the_handler_is_imported(pile: Pile, tmp_path: Path) -> None:
    source = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n"
    (tmp_path / "heavy.py").write_text(source)
    pile.submit("heavy:f", 3, 3)
    worker = pile.worker(cwd=tmp_path)
    eventually((tmp_path / "importing").exists)
    worker.send(signal.SIGTERM)
    assert worker.exit_code(2.0) == 75


def test_stopped_while_the_libraries_are_imported(pile: Pile) -> None:
    worker = pile.worker("--handler", "tests.handlers_for_tests:square")
    eventually(lambda: hears(worker.pid, signal.SIGTERM))
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 75
    assert "before it began" in worker.last_line
    assert "does not take" not in worker.log


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_stopped_while_the_server_is_not_there_yet(pile: Pile) -> None:
    worker = pile.worker("--handler", "tests.handlers_for_tests:square", url="unix:///nowhere/at/all")
    eventually(lambda: "does not take a call" in worker.log)
    worker.send(signal.SIGTERM)
    assert worker.exit_code(3.0) == 75


def test_signals_around_the_fork(pile: Pile) -> None:
    """Chunks of nothing, so that the worker is forking nearly always when the signal comes."""
    pile.submit("square", 3000, 3)
    for each in range(6):
        worker = pile.worker()
        pile.wait_recorded(pile.recorded + 3 + each)
        for _ in range(3):
            worker.send(signal.SIGTERM)
        begun = time.monotonic()
        assert worker.exit_code() == 75
        assert time.monotonic() - begun < SOON
        assert pile.status.leased == 0
    assert pile.events("crash") == []
    assert not [event for event in pile.events("release") if "horse" in event["detail"]]


def test_worker_hands_back_when_its_launcher_is_gone(pile: Pile) -> None:
    pile.submit("slow", 100, 50)
    launcher = subprocess.Popen(["sleep", "600"])
    worker = pile.worker("--parent", str(launcher.pid))
    assert worker.exit_code() == 75
    assert "the launcher is gone" in worker.last_line
    launcher.kill()
    launcher.wait()
    assert not alive(launcher.pid)
