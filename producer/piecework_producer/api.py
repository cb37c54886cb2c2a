"""`submit` and `run`: the Python interface of the producer."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypedDict, Unpack

from piecework.items import iterable
from piecework_producer.foreground import drain
from piecework_producer.local_workers import local_launcher
from piecework_producer.references import reference, refuse_while_a_worker_imports, with_import_path
from piecework_producer.run import Run
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings, environment, read
from piecework_producer.submission import submit_to, wait_for_replicas

Handler = str | Callable[..., Any]


class Options(TypedDict, total=False):
    """Options of `submit` and `run`; each defaults to PIECEWORK_… in the environment, then as on the command line."""

    redis: str
    """URL of the server; without it the embedded one."""
    state_dir: Path
    """Where the embedded server keeps its data."""
    parallelism: int
    """Number of workers, and what chunks are sized for."""
    chunk_size: int
    retries: int
    item_timeout: float
    """Seconds."""
    item_memory: str
    """`512M` or `2Gi`."""
    max_failures: str
    """`N` or `P%`."""
    crash_limit: int
    batch: bool
    batch_size: int
    concurrency: int
    isolation: str
    keep: int
    """Seconds that the run is kept after its end."""
    lease: float
    patience: float
    grace: float
    wait_replicas: int
    speculate: bool
    """Idle workers redo an item that takes far longer than its siblings: see docs/handlers.md."""


def submit(handler: Handler, items: Iterable[object], *, run: str | None = None, **options: Unpack[Options]) -> Run:
    """Fill and seal a run, and return it. No worker is started; `piecework-worker RUN` drains it.

    `handler` is `package.module:function` or a function of an importable module. `items` is read once; a `range` is
    not stored item by item. Submitting the same run (same `run` id and specification) again goes on with it, and
    never does an item twice. Raises `piecework.errors.PieceworkError`.
    """
    refuse_while_a_worker_imports()
    return _submit(_settings(handler, run, options), items)


def run(handler: Handler, items: Iterable[object], *, run: str | None = None, **options: Unpack[Options]) -> Run:
    """Submit a run, drain it with workers on this machine, and return it when it is over.

    Look at `status().state` for the verdict: items may have failed. Arguments and errors as in `submit`. On Ctrl-C the
    workers hand back, and the same call with the same `run` id goes on.
    """
    refuse_while_a_worker_imports()
    settings = _settings(handler, run, options)
    submitted = _submit(settings, items)
    try:
        environ = with_import_path(environment(), handler)
        arguments = settings.worker_arguments()
        with local_launcher(submitted, arguments, settings.parallelism, settings.grace, environ) as launcher:
            drain(submitted, launcher, lambda outcome: None)
        wait_for_replicas(submitted, settings)
    except BaseException:
        submitted.close()
        raise
    return submitted


def _settings(handler: Handler, run: str | None, options: Options) -> RunSettings:
    return read(RunSettings, {"handler": reference(handler), "run": run, **options})


def _submit(settings: RunSettings, items: Iterable[object]) -> Run:
    session = Session(settings.redis_url, settings.state_dir, settings.patience)
    try:
        return submit_to(session, settings, iterable(items))[0]
    except BaseException:
        session.close()
        raise
