"""What the producer does in a schedule's pod: submit the run of this time, and of the times that were missed.

The run's id comes from the scheduled time, so a time that fires twice is one run. Killed at any line, the next firing
submits the same ids again, which changes nothing.
"""

from contextlib import suppress

from piecework.errors import UnknownRun, UsageError
from piecework.ledger import Ledger, runs
from piecework.records import Status
from piecework.states import State
from piecework_producer.cli import options as o
from piecework_producer.cli.errors import say
from piecework_producer.cli.on_kubernetes import submit_run
from piecework_producer.cli.targets import open_session
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_objects import CronJob
from piecework_producer.kubernetes_schedule import Schedules, beyond_history, run_id
from piecework_producer.kubernetes_settings import JobSettings, cluster_options
from piecework_producer.launcher import LaunchState
from piecework_producer.session import Session
from piecework_producer.settings import CommandSettings


def submit_due(settings: CommandSettings, job: JobSettings) -> None:
    """Submit the runs that are due, record their times, and clean up by the schedule's history limits."""
    schedule = job.schedule or ""
    if job.schedule_job is None:
        raise UsageError("PIECEWORK_SCHEDULE is set without PIECEWORK_SCHEDULE_JOB: both come from a schedule's pod")
    with connect(cluster_options(job), say) as cluster:
        schedules = Schedules(cluster)
        firing = schedules.firing(schedule, job.schedule_job)
        for time in (*schedules.missed(firing, job.catch_up_limit), firing.time):
            run = firing.run if time == firing.time else run_id(schedule, time)
            with o.open_pile(settings.range, settings.lines, settings.jsonl) as pile:
                print(submit_run(settings.model_copy(update={"run": run}), job, pile, None, time), flush=True)
            if not (firing.manual and time == firing.time):
                schedules.record(schedule, time)
        with open_session(job, settings.patience) as session:
            _clean_up(cluster, session, schedules.get(schedule), schedule)


def _status(cluster: Cluster, ledger: Ledger) -> Status:
    """A run's status; one whose Job has failed has failed too, or it would count as running for ever."""
    status = ledger.status()
    if not status.state.over:
        launch = KubernetesLauncher(cluster, ledger.run).poll(0)
        if launch.state is LaunchState.FAILED:
            ledger.abort(State.FAILED, launch.reason)
            status = ledger.status()
    return status


def _clean_up(cluster: Cluster, session: Session, cron_job: CronJob, schedule: str) -> None:
    statuses: list[Status] = []
    for name in runs(session.client):
        if name.startswith(f"{schedule}-") and name.count("-") == schedule.count("-") + 1:
            with suppress(UnknownRun):  # deleted since
                statuses.append(_status(cluster, Ledger(session.client, name)))
    spec = cron_job.spec
    for name in beyond_history(statuses, spec.successful_jobs_history_limit, spec.failed_jobs_history_limit):
        KubernetesLauncher(cluster, name).delete()
        Ledger(session.client, name).delete()
        say(f"run {name} is deleted: the schedule's history limits keep newer ones")
