"""`piecework schedule`: CronJobs that submit runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from piecework.errors import UsageError
from piecework_producer.cli import cluster_options as c
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.output import table
from piecework_producer.settings import ClusterSettings, CommandSettings, read

if TYPE_CHECKING:
    from piecework_producer.kubernetes_schedule import Schedules
    from piecework_producer.kubernetes_settings import JobSettings

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
Cron = Annotated[str, typer.Argument(metavar="CRON", help="Five fields, such as '0 * * * *', or @hourly.")]
ProducerImage = Annotated[
    str | None,
    typer.Option("--producer-image", help="Image whose entry point is `piecework`.", show_default=False),
]
ProducerSecret = Annotated[
    str, typer.Option("--producer-redis-secret", help="Secret with the producer's url and password.")
]
TimeZone = Annotated[str, typer.Option("--time-zone", help="timeZone: in which the schedule is read.")]
Policy = Annotated[
    str, typer.Option("--concurrency-policy", metavar="Allow|Forbid|Replace", help="concurrencyPolicy: of submitting.")
]
Deadline = Annotated[
    int, typer.Option("--starting-deadline", metavar="SECONDS", min=10, help="startingDeadlineSeconds.")
]
Successful = Annotated[
    int, typer.Option("--successful-history", min=0, help="successfulJobsHistoryLimit; counts for runs too.")
]
FailedHistory = Annotated[
    int, typer.Option("--failed-history", min=0, help="failedJobsHistoryLimit; counts for runs too.")
]
Suspended = Annotated[bool, typer.Option("--suspend", help="Make it, but do not fire yet.")]
CatchUp = Annotated[bool, typer.Option("--catch-up", help="Submit missed times too, each once.")]
CatchUpLimit = Annotated[int, typer.Option("--catch-up-limit", min=1, help="So many of them at most, the latest.")]

_OF_THE_RUN = [
    "range",
    "lines",
    "jsonl",
    "exec",
    "shell",
    "stdin",
    "batch",
    "batch_size",
    "concurrency",
    "parallelism",
    "chunk_size",
    "isolation",
    "speculate",
    "retries",
    "item_timeout",
    "item_memory",
    "max_failures",
    "crash_limit",
    "lease",
    "patience",
    "grace",
    "wait_replicas",
    "keep",
    "namespace",
    "image",
    "image_pull_policy",
    "image_pull_secret",
    "env",
    "env_from_secret",
    "request",
    "limit",
    "node_selector",
    "toleration",
    "spread",
    "priority_class",
    "service_account",
    "run_as_user",
    "redis_secret",
    "redis_tls_secret",
    "label",
    "annotation",
    "backoff_limit",
    "active_deadline",
    "ttl",
    "queue",
    "min_parallelism",
]
"""The options that the producer's `submit` is given, as they were given to `schedule`."""


