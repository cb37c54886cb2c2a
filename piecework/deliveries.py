"""Chunks that wait and are not delivered, and leases that are stale: what the workers of a run mend themselves."""

from collections.abc import Iterable, Iterator
from itertools import islice

from piecework.findings import Finding
from piecework.keys import job_id
from piecework.ledger import Ledger
from piecework.open_chunks import name_chunks
from piecework.picture import Picture
from piecework.records import Chunk
from piecework.run_fields import count
from piecework.states import State

_JOBS_AT_ONCE = 1000
_MOST_UNKNOWN = 1_000_000
"""As many chunks are looked for whose record is gone."""


def check_deliveries(ledger: Ledger, picture: Picture, chunks: list[Chunk], open_: list[Chunk]) -> Iterator[Finding]:
    """Chunks that wait and that RQ does not deliver: idle workers put them back. And the reverse."""
    keys = ledger.keys
    known = {chunk.id for chunk in chunks}
    made = min(count(picture.fields, "chunk_count") or 0, _MOST_UNKNOWN)
    if stray := _with_job(ledger, (number for number in range(1, made + 1) if number not in known)):
        text = f"{name_chunks(stray)}: RQ has a job ({keys.job_prefix}…), and the chunk's record is gone"
        yield Finding("queue", text, "the job is removed", tuple(("unplace", n) for n in sorted(stray)), error=False)
    if picture.fields.get("state") not in (State.FILLING, State.RUNNING):
        return
    client, waiting = ledger.client, picture.places["waiting"]
    with client.pipeline(transaction=True) as pipe:
        for key in (keys.queue, keys.intermediate):
            pipe.lrange(key, 0, -1)
        delivered = {job for jobs in pipe.execute() for job in jobs}
    placed = [chunk.id for chunk in open_ if b"%d" % chunk.id in waiting]
    lost = {number for number in placed if job_id(ledger.run, number).encode() not in delivered}
    lost |= set(placed) - _with_job(ledger, placed)
    if lost := {n for n in lost if client.zscore(keys.waiting, str(n)) is not None}:  # else claimed since
        text = f"{name_chunks(lost)}: waiting, but RQ does not deliver"
        yield Finding("queue", text, "on the queue again", tuple(("requeue", n) for n in sorted(lost)), error=False)


def _with_job(ledger: Ledger, numbers: Iterable[int]) -> set[int]:
    """Those of the chunks that have an RQ job."""
    found: set[int] = set()
    rest, client, prefix = iter(numbers), ledger.client, ledger.keys.job_prefix
    while some := list(islice(rest, _JOBS_AT_ONCE)):
        number = client.exists(*(prefix + str(each) for each in some))
        if number == len(some):
            found.update(some)
        elif number:
            found.update(each for each in some if client.exists(prefix + str(each)))
    return found


def check_leases(picture: Picture, open_: list[Chunk]) -> Iterator[Finding]:
    """Leases that have run out, or whose worker has left: the next call of `tend` gives the chunk to others."""
    for chunk in open_:
        expiry = picture.expiries.get(b"%d" % chunk.id)
        if expiry is None:
            continue
        why = []
        if expiry <= picture.now_ms:
            why.append(f"has run out {(picture.now_ms - expiry) / 1000:.1f} s ago")
        if chunk.owner.encode() not in picture.workers:
            why.append("belongs to a worker that has left")
        if why:
            text = f"the lease of chunk {chunk.id}, held by {chunk.owner or 'nobody'}, {' and '.join(why)}"
            yield Finding("leases", text, "", error=False)
