"""The verbs that get work done: run, submit, retry."""

import shlex
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from piecework.items import Pile
from piecework.records import Status
from piecework.results import Outcome
from piecework.states import ProducerExit, State
from piecework_producer.api import local_launcher
from piecework_producer.cli import options as o
from piecework_producer.cli.display import display, duration, line
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import ResultsOutput
from piecework_producer.foreground import drain
from piecework_producer.launcher import WorkerPlan
from piecework_producer.local_launcher import LocalHooks, LocalLauncher
from piecework_producer.references import load
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings, ServerSettings, environment, read
from piecework_producer.submission import submit_to

Results = Annotated[
    str,
    typer.Option("--results", metavar="FILE|-|none", help="Where results go as JSON Lines, in index order."),
]
Reduce = Annotated[
    str | None,
    typer.Option("--reduce", metavar="M:F", show_default=False,
                 help="A function of the ordered results; what it returns is printed instead of them."),
]  # fmt: skip
Detach = Annotated[bool, typer.Option("--detach", help="Only open the items again; workers elsewhere drain them.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: piecework run mypkg.tasks:square --range 0:1000 -p 4 > squares.jsonl")(run)
    app.command(epilog="Example: piecework submit mypkg.tasks:convert --jsonl jobs.jsonl --run nightly")(submit)
    app.command(epilog="Example: piecework retry nightly")(retry)


@reporting
def run(
    handler: o.Handler = None,
    range_: o.Range = None,
    lines: o.Lines = None,
    jsonl: o.Jsonl = None,
    exec_: o.Exec = None,
    shell: o.Shell = None,
    stdin: o.Stdin = None,
    batch: o.Batch = None,
    batch_size: o.BatchSize = None,
    concurrency: o.Concurrency = None,
    parallelism: o.Parallelism = None,
    chunk_size: o.ChunkSize = None,
    isolation: o.Isolation = None,
    run: o.RunId = None,
    retries: o.Retries = None,
    item_timeout: o.ItemTimeout = None,
    max_failures: o.MaxFailures = None,
    crash_limit: o.CrashLimit = None,
    lease: o.Lease = None,
    patience: o.Patience = None,
    grace: o.Grace = None,
    keep: o.Keep = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    results: Results = "-",
    reduce: Reduce = None,
) -> None:
    """Run a pile of items to its end on this machine, and print the results in index order."""
    settings = _settings(locals())
    combine = load(reduce, "--reduce") if reduce else None
    with o.open_pile(range_, lines, jsonl) as pile:
        raise typer.Exit(run_here(settings, pile, results, combine))


@reporting
def submit(
    handler: o.Handler = None,
    range_: o.Range = None,
    lines: o.Lines = None,
    jsonl: o.Jsonl = None,
    exec_: o.Exec = None,
    shell: o.Shell = None,
    stdin: o.Stdin = None,
    batch: o.Batch = None,
    batch_size: o.BatchSize = None,
    concurrency: o.Concurrency = None,
    parallelism: o.Parallelism = None,
    chunk_size: o.ChunkSize = None,
    isolation: o.Isolation = None,
    run: o.RunId = None,
    retries: o.Retries = None,
    item_timeout: o.ItemTimeout = None,
    max_failures: o.MaxFailures = None,
    crash_limit: o.CrashLimit = None,
    lease: o.Lease = None,
    patience: o.Patience = None,
    grace: o.Grace = None,
    keep: o.Keep = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Fill a run and seal it, start no worker, and print its id."""
    settings = _settings(locals())
    with o.open_pile(range_, lines, jsonl) as pile, _session(settings) as session, display() as shown:
        submitted, created = submit_to(session, settings, pile, shown.filled)
        status = submitted.status()
    say(f"run {status.run} {'submitted' if created else 'is there already'}: {status.total} items, {status.state}")
    where = settings.redis or f"unix socket of the embedded server in {session.state_dir}"
    say(f"drain it here: piecework retry {status.run}; elsewhere: piecework-worker {status.run} (Redis: {where})")
    print(status.run)


@reporting
def retry(
    run: o.RunArgument,
    detach: Detach = False,
    parallelism: o.Parallelism = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Open failed items again and drain the run on this machine, with the options it was submitted with."""
    settings = read(ServerSettings, {"redis": redis, "state_dir": state_dir})
    with _session(settings) as session:
        known = Run(session, run)
        opened = known.retry()
        say(f"run {run}: {opened} failed items are open again")
        if detach:
            return
        import os

        arguments = known.ledger.worker_arguments()
        plan = WorkerPlan(run, arguments, parallelism or os.cpu_count() or 1, _grace(arguments))
        hooks = LocalHooks(known.ledger.reap, lambda: known.status().done + known.status().failed)
        launcher = LocalLauncher(plan, session.url, session.state_dir / "logs" / run, hooks, environment())
        status = drain_here(known, launcher, lambda outcome: None, lambda: None)
    raise typer.Exit(_verdict(status))


def run_here(
    settings: RunSettings, pile: Pile, results: str, combine: Callable[..., Any] | None = None
) -> ProducerExit:
    """Submit, drain with local workers, write the results (or what `combine` makes of them); the exit code."""
    with _session(settings) as session:
        with display() as shown:
            submitted, created = submit_to(session, settings, pile, shown.filled)
        if not created:
            say(f"run {submitted.id} goes on: {line(submitted.status())}")
        output = ResultsOutput("none" if combine else results)
        launcher = local_launcher(submitted, settings)
        status = drain_here(submitted, launcher, output.write, output.flush)
        output.close()
        code = _verdict(status)
        if combine is not None:
            if code is ProducerExit.SUCCEEDED:
                _write_text(combine(outcome.result for outcome in submitted.results()), results)
            else:
                say("not reduced: not every item has a result")
    return code


def drain_here(
    submitted: Run, launcher: LocalLauncher, write: Callable[[Outcome], None], flush: Callable[[], None]
) -> Status:
    """Drain with a progress display. On Ctrl-C or SIGTERM the workers hand back, and the way on is printed."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with launcher, display() as shown:

            def show(status: Status, launch: Any) -> None:
                flush()
                shown.status(status, launch)

            return drain(submitted, launcher, write, show)
    except KeyboardInterrupt:
        say(f"handed back; nothing recorded is lost. {line(submitted.status())}")
        say(f"go on with: {_command_to_go_on(submitted.id)}")
        raise typer.Exit(ProducerExit.INTERRUPTED) from None


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _command_to_go_on(run: str) -> str:
    arguments = sys.argv[1:]
    if run not in arguments and f"--run={run}" not in arguments:
        arguments = [*arguments, "--run", run]
    return shlex.join(["piecework", *arguments])


def _verdict(status: Status) -> ProducerExit:
    text = f"run {status.run} {status.state}: {status.done} done, {status.failed} failed of {status.total}"
    rate = f"{status.items_per_second:,.6g} items/s"
    say(f"{text} in {duration(status.elapsed_seconds)} ({rate})" + (f": {status.reason}" if status.reason else ""))
    if status.state is State.COMPLETED_WITH_FAILURES:
        say(f"see: piecework failures {status.run}; after a fix: piecework retry {status.run}")
    return ProducerExit.of(status.state)


def _grace(arguments: tuple[str, ...]) -> float:
    return float(arguments[arguments.index("--grace") + 1]) if "--grace" in arguments else 20.0


def _write_text(value: object, target: str) -> None:
    text = value if isinstance(value, str) else str(value)
    if target == "-":
        print(text)
    elif target != "none":
        with open(target, "w", encoding="utf-8") as file:  # noqa: PTH123 - the same words as for results
            file.write(text + "\n")


def _settings(options: dict[str, Any]) -> RunSettings:
    return read(RunSettings, {name.removesuffix("_"): value for name, value in options.items()})


def _session(settings: ServerSettings) -> Session:
    return Session(settings.redis_url, settings.state_dir, getattr(settings, "patience", 60.0), say)
