"""The run's RQ queue in strange hands: foreign jobs, a lost queue, RQ's commands, `rq suspend`, `rq info`."""

import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rq import Queue, Worker
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.serializers import DefaultSerializer, JSONSerializer
from rq.suspension import resume, suspend
from rq.worker import WorkerStatus

from piecework.keys import job_id, queue_name
from piecework_worker.registration import Registration
from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import Pile, squares


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    """For what concerns all RQ workers on a server."""
    with ServerProcess() as process:
        yield process


@pytest.fixture
def pile(server: ServerProcess, tmp_path: Path) -> Iterator[Pile]:
    with Pile(server, tmp_path) as pile:
        yield pile


class Explosive:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_foreign_jobs_are_refused_and_never_executed(pile: Pile, tmp_path: Path) -> None:
    pile.submit("square", 20, 5)
    exploded, client = tmp_path / "exploded", pile.client
    queue = Queue(queue_name(pile.run), connection=client, serializer=JSONSerializer)
    keys = pile.ledger.keys

    def push(name: str) -> None:
        client.lpush(keys.queue, name)

    touch = f"touch {exploded}"
    queue.enqueue("os.system", touch, job_id=f"{pile.run}-other", at_front=True)
    queue.enqueue("os.system", touch, job_id=job_id(pile.run, 1000), at_front=True)
    pickling = Queue(queue_name(pile.run), connection=client, serializer=DefaultSerializer)
    pickling.enqueue("os.system", Explosive(exploded), job_id=f"{pile.run}-pickled", at_front=True)
    pickling.enqueue("os.system", touch, job_id=job_id(pile.run, 1001), at_front=True)
    for name, fields in (
        (f"{pile.run}-garbage", {"data": b"\x00\xff", "created_at": b"yesterday"}),
        (f"{pile.run}-meta", {"data": zlib.compress(b"[1]"), "meta": pickle.dumps(Explosive(exploded))}),
        (f"{pile.run}-empty", {"nothing": b"at all"}),
    ):
        for field, value in fields.items():
            client.hset(f"rq:job:{name}", field, value)
        push(name)
    client.set(f"rq:job:{pile.run}-string", "a string")
    push(f"{pile.run}-string")
    client.lpush(keys.queue, b"\xff\xfe")
    push("no-such-job")
    of_another_run = pile.job(1)
    of_another_run.id = job_id("another-run", 1)
    of_another_run.save()
    push(of_another_run.id)
    unknown = pile.job(4711)
    unknown.save()
    push(unknown.id)

    status = pile.drained()
    assert pile.outcomes() == squares(20)
    assert status.done == 20
    assert not exploded.exists()
    failed = set(FailedJobRegistry(queue=queue).get_job_ids())
    assert {f"{pile.run}-other", f"{pile.run}-pickled", job_id(pile.run, 1000), of_another_run.id} <= failed
    assert "refused job" in pile.workers[0].log
    pile.ledger.delete()
    client.delete(*(f"rq:job:{pile.run}-{name}" for name in ("garbage", "empty", "string")))
    left = [key for key in client.scan_iter() if pile.run.encode() in key or b"another-run" in key]
    assert left == []


def test_lost_queue_is_made_again(pile: Pile) -> None:
    pile.submit("slow", 40, 4)
    worker = pile.worker()
    pile.wait_recorded(4)
    pile.client.delete(pile.ledger.keys.queue, pile.ledger.keys.intermediate)
    assert worker.exit_code() == 0
    assert pile.outcomes() == squares(40)


def test_duplicate_deliveries_change_nothing(pile: Pile) -> None:
    pile.submit("slow", 40, 10)
    for _ in range(5):
        pile.client.rpush(pile.ledger.keys.queue, *(job_id(pile.run, chunk) for chunk in (1, 2, 3, 4)))
    status = pile.drained(workers=2)
    assert pile.outcomes() == squares(40)
    assert status.duplicates == 0


