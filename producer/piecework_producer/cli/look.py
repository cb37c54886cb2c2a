"""The verbs that look: status, wait, results, failures."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer

from piecework.errors import CorruptData, UnknownRun, UsageError
from piecework.ledger import Ledger, runs
from piecework.records import Status
from piecework.states import ProducerExit
from piecework_producer.cli import cluster_options as c
from piecework_producer.cli import options as o
from piecework_producer.cli.display import display, duration, line
from piecework_producer.cli.errors import plain, reporting, say
from piecework_producer.cli.output import ResultsOutput, table
from piecework_producer.cli.targets import Target, open_session, open_target, session_for
from piecework_producer.launcher import Launch, LaunchState
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import ClusterSettings, read

OptionalRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="Id of the run; all if left out.", show_default=False)
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")]
Unordered = Annotated[bool, typer.Option("--unordered", help="As they come, not in index order.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="With the handler's traceback.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Give up after so long, exit code 4.",
        show_default=False,
        envvar="PIECEWORK_TIMEOUT",
        show_envvar=False,
    ),
]


Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on showing what changes.")]

_WATCH_SECONDS = 2.0


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: piecework status nightly --output json")(status)
    app.command("list", epilog="Example: piecework list --on kubernetes")(list_)
    app.command(epilog="Example: piecework wait nightly --timeout 3600")(wait)
    app.command(epilog="Example: piecework results nightly --follow > results.jsonl")(results)
    app.command(epilog="Example: piecework failures nightly --traceback")(failures)


@reporting
def status(
    run: OptionalRun = None,
    output: o.Output = "table",
    watch: Watch = False,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Show a run, or all runs on the server; with --on kubernetes the Jobs beside them."""
    o.checked_output(output)
    settings = read(ClusterSettings, locals())
    with _looked_at(run, settings) as (session, target):
        if settings.on == "kubernetes" or (target is not None and target.job is not None):
            from piecework_producer.cli.jobs import show_jobs

            raise typer.Exit(show_jobs(run, settings, session, target, output, watch))
        if session is None:
            raise UsageError("there is neither a server nor a cluster to look at: give --redis or --on kubernetes")
        while True:
            found = [Run(session, run).status()] if run else _all(session)
            _show(found, run, output)
            if not watch or all(each.state.over for each in found):
                return
            time.sleep(_WATCH_SECONDS)


@contextmanager
def _looked_at(run: str | None, settings: ClusterSettings) -> Iterator[tuple[Session | None, Target | None]]:
    if run is not None:
        with open_target(run, settings) as target:
            yield (target.run.session if target.run else None), target
    elif settings.on == "kubernetes" and settings.redis is None:
        yield None, None
    else:
        with open_session(settings) as session:
            yield session, None


def _show(found: list[Status], run: str | None, output: str) -> None:
    if output == "json":
        records = [msgspec.to_builtins(each) for each in found]
        print(json.dumps(records[0] if run else records), flush=True)
    elif not found:
        say("no runs; start one: piecework run --help")
    else:
        print(table(_HEADER, [_row(each) for each in found]), flush=True)
        for each in found:
            if each.reason:
                print(plain(f"{each.run}: {each.reason}"))


@reporting
def list_(
    output: o.Output = "table",
    watch: Watch = False,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Show all runs: the same as `status` without a run."""
    status(None, output, watch, redis, state_dir, on, namespace, context, kubeconfig)


def _all(session: Session) -> list[Status]:
    found = []
    for name in runs(session.client):
        try:
            found.append(Ledger(session.client, name).status())
        except UnknownRun:
            continue  # deleted since
        except CorruptData as error:
            say(f"error: {error}")
    return found


_HEADER = ("NAME", "STATUS", "COMPLETIONS", "FAILED", "IN FLIGHT", "WORKERS", "RATE", "ETA", "DURATION")


def _row(status: Status) -> tuple[str, ...]:
    return (
        status.run,
        f"{status.state} (paused)" if status.paused else str(status.state),
        f"{status.done}/{status.total}",
        str(status.failed),
        str(status.in_flight),
        str(status.workers),
        f"{status.items_per_second:,.4g}/s",
        "-" if status.eta_seconds is None or not status.workers else duration(status.eta_seconds),
        duration(status.elapsed_seconds),
    )


@reporting
def wait(
    run: o.RunArgument,
    timeout: Timeout = None,
    start_timeout: c.StartTimeout = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Wait until a run is over; the exit code tells how it ended."""
    settings = read(ClusterSettings, locals())
    with open_target(run, settings) as target:
        if target.job is not None:
            from piecework_producer.cli.on_kubernetes import wait_for

            raise typer.Exit(wait_for(target, timeout, settings.start_timeout))
        waited = target.known_run()
        first = waited.status()
        if not first.state.over and not first.workers:
            say(f"run {run} has no worker now; drain it here: piecework retry {run}")
        with display() as shown:
            final = waited.wait(
                timeout,
                lambda status: shown.status(status, Launch(LaunchState.ACTIVE, running=status.workers)),
            )
    say(line(final))
    raise typer.Exit(ProducerExit.of(final.state))


@reporting
def results(
    run: o.RunArgument,
    follow: Follow = False,
    unordered: Unordered = False,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Print the outcomes of a run as JSON Lines, in index order."""
    with session_for(redis, state_dir) as session:
        output = ResultsOutput()
        for outcome in Run(session, run).results(ordered=not unordered, follow=follow):
            output.write(outcome)
            if follow:
                output.flush()
        output.close()


@reporting
def failures(
    run: o.RunArgument, traceback: Traceback = False, redis: o.Redis = None, state_dir: o.StateDir = None
) -> None:
    """Print the items that failed, as JSON Lines."""
    fields = ("type", "message", "attempt", "traceback") if traceback else ("type", "message", "attempt")
    with session_for(redis, state_dir) as session:
        output = ResultsOutput(error_fields=fields)
        for outcome in Run(session, run).failures():
            output.write(outcome)
        output.close()
