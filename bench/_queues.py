"""Drains piles with rival queues: starts a private server, and the rival's program, which prints JSON.

The programs are `bench/_rivals/*.py`. RQ is piecework's own dependency; the others have an environment of their own,
which `make bench` makes (see "bench" in pyproject.toml).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench._harness import ROOT, versions
from piecework_producer.embedded import EmbeddedServer

_RIVALS = ROOT / "build" / "rivals" / "bin" / "python"


@dataclass(frozen=True)
class Queue:
    """A rival that runs `bench/_rivals/PROGRAM.py`."""

    program: str
    interpreter: Path

    def here(self) -> bool:
        """Whether its environment is there."""
        return self.interpreter.exists()

    def drain(self, workers: int, piles: Sequence[tuple[str, int, int]]) -> list[float]:
        """Seconds for each pile, given as (handler, items, items in a chunk), the workers being there and warm."""
        told = [{"handler": handler, "items": items, "chunk_size": size} for handler, items, size in piles]
        with tempfile.TemporaryDirectory() as state, EmbeddedServer(Path(state)) as server:
            command = [str(self.interpreter), "-m", f"bench._rivals.{self.program}", str(workers), json.dumps(told)]
            environ = {**os.environ, "BENCH_REDIS": server.url}
            done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.program} failed:\n{done.stderr}")
        figures = json.loads(done.stdout)
        versions.update(figures["versions"])
        return [float(seconds) for seconds in figures["seconds"]]


QUEUES = {
    "rq worker": Queue("rq_jobs", Path(sys.executable)),
    "rq worker, SimpleWorker": Queue("rq_simple", Path(sys.executable)),
    "celery, chunks": Queue("celery_chunks", _RIVALS),
    "dramatiq": Queue("dramatiq_actors", _RIVALS),
    "huey": Queue("huey_tasks", _RIVALS),
}


def missing() -> list[str]:
    """What to say of the rivals that are not here."""
    names = [name for name, queue in QUEUES.items() if not queue.here()]
    return [f"not measured: {', '.join(names)}; `make bench` installs them"] if names else []