def test_suspend_and_resume(own_server: ServerProcess, tmp_path: Path) -> None:
    with Pile(own_server, tmp_path) as pile:
        suspend(pile.client)
        pile.submit("square", 40, 10)
        worker = pile.worker()

        def states() -> list[str]:
            return [each.get_state() for each in Worker.all(connection=pile.client)]

        eventually(lambda: states() == [WorkerStatus.SUSPENDED])
        assert pile.recorded == 0
        resume(pile.client)
        assert worker.exit_code() == 0


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_commands_stop_a_chunk_and_charge_nobody(pile: Pile, isolation: str) -> None:
    pile.submit("slow", 60, 60)
    worker = pile.worker("--isolation", isolation, "--name", f"commanded-{pile.run}")
    name = f"commanded-{pile.run}"
    eventually(lambda: pile.client.pubsub_numsub(f"rq:pubsub:{name}")[0][1])
    pile.client.publish(f"rq:pubsub:{name}", "no JSON at all")
    for number, recorded in enumerate((5, 20), 1):
        pile.wait_recorded(recorded)
        if number == 1:
            send_stop_job_command(pile.client, job_id(pile.run, 1), serializer=JSONSerializer)
        else:
            send_kill_horse_command(pile.client, name)
            if isolation == "none":  # RQ sees no horse to kill
                break
        wait_released(pile, number)
    assert worker.exit_code() == 0
    assert pile.outcomes() == squares(60)
    assert pile.events("crash") == []


def wait_released(pile: Pile, number: int) -> None:
    eventually(lambda: len(pile.events("release")) >= number)


def test_shutdown_command(pile: Pile) -> None:
    pile.submit("slow", 60, 60)
    name = f"shut-{pile.run}"
    worker = pile.worker("--name", name)
    pile.wait_recorded(5)
    send_shutdown_command(pile.client, name)
    assert worker.exit_code() == 75
    assert pile.status.leased == 0
    assert Worker.all(connection=pile.client) == []


def test_rq_shows_queue_and_workers(own_server: ServerProcess, tmp_path: Path) -> None:
    with Pile(own_server, tmp_path) as pile:
        pile.submit("slow", 200, 20)
        worker = pile.worker("--name", "shown")
        pile.wait_recorded(2)
        queue = queue_name(pile.run)
        (seen,) = Queue.all(connection=pile.client, serializer=JSONSerializer)
        assert seen.name == queue
        assert seen.count > 0
        assert all(str(job.func_name).startswith("piecework_worker.") for job in seen.jobs)
        (registered,) = Worker.all(connection=pile.client, queue=seen)
        assert (registered.name, registered.get_state()) == ("shown", WorkerStatus.BUSY)
        assert registered.pid == worker.pid
        busy_with = registered.get_current_job_id()
        assert busy_with
        assert Job.fetch(busy_with, connection=pile.client, serializer=JSONSerializer).worker_name == "shown"
        assert busy_with in seen.started_job_registry.get_job_ids()
        rq = [str(Path(sys.executable).with_name("rq")), "info", "--url", own_server.url]
        told = subprocess.run(rq, capture_output=True, text=True, check=True, timeout=20).stdout
        assert queue in told
        assert "shown" in told
        assert "1 workers, 1 queues" in told
        pile.ledger.pause(True)
        pile.ledger.delete()
        assert worker.exit_code() == 78
        assert Worker.all(connection=pile.client) == []
        assert list(pile.client.scan_iter()) == []


def test_what_rq_is_told_of_a_run_that_is_gone_has_a_lifetime(pile: Pile) -> None:
    """A worker that was away for long, and writes what it has to write when all has expired, or the run is deleted."""
    pile.submit("square", 20, 5)
    client, ledger = pile.client, pile.ledger
    queue = Queue(queue_name(pile.run), connection=client, serializer=JSONSerializer)
    worker: Any = Worker([queue], connection=client, serializer=JSONSerializer, name=f"{pile.run}-w")
    worker.ledger = ledger
    job = Job.fetch(job_id(pile.run, 1), connection=client, serializer=JSONSerializer)
    registration = Registration(worker)
    ledger.delete()
    told: list[Callable[[], None]] = [
        registration.begin,
        lambda: registration.state(WorkerStatus.IDLE),
        registration.stay,
        lambda: registration.started(job),
        lambda: registration.beat(job),
        lambda: registration.ended(job),
    ]
    for number, tell in enumerate(told):
        registration._due = 0.0
        tell()
        made = [key for key in client.scan_iter() if pile.run.encode() in key]
        assert made, number
        assert [key for key in made if client.ttl(key) < 0] == [], number
        client.delete(*made)
    client.srem("rq:workers", worker.key)


def test_a_claim_is_shown_to_rq_if_the_job_is_there(pile: Pile) -> None:
    pile.submit("square", 20, 5)
    first, second = (job_id(pile.run, number) for number in (1, 2))
    pile.client.delete(f"rq:job:{second}")
    assert pile.ledger.claim(1, "w", 60)
    assert pile.ledger.claim(2, "w", 60)
    job = Job.fetch(first, connection=pile.client, serializer=JSONSerializer)
    assert (job.get_status(), job.worker_name) == (JobStatus.STARTED, "w")
    assert job.started_at is not None
    assert job.started_at == job.last_heartbeat
    assert not pile.client.exists(f"rq:job:{second}")
