"""Runs of 10^6 to 10^9 items: how long submitting takes, and what the server holds before, while and after the drain.

Ranges, and JSON lines of about 70 bytes; two workers and handlers that do nothing: one returns its item, one nothing.
`--short` submits the largest and does not drain them. Memory is the server's `used_memory` above that of an empty one
that has the scripts already.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench._harness import arguments
from piecework.items import Pile, Range, iterable
from piecework.ledger import Ledger
from piecework.scripts import VERBS, source
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings
from piecework_producer.submission import submit_to

ROOT = Path(__file__).parent.parent
WORKERS = 2


def lines(count: int) -> Iterator[dict[str, Any]]:
    """Items as programs write them."""
    for number in range(count):
        yield {"id": number, "path": f"/data/2026/{number % 977:03d}/image-{number:09d}.jpg"}


def used(session: Session) -> int:
    """Bytes of the server."""
    return int(session.client.info("memory")["used_memory"])


def measure(pile: Pile, total: int, handler: str, drained: bool) -> dict[str, Any]:
    """Submit a run and drain it. Times in seconds, memory in bytes."""
    with tempfile.TemporaryDirectory() as state, Session(None, Path(state)) as session:
        for verb in VERBS:
            session.client.script_load(source(verb))
        empty, begun = used(session), time.monotonic()
        settings = RunSettings(run="bench", handler=f"bench._handlers:{handler}", parallelism=WORKERS)
        run, _ = submit_to(session, settings, pile)
        row: dict[str, Any] = {"items": total, "submit_seconds": time.monotonic() - begun}
        row["at_rest"] = used(session) - empty
        if drained:
            row |= drain(session, run.ledger, f"bench._handlers:{handler}", empty)
        return row


def drain(session: Session, ledger: Ledger, handler: str, empty: int) -> dict[str, Any]:
    """With two workers, looking on."""
    command = [sys.executable, "-m", "piecework_worker.main", "bench", "--redis", session.url, "--handler", handler]
    workers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(WORKERS)]
    most = 0
    while not (status := ledger.status()).state.over:
        most = max(most, used(session) - empty)
        time.sleep(0.1)
    for worker in workers:
        worker.wait()
    if status.done != status.total:
        raise SystemExit(f"piecework lost items: {status}")
    after = used(session) - empty
    return {"drain_seconds": status.elapsed_seconds, "most_while_draining": max(most, after), "after": after}


def main() -> None:
    """Measure each and print the table."""
    options = arguments(__doc__ or "")
    million = 1_000_000
    plan: list[tuple[str, int, str, bool]] = [("range", million, "noop", True), ("range", million, "nothing", True)]
    plan += [
        ("range", 100 * million, "nothing", not options.short),
        ("range", 1000 * million, "nothing", not options.short),
    ]
    plan += [("JSON lines", (million if not options.short else million // 10), "nothing", True)]
    rows = []
    print("                           submit  at rest   drain   most memory     after   after,")
    print("items          returns          s    bytes       s         bytes     bytes  per item")
    for kind, total, handler, drained in plan:
        row = measure(Range(0, total) if kind == "range" else iterable(lines(total)), total, handler, drained)
        rows.append(row | {"kind": kind, "handler": handler})
        text = f"{total:<14.0e} {kind:<7.7} {handler:<7} {row['submit_seconds']:>6.2f} {row['at_rest']:>11,}"
        if drained:
            text += f" {row['drain_seconds']:>7.1f} {row['most_while_draining']:>13,} {row['after']:>12,}"
            text += f" {row['after'] / total:>8.4f}"
        print(text, flush=True)
    target = options.json or Path("build") / "bench" / "scale_items.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"rows": rows, "load": os.getloadavg(), "time": time.time()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
