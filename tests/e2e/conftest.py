"""A namespace of its own on a real cluster, with the Secret that pods take the Redis URL from.

Wanted in the environment (without them all of `tests/e2e` is skipped):

| variable | what |
| --- | --- |
| PIECEWORK_E2E_KUBECONFIG | a kubeconfig whose current context may make and delete namespaces |
| PIECEWORK_E2E_IMAGE | an image with the entry point `piecework-worker`, `sh` and `sleep` |
| PIECEWORK_E2E_REDIS_URL | the Redis server as pods reach it |
| PIECEWORK_E2E_LOCAL_REDIS_URL | the same server as this machine reaches it; default: the same URL |
| PIECEWORK_E2E_LOST_NODE | optional: a node that the tests may lose for a minute, with all pods on it |
| PIECEWORK_E2E_ITEM_SECONDS | optional: how long an item takes, default 0.2; more if pods are slow to start |
| PIECEWORK_E2E_NO_MOUNTS | optional: set if the cluster cannot mount a ConfigMap into its pods |

The cluster may run pods as processes: nothing here looks into a pod but through its log.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from piecework.items import checked_range
from piecework.ledger import Ledger
from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_code import CodeBundle
from piecework_producer.kubernetes_errors import NotFound
from piecework_producer.kubernetes_job import JobOptions, job_manifest
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_objects import NAMESPACES, SECRETS
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.launcher import WorkerPlan
from piecework_producer.session import Session
from piecework_producer.settings import RunSettings
from piecework_producer.submission import submit_to
from tests.server_fixture import eventually

NEEDED = ("PIECEWORK_E2E_KUBECONFIG", "PIECEWORK_E2E_IMAGE", "PIECEWORK_E2E_REDIS_URL")


@dataclass(frozen=True)
class Place:
    """Where the tests run."""

    cluster: Cluster
    session: Session
    image: str

    def submit(
        self, settings: RunSettings, total: int, code: CodeBundle | None = None
    ) -> tuple[KubernetesLauncher, Ledger]:
        """Fill a range of items, seal it, create the Job, unless the run is over."""
        run, _ = submit_to(self.session, settings, checked_range(0, total, 1))
        status = run.status()
        launcher = self.launcher(settings, code, f"{status.created_at:.3f}")
        if not status.state.over:
            launcher.launch()
        return launcher, Ledger(self.session.client, run.id)

    def launcher(self, settings: RunSettings, code: CodeBundle | None = None, identity: str = "") -> KubernetesLauncher:
        """As `submit`, without a run behind it."""
        assert settings.run is not None
        plan = WorkerPlan(settings.run, settings.worker_arguments(), settings.parallelism, settings.grace)
        options = JobOptions(pod=PodOptions(image=self.image, requests={"cpu": "10m"}))
        manifest = job_manifest(plan, options, code, identity)
        return KubernetesLauncher(self.cluster, settings.run, manifest, code)


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """Skips what needs it if the environment does not name a cluster."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no cluster to test on: {', '.join(missing)} not set")
    kubeconfig, image, redis_url = (os.environ[name] for name in NEEDED)
    name = f"piecework-e2e-{uuid.uuid4().hex[:8]}"
    options = ClusterOptions(kubeconfig=Path(kubeconfig), namespace=name)
    session = Session(os.environ.get("PIECEWORK_E2E_LOCAL_REDIS_URL") or redis_url)
    with connect(options) as cluster:
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.create(
            NAMESPACES,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}},
        )
        try:
            cluster.create(
                SECRETS,
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "piecework-redis"},
                    "stringData": {"url": redis_url},
                },
            )
            yield Place(cluster, session, image)
        finally:
            cluster.delete(NAMESPACES, name)
            eventually(lambda: _gone(cluster, name), timeout=180, message=f"namespace {name} is gone")
            session.close()


def _gone(cluster: Cluster, name: str) -> bool:
    try:
        cluster.get(NAMESPACES, name)
    except NotFound:
        return True
    return False


@pytest.fixture
def run(place: Place) -> Iterator[str]:
    """A run id; whatever the test leaves of it is removed."""
    run = f"e2e-{uuid.uuid4().hex[:10]}"
    yield run
    KubernetesLauncher(place.cluster, run).delete()
    Ledger(place.session.client, run).delete()
