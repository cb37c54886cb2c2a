"""The options of `piecework bench` alone."""

from pathlib import Path
from typing import Annotated

import typer

_BENCH, _PAGE = "What is measured", "Where the figures go"


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> object:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


HandlerOrName = Annotated[
    str | None,
    typer.Argument(
        metavar="[HANDLER|noop|spin|sleep|pi]", show_default=False,
        help="A handler, whose items are given too, or a built-in workload. Default: noop.",
    ),
]  # fmt: skip
Degrees = Annotated[
    str | None,
    _option("--parallelism", "-p", panel=_BENCH, metavar="N,N,…",
            help="Numbers of workers. Default: 1, 2, 4, … up to the number of cores."),
]  # fmt: skip
Repetitions = Annotated[
    int, typer.Option("--repetitions", min=1, rich_help_panel=_BENCH, help="Of each degree; the degrees take turns.")
]
Items = Annotated[
    int | None, typer.Option("--items", min=1, rich_help_panel=_BENCH, show_default=False,
                             help="Items of a built-in workload, the same number at each degree.")
]  # fmt: skip
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.01, rich_help_panel=_BENCH, show_default=False,
                               help="Instead: as many items for each worker as take about so long. Default: 3.")
]  # fmt: skip
ItemSeconds = Annotated[
    float | None, typer.Option("--item-seconds", min=1e-6, rich_help_panel=_BENCH, show_default=False,
                               help="What an item of spin or sleep takes. Default: 0.01.")
]  # fmt: skip
Digits = Annotated[
    int | None, typer.Option("--digits", min=1, rich_help_panel=_BENCH, show_default=False,
                             help="Whose series pi sums. Default: 5,000,000.")
]  # fmt: skip
Out = Annotated[str, typer.Option("--out", metavar="FILE|none", rich_help_panel=_PAGE, help="The page.")]
Json = Annotated[Path | None, _option("--json", panel=_PAGE, metavar="FILE", help="All figures, for a machine.")]
Keep = Annotated[
    int | None,
    _option("--keep", panel=_BENCH, metavar="SECONDS", help="Keep the runs so long. Default: they are deleted."),
]
