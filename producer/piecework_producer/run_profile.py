"""Where the time of a run went: what its streams and its events say about workers, items and throughput.

All times are the server's, in seconds since the seal. The definitions, which docs/measuring.md and the page repeat:

- A worker is *present* from its joining (or the seal, if that was later) until it leaves, is seen to die, or the run
  ends. *Worker time* is the sum of that over all workers.
- *Busy* is the time from a chunk's being in a horse's hands until its last commit: items, one after the other, and
  whatever the commits cost them.
- *Queue share*: the part of the worker time that is not busy: waiting for work, claims, forks, last commits, and work
  that no commit tells of (lost in a crash, or attempts that all failed and were tried again).
- *Tail*: from the moment that the first worker, of those present at the end, ran out of work for good, until the end.
  *Tail share*: the part of the worker time that lies in the tail, whether busy or not. *Idle tail share*: the part
  that workers were present after their own last item.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from piecework.ledger import Ledger
from piecework.records import Spec, Status
from piecework_producer.item_times import ItemTimes, edge
from piecework_producer.run_streams import Commit, Event, commits, events

BINS = 240
"""Parts that the span is cut into, for plots."""
MOST_ROWS = 50
"""So many workers are shown one by one, those that came first."""
_MARKED = ("steal", "copy", "crash", "timeout", "expired", "reap", "pause", "resume", "retry")
_MOST_MARKS = 200
_GONE = ("leave", "reap", "expired")


@dataclass
class WorkerProfile:
    """What one worker did."""

    name: str
    windows: list[tuple[float, float]] = field(default_factory=list)
    """When it was present."""
    items: int = 0
    failed: int = 0
    busy_seconds: float = 0.0
    first_busy: float | None = None
    last_busy: float | None = None
    bins: list[float] | None = None
    """Busy seconds in each of `BINS` parts of the span; None beyond `MOST_ROWS` workers."""

    def take(self, begin: float, end: float) -> None:
        """It was busy between the two."""
        self.busy_seconds += end - begin
        self.first_busy = begin if self.first_busy is None else min(begin, self.first_busy)
        self.last_busy = end if self.last_busy is None else max(end, self.last_busy)

    @property
    def present_seconds(self) -> float:
        """How long it was present."""
        return sum(end - begin for begin, end in self.windows)

    @property
    def ran_out(self) -> float:
        """When it had work for the last time; when it came, if it never had any."""
        return self.windows[-1][0] if self.last_busy is None else self.last_busy


@dataclass
class RunProfile:
    """See the module. Fractions are None as long as there is no worker time to share."""

    status: Status
    spec: Spec
    started_at: float
    """Unix seconds: the seal. (The opening, for a run that was never sealed.)"""
    span_seconds: float
    """Until the end, or until now if the run is not over."""
    workers: list[WorkerProfile] = field(default_factory=list)
    item_times: ItemTimes = field(default_factory=ItemTimes)
    recorded: list[float] = field(default_factory=lambda: [0.0] * BINS)
    """Items recorded in each part of the span."""
    events: Counter[str] = field(default_factory=Counter)
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    """(when, what, which worker) of what is worth showing, the last ones."""
    events_trimmed: bool = False

    @property
    def bin_seconds(self) -> float:
        """Length of one part of the span."""
        return self.span_seconds / BINS

    @property
    def items(self) -> int:
        """Items recorded, as results or failures."""
        return self.status.done + self.status.failed

    @property
    def items_per_second(self) -> float | None:
        """Over the whole span."""
        return self.items / self.span_seconds if self.span_seconds > 0 else None

    @property
    def worker_seconds(self) -> float:
        """See the module: worker time."""
        return sum(worker.present_seconds for worker in self.workers)

    @property
    def busy_seconds(self) -> float:
        """See the module."""
        return sum(worker.busy_seconds for worker in self.workers)

    @property
    def first_work_seconds(self) -> float | None:
        """From the seal until the first item was begun."""
        return min((worker.first_busy for worker in self.workers if worker.first_busy is not None), default=None)

    @property
    def queue_share(self) -> float | None:
        """See the module."""
        return None if self.worker_seconds <= 0 else max(0.0, 1 - self.busy_seconds / self.worker_seconds)

    @property
    def tail_begin(self) -> float | None:
        """When the first worker ran out of work, in seconds since the seal; None while the run is not over."""
        return min((worker.ran_out for worker in self._at_the_end), default=None) if self.status.state.over else None

    @property
    def tail_share(self) -> float | None:
        """See the module."""
        begin = self.tail_begin
        if begin is None or self.worker_seconds <= 0:
            return None
        windows = (window for worker in self.workers for window in worker.windows)
        return sum(max(0.0, end - max(begin, start)) for start, end in windows) / self.worker_seconds

    @property
    def idle_tail_share(self) -> float | None:
        """See the module."""
        if not self.status.state.over or self.worker_seconds <= 0:
            return None
        return sum(self.span_seconds - worker.ran_out for worker in self._at_the_end) / self.worker_seconds

    def to_json(self) -> dict[str, Any]:
        """For a machine: docs/measuring.md has the fields."""
        times = self.item_times
        return {
            "run": self.status.run,
            "state": str(self.status.state),
            "total": self.status.total,
            "done": self.status.done,
            "failed": self.status.failed,
            "workers": len(self.workers),
            "seconds": round(self.span_seconds, 6),
            "items_per_second": self.items_per_second,
            "worker_seconds": self.worker_seconds,
            "busy_seconds": self.busy_seconds,
            "first_work_seconds": self.first_work_seconds,
            "queue_share": self.queue_share,
            "tail_share": self.tail_share,
            "idle_tail_share": self.idle_tail_share,
            "item_seconds": {f"p{percent}": times.percentile(percent) for percent in (50, 90, 99)},
            "item_times": [[edge(bucket), times.counts[bucket]] for bucket in times.used],
            "events": dict(self.events),
            "events_trimmed": self.events_trimmed,
        }

    @property
    def _at_the_end(self) -> list[WorkerProfile]:
        last_moment = self.span_seconds - 0.001  # the resolution of the server's notes
        return [worker for worker in self.workers if worker.windows[-1][1] >= last_moment]


def profile_of(ledger: Ledger) -> RunProfile:
    """What the server tells of a run now. Raises `UnknownRun`, `ContractMismatch`, `CorruptData`."""
    spec, status = ledger.spec(), ledger.status()
    seconds, microseconds = ledger.client.time()
    until = status.ended_at or seconds + microseconds / 1e6
    return profile(status, spec, until - status.elapsed_seconds, events(ledger, until), commits(ledger, until))


def profile(
    status: Status, spec: Spec, started_at: float, happened: Iterable[Event], committed: Iterable[Commit]
) -> RunProfile:
    """Put together what is known; `happened` in order, `committed` in any."""
    made = RunProfile(status, spec, started_at, status.elapsed_seconds)
    workers: dict[str, WorkerProfile] = {}
    _take_events(made, workers, happened)
    for commit in committed:
        _take_commit(made, workers, commit)
    for worker in workers.values():
        _settle(made, worker)
    # One that came before the seal and left before it, or after the end, had no part in it.
    made.workers = [worker for worker in workers.values() if worker.windows]
    # By their coming; those that came at about the same time by name.
    made.workers.sort(key=lambda worker: (worker.windows[0][0] // (made.bin_seconds or 1.0), worker.name))
    return made


def _take_events(made: RunProfile, workers: dict[str, WorkerProfile], happened: Iterable[Event]) -> None:
    """When each worker was present, from its joining until the next that says that it is not."""
    since: dict[str, float] = {}
    for number, event in enumerate(happened):
        if number == 0:
            made.events_trimmed = event.kind != "open"
        made.events[event.kind] += 1
        at = event.at - made.started_at
        if event.kind in _MARKED and 0 <= at <= made.span_seconds:
            made.marks = [*made.marks[1 - _MOST_MARKS :], (at, event.kind, event.worker)]
        if event.kind == "join":
            since[event.worker] = at
            _row(workers, event.worker)
        elif event.kind in _GONE and event.worker in since:
            workers[event.worker].windows.append((since.pop(event.worker), at))
        elif event.kind in _GONE and event.worker:  # its joining was trimmed: `_settle` lets it begin with its work
            _row(workers, event.worker).windows.append((at, at))
        elif event.kind == "end":  # failed items may be opened again, for other workers
            for name, begin in since.items():
                workers[name].windows.append((begin, at))
            since.clear()
    for name, begin in since.items():
        workers[name].windows.append((begin, made.span_seconds))


def _take_commit(made: RunProfile, workers: dict[str, WorkerProfile], commit: Commit) -> None:
    end = min(max(0.0, commit.at - made.started_at), made.span_seconds)
    begin = end
    if commit.meta is not None:
        begin = max(0.0, end - commit.meta.seconds)
        worker = _row(workers, commit.meta.worker)
        worker.items += commit.items
        worker.failed += commit.items if commit.failed else 0
        if not commit.told:
            made.item_times.add(commit.meta.times)
            worker.take(begin, end)
            if worker.bins is not None:
                _spread(made, worker.bins, begin, end, end - begin)
    _spread(made, made.recorded, begin, end, commit.items)


def _spread(made: RunProfile, bins: list[float], begin: float, end: float, amount: float) -> None:
    """Share `amount` out evenly over the parts between the two times."""
    if made.span_seconds <= 0:
        return
    width = made.bin_seconds
    first, last = (min(BINS - 1, int(time / width)) for time in (begin, end))
    if first == last:
        bins[first] += amount
        return
    rate = amount / (end - begin)
    bins[first] += rate * ((first + 1) * width - begin)
    bins[last] += rate * (end - last * width)
    for part in range(first + 1, last):
        bins[part] += rate * width


def _settle(made: RunProfile, worker: WorkerProfile) -> None:
    """Within the span, at least as long as it was at work, and busy no longer than it was there."""
    if worker.first_busy is not None and worker.last_busy is not None:
        if not worker.windows:  # its events were trimmed
            worker.windows = [(worker.first_busy, made.span_seconds)]
        begin, end = worker.windows[0]
        worker.windows[0] = (min(begin, worker.first_busy), end)
        begin, end = worker.windows[-1]
        worker.windows[-1] = (begin, max(end, worker.last_busy))
    clipped = [(max(0.0, begin), min(end, made.span_seconds)) for begin, end in worker.windows]
    worker.windows = [(begin, end) for begin, end in clipped if end > begin]
    worker.busy_seconds = min(worker.busy_seconds, worker.present_seconds)


def _row(workers: dict[str, WorkerProfile], name: str) -> WorkerProfile:
    if name not in workers:
        workers[name] = WorkerProfile(name, bins=[0.0] * BINS if len(workers) < MOST_ROWS else None)
    return workers[name]
