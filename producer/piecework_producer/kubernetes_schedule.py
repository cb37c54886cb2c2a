"""Schedules in a cluster: made, listed, triggered, suspended, deleted; and the times that they fire and miss.

The last scheduled time whose run was submitted is an annotation of the CronJob. It only moves forward, and
by a patch that names the resourceVersion that was read, so that of two producers at once none undoes the
other. A crash between submitting and recording submits the same run ids again, which changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadCronError, croniter  # type: ignore[import-untyped]

from piecework.errors import UsageError
from piecework.records import Status
from piecework.states import State
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cluster import Cluster
from piecework_producer.kubernetes_cronjob import ScheduleOptions, object_name, schedule_manifests
from piecework_producer.kubernetes_errors import AlreadyExists, Conflict, ForeignJob, NotFound
from piecework_producer.kubernetes_objects import (
    CRON_JOBS,
    JOBS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    CronJob,
    Manifest,
    Plain,
    Resource,
    part,
)

_WHOLE = Resource("batch/v1", "CronJob", "cronjobs", dict)
_MANUAL = "cronjob.kubernetes.io/instantiate"
_TRIES = 5


@dataclass(frozen=True)
class Firing:
    """Why a producer runs in a CronJob's pod."""

    schedule: str
    time: datetime
    """The scheduled time; for one that was triggered by hand, when its Job was made."""
    manual: bool

    @property
    def run(self) -> str:
        """The run's id; one that was triggered by hand has a run of its own, beside that of the same minute."""
        if self.manual:
            return f"{self.schedule}-{self.time.astimezone(UTC):%y%m%dt%H%M%S}"
        return run_id(self.schedule, self.time)


def run_id(schedule: str, time: datetime) -> str:
    """The id of the run of a schedule for a time: the same for the same time, whoever asks."""
    object_name(schedule)
    return f"{schedule}-{time.astimezone(UTC):%Y%m%dt%H%M}"


