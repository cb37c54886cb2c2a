"""Launchers with workers that tests can end: one entry in `RIGS` for each launcher that has to conform."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_job import JobOptions, job_manifest
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.launcher import Launcher, WorkerPlan
from tests.kubernetes_mock import KubernetesMock
from tests.local_rig import local_rig

RUN = "conform"


class Rig(Protocol):
    """A place where workers run that do nothing but wait to be ended."""

    def launcher(self, parallelism: int, backoff_limit: int = 20) -> Launcher:
        """A launcher for the one run of this rig; a second one is for the same run."""

    def running(self) -> list[str]:
        """The workers that run, by any name."""

    def end(self, worker: str, code: int) -> None:
        """Have a worker exit with this code. A worker that is told to stop exits with 75 by itself."""


class KubernetesRig:
    """Pods of the mock API server."""

    def __init__(self, mock: KubernetesMock, cluster: Cluster) -> None:
        self._mock, self._cluster = mock, cluster

    def launcher(self, parallelism: int, backoff_limit: int = 20) -> Launcher:
        plan = WorkerPlan(RUN, ("--handler", "tasks:work"), parallelism, 1.0)
        options = JobOptions(pod=PodOptions(image="worker"), backoff_limit=backoff_limit)
        return KubernetesLauncher(self._cluster, RUN, job_manifest(plan, options))

    def running(self) -> list[str]:
        return self._mock.controller.running()

    def end(self, worker: str, code: int) -> None:
        self._mock.controller.exit(worker, code)


@contextmanager
def kubernetes_rig() -> Iterator[Rig]:
    """The Kubernetes launcher on the mock."""
    with tempfile.TemporaryDirectory() as directory, KubernetesMock() as mock:
        options = ClusterOptions(kubeconfig=mock.kubeconfig(Path(directory)))
        with connect(options) as cluster:
            yield KubernetesRig(mock, cluster)


RIGS: dict[str, Callable[[], AbstractContextManager[Rig]]] = {
    "kubernetes": kubernetes_rig,
    "local": local_rig,
}
