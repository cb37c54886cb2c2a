"""How a run's Job fares: from its Job, its pods and its events, read once or watched."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_errors import ClusterAway, NotPermitted
from piecework_producer.kubernetes_mirror import Mirror, News
from piecework_producer.kubernetes_objects import EVENTS, JOBS, PODS, Event, Job, Pod
from piecework_producer.kubernetes_reasons import why_failed, why_not_running
from piecework_producer.launcher import Launch, LaunchState

EVENTS_OF_JOBS = "involvedObject.kind=Job"
EVENTS_OF_PODS = "involvedObject.kind=Pod,type=Warning"
_FIRST_SECONDS = 60.0
"""How long the first lists may take."""
_AWAY_SECONDS = 10.0
"""After so long without news, a person is told."""


@dataclass(frozen=True)
class Observation:
    """What the cluster says about one run."""

    job: Job | None
    pods: tuple[Pod, ...] = ()
    events: tuple[Event, ...] = ()

    def launch(self) -> Launch:
        """The same in the words of every launcher."""
        job = self.job
        if job is None:
            return Launch(LaunchState.GONE, reason="there is no Job (any more)")
        running = sum(pod.status.phase == "Running" for pod in self.pods)
        status = job.status
        if job.finished:
            if job.condition("Complete") is not None:
                return Launch(LaunchState.SUCCEEDED, succeeded=status.succeeded, failed=status.failed)
            reason, code = why_failed(job, self.pods)
            return Launch(LaunchState.FAILED, 0, 0, status.succeeded, status.failed, code, reason)
        # Its controller says so a little later than its spec: `suspend` counts, whoever set it.
        suspended = job.spec.suspend
        wanted = job.spec.parallelism
        if job.spec.completions is not None:
            wanted = min(wanted, job.spec.completions - status.succeeded)
        elif status.succeeded:
            wanted = status.active  # after the first success none is replaced
        pending = 0 if suspended else max(0, wanted - running)
        failing = job.condition("FailureTarget") is not None
        reason = why_failed(job, self.pods)[0] if failing else ""
        if not reason and (pending or suspended):
            reason = why_not_running(job, self.pods, self.events)
        state = LaunchState.SUSPENDED if suspended else LaunchState.ACTIVE
        return Launch(state, pending, running, status.succeeded, status.failed, None, reason)


def own_pods(job: Job | None, pods: list[Pod]) -> tuple[Pod, ...]:
    """Those pods that this very Job controls: an earlier one of the same name may have left some."""
    uid = job.metadata.uid if job is not None else ""
    return tuple(pod for pod in pods if any(each.uid == uid for each in pod.metadata.owner_references or ()))


def observe(cluster: Cluster, run: str) -> Observation:
    """Read it once."""
    selector = names.run_selector(run)
    jobs, _ = cluster.list(JOBS, label_selector=selector)
    job = newest(jobs)
    if job is None:
        return Observation(None)
    pods, _ = cluster.list(PODS, label_selector=selector)
    own = own_pods(job, pods)
    return Observation(job, own, tuple(events_of(cluster, job, own)))


def events_of(cluster: Cluster, job: Job, pods: Sequence[Pod]) -> list[Event]:
    """Events of the Job and of one pod that waits; none if they may not be read, for they only explain."""
    if job.finished:
        return []
    waiting = [pod.metadata.uid for pod in pods if pod.status.phase == "Pending"][:1]
    events: list[Event] = []
    try:
        for uid in (job.metadata.uid, *waiting):
            events += cluster.list(EVENTS, field_selector=f"involvedObject.uid={uid}")[0]
    except NotPermitted:
        return events
    return events


def newest(jobs: list[Job]) -> Job | None:
    """The Job that counts, should there be several of a run: one that is not being deleted."""
    alive = [job for job in jobs if job.metadata.deletion_timestamp is None] or jobs
    return max(
        alive,
        key=lambda job: job.metadata.creation_timestamp.timestamp() if job.metadata.creation_timestamp else 0.0,
        default=None,
    )


class JobWatcher:
    """Watches one run's Job. Nothing is watched before the first `poll` that may wait."""

    def __init__(self, cluster: Cluster, run: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._run, self._clock = cluster, run, clock
        self._news = News()
        self._mirrors: _Mirrors | None = None
        self._told: Launch | None = None
        self._ended: tuple[str, Launch] | None = None

    def poll(self, timeout_seconds: float) -> Launch:
        """As `Launcher.poll`: returns as soon as the launch differs from what was told last."""
        if timeout_seconds <= 0 and self._mirrors is None:
            self._told = observe(self._cluster, self._run).launch()
            return self._told
        deadline = self._clock() + timeout_seconds
        if self._mirrors is None:
            self._mirrors = _Mirrors(self._cluster, self._run, self._news, self._clock)
        while True:
            seen = self._news.count
            launch = self._launch(self._mirrors)
            left = deadline - self._clock()
            if launch != self._told or left <= 0:
                self._told = launch
                return launch
            self._news.wait(seen, min(left, _AWAY_SECONDS))

    def _launch(self, mirrors: "_Mirrors") -> Launch:
        mirrors.check()
        observation = mirrors.observation()
        launch = observation.launch()
        if launch.state is LaunchState.FAILED and observation.job is not None:
            launch = self._last_look(observation.job, launch)
        away = mirrors.away_seconds
        if away >= _AWAY_SECONDS:
            note = f"no news from {self._cluster.label} for {away // 10 * 10:.0f} s; still trying"
            return replace(launch, reason=f"{launch.reason}; {note}" if launch.reason else note)
        return launch

    def _last_look(self, job: Job, seen: Launch) -> Launch:
        """Watches go each at its own pace: the pod that tells why may not have come yet."""
        uid = job.metadata.uid
        if self._ended is None or self._ended[0] != uid:
            try:
                self._ended = uid, observe(self._cluster, self._run).launch()
            except ClusterAway:
                return seen
        return self._ended[1]

    def observation(self) -> Observation:
        """What the watches have seen, or, without watches, what the cluster says now."""
        return observe(self._cluster, self._run) if self._mirrors is None else self._mirrors.observation()

    def close(self) -> None:
        """End the watches; may be called twice, and `poll` would begin them anew."""
        if self._mirrors is not None:
            self._mirrors.close()
        self._mirrors = None


class _Mirrors:
    """Copies of the Job, its pods and the events of Jobs; made ready before they can be asked."""

    def __init__(self, cluster: Cluster, run: str, news: News, clock: Callable[[], float]) -> None:
        selector = names.run_selector(run)
        self._label = cluster.label
        self._jobs = Mirror(cluster, JOBS, news, label_selector=selector, clock=clock)
        self._pods = Mirror(cluster, PODS, news, label_selector=selector, clock=clock)
        # Events only explain: that they may not be read is no error.
        of_jobs, of_pods = EVENTS_OF_JOBS, EVENTS_OF_PODS
        self._events = Mirror(cluster, EVENTS, news, field_selector=of_jobs, clock=clock)
        self._troubles = Mirror(cluster, EVENTS, news, field_selector=of_pods, clock=clock)
        deadline = clock() + _FIRST_SECONDS
        try:
            while not (self._jobs.ready and self._pods.ready):
                self.check()
                if clock() > deadline:
                    raise ClusterAway(f"{cluster.label} does not list Jobs and pods; try again later")
                news.wait(news.count, 0.2)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise what ended a watch."""
        self._jobs.check()
        self._pods.check()

    @property
    def away_seconds(self) -> float:
        """For how long there have been no news to be had."""
        return max(self._jobs.away_seconds, self._pods.away_seconds)

    def observation(self) -> Observation:
        """What has been seen."""
        job = newest(self._jobs.objects())
        events = (*self._events.objects(), *self._troubles.objects())
        return Observation(job, own_pods(job, self._pods.objects()), events)

    def close(self) -> None:
        """End the watches."""
        for mirror in (self._jobs, self._pods, self._events, self._troubles):
            mirror.close()
