"""`python -m tests.chaos.mutations`: takes one protection out at a time, and has the chaos suite find that.

For each class of scenarios there is a line without which it must fail. The line is changed in a copy of the sources,
and small scenarios of the class are played there until one is not sound.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.worker_fixture import ROOT

_SOURCES = ("piecework", "producer", "worker", "tests", "k8s")
_MOST_SCENARIOS = 40
_LUA = "piecework/lua"


@dataclass(frozen=True)
class Mutation:
    """A line of the sources, what it protects from, and what stands there without it."""

    file: str
    line: str
    without: str
    protects: str


_COMMITTED_ONCE = Mutation(
    f"{_LUA}/commit.lua",
    "if from ~= chunk.next or from + count > chunk.stop then",
    "if false then",
    "a commit is taken only if it goes on where the ledger is",
)
_NO_GAPS = Mutation(
    f"{_LUA}/commit.lua",
    "if from ~= chunk.next or from + count > chunk.stop then",
    "if from < chunk.next or from + count > chunk.stop then",
    "a commit leaves no gap after what the server has forgotten",
)
_LOST_DELIVERIES = Mutation(
    f"{_LUA}/tend.lua",
    "if redis.call('LLEN', QUEUE) == 0 then",
    "if false then",
    "chunks that the queue has lost are put back",
)

MUTATIONS: dict[str, Mutation] = {
    "worker killed": Mutation(
        f"{_LUA}/tend.lua",
        "redis.call('ZRANGEBYSCORE', LEASES, 0, now, 'LIMIT', 0, most)",
        "{}",
        "an expired lease is given away",
    ),
    "horse killed": Mutation(
        f"{_LUA}/blame.lua",
        "final = alone.crashes >= limit",
        "final = true",
        "an item fails only at the limit of crashes",
    ),
    "killed at a call": _LOST_DELIVERIES,
    "stopped longer than the lease": _COMMITTED_ONCE,
    "SIGTERM storm": Mutation(
        "piecework/states.py", "    HANDED_BACK = 75\n", "    HANDED_BACK = 0\n", "who leaves early does not exit 0"
    ),
    "server killed": Mutation(
        "piecework/patience.py", "    redis.ConnectionError,\n", "", "a server that is away is waited for"
    ),
    "server silent": Mutation(
        "piecework/patience.py", "    redis.TimeoutError,\n", "", "a server that does not answer is waited for"
    ),
    "server loses its last second": _NO_GAPS,
    "replica promoted": _NO_GAPS,
    "memory full": Mutation(
        "piecework/patience.py",
        "    redis.exceptions.OutOfMemoryError,\n",
        "",
        "a full server is waited for",
    ),
    "disk full": Mutation("piecework/patience.py", "OOM|MISCONF|", "OOM|", "a server with a full disk is waited for"),
    "slow network": _COMMITTED_ONCE,
    "connections cut": _COMMITTED_ONCE,
    "partition": _COMMITTED_ONCE,
    "clocks jump": Mutation(
        "piecework/ledger.py",
        '"claim", chunk, worker, round(lease_seconds * 1000)',
        '"claim", chunk, worker, round((__import__("time").time() - self.client.time()[0] + lease_seconds) * 1000)',
        "leases are by the server's clock",
    ),
    "jobs twice, reordered": Mutation(
        f"{_LUA}/claim.lua",
        "if not chunk or chunk.next >= chunk.stop then",
        "if not chunk then",
        "a chunk that is done is not claimed again",
    ),
    "foreign jobs": Mutation(
        "worker/piecework_worker/deliveries.py",
        "if chunk is not None and _names_our_function(job):",
        "if chunk is not False:",
        "a job that is no chunk of the run is refused",
    ),
    "queue deleted": _LOST_DELIVERIES,
    "producers killed, two at once": Mutation(
        f"{_LUA}/open.lua",
        "if redis.call('EXISTS', RUN) == 1 then",
        "if false then",
        "a run that exists is not made anew",
    ),
    "launcher killed": Mutation(
        "producer/piecework_producer/embedded.py",
        '"appendonly": "yes",',
        '"appendonly": "no",',
        "the embedded server keeps what it has acknowledged",
    ),
    "two contracts": _LOST_DELIVERIES,
    "stragglers copied": _COMMITTED_ONCE,
    "everything": _LOST_DELIVERIES,
}

ALL: list[tuple[str, Mutation]] = [
    *MUTATIONS.items(),
    (
        "horse killed",
        Mutation(
            "worker/piecework_worker/own_signals.py",
            "os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_give_up)",
            "",
            "what an item forks hears the signals of whoever forked it",
        ),
    ),
]


def main() -> int:
    """0: each mutation was found; 1: some were not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutations", description=__doc__)
    parser.add_argument("--only", choices=sorted(MUTATIONS), action="append", help="this class (may be repeated)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [(name, each) for name, each in ALL if name in (options.only or MUTATIONS)]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = []
        for (name, mutation), told in zip(chosen, pool.map(_try, *zip(*chosen, strict=True)), strict=True):
            found.append(told is not None)
            what = told or f"NOT FOUND in {_MOST_SCENARIOS} scenarios"
            print(
                f"| {name} | {mutation.protects} | `{mutation.file}`: `{mutation.line.strip()}` | {what} |", flush=True
            )
    return 0 if all(found) else 1


def _try(name: str, mutation: Mutation) -> str | None:
    """What the class's scenarios found with the mutation, and by which seed; None: nothing."""
    with tempfile.TemporaryDirectory(prefix="mutated-") as directory:
        copy = Path(directory)
        for source in _SOURCES:
            shutil.copytree(ROOT / source, copy / source, ignore=shutil.ignore_patterns("__pycache__"))
        assert not _unsound(_play(copy, name, 1)), "without a mutation, it is sound"
        file = copy / mutation.file
        text = file.read_text()
        assert text.count(mutation.line) == 1, f"{mutation.file}: {mutation.line}"
        file.write_text(text.replace(mutation.line, mutation.without))
        return _unsound(_play(copy, name, _MOST_SCENARIOS))


def _play(copy: Path, name: str, scenarios: int) -> list[str]:
    """What the driver says, with the sources of a copy."""
    command = [sys.executable, "-m", "tests.chaos.driver", "--only", name, "--seed", "1", "--jobs", "1"]
    command += ["--small", "--until-unsound", "--scenarios", str(scenarios)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / each) for each in ("", "producer", "worker"))}
    ended = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, timeout=1800)
    assert "replay all" in ended.stdout, ended.stderr
    return ended.stdout.splitlines()


def _unsound(lines: list[str]) -> str | None:
    """The seed, and the first thing that is wrong; None if nothing is."""
    at = next((number for number, line in enumerate(lines) if "NOT SOUND" in line), None)
    if at is None:
        return None
    problem = next((line.strip() for line in lines[at + 2 :] if line.strip()), "")
    if problem.startswith("Traceback"):
        problem = next(line.strip() for line in reversed(lines) if line.strip() and not line.startswith("   "))
    return f"seed {lines[at - 1].partition(' ')[0]}: {problem[:120]}"


if __name__ == "__main__":
    sys.exit(main())
