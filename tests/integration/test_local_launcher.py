"""The local launcher beyond what every launcher does: reaping, back-off, what is told, closing."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piecework_producer.launcher import LaunchState
from piecework_producer.local_launcher import LocalLauncher
from tests.local_rig import LocalRig
from tests.server_fixture import eventually

PARALLELISM = 3


class World:
    """A rig and its launcher."""

    def __init__(self, directory: Path, *, grace: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.rig = LocalRig(directory)
        self.launcher: LocalLauncher = self.rig.launcher(PARALLELISM, 18, grace=grace, clock=clock)
        self.directory = directory


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with world.launcher:
        yield world
    assert world.rig.running() == [], "close leaves no worker"


def up(world: World, count: int = PARALLELISM) -> list[str]:
    def looked() -> bool:
        world.launcher.poll(0)
        return len(world.rig.running()) == count

    eventually(looked, message=f"{count} workers are up")
    return world.rig.running()


def ended(world: World, worker: str, code: int) -> None:
    """Have a worker end, and the launcher see it."""
    world.rig.end(worker, code)
    before = world.launcher.poll(0).running
    eventually(lambda: world.launcher.poll(0).running < before, message=f"{worker} has ended")


def test_who_died_is_reaped_at_once_and_who_handed_back_is_not(world: World) -> None:
    world.launcher.launch()
    workers = up(world)
    ended(world, workers[0], 75)
    ended(world, workers[1], -9)
    ended(world, workers[2], 70)
    assert world.rig.reaped == workers[1:]


@pytest.mark.parametrize("code", [1, 70, -signal.SIGSEGV, -signal.SIGKILL])
def test_any_other_end_is_replaced_and_counted(world: World, code: int) -> None:
    world.launcher.launch()
    workers = up(world)
    ended(world, workers[0], code)
    launch = world.launcher.poll(0)
    assert (launch.state, launch.failed, launch.exit_code) == (LaunchState.ACTIVE, 1, None)
    assert len(set(up(world)) - set(workers)) == 1


def test_reaping_is_done_later_when_the_server_is_away(world: World) -> None:
    world.launcher.launch()
    workers = up(world)
    world.rig.away = True
    ended(world, workers[0], -9)
    ended(world, workers[1], -9)
    assert world.rig.reaped == []
    world.rig.away = False
    world.launcher.poll(0)
    assert world.rig.reaped == workers[:2]


def test_what_became_of_a_worker_is_told_with_its_last_words(world: World) -> None:
    world.launcher.launch()
    workers = up(world)

    ended(world, workers[0], -9)
    assert world.launcher.poll(0).reason == (
        "worker 0 was killed by signal 9; replaced in 0.1 s (failure 1 of 18 without progress)"
    )
    ended(world, workers[1], 70)
    assert world.launcher.poll(0).reason == (
        f"worker 1 ended: the last words of {workers[1]}: exit 70; replaced in 0.2 s (failure 2 of 18 without progress)"
    )
    ended(world, workers[2], 75)
    assert world.launcher.poll(0).reason == (
        f"worker 2 has left and is replaced: the last words of {workers[2]}: exit 75"
    )


def test_last_words_are_those_of_this_worker_and_not_of_one_before(world: World) -> None:
    world.launcher.launch()
    ended(world, up(world)[0], 70)
    silent = up(world)[0]
    log = world.directory / "logs" / "worker-0.log"
    with log.open("a") as file:
        file.write("\n" * 5000)
    ended(world, silent, 78)
    assert world.launcher.poll(0).reason == f"the last words of {silent}: exit 78"


def test_logs_that_are_gone_do_not_matter(world: World) -> None:
    world.launcher.launch()
    worker = up(world)[0]
    for file in (world.directory / "logs").iterdir():
        file.unlink()
    (world.directory / "logs").rmdir()
    ended(world, worker, 70)
    assert "its output is lost" in world.launcher.poll(0).reason
    up(world)


def test_backoff_grows_and_starts_anew_after_progress(tmp_path: Path) -> None:
    now = 1000.0
    world = World(tmp_path, clock=lambda: now, grace=0.0)
    world.launcher.launch()
    eventually(lambda: len(world.rig.running()) == PARALLELISM)

    for backoff in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
        ended(world, world.rig.running()[0], 70)
        now += backoff - 0.05
        launch = world.launcher.poll(0)
        assert (launch.running, launch.pending) == (PARALLELISM - 1, 1)
        now += 0.1
        assert world.launcher.poll(0).running == PARALLELISM
        eventually(lambda: len(world.rig.running()) == PARALLELISM)
    world.rig.recorded()
    ended(world, world.rig.running()[0], 70)
    assert "failure 1 of 18" in world.launcher.poll(0).reason
    now += 1000
    world.launcher.close()


def test_failures_that_the_run_has_outlived_do_not_count(tmp_path: Path) -> None:
    now = 1000.0
    world = World(tmp_path, clock=lambda: now)
    world.launcher.launch()
    for _ in range(25):
        now += 100
        world.launcher.poll(0)
        eventually(lambda: len(world.rig.running()) == PARALLELISM)
        world.rig.recorded()
        ended(world, world.rig.running()[0], -9)
    assert world.launcher.poll(0).state is LaunchState.ACTIVE
    assert world.launcher.poll(0).failed == 25
    now += 100
    world.launcher.close()


def test_close_kills_who_does_not_hand_back_in_time(tmp_path: Path) -> None:
    (tmp_path / "stubborn").touch()
    world = World(tmp_path, grace=-4.5)
    world.launcher.launch()
    up(world)
    begun = time.monotonic()

    world.launcher.close()

    assert 0.3 < time.monotonic() - begun < 10
    assert world.rig.running() == []


def test_a_second_ctrl_c_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    (tmp_path / "stubborn").touch()
    world = World(tmp_path, grace=600)
    world.launcher.launch()
    up(world)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        world.launcher.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert world.rig.running() == []


def test_workers_have_what_they_need_in_the_environment_and_no_secret_in_ps(world: World) -> None:
    world.launcher.launch()
    worker = up(world)[0]
    assert "worker of r1, redis at unix:///secret, other: none" in world.rig.log(0)
    pid = (world.directory / f"{worker}.up").read_text().strip()
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert b"--handler" in command
    assert command[command.index(b"--parent") + 1] == str(os.getpid()).encode()
    assert not any(b"secret" in word for word in command)


def test_a_worker_that_cannot_be_started_fails_the_launch(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.launcher.command = ("/no/such/program",)
    world.launcher.launch()
    launch = world.launcher.poll(0)
    assert launch.state is LaunchState.FAILED
    assert "cannot be started" in launch.reason
    assert "/no/such/program" in launch.reason


def test_after_a_success_it_can_be_launched_anew(world: World) -> None:
    world.launcher.launch()
    for worker in up(world):
        world.rig.end(worker, 0)
    eventually(lambda: world.launcher.poll(0).state is LaunchState.SUCCEEDED)

    world.launcher.launch()

    up(world)
    assert world.launcher.poll(0).state is LaunchState.ACTIVE
