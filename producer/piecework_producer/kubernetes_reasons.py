"""Why a Job's pods do not start, or have ended it: one line, with what to do about it.

It reads what kubelet, scheduler, Job controller and admission leave in pods, in the Job's conditions and in
its events. Pure functions: what they are given is all that they know.
"""

import re
from collections.abc import Iterable, Sequence

from piecework.states import WorkerExit
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_objects import ContainerStatus, Event, Job, Pod, Terminated

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_CONFIG = ("CreateContainerConfigError",)
_CREATING = ("ContainerCreating", "PodInitializing")
_START = ("CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun")
_MOST = 500


def why_not_running(job: Job, pods: Sequence[Pod], events: Iterable[Event]) -> str:
    """Why a pod of an active Job cannot start; "" if nothing is known to be wrong."""
    if job.spec.suspend:
        queue = job.metadata.label(names.KUEUE_QUEUE)
        return f"waits for Kueue's queue {queue} to admit it" if queue else ""
    events = list(events)
    for pod in pods:
        reason = why_pod_waits(pod, events)
        if reason:
            return reason
    return _why_not_created(job, pods, events)


def why_pod_waits(pod: Pod, events: Iterable[Event] = ()) -> str:
    """Why this pod does not start; "" if it runs, has ended, or is just on its way."""
    if pod.status.phase not in ("Pending", "Running"):
        return ""
    name = pod.metadata.name
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        if scheduled.reason == "SchedulingGated":
            return f"pod {name} is held back by a scheduling gate"
        return _line(
            f"pod {name} cannot be scheduled: {scheduled.message}",
            "Ask for less (--request), or for nodes that exist (--node-selector, --toleration)",
        )
    for status in _containers(pod):
        waiting = status.state.waiting
        if waiting is None:
            continue
        said = waiting.message or waiting.reason
        if waiting.reason in _IMAGE:
            image = status.image or next((each.image for each in pod.spec.containers), "")
            return _line(
                f"pod {name} cannot pull image {image}: {said}",
                "See that the name is right and the node may pull it (--image, --image-pull-secret)",
            )
        if waiting.reason in _CONFIG:
            return _line(f"pod {name} cannot be configured: {said}", _remedy_for_missing(said))
        if waiting.reason in _START:
            return _line(f"pod {name} cannot start: {said}", "See the image's entry point")
        if waiting.reason in _CREATING:
            return _why_not_made(pod, events)
        if waiting.reason == "CrashLoopBackOff":
            last = status.last_state.terminated
            ended = f": {_ended(last)}" if last else ""
            return _line(f"pod {name} ends again and again{ended}", "See its log: piecework logs")
    return ""


def why_failed(job: Job, pods: Sequence[Pod]) -> tuple[str, int | None]:
    """Why the Job has failed, and the exit code that decided it, if a single one did."""
    failed = job.condition("Failed") or job.condition("FailureTarget")
    if failed is None:
        return "", None
    if failed.reason == "PodFailurePolicy":
        found = re.search(r"for pod \S*?/?([^/\s]+) failed with exit code (\d+)", failed.message)
        if found:
            name, code = found[1], int(found[2])
            words = next((last_words(pod) for pod in pods if pod.metadata.name == name), "")
            words = words or next((last_words(pod) for pod in pods if _exit_code(pod) == code), "")
            return _line(words or f"pod {name} ended with exit code {code}{_meaning(code)}"), code
    if failed.reason == "DeadlineExceeded":
        return "the Job was active longer than its activeDeadlineSeconds; submit again with more", None
    if failed.reason == "BackoffLimitExceeded":
        words = next((text for text in map(last_words, pods) if text), "")
        return _line(f"too many pods failed (backoffLimit {job.spec.backoff_limit})", words), None
    return _line(f"{failed.reason}: {failed.message}"), None


def last_words(pod: Pod) -> str:
    """What a pod that failed left behind: its termination message, or why it was ended. "" if it has not
    failed.
    """
    for status in _containers(pod):
        ended = status.state.terminated or status.last_state.terminated
        if ended is not None and (ended.exit_code != 0 or ended.reason == "OOMKilled"):
            return f"pod {pod.metadata.name}: {_ended(ended)}"
    if pod.status.phase == "Failed":
        disrupted = pod.condition("DisruptionTarget")
        text = pod.status.message or pod.status.reason or (disrupted.message if disrupted else "")
        return f"pod {pod.metadata.name}: {text}" if text else ""
    return ""


