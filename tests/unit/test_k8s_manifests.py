"""k8s/ and every manifest that the code makes, as `make k8s-validate`; and its checks find what is wrong."""

import copy
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import agreement, validate
from k8s.generated import LITTLE, PLAN, generated
from k8s.manifests import of_kind, selects, title
from k8s.pod_security import restricted_problems
from k8s.rendered import HERE, all_rendered, rendered
from k8s.schemas import VERSIONS, format_problems, schema_problems
from piecework_producer.kubernetes_job import JobOptions, RedisSecret, job_manifest
from piecework_producer.kubernetes_objects import Manifest, part

Change = Callable[[Any], object]
BASE = all_rendered()["base"]
GENERATED = dict(generated())
JOB = GENERATED["a run's Job, as little as can be"]


def test_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    code = validate.main()
    assert code == 0, capsys.readouterr().out
    assert "fit Kubernetes 1.35, 1.36, 1.37" in capsys.readouterr().out


def test_problems_are_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "all_problems", lambda: iter(["this", "that"]))
    assert validate.main() == 1
    assert capsys.readouterr().out.split("\n") == ["this", "that", "2 problems", ""]


def test_every_kind_that_the_code_makes_is_checked() -> None:
    kinds = {str(manifest["kind"]) for manifest in GENERATED.values()}
    assert kinds == {"Job", "CronJob", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"}


def test_the_overlays() -> None:
    folders = {name: {title(each) for each in manifests} for name, manifests in all_rendered().items()}
    assert "poddisruptionbudget/piecework-redis" in folders["base"]
    assert "poddisruptionbudget/piecework-redis" not in folders["overlays/dev"]
    (dev,) = of_kind(all_rendered()["overlays/dev"], "StatefulSet")
    assert "volumeClaimTemplates" not in part(dev, "spec")
    external = all_rendered()["overlays/external-redis"]
    assert not [title(each) for each in external if each["kind"] in ("StatefulSet", "Service", "NetworkPolicy")]
    for name in (RedisSecret().name, agreement.PRODUCER_SECRET):
        assert agreement.secret_data(external, name).keys() == {"url"}
    for manifests in all_rendered().values():
        for namespace in of_kind(manifests, "Namespace"):
            labels = part(namespace, "metadata", "labels")
            assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_new_passwords(tmp_path: Path) -> None:
    shutil.copytree(HERE, tmp_path / "k8s", ignore=shutil.ignore_patterns("local", "__pycache__"))
    script = ["/bin/sh", str(tmp_path / "k8s" / "new-passwords.sh")]
    assert subprocess.run([*script, "nonsense"], capture_output=True).returncode == 2
    subprocess.run([*script, "dev"], check=True, capture_output=True)
    local = tmp_path / "k8s" / "overlays" / "local"
    manifests = rendered(local)
    secrets = [agreement.secret_data(manifests, name) for name in (RedisSecret().name, agreement.PRODUCER_SECRET)]
    passwords = {secret["password"] for secret in secrets}
    assert len(passwords) == 2
    assert all(len(password) == 48 for password in passwords)
    assert secrets[0]["url"].startswith("redis://worker@")
    assert list(agreement.inner_problems(manifests)) == []
    assert local.stat().st_mode & 0o077 == 0
    again = subprocess.run(script, capture_output=True, text=True)
    assert again.returncode == 1
    assert "exists" in again.stderr
    assert rendered(local) == manifests


# --- the checks themselves


def changed(manifest: Manifest, change: Change) -> Manifest:
    copied = copy.deepcopy(manifest)
    change(copied)
    return copied


def pod_spec(manifest: Any) -> Any:
    return manifest["spec"]["template"]["spec"]


def container(manifest: Any) -> Any:
    return pod_spec(manifest)["containers"][0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(parallelisms=3),
        lambda job: job["spec"].update(parallelism="3"),
        lambda job: container(job).update(readOnlyRootFilesystem=True),
        lambda job: job["spec"].pop("template"),
        lambda job: job.update(kind="Jobs"),
    ],
)
def test_schemas_find(change: Change, version: str) -> None:
    assert len(schema_problems(changed(JOB, change), version)) == 1


def test_the_cronjob_with_fields_one_level_too_high() -> None:
    """As people write it: completions, parallelism and template belong to jobTemplate.spec."""
    cron_job = GENERATED["a schedule, its CronJob"]

    def lift(manifest: Any) -> None:
        manifest["spec"] |= manifest["spec"].pop("jobTemplate")["spec"]

    assert schema_problems(cron_job, VERSIONS[-1]) == []
    assert schema_problems(changed(cron_job, lift), VERSIONS[-1])


