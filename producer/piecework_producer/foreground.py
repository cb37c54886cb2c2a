"""Drains a run in the foreground: launches workers, hands on outcomes as they are in order, watches, gives the verdict.

The foreground holds nothing that counts: killed at any line, the same command with the same run id goes on.
"""

from collections.abc import Callable

from redis.exceptions import RedisError

from piecework.patience import is_away
from piecework.records import Status
from piecework.results import Outcome, ResultReader
from piecework.states import State
from piecework_producer.launcher import Launch, Launcher, LaunchState
from piecework_producer.run import Run

_LOOK_SECONDS = 0.1


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
        if not run.status().state.over:
            launcher.launch()
        while True:
            launch = launcher.poll(0)
            try:
                status = _look(run, launch)
                on_status(status, launch)
                for outcome in reader.in_order(0.0 if status.state.over else _LOOK_SECONDS):
                    on_outcome(outcome)
            except RedisError as error:
                if not is_away(error):
                    raise
                run.session.revive()
                continue
            if status.state.over:
                break
            if launch.state in (LaunchState.SUCCEEDED, LaunchState.GONE):
                # All workers saw the end, and a restarted server has forgotten it: there is work left again.
                launcher.launch()
        for outcome in reader.rest():
            on_outcome(outcome)
        return status
    finally:
        launcher.stop()


def _look(run: Run, launch: Launch) -> Status:
    status = run.status()
    if launch.state is LaunchState.FAILED and not status.state.over:
        run.ledger.abort(State.FAILED, launch.reason)
        status = run.status()
    return status
