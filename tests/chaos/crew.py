"""The workers of a scenario, with the scenario in the part of a Job's controller: who ends too early is replaced."""

import contextlib
import os
import random
import signal
from collections.abc import Callable

from tests.worker_fixture import WorkerProcess, alive, descendants

NO_MORE = (65, 70, 78)
"""Exit codes after which a Job starts no other worker."""


class Crew:
    """`size` workers, until nobody is to be replaced any more; `start` starts the worker of a number."""

    def __init__(self, size: int, start: Callable[[int], WorkerProcess], rng: random.Random) -> None:
        self.problems: list[str] = []
        self._start, self._rng = start, rng
        self._started = 0
        self._stopped: list[int] = []
        self.running: list[WorkerProcess] = []
        for _ in range(size):
            self._add()

    def look_after(self, is_over: Callable[[], bool | None]) -> None:
        """Replace who has ended. `is_over` says whether the run is; None: nobody can tell."""
        for worker in [each for each in self.running if each.process.poll() is not None]:
            self.running.remove(worker)
            code = worker.process.returncode
            over = is_over()
            if code in NO_MORE:
                self.problems.append(f"a worker ended with exit code {code}: {worker.last_line}")
            elif code == 0 and over is False:
                self.problems.append(f"a worker exited 0, and the run is not over: {worker.last_line}")
            elif over is not True:
                self._add()
        if not self.running and is_over() is False:
            raise AssertionError(f"no worker is left, and the run is not over: {self.problems}")

    def _add(self) -> None:
        self.running.append(self._start(self._started))
        self._started += 1

    def _alive(self) -> list[WorkerProcess]:
        return [each for each in self.running if each.process.poll() is None]

    def any(self) -> WorkerProcess | None:
        """One of them that runs."""
        running = self._alive()
        return self._rng.choice(running) if running else None

    def some(self) -> list[WorkerProcess]:
        """Some of them that run, or all."""
        running = self._alive()
        return self._rng.sample(running, self._rng.randint(min(1, len(running)), len(running)))

    def suspend(self, pids: list[int]) -> None:
        """SIGSTOP; `resume` is for all of them."""
        for pid in pids:
            self._send(pid, signal.SIGSTOP)
        self._stopped += pids

    def resume(self) -> None:
        """SIGCONT to all that were stopped, the horses first."""
        for pid in reversed(self._stopped):
            if alive(pid):
                self._send(pid, signal.SIGCONT)
        self._stopped = []

    def destroy(self) -> None:
        """SIGKILL to whoever is left."""
        for worker in self.running:
            for pid in descendants(worker.pid):
                self._send(pid, signal.SIGKILL)
            worker.destroy()

    @staticmethod
    def _send(pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
