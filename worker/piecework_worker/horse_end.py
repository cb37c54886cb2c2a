"""How a horse ended, and what the ledger is to be told about the chunk that it left behind."""

import os
import signal
from typing import Literal, NamedTuple

from piecework.ledger import Ledger
from piecework.records import Claim, Failure, Spec
from piecework_worker import horse
from piecework_worker.outcomes import retry_delay
from piecework_worker.progress import IDLE

ITEM_TIMEOUT = "item-timeout"
Settled = Literal["done", "crash", "error"]


class HorseEnd(NamedTuple):
    """How a horse ended."""

    code: int | None
    """Its exit code if it ended on purpose; None: it crashed or was killed."""
    killed_for: str | None
    """Why its worker killed it."""
    item: int
    """The item in hand; negative: none, or nobody knows."""
    text: str

    def settle(self, ledger: Ledger, spec: Spec, claim: Claim, worker: str, item_timeout: float | None) -> Settled:
        """Hand back or charge what the horse left behind. Safe to repeat.

        Returns what that means for the worker: crash is one by an unknown item, error one that no other
        horse mends.
        """
        if self.code == horse.COMPLETE or claim.copy:  # a copy is nobody's to hand back, and its owner goes on
            return "done"
        if self.code is not None:
            ledger.release(claim.chunk, worker, self.text)
            return "error" if self.code == horse.ERROR else "done"
        if self.killed_for == ITEM_TIMEOUT:
            self._settle_overdue(ledger, spec, claim, worker, item_timeout or 0.0)
            return "done"
        if self.killed_for is not None:
            ledger.release(claim.chunk, worker, self.killed_for)
            return "done"
        if self.item >= 0:
            failure = Failure("Crash", f"the item's process {self.text}", "", claim.attempt + 1)
            if ledger.blame_crash(claim.chunk, worker, self.item, failure, spec.crash_limit) is not None:
                return "done"
        ledger.release(claim.chunk, worker, f"horse {self.text}", careful=True)
        return "crash"

    def _settle_overdue(self, ledger: Ledger, spec: Spec, claim: Claim, worker: str, item_timeout: float) -> None:
        if self.item < 0:
            ledger.release(claim.chunk, worker, "one of several items is overdue", careful=True)
            return
        attempt = claim.attempt + 1
        delay = retry_delay(attempt) if claim.attempt < spec.retries else None
        message = f"the item took longer than --item-timeout {item_timeout:g} s"
        ledger.blame_failure(claim.chunk, worker, self.item, Failure("TimeoutError", message, "", attempt), delay)

    @classmethod
    def without_fork(cls, code: int) -> "HorseEnd":
        """The end of a chunk that was worked on in the worker itself."""
        return cls(code, None, IDLE, "handed back")

    @classmethod
    def unborn(cls, error: OSError) -> "HorseEnd":
        """There was no memory, or no process, for a horse."""
        return cls(None, None, IDLE, f"could not be forked: {error}")


def describe(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = "; the kernel does that when memory runs out" if number == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"
    return f"exited with code {os.waitstatus_to_exitcode(status)} in mid-item"
