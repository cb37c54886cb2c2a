"""The mock answers as the recordings of a real control plane do: each recorded request is put to it again."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from tests.kubernetes_mock import KubernetesMock, recording

HTTP = urllib3.PoolManager(retries=False)


@pytest.fixture
def mock() -> Iterator[KubernetesMock]:
    with KubernetesMock() as server:
        yield server


def put(mock: KubernetesMock, request: dict[str, Any]) -> tuple[int, Any]:
    """Send a recorded request."""
    body = request["body"]
    headers = {"Content-Type": "application/json"} | (request.get("headers") or {})
    data = None if body is None else json.dumps(body)
    answer = HTTP.request(request["method"], mock.url + request["path"], body=data, headers=headers)
    return answer.status, json.loads(answer.data.splitlines()[0])


def nothing(_: KubernetesMock) -> None:
    return


def drain(mock: KubernetesMock) -> None:
    assert put(mock, recording("job-create")["request"])[0] == 201


def long(mock: KubernetesMock) -> None:
    assert put(mock, recording("job-create-long")["request"])[0] == 201


def forbidden(mock: KubernetesMock) -> None:
    mock.forbid("create", "jobs")


def quota(mock: KubernetesMock) -> None:
    mock.namespace = "rec2"
    counts = (f"{what}: count/jobs.batch=1" for what in ("requested", "used", "limited"))
    mock.refused_jobs = f"exceeded quota: q, {', '.join(counts)}"


def locked(mock: KubernetesMock) -> None:
    mock.token = "secret"


def compacted(mock: KubernetesMock) -> None:
    mock.compact()


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("job-create-again-409", drain),
        ("job-create-forbidden-403", forbidden),
        ("job-create-quota-403", quota),
        ("job-not-found-404", nothing),
        ("unauthorized-401", locked),
        ("job-bad-name-422", nothing),
        ("job-unknown-field-strict-400", nothing),
        ("job-onfailure-with-policy-422", nothing),
        ("job-restartpolicy-always-422", nothing),
        ("job-change-completions-422", drain),
        ("cronjob-seed-shape-strict-400", nothing),
        ("watch-too-old-410", compacted),
    ],
)
def test_refusals(mock: KubernetesMock, name: str, before: Callable[[KubernetesMock], None]) -> None:
    before(mock)
    recorded = recording(name)
    status, body = put(mock, recorded["request"])
    expected = recorded["response"]
    assert status == expected["status"]
    ours, theirs = body.get("object", body), expected["body"].get("object", expected["body"])
    for key in ("kind", "status", "reason", "code", "message"):
        assert ours.get(key) == theirs.get(key), key


def shape(value: Any, expected: Any, path: str = "") -> None:
    """Everything that the real answer has is in ours, but for what is made anew each time."""
    if path.rpartition(".")[2] in (
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "status",
    ):
        return
    if isinstance(expected, dict):
        for key, each in expected.items():
            if "controller-uid" in key or key in _DEFAULTED:
                continue
            assert key in value, f"{path}.{key}"
            shape(value[key], each, f"{path}.{key}")
    elif isinstance(expected, list) and expected and isinstance(expected[0], dict):
        for ours, theirs in zip(value, expected, strict=True):
            shape(ours, theirs, path)
    else:
        assert value == expected, path


_DEFAULTED = {
    "generation", "deletionGracePeriodSeconds", "selector", "manualSelector", "terminationMessagePath",
    "terminationMessagePolicy", "imagePullPolicy", "resources", "terminationGracePeriodSeconds", "dnsPolicy",
    "schedulerName", "onPodConditions", "uncountedTerminatedPods",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("job-create", nothing),
        ("fixed-count-job-create", nothing),
        ("job-create-deadline", nothing),
        ("cronjob-create", nothing),
        ("job-scale-parallelism", drain),
        ("job-suspend", long),
        ("job-delete-foreground", long),
    ],
)
def test_answers(mock: KubernetesMock, name: str, before: Callable[[KubernetesMock], None]) -> None:
    before(mock)
    recorded = recording(name)
    if name == "job-delete-foreground":
        mock.controller.stubborn = True
    status, body = put(mock, recorded["request"])
    assert status == recorded["response"]["status"]
    shape(body, recorded["response"]["body"])
