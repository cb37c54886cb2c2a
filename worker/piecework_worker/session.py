"""What one worker needs, put together: the handler, the server, the run's specification; then it drains the run."""

import logging
import secrets
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import rq.defaults
from redis.exceptions import RedisError

from piecework.context import Context
from piecework.errors import (
    ContractMismatch,
    HandlerUnusable,
    PieceworkError,
    ServerLost,
    ServerUnusable,
    UnknownRun,
    UsageError,
)
from piecework.ledger import Ledger
from piecework.patience import Patience
from piecework.records import Spec
from piecework.server import connect, explained, where
from piecework.states import WorkerExit
from piecework.tls import is_untrusted
from piecework_worker import handlers
from piecework_worker.command import command
from piecework_worker.ending import Ending
from piecework_worker.handlers import Runner
from piecework_worker.settings import WorkerSettings, environment, parse
from piecework_worker.worker import DrainWorker

log = logging.getLogger("piecework.worker")


def drain(argv: Sequence[str]) -> Ending:
    """Drain the run that the command line or the environment names. Raises nothing but `StoppedEarly`."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    try:
        return _drain(parse(argv))
    except (UsageError, HandlerUnusable, UnknownRun, ContractMismatch, ServerUnusable) as error:
        if error.__cause__ is not None and isinstance(error, HandlerUnusable):
            traceback.print_exception(error.__cause__)
        return Ending(WorkerExit.CANNOT_WORK, str(error))
    except ServerLost as error:
        return Ending(WorkerExit.HANDED_BACK, str(error))
    except Exception as error:  # a bug, or what no worker can mend: damage, a server that refuses a call
        if not isinstance(error, PieceworkError | RedisError):
            traceback.print_exc()
        return Ending(WorkerExit.BUG, f"{type(error).__name__}: {error}")


def _drain(settings: WorkerSettings) -> Ending:
    if rq.defaults.RQ_KEY_PREFIX != "rq":
        raise UsageError("RQ_KEY_PREFIX is set; piecework's ledger and queues need RQ's default prefix: unset it")
    Context.scheduled_time = settings.scheduled_time
    runner = _runner(settings)
    client = connect(settings.redis_url)
    patience = Patience(settings.patience, client, log.warning)
    ledger = Ledger(client, settings.run)
    spec = patience(lambda: _spec(ledger))
    _same_work(settings, spec)
    name = settings.name or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    worker = patience(lambda: DrainWorker(client, ledger, spec, settings, name, runner))
    log.info("worker %s drains run %s", name, settings.run)
    return worker.drain()


def _spec(ledger: Ledger) -> Spec:
    """The first call. No patience for a certificate that is not taken; later on there is: it may be renewed."""
    try:
        return ledger.spec()
    except RedisError as error:
        if is_untrusted(str(error)):
            raise explained(error, where(ledger.client)) from error
        raise


def _runner(settings: WorkerSettings) -> Callable[[], Runner]:
    """Load the handler once, in the main process, so that forks share it; the runner is made in each fork."""
    if settings.exec is not None:
        function = command(
            settings.exec,
            shell=settings.shell,
            stdin=settings.stdin,
            environ=environment(),
            item_memory=settings.item_memory,
        )
    else:
        sys.path.insert(0, str(Path.cwd()))
        function = handlers.load(settings.handler or "")

    def make() -> Runner:
        return handlers.runner(
            function,
            batch=settings.batch,
            batch_size=settings.batch_size,
            concurrency=settings.concurrency,
            item_timeout=settings.item_timeout,
        )

    make().close()
    return make


def _same_work(settings: WorkerSettings, spec: Spec) -> None:
    """Handler and run come from the command line, never from Redis; a difference is an error to be seen."""
    for name, mine, theirs in (
        ("handler", settings.handler_text, spec.handler),
        ("batch", settings.batch, spec.batch),
        ("stdin", settings.stdin, spec.stdin),
    ):
        if mine != theirs:
            raise UsageError(f"run {settings.run} was submitted with {name} {theirs!r}, this worker has {mine!r}")
