"""`piecework`: every verb that a person uses. One file for each kind of verb."""

import typer

from piecework_producer.cli import doctor, look, pi, steer, work

app = typer.Typer(
    name="piecework",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run a finite pile of work items to completion, each recorded exactly once.",
    epilog="Example: piecework run mypkg.tasks:convert --lines files.txt --parallelism 4 > results.jsonl  ·  "
    "Each option can be set as PIECEWORK_… in the environment.  ·  "
    "Exit codes of run and wait: 0 all succeeded, 1 some items failed, 2 usage, 3 failed or cancelled, 4 waited too long.",
)
for module in (work, pi, look, steer, doctor):
    module.register(app)


def main() -> None:
    """Entry point of the `piecework` command."""
    app()
