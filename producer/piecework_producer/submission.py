"""From settings and items to a sealed run."""

import re
import secrets
import time
from collections.abc import Callable

from piecework.errors import UsageError
from piecework.items import Pile, Range
from piecework.keys import checked_run_id
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework.replicas import Replicas
from piecework.states import State
from piecework_producer import submitted
from piecework_producer.pile import fill
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings


def new_run_id(handler_text: str) -> str:
    """A run id that tells the handler and the time: `convert-20261121-1830-5f3a90c2`."""
    word = re.split(r"[:.\s/]+", handler_text.removeprefix("exec:").removeprefix("shell:").strip())
    name = word[-1] if ":" in handler_text and not handler_text.startswith(("exec:", "shell:")) else word[0]
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24].strip("-") or "run"
    return checked_run_id(f"{name}-{time.strftime('%Y%m%d-%H%M', time.gmtime())}-{secrets.token_hex(4)}")


def spec_of(settings: RunSettings, pile: Pile) -> Spec:
    """The specification under which the run is opened."""
    in_range = pile if isinstance(pile, Range) else None
    return Spec(
        handler=settings.handler_text,
        stdin=settings.stdin,
        batch=settings.batch,
        items="range" if isinstance(pile, Range) else pile.kind,
        start=in_range.start if in_range else 0,
        step=in_range.step if in_range else 1,
        total=in_range.total if in_range else None,
        retries=settings.retries,
        max_failures=settings.max_failures,
        crash_limit=settings.crash_limit,
    )


def submit_to(
    session: Session, settings: RunSettings, pile: Pile, progress: Callable[[int], None] = lambda filled: None
) -> tuple[Run, bool]:
    """Open, fill and seal a run, or go on with it: (the run, whether it is new). Raises as `pile.fill`.

    A run that had failed (a handler that could not be imported, a failure budget) is opened again: to submit it once
    more says that the cause is mended.
    """
    if settings.wait_replicas and session.embedded:
        raise UsageError("--wait-replicas needs a server that has replicas (--redis URL); the embedded one has none")
    run = settings.run or new_run_id(settings.handler_text)
    ledger = Ledger(session.client, run)
    created, state = fill(
        ledger,
        spec_of(settings, pile),
        pile,
        parallelism=settings.parallelism,
        chunk_size=settings.chunk_size,
        keep_seconds=settings.keep,
        worker_arguments=settings.worker_arguments(),
        progress=progress,
        lasting=session.lasting,
    )
    submitted.note(session.state_dir, run, settings.worker_arguments())
    if state is State.FAILED:
        session.lasting(ledger.retry)
    opened = Run(session, run)
    wait_for_replicas(opened, settings)
    return opened, created


def wait_for_replicas(run: Run, settings: RunSettings) -> None:
    """Go on when what the run has recorded is where `--wait-replicas` wants it. Raises `ServerLost`."""
    run.session.lasting(Replicas(run.session.client, run.id, settings.wait_replicas).wait)
