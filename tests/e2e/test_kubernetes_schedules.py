"""A schedule on a real cluster: what the CronJob controller makes of it, and times that were missed."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from piecework.ledger import Ledger
from piecework.states import State
from piecework_producer import kubernetes_labels as names
from piecework_producer.kubernetes_cronjob import ScheduleOptions, object_name
from piecework_producer.kubernetes_launcher import KubernetesLauncher
from piecework_producer.kubernetes_objects import JOBS, ROLES, SERVICE_ACCOUNTS
from piecework_producer.kubernetes_pod import PodOptions
from piecework_producer.kubernetes_schedule import Schedules, recorded_time, run_id
from piecework_producer.settings import RunSettings
from tests.e2e.conftest import Place
from tests.server_fixture import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def schedule(place: Place) -> Iterator[str]:
    """The name of a schedule that is removed in the end."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    yield name
    Schedules(place.cluster).delete(name)


def succeeded(ledger: Ledger) -> None:
    eventually(lambda: ledger.status().state is State.SUCCEEDED, timeout=120, message=ledger.status)
    assert ledger.status().done == 3


def test_a_schedule_fires_and_missed_times_are_made_up_for_once(place: Place, schedule: str) -> None:
    """The producer's part is done here: which image has a producer in it, the environment does not say."""
    schedules = Schedules(place.cluster)
    pod = PodOptions(image=place.image, command=("/bin/sh", "-c", "true"), requests={"cpu": "10m"})
    schedules.apply(ScheduleOptions(name=schedule, schedule="* * * * *", pod=pod, arguments=()))
    selector = f"{names.SCHEDULE}={schedule}"

    def fired() -> str:
        jobs, _ = place.cluster.list(JOBS, label_selector=selector)
        return next((job.metadata.name for job in jobs if job.metadata.annotation(names.SCHEDULED_TIME)), "")

    firing = schedules.firing(schedule, eventually(fired, timeout=150, message="the CronJob has fired"))
    schedules.suspend(schedule, True)
    assert not firing.manual
    assert abs(firing.time - datetime.now(UTC)) < timedelta(minutes=4)
    assert firing.run == run_id(schedule, firing.time)

    schedules.record(schedule, firing.time - timedelta(minutes=4))
    missed = schedules.missed(firing, 2)
    assert missed == [firing.time - timedelta(minutes=2), firing.time - timedelta(minutes=1)]
    for time in [*missed, *missed, firing.time]:  # some of them twice: the same run
        settings = RunSettings(run=run_id(schedule, time), exec="true {}", parallelism=1, grace=5.0)
        place.submit(settings, 3)
        schedules.record(schedule, time)
    assert recorded_time(schedules.get(schedule)) == firing.time
    assert schedules.missed(firing, 10) == []
    for time in [*missed, firing.time]:
        run = run_id(schedule, time)
        _, ledger = place.submit(RunSettings(run=run, exec="true {}", parallelism=1, grace=5.0), 3)
        succeeded(ledger)
        KubernetesLauncher(place.cluster, run).delete()
        ledger.delete()


def test_triggered_by_hand_and_deleted_without_a_trace(place: Place, schedule: str) -> None:
    schedules = Schedules(place.cluster)
    pod = PodOptions(image=place.image, command=("/bin/sh", "-c", "true"), requests={"cpu": "10m"})
    schedules.apply(ScheduleOptions(name=schedule, schedule="0 0 1 1 *", pod=pod, arguments=(), suspend=True))
    job = schedules.trigger(schedule, datetime.now(UTC))
    assert schedules.firing(schedule, job).manual
    eventually(lambda: place.cluster.get(JOBS, job).finished, timeout=150)
    assert schedules.delete(schedule)
    selector = f"{names.SCHEDULE}={schedule}"

    def gone() -> bool:
        return not (
            place.cluster.list(JOBS, label_selector=selector)[0]
            or place.cluster.list(ROLES, label_selector=selector)[0]
            or place.cluster.list(SERVICE_ACCOUNTS, label_selector=selector)[0]
        )

    eventually(gone, timeout=120, message=object_name(schedule))
