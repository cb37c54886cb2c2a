"""Submitting to Kubernetes, and watching what became of it."""

import time
from contextlib import suppress
from datetime import datetime

import typer

from piecework.items import Pile
from piecework.records import Status
from piecework.states import ProducerExit, State
from piecework_producer import kubernetes_labels as names
from piecework_producer.cli.display import display, line
from piecework_producer.cli.errors import say
from piecework_producer.cli.targets import Target, open_session, place
from piecework_producer.kubernetes_cluster import connect
from piecework_producer.kubernetes_code import CodeBundle, pack
from piecework_producer.kubernetes_errors import AlreadyExists
from piecework_producer.kubernetes_fixed_job import fixed_job_manifest
from piecework_producer.kubernetes_job import job_manifest
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_objects import CONFIG_MAPS, JOBS, Manifest
from piecework_producer.kubernetes_patch import to_yaml
from piecework_producer.kubernetes_settings import JobSettings, cluster_options
from piecework_producer.kubernetes_status import StartTimeout, disagreement
from piecework_producer.launcher import Launch, LaunchState, WorkerPlan
from piecework_producer.settings import RunSettings
from piecework_producer.submission import new_run_id, submit_to

_SETTLE_SECONDS = 5.0
"""Cluster and ledger are read one after the other: a disagreement has to last so long."""


def submit_run(
    settings: RunSettings, job: JobSettings, pile: Pile, dry_run: str | None, scheduled_time: datetime | None = None
) -> str:
    """Fill a run, seal it, and create its Job (or take over the one that is there); returns the run's id.

    The Job is checked before anything is filled. A crash in between leaves a sealed run without a Job; the same command
    completes it.
    """
    run = settings.run or new_run_id(settings.handler_text)
    plan = WorkerPlan(run, settings.worker_arguments(), settings.parallelism, settings.grace)
    options = job.job_options(scheduled_time)
    code = pack(job.code, run) if job.code else None
    manifest = job_manifest(plan, options, code)
    if dry_run:
        _dry_run(job, manifest, code, dry_run)
        return run
    with connect(cluster_options(job), say) as cluster:
        with open_session(job, settings.patience) as session:
            with display() as shown:
                submitted, created = submit_to(session, settings.model_copy(update={"run": run}), pile, shown.filled)
            status = submitted.status()
            submitted.ledger.note_place(place(cluster.namespace, job.context))
            say(f"run {run} {'submitted' if created else 'is there already'}: {status.total} items, {status.state}")
            if status.state.over:
                say(f"it needs no Job; see: piecework results {run}")
                return run
            identified = job_manifest(plan, options, code, identity=f"{status.created_at:.3f}")
            launcher = KubernetesLauncher(cluster, run, identified, code, replace=job.replace)
            launcher.launch()
        say(f"Job {names.job_name(run)} in namespace {cluster.namespace} has {plan.parallelism} workers")
        say(f"watch it: piecework status {run} --watch; wait for it: piecework wait {run}")
    return run


def submit_fixed(
    job: JobSettings, run: str | None, command: tuple[str, ...], parallelism: int, dry_run: str | None
) -> str:
    """Create a fixed-count Job; returns its name."""
    name = run or new_run_id(f"exec:{command[0] if command else (job.image or '').rpartition('/')[2]}")
    manifest = fixed_job_manifest(name, job.fixed_job_options(command, parallelism))
    if dry_run:
        _dry_run(job, manifest, None, dry_run)
        return name
    with connect(cluster_options(job), say) as cluster:
        KubernetesLauncher(cluster, name, manifest, replace=job.replace).launch()
        say(f"Job {name} in namespace {cluster.namespace}: {job.completions or 1} completions, {parallelism} at a time")
    return name


def _dry_run(job: JobSettings, manifest: Manifest, code: CodeBundle | None, where: str) -> None:
    """Print the manifests; `server`: after the API server has accepted them, without making anything."""
    manifests = [code.manifest()] if code else []
    if where == "server":
        with connect(cluster_options(job), say) as cluster:
            for each in manifests:
                with suppress(AlreadyExists):
                    cluster.create(CONFIG_MAPS, each, dry_run=True)
            with suppress(AlreadyExists):
                cluster.create(JOBS, manifest, dry_run=True)
    print(to_yaml([*manifests, manifest]), end="")


def wait_for(target: Target, timeout: float | None, start_timeout: float) -> ProducerExit:
    """Wait for a Job, and for its run if it has a ledger; says why, and returns the exit code."""
    job = target.known_job()
    deadline = None if timeout is None else time.monotonic() + timeout
    starting = StartTimeout(start_timeout)
    since: float | None = None
    told = ""
    with display() as shown:
        while True:
            status = target.run.status() if target.run else None
            if status is not None and status.state.over:
                break
            launch = job.poll(1.0)
            if status is not None:
                shown.status(status, launch)
            ended = launch.state in (LaunchState.SUCCEEDED, LaunchState.FAILED, LaunchState.GONE)
            since = (since or time.monotonic()) if ended else None
            if since is not None and (status is None or time.monotonic() - since > _SETTLE_SECONDS):
                return _ended_without_verdict(target, launch, status)
            if why := starting.check(launch):
                say(f"error: {target.name}: {why}")
                return ProducerExit.RUN_FAILED
            if status is None and launch.reason and launch.reason != told:
                told = launch.reason
                say(f"{target.name}: {told}")
            if deadline is not None and time.monotonic() >= deadline:
                say(f"error: {target.name} is not over after {timeout:g} s" + (f": {line(status)}" if status else ""))
                return ProducerExit.TIMED_OUT
    say(line(status))
    return ProducerExit.of(status.state)


def _ended_without_verdict(target: Target, launch: Launch, status: Status | None) -> ProducerExit:
    if status is None:
        say(f"Job {target.name}: {launch.state}, {launch.succeeded} pods succeeded, {launch.failed} failed"
            + (f": {launch.reason}" if launch.reason else ""))  # fmt: skip
        return ProducerExit.SUCCEEDED if launch.state is LaunchState.SUCCEEDED else ProducerExit.RUN_FAILED
    say(f"error: {disagreement(target.name, launch, status, time.time()) or launch.reason}")
    if launch.state is LaunchState.FAILED and target.run is not None:
        # No worker can ever start, or too many died: the run says so too, until it is submitted again.
        target.run.ledger.abort(State.FAILED, launch.reason)
    return ProducerExit.RUN_FAILED


def print_logs(target: Target, follow: bool, tail: int | None) -> None:
    """The logs of all pods, merged, with the pod's name in front."""
    from piecework_producer.kubernetes_logs import follow as followed
    from piecework_producer.kubernetes_logs import logs

    cluster = target.known_job().cluster
    for each in (followed if follow else logs)(cluster, target.name, tail=tail):
        typer.echo(f"{each.pod} {each.text}")
