"""What the code generates: right by the API's published schemas, by the restricted standard, by the exit
codes.
"""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from piecework.errors import UsageError
from piecework.states import WorkerExit
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_code import pack
from piecework_producer.kubernetes_cronjob import ScheduleOptions, schedule_manifests
from piecework_producer.kubernetes_fixed_job import FixedJobOptions, fixed_job_manifest
from piecework_producer.kubernetes_job import JobOptions, RedisSecret, backoff_limit, job_manifest
from piecework_producer.kubernetes_objects import Manifest
from piecework_producer.kubernetes_patch import merged, read_patch, to_yaml
from piecework_producer.kubernetes_pod import PodOptions, Toleration, TopologySpread, literal
from piecework_producer.launcher import WorkerPlan

VERSIONS = ("1.34", "1.35", "1.36")
PLAN = WorkerPlan("nightly", ("--handler", "tasks:work", "--grace", "25"), 4, 25.0)
EVERYTHING = PodOptions(
    image="registry.example/worker:1",
    command=("tini", "piecework-worker"),
    image_pull_policy="Always",
    image_pull_secrets=("registry",),
    env={"MODE": "fast"},
    env_from_secrets=("handlers",),
    requests={"cpu": "2", "memory": "1Gi"},
    limits={"memory": "2Gi"},
    node_selector={"disk": "ssd"},
    tolerations=(Toleration.parse("spot=true:NoSchedule"), Toleration.parse("gpu")),
    topology_spread=(TopologySpread("topology.kubernetes.io/zone", 2, "DoNotSchedule"),),
    priority_class="batch",
    service_account="worker",
    labels={"team": "a"},
    annotations={"note": "b"},
)


def all_manifests(tmp_path: Path) -> dict[str, Manifest]:
    (tmp_path / "tasks.py").write_text("def work(item): return item\n")
    (tmp_path / "logo.bin").write_bytes(b"\xff\x00")
    code = pack(tmp_path, "nightly")
    everything = JobOptions(
        pod=EVERYTHING,
        active_deadline_seconds=3600,
        labels={"team": "a"},
        annotations={"note": "b"},
        queue="batch",
        min_parallelism=2,
        schedule="night",
    )
    command = PodOptions(image="perl:5.34.0", command=("perl", "-Mbignum=bpi", "-wle", "print bpi(2000)"))
    schedule = ScheduleOptions(
        name="night", schedule="0 * * * *", pod=PodOptions(image="producer:1"), arguments=("submit", "a:b")
    )
    return {
        "plain": job_manifest(PLAN, JobOptions(pod=PodOptions(image="worker:1"))),
        "everything": job_manifest(PLAN, everything, code, "1700000000.5"),
        "code": code.manifest(),
        "fixed": fixed_job_manifest("pi", FixedJobOptions(pod=command, completions=20, parallelism=5)),
        "indexed": fixed_job_manifest(
            "pi",
            FixedJobOptions(
                pod=EVERYTHING,
                completions=2,
                restart_policy="OnFailure",
                completion_mode="Indexed",
                active_deadline_seconds=60,
                queue="batch",
            ),
        ),
    } | {f"schedule-{each['kind']}": each for each in schedule_manifests(schedule)}


@pytest.mark.parametrize("version", VERSIONS)
def test_all_manifests_are_what_the_api_publishes(tmp_path: Path, version: str) -> None:
    for name, manifest in all_manifests(tmp_path).items():
        again = yaml.safe_load(to_yaml([manifest]))
        assert again == json.loads(json.dumps(manifest)), name
        kubernetes_validate.validate(again, version, strict=True)


def test_all_pods_meet_the_restricted_standard(tmp_path: Path) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    seen = 0
    for name, manifest in all_manifests(tmp_path).items():
        spec: Any = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {"spec": spec})["spec"].get("template", {}).get("spec")
        if spec is None:
            continue
        seen += 1
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", "emptyDir", "configMap"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
        producer = manifest["kind"] == "CronJob"
        assert spec["automountServiceAccountToken"] is producer, "only the producer speaks to the API server"
    assert seen == 5


def spec_of(manifest: Manifest) -> Any:
    return manifest["spec"]


