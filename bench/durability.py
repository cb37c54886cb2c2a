"""What trust costs: the append-only file written to disk every second, at every commit, and a replica waited for.

Items per second of two workers, of drain time as the ledger has it (from sealing to the end, workers running already);
and commits per second of one client that does nothing else, which tells what one commit has to wait for. The replica is
on this machine, so its share of the cores is in the figures, and the network's delay is not. Without a real disk (a
tmpfs) `always` costs nothing: the file system is in the notes.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench._harness import Table, arguments, interleaved, publish, repetitions
from piecework.items import Range
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework.replicas import Replicas
from piecework_producer.pile import fill, rq_job_template
from piecework_producer.run import Run
from piecework_producer.session import Session
from tests.server_fixture import ServerProcess, eventually

ROOT = Path(__file__).parent.parent
WORKERS = 2
Measure = Callable[..., float]
WAITING = ("--wait-replicas", "1")


@contextmanager
def server(fsync: str, replica: bool) -> Iterator[ServerProcess]:
    """A server with an append-only file; its replica, if there is one, keeps one too (every second)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1]) if replica else "0"
    common = ("--appendonly", "yes", "--repl-diskless-sync-delay", "0")
    with ServerProcess(*common, "--port", port, "--bind", "127.0.0.1", "--appendfsync", fsync) as primary:
        if not replica:
            yield primary
            return
        with ServerProcess(*common, "--replicaof", f"127.0.0.1 {port}"):
            client = primary.client()
            eventually(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
            yield primary


def drain(handler: str, items: int, fsync: str, replica: bool, options: tuple[str, ...] = ()) -> float:
    """Items per second."""
    with server(fsync, replica) as primary, Session(primary.url) as session:
        spec = Spec(handler=handler, total=items)
        ledger = Ledger(session.client, "bench")
        ledger.open(spec, rq_job_template(session.client, "bench"))
        command = [sys.executable, "-m", "piecework_worker.main", "bench", "--redis", session.url, "--handler", handler]
        workers = [subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(WORKERS)]
        while ledger.status().workers < WORKERS:
            time.sleep(0.05)
        fill(ledger, spec, Range(0, items), parallelism=WORKERS, keep_seconds=3600)
        status = Run(session, "bench").wait(600)
        codes = [worker.wait() for worker in workers]
        if status.done != items or any(codes):
            raise SystemExit(f"piecework lost items, or a worker: {status} {codes}")
        return items / status.elapsed_seconds


def commits(count: int, fsync: str, replica: bool, options: tuple[str, ...] = ()) -> float:
    """Commits per second of one client that makes one after another, each of one item with a result of 100 bytes."""
    with server(fsync, replica) as primary, Session(primary.url) as session:
        ledger = Ledger(session.client, "bench")
        spec = Spec(handler="bench._handlers:noop", total=count)
        fill(ledger, spec, Range(0, count), parallelism=1, chunk_size=count, keep_seconds=3600)
        replicas = Replicas(session.client, "bench", len(options) // 2)
        claim = ledger.claim(1, "bench", 600)
        begun = time.monotonic()
        for index in range(count if claim else 0):
            ledger.commit(1, index, 1, results=([(index, 1)], os.urandom(100)), begun=index + 1)
            replicas.wait()
        return count / (time.monotonic() - begun)


def main() -> None:
    """Run all in turn and print the three tables."""
    options = arguments(__doc__ or "")
    kinds: dict[str, tuple[str, Measure]] = {
        "no-op items": ("items", partial(drain, "bench._handlers:noop", 1_000_000 if options.short else 10_000_000)),
        "items of 1 ms": ("items", partial(drain, "bench._handlers:sleep_1_ms", 2_000 if options.short else 10_000)),
        "commits in a row": ("commits", partial(commits, 300 if options.short else 2_000)),
    }
    tables = []
    where = subprocess.run(
        ["stat", "-f", "-c", "%T", tempfile.gettempdir()], capture_output=True, text=True, check=True
    ).stdout.strip()
    for kind, (unit, measure) in kinds.items():
        systems = {
            "everysec": partial(measure, "everysec", False),
            "always": partial(measure, "always", False),
            "everysec, a replica": partial(measure, "everysec", True),
            "everysec, a replica, --wait-replicas 1": partial(measure, "everysec", True, WAITING),
        }
        figures = interleaved(systems, repetitions(options, 1))
        tables.append(Table(kind, f"{unit} per second", figures, subject="everysec"))
    publish(
        tables,
        options,
        (
            "2 workers; commits in a row: one client",
            f"the append-only files are on a file system of type {where}",
        ),
    )


if __name__ == "__main__":
    main()
