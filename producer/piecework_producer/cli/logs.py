"""`piecework logs`: what the workers of a run have written."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from piecework.errors import UnknownRun
from piecework_producer.cli import cluster_options as c
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting
from piecework_producer.cli.targets import open_target
from piecework_producer.local_workers import logs_of
from piecework_producer.settings import ClusterSettings, read

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on as they write, until the run is over.")]
Tail = Annotated[int | None, typer.Option("--tail", help="Only the last lines of each worker.", show_default=False)]

_LOOK_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(epilog="Example: piecework logs nightly --follow")(logs)


@reporting
def logs(
    run: o.RunArgument,
    follow: Follow = False,
    tail: Tail = None,
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Print what the workers have written, with the worker's (or pod's) name in front."""
    with open_target(run, read(ClusterSettings, locals())) as target:
        if target.job is not None:
            from piecework_producer.cli.on_kubernetes import print_logs

            print_logs(target, follow, tail)
            return
        known = target.known_run()
        folder = logs_of(known)
        if not folder.is_dir():
            raise UnknownRun(f"run {run} has had no workers on this machine: there are no logs in {folder}")
        files = _Files(folder, tail)
        while True:
            over = not follow or known.status().state.over
            for text in files.new_lines():
                typer.echo(text)
            if over:
                return
            time.sleep(_LOOK_SECONDS)


class _Files:
    """The log files of local workers; each is read on from where it was left."""

    def __init__(self, folder: Path, tail: int | None) -> None:
        self._folder, self._tail = folder, tail
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[str]:
        for path in sorted(self._folder.glob("*.log")):
            first = path not in self._read
            with path.open("rb") as log:
                log.seek(self._read.get(path, 0))
                whole = log.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole[0]) + len(whole[1])
            lines = whole[0].decode(errors="replace").split("\n") if whole[1] else []
            for text in lines[-self._tail :] if first and self._tail is not None else lines:
                yield f"{path.stem} {text}"
