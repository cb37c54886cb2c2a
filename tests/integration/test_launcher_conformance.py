"""What every launcher does alike (the table in `piecework_producer.launcher`), on each rig."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from piecework_producer.launcher import Launch, Launcher, LaunchState
from tests.launcher_rigs import RIGS, Rig
from tests.server_fixture import eventually


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with RIGS[request.param]() as made:
        yield made


@pytest.fixture
def make(rig: Rig) -> Iterator[Callable[..., Launcher]]:
    """Makes launchers, and closes them at the end."""
    with ExitStack() as closing:

        def launcher(parallelism: int, **more: int) -> Launcher:
            made = rig.launcher(parallelism, **more)
            closing.callback(made.close)
            return made

        yield launcher


def until(launcher: Launcher, wanted: Callable[[Launch], bool], timeout: float = 30.0) -> Launch:
    told: list[Launch] = []

    def there() -> bool:
        told.append(launcher.poll(0.2))
        return wanted(told[-1])

    eventually(there, timeout=timeout, message=told)
    return told[-1]


def running(count: int) -> Callable[[Launch], bool]:
    return lambda launch: launch.running == count and launch.state is LaunchState.ACTIVE


def state(wanted: LaunchState) -> Callable[[Launch], bool]:
    return lambda launch: launch.state is wanted


def gone(rig: Rig, worker: str) -> None:
    eventually(lambda: worker not in rig.running())


def replaced(rig: Rig, launcher: Launcher, gone: str) -> None:
    """Wait for another in its place. A local launcher acts only when it is asked."""
    until(launcher, lambda launch: gone not in rig.running() and len(rig.running()) == launch.running == 2)


def test_nothing_is_launched_before_launch(make: Callable[..., Launcher]) -> None:
    assert make(2).poll(0).state is LaunchState.GONE


def test_launching_twice_is_launching_once(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(3)
    launcher.launch()
    launcher.launch()
    until(launcher, running(3))
    assert len(rig.running()) == 3


def test_it_has_succeeded_when_one_worker_exited_0_and_none_is_left(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(3)
    launcher.launch()
    until(launcher, running(3))
    first, second, third = rig.running()
    rig.end(first, 0)
    until(launcher, running(2))
    rig.end(second, 75)
    until(launcher, running(1))
    time.sleep(0.3)
    assert rig.running() == [third], "none is replaced after the first success"
    rig.end(third, 0)
    launch = until(launcher, state(LaunchState.SUCCEEDED))
    assert (launch.running, launch.pending, launch.succeeded) == (0, 0, 2)


def test_a_worker_that_handed_back_is_replaced_and_not_counted(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(2, backoff_limit=0)
    launcher.launch()
    until(launcher, running(2))
    gone = rig.running()[0]
    rig.end(gone, 75)
    replaced(rig, launcher, gone)
    assert until(launcher, running(2)).failed == 0


def test_a_worker_that_died_is_replaced_and_counted(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(2)
    launcher.launch()
    until(launcher, running(2))
    gone = rig.running()[0]
    rig.end(gone, 70)
    replaced(rig, launcher, gone)
    assert until(launcher, running(2)).failed == 1


def test_too_many_dead_workers_fail_it(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(1, backoff_limit=1)
    launcher.launch()
    for _ in range(2):
        until(launcher, lambda launch: len(rig.running()) == 1)
        (worker,) = rig.running()
        rig.end(worker, 70)
        gone(rig, worker)
    launch = until(launcher, state(LaunchState.FAILED))
    assert launch.reason
    assert rig.running() == []


@pytest.mark.parametrize("code", [65, 78])
def test_a_worker_for_which_no_other_can_do_better_fails_it(rig: Rig, make: Callable[..., Launcher], code: int) -> None:
    launcher = make(3)
    launcher.launch()
    until(launcher, running(3))
    rig.end(rig.running()[1], code)
    launch = until(launcher, state(LaunchState.FAILED))
    assert launch.exit_code == code
    assert str(code) in launch.reason
    assert eventually(lambda: rig.running() == [])


def test_scaling_starts_and_stops_workers(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(2)
    launcher.launch()
    launcher.scale(4)
    until(launcher, running(4))
    launcher.scale(1)
    launch = until(launcher, running(1))
    assert launch.failed == 0
    assert len(rig.running()) == 1


def test_stopped_workers_are_not_replaced(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(2)
    launcher.launch()
    until(launcher, running(2))
    launcher.stop()
    launcher.stop()
    launch = until(launcher, lambda launch: launch.running == 0)
    assert launch.state is not LaunchState.SUCCEEDED
    time.sleep(0.3)
    assert rig.running() == []


def test_poll_tells_news_at_once_and_waits_no_longer_than_asked(rig: Rig, make: Callable[..., Launcher]) -> None:
    launcher = make(1)
    launcher.launch()
    until(launcher, running(1))
    begun = time.monotonic()
    launcher.poll(0.2)
    assert 0.15 <= time.monotonic() - begun < 2
    threading.Timer(0.1, lambda: rig.end(rig.running()[0], 0)).start()
    begun = time.monotonic()
    launcher.poll(20)
    until(launcher, state(LaunchState.SUCCEEDED))
    assert time.monotonic() - begun < 19
