"""The verbs that steer a run: pause, resume, cancel, delete."""

import shutil
from typing import Annotated

import typer

from piecework.errors import RunIsOver
from piecework.states import State
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.look import session_for
from piecework_producer.run import Run

Force = Annotated[bool, typer.Option("--force", help="Also if it is not over.")]
Reason = Annotated[str, typer.Option("--reason", help="Shown by `status`.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (pause, resume, cancel, delete):
        app.command(epilog=f"Example: piecework {verb.__name__} nightly")(verb)


def _live(state: State, run: str, verb: str) -> None:
    if state.over:
        raise RunIsOver(f"run {run} is over ({state}): there is nothing to {verb}")


@reporting
def pause(run: o.RunArgument, redis: o.Redis = None, state_dir: o.StateDir = None) -> None:
    """Have the workers finish the items in hand, hand the rest back, and wait."""
    with session_for(redis, state_dir) as session:
        _live(Run(session, run).pause(), run, "pause")
    say(f"run {run} is paused; go on with: piecework resume {run}")


@reporting
def resume(run: o.RunArgument, redis: o.Redis = None, state_dir: o.StateDir = None) -> None:
    """Let the workers of a paused run go on."""
    with session_for(redis, state_dir) as session:
        _live(Run(session, run).resume(), run, "resume")
    say(f"run {run} goes on")


@reporting
def cancel(
    run: o.RunArgument, reason: Reason = "cancelled", redis: o.Redis = None, state_dir: o.StateDir = None
) -> None:
    """End a run now. What is recorded stays readable; workers stop at once."""
    with session_for(redis, state_dir) as session:
        state = Run(session, run).cancel(reason)
    if state is not State.CANCELLED:
        raise RunIsOver(f"run {run} is over already ({state}); it stays as it is")
    say(f"run {run} is cancelled")


@reporting
def delete(
    run: o.RunArgument, force: Force = False, redis: o.Redis = None, state_dir: o.StateDir = None
) -> None:
    """Remove a run and all its results from the server."""
    with session_for(redis, state_dir) as session:
        known = Run(session, run)
        state = known.status().state
        if state is State.RUNNING and not force:
            raise RunIsOver(f"run {run} is running: cancel it first (piecework cancel {run}), or delete it with --force")
        known.delete()
        shutil.rmtree(session.state_dir / "logs" / run, ignore_errors=True)
    say(f"run {run} is deleted")
