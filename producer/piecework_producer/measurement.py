"""Measures one run: starts N workers, waits until all have joined, then fills and seals the pile and waits for its end.

So what is measured, from the seal to the end, has no start-up of workers in it. Whatever happens, the workers are ended
and the run is removed (unless it is to be kept and is over). When this process is killed itself, local workers hand the
run back and it stays, with a Job if it had one: `piecework list` shows it, `piecework delete --force` removes both.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import RedisError

from piecework.errors import PieceworkError
from piecework.items import Pile
from piecework.ledger import Ledger
from piecework.records import Status
from piecework_producer.benchmark import Repetition
from piecework_producer.launcher import Launcher, LaunchState
from piecework_producer.pile import rq_job_template
from piecework_producer.run import Run
from piecework_producer.run_profile import profile_of
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings
from piecework_producer.submission import spec_of, submit_to

_LOOK_SECONDS = 0.1


class MeasurementFailed(PieceworkError):
    """The run did not come to an end that can be measured."""


class Place(Protocol):
    """Where workers run."""

    @property
    def words(self) -> str:
        """For a reader of the figures."""

    def workers(self, run: Run, settings: RunSettings) -> AbstractContextManager[Launcher]:
        """A launcher of the run's workers; all are gone after the block."""


@dataclass(frozen=True)
class Measurer:
    """Measures runs on one server and in one place."""

    session: Session
    place: Place
    keep: bool
    """Runs that are over are not removed."""
    start_timeout: float
    """Seconds after which not to wait any longer for workers to join; 0: for ever."""
    say: Callable[[str], None]

    def measure(self, settings: RunSettings, pile: Pile, number: int) -> Repetition:
        """Measure one run of `settings.parallelism` workers. Raises `MeasurementFailed`."""
        assert settings.run is not None  # noqa: S101 - the caller names it
        ledger = Ledger(self.session.client, settings.run)
        template = rq_job_template(ledger.client, ledger.run)
        ledger.open(spec_of(settings, pile), template, settings.keep, settings.worker_arguments())
        measured = False
        try:
            repetition = self._drained(Run(self.session, ledger.run), settings, pile, number)
            measured = True
        finally:
            if not (measured and self.keep):
                with suppress(RedisError):  # the error that led here is the one to tell; the keys expire
                    ledger.delete()
        return repetition

    def _drained(self, run: Run, settings: RunSettings, pile: Pile, number: int) -> Repetition:
        with self.place.workers(run, settings) as launcher:
            try:
                begun = time.monotonic()
                launcher.launch()
                self._wait_for_workers(run, launcher, settings.parallelism)
                start_seconds = time.monotonic() - begun
                submit_to(self.session, settings, pile)
                self._wait_for_end(run, launcher)
                found = Repetition(settings.parallelism, number, profile_of(run.ledger), start_seconds)
                if found.rate <= 0:
                    raise MeasurementFailed(f"{found.profile.items} items are too few to be timed: give more of them")
                return found
            except BaseException:
                with suppress(RedisError, PieceworkError):  # so that workers leave at once
                    run.cancel("the measurement was stopped")
                raise

    def _wait_for_workers(self, run: Run, launcher: Launcher, workers: int) -> None:
        begun, told = time.monotonic(), ""
        while (joined := run.status().workers) < workers:
            launch = launcher.poll(_LOOK_SECONDS)
            if launch.state is not LaunchState.ACTIVE:
                raise MeasurementFailed(f"no worker can start: {launch.reason or launch.state}")
            if 0 < self.start_timeout < time.monotonic() - begun:
                few = f"{joined} of {workers} workers have joined in {self.start_timeout:g} s (--start-timeout)"
                raise MeasurementFailed(f"{few}: {launch.reason}" if launch.reason else few)
            if launch.reason and launch.reason != told:
                self.say(launch.reason)
                told = launch.reason

    def _wait_for_end(self, run: Run, launcher: Launcher) -> None:
        while not (status := self.session.lasting(run.status)).state.over:
            launch = launcher.poll(_LOOK_SECONDS)
            if launch.state is not LaunchState.ACTIVE and not run.status().state.over:
                raise MeasurementFailed(f"the workers of run {run.id} are gone: {launch.reason or launch.state}")
        if not status.state.drained:
            raise MeasurementFailed(f"run {run.id} {status.state}: {status.reason}")
        if status.failed:
            self.say(_failures(status))


def _failures(status: Status) -> str:
    return f"{status.failed} of {status.total} items of run {status.run} failed; they count as items"
