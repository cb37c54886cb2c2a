"""`piecework-worker RUN`: what a pod or the local launcher runs.

It exits with a code of `piecework.states.WorkerExit`. The last line that it writes says which code and why,
on standard error and in the termination log. That holds from the first moment: the signals are heard before the
libraries are imported, which takes most of a worker's start.
"""

import gc
import sys
from collections.abc import Sequence

from piecework.states import WorkerExit
from piecework_worker.ending import Ending, last_words, leave_for_sure
from piecework_worker.wakeup import StoppedEarly, leave_when_stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Drain the run that the command line or the environment names; returns the exit code."""
    leave_when_stopped()
    try:
        gc.disable()  # what is imported is no garbage: not to look for any, now or later, saves a fifth of the time
        from piecework_worker import session

        gc.freeze()
        gc.enable()
        ending = session.drain(sys.argv[1:] if argv is None else argv)
    except StoppedEarly as error:
        reason = f"told to stop ({error}) before it began; the run is not over"
        ending = Ending(WorkerExit.HANDED_BACK, reason)
    last_words(ending)
    if argv is None:
        leave_for_sure(ending.code)
    return int(ending.code)


if __name__ == "__main__":
    sys.exit(main())
