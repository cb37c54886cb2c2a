"""One server and 10 to 1,000 workers: what they ask of it, what that costs it, and what the next one waits.

The workers are simulated (bench/_simulated.py: real ones, but that horses are threads) and their items sleep; a few
real ones are measured beside them, to show that both send the same. Commands are those that clients send, counted in
MONITOR; what scripts call inside is counted apart. The server is the embedded one: a Unix socket, an append-only file.

- busy: items of 0.4 s in chunks of 150 s, as a run of ten minutes has them by default;
- short: the same in chunks of 15 s, as a run of one minute has them;
- idle: all chunks are held by others, in one long item each.

CPU is the server's, all threads, in percent of one core. Latency is that of a client that claims and commits chunks of
one item in another run on the same server; client and simulation share the machine's cores, so it is an upper bound.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from bench._harness import arguments
from bench._simulated import MOST_IN_A_PROCESS
from piecework.items import Range
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework.scripts import VERBS, source
from piecework_producer.pile import fill
from piecework_producer.session import Session

ROOT = Path(__file__).parent.parent
HANDLER, ITEM_SECONDS = "bench._handlers:sleep_400_ms", 0.4
CHUNK = {"busy": 375, "short": 38}
WORK_SECONDS = 300.0
"""For each worker: more than the windows take."""
SETTLE_SECONDS = 5.0
SENT = re.compile(rb'^\+\d+\.\d+ \[\d+ (lua|\S+)\] "([^"]*)"(?: "([^"]*)")?', re.MULTILINE)


class Windows(NamedTuple):
    """How long each figure is taken, in seconds. Commands: as long as RQ's heartbeat, the rarest of them."""

    cpu: float
    commands: float
    latency: float


class Figures(NamedTuple):
    """Of one number of workers."""

    workers: int
    kind: str
    real: bool
    commands: float
    """Per second and worker, as sent."""
    inner: float
    """Per second and worker, called by scripts."""
    cpu_percent: float
    items: float
    """Per second, of all workers."""
    claim_ms: tuple[float, float]
    """Median and 99th percentile."""
    commit_ms: tuple[float, float]
    bytes_in: float
    """Per second and worker."""
    bytes_out: float
    connections: float
    """Of each worker, its channel of commands included."""
    connection_bytes: float
    """Memory of the server for one connection."""
    by_name: dict[str, float]
    """Commands and scripts, per second and worker."""


def server_pid(client: Redis) -> int:
    """Pid of the server."""
    return int(client.info("server")["process_id"])


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def workers(url: str, run: str, count: int, real: bool) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The processes of `count` workers; they end with the run."""
    if real:
        command = [sys.executable, "-m", "piecework_worker.main", run, "--redis", url, "--handler", HANDLER]
        commands = [command] * count
    else:
        parts = [min(MOST_IN_A_PROCESS, count - first) for first in range(0, count, MOST_IN_A_PROCESS)]
        command = [sys.executable, "-m", "bench._simulated", url, run]
        commands = [[*command, str(part), str(ITEM_SECONDS), f"sim-{i}"] for i, part in enumerate(parts)]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for command in commands]
    try:
        yield started
        for process in started:
            process.wait(60)
    finally:
        for process in started:
            process.kill()
            process.wait()


def monitored(path: str, seconds: float) -> tuple[Counter[str], int]:
    """What clients send within `seconds`, by name (of the script, if it is one), and how much scripts call."""
    verbs = {_sha(verb): verb for verb in VERBS}
    sent: Counter[str] = Counter()
    inner = 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"MONITOR\r\n")
        connection.settimeout(0.5)
        end, rest = time.monotonic() + seconds, b""
        while time.monotonic() < end:
            try:
                received = connection.recv(1 << 20)
            except TimeoutError:
                continue
            whole, _, rest = (rest + received).rpartition(b"\n")
            for by, name, first in SENT.findall(whole):
                if by == b"lua":
                    inner += 1
                else:
                    sent[verbs.get(first.decode(), name.decode().lower())] += 1
    return sent, inner


def _sha(verb: str) -> str:
    import hashlib

    return hashlib.sha1(source(verb).encode(), usedforsecurity=False).hexdigest()


def latencies(client: Redis, seconds: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Median and 99th percentile, in ms, of claims and of commits that finish a chunk."""
    ledger = Ledger(client, "probe")
    count = int(100 * seconds) + 2
    fill(ledger, Spec(handler="bench._handlers:noop", total=count), Range(0, count), parallelism=1, chunk_size=1,
         keep_seconds=3600)  # fmt: skip
    claims, commits = [], []
    for index in range(count - 1):
        begun = time.perf_counter()
        ledger.claim(index + 1, "probe", 60)
        claimed = time.perf_counter()
        ledger.commit(index + 1, index, 1, results=([(index, 1)], b"x" * 20), begun=index + 1)
        claims.append(claimed - begun)
        commits.append(time.perf_counter() - claimed)
        time.sleep(0.005)
    ledger.delete()
    return _two(claims), _two(commits)