def due_times(expression: str, time_zone: str, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """Scheduled times later than `after`, up to and including `until`; the latest `limit`, in order."""
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(f"time zone {time_zone!r} is not known; use a name like Europe/Berlin") from None
    try:
        times = croniter(expression, until.astimezone(zone) + timedelta(seconds=1))
    except CroniterBadCronError as error:
        raise UsageError(f"schedule {expression!r} is not a cron expression: {error}") from None
    found: list[datetime] = []
    while len(found) < limit:
        time: datetime = times.get_prev(datetime)
        if time <= after:
            break
        found.append(time.astimezone(UTC))
    return found[::-1]


def beyond_history(runs: Sequence[Status], successful_limit: int, failed_limit: int) -> list[str]:
    """Which runs of a schedule are over and more than the CronJob's history limits keep; oldest first."""
    over = sorted((run for run in runs if run.state.over), key=lambda run: (run.ended_at or 0.0, run.run))
    good = [run.run for run in over if run.state is State.SUCCEEDED]
    bad = [run.run for run in over if run.state is not State.SUCCEEDED]
    return good[: max(0, len(good) - successful_limit)] + bad[: max(0, len(bad) - failed_limit)]


class Schedules:
    """The schedules of one namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def apply(self, options: ScheduleOptions, *, dry_run: bool = False) -> CronJob:
        """Create or update a schedule. Safe to repeat. Raises `ForeignJob` if the name is somebody else's."""
        due_times(options.schedule, options.time_zone, datetime.now(UTC), datetime.now(UTC), 1)
        account, role, binding, cron_job = schedule_manifests(options)
        self._refuse_foreign(options.name)
        self._cluster.apply(SERVICE_ACCOUNTS, account, dry_run=dry_run)
        self._cluster.apply(ROLES, role, dry_run=dry_run)
        self._cluster.apply(ROLE_BINDINGS, binding, dry_run=dry_run)
        applied = self._cluster.apply(CRON_JOBS, cron_job, dry_run=dry_run)
        if not dry_run:
            self._own(applied)
        return applied

    def all(self) -> list[CronJob]:
        """All schedules, by name."""
        found, _ = self._cluster.list(CRON_JOBS, label_selector=names.ALL_SCHEDULES)
        return sorted(found, key=lambda each: each.metadata.name)

    def get(self, schedule: str) -> CronJob:
        """One schedule. Raises `NotFound`, `ForeignJob`."""
        try:
            found = self._cluster.get(CRON_JOBS, object_name(schedule))
        except NotFound:
            raise NotFound(
                f"there is no schedule {schedule} in namespace {self._cluster.namespace} of "
                f"{self._cluster.label}; see piecework schedule list"
            ) from None
        return self._own_or_refused(found, schedule)

    def trigger(self, schedule: str, now: datetime) -> str:
        """Have the producer run now, beside the schedule; returns the name of its Job."""
        self.get(schedule)
        whole: Manifest = self._cluster.get(_WHOLE, object_name(schedule))
        template, meta = part(whole, "spec", "jobTemplate"), part(whole, "metadata")
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": meta["name"], "uid": meta["uid"]}
        job: Manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": f"{meta['name']}-{now.astimezone(UTC):%y%m%d%H%M%S}",
                "labels": part(template, "metadata", "labels"),
                "annotations": part(template, "metadata", "annotations") | {_MANUAL: "manual"},
                "ownerReferences": [owner | {"controller": True}],
            },
            "spec": template["spec"],
        }
        try:
            return self._cluster.create(JOBS, job).metadata.name
        except AlreadyExists:
            return str(part(job, "metadata")["name"])

    def suspend(self, schedule: str, suspend: bool) -> None:
        """Fire no more, or again. Times that pass meanwhile are missed; see `missed`."""
        self.get(schedule)
        self._cluster.patch(CRON_JOBS, object_name(schedule), {"spec": {"suspend": suspend}})

    def delete(self, schedule: str) -> bool:
        """Delete the CronJob, its producers' Jobs and what it was given; its runs stay. Safe to repeat."""
        name, found = object_name(schedule), False
        try:
            uid = self.get(schedule).metadata.uid
            self._cluster.delete(CRON_JOBS, name, uid=uid)
            found = True
        except NotFound:
            pass
        selector = f"{names.MANAGED_BY}={names.PIECEWORK},{names.SCHEDULE}={schedule}"
        for resource in (ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS):
            for each in self._cluster.list(resource, label_selector=selector)[0]:
                found = True
                try:
                    self._cluster.delete(resource, each.metadata.name, uid=each.metadata.uid)
                except (NotFound, Conflict):
                    continue  # gone with the CronJob
        return found

    # --- in the producer's pod

    def firing(self, schedule: str, job: str) -> Firing:
        """Why the Job of this name, in whose pod this runs, was made."""
        meta = self._cluster.get(JOBS, job).metadata
        stamp = meta.annotation(names.SCHEDULED_TIME)
        if stamp:
            return Firing(schedule, datetime.fromisoformat(stamp).astimezone(UTC), False)
        made = meta.creation_timestamp or datetime.now(UTC)
        return Firing(schedule, made.astimezone(UTC), True)

    def missed(self, firing: Firing, limit: int) -> list[datetime]:
        """The times between the last recorded one and this one, oldest first, at most `limit` of the latest.

        Nothing is missed before the first recorded time.
        """
        cron_job = self.get(firing.schedule)
        recorded = recorded_time(cron_job)
        if recorded is None or limit <= 0:
            return []
        until = firing.time if firing.manual else firing.time - timedelta(seconds=1)
        zone = cron_job.spec.time_zone or "Etc/UTC"
        return due_times(cron_job.spec.schedule, zone, recorded, until, limit)

    def record(self, schedule: str, time: datetime) -> None:
        """Note that the run for this time, and all before it, have been submitted. Never moves back."""
        for _ in range(_TRIES):
            meta = self.get(schedule).metadata
            recorded = meta.annotation(names.RECORDED)
            if recorded and datetime.fromisoformat(recorded) >= time:
                return
            stamp = time.astimezone(UTC).isoformat()
            patch: Manifest = {
                "resourceVersion": meta.resource_version,
                "annotations": {names.RECORDED: stamp},
            }
            try:
                self._cluster.patch(CRON_JOBS, meta.name, {"metadata": patch})
            except Conflict:
                continue  # the CronJob controller writes to it too
            return
        raise Conflict(f"schedule {schedule} is changed all the time; the time {time:%FT%TZ} was not recorded")

    # --- ownership

    def _refuse_foreign(self, schedule: str) -> None:
        try:
            self._own_or_refused(self._cluster.get(CRON_JOBS, object_name(schedule)), schedule)
        except NotFound:
            return

    def _own_or_refused(self, found: CronJob, schedule: str) -> CronJob:
        meta = found.metadata
        if meta.label(names.MANAGED_BY) != names.PIECEWORK or meta.label(names.SCHEDULE) != schedule:
            raise ForeignJob(
                f"there is a CronJob {meta.name} in namespace {self._cluster.namespace} that piecework did "
                "not make; it was not touched. Use another name or --namespace"
            )
        return found

    def _own(self, cron_job: CronJob) -> None:
        """What the CronJob was given goes with it."""
        meta = cron_job.metadata
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": meta.name, "uid": meta.uid}
        resources: tuple[Resource[Plain], ...] = (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS)
        for resource in resources:
            self._cluster.patch(resource, meta.name, {"metadata": {"ownerReferences": [owner]}})


def recorded_time(cron_job: CronJob) -> datetime | None:
    """The last scheduled time whose run was submitted."""
    stamp = cron_job.metadata.annotation(names.RECORDED)
    return datetime.fromisoformat(stamp).astimezone(UTC) if stamp else None
