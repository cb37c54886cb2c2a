"""The options that several verbs share. Each has an environment variable PIECEWORK_…, read in `settings`."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from piecework.errors import UsageError
from piecework.items import Pile, jsonl, lines, parse_range

_ITEMS, _WORK, _LIMITS, _SERVER = "Items (one of these)", "How the work is done", "Limits", "Server"


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> object:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


Handler = Annotated[
    str | None, typer.Argument(help="package.module:function; left out with --exec.", show_default=False)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", show_default=False)]
Range = Annotated[
    str | None, _option("--range", panel=_ITEMS, metavar="START:STOP[:STEP]", help="Integers, as in a slice.")
]
Lines = Annotated[
    str | None, _option("--lines", panel=_ITEMS, metavar="FILE|-", help="One item for each line, as text.")
]
Jsonl = Annotated[
    str | None, _option("--jsonl", panel=_ITEMS, metavar="FILE|-", help="One item for each line, as JSON.")
]
Exec = Annotated[
    str | None,
    _option("--exec", panel=_WORK, metavar="'CMD {}'", help="A command instead of a handler; {} is the item."),
]
Shell = Annotated[bool | None, _option("--shell", panel=_WORK, help="Run the command with /bin/sh.")]
Stdin = Annotated[
    bool | None,
    _option("--stdin", panel=_WORK, help="Give the command each item on standard input, as JSON."),
]
Batch = Annotated[
    bool | None,
    _option("--batch", panel=_WORK, help="The handler takes a list of items, returns as many results."),
]
BatchSize = Annotated[
    int | None,
    _option("--batch-size", panel=_WORK, help="Most items in such a list. Default: 0.25 s of work."),
]
Concurrency = Annotated[
    int | None,
    _option("--concurrency", panel=_WORK, help="Items at once in each worker, for async handlers."),
]
Parallelism = Annotated[
    int | None,
    _option("--parallelism", "-p", panel=_WORK, help="Number of workers. Default: one for each core."),
]
ChunkSize = Annotated[
    int | None, _option("--chunk-size", panel=_WORK, help="Items delivered together. Default: automatic.")
]
Isolation = Annotated[
    str | None,
    _option("--isolation", panel=_WORK, metavar="process|none", help="A forked process for each chunk, or none."),
]
Speculate = Annotated[
    bool | None,
    _option("--speculate", panel=_WORK, help="Idle workers redo a last item that takes far longer than others."),
]
RunId = Annotated[
    str | None, _option("--run", panel=_WORK, metavar="ID", help="Id of the run; one that exists goes on.")
]
Retries = Annotated[
    int | None,
    _option("--retries", panel=_LIMITS, help="Try a failed item again so often, with growing delay."),
]
ItemTimeout = Annotated[
    float | None,
    _option("--item-timeout", panel=_LIMITS, metavar="SECONDS", help="End an item that takes longer; it failed."),
]
ItemMemory = Annotated[
    str | None,
    _option("--item-memory", panel=_LIMITS, metavar="SIZE", help="Most memory for an item: 512M, 2Gi. Linux."),
]
MaxFailures = Annotated[
    str | None,
    _option("--max-failures", panel=_LIMITS, metavar="N|P%", help="Stop when more items than that have failed."),
]
CrashLimit = Annotated[
    int | None,
    _option("--crash-limit", panel=_LIMITS, help="An item that crashed so often has failed. Default: 3."),
]
Lease = Annotated[
    float | None,
    _option(
        "--lease",
        panel=_LIMITS,
        metavar="SECONDS",
        help="A silent worker's chunk is given away. Default: 15.",
    ),
]
Patience = Annotated[
    float | None,
    _option("--patience", panel=_LIMITS, metavar="SECONDS", help="How long Redis may be away. Default: 60."),
]
Grace = Annotated[
    float | None,
    _option("--grace", panel=_LIMITS, metavar="SECONDS", help="Time for items in hand at a stop. Default: 20."),
]
WaitReplicas = Annotated[
    int | None,
    _option("--wait-replicas", panel=_LIMITS, metavar="N", help="What is recorded counts when N replicas have it."),
]
Keep = Annotated[
    int | None,
    _option(
        "--keep",
        panel=_LIMITS,
        metavar="SECONDS",
        help="Keep the run so long after its end. Default: 7 days.",
    ),
]
Redis = Annotated[
    str | None,
    _option(
        "--redis",
        panel=_SERVER,
        metavar="URL",
        help="redis://, rediss://, unix://. Default: embedded. Password: PIECEWORK_REDIS_PASSWORD.",
    ),
]
StateDir = Annotated[
    Path | None,
    _option("--state-dir", panel=_SERVER, metavar="DIR", help="Where the embedded server and logs live."),
]
Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="table|json", help="What is printed.",
        envvar="PIECEWORK_OUTPUT", show_envvar=False,
    ),
]  # fmt: skip


def _source(path: str) -> tuple[AbstractContextManager[BinaryIO], str]:
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed: give a FILE")
        return nullcontext(sys.stdin.buffer), "standard input"
    try:
        return Path(path).open("rb"), path
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def open_pile(range_text: str | None, lines_path: str | None, jsonl_path: str | None) -> AbstractContextManager[Pile]:
    """The items that one of the three names; a file stays open for the block. Raises `UsageError`."""
    if range_text is not None:
        return nullcontext(parse_range(range_text))
    path = lines_path if lines_path is not None else jsonl_path
    source, name = _source("-" if path is None else path)
    return _Opened(source, name, lines_path is not None)


class _Opened(AbstractContextManager[Pile]):
    def __init__(self, source: AbstractContextManager[BinaryIO], name: str, as_lines: bool) -> None:
        self._source, self._name, self._as_lines = source, name, as_lines

    def __enter__(self) -> Pile:
        stream = self._source.__enter__()
        return lines(stream, self._name) if self._as_lines else jsonl(stream, self._name)

    def __exit__(self, *exception: object) -> None:
        self._source.__exit__(None, None, None)


def checked_output(output: str) -> str:
    """`table` or `json`. Raises `UsageError`."""
    if output not in ("table", "json"):
        raise UsageError(f"--output {output!r} is neither table nor json")
    return output
