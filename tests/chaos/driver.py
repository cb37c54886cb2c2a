"""`python -m tests.chaos.driver`: plays seeded scenarios for some minutes, and tells what was found in a table.

A scenario is replayed with its class and its seed, as a line of a failure says. The pile and the faults are the same
then; when exactly a process is hit is not, so that a rare failure may take several replays.

example: python -m tests.chaos.driver --only partition --seed 7 --scenarios 1
"""

import argparse
import itertools
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.chaos.scenarios import SCENARIOS, Played, play

COLUMNS = ("class", "scenarios", "faults", "items", "duplicates refused", "lost", "doubled", "not sound")


def main() -> int:
    """0: every scenario was sound; 1: some were not; 130: Ctrl-C."""
    options = _options()
    print(f"seed {options.seed}; replay all: python -m tests.chaos.driver --seed {options.seed}", flush=True)
    played: list[Played] = []
    stopped = False
    try:
        for each in _play_all(options):
            played.append(each)
            _tell(each)
            if options.until_unsound and not each.sound:
                return 1
    except KeyboardInterrupt:
        stopped = True
    places = sorted(Counter(place for each in played for place in each.died_at).items())
    print(f"\n{table(played)}\n\nseed {options.seed}, {len(played)} scenarios")
    print(f"died at calls: {', '.join(f'{place} {count}' for place, count in places) or 'none'}", flush=True)
    return 130 if stopped else int(not all(each.sound for each in played))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.driver", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no further scenario then (default 5)")
    parser.add_argument("--scenarios", type=int, help="play so many and no more")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the first scenario")
    parser.add_argument("--only", choices=sorted(SCENARIOS), action="append", help="this class (may be repeated)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="scenarios at once (default: cores)")
    parser.add_argument("--until-unsound", action="store_true", help="stop at the first that is not sound")
    parser.add_argument("--small", action="store_true", help="small piles and few faults, as in `make test`")
    return parser.parse_args()


def _play_all(options: argparse.Namespace) -> Iterator[Played]:
    ends = time.monotonic() + 60 * options.minutes
    names = itertools.cycle(options.only or SCENARIOS)
    scenarios = zip(names, itertools.count(options.seed), strict=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        running: set[Future[Played]] = set()
        for name, seed in itertools.islice(scenarios, options.scenarios):
            if time.monotonic() > ends:
                break
            running.add(pool.submit(play, name, seed, small=options.small))
            while len(running) >= options.jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        yield from (each.result() for each in running)


def _tell(played: Played) -> None:
    found = played.examined
    counts = f"{found.items} items, {played.faults} faults, {found.duplicates} duplicates"
    print(f"{played.seed} {played.name}: {counts}, {played.seconds:.1f} s", flush=True)
    if not played.sound:
        small = " --small" if "--small" in sys.argv else ""
        print(f"  NOT SOUND; replay: --only '{played.name}' --seed {played.seed} --scenarios 1{small}", flush=True)
        print(f"  logs: {played.directory}", flush=True)
        for line in [*found.problems, *played.trouble.splitlines()]:
            print(f"  {line}", flush=True)


def table(played: Iterable[Played]) -> str:
    """What was found, a row for each class, in Markdown."""
    played = list(played)
    rows = [(name, [each for each in played if each.name == name]) for name in SCENARIOS]
    lines = [_row(COLUMNS), "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for name, group in [*rows, ("all", played)]:
        if not group:
            continue
        found = [each.examined for each in group]
        lines.append(_row((
            name,
            len(group),
            sum(each.faults for each in group),
            sum(each.items for each in found),
            sum(each.duplicates for each in found),
            sum(each.lost for each in found),
            sum(each.doubled for each in found),
            sum(not each.sound for each in group),
        )))  # fmt: skip
    return "\n".join(lines)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
