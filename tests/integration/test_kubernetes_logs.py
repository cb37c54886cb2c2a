"""Merged and followed logs, and rows that follow the cluster, on the mock API server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_fixed_job import FixedJobOptions, fixed_job_manifest
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_logs import LogLine, follow, logs
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.kubernetes_status import RowsWatcher, job_rows
from piecework_producer.launcher import LaunchState
from tests.kubernetes_mock import KubernetesMock
from tests.server_fixture import eventually

RUN = "digits"


@pytest.fixture
def mock() -> Iterator[KubernetesMock]:
    with KubernetesMock() as server:
        yield server


@pytest.fixture
def cluster(mock: KubernetesMock, tmp_path: Path) -> Iterator[Cluster]:
    with connect(ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path), patience_seconds=2.0)) as connection:
        yield connection


def launched(cluster: Cluster, completions: int = 4, parallelism: int = 2) -> KubernetesLauncher:
    pod = PodOptions(image="perl:5.34.0", command=("perl", "-e", "print 3"))
    options = FixedJobOptions(pod=pod, completions=completions, parallelism=parallelism)
    launcher = KubernetesLauncher(cluster, RUN, fixed_job_manifest(RUN, options))
    launcher.launch()
    return launcher


class Follower:
    """Follows in a thread."""

    def __init__(self, cluster: Cluster, tail: int | None = None) -> None:
        self.lines: list[LogLine] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(cluster, tail))
        self._thread.start()

    def _run(self, cluster: Cluster, tail: int | None) -> None:
        try:
            self.lines.extend(follow(cluster, RUN, tail=tail, linger_seconds=0.2))
        except Exception as error:
            self.error = error

    def done(self) -> bool:
        return not self._thread.is_alive()


def test_a_fixed_count_job_from_start_to_end(mock: KubernetesMock, cluster: Cluster) -> None:
    launcher = launched(cluster)
    follower = Follower(cluster)
    for number in range(4):
        pod = eventually(mock.controller.running)[0]
        mock.log(pod, f"3.14 of {number}")
        mock.controller.exit(pod, 0)
    eventually(lambda: launcher.poll(0).state is LaunchState.SUCCEEDED)
    eventually(follower.done)
    assert follower.error is None
    assert sorted(line.text for line in follower.lines) == [f"3.14 of {number}" for number in range(4)]
    assert {line.pod for line in follower.lines} == set(mock.names("pods"))
    assert sorted(line.text for line in logs(cluster, RUN)) == [f"3.14 of {number}" for number in range(4)]
    (row,) = job_rows(cluster, lambda _: None)
    assert (row.name, row.status, row.completions) == (RUN, "Complete", "4/4")
    assert launcher.delete()
    assert job_rows(cluster, lambda _: None) == []


def test_followed_logs_survive_broken_streams_and_have_no_line_twice(mock: KubernetesMock, cluster: Cluster) -> None:
    launched(cluster, completions=1, parallelism=1)
    (pod,) = eventually(mock.controller.running)
    follower = Follower(cluster)
    for number in range(30):
        mock.log(pod, str(number))
        if number % 10 == 5:
            mock.drop_watches()
    mock.log(pod, "last")
    eventually(lambda: any("log" in each.path for each in mock.asked))
    mock.controller.exit(pod, 0)
    eventually(follower.done, timeout=20)
    assert [line.text for line in follower.lines] == [*map(str, range(30)), "last"]


def test_the_tail_only(mock: KubernetesMock, cluster: Cluster) -> None:
    launched(cluster, completions=1, parallelism=1)
    (pod,) = eventually(mock.controller.running)
    for number in range(10):
        mock.log(pod, str(number))
    assert [line.text for line in logs(cluster, RUN, tail=2)] == ["8", "9"]


def test_pods_that_have_not_started_have_no_log(mock: KubernetesMock, cluster: Cluster) -> None:
    mock.controller.waiting = {"reason": "ContainerCreating"}
    launcher = launched(cluster, completions=1, parallelism=1)
    eventually(lambda: mock.names("pods"))
    assert list(logs(cluster, RUN)) == []
    follower = Follower(cluster)
    launcher.delete()
    eventually(follower.done)
    assert follower.lines == []
    assert follower.error is None


def test_no_right_to_read_logs_is_told(mock: KubernetesMock, cluster: Cluster) -> None:
    mock.forbid("list", "pods")
    follower = Follower(cluster)
    eventually(follower.done)
    assert "verb list on the resource pods" in str(follower.error)


def test_rows_follow_the_cluster(mock: KubernetesMock, cluster: Cluster) -> None:
    watcher = RowsWatcher(cluster, lambda _: None)
    try:
        assert watcher.wait(5.0) == []
        launcher = launched(cluster)
        eventually(lambda: [row.running for row in watcher.wait(0.5)] == [2])
        launcher.suspend()
        eventually(lambda: [row.status for row in watcher.wait(0.5)] == ["Suspended"])
        launcher.delete()
        eventually(lambda: watcher.wait(0.5) == [])
    finally:
        watcher.close()


def test_on_a_restart_policy_of_never_failures_are_counted(mock: KubernetesMock, cluster: Cluster) -> None:
    launcher = launched(cluster, completions=2, parallelism=1)
    mock.controller.exit(eventually(mock.controller.running)[0], 78, "boom")
    eventually(lambda: launcher.poll(0).failed == 1)
    assert launcher.poll(0).state is LaunchState.ACTIVE, "78 has no meaning here"
