"""N workers as processes of this machine, under the rules of a Kubernetes Job (see `launcher`).

The launcher sees its workers die, so it releases their leases at once. When it is killed itself, its workers notice
and hand back; nothing is left but log files. Where it is kinder than a Job: it replaces a dead worker at once and not
after ten seconds, backs off for ten seconds at most and not for six minutes, and failures that the run has outlived
(something was recorded since) do not count to the backoff limit.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from piecework.states import WorkerExit
from piecework_producer.launcher import Launch, LaunchState, WorkerPlan

_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 10.0
_FAILURES_PER_WORKER = 6
_POLL_SECONDS = 0.005


@dataclass
class _Slot:
    """The place of one worker: a process, or the time when the next one is due."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    name: str = ""
    due: float = 0.0
    told_to_stop: bool = False
    wanted: bool = True
    log_start: int = 0
    """Where in the log its output begins."""


@dataclass(frozen=True)
class LocalHooks:
    """What the launcher asks of the ledger."""

    reap: Callable[[str], bool]
    """Release what a worker held that has died. False: not now, the server is away; it is asked again."""
    recorded: Callable[[], int | None]
    """A number that grows whenever something is recorded. None: not known now."""


@dataclass
class LocalLauncher:
    """Starts `piecework-worker` processes. `close` (or the end of a with-block) ends them all."""

    plan: WorkerPlan
    redis_url: str
    logs: Path
    """Directory of the workers' output, a file for each."""
    hooks: LocalHooks
    environ: Mapping[str, str]
    backoff_limit: int | None = None
    """How many workers may die in a row with nothing recorded since. None: six for each that is to run."""
    command: Sequence[str] = (sys.executable, "-m", "piecework_worker.main")
    clock: Callable[[], float] = time.monotonic
    _slots: list[_Slot] = field(default_factory=list)
    _failures: int = 0
    _failed: int = 0
    _succeeded: int = 0
    _recorded: int = -1
    _stopping: bool = False
    _verdict: tuple[int | None, str] | None = None
    _to_reap: list[str] = field(default_factory=list)
    _last_end: str = ""

    def launch(self) -> None:
        """Start the workers; after a launch that has succeeded, start anew."""
        self._stopping, self._verdict, self._last_end = False, None, ""
        self._failures = self._failed = self._succeeded = 0
        self.scale(self.plan.parallelism)

    def scale(self, parallelism: int) -> None:
        """Have that many workers; those that are too many hand back."""
        while len(self._slots) < parallelism:
            self._slots.append(_Slot(len(self._slots)))
        for slot in self._slots:
            slot.wanted = slot.number < parallelism
            if not slot.wanted:
                self._tell_to_stop(slot)
        self._start_due()

    def poll(self, timeout_seconds: float) -> Launch:
        """See who has ended, replace whom the rules say; wait for at most `timeout_seconds` for a change."""
        deadline = self.clock() + timeout_seconds
        while not self._collect() and self.clock() < deadline:
            self._start_due()
            time.sleep(_POLL_SECONDS)
        self._start_due()
        running = sum(slot.process is not None for slot in self._slots)
        if self._verdict is not None:
            state = LaunchState.ACTIVE if running else LaunchState.FAILED
        elif self._succeeded or self._stopping:
            state = LaunchState.ACTIVE if running else LaunchState.SUCCEEDED if self._succeeded else LaunchState.GONE
        else:
            state = LaunchState.ACTIVE if self._slots else LaunchState.GONE
        pending = sum(slot.wanted and slot.process is None for slot in self._slots) if self._replaces else 0
        code, reason = self._verdict or (None, self._last_end)
        return Launch(state, pending, running, self._succeeded, self._failed, code, reason)

    def stop(self) -> None:
        """Tell all workers to hand back; none is replaced."""
        self._stopping = True
        for slot in self._slots:
            self._tell_to_stop(slot)

    def close(self) -> None:
        """End all workers: they have the grace to hand back, then they are killed; Ctrl-C kills them at once."""
        self.stop()
        deadline = self.clock() + self.plan.grace_seconds + 5
        while any(slot.process for slot in self._slots):
            try:
                if self.clock() > deadline:
                    self._kill()
                self._collect()
                time.sleep(_POLL_SECONDS)
            except KeyboardInterrupt:
                deadline = self.clock()

    def _kill(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()

    def __enter__(self) -> "LocalLauncher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _replaces(self) -> bool:
        return not self._stopping and not self._succeeded and self._verdict is None

    def _start_due(self) -> None:
        now = self.clock()
        for slot in self._slots:
            if slot.process is None and slot.wanted and now >= slot.due and self._replaces:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        slot.name = f"{self.plan.run}-{slot.number}-{secrets.token_hex(3)}"
        command = [*self.command, self.plan.run, *self.plan.arguments]
        command += ["--name", slot.name, "--parent", str(os.getpid())]
        environ = {name: value for name, value in self.environ.items() if not name.startswith("PIECEWORK_")}
        # In the environment, not in the arguments: `ps` shows those to everybody.
        environ["PIECEWORK_REDIS"] = self.redis_url
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            with (self.logs / f"worker-{slot.number}.log").open("ab") as output:
                slot.log_start = output.tell()
                slot.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environ,
                    start_new_session=True,
                )
        except OSError as error:
            self._fail(None, f"a worker cannot be started: {error}")
        slot.told_to_stop = False

    def _tell_to_stop(self, slot: _Slot) -> None:
        if slot.process is not None and not slot.told_to_stop:
            slot.told_to_stop = True
            slot.process.send_signal(signal.SIGTERM)

    def _collect(self) -> bool:
        changed = False
        for slot in self._slots:
            if slot.process is not None and (code := slot.process.poll()) is not None:
                slot.process = None
                self._ended(slot, code)
                changed = True
        while self._to_reap and self.hooks.reap(self._to_reap[0]):
            del self._to_reap[0]
        return changed

    def _ended(self, slot: _Slot, code: int) -> None:
        if code == WorkerExit.DRAINED:
            self._succeeded += 1
            return
        if code in (WorkerExit.RUN_FAILED, WorkerExit.CANNOT_WORK):
            self._fail(code, self._last_line(slot))
            return
        if code == WorkerExit.HANDED_BACK:
            slot.due = self.clock() + _FIRST_BACKOFF
            if not slot.told_to_stop:
                self._last_end = f"worker {slot.number} has left and is replaced: {self._last_line(slot)}"
            return
        self._to_reap.append(slot.name)
        self._failed += 1
        recorded = self.hooks.recorded()
        if recorded is not None:
            self._failures = 0 if recorded > self._recorded else self._failures
            self._recorded = recorded
        self._failures += 1
        backoff = min(_FIRST_BACKOFF * 2 ** min(self._failures - 1, 10), _LONGEST_BACKOFF)
        slot.due = self.clock() + backoff
        how = f"was killed by signal {-code}" if code < 0 else f"ended: {self._last_line(slot)}"
        self._last_end = f"worker {slot.number} {how}"
        if slot.told_to_stop:
            return
        limit = self.backoff_limit
        if limit is None:
            limit = _FAILURES_PER_WORKER * self.plan.parallelism
        if self._failures > limit:
            self._fail(None, f"{self._failures} workers died and nothing was recorded; the last: {self._last_end}. "
                       f"Their output is in {self.logs}")  # fmt: skip
        else:
            self._last_end += f"; replaced in {backoff:g} s (failure {self._failures} of {limit} without progress)"

    def _fail(self, code: int | None, reason: str) -> None:
        if self._verdict is None:
            self._verdict = (code, reason)
        self.stop()

    def _last_line(self, slot: _Slot) -> str:
        """What the worker wrote last. (The directory goes when the run is deleted.)"""
        path = self.logs / f"worker-{slot.number}.log"
        try:
            with path.open("rb") as log:
                log.seek(max(slot.log_start, log.seek(0, os.SEEK_END) - 4000))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError as error:
            return f"its output is lost ({error.strerror})"
        return lines[-1] if lines else "it wrote nothing"