def test_a_version_without_schemas_is_a_problem() -> None:
    assert "no schemas" in schema_problems(JOB, "9.9")[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["metadata"].update(name="Upper"),
        lambda job: job["metadata"].update(name="a" * 64),
        lambda job: job["metadata"]["labels"].update(a="b c"),
        lambda job: job["metadata"]["annotations"].update(a=1),
        lambda job: container(job)["resources"]["requests"].update(memory="1GB"),
    ],
)
def test_formats_find(change: Change) -> None:
    assert len(format_problems(changed(JOB, change))) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda job: pod_spec(job).update(hostNetwork=True), "hostNetwork"),
        (lambda job: pod_spec(job)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
        (lambda job: pod_spec(job)["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
        (lambda job: pod_spec(job)["securityContext"].update(runAsUser=0), "root"),
        (lambda job: container(job)["securityContext"].update(runAsUser=0), "root"),
        (lambda job: pod_spec(job)["securityContext"].pop("seccompProfile"), "seccomp"),
        (lambda job: container(job)["securityContext"].pop("capabilities"), "capabilities"),
        (lambda job: container(job)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]), "adds"),
        (lambda job: container(job)["securityContext"].update(privileged=True), "privileged"),
        (lambda job: container(job)["securityContext"].pop("allowPrivilegeEscalation"), "Escalation"),
        (lambda job: container(job)["securityContext"].pop("readOnlyRootFilesystem"), "read-only"),
        (lambda job: container(job)["securityContext"].update(procMount="Unmasked"), "procMount"),
        (lambda job: container(job).update(ports=[{"containerPort": 1, "hostPort": 1}]), "port of the node"),
        (lambda job: container(job).update(livenessProbe={"tcpSocket": {"host": "h", "port": 1}}), "host"),
        (lambda job: container(job).update(image="busybox"), "tag"),
        (lambda job: container(job).update(image="r:5000/busybox"), "tag"),
        (lambda job: container(job).update(image="busybox:latest"), "tag"),
        (lambda job: container(job).pop("resources"), "requests no"),
        (lambda job: pod_spec(job).update(initContainers=[{"name": "i", "image": "a:1"}]), "container i"),
        (lambda job: pod_spec(job).update(automountServiceAccountToken=True), "Token"),
        (lambda job: pod_spec(job).pop("enableServiceLinks"), "enableServiceLinks"),
        (
            lambda job: pod_spec(job)["securityContext"].update(sysctls=[{"name": "vm.swappiness", "value": "0"}]),
            "sysctl",
        ),
        (
            lambda job: pod_spec(job)["securityContext"].update(appArmorProfile={"type": "Unconfined"}),
            "appArmorProfile",
        ),
        (
            lambda job: container(job)["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
            "seLinuxOptions",
        ),
    ],
)
def test_pod_security_finds(change: Change, said: str) -> None:
    found = restricted_problems(changed(JOB, change))
    assert found
    assert all(said in problem for problem in found)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (
            "Service",
            lambda it: it["spec"]["selector"].update({"app.kubernetes.io/name": "redis"}),
            "selects 0",
        ),
        ("Service", lambda it: it["spec"]["ports"][0].update(targetPort=6380), "port 6380"),
        ("NetworkPolicy", lambda it: it["spec"].update(podSelector={}), "every pod"),
        ("NetworkPolicy", lambda it: it["spec"]["ingress"][0]["ports"][0].update(port=1), "names the port 1"),
        ("PodDisruptionBudget", lambda it: it["spec"]["selector"]["matchLabels"].update(a="b"), "selects 0"),
        ("StatefulSet", lambda it: it["spec"].update(serviceName="other"), "Service other"),
        ("StatefulSet", lambda it: pod_spec(it)["volumes"].pop(), "is no volume"),
        ("StatefulSet", lambda it: pod_spec(it)["volumes"][-1]["secret"].update(secretName="x"), "Secret x"),
        ("StatefulSet", lambda it: it["metadata"].update(namespace="other"), "several namespaces"),
        ("RoleBinding", lambda it: it["subjects"][0].update(name="other"), "ServiceAccount other"),
        ("Secret", lambda it: it["data"].pop("password"), "is not there"),
    ],
)
def test_disagreements_within_a_folder_are_found(kind: str, change: Change, said: str) -> None:
    manifests = [copy.deepcopy(each) for each in BASE]
    change(of_kind(manifests, kind)[0])
    problems = list(agreement.inner_problems(manifests))
    assert problems
    assert all(said in problem for problem in problems)


