"""Draining in the foreground, as `run`, `retry` and `pi` show it: progress, results, and the way on when it is left."""

import shlex
import sys
from collections.abc import Callable, Sequence

import typer
from redis.exceptions import RedisError

from piecework.errors import PieceworkError
from piecework.records import Status
from piecework.server import masked
from piecework.states import ProducerExit
from piecework_producer.cli.display import display, line
from piecework_producer.cli.errors import say
from piecework_producer.cli.output import ResultsOutput
from piecework_producer.foreground import drain
from piecework_producer.launcher import Launch
from piecework_producer.local_launcher import LocalLauncher
from piecework_producer.run import Run

_ALL_FAIL = 20
"""So many failures and no result: a dependency is broken, and no item will do better."""


def drain_here(
    submitted: Run,
    launcher: LocalLauncher,
    output: ResultsOutput,
    then: Callable[[Status], None] = lambda status: None,
) -> Status:
    """Drain with a progress display. When it is left early (Ctrl-C, SIGTERM, an error) the workers hand back first, and
    the way on is printed.

    `then` is called with the final status while the workers leave, which may take an idle one most of a second.
    """
    try:
        with launcher:
            with display() as shown:
                told = submitted.spec.max_failures is not None

                def show(status: Status, launch: Launch) -> None:
                    nonlocal told
                    output.flush(shown.aside)
                    if not told and status.failed >= _ALL_FAIL and not status.done and not status.state.over:
                        told = True
                        with shown.aside():
                            say(
                                f"all {status.failed} items so far have failed; see: piecework failures "
                                f"{submitted.id}; Ctrl-C stops; --max-failures N would end such a run early"
                            )
                    shown.status(status, launch)

                try:
                    status = drain(submitted, launcher, output.write, show)
                except KeyboardInterrupt:
                    say("stopping: workers finish the items in hand; once more ends them at once")
                    raise
            output.flush()
            then(status)
        return status
    except KeyboardInterrupt:
        _tell_the_way_on(submitted)
        raise typer.Exit(ProducerExit.INTERRUPTED) from None
    except BaseException:
        _tell_the_way_on(submitted)
        raise


def _tell_the_way_on(submitted: Run) -> None:
    try:
        status = submitted.status()
    except (RedisError, PieceworkError):
        say("handed back; nothing that was recorded is lost")
    else:
        if status.state.over:
            return
        say(f"handed back; nothing that was recorded is lost: {line(status)}")
    say(f"go on with: {command_to_go_on(sys.argv[1:], submitted.id)}")


def command_to_go_on(arguments: Sequence[str], run: str) -> str:
    """The command line again, with the id of the run, and without any password."""
    again = [masked(argument) if "://" in argument else argument for argument in arguments]
    if run not in again and f"--run={run}" not in again:
        again += ["--run", run]
    same_input = " < the same input" if "-" in again else ""
    return shlex.join(["piecework", *again]) + same_input
