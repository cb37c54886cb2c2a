"""One line for each way in which pods do not start or end a Job; the first ones from recordings of a real
cluster.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from piecework_producer.kubernetes_objects import Event, Job, Meta, Pod
from piecework_producer.kubernetes_reasons import last_words, why_failed, why_not_running, why_pod_waits
from piecework_producer.kubernetes_watcher import Observation
from piecework_producer.launcher import LaunchState

RECORDINGS = Path(__file__).parent.parent / "data" / "kubernetes-recordings"


def recorded(name: str) -> Any:
    return json.loads((RECORDINGS / f"{name}.json").read_text())["response"]["body"]


def job_of(body: Any) -> Job:
    return msgspec.convert(body, Job, strict=False)


def pods_of(name: str) -> list[Pod]:
    return msgspec.convert(recorded(name)["items"], list[Pod], strict=False)


def pod(state: dict[str, Any], **more: Any) -> Pod:
    status = {
        "phase": "Pending",
        "containerStatuses": [{"name": "worker", "image": "reg/w:1", "state": state, **more}],
    }
    return msgspec.convert({"metadata": {"name": "p-1"}, "status": status}, Pod)


def waiting(reason: str, message: str = "") -> Pod:
    return pod({"waiting": {"reason": reason, "message": message}})


def test_all_recorded_objects_are_read() -> None:
    seen = 0
    for file in sorted(RECORDINGS.glob("*.json")):
        recording = json.loads(file.read_text())
        bodies = [
            recording.get("response", {}).get("body"),
            *(each["event"]["object"] for each in recording.get("events", [])),
        ]
        for body in filter(None, bodies):
            kind = {"Job": Job, "Pod": Pod}.get(body.get("kind"))
            if kind is not None:
                raw = json.dumps(body).encode()
                assert msgspec.json.decode(raw, type=kind).metadata.name == body["metadata"]["name"]
                seen += 1
    assert seen > 50


def test_unschedulable() -> None:
    line = why_pod_waits(pods_of("pods-unschedulable")[0])
    assert line.startswith("pod huge-k544f cannot be scheduled: 0/2 nodes are available: 2 Insufficient cpu")
    assert "--request" in line


@pytest.mark.parametrize(
    ("job", "events", "expected"),
    [
        ("job-insecure-status", "events-insecure", 'violates PodSecurity "restricted:latest"'),
        ("job-within-quota", "events-pod-quota", "exceeded quota: q, requested: pods=1"),
    ],
)
def test_pods_that_admission_refuses(job: str, events: str, expected: str) -> None:
    body = recorded(job)
    told = recorded(events)["items"]
    uid = told[0]["involvedObject"]["uid"]
    body["metadata"]["uid"] = uid
    line = why_not_running(job_of(body), [], msgspec.convert(told, list[Event], strict=False))
    assert line.startswith("no pod can be created: pods ")
    assert expected in line
    assert "\n" not in line


def test_a_refusal_that_is_over_is_no_reason() -> None:
    told = msgspec.convert(recorded("events-pod-quota")["items"], list[Event], strict=False)
    body = recorded("job-within-quota")
    body["metadata"]["uid"] = told[0].involved_object.uid
    created = msgspec.structs.replace(
        told[0],
        reason="SuccessfulCreate",
        metadata=msgspec.structs.replace(told[0].metadata, resource_version="9999"),
    )
    assert why_not_running(job_of(body), [], [*told, created]) == ""


def test_a_failure_by_exit_code() -> None:
    reason, code = why_failed(job_of(recorded("job-failed-78")), pods_of("pod-failed-78"))
    assert code == 78
    assert reason == "pod cfg-59k7z: exit code 78 (cannot work)"
    launch = Observation(job_of(recorded("job-failed-78"))).launch()
    assert (launch.state, launch.exit_code, launch.failed) == (LaunchState.FAILED, 78, 2)
    assert launch.reason == "pod cfg-59k7z ended with exit code 78 (cannot work)"


def test_a_deadline() -> None:
    reason, code = why_failed(job_of(recorded("job-deadline-exceeded")), [])
    assert "activeDeadlineSeconds" in reason
    assert code is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "reg/w:1"'),
            "cannot pull image reg/w:1: Back-off",
        ),
        (waiting("ErrImagePull", "rpc error: not found"), "--image-pull-secret"),
        (waiting("InvalidImageName"), "cannot pull image reg/w:1: InvalidImageName"),
        (
            waiting("CreateContainerConfigError", 'secret "piecework-redis" not found'),
            "kubectl create secret generic piecework-redis --from-literal=url=",
        ),
        (
            waiting("CreateContainerConfigError", "couldn't find key url in Secret default/piecework-redis"),
            "Add the key url to the Secret piecework-redis",
        ),
        (waiting("CreateContainerError", "no command specified"), "entry point"),
        (waiting("ContainerCreating"), ""),
        (pod({"running": {}}), ""),
        (
            pod(
                {"waiting": {"reason": "CrashLoopBackOff"}},
                lastState={"terminated": {"exitCode": 1, "message": "boom"}},
            ),
            "ends again and again: boom",
        ),
    ],
)
def test_why_a_pod_waits(given: Pod, expected: str) -> None:
    line = why_pod_waits(given)
    assert expected in line
    assert bool(line) == bool(expected)


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (
            {"exitCode": 78, "message": "log\npiecework-worker: exit 78 (cannot_work): no such module"},
            "no such module",
        ),
        ({"exitCode": 137, "reason": "OOMKilled"}, "more memory than its limit"),
        ({"exitCode": 139}, "exit code 139 (signal 11)"),
        ({"exitCode": 127}, "command not found"),
        ({"exitCode": 75}, "exit code 75 (handed back)"),
    ],
)
def test_last_words(ended: dict[str, Any], expected: str) -> None:
    assert expected in last_words(pod({"terminated": ended}))


def test_no_last_words() -> None:
    assert last_words(pod({"terminated": {"exitCode": 0}})) == ""


def test_a_volume_that_is_not_there() -> None:
    given = msgspec.structs.replace(waiting("ContainerCreating"), metadata=Meta(name="p-1", uid="u"))
    told = {
        "involvedObject": {"kind": "Pod", "uid": "u"},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "code" : configmap "x" not found',
    }
    events = msgspec.convert([told, told | {"involvedObject": {"uid": "other"}}], list[Event])
    assert 'pod p-1 is not made: FailedMount: MountVolume.SetUp failed for volume "code"' in why_pod_waits(
        given, events
    )
    assert why_pod_waits(given, events[1:]) == ""


def test_evicted_pods_say_so() -> None:
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    assert "low on resource" in last_words(msgspec.convert({"metadata": {"name": "p"}, "status": evicted}, Pod))


def test_a_queue_is_a_reason_and_a_pause_is_none() -> None:
    body = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "batch"}}, "spec": {"suspend": True}}
    assert "Kueue's queue batch" in why_not_running(msgspec.convert(body, Job), [], [])
    assert why_not_running(msgspec.convert({"spec": {"suspend": True}}, Job), [], []) == ""


def test_long_reasons_are_cut_to_a_line() -> None:
    line = why_pod_waits(waiting("ErrImagePull", "x\n" * 2000))
    assert len(line) < 700
    assert "\n" not in line


@pytest.mark.parametrize(
    ("watch", "states"),
    [
        ("watch-jobs-drain", ["active", "succeeded"]),
        ("watch-job-failjob-78", ["active", "failed"]),
        ("watch-job-suspend-resume", ["active", "suspended", "active"]),
    ],
)
def test_recorded_watches_go_through_these_states(watch: str, states: list[str]) -> None:
    events = json.loads((RECORDINGS / f"{watch}.json").read_text())["events"]
    seen: list[str] = []
    for each in events:
        state = str(Observation(job_of(each["event"]["object"])).launch().state)
        if seen[-1:] != [state]:
            seen.append(state)
    assert seen == states
