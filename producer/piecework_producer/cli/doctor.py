"""`piecework doctor`: whether this machine can run piecework, and what to do if not."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from typing import NamedTuple

import typer

from piecework.errors import PieceworkError
from piecework.server import where
from piecework_producer import embedded
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting
from piecework_producer.cli.output import table
from piecework_producer.cli.targets import open_session
from piecework_producer.server_binary import find_binary
from piecework_producer.settings import ServerSettings, read


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    verdict: str
    """ok, warn or FAIL."""
    detail: str


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(epilog="Example: piecework doctor --redis redis://localhost:6379")(doctor)


@reporting
def doctor(redis: o.Redis = None, state_dir: o.StateDir = None) -> None:
    """Check this machine and the server; exit code 1 if something will not work."""
    settings = read(ServerSettings, {"redis": redis, "state_dir": state_dir})
    findings = list(_findings(settings))
    print(table(("CHECK", "VERDICT", "DETAIL"), findings))
    raise typer.Exit(1 if any(finding.verdict == "FAIL" for finding in findings) else 0)


def _findings(settings: ServerSettings) -> Iterator[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    if settings.redis is None:
        yield _binary()
        runs = "runs" if embedded.serves(settings.state_dir) else "not running now"
        yield Finding("embedded server", "ok", f"{runs}, data in {settings.state_dir}")
    yield from _server(settings)
    for module, extra, use in (("gmpy2", "pi", "piecework pi"), ("rich", "producer", "the progress bar")):
        found = importlib.util.find_spec(module) is not None
        detail = "installed" if found else f"missing: {use} needs pip install 'piecework[{extra}]'"
        yield Finding(module, "ok" if found else "warn", detail)


def _binary() -> Finding:
    try:
        return Finding("server binary", "ok", str(find_binary()))
    except PieceworkError as error:
        return Finding("server binary", "FAIL", str(error))


def _server(settings: ServerSettings) -> Iterator[Finding]:
    try:
        with open_session(settings) as session:
            facts, server = session.facts, where(session.client)
    except PieceworkError as error:
        yield Finding("server", "FAIL", str(error))
        return
    limit = f"{facts.maxmemory >> 20} MiB" if facts.maxmemory else "no limit"
    version = ".".join(map(str, facts.version))
    used = f"{facts.used_memory >> 20} MiB used of {limit}"
    yield Finding("server", "ok", f"{facts.product} {version} at {server}, {used}")
    if facts.appendonly is False:
        lost = "off: a restart of the server loses the runs; set appendonly yes"
        yield Finding("append-only file", "warn", lost)
