"""What starts N workers and tells how they fare: `local` (processes) or `kubernetes` (a Job), under the same rules.

The rules are those of a work-queue Job (parallelism without completions) with piecework's podFailurePolicy:

| a worker exits with | then |
| --- | --- |
| 0 | the run is over; no worker is replaced any more, and the launch has succeeded when all have ended |
| 75, or it was told to stop | it is replaced, after a back-off; never counted |
| 65, 78 | the launch has failed: all workers are told to stop |
| anything else, or a signal | it is replaced, after a back-off; counted against the backoff limit |
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True)
class WorkerPlan:
    """What one worker runs. Where it finds Redis is the launcher's business."""

    run: str
    arguments: tuple[str, ...]
    """Options of `piecework-worker`, without the run, the server and the name."""
    parallelism: int
    """How many workers at once; at least 1."""
    grace_seconds: float
    """How long a worker takes at most to hand back."""


class LaunchState(StrEnum):
    """What has become of a launch."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    """A worker has exited 0 and none is left."""
    FAILED = "failed"
    """A worker exited 65 or 78, or too many died, and none is left."""
    SUSPENDED = "suspended"
    GONE = "gone"
    """There is no such launch (any more)."""


@dataclass(frozen=True)
class Launch:
    """How the workers of a run fare now."""

    state: LaunchState
    pending: int = 0
    """Workers that are to start, or wait for their back-off."""
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    """Workers that counted against the backoff limit."""
    exit_code: int | None = None
    """The exit code that decided a failed launch; None if no single worker did."""
    reason: str = ""
    """One line: why the launch failed, or why a worker cannot start."""


class Launcher(Protocol):
    """Starts, watches and stops the workers of one run. All calls but `close` may be repeated."""

    def launch(self) -> None:
        """Start the workers, or take over those that run already. Never more than one launch for a run."""

    def poll(self, timeout_seconds: float) -> Launch:
        """Wait for news for at most `timeout_seconds` (0: do not wait), then tell how the workers fare."""

    def scale(self, parallelism: int) -> None:
        """Have that many workers from now on; those that are too many are told to stop and hand back."""

    def stop(self) -> None:
        """Tell all workers to hand back; `poll` until none is left. None is replaced any more."""

    def close(self) -> None:
        """Let go of what the launcher holds; local workers end with it, a Job goes on."""
