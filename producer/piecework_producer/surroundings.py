"""Where and with what something was measured: what a reader of its page has to know."""

import os
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from piecework.server import masked, where
from piecework_producer.session import Session

_PACKAGES = ("piecework", "rq", "redis")
_CPUINFO = Path("/proc/cpuinfo")


def host() -> str:
    """This machine: its name, processor and cores."""
    cores = os.cpu_count() or 1
    return ", ".join(filter(None, (platform.node(), _processor(), f"{cores} cores", platform.system())))


def server(session: Session) -> str:
    """The server that holds the ledger."""
    facts = session.facts
    kind = "embedded" if session.embedded else where(session.client)
    append_only = {True: ", append-only file", False: ", no append-only file", None: ""}[facts.appendonly]
    return f"{facts.product.title()} {'.'.join(map(str, facts.version))} ({kind}{append_only})"


def versions() -> str:
    """Of what was at work here."""
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return f"{packages}, Python {platform.python_version()}"


def command(arguments: Sequence[str]) -> str:
    """The command line, without passwords and the values of `--env`."""
    shown, after_env = [], False
    for argument in arguments:
        word = masked(argument) if "://" in argument else argument
        if after_env or word.startswith("--env="):
            head, _, _ = word.removeprefix("--env=").partition("=")
            word = f"{'' if after_env else '--env='}{head}=***"
        shown.append(word)
        after_env = argument == "--env"
    return shlex.join(["piecework", *shown])


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
