"""A schedule's objects: a CronJob that runs the producer, with its ServiceAccount, Role and RoleBinding.

The producer in the CronJob's pod submits a run whose id comes from the scheduled time, so that a time that
fires twice is one run. What the producer may do is what `kubernetes_launcher` does, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from piecework.errors import UsageError
from piecework.keys import RUN_ID
from piecework.states import ProducerExit
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_job import RedisSecret
from piecework_producer.kubernetes_objects import Manifest, part
from piecework_producer.kubernetes_patch import merged
from piecework_producer.kubernetes_pod import PodOptions, pod_template

CONTAINER = "producer"
MOST_NAME = 34
"""So that a run id, which is the name and a time, stays within its 48 characters."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """What a person may choose about a schedule; the CronJob's field names."""

    name: str
    schedule: str
    """Five fields, or @hourly and so on: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/"""
    pod: PodOptions
    """The producer's pod, with an image whose entry point is `piecework`."""
    arguments: tuple[str, ...]
    """What the producer is to do: `submit HANDLER … --on kubernetes …`, without a run id."""
    redis: RedisSecret = field(default_factory=RedisSecret)
    time_zone: str = "Etc/UTC"
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Forbid"
    """Whether a producer is started while the last one still submits; runs may overlap in any case."""
    starting_deadline_seconds: int = 600
    """A time that could not be started for so long is missed; without it, 100 missed times stop a CronJob."""
    successful_jobs_history_limit: int = 3
    failed_jobs_history_limit: int = 1
    suspend: bool = False
    catch_up_limit: int = 0
    """How many missed times are submitted later, latest first to be kept; 0: none."""
    active_deadline_seconds: int = 3600
    """Limit for submitting, not for the run."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    patch: Manifest | None = None
    """A strategic merge patch of the CronJob."""


def object_name(schedule: str) -> str:
    """Name of the schedule's CronJob and of what belongs to it. Raises `UsageError`."""
    if len(schedule) > MOST_NAME or not RUN_ID.fullmatch(schedule):
        raise UsageError(
            f"schedule name {schedule!r} is not allowed: use 1 to {MOST_NAME} of a-z, 0-9 and '-', "
            "not beginning or ending with '-'"
        )
    return f"piecework-{schedule}"


def schedule_labels(schedule: str) -> dict[str, str]:
    """Labels of everything that belongs to a schedule, but not to one of its runs."""
    return {
        "app.kubernetes.io/name": names.PIECEWORK,
        "app.kubernetes.io/instance": schedule,
        "app.kubernetes.io/component": "producer",
        "app.kubernetes.io/part-of": names.PIECEWORK,
        names.MANAGED_BY: names.PIECEWORK,
        names.SCHEDULE: schedule,
    }


def schedule_manifests(options: ScheduleOptions) -> list[Manifest]:
    """ServiceAccount, Role, RoleBinding, CronJob, in the order in which they are to be made."""
    name, own = object_name(options.name), schedule_labels(options.name)
    metadata: Manifest = {"name": name, "labels": dict(own)}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    rbac = "rbac.authorization.k8s.io/v1"
    account: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    rules: Manifest = {
        "apiVersion": rbac,
        "kind": "Role",
        "metadata": metadata,
        "rules": producer_rules(name),
    }
    binding: Manifest = {
        "apiVersion": rbac,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": name}],
    }
    return [
        account | {"automountServiceAccountToken": False},
        rules,
        binding,
        _cron_job(options, name, own),
    ]


def producer_rules(cron_job: str) -> list[Manifest]:
    """What a producer in a pod may do in its namespace: the calls of the launcher, and its own CronJob."""

    def rule(group: str, resource: str, *verbs: str, **more: object) -> Manifest:
        return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs), **more}

    return [
        rule("batch", "jobs", "create", "get", "list", "watch", "patch", "delete"),
        rule("batch", "cronjobs", "get", "patch", resourceNames=[cron_job]),
        rule("", "configmaps", "create", "list", "patch", "delete"),
        rule("", "pods", "list", "watch"),
        rule("", "events", "list", "watch"),
    ]


def _cron_job(options: ScheduleOptions, name: str, own: dict[str, str]) -> Manifest:
    names.reserved(dict(options.labels), "--label")
    names.reserved(dict(options.annotations), "--annotation")
    from_label: Manifest = {"fieldRef": {"fieldPath": f"metadata.labels['{names.JOB_NAME}']"}}
    template = pod_template(
        options.pod,
        container=CONTAINER,
        args=list(options.arguments),
        labels=own,
        spread_by={names.SCHEDULE: options.name},
        env=[
            *options.redis.env(),
            {"name": "PIECEWORK_SCHEDULE", "value": options.name},
            {"name": "PIECEWORK_SCHEDULE_JOB", "valueFrom": from_label},
            {"name": "PIECEWORK_CATCH_UP_LIMIT", "value": str(options.catch_up_limit)},
        ],
        restart_policy="Never",
        service_account_token=True,
    )
    template = options.redis.mounted(template, CONTAINER)
    if not options.pod.service_account:
        part(template, "spec")["serviceAccountName"] = name
    usage = {"containerName": CONTAINER, "operator": "In", "values": [int(ProducerExit.USAGE)]}
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    job: Manifest = {
        "backoffLimit": 6,
        "activeDeadlineSeconds": options.active_deadline_seconds,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [disrupted]},
                {"action": "FailJob", "onExitCodes": usage},
            ]
        },
        "template": template,
    }
    spec: Manifest = {
        "schedule": options.schedule,
        "timeZone": options.time_zone,
        "concurrencyPolicy": options.concurrency_policy,
        "startingDeadlineSeconds": options.starting_deadline_seconds,
        "successfulJobsHistoryLimit": options.successful_jobs_history_limit,
        "failedJobsHistoryLimit": options.failed_jobs_history_limit,
        "suspend": options.suspend,
        "jobTemplate": {"metadata": {"labels": dict(own)}, "spec": job},
    }
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": name,
            "labels": {**options.labels, **own},
            "annotations": dict(options.annotations),
        },
        "spec": spec,
    }
    return merged(manifest, options.patch) if options.patch else manifest
