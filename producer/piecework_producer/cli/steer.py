"""The verbs that steer a run: pause, resume, scale, cancel, delete."""

import shutil
from typing import Annotated

import typer

from piecework.errors import RunIsOver, UnknownRun
from piecework.states import State
from piecework_producer import submitted
from piecework_producer.cli import cluster_options as c
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.targets import open_target
from piecework_producer.local_workers import logs_of
from piecework_producer.settings import ClusterSettings, read

Force = Annotated[bool, typer.Option("--force", help="Also if it is not over.")]
Reason = Annotated[str, typer.Option("--reason", help="Shown by `status`.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (pause, resume, cancel, delete):
        app.command(epilog=f"Example: piecework {verb.__name__} nightly")(verb)
    app.command(epilog="Example: piecework scale nightly 20")(scale)


def _live(state: State, run: str, verb: str) -> None:
    if state.over:
        raise RunIsOver(f"run {run} is over ({state}): there is nothing to {verb}")


@reporting
def pause(
    run: o.RunArgument,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Have the workers finish the items in hand, hand the rest back, and wait; a Job is suspended."""
    with open_target(run, read(ClusterSettings, locals())) as target:
        if target.run is not None:
            _live(target.run.pause(), run, "pause")
        if target.job is not None:
            target.job.suspend()
    more = "" if target.run is not None else " --on kubernetes"
    say(f"run {run} is paused; go on with: piecework resume {run}{more}")


@reporting
def resume(
    run: o.RunArgument,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Let the workers of a paused run go on."""
    with open_target(run, read(ClusterSettings, locals())) as target:
        if target.run is not None:
            _live(target.run.resume(), run, "resume")
        if target.job is not None:
            target.job.resume()
    say(f"run {run} goes on")


@reporting
def scale(
    run: o.RunArgument,
    parallelism: Annotated[int, typer.Argument(metavar="N", help="Number of workers.", min=1)],
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Have another number of workers on Kubernetes; those that are too many hand back."""
    with open_target(run, read(ClusterSettings, locals())) as target:
        if target.run is not None:
            _live(target.run.status().state, run, "scale")
        target.known_job().scale(parallelism)
    say(f"run {run} is to have {parallelism} workers")


@reporting
def cancel(
    run: o.RunArgument,
    reason: Reason = "cancelled",
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """End a run now. What is recorded stays readable; workers stop within seconds, and a Job is deleted."""
    with open_target(run, read(ClusterSettings, locals())) as target:
        state = target.run.cancel(reason) if target.run is not None else State.CANCELLED
        if target.job is not None:
            target.job.delete()
    if state is not State.CANCELLED:
        raise RunIsOver(f"run {run} is over already ({state}); it stays as it is")
    say(f"run {run} is cancelled")


@reporting
def delete(
    run: o.RunArgument,
    force: Force = False,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Remove a run and all its results from the server, and its Job, pods and code from the cluster."""
    with open_target(run, read(ClusterSettings, locals())) as target:
        if target.run is not None and target.run.status().state is State.RUNNING and not force:
            raise RunIsOver(
                f"run {run} is running: cancel it first (piecework cancel {run}), or delete it with --force"
            )
        if target.run is not None:
            target.run.delete()
            shutil.rmtree(logs_of(target.run), ignore_errors=True)
            submitted.forget(target.run.session.state_dir, run)
        if target.job is not None and not target.job.delete() and target.run is None:
            raise UnknownRun(f"there is no Job of {run} in namespace {target.job.cluster.namespace}")
    say(f"run {run} is deleted")
