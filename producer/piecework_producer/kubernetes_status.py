"""What `status` and `list` show of the cluster, as kubectl does, and where it and the ledger disagree."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from piecework.records import Status
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_mirror import Mirror, News
from piecework_producer.kubernetes_objects import EVENTS, JOBS, PODS, Event, Job, Pod
from piecework_producer.kubernetes_watcher import (
    EVENTS_OF_JOBS,
    EVENTS_OF_PODS,
    Observation,
    events_of,
    own_pods,
)
from piecework_producer.launcher import Launch, LaunchState

Progress = Callable[[str], Status | None]
"""The ledger's status of a run; None if it has none."""


@dataclass(frozen=True)
class JobRow:
    """One line of a listing."""

    name: str
    run: str
    status: str
    """As kubectl's: Running, Suspended, Terminating, FailureTarget, SuccessCriteriaMet, Complete, Failed."""
    completions: str
    """Items done/total for a run; pods succeeded/completions for a fixed-count Job."""
    duration: str
    age: str
    pending: int
    running: int
    failed: int
    reason: str
    """Why a pod does not start or the Job has failed, or what cluster and ledger disagree about."""


def job_rows(cluster: Cluster, progress: Progress, run: str | None = None) -> list[JobRow]:
    """The Jobs of all runs, or of one, oldest first; two lists, and events where something is missing."""
    selector = names.ALL_RUNS if run is None else names.run_selector(run)
    jobs, _ = cluster.list(JOBS, label_selector=selector)
    pods, _ = cluster.list(PODS, label_selector=selector)

    def events(job: Job, own: tuple[Pod, ...]) -> tuple[Event, ...]:
        return tuple(events_of(cluster, job, own))

    return _rows(jobs, pods, events, progress)


class RowsWatcher:
    """The same rows for `--watch`, kept up to date by watches."""

    def __init__(self, cluster: Cluster, progress: Progress, run: str | None = None) -> None:
        selector = names.ALL_RUNS if run is None else names.run_selector(run)
        self._progress, self._news, self._seen = progress, News(), -1
        self._jobs = Mirror(cluster, JOBS, self._news, label_selector=selector)
        self._pods = Mirror(cluster, PODS, self._news, label_selector=selector)
        self._events = Mirror(cluster, EVENTS, self._news, field_selector=EVENTS_OF_JOBS)
        self._troubles = Mirror(cluster, EVENTS, self._news, field_selector=EVENTS_OF_PODS)

    def wait(self, timeout_seconds: float) -> list[JobRow]:
        """The rows after the next change in the cluster, or when the time is over: the ledger changes too."""
        deadline = time.monotonic() + timeout_seconds
        self._seen = self._news.wait(self._seen, timeout_seconds)
        while not (self._jobs.ready and self._pods.ready) and time.monotonic() < deadline:
            self._jobs.check()
            self._pods.check()
            self._seen = self._news.wait(self._seen, min(0.2, deadline - time.monotonic()))
        self._jobs.check()
        self._pods.check()
        events = (*self._events.objects(), *self._troubles.objects())
        return _rows(self._jobs.objects(), self._pods.objects(), lambda job, own: events, self._progress)

    def close(self) -> None:
        """End the watches."""
        for mirror in (self._jobs, self._pods, self._events, self._troubles):
            mirror.close()


def _rows(
    jobs: list[Job],
    pods: list[Pod],
    events: Callable[[Job, tuple[Pod, ...]], tuple[Event, ...]],
    progress: Progress,
) -> list[JobRow]:
    now = datetime.now(UTC)
    by_owner: dict[str, list[Pod]] = {}
    for pod in pods:
        for owner in pod.metadata.owner_references or ():
            by_owner.setdefault(owner.uid, []).append(pod)
    jobs = sorted(jobs, key=lambda job: (job.metadata.creation_timestamp or now, job.metadata.name))
    rows = []
    for job in jobs:
        own = own_pods(job, by_owner.get(job.metadata.uid, []))
        rows.append(job_row(job, own, events(job, own), progress, now))
    return rows


