"""When a run has recovered from each of its kills, as its own streams tell, with the server's clock.

A kill of a worker or a horse costs the items that the victim had in its chunk and had not recorded. It is over when
each of them is recorded or was claimed anew, and for a worker when its place has claimed a chunk again: so many are at
work as before. A kill of the server is over when every place has committed again; the first commit is told too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from piecework.intervals import Intervals
from piecework.spans import Span


@dataclass
class Kill:
    """One SIGKILL and what came of it. Times are Unix seconds."""

    kind: str
    """worker, horse or server."""
    at: float
    worker: str = ""
    """Name of the worker that was killed or whose horse was."""
    missing: list[Span] = field(default_factory=list)
    """Items that the victim had and that nobody has taken up yet."""
    absent: set[str] = field(default_factory=set)
    """Places that have not claimed (server: not committed) since."""
    first: float | None = None
    """Server: when the first commit was recorded."""
    over: float | None = None
    """When the system was as before; None: not yet."""


def place(worker: str) -> str:
    """A worker's name without what tells it from its predecessor: a replacement has the place of whom it replaces."""
    return worker.rpartition("-")[0]


class Recoveries:
    """Told of all that happens, in the order of time, it knows which kills are over, and since when."""

    def __init__(self) -> None:
        self.kills: list[Kill] = []
        self.recorded = Intervals()
        self.places: set[str] = set()
        """Those that have committed."""
        self._held: dict[str, tuple[str, int, int]] = {}
        """Chunk and items, start to stop - 1, that a worker has claimed last."""
        self._open: list[Kill] = []

    def killed(self, kill: Kill) -> None:
        """To be told after all that was before it."""
        self.kills.append(kill)
        self._open.append(kill)
        if kill.kind == "server":
            kill.absent = set(self.places)
            return
        _, start, stop = self._held.get(kill.worker, ("", 0, 0))
        kill.missing = self.recorded.outside(start, stop - start)
        kill.absent = {place(kill.worker)} if kill.kind == "worker" else set()
        self._settle(kill.at)

    def claimed(self, at: float, worker: str, chunk: str, start: int, stop: int) -> None:
        """A worker has taken a chunk, of which start..stop-1 is to be done."""
        self._held[worker] = chunk, start, stop
        for kill in self._open:
            if kill.kind == "server":
                continue
            if kill.kind == "worker" and kill.worker == worker:  # it died a moment later: nobody works on that
                kill.missing += self.recorded.outside(start, stop - start)
                continue
            kill.missing = minus(kill.missing, start, stop - start)
            kill.absent.discard(place(worker))
        self._settle(at)

    def stolen(self, chunk: str, start: int) -> None:
        """The end of a chunk, from `start` on, is to be another's."""
        for worker, (held, first, stop) in self._held.items():
            if held == chunk:
                self._held[worker] = held, first, min(stop, start)

    def committed(self, at: float, worker: str, spans: Sequence[Span]) -> None:
        """Items were recorded; `worker` "": nobody knows by whom."""
        for start, count in spans:
            self.recorded.add(start, count)
        if worker:
            self.places.add(place(worker))
        for kill in self._open:
            if kill.kind == "server":
                kill.first = kill.first or at
                kill.absent.discard(place(worker))
            for start, count in spans:
                kill.missing = minus(kill.missing, start, count)
        self._settle(at)

    def _settle(self, at: float) -> None:
        for kill in self._open:
            if not kill.missing and not kill.absent:
                kill.over = at
        self._open = [kill for kill in self._open if kill.over is None]


def minus(spans: Sequence[Span], start: int, count: int) -> list[Span]:
    """What is left of the spans without start..start+count-1."""
    taken = Intervals()
    taken.add(start, count)
    return [rest for span in spans for rest in taken.outside(*span)]
