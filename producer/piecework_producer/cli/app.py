"""The application: its verbs, from one file for each kind of verb."""

from typing import Annotated

import typer

from piecework import __version__
from piecework_producer.cli import bench, doctor, logs, look, pi, report, schedule, soundness, steer, submit, work

app = typer.Typer(
    name="piecework",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: piecework run mypkg.tasks:convert --lines files.txt --parallelism 4 > results.jsonl  ·  "
    "Each option of a run, and of the server, can be set as PIECEWORK_… in the environment.  ·  Exit codes of run "
    "and wait: 0 all succeeded, 1 some items failed, 2 usage, 3 failed or cancelled, 4 waited too long.",
)
for module in (work, submit, pi, look, logs, steer, soundness, schedule, bench, report, doctor):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"piecework {__version__}")
        raise typer.Exit


@app.callback()
def piecework(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Run a finite pile of work items to completion, each recorded exactly once."""
