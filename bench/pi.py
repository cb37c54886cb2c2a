"""A million and ten million digits of pi, as a decimal string in a file: is it worth it to share the work?

piecework's figure is the whole command, from nothing to its end: server, two workers, series, root, division, decimal
string, file. The rivals compute in one process and are timed without starting Python and without writing the file:
`flint.arb.pi`, the Chudnovsky series with gmpy2, and gmpy2's own `const_pi`. All digits are compared, but for the last
ones, which some round and some cut.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from bench._harness import ROOT, Claim, Table, arguments, interleaved, publish, repetitions, versions
from bench._piecework import PIECEWORK

LAST_DIGITS = 3


class Digits:
    """The systems, for one number of digits; the first one's digits are what the others' are compared with."""

    def __init__(self, digits: int) -> None:
        self._digits = digits
        self._text = ""

    def piecework(self, parallelism: int) -> float:
        """Seconds."""
        with tempfile.TemporaryDirectory() as folder:
            command = [*PIECEWORK, "pi", "--digits", str(self._digits), "--parallelism", str(parallelism)]
            command += ["--out", f"{folder}/pi.txt", "--state-dir", f"{folder}/state"]
            started = time.monotonic()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            seconds = time.monotonic() - started
            self._compare(Path(folder) / "pi.txt")
        return seconds

    def rival(self, program: str, *words: str) -> float:
        """Seconds. A process of its own each time: a library may keep the digits."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "pi.txt"
            command = [sys.executable, "-m", f"bench._rivals.{program}", str(self._digits), str(target), *words]
            told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            self._compare(target)
        return float(told.stdout)

    def _compare(self, file: Path) -> None:
        text = file.read_text().strip()[: self._digits + 1 - LAST_DIGITS]
        self._text = self._text or text
        if len(text) != self._digits + 1 - LAST_DIGITS or text != self._text:
            raise SystemExit("the digits differ")


def systems(digits: int) -> dict[str, Callable[[], float]]:
    """What is measured."""
    by = Digits(digits)
    return {
        "piecework pi, 2 workers": lambda: by.piecework(2),
        "piecework pi, 1 worker": lambda: by.piecework(1),
        "flint.arb.pi": lambda: by.rival("pi_flint"),
        "gmpy2, Chudnovsky series": lambda: by.rival("pi_gmpy2"),
        "gmpy2.const_pi": lambda: by.rival("pi_gmpy2", "mpfr"),
    }


def main() -> None:
    """Measure all in turn and print a table for each number of digits."""
    options = arguments(__doc__ or "")
    versions.update({package: version(package) for package in ("gmpy2", "python-flint")})
    count, tables = repetitions(options, in_short=2), []
    for digits in (1_000_000,) if options.short else (1_000_000, 10_000_000):
        figures = interleaved(systems(digits), count)
        claims = [Claim(at_most=1, rivals=["flint.arb.pi"])] if digits == 10_000_000 else []
        tables.append(Table(f"{digits:,} digits of pi", "seconds", figures, subject="piecework pi, 2 workers",
                            more_is_better=False, claims=claims))  # fmt: skip
    publish(tables, options)


if __name__ == "__main__":
    main()
