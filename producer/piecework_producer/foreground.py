"""Drains a run in the foreground: launches workers, hands on outcomes as they are in order, watches, gives the verdict.

The foreground holds nothing that counts: killed at any line, the same command with the same run id goes on.
"""

from collections.abc import Callable, Iterator

from redis.exceptions import RedisError

from piecework.patience import is_away
from piecework.records import Status
from piecework.results import Outcome, ResultReader
from piecework.states import State
from piecework_producer.launcher import Launch, Launcher, LaunchState
from piecework_producer.run import Run

_LOOK_SECONDS = 0.1
_MOST_READING_SECONDS = 0.5
"""A backlog of outcomes does not keep it from looking after the workers for longer."""


def drain(
    run: Run,
    launcher: Launcher,
    on_outcome: Callable[[Outcome], None],
    on_status: Callable[[Status, Launch], None] = lambda status, launch: None,
) -> Status:
    """Work until the run is over and every outcome was handed on in index order; returns the final status.

    When no worker can ever start, the run is ended as failed. In the end, also by an exception (Ctrl-C), the workers
    are told to stop; closing the launcher waits for them.
    """
    reader = ResultReader(run.ledger, run.spec)
    try:
        if not run.session.lasting(run.status).state.over:
            launcher.launch()
        while True:
            launch = launcher.poll(0)
            try:
                status = _look(run, launch)
                on_status(status, launch)
                over = status.state.over
                for outcome in _all(reader) if over else reader.in_order(_LOOK_SECONDS, _MOST_READING_SECONDS):
                    on_outcome(outcome)
            except RedisError as error:
                if not is_away(error):
                    raise
                run.session.revive()
                continue
            if over:
                return status
            if launch.state in (LaunchState.SUCCEEDED, LaunchState.GONE):
                # All workers saw the end, and a restarted server has forgotten it: there is work left again.
                launcher.launch()
    finally:
        launcher.stop()


def _all(reader: ResultReader) -> Iterator[Outcome]:
    yield from reader.in_order()
    yield from reader.rest()


def _look(run: Run, launch: Launch) -> Status:
    status = run.status()
    if launch.state is LaunchState.FAILED and not status.state.over:
        run.ledger.abort(State.FAILED, launch.reason)
        status = run.status()
    return status
