"""Workers of this machine for a run: a `LocalLauncher` that asks the run's ledger."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import RedisError

from piecework.damage import reading
from piecework.patience import is_away
from piecework_producer.launcher import WorkerPlan
from piecework_producer.local_launcher import LocalHooks, LocalLauncher
from piecework_producer.run import Run
from piecework_producer.settings import environment

T = TypeVar("T")
_PROC = Path("/proc")


def local_launcher(
    run: Run,
    arguments: Sequence[str],
    parallelism: int,
    grace_seconds: float,
    environ: Mapping[str, str] | None = None,
) -> LocalLauncher:
    """A launcher of worker processes; `arguments` are options of `piecework-worker`."""
    _unless_away(lambda: _reap_the_dead(run))
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


def _reap_the_dead(run: Run) -> None:
    """Release what workers of this machine held that were killed together with their launcher.

    RQ's registry knows their process ids. Were one of another container with the same host name taken for dead, an
    item might be computed twice; it would be recorded once.
    """
    client: Any = run.ledger.client
    with reading(f"run {run.id}, RQ's list of its workers"):
        for key in client.smembers(run.ledger.keys.rq_workers):
            name = key.decode().removeprefix("rq:worker:")
            host, pid = client.hmget(key, "hostname", "pid")
            if host == socket.gethostname().encode() and pid and not _is_alive(int(pid)):
                run.ledger.reap(name)


def _is_alive(pid: int) -> bool:
    """Whether the process is there and may be a worker; the command line of a zombie is empty."""
    if _PROC.is_dir():
        try:
            return b"piecework" in (_PROC / str(pid) / "cmdline").read_bytes()
        except FileNotFoundError:
            return False
        except OSError:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
