"""A kill every few seconds: what is left of the throughput, and how long does each recovery take?

`piecework run` with 4 workers, its embedded server and default settings; items of 20 ms that wait, so that they do not
compete for the cores. Once undisturbed, once with a SIGKILL every `--every` seconds: of ten, five are to a worker, four
to a worker's horse, one to the server, drawn by `--seed`. Nothing is stopped gently and nothing is helped up again.

- items per second: from the moment when all workers have committed until work for a few seconds is left, when the kills
  end too, so that the last recovery can be seen;
- recovery: from the kill until the system is as before, see `bench/_recoveries.py`; by the server's clock.

A run that loses or doubles an item, does not exit 0, or is not sound by `piecework audit` ends the benchmark with an
error. (With kills much closer than a second it may: of an item that was in hand when three horses in a row were killed,
piecework says that it kills them, see --crash-limit.) The run under fire takes about `--minutes` (20; 0.3 with
--short), the undisturbed one 3 at most.
"""

import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from bench._harness import ROOT, Claim, Table, arguments, interleaved, publish
from bench._piecework import PIECEWORK
from bench._recoveries import Kill
from bench._watch import Watch
from bench.recovery import children
from piecework_producer.embedded import EmbeddedServer

WORKERS, ITEM_SECONDS = 4, 0.02
KINDS = ("worker",) * 5 + ("horse",) * 4 + ("server",)
RUN = "fire"
_LOOK_SECONDS = 0.02
_SILENT_SECONDS = 120.0
"""So long without a commit, and it is taken for hanging."""
Victims = Iterator[tuple[str, int] | None]


def victims(seed: int) -> Victims:
    """(what to kill, of which place), for ever: each kind as often in each ten."""
    drawn = random.Random(seed)
    while True:
        for kind in drawn.sample(KINDS, len(KINDS)):
            yield kind, drawn.randrange(WORKERS)


class Fired(NamedTuple):
    """What one run came to. `lost` and `doubled` are items in its output."""

    items_per_second: float
    seconds: float
    """That the figure above is over; the kills fell in them."""
    kills: list[Kill]
    ended: float
    code: int
    lost: int
    doubled: int
    duplicates: int
    """Refused by the ledger: computed once more than needed."""
    audit: str
    """What it found; empty if the ledger is sound."""

    @property
    def is_sound(self) -> bool:
        """Whether all is recorded once, and everybody says so."""
        return not (self.code or self.lost or self.doubled or self.audit)


@dataclass(frozen=True)
class Process:
    """A worker's main process, as /proc shows it."""

    pid: int
    name: str


def command_line(pid: int) -> list[str]:
    """Empty for a process that has ended, also if nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def workers_of(run: int) -> dict[int, Process]:
    """By place."""
    found = {}
    for pid in children(run):
        words = command_line(pid)
        if "piecework_worker.main" in words:  # not so a fork that is no worker yet
            name = words[words.index("--name") + 1]
            found[int(name.split("-")[-2])] = Process(pid, name)
    return found


def server_of(state: Path) -> int | None:
    """Pid of the embedded server; None if it is not there just now."""
    try:
        pid = int((state / "server" / "server.pid").read_text())
    except (OSError, ValueError):
        return None
    # The file outlives its server, and the pid may be another's by now.
    return pid if "-server" in "".join(command_line(pid)) else None


def strike(kind: str, at_place: int, run: int, state: Path) -> Kill | None:
    """SIGKILL to one; to the next place's if this one has none now. None: nobody has one now."""
    victim, worker = server_of(state) if kind == "server" else None, ""
    found = {} if kind == "server" else workers_of(run)
    for number in range(at_place, at_place + WORKERS):
        process = found.get(number % WORKERS)
        if victim is None and process is not None:
            horses = [pid for pid in children(process.pid) if command_line(pid)]
            worker, victim = process.name, process.pid if kind == "worker" else next(iter(horses), None)
    if victim is None:
        return None
    kill = Kill(kind, time.time(), worker)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return kill


