"""Done items that do nothing: how much of the server's memory does each take, its result included?

The growth of `used_memory` on a server that has nothing else, from before the run to when its workers have left,
divided by the items. Results are the items themselves, integers in ascending order. RQ keeps a job with its result for
each (`result_ttl`, 500 s by default).
"""

import os
import subprocess
import sys
from pathlib import Path

from rq import Queue
from rq.serializers import JSONSerializer

from bench._harness import ROOT, Claim, Table, arguments, interleaved, publish, repetitions
from bench._piecework import drain, private_server
from bench.filling import used_memory
from piecework.items import Range


def piecework(items: int) -> float:
    """Bytes for each item."""
    with private_server() as session:
        before = used_memory(session)
        run = drain(session, "noop", Range(0, items))
        if run.status().done != items:
            raise SystemExit("piecework lost items")
        return (used_memory(session) - before) / items


def rq(items: int) -> float:
    """Bytes for each item, done by a `SimpleWorker`."""
    with private_server() as session:
        before = used_memory(session)
        queue = Queue("bench", connection=session.client, serializer=JSONSerializer)
        queue.enqueue_many([Queue.prepare_data("bench._handlers.noop", (item,)) for item in range(items)])
        command = [str(Path(sys.executable).parent / "rq"), "worker", "--burst", "--quiet", "--url", session.url]
        command += ["--worker-class", "rq.SimpleWorker", "--serializer", "rq.serializers.JSONSerializer", "bench"]
        subprocess.run(command, cwd=ROOT, env=os.environ, check=True, capture_output=True)
        if queue.finished_job_registry.get_job_count(cleanup=False) != items:
            raise SystemExit("RQ lost items")
        return (used_memory(session) - before) / items


def main() -> None:
    """Measure in turn and print the table."""
    options = arguments(__doc__ or "")
    items, few = (2_000_000, 500) if options.short else (10_000_000, 5000)
    systems = {"piecework": lambda: piecework(items), "rq worker --burst, SimpleWorker": lambda: rq(few)}
    figures = interleaved(systems, repetitions(options, in_short=3))
    title = f"memory of {items:,} no-op items that are done"
    table = Table(title, "bytes of Redis for each item", figures, more_is_better=False, claims=[Claim(at_most=4)])
    publish([table], options, items={"piecework": items, "rq": few})


if __name__ == "__main__":
    main()