def _two(seconds: Sequence[float]) -> tuple[float, float]:
    return 1000 * statistics.median(seconds), 1000 * statistics.quantiles(seconds, n=100)[98]


def submit(client: Redis, count: int, kind: str) -> Ledger:
    """Five minutes of work for each worker; or as many chunks as workers, all held by others."""
    ledger = Ledger(client, "bench")
    chunk, busy = CHUNK.get(kind, 1), kind in CHUNK
    total = count * (round(WORK_SECONDS / ITEM_SECONDS) if busy else 1)
    spec = Spec(handler=HANDLER, total=total)
    fill(ledger, spec, Range(0, total), parallelism=count, chunk_size=chunk, keep_seconds=3600)
    if not busy:
        for number in range(count):
            ledger.claim(number + 1, f"holder-{number}", 3600)
        client.delete(ledger.keys.queue)
    return ledger


def measure(count: int, kind: str, real: bool, windows: Windows) -> Figures:
    """One server, `count` workers; the figures are taken one after another, so that none is in another's."""
    with tempfile.TemporaryDirectory() as state, Session(None, Path(state)) as session:
        client = session.client
        ledger = submit(client, count, kind)
        pid = server_pid(client)
        with workers(session.url, "bench", count, real) as processes:
            while client.scard(ledger.keys.rq_workers) < count or ledger.status().leased < count:
                time.sleep(0.1)
                if any(process.poll() is not None for process in processes):
                    raise SystemExit("a worker has ended before it began")
            time.sleep(SETTLE_SECONDS)

            before, cpu, done, begun = _net(client), cpu_seconds(pid), ledger.status().done, time.monotonic()
            time.sleep(windows.cpu)
            seconds = time.monotonic() - begun
            cpu, done, after = cpu_seconds(pid) - cpu, ledger.status().done - done, _net(client)
            connections = _connections(client)
            claim_ms, commit_ms = latencies(client, windows.latency)
            sent, inner = monitored(session.url.removeprefix("unix://"), windows.commands)

            ledger.delete()
        each = count * windows.commands
        by_name = {name: round(number / each, 3) for name, number in sent.most_common()}
        into, out = ((then - earlier) / seconds / count for then, earlier in zip(after, before, strict=True))
        return Figures(count, kind, real, sent.total() / each, inner / each, 100 * cpu / seconds, done / seconds,
                       claim_ms, commit_ms, into, out, connections[0] / count, connections[1], by_name)  # fmt: skip


def _net(client: Redis) -> tuple[int, int]:
    info = client.info("stats")
    return int(info["total_net_input_bytes"]), int(info["total_net_output_bytes"])


def _connections(client: Redis) -> tuple[int, float]:
    count, info = int(client.info("clients")["connected_clients"]), client.info("memory")
    return count, int(info["mem_clients_normal"]) / count