class _WithDefault(TyperGroup):
    """`schedule NAME CRON …` is `schedule create NAME CRON …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["create", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    schedule = typer.Typer(
        cls=_WithDefault,
        no_args_is_help=True,
        help="Submit runs at set times: create or update (`schedule NAME CRON HANDLER …`), list, trigger, suspend, "
        "resume, delete.",
        epilog="Example: piecework schedule hourly '0 * * * *' mypkg.tasks:sync --range 0:100 "
        "--image registry/me/tasks:1 "
        "--producer-image registry/me/piecework-producer:1",
    )
    schedule.command()(create)
    schedule.command("list")(list_)
    for verb in (trigger, suspend, resume, delete):
        schedule.command(epilog=f"Example: piecework schedule {verb.__name__} hourly")(verb)
    app.add_typer(schedule, name="schedule")


@reporting
def create(
    name: Name,
    cron: Cron,
    handler: o.Handler = None,
    range_: o.Range = None,
    lines: o.Lines = None,
    jsonl: o.Jsonl = None,
    exec_: o.Exec = None,
    shell: o.Shell = None,
    stdin: o.Stdin = None,
    batch: o.Batch = None,
    batch_size: o.BatchSize = None,
    concurrency: o.Concurrency = None,
    parallelism: o.Parallelism = None,
    chunk_size: o.ChunkSize = None,
    isolation: o.Isolation = None,
    speculate: o.Speculate = None,
    retries: o.Retries = None,
    item_timeout: o.ItemTimeout = None,
    item_memory: o.ItemMemory = None,
    max_failures: o.MaxFailures = None,
    crash_limit: o.CrashLimit = None,
    lease: o.Lease = None,
    patience: o.Patience = None,
    grace: o.Grace = None,
    wait_replicas: o.WaitReplicas = None,
    keep: o.Keep = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
    image: c.Image = None,
    producer_image: ProducerImage = None,
    image_pull_policy: c.ImagePullPolicy = None,
    image_pull_secret: c.ImagePullSecret = None,
    env: c.Env = None,
    env_from_secret: c.EnvFromSecret = None,
    request: c.Request = None,
    limit: c.Limit = None,
    node_selector: c.NodeSelector = None,
    toleration: c.Tolerate = None,
    spread: c.Spread = None,
    priority_class: c.PriorityClass = None,
    service_account: c.ServiceAccount = None,
    run_as_user: c.RunAsUser = None,
    redis_secret: c.RedisSecret = None,
    redis_tls_secret: c.RedisTlsSecret = None,
    producer_redis_secret: ProducerSecret = "piecework-redis-producer",  # noqa: S107 - the name of a Secret
    label: c.Label = None,
    annotation: c.Annotate = None,
    backoff_limit: c.BackoffLimit = None,
    active_deadline: c.ActiveDeadline = None,
    ttl: c.Ttl = None,
    queue: c.Queue = None,
    min_parallelism: c.MinParallelism = None,
    patch: c.Patch = None,
    time_zone: TimeZone = "Etc/UTC",
    concurrency_policy: Policy = "Forbid",
    starting_deadline: Deadline = 600,
    successful_history: Successful = 3,
    failed_history: FailedHistory = 1,
    suspend: Suspended = False,
    catch_up: CatchUp = False,
    catch_up_limit: CatchUpLimit = 10,
    dry_run: c.DryRun = None,
) -> None:
    """Create or update the schedule NAME: a CronJob that submits a run at each time. --patch is for the CronJob.

    Files that options name are read in the producer's pod. The handler must be in the workers' image.
    """
    from piecework_producer.kubernetes_cronjob import ScheduleOptions, schedule_manifests
    from piecework_producer.kubernetes_job import RedisSecret
    from piecework_producer.kubernetes_patch import read_patch, to_yaml
    from piecework_producer.kubernetes_pod import PodOptions
    from piecework_producer.kubernetes_settings import JobSettings

    given = {option.removesuffix("_"): value for option, value in locals().items()}
    settings = read(CommandSettings, given)
    job = read(JobSettings, {option: given[option] for option in _OF_THE_RUN})
    job.pod_options()  # its errors, now and not at every firing
    if "-" in (lines, jsonl):
        raise UsageError("a schedule has no standard input: give a FILE that is in the producer's image, or --range")
    if not producer_image:
        raise UsageError("--producer-image is missing: the image in which `piecework submit` runs at each time")
    if concurrency_policy not in ("Allow", "Forbid", "Replace"):
        raise UsageError(f"--concurrency-policy {concurrency_policy!r} is none of Allow, Forbid, Replace")
    options = ScheduleOptions(
        name=name,
        schedule=cron,
        pod=PodOptions(
            image=producer_image,
            image_pull_policy=job.image_pull_policy,
            image_pull_secrets=job.image_pull_secret,
        ),
        arguments=_submit_arguments(settings, job),
        redis=RedisSecret(name=producer_redis_secret, tls=job.redis_tls_secret),
        time_zone=time_zone,
        concurrency_policy=concurrency_policy,  # type: ignore[arg-type]  # checked above
        starting_deadline_seconds=starting_deadline,
        successful_jobs_history_limit=successful_history,
        failed_jobs_history_limit=failed_history,
        suspend=suspend,
        catch_up_limit=catch_up_limit if catch_up else 0,
        patch=read_patch(patch) if patch else None,
    )
    if dry_run != "client":
        with _schedules(namespace, context, kubeconfig) as schedules:
            schedules.apply(options, dry_run=dry_run == "server")
    if dry_run:
        print(to_yaml(schedule_manifests(options)), end="")
        return
    say(f"schedule {name} fires at {cron} ({time_zone}); see: piecework schedule list")


def _submit_arguments(settings: CommandSettings, job: "JobSettings") -> tuple[str, ...]:
    """What was given, as options or in the environment, as options of the producer's own `submit`."""
    words = ["submit", *([settings.handler] if settings.handler else []), "--on", "kubernetes"]
    for option in _OF_THE_RUN:
        holder = settings if option in type(settings).model_fields else job
        flag, value = f"--{option.replace('_', '-')}", getattr(holder, option)
        if option not in holder.model_fields_set or value in (None, False):
            continue
        if value is True:
            words.append(flag)
        else:
            words += [f"{flag}={each}" for each in (value if isinstance(value, tuple) else (value,))]
    return tuple(words)


