"""Items of very unlike cost: how much longer than it must does the pile take?

Log-normal sleeping times (sigma 2: the longest of 10,000 is some 1,500 times the median), and a pile of which one item
is a tenth of the work, a tenth of the way in. Nobody is told the costs beforehand. The figure is the makespan divided
by its lower bound, max(sum / workers, longest), of the times that the items took indeed; the handlers sleep, so 8
workers work on 2 cores too. Each repetition has another pile, the same for all. "In order, no overhead" is computed:
what a system reaches that hands out item after item, costs nothing, and knows nothing.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence

from bench._handlers import sleep_so_long
from bench._harness import Claim, Table, arguments, interleaved, publish, repetitions
from bench._piecework import drain, private_server
from bench._pools import pool
from piecework.items import iterable


def log_normal(seed: int, items: int, total_seconds: float) -> list[float]:
    """Sleeping times with sigma 2 that add up to `total_seconds`."""
    drawn = random.Random(seed)
    return _scaled([drawn.lognormvariate(0, 2) for _ in range(items)], total_seconds)


def one_long(seed: int, items: int, total_seconds: float) -> list[float]:
    """Sleeping times of which one is a tenth of all, and the others are alike to within a half."""
    drawn = random.Random(seed)
    short = _scaled([drawn.uniform(0.5, 1.5) for _ in range(items - 1)], 0.9 * total_seconds)
    return [*short[: items // 10], 0.1 * total_seconds, *short[items // 10 :]]


def _scaled(times: list[float], total: float) -> list[float]:
    factor = total / sum(times)
    return [each * factor for each in times]


def over_lower_bound(makespan: float, times: Sequence[float], workers: int) -> float:
    """1 is the best that can be."""
    return makespan / max(sum(times) / workers, max(times))


def piecework(times: Sequence[float], workers: int) -> float:
    """Makespan over lower bound."""
    with private_server() as session:
        run = drain(session, "sleep_so_long", iterable(list(times)), workers)
        slept = [outcome.result for outcome in run.results()]
        return over_lower_bound(run.status().elapsed_seconds, slept, workers)


def in_order(times: Sequence[float], workers: int) -> float:
    """Makespan over lower bound if whoever is free takes the next item, at no cost."""
    free_at = [0.0] * workers
    for each in times:
        heapq.heapreplace(free_at, free_at[0] + each)
    return over_lower_bound(max(free_at), times, workers)


def main() -> None:
    """Measure all in turn, for each kind of pile and 2 and 8 workers."""
    options = arguments(__doc__ or "")
    count = repetitions(options, in_short=1)
    seconds, items = (2.5, 2000) if options.short else (8.0, 10_000)
    tables = []
    for kind, make in {"log-normal items, sigma 2": log_normal, "one item of a tenth of the work": one_long}.items():
        for workers in (2, 8):
            if options.short and make is one_long and workers == 8:
                continue
            piles = [make(seed, items, seconds * workers) for seed in range(count)]
            figures = interleaved(systems(piles, workers), count)
            claims = [Claim(at_most=1.03)] if make is log_normal else []
            title = f"{items:,} {kind}, {workers} workers, lower bound about {seconds:g} s"
            tables.append(Table(title, "makespan / lower bound", figures, more_is_better=False, claims=claims))
    publish(tables, options)


def systems(piles: Sequence[list[float]], workers: int) -> dict[str, Callable[[], float]]:
    """Each takes the piles one after the other."""

    def of_pool(times: list[float], size: int) -> float:
        return over_lower_bound(*pool(sleep_so_long, times, size, workers), workers)

    def each_in_turn(measure: Callable[[list[float]], float]) -> Callable[[], float]:
        left: Iterator[list[float]] = iter(piles)
        return lambda: measure(next(left))

    even = -(-len(piles[0]) // (4 * workers))
    return {
        "piecework": each_in_turn(lambda times: piecework(times, workers)),
        "Pool.imap_unordered, chunksize 1": each_in_turn(lambda times: of_pool(times, 1)),
        f"Pool.imap_unordered, chunksize {even}": each_in_turn(lambda times: of_pool(times, even)),
        "in order, no overhead (computed)": each_in_turn(lambda times: in_order(times, workers)),
    }


if __name__ == "__main__":
    main()
