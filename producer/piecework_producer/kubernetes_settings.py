"""The settings of the Kubernetes side: options, then PIECEWORK_… in the environment, then defaults."""

from datetime import datetime
from pathlib import Path

from pydantic import Field

from piecework.errors import UsageError
from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_fixed_job import FixedJobOptions
from piecework_producer.kubernetes_job import JobOptions, RedisSecret
from piecework_producer.kubernetes_patch import read_patch
from piecework_producer.kubernetes_pod import PodOptions, PullPolicy, Toleration, TopologySpread
from piecework_producer.settings import ClusterSettings


def cluster_options(
    settings: ClusterSettings, namespace: str | None = None, context: str | None = None
) -> ClusterOptions:
    """Which cluster to connect to; `namespace` and `context` count where none was chosen."""
    return ClusterOptions(
        context=settings.context or context, namespace=settings.namespace or namespace, kubeconfig=settings.kubeconfig
    )


class JobSettings(ClusterSettings):
    """What a Job is made of."""

    image: str | None = None
    image_pull_policy: PullPolicy | None = None
    image_pull_secret: tuple[str, ...] = ()
    code: Path | None = None
    env: tuple[str, ...] = ()
    env_from_secret: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    node_selector: tuple[str, ...] = ()
    toleration: tuple[str, ...] = ()
    spread: str | None = None
    priority_class: str | None = None
    service_account: str | None = None
    run_as_user: int | None = None
    label: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    backoff_limit: int | None = Field(None, ge=0)
    active_deadline: int | None = Field(None, ge=1)
    ttl: int | None = Field(None, ge=0)
    redis_secret: str = "piecework-redis"  # noqa: S105 - the name of a Secret
    redis_tls_secret: str | None = None
    queue: str | None = None
    min_parallelism: int | None = Field(None, ge=1)
    patch: Path | None = None
    replace: bool = False
    completions: int | None = Field(None, ge=1)
    restart_policy: str = "Never"
    schedule: str | None = None
    """In a schedule's producer: the schedule's name, its Job's name, and how many missed times are made up for."""
    schedule_job: str | None = None
    catch_up_limit: int = Field(0, ge=0)

    def pod_options(self, command: tuple[str, ...] = ()) -> PodOptions:
        """Raises `UsageError` for an option that is not KEY=VALUE, or for a missing image."""
        if not self.image:
            raise UsageError(
                "--image is missing: the image that the pods run; for a run, one with piecework-worker in it "
                "(docs/kubernetes.md shows how to make yours, or how to mount code with --code)"
            )
        defaults = PodOptions(image=self.image)
        return PodOptions(
            image=self.image,
            command=command,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=self.image_pull_secret,
            env=_pairs("--env", self.env),
            env_from_secrets=self.env_from_secret,
            requests={**defaults.requests, **_pairs("--request", self.request)},
            limits=_pairs("--limit", self.limit),
            node_selector=_pairs("--node-selector", self.node_selector),
            tolerations=tuple(Toleration.parse(text) for text in self.toleration),
            topology_spread=(TopologySpread(self.spread),) if self.spread else defaults.topology_spread,
            priority_class=self.priority_class,
            service_account=self.service_account,
            run_as_user=self.run_as_user if self.run_as_user is not None else defaults.run_as_user,
        )

    def job_options(self, scheduled_time: datetime | None = None) -> JobOptions:
        """For a run's Job. Raises `UsageError`."""
        return JobOptions(
            pod=self.pod_options(),
            redis=RedisSecret(name=self.redis_secret, tls=self.redis_tls_secret),
            backoff_limit=self.backoff_limit,
            active_deadline_seconds=self.active_deadline,
            ttl_seconds_after_finished=JobOptions.ttl_seconds_after_finished if self.ttl is None else self.ttl,
            labels=_pairs("--label", self.label),
            annotations=_pairs("--annotation", self.annotation),
            queue=self.queue,
            min_parallelism=self.min_parallelism,
            schedule=self.schedule,
            scheduled_time=scheduled_time,
            patch=read_patch(self.patch) if self.patch else None,
        )

    def fixed_job_options(self, command: tuple[str, ...], parallelism: int) -> FixedJobOptions:
        """For a fixed-count Job. Raises `UsageError`."""
        return FixedJobOptions(
            pod=self.pod_options(command),
            completions=self.completions or 1,
            parallelism=parallelism,
            restart_policy=self.restart_policy,
            backoff_limit=6 if self.backoff_limit is None else self.backoff_limit,
            active_deadline_seconds=self.active_deadline,
            ttl_seconds_after_finished=JobOptions.ttl_seconds_after_finished if self.ttl is None else self.ttl,
            labels=_pairs("--label", self.label),
            annotations=_pairs("--annotation", self.annotation),
            queue=self.queue,
            min_parallelism=self.min_parallelism,
            patch=read_patch(self.patch) if self.patch else None,
        )


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs
