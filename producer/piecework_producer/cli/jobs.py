"""The Jobs of runs as `kubectl get jobs` shows them, with the ledger beside the cluster."""

import json
import time
from contextlib import suppress

import msgspec

from piecework.errors import UnknownRun
from piecework.ledger import Ledger
from piecework.records import Status
from piecework.states import ProducerExit
from piecework_producer.cli.display import line
from piecework_producer.cli.errors import say
from piecework_producer.cli.output import table
from piecework_producer.cli.targets import Target
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_settings import cluster_options
from piecework_producer.kubernetes_status import (
    JobRow,
    Progress,
    RowsWatcher,
    as_json,
    disagreement,
    job_rows,
)
from piecework_producer.launcher import Launch, LaunchState
from piecework_producer.session import Session
from piecework_producer.settings import ClusterSettings

_HEADER = (
    "NAME",
    "STATUS",
    "COMPLETIONS",
    "DURATION",
    "AGE",
    "PENDING",
    "RUNNING",
    "FAILED",
    "RUN",
    "LEDGER",
)
_WATCH_SECONDS = 5.0


def show_jobs(
    run: str | None,
    settings: ClusterSettings,
    session: Session | None,
    target: Target | None,
    output: str,
    watch: bool,
) -> ProducerExit:
    """Print the rows, with --watch again at every change; exit code 1 if cluster and ledger disagree about the run."""

    def progress(name: str) -> Status | None:
        if session is not None:
            with suppress(UnknownRun):
                return Ledger(session.client, name).status()
        return None

    if target is not None and target.job is not None:
        return _show(target.job.cluster, run, progress, output, watch)
    with connect(cluster_options(settings), say) as cluster:
        return _show(cluster, run, progress, output, watch)


def _show(cluster: Cluster, run: str | None, progress: Progress, output: str, watch: bool) -> ProducerExit:
    rows = job_rows(cluster, progress, run)
    code = _print(rows, run, progress, output)
    if not watch:
        return code
    watcher, told = RowsWatcher(cluster, progress, run), rows
    try:
        while run is None or not _over(told, run, progress):
            rows = watcher.wait(_WATCH_SECONDS)
            if [_cells(row, None) for row in rows] != [_cells(row, None) for row in told]:
                code, told = _print(rows, run, progress, output), rows
    finally:
        watcher.close()
    return code


def _over(rows: list[JobRow], run: str, progress: Progress) -> bool:
    status = progress(run)
    ended = all(row.status in ("Complete", "Failed") for row in rows)
    return ended and (status is None or status.state.over)


def _print(rows: list[JobRow], run: str | None, progress: Progress, output: str) -> ProducerExit:
    status = progress(run) if run else None
    gone = Launch(LaunchState.GONE)
    missing = disagreement(run, gone, status, time.time()) if run and not rows else ""
    if output == "json":
        record: object = as_json(rows)
        if run:
            ledger = msgspec.to_builtins(status) if status else {"run": run}
            record = {**ledger, "jobs": as_json(rows), "disagreement": missing}
        print(json.dumps(record), flush=True)
    elif rows:
        print(table(_HEADER, [_cells(row, progress(row.run)) for row in rows]), flush=True)
    elif status is not None and not missing:
        print(line(status))
    elif not missing:
        say(f"{'run ' + run + ' has no Job' if run else 'no Jobs'} here; see --namespace and --context")
    for text in [f"{row.name}: {row.reason}" for row in rows if row.reason and output == "table"] + [missing]:
        if text:
            say(text)
    return ProducerExit.ITEMS_FAILED if missing else ProducerExit.SUCCEEDED


def _cells(row: JobRow, ledger: Status | None) -> tuple[str, ...]:
    return (
        row.name, row.status, row.completions, row.duration, row.age, str(row.pending), str(row.running),
        str(row.failed), row.run, str(ledger.state) if ledger else "-",
    )  # fmt: skip
