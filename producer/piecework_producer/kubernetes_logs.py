"""The logs of all pods of a run, merged, with the pod's name to each line, and followed as pods come and go.

A followed log that breaks is taken up again after the last line that came, by its time, and lines that come
twice are dropped. Pods that have not started are waited for. Logs of pods that are gone are gone with them.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_errors import ClusterAway, ClusterError, NotFound, Refused
from piecework_producer.kubernetes_job import CONTAINER
from piecework_producer.kubernetes_mirror import Mirror, News
from piecework_producer.kubernetes_objects import JOBS, PODS, Job, Pod
from piecework_producer.kubernetes_streams import Lines


@dataclass(frozen=True)
class LogLine:
    """One line of one pod."""

    pod: str
    time: str
    """As the node wrote it: RFC 3339, with nanoseconds."""
    text: str


def logs(cluster: Cluster, run: str, *, tail: int | None = None) -> Iterator[LogLine]:
    """What the pods of a run have written so far, pod after pod, oldest pod first."""
    pods, _ = cluster.list(PODS, label_selector=names.run_selector(run))
    for pod in sorted(pods, key=lambda pod: (str(pod.metadata.creation_timestamp), pod.metadata.name)):
        if not _started(pod):
            continue
        try:
            lines = cluster.logs(pod.metadata.name, _container(pod, run), tail=tail)
            yield from map(_line_of(pod.metadata.name), lines)
        except (NotFound, Refused):
            continue  # gone, or its container never came to run


def follow(
    cluster: Cluster,
    run: str,
    *,
    tail: int | None = None,
    linger_seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[LogLine]:
    """The same, and what they write from now on, as it comes; ends when the Job has finished or is gone.

    It ends `linger_seconds` after that, for what is still on its way. Closing the iterator ends all streams.
    """
    news = News()
    selector = names.run_selector(run)
    lines: queue.SimpleQueue[LogLine] = queue.SimpleQueue()
    jobs: Mirror[Job] = Mirror(cluster, JOBS, news, label_selector=selector, clock=clock)
    pods: Mirror[Pod] = Mirror(cluster, PODS, news, label_selector=selector, clock=clock)
    tails: dict[str, _Tail] = {}
    over_since: float | None = None
    try:
        while True:
            seen = news.count
            jobs.check()
            pods.check()
            for pod in pods.objects():
                if pod.metadata.uid not in tails and _started(pod):
                    tails[pod.metadata.uid] = _Tail(cluster, pod, run, lines, news, tail)
            busy = any(each.alive for each in tails.values())
            yield from _drained(lines)
            for each in tails.values():
                each.check()
            if jobs.ready and pods.ready and not busy and all(job.finished for job in jobs.objects()):
                over_since = clock() if over_since is None else over_since
                if jobs.objects() or clock() - over_since >= linger_seconds:
                    yield from _drained(lines)
                    return
            else:
                over_since = None
            news.wait(seen, 0.5)
    finally:
        for mirror in (jobs, pods):
            mirror.close()
        for each in tails.values():
            each.close()


class _Tail:
    """Follows one pod's log in a thread, until the container has ended and is not started again."""

    def __init__(
        self,
        cluster: Cluster,
        pod: Pod,
        run: str,
        lines: "queue.SimpleQueue[LogLine]",
        news: News,
        tail: int | None,
    ) -> None:
        self._cluster, self._lines, self._news, self._tail = cluster, lines, news, tail
        self._pod, self._container = pod.metadata.name, _container(pod, run)
        self._stream: Lines | None = None
        self._closing = threading.Event()
        self._error: ClusterError | None = None
        self._thread = threading.Thread(target=self._follow, name=f"log of {self._pod}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise what ended it early."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End it; the thread goes by itself."""
        self._closing.set()
        if self._stream is not None:
            self._stream.close()

    def _follow(self) -> None:
        last, pause = "", 0.1
        while not self._closing.is_set():
            try:
                resumed = last
                tail = None if resumed else self._tail
                self._stream = self._cluster.logs(self._pod, self._container, follow=True, since=resumed, tail=tail)
                if self._closing.is_set():
                    self._stream.close()
                for line in map(_line_of(self._pod), self._stream):
                    if line.time > resumed:  # `since` has whole seconds: some lines come once more
                        last, pause = line.time, 0.1
                        self._lines.put(line)
                        self._news.tell()
                if self._has_ended():
                    break
            except ClusterAway:
                pass  # the stream broke: go on after the last line
            except (NotFound, Refused):
                break
            except ClusterError as error:
                self._error = error
                break
            self._closing.wait(pause)
            pause = min(2 * pause, 10.0)
        self._news.tell()

    def _has_ended(self) -> bool:
        """A stream ends with the container, which restartPolicy OnFailure starts again."""
        found, _ = self._cluster.list(PODS, field_selector=f"metadata.name={self._pod}")
        if not found:
            return True
        pod = found[0]
        statuses = pod.status.container_statuses or ()
        states = [each.state for each in statuses if each.name == self._container]
        if pod.spec.restart_policy == "Never" and any(state.terminated for state in states):
            return True
        return pod.status.phase not in ("Pending", "Running")


def _drained(lines: "queue.SimpleQueue[LogLine]") -> Iterator[LogLine]:
    while not lines.empty():
        yield lines.get()


def _container(pod: Pod, run: str) -> str:
    """The one that does the work: others may have been added by a patch or by admission."""
    known = [each.name for each in pod.spec.containers]
    return next((name for name in (CONTAINER, run) if name in known), known[0] if known else CONTAINER)


def _started(pod: Pod) -> bool:
    """Whether there can be a log."""
    states = [each.state for each in pod.status.container_statuses or ()]
    began = any(state.running or state.terminated for state in states)
    return began or pod.status.phase in ("Running", "Succeeded", "Failed")


def _line_of(pod: str) -> Callable[[bytes], LogLine]:
    def line(raw: bytes) -> LogLine:
        time_, _, text = raw.decode(errors="replace").partition(" ")
        return LogLine(pod, time_, text)

    return line
