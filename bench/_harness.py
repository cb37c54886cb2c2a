"""What the benchmarks share: interleaved repetitions, tables with ratios and claims, JSON beside them."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
T = TypeVar("T")

versions: dict[str, str] = {package: version(package) for package in ("piecework", "rq", "redis")}
"""Of what is measured. Whoever measures something else adds it."""


@dataclass(frozen=True)
class Claim:
    """A limit on the subject's median, divided by that of the best rival if there are any."""

    at_least: float | None = None
    at_most: float | None = None
    rivals: Sequence[str] = ()

    def verdict(self, medians: Mapping[str, float], subject: str, more_is_better: bool) -> tuple[str, float, bool]:
        """(the claim in words, what was reached, whether that is enough, rounded as it is shown)."""
        rivals = [name for name in self.rivals if name in medians]
        words = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        reached = medians[subject]
        if rivals:
            best = (max if more_is_better else min)(rivals, key=lambda name: medians[name])
            words += f" times {best}"
            reached /= medians[best]
        rounded = float(f"{reached:.3g}")
        enough = (self.at_least is None or rounded >= self.at_least) and (
            self.at_most is None or rounded <= self.at_most
        )
        return words, reached, enough


@dataclass(frozen=True)
class Table:
    """Figures of several systems, in one unit."""

    title: str
    unit: str
    figures: Mapping[str, Sequence[float]]
    subject: str = "piecework"
    """Who is compared with the others; "" if nobody is."""
    more_is_better: bool = True
    claims: Sequence[Claim] = ()

    @property
    def medians(self) -> dict[str, float]:
        """By system."""
        return {name: statistics.median(values) for name, values in self.figures.items()}

    def lines(self) -> list[str]:
        """As text: median, spread, and subject / rival for each system; then the claims."""
        medians, width = self.medians, max(len(name) for name in self.figures)
        better = "more is better" if self.more_is_better else "less is better"
        lines = [f"{self.title} ({self.unit}; {better})"]
        for name, values in self.figures.items():
            spread = f"{_figure(min(values))} to {_figure(max(values))}, n={len(values)}"
            compared = self.subject not in ("", name)
            ratio = f"{self.subject}/this {medians[self.subject] / medians[name]:.3g}" if compared else ""
            lines.append(f"  {name:<{width}}  median {_figure(medians[name]):>10}  ({spread})  {ratio}".rstrip())
        for words, reached, enough in self.verdicts():
            lines.append(f"  {'claim' if enough else 'CLAIM NOT REACHED'}: {words}: reached {reached:.3g}")
        return lines

    def verdicts(self) -> list[tuple[str, float, bool]]:
        """Of each claim whose rivals are there: see `Claim.verdict`."""
        return [
            claim.verdict(self.medians, self.subject, self.more_is_better)
            for claim in self.claims
            if not claim.rivals or any(name in self.figures for name in claim.rivals)
        ]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "title": self.title, "unit": self.unit, "more_is_better": self.more_is_better, "subject": self.subject,
            "figures": {name: list(values) for name, values in self.figures.items()}, "medians": self.medians,
            "claims": [{"claim": words, "reached": reached, "enough": enough}
                       for words, reached, enough in self.verdicts()],
        }  # fmt: skip


def arguments(
    description: str,
    argv: Sequence[str] | None = None,
    also: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> argparse.Namespace:
    """`--short` (what `make bench` runs), `--repetitions`, `--json FILE`; `also` adds a script's own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer items, fewer repetitions: to see that it works")
    parser.add_argument("--repetitions", type=int, help="default: 5; 1 to 5, as it takes long, with --short")
    parser.add_argument("--json", type=Path, help="where the figures go (default: build/bench/NAME.json)")
    also(parser)
    return parser.parse_args(argv)


def repetitions(options: argparse.Namespace, in_short: int) -> int:
    """How often each system is measured."""
    return int(options.repetitions or (in_short if options.short else 5))


def interleaved(systems: Mapping[str, Callable[[], T]], count: int) -> dict[str, list[T]]:
    """Measure each system `count` times, in turn, so that a machine that drifts drifts for all."""
    figures: dict[str, list[T]] = {name: [] for name in systems}
    for repetition in range(count):
        for name, measure in systems.items():
            figures[name].append(measure())
            sys.stderr.write(f"  {repetition + 1}/{count} {name}: {_shown(figures[name][-1])}\n")
    return figures


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _shown(figure: object) -> str:
    if isinstance(figure, list | tuple):
        return ", ".join(map(_shown, figure))
    return _figure(figure) if isinstance(figure, float) else str(figure)


def publish(tables: Sequence[Table], options: argparse.Namespace, remarks: Sequence[str] = (), **notes: object) -> None:
    """Print the tables and the remarks, and write them with the notes, as JSON."""
    told = ", ".join(f"{package} {number}" for package, number in versions.items())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for table in tables:
        print("\n" + "\n".join(table.lines()))
    for remark in remarks:
        print(f"  {remark}")
    print(f"  {machine}, {told}")
    target = options.json or ROOT / "build" / "bench" / f"{Path(sys.argv[0]).stem}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "short": options.short, "time": time.time(), "cores": os.cpu_count(), "machine": platform.machine(),
        "python": platform.python_version(), "load": os.getloadavg(), "versions": versions, "remarks": list(remarks),
        "notes": notes, "tables": [table.record() for table in tables],
    }  # fmt: skip
    target.write_text(json.dumps(record, indent=2) + "\n")