def fire(items: int, every: float, targets: Victims) -> Fired:
    """Drain a pile, with a kill every `every` seconds of what `targets` names; None is nobody."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer(Path(directory)) as server:
        # This use of the server keeps it for the questions at the end. It does not bring it back: the run does.
        state = Path(directory)
        command = [*PIECEWORK, "run", "bench._handlers:sleep_20_ms", "--range", f"0:{items}", "--run", RUN]
        command += ["-p", str(WORKERS), "--state-dir", directory]
        with (state / "out").open("wb") as out, (state / "err").open("wb") as err:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        watch = Watch(server.url, RUN)
        try:
            begun, stopped = attack(process, watch, items, every, targets, state)
            ended = time.time()
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
        (since, before), (until, after) = begun, stopped
        lines = Counter(json.loads(line)["index"] for line in (state / "out").open())
        audit = asked("audit", RUN, directory)
        fired = Fired(
            items_per_second=(after - before) / (until - since),
            seconds=until - since,
            kills=watch.recoveries.kills,
            ended=ended,
            code=process.returncode,
            lost=items - len(lines.keys() & set(range(items))),
            doubled=lines.total() - len(lines),
            duplicates=json.loads(asked("status", RUN, directory, "--output", "json").stdout)["duplicates"],
            audit=(audit.stdout + audit.stderr) if audit.returncode else "",
        )
        if not fired.is_sound:
            raise SystemExit(f"piecework lost items, or its way: {fired._replace(kills=[])}; {_said(state)}")
        return fired


def attack(
    process: "subprocess.Popen[bytes]", watch: Watch, items: int, every: float, targets: Victims, state: Path
) -> tuple[tuple[float, int], tuple[float, int]]:
    """Kill until little is left, watch to the end: (time, items recorded) when the kills begin, and when they end."""
    spare = round((every + 2) * WORKERS / ITEM_SECONDS)
    begun: tuple[float, int] | None = None
    stopped: tuple[float, int] | None = None
    started, due, target = time.time(), 0.0, next(targets)
    while process.poll() is None:
        watch.read()
        now, (last, recorded) = time.time(), (watch.progress or [(started, 0)])[-1]
        if begun is None and len(watch.recoveries.places) == WORKERS:
            begun, due = (last, recorded), now
        elif begun and stopped is None and items - recorded <= spare:
            stopped = last, recorded
        if begun and stopped is None and target is not None and now >= due:
            kill = strike(*target, process.pid, state)
            if kill is not None:
                watch.killed(kill)
                due, target = due + every, next(targets)
        if now - last > _SILENT_SECONDS:
            raise SystemExit(f"nothing was recorded for {_SILENT_SECONDS:g} s; {_said(state)}")
        time.sleep(_LOOK_SECONDS)
    watch.read()
    if begun is None or stopped is None:
        raise SystemExit(f"the run has ended (exit code {process.returncode}) before its time; {_said(state)}")
    return begun, stopped


def asked(verb: str, run: str, state: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """`piecework VERB RUN`."""
    command = [*PIECEWORK, verb, run, *options, "--state-dir", state]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _said(state: Path) -> str:
    return f"it said:\n{(state / 'err').read_text()[-2000:]}"


def recovery_figures(runs: list[Fired]) -> dict[str, list[float]]:
    """Seconds, of each kill of all runs; what was not over before its run has the time until then."""
    figures: dict[str, list[float]] = {"worker": [], "horse": [], "server": [], "server, until all commit": []}
    for fired in runs:
        for kill in fired.kills:
            seconds = (kill.over or fired.ended) - kill.at
            if kill.kind == "server":
                figures["server"].append((kill.first or fired.ended) - kill.at)
                figures["server, until all commit"].append(seconds)
            else:
                figures[kill.kind].append(seconds)
    return {kind: values for kind, values in figures.items() if values}


def remark(name: str, fired: Fired) -> str:
    """What counts besides the figures."""
    kinds = Counter(kill.kind for kill in fired.kills)
    kills = ", ".join(f"{count} of a {kind}" for kind, count in kinds.most_common()) or "none"
    pending = sum(kill.over is None for kill in fired.kills)
    kills += f" ({pending} not over when the run was)" if pending else ""
    return (
        f"{name}: kills in {fired.seconds:.0f} s: {kills}; lost {fired.lost}, doubled {fired.doubled}, refused "
        f"{fired.duplicates}; exit code {fired.code}, audit clean"
    )


def main() -> None:
    """Run both in turn and print the tables."""
    options = arguments(
        __doc__ or "",
        also=lambda parser: (
            parser.add_argument("--minutes", type=float, help="of the run under fire"),
            parser.add_argument("--every", type=float, default=3.0, help="seconds from kill to kill (default: 3)"),
            # With 7 the first four are of all kinds: the short form has no more.
            parser.add_argument("--seed", type=int, default=7, help="draws the victims (default: 7)"),
        ),
    )
    minutes = options.minutes or (0.3 if options.short else 20.0)
    minutes = max(minutes, (3 * options.every + 3) / 60)
    a_minute = 60 * WORKERS / ITEM_SECONDS
    runs: dict[str, list[Fired]] = {"undisturbed": [], "under fire": []}

    def measured(name: str) -> float:
        calm = name == "undisturbed"
        items = round((min(minutes, 3.0) if calm else minutes) * a_minute)
        runs[name].append(fire(items, options.every, repeat(None) if calm else victims(options.seed)))
        return runs[name][-1].items_per_second

    systems = {name: (lambda name=name: measured(name)) for name in runs}
    figures = interleaved(systems, options.repetitions or 1)
    claims = [Claim(at_least=0.9, rivals=["undisturbed"])] if options.every >= 3 else []
    title = f"items of 20 ms on {WORKERS} workers, a kill every {options.every:g} s"
    tables = [Table(title, "items per second", figures, subject="under fire", claims=claims)]
    if recoveries := recovery_figures(runs["under fire"]):
        title = "from a kill until all is as before"
        tables.append(Table(title, "seconds", recoveries, subject="", more_is_better=False))
    remarks = [remark(name, fired) for name in runs for fired in runs[name]]
    kills = [[(kill.kind, kill.worker, kill.at, kill.first, kill.over) for kill in fired.kills]
             for fired in runs["under fire"]]  # fmt: skip
    remarks.append(f"seed {options.seed}")
    publish(tables, options, remarks, seed=options.seed, every=options.every, minutes=minutes, kills=kills)


if __name__ == "__main__":
    main()
