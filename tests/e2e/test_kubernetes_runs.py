"""Runs on a real cluster: real API server, controllers, scheduler; `conftest` says which."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from piecework.ledger import Ledger
from piecework.records import Status
from piecework.states import State
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_code import pack
from piecework_producer.kubernetes_fixed_job import FixedJobOptions, fixed_job_manifest
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_logs import follow, logs
from piecework_producer.kubernetes_objects import CONFIG_MAPS, JOBS, PODS, Plain, Resource
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.kubernetes_status import disagreement, job_rows
from piecework_producer.launcher import Launch, LaunchState
from piecework_producer.settings import RunSettings
from tests.e2e.conftest import Place
from tests.server_fixture import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
PATIENCE = 180.0
ITEM_SECONDS = float(os.environ.get("PIECEWORK_E2E_ITEM_SECONDS", "0.2"))
NODES: Resource[Plain] = Resource("v1", "Node", "nodes", Plain, namespaced=False)


def settings(run: str, **more: object) -> RunSettings:
    """Two workers; items that take a moment each, unless told otherwise."""
    fields: dict[str, object] = {"run": run, "parallelism": 2, "grace": 5.0}
    if "handler" not in more:
        fields |= {"exec": f"sleep {ITEM_SECONDS} # {{}}", "shell": True}
    return RunSettings.model_validate(fields | more)


def ended(launcher: KubernetesLauncher, state: LaunchState) -> Launch:
    """Wait until the Job has ended so."""
    told: list[Launch] = []

    def there() -> bool:
        told.append(launcher.poll(1.0))
        return told[-1].state is state

    eventually(there, timeout=PATIENCE, message=told)
    return told[-1]


def running(launcher: KubernetesLauncher, count: int) -> None:
    told: list[Launch] = []

    def there() -> bool:
        told.append(launcher.poll(1.0))
        return told[-1].running == count

    eventually(there, timeout=PATIENCE, message=told)


def some_done(ledger: Ledger, more_than: int = 0) -> None:
    eventually(lambda: ledger.status().done > more_than, timeout=PATIENCE, message=ledger.status)


def drained(launcher: KubernetesLauncher, ledger: Ledger, total: int) -> Status:
    """Wait for the end; each item has its result, and cluster and ledger agree."""
    launch = ended(launcher, LaunchState.SUCCEEDED)
    status = ledger.status()
    assert (status.state, status.done, status.failed) == (State.SUCCEEDED, total, 0)
    assert disagreement(status.run, launch, status, 0.0) == ""
    launcher.close()
    return status


def pods_of(cluster: Cluster, run: str) -> list[str]:
    pods, _ = cluster.list(PODS, label_selector=names.run_selector(run))
    return [pod.metadata.name for pod in pods if pod.status.phase == "Running"]


def test_a_run_drains_and_deleting_it_leaves_nothing(place: Place, run: str) -> None:
    launcher, ledger = place.submit(settings(run, exec="true {}", shell=False), 300)
    drained(launcher, ledger, 300)
    (row,) = job_rows(place.cluster, lambda _: ledger.status(), run)
    assert (row.status, row.completions) == ("Complete", "300/300")
    assert any("exit 0" in line.text for line in logs(place.cluster, run))
    assert launcher.delete(PATIENCE)
    ledger.delete()
    selector = names.run_selector(run)
    assert place.cluster.list(JOBS, label_selector=selector)[0] == []
    assert place.cluster.list(CONFIG_MAPS, label_selector=selector)[0] == []
    assert place.cluster.list(PODS, label_selector=selector)[0] == []
    assert [key for key in place.session.client.keys("*") if run in str(key)] == []


def test_the_same_submission_again_takes_the_job_over(place: Place, run: str) -> None:
    launcher, _ = place.submit(settings(run), 20)
    before = launcher.job().metadata.uid
    again, ledger = place.submit(settings(run), 20)
    assert again.job().metadata.uid == before
    drained(again, ledger, 20)


def test_scaling_up_and_down_while_it_runs(place: Place, run: str) -> None:
    launcher, ledger = place.submit(settings(run, parallelism=1), 200)
    running(launcher, 1)
    launcher.scale(4)
    running(launcher, 4)
    some_done(ledger, 20)
    launcher.scale(2)
    running(launcher, 2)
    drained(launcher, ledger, 200)


def test_a_pod_is_deleted(place: Place, run: str) -> None:
    launcher, ledger = place.submit(settings(run), 150)
    some_done(ledger)
    place.cluster.delete(PODS, pods_of(place.cluster, run)[0], foreground=False)
    status = drained(launcher, ledger, 150)
    assert status.done == 150


def test_suspended_and_resumed(place: Place, run: str) -> None:
    launcher, ledger = place.submit(settings(run), 100)
    some_done(ledger)
    launcher.suspend()
    running(launcher, 0)
    assert launcher.poll(0).state is LaunchState.SUSPENDED
    eventually(lambda: ledger.status().in_flight == 0, timeout=30, message="the workers have handed back")
    launcher.resume()
    drained(launcher, ledger, 100)


def test_a_handler_that_cannot_be_imported(place: Place, run: str) -> None:
    launcher, ledger = place.submit(settings(run, handler="no_such_module:work"), 10)
    launch = ended(launcher, LaunchState.FAILED)
    assert launch.exit_code == 78
    assert "no_such_module" in launch.reason
    assert "Mend that" in disagreement(run, launch, ledger.status(), 0.0)
    launcher.close()


def test_a_failure_budget_that_runs_out(place: Place, run: str) -> None:
    launcher, ledger = place.submit(settings(run, exec="false {}", shell=False, max_failures="3"), 500)
    launch = ended(launcher, LaunchState.FAILED)
    assert launch.exit_code == 65
    status = ledger.status()
    assert status.state is State.FAILED
    assert disagreement(run, launch, status, 0.0) == ""
    launcher.close()


def test_an_image_that_is_not_there_is_told(place: Place, run: str) -> None:
    """On a cluster that runs pods as processes an image may mean nothing; then the workers just start."""
    nowhere = Place(place.cluster, place.session, "registry.invalid/no/such/image:1")
    launcher, _ = nowhere.submit(settings(run), 1)

    def told() -> Launch | None:
        launch = launcher.poll(1.0)
        return launch if launch.reason or launch.running or launch.state is not LaunchState.ACTIVE else None

    launch = eventually(told, timeout=PATIENCE)
    assert launch is not None
    launcher.close()
    if launch.running or launch.state is LaunchState.SUCCEEDED:
        pytest.skip("this cluster starts pods whatever their image")
    assert "registry.invalid/no/such/image:1" in launch.reason


def test_code_from_a_directory(place: Place, run: str, tmp_path: Path) -> None:
    if os.environ.get("PIECEWORK_E2E_NO_MOUNTS"):
        pytest.skip("PIECEWORK_E2E_NO_MOUNTS is set")
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text("def double(item: int) -> int:\n    return 2 * item\n")
    launcher, ledger = place.submit(settings(run, handler="mine.tasks:double"), 50, pack(package, run))
    drained(launcher, ledger, 50)
    assert launcher.delete(PATIENCE)
    assert place.cluster.list(CONFIG_MAPS, label_selector=names.run_selector(run))[0] == []


def test_a_fixed_count_job(place: Place, run: str) -> None:
    pod = PodOptions(image=place.image, command=("/bin/sh", "-c", "echo 3.14159"), requests={"cpu": "10m"})
    options = FixedJobOptions(pod=pod, completions=6, parallelism=2)
    launcher = KubernetesLauncher(place.cluster, run, fixed_job_manifest(run, options))
    launcher.launch()
    followed = [line.text for line in follow(place.cluster, run)]
    assert ended(launcher, LaunchState.SUCCEEDED).succeeded == 6
    assert followed == ["3.14159"] * 6
    assert [line.text for line in logs(place.cluster, run)] == ["3.14159"] * 6
    (row,) = job_rows(place.cluster, lambda _: None, run)
    assert (row.status, row.completions) == ("Complete", "6/6")
    launcher.close()


@contextmanager
def lost(cluster: Cluster, node: str) -> Iterator[None]:
    """All pods of a node are evicted, and none comes, until the end."""
    taint = {"key": "piecework.dev/e2e", "value": "lost", "effect": "NoExecute"}
    cluster.patch(NODES, node, {"spec": {"taints": [taint]}})
    try:
        yield
    finally:
        cluster.patch(NODES, node, {"spec": {"taints": None}})


def test_a_node_is_lost(place: Place, run: str) -> None:
    node = os.environ.get("PIECEWORK_E2E_LOST_NODE")
    if not node:
        pytest.skip("PIECEWORK_E2E_LOST_NODE is not set")
    launcher, ledger = place.submit(settings(run, parallelism=4), 300)
    some_done(ledger)
    with lost(place.cluster, node):
        some_done(ledger, ledger.status().done + 20)
    drained(launcher, ledger, 300)
    assert launcher.poll(0).failed == 0, "a lost node is no worker's fault"
