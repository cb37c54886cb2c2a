"""Drains runs with piecework: a private server, workers that are there before the pile is sealed, default options."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench._harness import ROOT
from piecework.items import Pile, Range
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework.states import State
from piecework_producer.pile import fill, rq_job_template
from piecework_producer.run import Run
from piecework_producer.session import Session

PIECEWORK = (sys.executable, "-m", "piecework_producer.cli")


@contextmanager
def private_server() -> Iterator[Session]:
    """A server that nobody else uses, with its append-only file on; nothing is left of it."""
    with tempfile.TemporaryDirectory() as state, Session(None, Path(state)) as session:
        yield session


def drain(session: Session, handler: str, pile: Pile, workers: int = 2, run: str = "bench") -> Run:
    """Start workers, and when all are there fill and seal; returns when the run is over and the workers have left.

    `Run.status().elapsed_seconds` is the drain time: from the seal to the last commit, as the ledger has it.
    """
    kind, total = ("range", pile.total) if isinstance(pile, Range) else (pile.kind, None)
    spec = Spec(handler=f"bench._handlers:{handler}", items=kind, total=total)  # type: ignore[arg-type]
    ledger = Ledger(session.client, run)
    ledger.open(spec, rq_job_template(session.client, run))
    environ = {**os.environ, "PIECEWORK_REDIS": session.url}
    command = [sys.executable, "-m", "piecework_worker.main", run, "--handler", spec.handler]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL) for _ in range(workers)]
    while ledger.status().workers < workers:
        time.sleep(0.02)
    fill(ledger, spec, pile, parallelism=workers, keep_seconds=3600)
    drained = Run(session, run)
    status = drained.wait(600)
    for process in processes:
        process.wait()
    if status.state is not State.SUCCEEDED:
        raise SystemExit(f"piecework lost items: {status}")
    return drained
