"""A worker is killed in mid-item: how many items are lost, how many doubled, and when is all done?

200 items of 50 ms on 2 workers; after a second one worker and its horse are killed with SIGKILL, and replaced a second
later (piecework's launcher does that by itself). Default settings. The rival is RQ: `rq worker` with its own queue.
The figure is seconds from the kill until every item is done; a system that does not get there has the whole deadline.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from redis import Redis
from rq import Queue

from bench._harness import ROOT, Table, arguments, interleaved, publish, repetitions
from piecework_producer.embedded import EmbeddedServer

ITEMS = 200


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def kill_in_mid_item(pid: int) -> None:
    """SIGKILL to a worker with a horse at work, then to the horse: 20 ms after it began, if it is a new one."""
    first, since = children(pid), time.monotonic()
    while not (horses := children(pid)) or (horses == first and time.monotonic() - since < 0.3):
        time.sleep(0.001)
    time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    for horse in horses:
        with contextlib.suppress(ProcessLookupError):
            os.kill(horse, signal.SIGKILL)


def piecework(deadline: float) -> tuple[float, int, int]:
    """(seconds from the kill to the end, items lost, items doubled)."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "piecework_producer.cli", "run", "bench._handlers:sleep_50_ms", "-p", "2"]
        command += ["--range", f"0:{ITEMS}", "--state-dir", state]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(2.0)
        workers = [pid for pid in children(run.pid) if b"piecework_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        kill_in_mid_item(workers[0])
        killed = time.monotonic()
        output, _ = run.communicate(timeout=deadline)
        indices = [line.split(b",")[0] for line in output.splitlines()]
        seconds = time.monotonic() - killed
        return seconds, ITEMS - len(set(indices)), len(indices) - len(set(indices))


def rq(deadline: float) -> tuple[float, int, int]:
    """(seconds from the kill to the end or the deadline, items lost by then, items doubled)."""
    with tempfile.TemporaryDirectory() as state, EmbeddedServer(Path(state)) as server:
        client = Redis.from_url(server.url)
        queue = Queue("bench", connection=client)
        jobs = queue.enqueue_many([Queue.prepare_data("bench._handlers.sleep_50_ms", (i,)) for i in range(ITEMS)])
        command = [str(Path(sys.executable).parent / "rq"), "worker", "--url", server.url, "bench"]

        def start() -> "subprocess.Popen[bytes]":
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        workers = [start(), start()]
        time.sleep(2.0)
        kill_in_mid_item(workers[0].pid)
        killed = time.monotonic()
        time.sleep(1.0)
        workers[0] = start()
        done = 0
        while done < ITEMS and time.monotonic() - killed < deadline:
            time.sleep(0.1)
            done = queue.finished_job_registry.get_job_count(cleanup=False)
        seconds = time.monotonic() - killed
        for worker in workers:
            worker.kill()
            worker.wait()
        return seconds, len(jobs) - done, 0


def main() -> None:
    """Run both in turn and print the table."""
    options = arguments(__doc__ or "")
    deadline = 20.0 if options.short else 90.0
    lost: dict[str, list[tuple[int, int]]] = {"piecework": [], "rq worker": []}

    def measured(name: str) -> float:
        seconds, missing, doubled = (piecework if name == "piecework" else rq)(deadline)
        lost[name].append((missing, doubled))
        return seconds

    systems = {name: (lambda name=name: measured(name)) for name in lost}
    figures = interleaved(systems, repetitions(options, in_short=1))
    table = Table(f"all of {ITEMS} items done after a kill", "seconds", figures, more_is_better=False)
    remarks = [f"{name}: (lost, doubled) by then {counts}" for name, counts in lost.items()]
    publish([table], options, remarks, deadline_seconds=deadline)


if __name__ == "__main__":
    main()
