"""What the benchmarks share: interleaved repetitions, a table with ratios, JSON beside it."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def arguments(description: str) -> argparse.Namespace:
    """`--short` (what `make bench` runs), `--repetitions`, `--json FILE`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--short", action="store_true", help="fewer items, fewer repetitions")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the figures go (default: build/bench/NAME.json)")
    return parser.parse_args()


def interleaved(systems: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Run each system once per repetition, in turn, so that a machine that drifts drifts for all. Returns figures."""
    figures: dict[str, list[float]] = {name: [] for name in systems}
    for repetition in range(repetitions):
        for name, measure in systems.items():
            figures[name].append(measure())
            sys.stderr.write(f"  {repetition + 1}/{repetitions} {name}: {figures[name][-1]:.4g}\n")
    return figures


def report(
    title: str, unit: str, figures: Mapping[str, Sequence[float]], subject: str, options: argparse.Namespace,
    packages: Sequence[str] = (), notes: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Print median, spread and the ratio subject / rival for each system, and write the same as JSON."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(f"\n{title} ({unit}; {os.cpu_count()} cores, Python {platform.python_version()})")
    for name, values in figures.items():
        spread = f"{min(values):.4g} to {max(values):.4g}"
        ratio = f"{medians[subject] / medians[name]:.2f}" if medians[name] else "-"
        print(f"  {name:<44} median {medians[name]:>12.4g}   ({spread}, n={len(values)})   {subject}/this {ratio}")
    versions = {package: version(package) for package in ("piecework", "rq", "redis", *packages)}
    print("  " + ", ".join(f"{package} {number}" for package, number in versions.items()))
    name = Path(sys.argv[0]).stem
    target = options.json or Path("build") / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "title": title, "unit": unit, "cores": os.cpu_count(), "python": platform.python_version(),
        "versions": versions, "figures": {key: list(values) for key, values in figures.items()},
        "medians": medians, "notes": dict(notes or {}), "time": time.time(),
    }  # fmt: skip
    target.write_text(json.dumps(record, indent=2) + "\n")
