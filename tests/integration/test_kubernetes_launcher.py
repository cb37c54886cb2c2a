"""The Kubernetes launcher against an API server that answers as a real one did, and that fails."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_code import pack
from piecework_producer.kubernetes_errors import (
    ClusterAway,
    Conflict,
    ForeignJob,
    JobDiffers,
    NoCluster,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Refused,
)
from piecework_producer.kubernetes_job import JobOptions, job_manifest
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_objects import Manifest
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.launcher import Launch, LaunchState, WorkerPlan
from tests.kubernetes_mock import Fault, KubernetesMock
from tests.server_fixture import eventually

RUN = "nightly"
JOB = "piecework-nightly"


@pytest.fixture
def mock() -> Iterator[KubernetesMock]:
    with KubernetesMock() as server:
        yield server


@pytest.fixture
def cluster(mock: KubernetesMock, tmp_path: Path) -> Iterator[Cluster]:
    options = ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path), patience_seconds=2.0)
    with connect(options) as connection:
        yield connection


def manifest(parallelism: int = 2, image: str = "worker:1", identity: str = "") -> Manifest:
    plan = WorkerPlan(RUN, ("--handler", "tasks:work"), parallelism, 20.0)
    return job_manifest(plan, JobOptions(pod=PodOptions(image=image)), identity=identity)


@pytest.fixture
def launcher(cluster: Cluster) -> Iterator[KubernetesLauncher]:
    made = KubernetesLauncher(cluster, RUN, manifest())
    yield made
    made.close()


def until(launcher: KubernetesLauncher, state: LaunchState, **fields: int) -> Launch:
    """Poll until the launch is in `state` and its numbers are so."""

    def there() -> Launch | None:
        launch = launcher.poll(0.5)
        return launch if launch.state is state and all(getattr(launch, k) == v for k, v in fields.items()) else None

    found = eventually(there, message=lambda: launcher.poll(0))
    assert found is not None
    return found


def gone(mock: KubernetesMock, pod: str) -> None:
    eventually(lambda: pod not in mock.controller.running())


def test_a_launch_drains(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    assert launcher.poll(0).state is LaunchState.GONE
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2, pending=0)
    for pod in mock.controller.running():
        mock.controller.exit(pod, 0)
    launch = until(launcher, LaunchState.SUCCEEDED)
    assert (launch.succeeded, launch.failed, launch.running) == (2, 0, 0)


def test_launching_again_takes_the_job_over(mock: KubernetesMock, cluster: Cluster) -> None:
    for _ in range(3):
        KubernetesLauncher(cluster, RUN, manifest()).launch()
    assert mock.names("jobs") == [JOB]
    KubernetesLauncher(cluster, RUN, manifest(5)).launch()
    assert mock.object("jobs", JOB)["spec"]["parallelism"] == 5
    with pytest.raises(JobDiffers, match="--replace"):
        KubernetesLauncher(cluster, RUN, manifest(image="worker:2")).launch()
    before = mock.object("jobs", JOB)["metadata"]["uid"]
    KubernetesLauncher(cluster, RUN, manifest(image="worker:2"), replace=True).launch()
    assert mock.object("jobs", JOB)["metadata"]["uid"] != before


@pytest.mark.parametrize("ending", [0, 78])
def test_a_finished_job_of_a_run_that_is_not_over_is_replaced(
    mock: KubernetesMock, launcher: KubernetesLauncher, ending: int
) -> None:
    launcher.launch()
    first = mock.object("jobs", JOB)["metadata"]["uid"]
    until(launcher, LaunchState.ACTIVE, running=2)
    for pod in mock.controller.running():
        mock.controller.exit(pod, ending)
    until(launcher, LaunchState.SUCCEEDED if ending == 0 else LaunchState.FAILED)
    launcher.launch()
    assert mock.object("jobs", JOB)["metadata"]["uid"] != first
    until(launcher, LaunchState.ACTIVE, running=2)


def test_a_job_that_is_not_ours_is_never_touched(mock: KubernetesMock, cluster: Cluster) -> None:
    spec = {"suspend": True, "backoffLimit": 6, "parallelism": 1, "template": {"spec": {}}}
    mock.put("jobs", {"metadata": {"name": JOB}, "spec": spec, "status": {}})
    mock.controller.soon()
    eventually(lambda: mock.object("jobs", JOB)["status"])
    before = mock.object("jobs", JOB)
    with pytest.raises(ForeignJob, match="piecework did not make"):
        KubernetesLauncher(cluster, RUN, manifest()).launch()
    with pytest.raises(NotFound):
        KubernetesLauncher(cluster, RUN).suspend()
    assert not KubernetesLauncher(cluster, RUN).delete()
    assert mock.object("jobs", JOB) == before


def test_an_earlier_run_of_the_same_id_is_never_touched(mock: KubernetesMock, cluster: Cluster) -> None:
    KubernetesLauncher(cluster, RUN, manifest(identity="1000.5")).launch()
    KubernetesLauncher(cluster, RUN, manifest(identity="1000.5")).launch()
    with pytest.raises(ForeignJob, match=r"opened at 1000\.5"):
        KubernetesLauncher(cluster, RUN, manifest(identity="2000.5")).launch()
    assert mock.verbs("jobs").count("DELETE") == 0


def test_a_lost_reply_to_create_makes_one_job(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.cluster.version()
    mock.fail(None, method="POST", plural="jobs", after=True)
    launcher.launch()
    assert mock.names("jobs") == [JOB]


def test_handed_back_and_disrupted_workers_are_replaced_and_not_counted(
    mock: KubernetesMock, launcher: KubernetesLauncher
) -> None:
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2)
    for _ in range(10):
        mock.controller.exit(mock.controller.running()[0], 75)
        eventually(lambda: len(mock.controller.running()) == 2)
    mock.controller.evict(mock.controller.running()[0])
    mock.controller.kill(mock.controller.running()[0])
    launch = until(launcher, LaunchState.ACTIVE, running=2)
    assert launch.failed == 0


def test_bugs_count_until_the_backoff_limit(mock: KubernetesMock, cluster: Cluster) -> None:
    plan = WorkerPlan(RUN, ("--handler", "a:b"), 1, 5.0)
    options = JobOptions(pod=PodOptions(image="w"), backoff_limit=2)
    launcher = KubernetesLauncher(cluster, RUN, job_manifest(plan, options))
    launcher.launch()
    for _ in range(3):
        (pod,) = eventually(mock.controller.running)
        mock.controller.exit(pod, 70, "KeyError: 'x'")
        gone(mock, pod)
    launch = until(launcher, LaunchState.FAILED, failed=3)
    assert "too many pods failed (backoffLimit 2)" in launch.reason
    assert "KeyError" in launch.reason
    launcher.close()


def test_a_bad_handler_fails_at_once_with_its_last_words(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2)
    words = "log line\npiecework-worker: exit 78 (cannot_work): no module named tasks"
    mock.controller.exit(mock.controller.running()[0], 78, words)
    launch = until(launcher, LaunchState.FAILED)
    assert launch.exit_code == 78
    assert launch.reason.endswith("piecework-worker: exit 78 (cannot_work): no module named tasks")


def test_scale_grows_the_backoff_limit_and_never_shrinks_it(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    launcher.scale(5)
    until(launcher, LaunchState.ACTIVE, running=5)
    assert mock.object("jobs", JOB)["spec"]["backoffLimit"] == 16
    launcher.scale(1)
    until(launcher, LaunchState.ACTIVE, running=1)
    assert mock.object("jobs", JOB)["spec"]["backoffLimit"] == 16
    with pytest.raises(ValueError, match="suspend"):
        launcher.scale(0)


def test_a_job_that_was_replaced_meanwhile_is_not_changed(
    mock: KubernetesMock, launcher: KubernetesLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.launch()
    seen = launcher.job()
    launcher.delete()
    launcher.launch()
    monkeypatch.setattr(launcher, "job", lambda: seen)
    with pytest.raises(Conflict, match="replaced by another meanwhile"):
        launcher.scale(7)
    assert mock.object("jobs", JOB)["spec"]["parallelism"] == 2


def test_suspend_resume_stop_delete(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2)
    launcher.suspend()
    until(launcher, LaunchState.SUSPENDED, running=0)
    launcher.suspend()
    launcher.resume()
    until(launcher, LaunchState.ACTIVE, running=2)
    launcher.stop()
    until(launcher, LaunchState.SUSPENDED, running=0)
    assert launcher.delete()
    until(launcher, LaunchState.GONE)
    assert mock.names("jobs") == mock.names("pods") == []
    assert not launcher.delete()
    launcher.stop()


def test_code_belongs_to_the_job_and_goes_with_it(mock: KubernetesMock, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("def work(item): return item\n")
    code = pack(tmp_path / "tasks.py", RUN)
    plan = WorkerPlan(RUN, ("--handler", "tasks:work"), 1, 5.0)
    spec = job_manifest(plan, JobOptions(pod=PodOptions(image="w")), code)
    for _ in range(2):
        KubernetesLauncher(cluster, RUN, spec, code).launch()
    (name,) = mock.names("configmaps")
    owners = mock.object("configmaps", name)["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == [mock.object("jobs", JOB)["metadata"]["uid"]]
    assert KubernetesLauncher(cluster, RUN).delete()
    assert mock.names("configmaps") == []


@pytest.mark.parametrize(("after", "leftover"), [(False, False), (True, True)])
def test_a_producer_that_dies_at_any_call_is_completed_by_the_same_command(
    mock: KubernetesMock, tmp_path: Path, after: bool, leftover: bool
) -> None:
    """It dies before or after the server has done what it asked; a finished Job may be in the way."""
    (tmp_path / "tasks.py").write_text("x = 1\n")
    code = pack(tmp_path / "tasks.py", RUN)
    plan = WorkerPlan(RUN, ("--handler", "tasks:work"), 1, 5.0)
    spec = job_manifest(plan, JobOptions(pod=PodOptions(image="w")), code)
    options = ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path), patience_seconds=0.0)
    dying, count = True, 0
    with connect(options) as cluster:
        while dying:
            count += 1
            if leftover:
                KubernetesLauncher(cluster, RUN, spec, code).launch()
                mock.controller.finish(JOB, "Failed", "DeadlineExceeded", "too late")
            calls = len(mock.asked) + count
            mock.faults = [Fault(lambda _, at=calls: len(mock.asked) == at, None, after=after)]  # type: ignore[misc]
            try:
                KubernetesLauncher(cluster, RUN, spec, code).launch()
            except (ClusterAway, NoCluster):
                dying = True
            else:
                dying = not mock.faults
            mock.faults.clear()
            KubernetesLauncher(cluster, RUN, spec, code).launch()
            assert mock.names("jobs") == [JOB]
            (name,) = mock.names("configmaps")
            (owner,) = mock.object("configmaps", name)["metadata"]["ownerReferences"]
            assert owner["uid"] == mock.object("jobs", JOB)["metadata"]["uid"]
            assert KubernetesLauncher(cluster, RUN).delete()
            assert mock.names("jobs") == mock.names("configmaps") == mock.names("pods") == []
    assert count > 3, "each call was the last once"


def test_code_left_by_a_producer_that_died_is_taken_up_or_deleted(
    mock: KubernetesMock, cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text("x = 1\n")
    code = pack(tmp_path / "tasks.py", RUN)
    mock.put("configmaps", {"metadata": {"name": code.name, "labels": {}}} | code.manifest())
    assert KubernetesLauncher(cluster, RUN).delete()
    assert mock.names("configmaps") == []


def test_a_watch_that_drops_expires_or_ends_is_taken_up(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2)
    mock.drop_watches()
    launcher.scale(3)
    until(launcher, LaunchState.ACTIVE, running=3)
    mock.compact()
    mock.drop_watches()
    launcher.scale(1)
    until(launcher, LaunchState.ACTIVE, running=1)
    assert mock.verbs("jobs").count("GET") >= 2, "listed again after 410"


def test_poll_waits_for_news_and_no_longer(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2)
    begun = time.monotonic()
    assert launcher.poll(0.3).running == 2
    assert time.monotonic() - begun >= 0.3
    threading.Timer(0.2, lambda: mock.controller.exit(mock.controller.running()[0], 78)).start()
    begun = time.monotonic()
    until(launcher, LaunchState.FAILED)
    assert time.monotonic() - begun < 3
    asked = len(mock.asked)
    launcher.poll(0.5)
    assert len(mock.asked) == asked, "polling asks nothing of the server"


def test_watching_outlives_an_api_server_that_is_away(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    until(launcher, LaunchState.ACTIVE, running=2)
    mock.fail(503, times=4, method="GET")
    mock.fail(None, times=3, method="GET")
    mock.compact()
    mock.drop_watches()
    assert launcher.poll(0).running == 2, "the copy stays"
    eventually(lambda: not mock.faults, timeout=20)
    mock.controller.exit(mock.controller.running()[0], 78)
    until(launcher, LaunchState.FAILED)


def test_busy_servers_are_asked_again(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    mock.fail(429, plural="jobs", times=2, headers={"Retry-After": "0"})
    mock.fail(500, plural="jobs")
    launcher.launch()
    mock.fail(None, method="PATCH")
    mock.fail(504, method="PATCH")
    launcher.scale(4)
    assert mock.object("jobs", JOB)["spec"]["parallelism"] == 4


def test_a_server_that_hangs_up_at_the_first_call_is_asked_again(mock: KubernetesMock, tmp_path: Path) -> None:
    mock.fail(None, times=2)
    with connect(ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path))) as cluster:
        assert cluster.version() == "v1.36.2"


def test_a_server_that_stays_busy_is_an_error_that_says_so(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    mock.fail(429, plural="jobs", times=100)
    with pytest.raises(ClusterAway, match=r"cannot create jobs.batch piecework-nightly .*too much to do"):
        launcher.launch()
    mock.faults.clear()
    mock.fail(429, plural="jobs", headers={"Retry-After": "60"})
    with pytest.raises(ClusterAway):
        launcher.launch()
    assert mock.names("jobs") == []


def test_a_slow_server_is_waited_for_but_not_for_ever(mock: KubernetesMock, tmp_path: Path) -> None:
    options = ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path), request_timeout_seconds=0.3, patience_seconds=1.0)
    with connect(options) as cluster:
        assert cluster.version() == "v1.36.2"
        mock.fail(200, delay_seconds=0.1, through=True)
        launcher = KubernetesLauncher(cluster, RUN, manifest())
        launcher.launch()
        mock.fail(200, delay_seconds=0.8, through=True, times=10)
        with pytest.raises(ClusterAway, match="cannot be reached"):
            launcher.scale(3)


def test_forbidden_names_verb_and_resource(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    mock.forbid("create", "jobs")
    with pytest.raises(NotPermitted, match="Role with the verb create on the resource jobs"):
        launcher.launch()
    mock.forbidden.clear()
    launcher.launch()
    mock.forbid("list", "pods")
    with pytest.raises(NotPermitted, match="verb list on the resource pods"):
        launcher.poll(5)
    mock.forbidden.clear()
    mock.forbid("list", "events")
    until(launcher, LaunchState.ACTIVE, running=2)  # events only explain


def test_no_permission_to_watch_ends_the_poll(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    mock.forbid("watch", "jobs")

    def refused() -> bool:
        try:
            launcher.poll(0.5)
        except NotPermitted:
            return True
        return False

    eventually(refused)


def test_quota_validation_namespace_and_credentials(mock: KubernetesMock, tmp_path: Path) -> None:
    with connect(ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path))) as cluster:
        launcher = KubernetesLauncher(cluster, RUN, manifest())
        mock.refused_jobs = "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=1"
        with pytest.raises(QuotaExceeded, match="exceeded quota"):
            launcher.launch()
        mock.refused_jobs = 'admission webhook "policy.example" denied the request: no owner'
        with pytest.raises(Refused, match="admission rule"):
            launcher.launch()
        mock.refused_jobs = None
        spec = manifest()
        assert isinstance(spec["spec"], dict)
        spec["spec"]["paralelism"] = 3
        with pytest.raises(Refused, match=r'unknown field "spec.paralelism"'):
            KubernetesLauncher(cluster, RUN, spec).launch()
        mock.refused_jobs, mock.token = None, "secret-token"
        assert cluster.version() == "v1.36.2"
        mock.token = "another"
        with pytest.raises(NotPermitted, match="credentials"):
            launcher.launch()
        mock.token = None
    elsewhere = ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path), namespace="nowhere")
    with connect(elsewhere) as cluster, pytest.raises(NotFound, match="no namespace nowhere"):
        KubernetesLauncher(cluster, RUN, manifest()).launch()


def test_no_cluster(mock: KubernetesMock, tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="no kubeconfig"):
        connect(ClusterOptions(kubeconfig=tmp_path / "none"))
    file = mock.kubeconfig(tmp_path)
    with pytest.raises(NoCluster, match=r"no context prod.*has the contexts mock"):
        connect(ClusterOptions(kubeconfig=file, context="prod"))
    (tmp_path / "bad").write_text("a: [")
    with pytest.raises(NoCluster, match="cannot be used"):
        connect(ClusterOptions(kubeconfig=tmp_path / "bad"))
    file.write_text(file.read_text().replace(mock.url, "http://127.0.0.1:1"))
    begun = time.monotonic()
    with connect(ClusterOptions(kubeconfig=file)) as cluster:
        with pytest.raises(NoCluster, match="cannot be reached"):
            KubernetesLauncher(cluster, RUN, manifest()).launch()
        with pytest.raises(NoCluster):
            KubernetesLauncher(cluster, RUN).poll(5)
    assert time.monotonic() - begun < 5, "it is said at once"


def test_why_pods_do_not_start(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    mock.controller.unschedulable = "0/2 nodes are available: 2 Insufficient cpu."
    launcher.launch()
    launch = until(launcher, LaunchState.ACTIVE, pending=2)
    assert "Insufficient cpu" in eventually(lambda: launcher.poll(0.2).reason)
    assert launch.running == 0
    launcher.delete()
    mock.controller.unschedulable = ""
    mock.controller.refused_pods = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    launcher.launch()
    assert "exceeded quota: q" in eventually(lambda: launcher.poll(0.2).reason)


def test_warnings_of_admission_are_passed_on(mock: KubernetesMock, tmp_path: Path) -> None:
    mock.controller.pod_warning = 'would violate PodSecurity \\"restricted:latest\\": privileged'
    said: list[str] = []
    with connect(ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path)), said.append) as cluster:
        KubernetesLauncher(cluster, RUN, manifest()).launch()
    assert said == ['would violate PodSecurity "restricted:latest": privileged']


def test_a_deletion_that_hangs_is_told(mock: KubernetesMock, launcher: KubernetesLauncher) -> None:
    launcher.launch()
    mock.controller.stubborn = True
    with pytest.raises(ClusterAway, match="is being deleted, but is not gone"):
        launcher.delete(timeout_seconds=0.2)
    mock.controller.stubborn = False
    mock.controller.soon()
    eventually(lambda: mock.names("jobs") == [])
