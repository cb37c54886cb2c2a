"""A command for each item, `true ITEM`: what does it cost to start and record one, against GNU parallel and xargs?

Two at a time. The figure is items per second of the whole command, from its start to its exit, which for piecework has
a server and two workers in it; xargs records nothing, and neither takes up where it stopped but for GNU parallel with
`--joblog`, which is how it is run here.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench._harness import ROOT, Table, arguments, interleaved, publish, repetitions, versions
from bench._piecework import PIECEWORK

WORKERS = 2


def rate(command: list[str], lines: Path, items: int) -> float:
    """Items per second of a command that reads the lines from its standard input."""
    with lines.open() as file:
        started = time.monotonic()
        subprocess.run(command, stdin=file, cwd=ROOT, check=True, capture_output=True)
        return items / (time.monotonic() - started)


def piecework(lines: Path, items: int) -> float:
    """Items per second."""
    with tempfile.TemporaryDirectory() as state:
        command = [*PIECEWORK, "run", "--exec", "true {}", "--lines", "-", "-p", str(WORKERS), "--state-dir", state]
        return rate(command, lines, items)


def parallel(lines: Path, items: int) -> float:
    """Items per second of GNU parallel; each line of its log is an item that is done."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "joblog"
        command = ["parallel", "--will-cite", "-j", str(WORKERS), "--joblog", str(log), "true", "{}"]
        figure = rate(command, lines, items)
        if len(log.read_text().splitlines()) != items + 1:
            raise SystemExit("GNU parallel lost items")
        return figure


def gnu_parallel() -> str | None:
    """Its version, if it is here. (moreutils has another `parallel`.)"""
    if shutil.which("parallel") is None:
        return None
    told = subprocess.run(["parallel", "--version"], capture_output=True, text=True).stdout
    return told.split()[2] if told.startswith("GNU parallel") else None


def main() -> None:
    """Measure all in turn and print the table."""
    options = arguments(__doc__ or "")
    items = 500 if options.short else 5000
    remarks, number = [], gnu_parallel()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        lines.write_text("".join(f"{item}\n" for item in range(items)))
        systems: dict[str, Callable[[], float]] = {"piecework run --exec": lambda: piecework(lines, items)}
        if number is not None:
            versions["GNU parallel"] = number
            systems["parallel --joblog"] = lambda: parallel(lines, items)
        else:
            remarks.append("not measured: GNU parallel; apt-get install parallel")
        systems["xargs -P 2 -n 1"] = lambda: rate(["xargs", "-P", "2", "-n", "1", "true"], lines, items)
        figures = interleaved(systems, repetitions(options, in_short=2))
    table = Table(f"{items:,} commands, two at a time", "items per second", figures, subject="piecework run --exec")
    publish([table], options, remarks)


if __name__ == "__main__":
    main()