def test_the_work_queue_job() -> None:
    spec = spec_of(job_manifest(PLAN, JobOptions(pod=PodOptions(image="worker:1"))))
    assert spec["parallelism"] == 4
    assert "completions" not in spec
    assert spec["backoffLimit"] == backoff_limit(4) == 14
    template = spec["template"]["spec"]
    assert template["restartPolicy"] == "Never"
    assert template["terminationGracePeriodSeconds"] == 35, "above the worker's own grace"
    container = template["containers"][0]
    assert container["args"] == ["nightly", "--handler", "tasks:work", "--grace", "25"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert "command" not in container, "the image's entry point"


def test_the_failure_policy_is_the_table_of_exit_codes() -> None:
    rules = spec_of(job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"))))["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"] for rule in rules if "onExitCodes" in rule for code in rule["onExitCodes"]["values"]
    }
    assert by_code == {
        WorkerExit.HANDED_BACK: "Ignore",
        WorkerExit.RUN_FAILED: "FailJob",
        WorkerExit.CANNOT_WORK: "FailJob",
    }
    assert rules[0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }


def test_redis_comes_by_reference_only() -> None:
    secret = RedisSecret(name="mine", url_key="u", password_key="p")
    manifest = job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"), redis=secret))
    env = {each["name"]: each for each in spec_of(manifest)["template"]["spec"]["containers"][0]["env"]}
    assert env["PIECEWORK_REDIS"]["valueFrom"] == {"secretKeyRef": {"name": "mine", "key": "u"}}
    password = env["PIECEWORK_REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert password == {"name": "mine", "key": "p", "optional": True}
    with pytest.raises(UsageError, match="PIECEWORK_REDIS is set by piecework itself"):
        job_manifest(PLAN, JobOptions(pod=PodOptions(image="w", env={"PIECEWORK_REDIS": "redis://x"})))


def test_certificates_are_mounted_from_a_secret_of_their_own() -> None:
    secret = RedisSecret(tls="redis-client")
    template: Any = secret.mounted({"spec": {"containers": [{"name": "worker", "env": secret.env()}]}}, "worker")
    (container,), (volume,) = template["spec"]["containers"], template["spec"]["volumes"]
    assert volume == {"name": "redis-tls", "secret": {"secretName": "redis-client", "defaultMode": 0o440}}
    (mount,) = container["volumeMounts"]
    assert (mount["name"], mount["readOnly"]) == ("redis-tls", True)
    assert {"name": "PIECEWORK_REDIS_TLS_DIR", "value": mount["mountPath"]} in container["env"]
    assert RedisSecret().mounted({}, "worker") == {}


def test_names_and_fingerprint_tell_runs_and_settings_apart() -> None:
    def fingerprint(manifest: Manifest) -> str:
        metadata: Any = manifest["metadata"]
        return str(metadata["annotations"][names.FINGERPRINT])

    options = JobOptions(pod=PodOptions(image="w"))
    one = job_manifest(PLAN, options)
    assert one == job_manifest(PLAN, options)
    wider = job_manifest(WorkerPlan("nightly", PLAN.arguments, 9, 25.0), options)
    assert fingerprint(one) == fingerprint(wider), "what may be changed on a running Job is no difference"
    other = job_manifest(PLAN, JobOptions(pod=PodOptions(image="w2")))
    assert fingerprint(one) != fingerprint(other)
    longest = names.job_name("a" * 48)
    assert len(longest) <= 63
    with pytest.raises(UsageError):
        names.job_name("Not_A_Run")


@pytest.mark.parametrize(
    ("text", "passed_on"),
    [
        ("print $x", "print $x"),
        ("echo $(date)", "echo $$(date)"),
        ("a$$b $(X) $y", "a$$$$b $$(X) $$y"),
    ],
)
def test_the_kubelet_replaces_nothing_in_commands(text: str, passed_on: str) -> None:
    assert literal(text) == passed_on


def test_kueue() -> None:
    manifest = job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"), queue="q", min_parallelism=2))
    metadata: Any = manifest["metadata"]
    assert spec_of(manifest)["suspend"] is True
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert metadata["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "2"
    with pytest.raises(UsageError, match="goes with --queue"):
        job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"), min_parallelism=2))
    with pytest.raises(UsageError, match="from 1 to the parallelism"):
        job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"), queue="q", min_parallelism=5))


def test_the_fixed_count_job_of_the_documentation() -> None:
    command = ("perl", "-Mbignum=bpi", "-wle", "print bpi(2000)")
    options = FixedJobOptions(pod=PodOptions(image="perl:5.34.0", command=command), completions=20, parallelism=5)
    manifest = fixed_job_manifest("calculatepi", options)
    spec = spec_of(manifest)
    container = spec["template"]["spec"]["containers"][0]
    assert manifest["metadata"]["name"] == "calculatepi"  # type: ignore[index]
    assert (spec["completions"], spec["parallelism"]) == (20, 5)
    assert (container["image"], container["command"]) == ("perl:5.34.0", list(command))
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "env" not in container


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restart_policy": "Always"}, "never be complete. Use Never or OnFailure"),
        ({"restart_policy": "Sometimes"}, "not known"),
        ({"completions": 0}, "1 or more"),
        ({"pod": PodOptions(image="")}, "--image"),
        ({"pod": PodOptions(image="x", run_as_user=0)}, "root"),
    ],
)
def test_fixed_count_jobs_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fixed_job_manifest("pi", FixedJobOptions(**({"pod": PodOptions(image="x")} | options)))


def test_on_failure_has_no_failure_policy() -> None:
    """The API refuses one: see the recording job-onfailure-with-policy-422."""
    options = FixedJobOptions(pod=PodOptions(image="x"), restart_policy="OnFailure")
    assert "podFailurePolicy" not in spec_of(fixed_job_manifest("pi", options))


def test_tolerations() -> None:
    assert Toleration.parse("a=b:NoExecute") == Toleration("a", "b", "NoExecute")
    assert Toleration.parse("a").manifest() == {"key": "a", "operator": "Exists"}
    with pytest.raises(UsageError, match="effect of NoSchedule"):
        Toleration.parse("a:Never")


# --- the patch


def patched(patch: Manifest) -> Manifest:
    return job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"), patch=patch))


def test_a_patch_reaches_everything_else(tmp_path: Path) -> None:
    file = tmp_path / "patch.yaml"
    file.write_text(
        """
spec:
  activeDeadlineSeconds: 60
  template:
    spec:
      hostname: a
      automountServiceAccountToken: null
      containers:
      - name: worker
        env:
        - {name: EXTRA, value: "1"}
        volumeMounts:
        - {name: data, mountPath: /data}
      - {name: sidecar, image: s}
      volumes:
      - {name: data, emptyDir: {}}
      - {name: tmp, emptyDir: {medium: Memory}}
"""
    )
    spec = spec_of(patched(read_patch(file)))
    pod = spec["template"]["spec"]
    worker, sidecar = pod["containers"]
    assert spec["activeDeadlineSeconds"] == 60
    assert pod["hostname"] == "a"
    assert "automountServiceAccountToken" not in pod
    assert (worker["image"], sidecar["image"]) == ("w", "s")
    assert [each["name"] for each in worker["env"]][-1] == "EXTRA"
    assert [each["mountPath"] for each in worker["volumeMounts"]] == ["/tmp", "/data"]
    assert pod["volumes"] == [
        {"name": "tmp", "emptyDir": {"medium": "Memory"}},
        {"name": "data", "emptyDir": {}},
    ]


def test_directives() -> None:
    old: Manifest = {"env": [{"name": "a", "value": "1"}, {"name": "b"}], "args": ["x"], "labels": {"k": "v"}}
    assert merged(old, {"env": [{"name": "a", "$patch": "delete"}]})["env"] == [{"name": "b"}]
    assert merged(old, {"env": [{"$patch": "replace"}, {"name": "c"}]})["env"] == [{"name": "c"}]
    assert merged(old, {"labels": {"$patch": "replace", "z": "1"}})["labels"] == {"z": "1"}
    assert merged(old, {"args": ["y"]})["args"] == ["y"]
    assert old["args"] == ["x"]
    with pytest.raises(UsageError, match="not known here"):
        merged(old, {"$retainKeys": ["a"]})
    with pytest.raises(UsageError, match="needs its name"):
        merged(old, {"env": [{"value": "1"}]})


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"spec": {"completions": 3}}, "leave completions out"),
        ({"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}, "Never only"),
        ({"metadata": {"name": "other"}}, "must leave kind Job and name"),
        ({"metadata": {"labels": {names.RUN: "other"}}}, "labels by which piecework finds"),
        ({"spec": {"template": {"metadata": {"labels": {names.MANAGED_BY: None}}}}}, "labels by which"),
    ],
)
def test_what_a_patch_must_not_change(patch: Manifest, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        patched(patch)


@pytest.mark.parametrize("text", ["a: [", "- a", "", "\x00"])
def test_patches_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "patch.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="--patch"):
        read_patch(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_patch(tmp_path / "none")


def test_labels_of_piecework_cannot_be_given() -> None:
    with pytest.raises(UsageError, match=r"piecework sets piecework\.dev/run itself"):
        job_manifest(PLAN, JobOptions(pod=PodOptions(image="w"), labels={names.RUN: "x"}))
