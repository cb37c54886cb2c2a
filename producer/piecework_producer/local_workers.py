"""Workers of this machine for a run: a `LocalLauncher` that asks the run's ledger."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from piecework.patience import is_away
from piecework_producer.launcher import WorkerPlan
from piecework_producer.local_launcher import LocalHooks, LocalLauncher
from piecework_producer.run import Run
from piecework_producer.settings import environment

T = TypeVar("T")


def local_launcher(
    run: Run,
    arguments: Sequence[str],
    parallelism: int,
    grace_seconds: float,
    environ: Mapping[str, str] | None = None,
) -> LocalLauncher:
    """A launcher of worker processes; `arguments` are options of `piecework-worker`."""
    return LocalLauncher(
        plan=WorkerPlan(run.id, tuple(arguments), parallelism, grace_seconds),
        redis_url=run.session.url,
        logs=logs_of(run),
        hooks=_hooks(run),
        environ=environment() if environ is None else environ,
    )


def logs_of(run: Run) -> Path:
    """Where the output of the run's workers is."""
    return run.session.state_dir / "logs" / run.id


def _hooks(run: Run) -> LocalHooks:
    def reap(worker: str) -> bool:
        return _unless_away(lambda: run.ledger.reap(worker)) is not None

    def recorded() -> int | None:
        status = _unless_away(run.ledger.status)
        return None if status is None else status.done + status.failed

    return LocalHooks(reap, recorded)


def _unless_away(call: Callable[[], T]) -> T | None:
    """The launcher goes on watching its workers while the server is away."""
    try:
        return call()
    except RedisError as error:
        if not is_away(error):
            raise
        return None
