"""What others do to the run's RQ queue: jobs twice, in another order, of somebody else, or none."""

from typing import cast

from rq.job import Job

from piecework.keys import job_id
from tests.chaos.stage import Stage

FOREIGN = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
"""A pickle that would start a command."""


_WHILE_IT_RUNS = """
if redis.call('HGET', KEYS[1], 'state') == 'running' then redis.call(ARGV[1], KEYS[2], ARGV[2]) end
"""
"""What is pushed when the run is over, nobody removes."""


def _push(stage: Stage, command: str, job: str | bytes) -> None:
    stage.pile.client.eval(_WHILE_IT_RUNS, 2, stage.ledger.keys.run, stage.ledger.keys.queue, command, job)


def deliver_twice(stage: Stage) -> None:
    """Each job that is on the queue again, and some that have been delivered."""
    client, keys = stage.pile.client, stage.ledger.keys
    queued = cast(list[bytes], client.lrange(keys.queue, 0, -1))
    again = [*queued, *(job_id(stage.pile.run, number).encode() for number in range(1, 6))]
    for job in again:
        client.copy(keys.template, f"rq:job:{job.decode()}")
        client.expire(f"rq:job:{job.decode()}", 3600)
        _push(stage, "RPUSH", job)


def reorder(stage: Stage) -> None:
    """The queue in another order."""
    client, queue = stage.pile.client, stage.ledger.keys.queue
    jobs = cast(list[bytes], client.lrange(queue, 0, -1))
    stage.rng.shuffle(jobs)
    for job in jobs:
        if client.lrem(queue, 1, job):  # type: ignore[arg-type]
            _push(stage, "LPUSH", job)


def foreign_jobs(stage: Stage) -> None:
    """Jobs of somebody else: of another function, pickled, without a hash, with one that is none, of other chunks."""
    client, queue = stage.pile.client, stage.ledger.keys.queue
    plain = Job.create("os.getcwd", id=f"foreign-{stage.happened}", connection=client, origin=queue)
    plain.save()
    client.hset("rq:job:foreign-pickle", mapping={"data": FOREIGN, "created_at": "2024-01-01T00:00:00Z"})
    client.set("rq:job:foreign-string", "x")
    chunkless = job_id(stage.pile.run, 999_999)
    for job in (plain.id, "foreign-pickle", "foreign-string", "foreign-nowhere", b"foreign-\xff", chunkless):
        _push(stage, "LPUSH", job)


def delete_the_queue(stage: Stage) -> None:
    """The run's queue, perhaps with its jobs."""
    client, keys = stage.pile.client, stage.ledger.keys
    client.delete(keys.queue)
    if stage.rng.random() < 0.5:
        for job in list(client.scan_iter(f"{keys.job_prefix}*")):
            client.delete(job)
