"""The verbs that look: status, wait, results, failures."""

import json
import sys
from typing import Annotated, Any

import msgspec
import typer

from piecework.ledger import Ledger, runs
from piecework.records import Status
from piecework.states import ProducerExit
from piecework_producer.cli import options as o
from piecework_producer.cli.display import display, duration, line
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import ResultsOutput, table
from piecework_producer.launcher import Launch, LaunchState
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import ServerSettings, read

OptionalRun = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of the run; all if left out.", show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")]
Unordered = Annotated[bool, typer.Option("--unordered", help="As they come, not in index order.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="With the handler's traceback.")]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up after so long, exit code 4.",
                                               show_default=False)]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: piecework status nightly --output json")(status)
    app.command(epilog="Example: piecework wait nightly --timeout 3600")(wait)
    app.command(epilog="Example: piecework results nightly --follow > results.jsonl")(results)
    app.command(epilog="Example: piecework failures nightly --traceback")(failures)


def session_for(redis: str | None, state_dir: Any) -> Session:
    """The server that the options and the environment name."""
    settings = read(ServerSettings, {"redis": redis, "state_dir": state_dir})
    return Session(settings.redis_url, settings.state_dir, say=say)


@reporting
def status(
    run: OptionalRun = None, output: o.Output = "table", redis: o.Redis = None, state_dir: o.StateDir = None
) -> None:
    """Show a run, or all runs on the server."""
    o.checked_output(output)
    with session_for(redis, state_dir) as session:
        names = [run] if run else runs(session.client)
        found = [Ledger.find(session.client, name).status() for name in names]
    if output == "json":
        records = [msgspec.to_builtins(each) for each in found]
        print(json.dumps(records[0] if run else records))
    elif not found:
        say("no runs; start one: piecework run --help")
    else:
        print(table(_HEADER, [_row(each) for each in found]))
        for each in found:
            if each.reason:
                print(f"{each.run}: {each.reason}")


_HEADER = ("NAME", "STATUS", "COMPLETIONS", "FAILED", "IN FLIGHT", "WORKERS", "RATE", "ETA", "DURATION")


def _row(status: Status) -> tuple[str, ...]:
    return (
        status.run,
        f"{status.state} (paused)" if status.paused else str(status.state),
        f"{status.done}/{status.total}",
        str(status.failed),
        str(status.in_flight),
        str(status.workers),
        f"{status.items_per_second:,.6g}/s",
        "-" if status.eta_seconds is None else duration(status.eta_seconds),
        duration(status.elapsed_seconds),
    )


@reporting
def wait(
    run: o.RunArgument, timeout: Timeout = None, redis: o.Redis = None, state_dir: o.StateDir = None
) -> None:
    """Wait until a run is over; the exit code tells how it ended."""
    with session_for(redis, state_dir) as session:
        waited = Run(session, run)
        first = waited.status()
        if not first.state.over and not first.workers:
            say(f"run {run} has no worker now; start one: piecework-worker {run}, or piecework retry {run}")
        with display() as shown:
            final = waited.wait(timeout, lambda status: shown.status(status, Launch(LaunchState.ACTIVE, running=status.workers)))
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
    with session_for(redis, state_dir) as session:
        for outcome in Run(session, run).failures():
            record = json.loads(outcome.to_json())
            assert outcome.error is not None
            record["error"]["attempt"] = outcome.error.attempt
            if traceback:
                record["error"]["traceback"] = outcome.error.traceback
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
