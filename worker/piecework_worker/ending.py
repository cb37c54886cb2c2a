"""Why a worker leaves, and its last words: on standard error and in the termination log, always."""

import contextlib
import os
import sys
import time
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from piecework.states import WorkerExit

_FAREWELL_SECONDS = 3.0


class Ending(NamedTuple):
    """Why a worker leaves."""

    code: WorkerExit
    reason: str


def termination_log() -> Path:
    """Where the last words go too, if the file exists. Kubernetes shows them in the pod's status.

    Not one of the settings, as it is wanted most when these cannot be read.
    """
    chosen = os.environ.get("PIECEWORK_TERMINATION_LOG")  # noqa: TID251 - see above
    return Path(chosen or "/dev/termination-log")


def last_words(ending: Ending) -> None:
    """Say which code and why. Nobody may be listening any more; that does not change the code."""
    reason = " ".join(ending.reason.splitlines())
    line = f"piecework-worker: exit {int(ending.code)} ({ending.code.name.lower()}): {reason}"
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
    with contextlib.suppress(OSError):
        if (file := termination_log()).is_file():
            file.write_text(line + "\n")
    flush()


def flush() -> None:
    """Write out what is buffered; a closed or broken standard output is no reason for anything."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, AttributeError):
            try:
                stream.flush()
            except OSError:  # Python would try again at exit, and exit with 120
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def leave_for_sure(code: int) -> None:
    """End the process with `code` soon, whatever the handler's module does at exit or in its own threads."""

    def end() -> None:
        time.sleep(_FAREWELL_SECONDS)
        os._exit(code)

    Thread(target=end, name="piecework-farewell", daemon=True).start()