@reporting
def list_(
    output: o.Output = "table",
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
) -> None:
    """Show all schedules."""
    from piecework_producer.kubernetes_schedule import recorded_time

    o.checked_output(output)
    with _schedules(namespace, context, kubeconfig) as schedules:
        found = schedules.all()
    rows = [
        {
            "name": each.metadata.name.removeprefix("piecework-"),
            "schedule": each.spec.schedule,
            "time_zone": each.spec.time_zone or "",
            "suspend": each.spec.suspend,
            "active": len(each.status.active or ()),
            "last_schedule": _iso(each.status.last_schedule_time),
            "last_recorded": _iso(recorded_time(each)),
        }
        for each in found
    ]
    if output == "json":
        print(json.dumps(rows))
    elif not rows:
        say("no schedules; make one: piecework schedule --help")
    else:
        header = tuple(key.upper().replace("_", " ") for key in rows[0])
        print(table(header, [tuple(str(value) for value in row.values()) for row in rows]))


@reporting
def trigger(
    name: Name, namespace: c.Namespace = None, context: c.Context = None, kubeconfig: c.Kubeconfig = None
) -> None:
    """Submit a run now, beside the schedule."""
    with _schedules(namespace, context, kubeconfig) as schedules:
        job = schedules.trigger(name, datetime.now(UTC))
    say(f"schedule {name} is triggered: Job {job} submits the run")


@reporting
def suspend(
    name: Name, namespace: c.Namespace = None, context: c.Context = None, kubeconfig: c.Kubeconfig = None
) -> None:
    """Fire no more, until it is resumed; with --catch-up the times in between are submitted then."""
    with _schedules(namespace, context, kubeconfig) as schedules:
        schedules.suspend(name, True)
    say(f"schedule {name} is suspended; go on with: piecework schedule resume {name}")


@reporting
def resume(
    name: Name, namespace: c.Namespace = None, context: c.Context = None, kubeconfig: c.Kubeconfig = None
) -> None:
    """Fire again."""
    with _schedules(namespace, context, kubeconfig) as schedules:
        schedules.suspend(name, False)
    say(f"schedule {name} fires again")


@reporting
def delete(
    name: Name, namespace: c.Namespace = None, context: c.Context = None, kubeconfig: c.Kubeconfig = None
) -> None:
    """Delete the schedule and what belongs to it; its runs stay."""
    with _schedules(namespace, context, kubeconfig) as schedules:
        if not schedules.delete(name):
            raise UsageError(f"there is no schedule {name} here; see: piecework schedule list")
    say(f"schedule {name} is deleted; its runs stay")


@contextmanager
def _schedules(namespace: str | None, context: str | None, kubeconfig: Path | None) -> Iterator["Schedules"]:
    from piecework_producer.kubernetes_cluster import connect
    from piecework_producer.kubernetes_schedule import Schedules
    from piecework_producer.kubernetes_settings import cluster_options

    options = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig}
    with connect(cluster_options(read(ClusterSettings, options)), say) as cluster:
        yield Schedules(cluster)


def _iso(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else ""
