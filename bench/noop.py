"""Items that do nothing: what does recording each exactly once cost, against a pool that records nothing?

Two workers. piecework's figure is items per second of drain time as its ledger has it (from sealing to the end, workers
running already), with the append-only file on. The rival is `multiprocessing.Pool(2).imap_unordered`.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench._handlers import noop
from bench._harness import arguments, interleaved, report
from piecework.items import Range
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework_producer.pile import fill, rq_job_template
from piecework_producer.run import Run
from piecework_producer.session import Session

ROOT = Path(__file__).parent.parent
WORKERS = 2


def piecework(items: int) -> float:
    """Items per second."""
    with tempfile.TemporaryDirectory() as state, Session(None, Path(state)) as session:
        spec = Spec(handler="bench._handlers:noop", total=items)
        ledger = Ledger(session.client, "bench")
        ledger.open(spec, rq_job_template(session.client, "bench"))
        environ = {**os.environ, "PIECEWORK_REDIS": session.url}
        command = [sys.executable, "-m", "piecework_worker.main", "bench", "--handler", "bench._handlers:noop"]
        workers = [subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL) for _ in range(WORKERS)]
        while ledger.status().workers < WORKERS:
            time.sleep(0.05)
        fill(ledger, spec, Range(0, items), parallelism=WORKERS, keep_seconds=3600)
        status = Run(session, "bench").wait(300)
        for worker in workers:
            worker.wait()
        if status.done != items:
            raise SystemExit(f"piecework lost items: {status}")
        return items / status.elapsed_seconds


def pool(items: int, chunk_size: int) -> float:
    """Items per second."""
    with multiprocessing.Pool(WORKERS) as workers:
        workers.map(noop, range(WORKERS))
        started = time.monotonic()
        count = sum(1 for _ in workers.imap_unordered(noop, range(items), chunksize=chunk_size))
        seconds = time.monotonic() - started
    if count != items:
        raise SystemExit("the pool lost items")
    return items / seconds


def main() -> None:
    """Run all in turn and print the table."""
    options = arguments(__doc__ or "")
    items = 1_000_000 if options.short else 10_000_000
    systems = {
        "piecework": lambda: piecework(items),
        "Pool(2).imap_unordered, chunksize 1000": lambda: pool(items, 1000),
        "Pool(2).imap_unordered, chunksize 1": lambda: pool(items // 50, 1),
    }
    figures = interleaved(systems, 2 if options.short else options.repetitions)
    report("no-op items drained, 2 workers", "items per second", figures, "piecework", options)


if __name__ == "__main__":
    main()
