"""Shows how a run fares, on standard error: a progress bar on a terminal, else a plain line every few seconds."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from piecework.records import Status
from piecework_producer.cli.errors import say
from piecework_producer.launcher import Launch

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_SECONDS = 5.0


def line(status: Status) -> str:
    """A status in one line."""
    parts = [f"{status.done + status.failed}/{status.total} items"]
    if status.failed:
        parts.append(f"{status.failed} failed")
    parts += [f"{status.workers} workers", f"{status.items_per_second:,.6g}/s"]
    if status.eta_seconds is not None:
        parts.append(f"{duration(status.eta_seconds)} left")
    if status.paused:
        parts.append("paused")
    return f"run {status.run} {status.state}: " + ", ".join(parts)


def duration(seconds: float) -> str:
    """Like kubectl: 5.2s, 3m20s, 2h5m, 4d3h."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours < 24 else f"{hours // 24}d{hours % 24}h"


class Lines:
    """A line when something was heard of, every five seconds at most."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _LINE_SECONDS

    def filled(self, items: int) -> None:
        """While the items are read."""
        self._show(f"{items} items filled")

    def status(self, status: Status, launch: Launch) -> None:
        """While they are worked on."""
        self._show(line(status))

    def _show(self, text: str) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LINE_SECONDS
            say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Bar(Lines):
    """A progress bar with items, rate, time left, failures and workers."""

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
        )
        self._task: TaskID = self._progress.add_task("filling", total=None, facts="")

    def filled(self, items: int) -> None:
        """While the items are read."""
        self._progress.update(self._task, completed=items)

    def status(self, status: Status, launch: Launch) -> None:
        """While they are worked on."""
        facts = [f"{status.items_per_second:,.6g}/s"]
        if status.eta_seconds is not None:
            facts.append(f"{duration(status.eta_seconds)} left")
        if status.failed:
            facts.append(f"[red]{status.failed} failed[/red]")
        facts.append(f"{launch.running} workers")
        if status.paused:
            facts.append("[yellow]paused[/yellow]")
        self._progress.update(
            self._task,
            description=status.run,
            total=max(1, status.total),
            completed=status.done + status.failed,
            facts=" · ".join(facts),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def display() -> Lines:
    """What fits standard error."""
    return Bar() if sys.stderr.isatty() else Lines()
