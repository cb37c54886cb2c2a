"""The states of a run and the exit codes of its processes: the two tables that users and Kubernetes rely on.

    filling -> running -> succeeded | completed_with_failures | failed | cancelled

`retry` leads from `completed_with_failures` and `failed` back to `running`; nothing leads out of `succeeded`
and `cancelled` but deletion.
"""

from enum import IntEnum, StrEnum


class State(StrEnum):
    """The state of a run, as its ledger holds it."""

    FILLING = "filling"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will be recorded in this state."""
        return self not in (State.FILLING, State.RUNNING)

    @property
    def drained(self) -> bool:
        """Whether every item has a result or a recorded failure."""
        return self in (State.SUCCEEDED, State.COMPLETED_WITH_FAILURES)


class WorkerExit(IntEnum):
    """Why a worker ended. The Job's podFailurePolicy and the local launcher read the same table."""

    DRAINED = 0
    """The ledger says that the run is over: every item has a result or a recorded failure."""
    RUN_FAILED = 65
    """The run has failed (failure budget) or was cancelled: no worker is needed any more."""
    BUG = 70
    """Anything unforeseen; counts against the backoffLimit."""
    HANDED_BACK = 75
    """SIGTERM, or Redis lost for longer than the patience: the run is not over, others may go on."""
    CANNOT_WORK = 78
    """Bad settings, unknown run, unusable handler, other contract version: a new worker would not help."""

    @classmethod
    def of(cls, state: State) -> "WorkerExit":
        """The exit code of a worker that leaves because the run is over in `state`."""
        return cls.DRAINED if state.drained else cls.RUN_FAILED


class ProducerExit(IntEnum):
    """Exit codes of `piecework run` and `piecework wait`."""

    SUCCEEDED = 0
    ITEMS_FAILED = 1
    USAGE = 2
    RUN_FAILED = 3
    TIMED_OUT = 4
    INTERRUPTED = 130

    @classmethod
    def of(cls, state: State) -> "ProducerExit":
        """The exit code for a run that is over in `state`."""
        if state is State.SUCCEEDED:
            return cls.SUCCEEDED
        return cls.ITEMS_FAILED if state is State.COMPLETED_WITH_FAILURES else cls.RUN_FAILED
