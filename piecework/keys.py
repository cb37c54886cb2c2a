"""Every Redis key of piecework: its Redis type, who writes it, how long it lives.

All keys of a run carry the contract version and the run id, and there is a fixed number of them however many
items the run has (RQ's job hashes, one for each open chunk, come on top). They have no expiry while the run
is running, `--keep` seconds from the last change while it is being filled, and `--keep` seconds from its end.
`delete` removes them all, RQ's included.
"""

import re
from dataclasses import astuple, dataclass

from piecework.errors import UsageError

CONTRACT = 1
"""Version of keys, records and scripts. Producer and workers of a run must have the same."""

RUN_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
"""A run id is part of Redis keys, of RQ's queue and job names, and of Kubernetes names: a short DNS label."""

_CHUNK = re.compile(r"[1-9][0-9]{0,15}")
_PREFIX = f"piecework:{CONTRACT}"
_RQ_JOB = "rq:job:"

RUNS = f"{_PREFIX}:runs"
"""ZSET of run id by time of opening (ms). Producer; members go with their run."""


def checked_run_id(run: str) -> str:
    """Return `run` if it is a run id; raise `UsageError` with the rule if not."""
    if not RUN_ID.fullmatch(run):
        raise UsageError(f"run id {run!r} is not allowed: use 1 to 48 of a-z, 0-9 and '-', with no '-' at either end")
    return run


def queue_name(run: str) -> str:
    """Name of the run's RQ queue, as `rq info` shows it."""
    return f"piecework-{run}"


def job_id(run: str, chunk: int) -> str:
    """Id of the RQ job that delivers a chunk."""
    return f"piecework-{run}-{chunk}"


def chunk_of_job(run: str, rq_job_id: str) -> int | None:
    """The chunk that an RQ job delivers; None if the job is not one of this run's."""
    prefix, _, number = rq_job_id.rpartition("-")
    return int(number) if prefix == f"piecework-{run}" and _CHUNK.fullmatch(number) else None


@dataclass(frozen=True)
class RunKeys:
    """The keys of one run, in the order in which every script gets them as KEYS (see `lua/_prelude.lua`)."""

    run: str
    """HASH: state, specification, limits, counters. Scripts only."""
    chunks: str
    """HASH chunk -> "start stop next careful deliveries crashes losses attempt begun begun_ms item_ns owner". Scripts
    only.
    """
    waiting: str
    """ZSET chunk by time of enqueueing (ms): delivered by the RQ queue. Scripts only."""
    leases: str
    """ZSET chunk by expiry (ms): claimed by a worker. Scripts only."""
    delayed: str
    """ZSET chunk by due time (ms): retries. Scripts only."""
    copies: str
    """HASH chunk -> "expiry_ms worker": who else works on the last item of a leased chunk (`--speculate`); 0 and the
    worker that came second, once that is counted. Scripts only.
    """
    results: str
    """STREAM of results, one entry for each commit: s = spans, d = packed results, m = meta. `commit`
    appends.
    """
    failures: str
    """STREAM of recorded failures, fields as in `results`. `commit`, `blame`, `tend` append; `retry` empties
    it.
    """
    payload: str
    """HASH first index -> packed items of a block. `fill` writes."""
    blocks: str
    """ZSET first index of a block by itself: finds the block of an index. `fill` writes."""
    events: str
    """STREAM, capped: joins, leaves, claims, steals, copies, releases, crashes. Scripts only."""
    workers: str
    """ZSET worker by time last seen (ms). Scripts only."""
    template: str
    """HASH: the RQ job that every chunk is delivered as. `open` writes."""
    runs: str
    """ZSET, shared by all runs: see `RUNS`."""
    queue: str
    """LIST of RQ job ids: the run's RQ queue. Scripts push, RQ pops."""
    queues: str
    """SET, RQ's: all queues. The run's is in it from seal to end."""
    job_prefix: str
    """Prefix of the HASHes of RQ jobs, one for each open chunk. Scripts copy them from `template`."""
    intermediate: str
    """LIST, RQ's: jobs popped and not yet claimed."""
    started: str
    """ZSET, RQ's StartedJobRegistry."""
    failed_jobs: str
    """ZSET, RQ's FailedJobRegistry: jobs that the worker refused to run."""
    rq_workers: str
    """SET, RQ's: workers that listen on the run's queue."""
    all_rq_workers: str
    """SET, RQ's: all workers. `reap` and `delete` take dead ones out."""
    suspended: str
    """STRING, RQ's: set by `rq suspend`, for all RQ workers on the server."""

    def as_list(self) -> list[str]:
        """All keys in script order."""
        return list(astuple(self))


def nudge_channel(run: str, worker: str = "") -> str:
    """PUBSUB channel on which a worker hears that its chunk was cut short, or, by the word "over", that somebody else
    has done its item; without a worker, the one on which all hear that the run has been sealed, paused or resumed. Only
    to be quick: who hears nothing asks the ledger later.
    """
    return f"{_PREFIX}:{run}:nudge:{worker}"


def replicas_channel(run: str) -> str:
    """PUBSUB channel on which nobody listens: what is published there marks a place in what replicas are sent."""
    return f"{_PREFIX}:{run}:replicas"


def run_keys(run: str) -> RunKeys:
    """The keys of `run`."""
    base, queue = f"{_PREFIX}:{run}", queue_name(run)
    own = (
        "run",
        "chunks",
        "waiting",
        "leases",
        "delayed",
        "copies",
        "results",
        "failures",
        "payload",
        "blocks",
        "events",
    )
    return RunKeys(
        **{name: f"{base}:{name}" for name in own},
        workers=f"{base}:workers",
        template=f"{base}:template",
        runs=RUNS,
        queue=f"rq:queue:{queue}",
        queues="rq:queues",
        job_prefix=f"{_RQ_JOB}{queue}-",
        intermediate=f"rq:queue:{queue}:intermediate",
        started=f"rq:wip:{queue}",
        failed_jobs=f"rq:failed:{queue}",
        rq_workers=f"rq:workers:{queue}",
        all_rq_workers="rq:workers",
        suspended="rq:suspended",
    )