def job_row(job: Job, pods: tuple[Pod, ...], events: tuple[Event, ...], progress: Progress, now: datetime) -> JobRow:
    """The line of one Job. Its reason is the disagreement, if there is one."""
    run = job.metadata.label(names.RUN)
    launch = Observation(job, pods, events).launch()
    reason = launch.reason
    if job.spec.completions is not None:
        completions = f"{job.status.succeeded}/{job.spec.completions}"
    else:
        ledger = progress(run)
        completions = "-" if ledger is None else f"{ledger.done + ledger.failed}/{ledger.total}"
        reason = disagreement(run, launch, ledger, now.timestamp()) or reason
    begun, ended = job.status.start_time, job.status.completion_time or _failed_at(job)
    return JobRow(
        name=job.metadata.name,
        run=run,
        status=status_word(job),
        completions=completions,
        duration=human_duration((ended or now) - begun) if begun else "",
        age=human_duration(now - job.metadata.creation_timestamp) if job.metadata.creation_timestamp else "",
        pending=launch.pending,
        running=launch.running,
        failed=launch.failed,
        reason=reason,
    )


def status_word(job: Job) -> str:
    """The STATUS column of `kubectl get jobs`."""
    if job.condition("Complete"):
        return "Complete"
    if job.condition("Failed"):
        return "Failed"
    if job.metadata.deletion_timestamp is not None:
        return "Terminating"
    for word in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if job.condition(word):
            return word
    return "Running"


def disagreement(run: str, launch: Launch, ledger: Status | None, now: float, leaving_seconds: float = 60.0) -> str:
    """What cluster and ledger tell differently about a run, and what to do; "" if they agree.

    `now` is in Unix seconds. Workers have `leaving_seconds` from the end of the run to leave.
    """
    if ledger is None:
        if launch.state in (LaunchState.ACTIVE, LaunchState.SUSPENDED):
            return (
                f"the Job of run {run} is there, but this Redis server knows no such run: "
                f"give the right --redis, or remove the Job: piecework delete {run}"
            )
        return ""
    left = ledger.total - ledger.done - ledger.failed
    again = f"submit run {run} again and it goes on where it stopped"
    if not ledger.state.over:
        remains = f"{left:,} of {ledger.total:,} items left"
        if launch.state is LaunchState.SUCCEEDED:
            return (
                f"the Job of run {run} is Complete, but the ledger has {remains}: a worker ended with 0 too "
                f"early, or items were tried again since; {again}"
            )
        if launch.state is LaunchState.FAILED:
            return f"the Job of run {run} has failed with {remains}: {launch.reason}. Mend that, then {again}"
        if launch.state is LaunchState.GONE:
            return f"run {run} has no Job, and the ledger has {remains}: it was deleted, or never made; {again}"
        return ""
    if launch.state is LaunchState.ACTIVE and ledger.ended_at is not None:
        over = now - ledger.ended_at
        if over > leaving_seconds:
            return (
                f"run {run} is over ({ledger.state}) since {over:.0f} s, but its Job is still active with "
                f"{launch.running} pods running: see piecework logs {run}; piecework delete {run} ends them"
            )
    if launch.state is LaunchState.FAILED and ledger.state.drained:
        return f"run {run} is over ({ledger.state}) and its record is complete, but its Job has failed: {launch.reason}"
    return ""


class StartTimeout:
    """Tells a waiting person when workers have not started for so long that they never may."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds`: how long a known reason may stand; 0: for ever."""
        self._seconds, self._clock = seconds, clock
        self._begun: float | None = None

    def check(self, launch: Launch) -> str:
        """Why to give up now; "" to go on waiting. Only time without a worker and with a reason counts."""
        if self._seconds <= 0 or launch.running or not launch.reason or launch.state is not LaunchState.ACTIVE:
            self._begun = None
            return ""
        if self._begun is None:
            self._begun = self._clock()
        if self._clock() - self._begun < self._seconds:
            return ""
        return f"no worker could start for {self._seconds:g} s: {launch.reason}"


def human_duration(span: timedelta) -> str:
    """A duration as kubectl prints it: 45s, 2m6s, 27m, 3h5m, 2d4h, 12d."""
    seconds = int(span.total_seconds())
    if seconds < 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d") if days < 8 * 365 else f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _failed_at(job: Job) -> datetime | None:
    """A Job that has failed has no completionTime."""
    failed = job.condition("Failed")
    return failed.last_transition_time if failed else None


def as_json(rows: list[JobRow]) -> list[Mapping[str, object]]:
    """For `--output json`."""
    return [{name: getattr(row, name) for name in row.__dataclass_fields__} for row in rows]
