"""Works through one claimed chunk: in the horse, or in the worker itself with `--isolation none`.

Dies at any line: what the recorder has committed stays, the rest is done again by whoever gets the chunk.
"""

import logging
from functools import partial

from piecework.context import Context
from piecework.errors import PieceworkError, ServerLost, UnknownRun
from piecework.ledger import Ledger
from piecework.payload import Items
from piecework.records import Claim, Spec
from piecework_worker.handlers import Runner
from piecework_worker.progress import Progress
from piecework_worker.recorder import Recorder

log = logging.getLogger("piecework.worker")

COMPLETE, HANDED_BACK, ERROR, SERVER_LOST, CRASHED = 0, 10, 11, 12, 13
"""Exit codes of a horse, for its worker only. CRASHED: an exception that nobody foresaw."""


def work(ledger: Ledger, spec: Spec, claim: Claim, runner: Runner, recorder: Recorder, progress: Progress) -> int:
    """Work through the chunk until it is done or the recorder is stopped; returns one of the codes above."""
    try:
        drain(ledger, spec, claim, runner, recorder, progress)
    except ServerLost as error:
        log.error("%s", error)
        return SERVER_LOST
    except UnknownRun:
        return HANDED_BACK
    except PieceworkError as error:
        log.error("%s", error)
        return ERROR
    return COMPLETE if recorder.complete else HANDED_BACK


def drain(ledger: Ledger, spec: Spec, claim: Claim, runner: Runner, recorder: Recorder, progress: Progress) -> None:
    """Run the items and record their outcomes.

    Raises `ServerLost` when the server was away for too long; what was computed since is lost then.
    """
    items = Items(ledger, spec)
    context = Context(ledger.run, claim.attempt + 1, lambda: recorder.position)
    recorder.start()
    try:
        while recorder.position < recorder.stop_index and not recorder.stopped:
            stop = min(recorder.stop_index, recorder.position + runner.batch_size(recorder))
            batch = recorder.patience(partial(items.slice, recorder.position, stop))
            recorder.begin(batch)
            if batch:
                runner.run(batch, recorder, context, progress)
            if recorder.careful:
                _flush_carefully(recorder, progress)
            elif recorder.full:
                recorder.flush()
        recorder.flush()
    finally:
        recorder.close()
        runner.close()


def _flush_carefully(recorder: Recorder, progress: Progress) -> None:
    """Commit; a single item stays in hand meanwhile: its result may be what kills the process."""
    if recorder.uncommitted == 1:
        progress.begin(recorder.position - 1, None)
    recorder.flush()
    progress.end()
