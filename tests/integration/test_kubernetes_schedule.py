"""Schedules on the mock API server, and the times that they fire and miss."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from piecework.errors import UsageError
from piecework.keys import RUN_ID
from piecework.records import Status
from piecework.states import State
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_api import ClusterOptions
from piecework_producer.kubernetes_cluster import Cluster, connect
from piecework_producer.kubernetes_cronjob import MOST_NAME, ScheduleOptions
from piecework_producer.kubernetes_errors import ForeignJob, NotFound
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.kubernetes_schedule import (
    Schedules,
    beyond_history,
    due_times,
    recorded_time,
    run_id,
)
from tests.kubernetes_mock import KubernetesMock, recording

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
OWN = ("cronjobs", "serviceaccounts", "roles", "rolebindings")


@pytest.fixture
def mock() -> Iterator[KubernetesMock]:
    with KubernetesMock() as server:
        yield server


@pytest.fixture
def cluster(mock: KubernetesMock, tmp_path: Path) -> Iterator[Cluster]:
    with connect(ClusterOptions(kubeconfig=mock.kubeconfig(tmp_path))) as connection:
        yield connection


@pytest.fixture
def schedules(cluster: Cluster) -> Schedules:
    return Schedules(cluster)


def options(schedule: str = "0 * * * *") -> ScheduleOptions:
    pod = PodOptions(image="producer:1")
    return ScheduleOptions(name="night", schedule=schedule, pod=pod, arguments=("submit", "a:b"))


def test_create_update_suspend_delete(mock: KubernetesMock, schedules: Schedules) -> None:
    schedules.apply(options())
    schedules.apply(options("30 * * * *"))
    for plural in OWN:
        assert mock.names(plural) == ["piecework-night"]
    (found,) = schedules.all()
    assert (found.spec.schedule, found.spec.time_zone, found.spec.suspend) == ("30 * * * *", "Etc/UTC", False)
    owner = mock.object("roles", "piecework-night")["metadata"]["ownerReferences"][0]
    assert owner["uid"] == found.metadata.uid
    schedules.suspend("night", True)
    assert schedules.get("night").spec.suspend
    schedules.suspend("night", False)
    assert schedules.delete("night")
    assert [mock.names(plural) for plural in OWN] == [[], [], [], []]
    assert not schedules.delete("night")
    with pytest.raises(NotFound, match="no schedule night in namespace rec"):
        schedules.suspend("night", True)


def test_a_cron_job_of_somebody_else_is_never_touched(mock: KubernetesMock, schedules: Schedules) -> None:
    mock.put("cronjobs", {"metadata": {"name": "piecework-night"}, "spec": {"schedule": "1 1 1 1 1"}})
    before = mock.object("cronjobs", "piecework-night")
    for touch in (lambda: schedules.apply(options()), lambda: schedules.delete("night")):
        with pytest.raises(ForeignJob):
            touch()
    assert mock.object("cronjobs", "piecework-night") == before
    assert mock.names("roles") == []


def test_trigger(mock: KubernetesMock, schedules: Schedules) -> None:
    schedules.apply(options())
    job = schedules.trigger("night", NOON)
    assert schedules.trigger("night", NOON) == job
    assert mock.object("jobs", job)["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    firing = schedules.firing("night", job)
    assert firing.manual
    assert RUN_ID.fullmatch(firing.run)


def test_a_firing_takes_its_run_from_the_recorded_annotation(mock: KubernetesMock, schedules: Schedules) -> None:
    jobs = recording("jobs-of-cronjob")["response"]["body"]["items"]
    stamped = [job for job in jobs if names.SCHEDULED_TIME in job["metadata"].get("annotations", {})]
    assert stamped
    mock.put("jobs", stamped[0])
    firing = schedules.firing("every", stamped[0]["metadata"]["name"])
    assert not firing.manual
    stamp = datetime.fromisoformat(stamped[0]["metadata"]["annotations"][names.SCHEDULED_TIME])
    assert firing.time == stamp
    assert firing.run == f"every-{stamp:%Y%m%dt%H%M}"


def test_run_ids_fit() -> None:
    assert run_id("night", NOON) == "night-20261121t1200"
    assert RUN_ID.fullmatch(run_id("n" * MOST_NAME, NOON))
    with pytest.raises(UsageError, match="schedule name"):
        run_id("n" * (MOST_NAME + 1), NOON)


def test_missed_times_are_each_submitted_once(mock: KubernetesMock, schedules: Schedules) -> None:
    schedules.apply(options())
    firing = schedules.firing("night", schedules.trigger("night", NOON))
    firing = type(firing)("night", NOON, False)
    assert schedules.missed(firing, 10) == [], "nothing is missed before the first"
    schedules.record("night", NOON - 4 * HOUR)
    missed = schedules.missed(firing, 10)
    assert missed == [NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR]
    assert schedules.missed(firing, 2) == [NOON - 2 * HOUR, NOON - HOUR]
    assert schedules.missed(firing, 0) == []
    for time in [*missed, NOON]:
        schedules.record("night", time)
    schedules.record("night", NOON - 2 * HOUR)
    assert recorded_time(schedules.get("night")) == NOON, "it never moves back"
    assert schedules.missed(firing, 10) == []
    schedules.apply(options())
    assert recorded_time(schedules.get("night")) == NOON, "an update forgets nothing"


def test_recording_beside_other_writers(mock: KubernetesMock, schedules: Schedules) -> None:
    schedules.apply(options())
    conflict = {"kind": "Status", "message": "changed", "reason": "Conflict", "code": 409}
    mock.fail(409, method="PATCH", plural="cronjobs", body=conflict, times=2)
    schedules.record("night", NOON)
    assert recorded_time(schedules.get("night")) == NOON


def test_due_times_follow_the_time_zone() -> None:
    before_summer = datetime(2026, 3, 28, 0, 0, tzinfo=UTC)
    after_summer = datetime(2026, 3, 31, 0, 0, tzinfo=UTC)
    berlin = due_times("0 12 * * *", "Europe/Berlin", before_summer, after_summer, 10)
    assert [time.hour for time in berlin] == [11, 10, 10]
    assert due_times("0 * * * *", "Etc/UTC", NOON - HOUR, NOON, 10) == [NOON]
    with pytest.raises(UsageError, match="time zone"):
        due_times("0 * * * *", "Mars/Olympus", NOON, NOON, 1)
    with pytest.raises(UsageError, match="not a cron expression"):
        due_times("61 * * * *", "Etc/UTC", NOON, NOON, 1)


def test_history_limits() -> None:
    def over(run: str, state: State, ended: float) -> Status:
        return Status(
            run=run, state=state, paused=False, sealed=True, total=1, done=1, failed=0, duplicates=0,
            in_flight=0, workers=0, items_per_second=0, elapsed_seconds=0, eta_seconds=None, ended_at=ended,
        )  # fmt: skip

    runs = [
        over("a", State.SUCCEEDED, 1),
        over("c", State.SUCCEEDED, 3),
        over("b", State.SUCCEEDED, 2),
        over("x", State.FAILED, 1),
        over("y", State.COMPLETED_WITH_FAILURES, 2),
        over("z", State.RUNNING, 0),
    ]
    assert beyond_history(runs, 1, 1) == ["a", "b", "x"]
    assert beyond_history(runs, 3, 2) == []
    assert beyond_history(runs, 0, 0) == ["a", "b", "c", "x", "y"]
