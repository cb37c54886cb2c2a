"""The run's Job: `parallelism` without `completions`, each pod one worker that drains the run.

Its podFailurePolicy is the table of `piecework.states.WorkerExit`: what was handed back or disrupted is
replaced and never counted, what can never work ends the Job at once, and only bugs count against the
`backoffLimit`, which grows with the number of workers. Redis comes by reference to a Secret, never in the
Job's plain text.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from piecework.errors import UsageError
from piecework.states import WorkerExit
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_code import CodeBundle, mounted
from piecework_producer.kubernetes_objects import Manifest, part
from piecework_producer.kubernetes_patch import merged
from piecework_producer.kubernetes_pod import PodOptions, pod_template
from piecework_producer.launcher import WorkerPlan

CONTAINER = "worker"
TLS_PATH = "/piecework/redis-tls"
_SPARE_SECONDS = 10
"""Time between the end of the worker's own grace and SIGKILL."""
_CHANGEABLE = ("parallelism", "suspend", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
"""Fields of a Job's spec that may be changed while it runs, and so are no part of its fingerprint."""


@dataclass(frozen=True, kw_only=True)
class RedisSecret:
    """The Secret from which pods take the server's URL and password, and that of the certificates."""

    name: str = "piecework-redis"
    url_key: str = "url"
    password_key: str = "password"  # noqa: S105 - a key of the Secret
    """The password may be missing in the Secret, if the server has none or the URL holds it."""
    tls: str | None = None
    """Another Secret, with ca.crt and, for a client certificate, tls.crt and tls.key: it is mounted."""

    def env(self) -> list[Manifest]:
        """PIECEWORK_REDIS and PIECEWORK_REDIS_PASSWORD by reference."""

        def variable(name: str, key: str, **more: object) -> Manifest:
            return {"name": name, "valueFrom": {"secretKeyRef": {"name": self.name, "key": key, **more}}}

        plain: list[Manifest] = [{"name": "PIECEWORK_REDIS_TLS_DIR", "value": TLS_PATH}] if self.tls else []
        return [
            variable("PIECEWORK_REDIS", self.url_key),
            variable("PIECEWORK_REDIS_PASSWORD", self.password_key, optional=True),
            *plain,
        ]

    def mounted(self, template: Manifest, container: str) -> Manifest:
        """A pod template whose container of this name has the certificates, if there are any."""
        if self.tls is None:
            return template
        mount: Manifest = {"name": "redis-tls", "mountPath": TLS_PATH, "readOnly": True}
        # The pod's group may read them (fsGroup), and nobody else.
        volume: Manifest = {"name": "redis-tls", "secret": {"secretName": self.tls, "defaultMode": 0o440}}
        return merged(
            template, {"spec": {"containers": [{"name": container, "volumeMounts": [mount]}], "volumes": [volume]}}
        )


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What a person may choose about the Job. Whatever is not here goes through the patch."""

    pod: PodOptions
    redis: RedisSecret = RedisSecret()
    backoff_limit: int | None = None
    """Workers that may die of bugs; None: 6, and 2 more for each worker."""
    active_deadline_seconds: int | None = None
    """None: no limit. It counts anew after a suspension."""
    ttl_seconds_after_finished: int | None = 7 * 24 * 3600
    """None: the Job stays until it is deleted."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    """Kueue's LocalQueue: the Job starts suspended, and Kueue starts it when there is room."""
    min_parallelism: int | None = None
    """Kueue may start it with as few workers."""
    schedule: str | None = None
    """Name of the schedule that the run belongs to."""
    scheduled_time: datetime | None = None
    """Its scheduled time, which handlers find in PIECEWORK_SCHEDULED_TIME (ISO 8601, UTC)."""
    patch: Manifest | None = None
    """A strategic merge patch, applied last."""


def backoff_limit(parallelism: int) -> int:
    """How many workers may die of bugs before the Job fails; Kubernetes' default of 6 is for one pod."""
    return 6 + 2 * parallelism


def job_manifest(plan: WorkerPlan, options: JobOptions, code: CodeBundle | None = None, identity: str = "") -> Manifest:
    """The Job of a run. Raises `UsageError`.

    `identity` tells this run from an earlier one of the same id: when the ledger opened it, say.
    """
    own = names.labels(plan.run, "worker")
    own |= {names.SCHEDULE: options.schedule} if options.schedule else {}
    queue = queueing(options.queue, options.min_parallelism, plan.parallelism)
    template = pod_template(
        options.pod,
        container=CONTAINER,
        args=[plan.run, *plan.arguments],
        labels=own,
        spread_by={names.RUN: plan.run},
        env=[
            *options.redis.env(),
            {"name": "PIECEWORK_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *_scheduled(options.scheduled_time),
        ],
        restart_policy="Never",
        grace_seconds=math.ceil(plan.grace_seconds) + _SPARE_SECONDS,
    )
    template = options.redis.mounted(template, CONTAINER)
    if code is not None:
        template = mounted(template, code, CONTAINER)
    limit = options.backoff_limit
    spec: Manifest = {
        "parallelism": plan.parallelism,
        "backoffLimit": backoff_limit(plan.parallelism) if limit is None else limit,
        "podFailurePolicy": {"rules": _failure_rules()},
        "podReplacementPolicy": "Failed",
        "template": template,
    }
    if options.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = options.active_deadline_seconds
    if options.ttl_seconds_after_finished is not None:
        spec["ttlSecondsAfterFinished"] = options.ttl_seconds_after_finished
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(names.job_name(plan.run), options.labels, own, options.annotations),
        "spec": spec,
    }
    manifest = finished_manifest(merged(manifest, queue), plan.run, options.patch, identity)
    spec, template_spec = part(manifest, "spec"), part(manifest, "spec", "template", "spec")
    if "completions" in spec:
        raise UsageError(
            "--patch sets spec.completions: the workers of a run share its items, and the Job has to go on "
            "until "
            "the run is over; leave completions out"
        )
    if template_spec.get("restartPolicy") != "Never":
        raise UsageError("--patch sets restartPolicy: a podFailurePolicy works with Never only; leave it out")
    return manifest


def queueing(queue: str | None, min_parallelism: int | None, parallelism: int) -> Manifest:
    """What Kueue wants of a Job, as a patch: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/."""
    if min_parallelism is not None and queue is None:
        raise UsageError("--min-parallelism goes with --queue: only Kueue starts a Job with fewer workers")
    if min_parallelism is not None and not 1 <= min_parallelism <= parallelism:
        raise UsageError(f"--min-parallelism {min_parallelism} is not from 1 to the parallelism, {parallelism}")
    if queue is None:
        return {}
    annotations = {names.KUEUE_MIN_PARALLELISM: str(min_parallelism)} if min_parallelism is not None else {}
    return {
        "metadata": {"labels": {names.KUEUE_QUEUE: queue}, "annotations": annotations},
        "spec": {"suspend": True},
    }


def metadata(name: str, given: Mapping[str, str], own: Mapping[str, str], annotations: Mapping[str, str]) -> Manifest:
    """An object's metadata with the user's labels beside piecework's own. Raises `UsageError` if they
    clash.
    """
    names.reserved(dict(given), "--label")
    names.reserved(dict(annotations), "--annotation")
    return {
        "name": name,
        "labels": {**given, **own, **names.version_label()},
        "annotations": dict(annotations),
    }


def finished_manifest(manifest: Manifest, run: str, patch: Manifest | None, identity: str) -> Manifest:
    """`manifest` with the patch, and with the annotations that tell what it was created from. Raises
    `UsageError`.
    """
    name = part(manifest, "metadata")["name"]
    if patch:
        manifest = merged(manifest, patch)
    for where in ("metadata",), ("spec", "template", "metadata"):
        labels = part(manifest, *where, "labels")
        if labels.get(names.RUN) != run or labels.get(names.MANAGED_BY) != names.PIECEWORK:
            raise UsageError(f"--patch changes the labels by which piecework finds the run ({'.'.join(where)})")
    if part(manifest, "metadata")["name"] != name or manifest.get("kind") != "Job":
        raise UsageError(f"--patch must leave kind Job and name {name} as they are: they are found by them")
    annotations = {names.FINGERPRINT: fingerprint(manifest)}
    annotations |= {names.IDENTITY: identity} if identity else {}
    return merged(manifest, {"metadata": {"annotations": cast("dict[str, object]", annotations)}})


def fingerprint(manifest: Manifest) -> str:
    """Digest of what cannot be changed on a Job that exists."""
    spec = {key: value for key, value in part(manifest, "spec").items() if key not in _CHANGEABLE}
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()[:32]


def _scheduled(time: datetime | None) -> list[Manifest]:
    if time is None:
        return []
    return [{"name": "PIECEWORK_SCHEDULED_TIME", "value": time.astimezone(UTC).isoformat()}]


def _failure_rules() -> list[Manifest]:
    def on_exit(action: str, *codes: WorkerExit) -> Manifest:
        values = [int(code) for code in codes]
        return {
            "action": action,
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": values},
        }

    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        on_exit("Ignore", WorkerExit.HANDED_BACK),
        on_exit("FailJob", WorkerExit.RUN_FAILED, WorkerExit.CANNOT_WORK),
    ]
