"""What a real API server said, in words that tell what to do."""

import json
from pathlib import Path

import pytest

from piecework_producer.kubernetes_answers import Call, error_of, warning_texts
from piecework_producer.kubernetes_errors import (
    AlreadyExists,
    ClusterAway,
    ClusterError,
    Expired,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Refused,
)

RECORDINGS = Path(__file__).parent.parent / "data" / "kubernetes-recordings"
CALL = Call("create", "jobs.batch", "rec", "drain", "context lab (https://lab:6443)")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("job-create-again-409", AlreadyExists, "already exists"),
        ("job-create-forbidden-403", NotPermitted, "the verb create on the resource jobs (API group batch)"),
        ("job-create-quota-403", QuotaExceeded, "exceeded quota: q"),
        ("job-not-found-404", NotFound, "not found"),
        ("unauthorized-401", NotPermitted, "context lab (https://lab:6443) does not accept the credentials"),
        ("job-bad-name-422", Refused, 'metadata.name: Invalid value: "Bad_Name"'),
        ("job-unknown-field-strict-400", Refused, 'unknown field "spec.paralelism"'),
        ("job-onfailure-with-policy-422", Refused, 'only "Never" is supported'),
        ("job-restartpolicy-always-422", Refused, "restartPolicy: Required value"),
        ("job-change-completions-422", Refused, "field is immutable"),
        ("job-change-template-422", Refused, "field is immutable"),
        ("cronjob-bad-schedule-422", Refused, "spec.schedule"),
        ("cronjob-seed-shape-strict-400", Refused, 'unknown field "spec.completions"'),
        ("watch-too-old-410", Expired, "too old resource version"),
    ],
)
def test_recorded_refusals(name: str, kind: type[ClusterError], words: str) -> None:
    response = json.loads((RECORDINGS / f"{name}.json").read_text())["response"]
    body = response["body"].get("object", response["body"])
    error = error_of(body.get("code", response["status"]), json.dumps(body).encode(), CALL)
    assert type(error) is kind
    assert words in str(error)
    assert "cannot create jobs.batch drain in namespace rec" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b'{"message": "too many requests"}', ClusterAway),
        (503, b"<html>upstream", ClusterAway),
        (500, b"", ClusterAway),
        (404, b'{"message": "namespaces \\"x\\" not found"}', NotFound),
        (403, b'{"message": "jobs is forbidden: violates PodSecurity"}', Refused),
        (409, b'{"message": "changed", "reason": "Conflict"}', ClusterError),
        (418, b"", ClusterError),
    ],
)
def test_other_answers(status: int, body: bytes, kind: type[ClusterError]) -> None:
    assert isinstance(error_of(status, body, CALL), kind)


def test_recorded_warning() -> None:
    response = json.loads((RECORDINGS / "job-create-insecure-warning.json").read_text())["response"]
    (text,) = warning_texts(response["headers"]["Warning"])
    assert text.startswith('would violate PodSecurity "restricted:latest"')
    assert warning_texts(None) == []
