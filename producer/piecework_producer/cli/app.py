"""The application: its verbs, from one file for each kind of verb. A file is imported when one of its verbs is used."""

import gc
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from piecework import __version__

FILES: Final = {
    "work": ("run", "retry"),
    "submit": ("submit",),
    "pi": ("pi",),
    "look": ("status", "list", "wait", "results", "failures"),
    "logs": ("logs",),
    "steer": ("pause", "resume", "cancel", "delete", "scale"),
    "soundness": ("audit", "repair"),
    "bench": ("bench",),
    "report": ("report",),
    "doctor": ("doctor",),
    "schedule": ("schedule",),
}
"""The verbs of each file, in the order of the help."""


class _Verbs(TyperGroup):
    """Knows the names of all verbs, and makes those of a file when one of them is asked for.

    (To make all takes 30 ms at each start.)
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = dict.fromkeys(verb for verbs in FILES.values() for verb in verbs)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            file = next(file for file, verbs in FILES.items() if cmd_name in verbs)
            self.commands.update(verbs_of(file))
            gc.freeze()  # what is imported by now is no garbage: it is not looked through for any
            gc.enable()
        return super().get_command(ctx, cmd_name)


def verbs_of(file: str) -> dict[str, Any]:
    """The commands that a file registers."""
    its = typer.Typer(callback=lambda: None)  # with a callback it is a group, also with one verb
    import_module(f"piecework_producer.cli.{file}").register(its)
    return dict(getattr(typer.main.get_command(its), "commands"))  # noqa: B009 - click's Group, which typer has within


app = typer.Typer(
    name="piecework",
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: piecework run mypkg.tasks:convert --lines files.txt --parallelism 4 > results.jsonl  ·  "
    "Each option of a run, and of the server, can be set as PIECEWORK_… in the environment.  ·  Exit codes of run "
    "and wait: 0 all succeeded, 1 some items failed, 2 usage, 3 failed or cancelled, 4 waited too long.",
)


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