def _ended(ended: Terminated) -> str:
    if ended.reason == "OOMKilled":
        return "killed for using more memory than its limit; raise it (--limit memory=…)"
    # The last line of the message is the verdict; lines before it are log.
    said = ended.message.strip().rpartition("\n")[2]
    return said or f"exit code {ended.exit_code}{_meaning(ended.exit_code)}"


def _meaning(code: int) -> str:
    if code in (WorkerExit.RUN_FAILED, WorkerExit.CANNOT_WORK, WorkerExit.HANDED_BACK, WorkerExit.BUG):
        return f" ({WorkerExit(code).name.lower().replace('_', ' ')})"
    if code > 128:
        return f" (signal {code - 128})"
    return " (command not found)" if code == 127 else ""


def _why_not_made(pod: Pod, events: Iterable[Event]) -> str:
    """Volumes and networks that the node waits for are told in the pod's events only."""
    own = [
        each
        for each in events
        if each.involved_object.uid == pod.metadata.uid and each.type == "Warning" and pod.metadata.uid
    ]
    if not own:
        return ""
    said = max(own, key=_version)
    return _line(f"pod {pod.metadata.name} is not made: {said.reason}: {said.message}", "See what it names")


def _why_not_created(job: Job, pods: Sequence[Pod], events: Iterable[Event]) -> str:
    """From the events of the Job itself: pods that admission refuses are never there to be looked at."""
    own = [each for each in events if each.involved_object.uid == job.metadata.uid]
    # Events outlive what they tell of: only one that came after the last success counts.
    made = [_version(each) for each in own if each.reason == "SuccessfulCreate"]
    refused = [each for each in own if each.reason == "FailedCreate" and _version(each) > max(made, default=0)]
    alive = [pod for pod in pods if pod.status.phase in ("Pending", "Running")]
    if not refused or len(alive) >= job.spec.parallelism:
        return ""
    said = max(refused, key=_version).message.removeprefix("Error creating: ")
    return _line(f"no pod can be created: {said}", _remedy_for_refused(said))


def _remedy_for_refused(said: str) -> str:
    if "exceeded quota" in said:
        return "Ask for less, or have the ResourceQuota raised; running workers go on"
    if "failed quota" in said:
        return "The quota wants them named: give --request and --limit"
    if "violates PodSecurity" in said:
        return "See what --patch changes: pods as piecework makes them meet the restricted standard"
    if "serviceaccount" in said:
        return "Create the ServiceAccount, or name another (--service-account)"
    if "PriorityClass" in said:
        return "Create the PriorityClass, or name another (--priority-class)"
    return "An admission rule of the cluster refuses them; change what it names"


def _remedy_for_missing(said: str) -> str:
    missing = re.search(r'(secret|configmap) "([^"]+)" not found', said)
    if missing and missing[1] == "secret":
        return (
            f"Create it: kubectl create secret generic {missing[2]} "
            "--from-literal=url=redis://… --from-literal=password=…"
        )
    key = re.search(r"couldn't find key (\S+) in Secret \S*?([^/\s]+)$", said)
    return f"Add the key {key[1]} to the Secret {key[2]}" if key else "Create what is missing"


def _version(event: Event) -> int:
    """Order of events; their times have no more than seconds."""
    version = event.metadata.resource_version
    return int(version) if version.isdigit() else 0


def _containers(pod: Pod) -> list[ContainerStatus]:
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


def _exit_code(pod: Pod) -> int | None:
    ended = (each.state.terminated for each in _containers(pod))
    return next((each.exit_code for each in ended if each is not None), None)


def _line(problem: str, remedy: str = "") -> str:
    text = " ".join(problem.split())
    text = text if len(text) <= _MOST else f"{text[:_MOST]}…"
    return f"{text.rstrip('.')}. {remedy}" if remedy else text
