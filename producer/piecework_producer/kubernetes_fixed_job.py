"""A plain fixed-count Job: a command, `completions` of it, `parallelism` at a time. It has no ledger and no
Redis.

The exit codes of the command have no meaning beyond 0 and not 0. Pods that were disrupted never count
against the `backoffLimit`, as far as Kubernetes allows it: with restartPolicy Never.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from piecework.errors import UsageError
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_job import finished_manifest, metadata, queueing
from piecework_producer.kubernetes_objects import Manifest
from piecework_producer.kubernetes_patch import merged
from piecework_producer.kubernetes_pod import PodOptions, pod_template

COMPONENT = "command"
"""Of the labels, where a worker's Job has `worker`."""


@dataclass(frozen=True, kw_only=True)
class FixedJobOptions:
    """What a person may choose about the Job."""

    pod: PodOptions
    arguments: tuple[str, ...] = ()
    """After the command of `pod`; without one, arguments of the image's entry point."""
    completions: int = 1
    parallelism: int = 1
    restart_policy: str = "Never"
    """`Never`: a failed pod stays to be read, and a new one is made. `OnFailure`: its container starts
    again.
    """
    completion_mode: Literal["NonIndexed", "Indexed"] = "NonIndexed"
    """`Indexed`: each pod has its number, 0 to completions-1, in JOB_COMPLETION_INDEX."""
    backoff_limit: int = 6
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = 7 * 24 * 3600
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    min_parallelism: int | None = None
    patch: Manifest | None = None


def fixed_job_manifest(run: str, options: FixedJobOptions) -> Manifest:
    """The Job, called as the run is. Raises `UsageError`."""
    if options.restart_policy == "Always":
        raise UsageError(
            "restartPolicy Always is not allowed in a Job: its pods would be started again after they have "
            "succeeded, and it would never be complete. Use Never or OnFailure"
        )
    if options.restart_policy not in ("Never", "OnFailure"):
        raise UsageError(f"restartPolicy {options.restart_policy!r} is not known: use Never or OnFailure")
    if options.completions < 1 or options.parallelism < 1:
        raise UsageError("--completions and --parallelism must be 1 or more")
    if not options.pod.image:
        raise UsageError("a fixed-count Job needs an --image to run the command in")
    own = names.labels(run, COMPONENT)
    spec: Manifest = {
        "completions": options.completions,
        "parallelism": options.parallelism,
        "completionMode": options.completion_mode,
        "backoffLimit": options.backoff_limit,
        "template": pod_template(
            options.pod,
            container=run,
            args=list(options.arguments),
            labels=own,
            spread_by={names.RUN: run},
            env=[],
            restart_policy=options.restart_policy,
        ),
    }
    if options.restart_policy == "Never":
        disrupted = {"type": "DisruptionTarget", "status": "True"}
        spec["podFailurePolicy"] = {"rules": [{"action": "Ignore", "onPodConditions": [disrupted]}]}
    if options.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = options.active_deadline_seconds
    if options.ttl_seconds_after_finished is not None:
        spec["ttlSecondsAfterFinished"] = options.ttl_seconds_after_finished
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(run, options.labels, own, options.annotations),
        "spec": spec,
    }
    queue = queueing(options.queue, options.min_parallelism, options.parallelism)
    return finished_manifest(merged(manifest, queue), run, options.patch, "")