ACL = (HERE / "base" / "redis" / "users.acl").read_text()


@pytest.mark.parametrize(
    ("url", "password", "said"),
    [
        ("redis://worker@elsewhere:6379/0", "change-me", "no Service"),
        ("redis://worker@piecework-redis:6380/0", "change-me", "no Service"),
        ("redis://producer@piecework-redis:6379/0", "change-me", "user is producer"),
        ("redis://worker@piecework-redis:6379/0", "hunter2", "example passwords"),
        ("redis://worker:hunter2@piecework-redis:6379/0", "change-me", "example passwords"),
    ],
)
def test_a_secret_that_fits_nothing_is_found(
    monkeypatch: pytest.MonkeyPatch, url: str, password: str, said: str
) -> None:
    good, data = agreement.secret_data, {"url": url, "password": password}
    monkeypatch.setattr(
        agreement,
        "secret_data",
        lambda manifests, name: data if name == RedisSecret().name else good(manifests, name),
    )
    (problem,) = agreement.redis_problems(BASE, ACL)
    assert said in problem


def test_an_acl_of_another_contract_version_is_found() -> None:
    (problem,) = agreement.redis_problems(BASE, ACL.replace("~piecework:1:", "~piecework:2:"))
    assert "contract version" in problem


def test_too_much_memory_is_found() -> None:
    manifests = [copy.deepcopy(each) for each in BASE]
    (server,) = of_kind(manifests, "StatefulSet")
    container(server)["env"][0]["value"] = "1900mb"
    (problem,) = agreement.redis_problems(manifests, ACL)
    assert "1900mb" in problem


def test_a_network_policy_that_is_too_open_or_too_narrow_is_found() -> None:
    (policy,) = of_kind(BASE, "NetworkPolicy")
    assert list(agreement.network_problems(policy)) == []
    opened = changed(policy, lambda it: it["spec"]["ingress"][0].update({"from": [{"podSelector": {}}]}))
    assert len(list(agreement.network_problems(opened))) == 3
    closed = changed(policy, lambda it: it["spec"]["ingress"][0].update({"from": []}))
    assert len(list(agreement.network_problems(closed))) == 2


def test_rights_that_differ_from_the_code_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    used = agreement.rights_used()
    assert ("batch", "jobs", "create") in used
    assert ("rbac.authorization.k8s.io", "roles", "delete") in used
    assert ("", "pods/portforward", "create") in used
    assert not [right for right in used if right[1] == "secrets"]
    monkeypatch.setattr(validate, "rights_used", lambda: used - {("batch", "jobs", "watch")} | {("", "nodes", "list")})
    problems = list(validate.agreement_problems())
    assert "Role piecework-people: the code never asks for ('batch', 'jobs', 'watch')" in problems
    assert "Role piecework-people: the code asks for ('', 'nodes', 'list')" in problems


def test_label_selectors() -> None:
    labels: Manifest = {"a": "1", "b": "2"}
    expressions: Any = [
        {"key": "a", "operator": "In", "values": ["1", "3"]},
        {"key": "b", "operator": "NotIn", "values": ["1"]},
        {"key": "b", "operator": "Exists"},
        {"key": "c", "operator": "DoesNotExist"},
    ]
    assert selects({"matchLabels": {"a": "1"}, "matchExpressions": expressions}, labels)
    for index in range(len(expressions)):
        assert not selects({"matchExpressions": [expressions[index]]}, {"a": "2", "b": "1", "c": "3"}) or index == 2
    assert not selects({"matchLabels": {"a": "2"}}, labels)


DOCUMENT = (HERE.parent / "docs" / "kubernetes.md").read_text()


def test_the_patch_in_the_documentation() -> None:
    (text_of_patch,) = re.findall(r"```yaml\n# patch.yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    manifest = job_manifest(PLAN, JobOptions(pod=LITTLE, patch=yaml.safe_load(text_of_patch)))
    assert list(validate.problems_of(manifest)) == []
    assert {volume["name"] for volume in pod_spec(manifest)["volumes"]} == {"tmp", "models"}


def test_what_the_documentation_names_is_there() -> None:
    for path in set(re.findall(r"\bk8s/[\w./-]*\w", DOCUMENT)) - {"k8s/overlays/local"}:
        assert (HERE.parent / path).exists(), path
    there = {title(each) for each in BASE} | {"pod/piecework-redis-0"}
    for kind, name in re.findall(r"\b(statefulset|service|secret)[/ ](piecework-[\w-]+)", DOCUMENT):
        assert f"{kind}/{name}" in there