def script_costs(leases: int) -> dict[str, float]:
    """Microseconds of the server's CPU for one call of each script, its receipt and reply included.

    So many chunks are leased, each in a long item.
    """
    calls = 400
    with tempfile.TemporaryDirectory() as state, Session(None, Path(state)) as session:
        client, worker = session.client, "holder-0"
        ledger = Ledger(client, "bench")
        total = leases + 3 * calls
        fill(ledger, Spec(handler="bench._handlers:noop", total=total), Range(0, total), parallelism=1, chunk_size=1,
             keep_seconds=3600)  # fmt: skip
        client.delete(ledger.keys.queue)
        for number in range(leases):
            ledger.claim(number + 1, f"holder-{number}", 3600)
        chunks = iter(range(leases + 1, total))
        ready = [next(chunks) for _ in range(calls)]
        verbs = {
            "status": lambda number: ledger.status(),
            "steal": lambda number: ledger.steal("thief"),
            "renew": lambda number: ledger.renew(1, worker, 3600),
            "claim": lambda number: ledger.claim(ready[number], worker, 3600),
            "commit": lambda number: ledger.commit(
                ready[number], ready[number] - 1, 1, results=([(ready[number] - 1, 1)], b"x" * 20)
            ),
        }
        costs = {verb: _microseconds(client, call, calls) for verb, call in verbs.items()}
        # What waits for longer than a second is put back by `tend`; in a run without idle workers nothing is.
        for _ in chunks:
            ledger.tend("thief")
        costs["tend"] = _microseconds(client, lambda number: ledger.tend("thief"), calls)
        return costs


def _microseconds(client: Redis, call: Any, calls: int) -> float:
    """CPU, not wall time: others may be using the cores."""

    def used() -> float:
        info = client.info("cpu")
        return 1e6 * float(info["used_cpu_sys_main_thread"] + info["used_cpu_user_main_thread"])

    call(0)
    before = used()
    for number in range(1, calls):
        call(number)
    return (used() - before) / (calls - 1)


def main() -> None:
    """Measure each number of workers, print the tables, write all as JSON."""
    options = arguments(__doc__ or "")
    windows = Windows(4, 6, 2) if options.short else Windows(10, 20, 5)
    counts = [10, 100] if options.short else [10, 30, 100, 300, 1000]
    plan = [(count, kind, False) for kind in ("busy", "idle") for count in counts]
    checks = [2] if options.short else [10]
    plan = [(count, kind, real) for kind in ("short", "idle") for count in checks for real in (True, False)] + plan
    figures = []
    print("                  commands/s in scripts  server  items/s       claim ms      commit ms  bytes/s in/out")
    print("workers           per worker per worker   CPU %      all   median   p99   median   p99      per worker")
    for count, kind, real in plan:
        one = measure(count, kind, real, windows)
        figures.append(one)
        claim, commit = (f"{a:.2f} {b:6.2f}" for a, b in (one.claim_ms, one.commit_ms))
        print(
            f"{count:>7} {kind:<5} {'real' if real else '':<4} {one.commands:>9.2f} {one.inner:>10.1f} "
            f"{one.cpu_percent:>7.1f} {one.items:>8.0f} {claim:>14} {commit:>14} "
            f"{one.bytes_in:>8.0f} {one.bytes_out:>6.0f}",
            flush=True,
        )
        sys.stderr.write(f"  {one.by_name}\n")
    leases = [10, 1000] if options.short else [10, 100, 1000, 10_000]
    costs = {number: script_costs(number) for number in leases}
    print("\nmicroseconds of the server's CPU for one call, by number of leased chunks")
    print("  " + " ".join(f"{verb:>8}" for verb in ("leases", *costs[leases[0]])))
    for number, row in costs.items():
        print("  " + " ".join([f"{number:>8}", *(f"{cost:>8.0f}" for cost in row.values())]))
    target = options.json or Path("build") / "bench" / "scale.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    record = {"workers": [one._asdict() for one in figures], "script microseconds": costs, "load": os.getloadavg(),
              "cores": os.cpu_count(), "windows": windows._asdict(), "time": time.time()}  # fmt: skip
    target.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
