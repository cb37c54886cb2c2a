"""Shows how a run fares, on standard error: a progress bar on a terminal, else a plain line every few seconds."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from piecework.records import Status
from piecework_producer.cli.errors import say
from piecework_producer.launcher import Launch

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_SECONDS = 5.0
_PACE_SECONDS = 30.0
_LEAST_PACE_SECONDS = 1.0


def duration(seconds: float) -> str:
    """Like kubectl: 5.2s, 3m20s, 2h5m, 4d3h."""
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours < 24 else f"{hours // 24}d{hours % 24}h"


def workers(count: int) -> str:
    """A number of workers, in words."""
    return "1 worker" if count == 1 else f"{count} workers"


def line(status: Status) -> str:
    """A status in one line."""
    parts = [f"{status.done + status.failed}/{status.total} items"]
    if status.failed:
        parts.append(f"{status.failed} failed")
    if status.paused:
        parts.append("paused")
    return f"run {status.run} {status.state}: " + ", ".join(parts)


class Pace:
    """The rate of the last half minute, and the time left at that rate. (The ledger's rate is that of the whole run, a
    night without workers included.)"""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, status: Status) -> list[str]:
        """Texts of both; none as long as nothing is known."""
        now, recorded = self._clock(), status.done + status.failed
        if self._seen and recorded < self._seen[-1][1]:  # failed items were opened again
            self._seen.clear()
        self._seen.append((now, recorded))
        while now - self._seen[0][0] > _PACE_SECONDS:
            self._seen.popleft()
        seconds, items = now - self._seen[0][0], recorded - self._seen[0][1]
        if seconds < _LEAST_PACE_SECONDS or not status.sealed:
            return []
        rate = items / seconds
        texts = [f"{rate:,.4g}/s"]
        if rate > 0 and not status.paused:
            texts.append(f"{duration((status.total - recorded) / rate)} left")
        return texts


class Lines:
    """A line when something was heard of, every five seconds at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + _LINE_SECONDS
        self._pace = Pace(clock)
        self._told = ""

    def filled(self, items: int) -> None:
        """While the items are read."""
        self._line(lambda: f"{items} items filled")

    def status(self, status: Status, launch: Launch) -> None:
        """While they are worked on."""
        self._tell(launch)
        facts = [line(status), *self._pace(status), workers(launch.running)]
        self._line(lambda: ", ".join(facts))

    def aside(self) -> AbstractContextManager[object]:
        """For writing to the same terminal."""
        return nullcontext()

    def _tell(self, launch: Launch) -> None:
        """What became of a worker; an exit code means that the launch has failed, and the verdict will tell."""
        if launch.reason and launch.exit_code is None and launch.reason != self._told:
            say(launch.reason)
        self._told = launch.reason

    def _line(self, text: Callable[[], str]) -> None:
        if self._clock() >= self._due:
            self._due = self._clock() + _LINE_SECONDS
            say(text())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Bar(Lines):
    """A progress bar with items, rate, time left, failures and workers. What is said meanwhile stands above it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
            transient=True,
            expand=True,
            redirect_stdout=False,
        )
        self._task: TaskID = self._progress.add_task("filling", total=None, facts="")

    def filled(self, items: int) -> None:
        """While the items are read."""
        self._progress.update(self._task, completed=items)

    def status(self, status: Status, launch: Launch) -> None:
        """While they are worked on."""
        self._tell(launch)
        facts = self._pace(status)
        if status.failed:
            facts.append(f"[red]{status.failed} failed[/red]")
        facts.append(workers(launch.running))
        if status.paused:
            facts.append("[yellow]paused[/yellow]")
        self._progress.update(
            self._task,
            description=status.run,
            total=max(1, status.total),
            completed=status.done + status.failed,
            facts=" · ".join(facts),
        )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The bar is gone for the block."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def display() -> Lines:
    """What fits standard error."""
    return Bar() if sys.stderr is not None and sys.stderr.isatty() else Lines()
