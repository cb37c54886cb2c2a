"""What the code puts into a cluster: each kind of object, with as little and as much as can be chosen."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import msgspec

from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_code import CodeBundle, CodeFile
from piecework_producer.kubernetes_cronjob import ScheduleOptions, schedule_manifests
from piecework_producer.kubernetes_fixed_job import FixedJobOptions, fixed_job_manifest
from piecework_producer.kubernetes_job import JobOptions, RedisSecret, job_manifest
from piecework_producer.kubernetes_objects import Job, Manifest, Resource
from piecework_producer.kubernetes_pod import PodOptions, Toleration, TopologySpread
from piecework_producer.kubernetes_schedule import Schedules
from piecework_producer.launcher import WorkerPlan

RUN = "a" * 48
"""As long as a run's id can be."""
PLAN = WorkerPlan(RUN, ("--handler", "package.module:function", "--grace", "20.5"), 12, 20.5)
CODE = CodeBundle(
    RUN,
    (
        CodeFile("package/__init__.py", b"", False),
        CodeFile("package/module.py", "def function(item): return 'ä'\n".encode(), False),
        CodeFile("package/tool", b"\x7fELF\x00", True),
    ),
)
LITTLE = PodOptions(image="registry.example.com/team/worker:1.2.3")
MUCH = PodOptions(
    image="registry.example.com/team/worker:1.2.3",
    command=("piecework-worker",),
    image_pull_policy="IfNotPresent",
    image_pull_secrets=("registry",),
    env={"OMP_NUM_THREADS": "1"},
    env_from_secrets=("bucket",),
    requests={"cpu": "2", "memory": "1.5Gi", "nvidia.com/gpu": "1"},
    limits={"memory": "3Gi", "nvidia.com/gpu": "1"},
    node_selector={"kubernetes.io/arch": "arm64"},
    tolerations=(
        Toleration.parse("spot=true:NoSchedule"),
        Toleration.parse("cloud.example.com/preemptible"),
    ),
    topology_spread=(TopologySpread("topology.kubernetes.io/zone", 2, "DoNotSchedule"),),
    priority_class="batch",
    service_account="reads-the-bucket",
    run_as_user=1000,
    labels={"team": "maps"},
    annotations={"sidecar.istio.io/inject": "false"},
)
SCHEDULE = ScheduleOptions(
    name="s" * 34,
    schedule="0 * * * *",
    pod=PodOptions(image="registry.example.com/team/producer:1.2.3"),
    arguments=("submit", "package.module:function", "--on", "kubernetes"),
)
FULL_SCHEDULE = ScheduleOptions(
    name="nightly",
    schedule="30 2 * * 1-5",
    pod=MUCH,
    arguments=("submit", "package.module:function", "--on", "kubernetes"),
    redis=RedisSecret(name="elsewhere", tls="redis-client"),
    time_zone="Europe/Berlin",
    concurrency_policy="Allow",
    suspend=True,
    catch_up_limit=24,
    labels={"team": "maps"},
    annotations={"note": "with a space"},
    patch={"spec": {"jobTemplate": {"spec": {"backoffLimit": 1}}}},
)


def generated() -> Iterator[tuple[str, Manifest]]:
    """(what it is, the manifest) for everything that is sent to an API server."""
    yield "a run's Job, as little as can be", job_manifest(PLAN, JobOptions(pod=LITTLE))
    everything = JobOptions(
        pod=MUCH,
        redis=RedisSecret(name="elsewhere", url_key="uri", password_key="token", tls="redis-client"),  # noqa: S106 - the name of a key
        backoff_limit=0,
        active_deadline_seconds=3600,
        ttl_seconds_after_finished=60,
        labels={"team": "maps"},
        annotations={"note": "with a space"},
        queue="batch",
        min_parallelism=2,
        schedule="nightly",
        patch={"spec": {"template": {"spec": {"containers": [{"name": "worker", "tty": True}]}}}},
    )
    yield "a run's Job with everything", job_manifest(PLAN, everything, CODE, "1700000000000")
    yield "the code of a run", CODE.manifest()
    yield "a fixed-count Job", fixed_job_manifest("pi", FixedJobOptions(pod=LITTLE))
    for policy in ("Never", "OnFailure"):
        fixed = FixedJobOptions(
            pod=MUCH,
            arguments=("-c", "true"),
            completions=20,
            parallelism=5,
            restart_policy=policy,
            completion_mode="Indexed",
            active_deadline_seconds=3600,
            queue="batch",
            min_parallelism=1,
        )
        yield f"a fixed-count Job with everything, {policy}", fixed_job_manifest("pi", fixed)
    for name, options in (("a schedule", SCHEDULE), ("a schedule with everything", FULL_SCHEDULE)):
        manifests = schedule_manifests(options)
        for manifest in manifests:
            yield f"{name}, its {manifest['kind']}", manifest
        yield f"{name}, triggered by hand", _triggered(options.name, manifests[-1])


class _ClusterWithSchedule:
    """As much of a cluster as `Schedules.trigger` needs: one CronJob, and room for what it creates."""

    def __init__(self, cron_job: Manifest) -> None:
        self.namespace, self.label = "piecework", "no cluster"
        metadata = cast(Manifest, cron_job["metadata"])
        self._cron_job = cron_job | {"metadata": metadata | {"uid": "5f1d1f5e-6a3c-4a63-9d6c-6f2f5a0f0b11"}}
        self.created: Manifest = {}

    def get(self, resource: Resource[object], name: str) -> object:
        """The CronJob."""
        return msgspec.convert(self._cron_job, resource.type)

    def create(self, resource: Resource[Job], manifest: Manifest) -> Job:
        """Remember it."""
        self.created = manifest
        return msgspec.convert(manifest, resource.type)


def _triggered(schedule: str, cron_job: Manifest) -> Manifest:
    cluster = _ClusterWithSchedule(cron_job)
    Schedules(cast(Cluster, cluster)).trigger(schedule, datetime(2024, 2, 29, 12, tzinfo=UTC))
    return cluster.created
