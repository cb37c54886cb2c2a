"""`piecework submit`: fill a run and leave; with `--on kubernetes` its Job does the rest."""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from piecework.errors import UsageError
from piecework.server import where
from piecework_producer.cli import cluster_options as c
from piecework_producer.cli import options as o
from piecework_producer.cli.display import display, line
from piecework_producer.cli.errors import reporting, say
from piecework_producer.cli.targets import open_session, refuse_embedded
from piecework_producer.settings import ClusterSettings, CommandSettings, read
from piecework_producer.submission import submit_to

Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- CMD ...]", help="With --completions: what each pod runs.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        epilog="Examples: piecework submit mypkg.tasks:convert --jsonl jobs.jsonl --run nightly --on kubernetes "
        "--image registry/me/tasks:1 --code mypkg -p 20  ·  piecework submit --image perl:5.34.0 --completions 20 "
        "-p 5 -- perl -Mbignum=bpi -wle 'print bpi(2000)'"
    )(submit)


@reporting
def submit(
    handler: o.Handler = None,
    command: Command = None,
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
    run: o.RunId = None,
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
    redis: o.Redis = None,
    state_dir: o.StateDir = None,
    on: c.On = None,
    namespace: c.Namespace = None,
    context: c.Context = None,
    kubeconfig: c.Kubeconfig = None,
    image: c.Image = None,
    image_pull_policy: c.ImagePullPolicy = None,
    image_pull_secret: c.ImagePullSecret = None,
    code: c.Code = None,
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
    label: c.Label = None,
    annotation: c.Annotate = None,
    backoff_limit: c.BackoffLimit = None,
    active_deadline: c.ActiveDeadline = None,
    ttl: c.Ttl = None,
    queue: c.Queue = None,
    min_parallelism: c.MinParallelism = None,
    patch: c.Patch = None,
    replace: c.Replace = None,
    completions: c.Completions = None,
    restart_policy: c.RestartPolicy = None,
    dry_run: c.DryRun = None,
) -> None:
    """Fill a run, seal it, and print its id; with --on kubernetes create the Job that drains it."""
    given = {name.removesuffix("_"): value for name, value in locals().items()}
    if dry_run not in (None, "client", "server"):
        raise UsageError(f"--dry-run {dry_run!r} is neither client nor server")
    if completions is not None:
        _submit_fixed(given, dry_run)
        return
    if command:
        raise UsageError(f"{command[0]!r} is one argument too many; a command after -- goes with --completions")
    settings = read(CommandSettings, given)
    place = read(ClusterSettings, given)
    if place.on == "kubernetes" or (place.on is None and image is not None):
        _submit_to_cluster(settings, given, dry_run)
        return
    with (
        o.open_pile(settings.range, settings.lines, settings.jsonl) as pile,
        open_session(settings, settings.patience) as session,
    ):
        with display() as shown:
            submitted, created = submit_to(session, settings, pile, shown.filled)
        status = submitted.status()
        embedded, server = session.embedded, where(session.client)
    say(f"{'submitted' if created else 'there already'}: {line(status)}")
    say(f"drain it here: piecework retry {status.run}")
    if not embedded:
        words = shlex.join(["piecework-worker", status.run, *settings.worker_arguments()])
        say(f"or anywhere: {words}  (with PIECEWORK_REDIS for {server} in its environment)")
    print(status.run)


def _submit_to_cluster(settings: CommandSettings, given: Mapping[str, Any], dry_run: str | None) -> None:
    from piecework_producer.cli.on_kubernetes import submit_run
    from piecework_producer.kubernetes_settings import JobSettings

    job = read(JobSettings, given)
    if not dry_run:
        refuse_embedded(settings)
    if job.schedule:
        from piecework_producer.cli.scheduled import submit_due

        submit_due(settings, job)
        return
    with o.open_pile(settings.range, settings.lines, settings.jsonl) as pile:
        run = submit_run(settings, job, pile, dry_run)
    if not dry_run:
        print(run)


def _submit_fixed(given: Mapping[str, Any], dry_run: str | None) -> None:
    from piecework_producer.cli.on_kubernetes import submit_fixed
    from piecework_producer.kubernetes_settings import JobSettings

    command = tuple(word for word in (given["handler"], *(given["command"] or ())) if word)
    job = read(JobSettings, {name: value for name, value in given.items() if name != "handler"})
    name = submit_fixed(job, given["run"], command, given["parallelism"] or 1, dry_run)
    if not dry_run:
        print(name)
