"""What a benchmark tells: a table or JSON on standard output, a page, and a file for machines."""

import json
from pathlib import Path

from piecework_producer import quantities as q
from piecework_producer.benchmark import Benchmark, Degree
from piecework_producer.cli.errors import say
from piecework_producer.cli.output import table, write_file
from piecework_producer.scalability import LEAST_DEGREES

_HEADER = ("N", "ITEMS/S", "SLOWEST", "FASTEST", "SPEED-UP", "EFFICIENCY", "TAIL", "QUEUE", "START")


def tell(found: Benchmark, out: str, json_file: Path | None, output: str) -> None:
    """Write the page and the file for machines; print the table, or all of it as JSON."""
    from piecework_producer.bench_page import bench_page

    record = json.dumps(found.to_json(), indent=2)
    if json_file is not None:
        write_file("--json", json_file, record + "\n")
    if out != "none":
        write_file("--out", Path(out), bench_page(found))
    if output == "json":
        print(record)
    else:
        print(table(_HEADER, [_row(found, degree) for degree in found.degrees]))
        print(_law(found))
    for path in (None if out == "none" else out, json_file):
        if path is not None:
            say(f"written to {path}")


def _row(found: Benchmark, degree: Degree) -> tuple[str, ...]:
    return (
        str(degree.parallelism),
        q.rate(degree.rate),
        q.rate(degree.slowest),
        q.rate(degree.fastest),
        f"{found.speedup(degree):.2f}",
        q.share(found.efficiency(degree)),
        q.share(degree.tail_share),
        q.share(degree.queue_share),
        q.seconds(degree.start_seconds),
    )


def _law(found: Benchmark) -> str:
    law = found.law
    if law is None:
        return found.why_no_law
    peak = "none: more workers do more" if law.peak is None else f"{law.peak:,.0f}"
    if law.peak is not None and law.peak > found.degrees[-1].parallelism:
        peak += ", beyond what was measured"
    words = (
        f"λ {q.rate(law.rate)} items/s, σ {q.coefficient(law.sigma)} (contention), "
        f"κ {q.coefficient(law.kappa)} (coherency), N of the peak: {peak}"
    )
    if law.degrees == LEAST_DEGREES:
        words += "\n(three degrees are as many as coefficients: this law goes through almost any three points)"
    return words
