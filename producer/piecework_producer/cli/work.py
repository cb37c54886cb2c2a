"""The verbs that get work done: run, retry."""

import shlex
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from redis.exceptions import RedisError

from piecework.damage import reading
from piecework.errors import PieceworkError, UsageError
from piecework.items import Pile
from piecework.records import Status
from piecework.states import ProducerExit, State
from piecework_producer import submitted
from piecework_producer.cli import options as o
from piecework_producer.cli.display import display, duration, line, workers
from piecework_producer.cli.draining import drain_here
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import ResultsOutput
from piecework_producer.cli.targets import open_session
from piecework_producer.local_workers import local_launcher
from piecework_producer.references import load
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import CommandSettings, RetrySettings, read
from piecework_producer.submission import submit_to, wait_for_replicas

Results = Annotated[
    str | None,
    typer.Option("--results", metavar="FILE|-|none", show_default=False,
                 help="Where results go as JSON Lines, in index order. Default: standard output."),
]  # fmt: skip
Reduce = Annotated[
    str | None,
    typer.Option("--reduce", metavar="M:F", show_default=False,
                 help="A function of the ordered results; what it returns is printed instead of them."),
]  # fmt: skip
Detach = Annotated[bool, typer.Option("--detach", help="Only open the items again; workers elsewhere drain them.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: piecework run mypkg.tasks:square --range 0:1000 -p 4 > squares.jsonl")(run)
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
    speculate: o.Speculate = None,
    run: o.RunId = None,
    retries: o.Retries = None,
    item_timeout: o.ItemTimeout = None,
    item_memory: o.ItemMemory = None,
    max_failures: o.MaxFailures = None,
    crash_limit: o.CrashLimit = None,
    lease: o.Lease = None,
    patience: o.Patience = None,
    grace: o.Grace = None,
    wait_replicas: o.WaitReplicas = None,
    keep: o.Keep = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    results: Results = None,
    reduce: Reduce = None,
) -> None:
    """Run a pile of items to its end on this machine, and print the results in index order."""
    settings = _settings(locals())
    combine = load(settings.reduce, "--reduce") if settings.reduce else None
    with o.open_pile(settings.range, settings.lines, settings.jsonl) as pile:
        raise typer.Exit(run_here(settings, pile, combine))


@reporting
def retry(
    run: o.RunArgument,
    detach: Detach = False,
    parallelism: o.Parallelism = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Open failed items again and drain the run on this machine, with the options it was submitted with."""
    settings = read(RetrySettings, {"redis": redis, "state_dir": state_dir, "parallelism": parallelism})
    with open_session(settings) as session:
        known = Run(session, run)
        arguments = () if detach else _arguments(known)
        opened = known.retry()
        say(f"run {run}: {opened} failed items are open again" if opened else line(known.status()))
        if known.ledger.place() and not known.status().state.over:
            say("its workers were on Kubernetes: submit it again with the same command, and it has a new Job")
            return
        if detach:
            return
        launcher = local_launcher(known, arguments, settings.parallelism, _grace(arguments))
        status = drain_here(known, launcher, ResultsOutput("none"))
        _tell_verdict(status)
        say(f"see: piecework results {run}")
    raise typer.Exit(ProducerExit.of(status.state))


def _arguments(known: Run) -> tuple[str, ...]:
    """The workers' options, as this machine has submitted them. Raises `UsageError` if it has not.

    Whoever may write to a server that is not this user's own could have put a command of theirs there.
    """
    noted = submitted.recall(known.session.state_dir, known.id)
    if noted is not None:
        return noted
    stored = known.ledger.worker_arguments()
    if known.session.embedded:
        return stored
    words = shlex.join(["piecework-worker", known.id, *stored])
    raise UsageError(
        f"run {known.id} was not submitted from here (with this --state-dir), and no command is taken from a server: "
        f"open its items with piecework retry {known.id} --detach, and start workers yourself. By what the server "
        f"holds that is: {words}"
    )


def run_here(settings: CommandSettings, pile: Pile, combine: Callable[..., Any] | None = None) -> ProducerExit:
    """Submit, drain with local workers, write the results (or what `combine` makes of them); the exit code."""
    output = ResultsOutput(settings.results)
    with open_session(settings, settings.patience) as session:
        opened, created = _submit(session, settings, pile)
        status = opened.status()
        if created:
            say(f"{line(status)}, {workers(settings.parallelism)}")
        else:
            say(f"{'there already' if status.state.over else 'going on'}: {line(status)}")
        launcher = local_launcher(opened, settings.worker_arguments(), settings.parallelism, settings.grace)
        status = drain_here(opened, launcher, output if combine is None else ResultsOutput("none"))
        wait_for_replicas(opened, settings)
        _tell_verdict(status)
        code = ProducerExit.of(status.state)
        if combine is not None:
            code = _reduced(opened, combine, output) if code is ProducerExit.SUCCEEDED else _not_reduced(code)
        output.close()
    return code


def _reduced(known: Run, combine: Callable[..., Any], output: ResultsOutput) -> ProducerExit:
    try:
        reduced = combine(outcome.result for outcome in known.results())
        output.write_text(reduced if isinstance(reduced, str) else str(reduced))
    except (PieceworkError, RedisError, BrokenPipeError):
        raise
    except Exception:
        traceback.print_exc()
        say(f"error: --reduce failed; the results are there: piecework results {known.id}")
        return ProducerExit.RUN_FAILED
    return ProducerExit.SUCCEEDED


def _not_reduced(code: ProducerExit) -> ProducerExit:
    say("not reduced: not every item has a result")
    return code


def _tell_verdict(status: Status) -> None:
    counts = f"{status.done} done, {status.failed} failed of {status.total}"
    spent = f"{duration(status.elapsed_seconds)} ({status.items_per_second:,.4g} items/s)"
    say(f"run {status.run} {status.state}: {status.reason or f'{counts} in {spent}'}")
    if status.state in (State.COMPLETED_WITH_FAILURES, State.FAILED):
        see = f"see: piecework failures {status.run}; " if status.failed else ""
        say(f"{see}after a fix: piecework retry {status.run}")


def _grace(arguments: tuple[str, ...]) -> float:
    with reading("the workers' options"):
        return float(arguments[arguments.index("--grace") + 1]) if "--grace" in arguments else 20.0


def _submit(session: Session, settings: CommandSettings, pile: Pile) -> tuple[Run, bool]:
    with display() as shown:
        return submit_to(session, settings, pile, shown.filled)


def _settings(options: dict[str, Any]) -> CommandSettings:
    return read(CommandSettings, {name.removesuffix("_"): value for name, value in options.items()})
