"""Items that do nothing: what does recording each exactly once cost, against pools that record nothing and queues?

Two workers, which are there and warm. The figure is items per second of drain time: with piecework from sealing to the
last commit, as its ledger has it; with a queue from the moment when the filled queue appears to its last result; with a
pool from the call to the last result. A server keeps its append-only file, for piecework and for the queues. A slower
system is given fewer items.
"""

from collections.abc import Callable

from bench import _handlers
from bench._harness import Claim, Table, arguments, interleaved, publish, repetitions
from bench._piecework import drain, private_server
from bench._pools import futures, pool
from bench._queues import QUEUES, missing
from piecework.items import Range

WORKERS = 2
POOL = "Pool.imap_unordered, chunksize 1,000"


def piecework(items: int) -> float:
    """Items per second."""
    with private_server() as session:
        return items / drain(session, "noop", Range(0, items), WORKERS).status().elapsed_seconds


def queue(name: str, items: int, chunk_size: int = 1) -> Callable[[], float]:
    """Items per second of a rival of `QUEUES`."""
    return lambda: items / QUEUES[name].drain(WORKERS, [("noop", items, chunk_size)])[0]


def main() -> None:
    """Measure all in turn and print the table."""
    options = arguments(__doc__ or "")
    share = 5 if options.short else 1
    many, some, few = 10_000_000, 1_000_000 // share, 20_000 // share
    systems = {
        "piecework": lambda: piecework(many),
        POOL: lambda: some / pool(_handlers.noop, range(some), 1000, WORKERS)[0],
        "Pool.imap_unordered, chunksize 1": lambda: few / pool(_handlers.noop, range(few), 1, WORKERS)[0],
        "ProcessPoolExecutor.map, chunksize 1,000": lambda: some / futures(_handlers.noop, range(some), 1000)[0],
    }
    queues = {
        "rq worker": queue("rq worker", few // 40),
        "rq worker, SimpleWorker": queue("rq worker, SimpleWorker", few // 10),
        "celery, chunks of 100": queue("celery, chunks", few * 5, 100),
        "celery, chunks of 1,000": queue("celery, chunks", some // 2, 1000),
        "celery, chunks of 10,000": queue("celery, chunks", some, 10_000),
        "dramatiq": queue("dramatiq", few // 2),
        "huey": queue("huey", few // 2),
    }
    queues = {name: measure for name, measure in queues.items() if QUEUES[_program(name)].here()}
    figures = interleaved(systems | queues, repetitions(options, in_short=1))
    claims = [Claim(at_least=2, rivals=[POOL]), Claim(at_least=20, rivals=list(queues))]
    publish([Table("no-op items drained by 2 workers", "items per second", figures, claims=claims)],
            options, missing(), items={"piecework": many, "pools": some})  # fmt: skip


def _program(name: str) -> str:
    return name.partition(" of ")[0]


if __name__ == "__main__":
    main()
