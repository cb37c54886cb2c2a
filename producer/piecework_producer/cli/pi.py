"""`piecework pi`: digits of pi, the first workload."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from piecework.errors import UsageError
from piecework.items import iterable
from piecework.records import Status
from piecework.results import Outcome
from piecework.states import ProducerExit
from piecework_producer.cli import options as o
from piecework_producer.cli.draining import drain_here
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import ResultsOutput, check_writable
from piecework_producer.local_workers import local_launcher
from piecework_producer.references import load
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings, read
from piecework_producer.submission import submit_to

Digits = Annotated[int, typer.Option("--digits", "-n", help="Significant digits; the last one is rounded.")]
Parts = Annotated[int | None, typer.Option("--parts", help="Number of items. Default: by digits and parallelism.",
                                           show_default=False)]  # fmt: skip
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the digits there.", show_default=False)]

_MODULE = "piecework_worker.pi"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(epilog="Example: piecework pi --digits 1000000 --parallelism 2 --out pi.txt")(pi)


@reporting
def pi(
    digits: Digits = 1000,
    parallelism: o.Parallelism = None,
    parts: Parts = None,
    out: Out = None,
    run: o.RunId = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
) -> None:
    """Compute digits of pi: ranges of the Chudnovsky series on several workers, put together here."""
    settings = read(
        RunSettings,
        {
            "handler": f"{_MODULE}:terms",
            "parallelism": parallelism,
            "run": run,
            "redis": redis,
            "state_dir": state_dir,
        }
        | {"chunk_size": 1},
    )
    if out is not None:
        check_writable("--out", out)
    started = time.monotonic()
    try:
        default_parts = load(f"{_MODULE}:default_parts", "pi")
        count = default_parts(digits, settings.parallelism) if parts is None else parts
        items = load(f"{_MODULE}:ranges", "pi")(digits, count)
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from None
    with Session(settings.redis_url, settings.state_dir, settings.patience, say) as session:
        submitted, _ = submit_to(session, settings, iterable(items))
        arguments = settings.worker_arguments()
        launcher = local_launcher(submitted, arguments, settings.parallelism, settings.grace)
        results = _Results()

        def finish(status: Status) -> None:
            drained = time.monotonic()
            _require_success(status)
            _write(_combined(status.run, results, digits), out)
            seconds, after = time.monotonic() - started, time.monotonic() - drained
            say(f"{digits} digits of pi in {seconds:.2f} s: {len(items)} items on {settings.parallelism} workers "
                f"{seconds - after:.2f} s, put together {after:.2f} s")  # fmt: skip

        drain_here(submitted, launcher, results, then=finish)


class _Results(ResultsOutput):
    """Keeps the results for `combine`, in index order."""

    def __init__(self) -> None:
        super().__init__("none")
        self.values: list[Any] = []

    def write(self, outcome: Outcome) -> None:
        self.values.append(outcome.result)


def _require_success(status: Status) -> None:
    code = ProducerExit.of(status.state)
    if code is not ProducerExit.SUCCEEDED:
        why = status.reason or f"{status.failed} items failed, see: piecework failures {status.run}"
        say(f"run {status.run} {status.state}: {why}")
        raise typer.Exit(code)


def _combined(run: str, results: _Results, digits: int) -> str:
    combine = load(f"{_MODULE}:combine", "pi")
    try:
        return str(combine(results.values, digits))
    except (ValueError, ArithmeticError) as error:
        raise UsageError(f"run {run}: {error}") from error


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        out.write_text(text + "\n", encoding="ascii")
        say(f"written to {out}")
