"""Items of 10 µs, 1 ms, 10 ms and 1 s: what does each system add to them?

Two workers, warm; drain time as in `noop.py`. Items of 10 µs compute, the longer ones sleep, so that the cores are free
for what each system does besides. The figure is items per second; two workers that add nothing would reach 200,000,
2,000, 200 and 2. Each rival has its best setting of those tried: chunks, and messages fetched ahead, as they suit the
cost of an item. A slower system is given fewer items; the claim is made of 1,000 items of 10 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench import _handlers
from bench._harness import Claim, Table, arguments, interleaved, publish, repetitions
from bench._piecework import drain, private_server
from bench._pools import Handler, futures, pool
from bench._queues import QUEUES, missing
from piecework.items import Range

WORKERS = 2


@dataclass(frozen=True)
class Cost:
    """Items of one cost."""

    handler: str
    name: str
    items: int
    """For piecework and the pools."""
    chunk_sizes: tuple[int, ...]
    """For `imap_unordered`."""
    queue_items: int
    queue_chunk_size: int

    @property
    def function(self) -> Handler:
        """The handler itself."""
        return getattr(_handlers, self.handler)  # type: ignore[no-any-return]


def costs(short: bool) -> list[Cost]:
    """What is measured."""
    if short:
        return [
            Cost("spin_10_us", "10 µs", 100_000, (1, 1000), 1000, 250),
            Cost("sleep_1_ms", "1 ms", 1000, (1, 100), 200, 25),
            Cost("sleep_10_ms", "10 ms", 200, (1, 10), 50, 1),
        ]
    return [
        Cost("spin_10_us", "10 µs", 400_000, (1, 100, 1000), 4000, 1000),
        Cost("sleep_1_ms", "1 ms", 4000, (1, 10, 100), 1000, 50),
        Cost("sleep_10_ms", "10 ms", 1000, (1, 10, 100), 200, 1),
        Cost("sleep_1_s", "1 s", 8, (1,), 4, 1),
    ]


def piecework(measured: list[Cost]) -> list[float]:
    """Items per second, for each cost."""
    figures = []
    with private_server() as session:
        for cost in measured:
            run = drain(session, cost.handler, Range(0, cost.items), WORKERS, f"bench-{cost.handler.replace('_', '-')}")
            figures.append(cost.items / run.status().elapsed_seconds)
    return figures


def rates(cost: Cost) -> dict[str, Callable[[], list[float]]]:
    """The pools, for items of that cost."""

    def measured(drained: Callable[[Handler, range, int], tuple[float, list[int]]], size: int) -> list[float]:
        return [cost.items / drained(cost.function, range(cost.items), size)[0]]

    systems = {
        f"Pool.imap_unordered, chunksize {size:,}": (lambda size=size: measured(pool, size))
        for size in cost.chunk_sizes
    }
    size = cost.chunk_sizes[-1]
    return systems | {f"ProcessPoolExecutor.map, chunksize {size:,}": lambda: measured(futures, size)}


def queue(name: str, measured: list[Cost]) -> list[float]:
    """Items per second, for each cost; the workers are started once."""
    # A worker of RQ that forks does some 50 items in a second, whatever they are.
    few = {"rq worker": 5, "rq worker, SimpleWorker": 2}.get(name, 1)
    piles = [(cost.handler, max(4, cost.queue_items // few), cost.queue_chunk_size) for cost in measured]
    seconds = QUEUES[name].drain(WORKERS, piles)
    return [items / each for (_, items, _), each in zip(piles, seconds, strict=True)]


def main() -> None:
    """Measure all in turn and print a table for each cost."""
    options = arguments(__doc__ or "")
    measured, count = costs(options.short), repetitions(options, in_short=1)
    systems: dict[str, Callable[[], list[float]]] = {"piecework": lambda: piecework(measured)}
    for cost in measured:
        systems |= {f"{cost.name}: {name}": rate for name, rate in rates(cost).items()}
    systems |= {name: partial(queue, name, measured) for name in QUEUES if QUEUES[name].here()}
    figures = interleaved(systems, count)
    tables = []
    for number, cost in enumerate(measured):
        own, prefix = {"piecework": [each[number] for each in figures["piecework"]]}, f"{cost.name}: "
        pools = {name.removeprefix(prefix): [each[0] for each in of]
                 for name, of in figures.items() if name.startswith(prefix)}  # fmt: skip
        queues = {name: [each[number] for each in figures[name]] for name in QUEUES if name in figures}
        is_claimed = cost.handler == "sleep_10_ms" and not options.short
        claims = [Claim(at_least=1, rivals=[name for name in pools if name.startswith("Pool")])] if is_claimed else []
        title = f"{cost.items:,} items of {cost.name} drained by 2 workers"
        tables.append(Table(title, "items per second", own | pools | queues, claims=claims))
    publish(tables, options, missing())


if __name__ == "__main__":
    main()
