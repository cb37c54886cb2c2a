"""Recomputes a run from what it has recorded, and says what is wrong with its ledger. Changes nothing.

A sound run has each index of its range in exactly one place: in one entry of the results, in one of the failures, or in
one open chunk; the counters, the state, the index of the payload and the lifetimes follow from that. Runs at work are
audited as they are at one moment: the small parts are read in one transaction, and the streams, to which workers only
append, up to where they ended then. What a server forgot that lost its last writes is not found, since nothing is wrong
with what it has.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from piecework.blocks import Blocks, read_blocks
from piecework.errors import CorruptData, RunIsOver, UnknownRun
from piecework.findings import Audit, Finding, Step, ranges
from piecework.keys import job_id
from piecework.ledger import Ledger
from piecework.picture import PLACES, Picture, look
from piecework.recorded import STREAMS, Recorded, WrongEntry
from piecework.records import Chunk, Spec
from piecework.run_fields import allowed_failures, check_fields, check_state, count, is_sealed, spec_of, total_of
from piecework.spans import Span, format_spans, spans_of
from piecework.states import State

_ATTEMPTS = 20
_JOBS_AT_ONCE = 1000
_MOST_UNKNOWN = 1_000_000
"""As many chunks are looked for whose record is gone."""
_OPENED = "opened again, in new chunks"


def audit(ledger: Ledger) -> Audit:
    """The verdict on a run, whether it is at work or over. Safe to repeat.

    Raises `UnknownRun` if nothing of the run is on the server.
    """
    return Auditor(ledger).audit()


class Auditor:
    """Audits one run, perhaps again and again: what it has read of the streams it does not read twice."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._recorded: Recorded | None = None
        self._total = 0
        self._blocks: tuple[object, Blocks] | None = None
        self.version = b""
        """Of the picture that the last audit is of."""

    def audit(self) -> Audit:
        """As the function of this name."""
        for _ in range(_ATTEMPTS):
            picture = look(self._ledger)
            self.version = picture.version
            spec = spec_of(picture.fields)
            if spec is None or picture.misused:
                return self._unreadable(picture)
            blocks = self._read_blocks(picture) if spec.items != "range" else None
            chunks, damaged = _parsed(picture)
            total = total_of(picture.fields, spec, blocks, max((chunk.stop for chunk in chunks), default=0))
            if self._recorded is None or self._total != total:
                self._recorded, self._total = Recorded(self._ledger, total), total
            if self._recorded.read_to(picture):
                return _Comparison(self._ledger, picture, spec, blocks, chunks, damaged, total, self._recorded).audit()
            self._recorded = None
        raise RunIsOver(
            f"run {self._ledger.run}: its streams are changed again and again while they are read (by `retry`, or by "
            "another repair); try again later"
        )

    def _read_blocks(self, picture: Picture) -> Blocks:
        known = (picture.blocks, picture.payload)
        if self._blocks is None or self._blocks[0] != known:
            self._blocks = known, read_blocks(self._ledger, picture)
        return self._blocks[1]

    def _unreadable(self, picture: Picture) -> Audit:
        """The verdict if there is no more to say than that: the specification is gone, or a key is no key of ours."""
        run, key = self._ledger.run, self._ledger.keys.run
        findings: list[Finding] = []
        if not any(lifetime != -2 for lifetime in picture.lifetimes.values()):
            raise UnknownRun(f"run {run} is not on this server; `piecework status` lists the runs that are")
        for misused in picture.misused:
            text = f"the key {misused} holds something else than piecework writes there"
            findings.append(Finding("keys", text, f"remove it (redis-cli DEL {misused}), then repair"))
        if spec_of(picture.fields) is None:
            what = "gone" if not picture.fields else "no record of this version of piecework"
            first = "" if not picture.fields else f"redis-cli DEL {key}; then "
            remedy = (
                f"{first}submit the same items under the same id, with no worker, then repair: what is recorded stays"
            )
            findings.append(Finding("run", f"the run's record {key} is {what}", remedy))
        told = picture.fields.get("state", "")
        return Audit(
            run=run,
            state=State(told) if told in set(State) else None,
            total=0, done=0, failed=0, open=0, entries=0, chunks=0,
            findings=tuple(findings), readable=False,
        )  # fmt: skip


def _parsed(picture: Picture) -> tuple[list[Chunk], dict[bytes, str]]:
    """The chunks that can be read, by number, and what is wrong with the others."""
    chunks: list[Chunk] = []
    damaged: dict[bytes, str] = {}
    for number, packed in picture.chunks.items():
        try:
            chunk = Chunk.parse(number, packed)
        except CorruptData as error:
            damaged[number] = str(error)
            continue
        if chunk.start <= chunk.next <= chunk.stop:
            chunks.append(chunk)
        else:
            damaged[number] = f"chunk {chunk.id} begins at {chunk.start}, is at {chunk.next} and ends at {chunk.stop}"
    return sorted(chunks, key=lambda chunk: chunk.id), damaged


class _Comparison:
    """One picture, compared with what the streams hold."""

    def __init__(
        self,
        ledger: Ledger,
        picture: Picture,
        spec: Spec,
        blocks: Blocks | None,
        chunks: list[Chunk],
        damaged: dict[bytes, str],
        total: int,
        recorded: Recorded,
    ) -> None:
        self._ledger, self._picture, self._spec, self._blocks = ledger, picture, spec, blocks
        self._chunks, self._damaged, self._total, self._recorded = chunks, damaged, total, recorded
        self._taken = recorded.indices.copy()
        """Recorded, or in one of the open chunks that were looked at."""
        self._open: list[Chunk] = []
        """What will be open."""
        self._settled = set(damaged)
        """Chunks that a finding names already."""
        self._over = False
        self._sealed = is_sealed(picture.fields)
        self._state = picture.fields.get("state", "")
        self._largest = max((chunk.stop - chunk.start for chunk in chunks), default=0) or total // 64 + 1

    def audit(self) -> Audit:
        """In the order in which the steps have to be done: the counters before what they count."""
        verdict = list(self._verdict())
        # A state that is not the right one says nothing about lifetimes and places.
        self._over = not verdict and self._state in set(State) and State(self._state).over
        parts = [self._entries(), self._divided(), self._missing(), self._misplaced()]
        later = [finding for part in parts for finding in part]
        lifetimes = () if verdict or self._state not in set(State) else self._lifetimes()
        first = [*self._fields(), *self._keys(), *lifetimes, *verdict, *self._payload()]
        findings = [*first, *later, *self._deliveries(), *self._leases()]
        if not self._sealed:
            anew = f"delete it (piecework delete {self._ledger.run} --force) and submit it again: nothing has begun"
            findings = [Finding(f.check, f.text, anew if f.error else f.remedy, (), f.error) for f in findings]
        counts = self._recorded.counts
        return Audit(
            run=self._ledger.run,
            state=State(self._state) if self._state in set(State) else None,
            total=self._total,
            done=counts["results"],
            failed=counts["failures"],
            open=len(self._taken) - len(self._recorded.indices),
            entries=sum(self._recorded.entries.values()),
            chunks=len(self._open),
            findings=tuple(findings),
        )

    # --- keys and fields

    def _keys(self) -> Iterator[Finding]:
        keys, picture = self._ledger.keys, self._picture
        if picture.lifetimes["template"] == -2:
            text = f"the key {keys.template}, the RQ job that delivers chunks, is gone: no chunk is delivered"
            yield Finding("keys", text, "made anew", (("template",),))
        if not picture.listed:
            text = f"the run is not in {keys.runs}: no list of runs shows it"
            yield Finding("keys", text, "listed again", (("list",),))
        if self._state == State.RUNNING and not picture.queue_known:
            text = f"the queue is not in {keys.queues}: RQ's tools do not show it"
            yield Finding("queue", text, "shown again", (("list",),), error=False)

    def _lifetimes(self) -> Iterator[Finding]:
        """None while the run is running; else its keys expire."""
        running = self._state == State.RUNNING
        wrong = {name: ms for name, ms in self._picture.lifetimes.items() if (ms >= 0 if running else ms == -1)}
        if wrong:
            names = ", ".join(getattr(self._ledger.keys, name) for name in wrong)
            text = f"expires in {min(wrong.values()) // 1000} s" if running else "would stay for ever"
            remedy = "without a lifetime" if running else "expires with the run"
            yield Finding("keys", f"{names}: {text}, and the run is {self._state}", remedy, (("lifetimes",),))

    def _fields(self) -> Iterator[Finding]:
        if not self._sealed:
            if self._recorded.counts != dict.fromkeys(STREAMS, 0):
                yield Finding("run", "the run was never begun, but has results or failures", "")
            return
        counts, last = self._recorded.counts, max((chunk.id for chunk in self._chunks), default=0)
        done, failed = counts["results"], counts["failures"]
        yield from check_fields(self._picture, self._spec, self._total, done, failed, last)

    def _verdict(self) -> Iterator[Finding]:
        if self._sealed:
            counts, limit = self._recorded.counts, allowed_failures(self._spec, self._total)
            yield from check_state(self._picture, self._total, counts["results"], counts["failures"], limit)

    def _payload(self) -> Iterator[Finding]:
        if self._blocks is None:
            return
        keys, blocks = self._ledger.keys, self._blocks
        for start in blocks.unknown:
            text = f"block {start} of the payload is not in its index {keys.blocks}"
            yield Finding("payload", text, "in the index again", (("block", start),))
        for field, why in blocks.damaged.items():
            text = f"block {field} of {keys.payload}: {why}"
            yield Finding("payload", text, "removed", (("unblock", field),))
        for field in blocks.gone:
            text = f"block {field} of the payload is in its index {keys.blocks}, but not in {keys.payload}"
            yield Finding("payload", text, "out of the index", (("unblock", field),))
        filled = self._total if self._sealed else count(self._picture.fields, "filled") or 0
        if not (lost := blocks.lost(filled)):
            return
        told, steps = format_spans(lost), list[Step]()
        if self._picture.fields.get("lost") != told:
            steps.append(("set", "lost", told))
        needed = any(self._recorded.indices.outside(*span) for span in lost)
        if needed and self._state == State.RUNNING and self._picture.fields.get("paused") == "0":
            steps.append(("set", "paused", 1))  # else the workers take such items up again and again
        yield Finding(
            "payload",
            f"the payload of {ranges(lost)} is gone (item 0 is the first of the input)",
            f"submit the same items under the id {self._ledger.run} again"
            + (", which puts it back; the run is paused until then" if needed else ", which puts it back"),
            tuple(steps),
        )

    # --- streams

    def _entries(self) -> Iterator[Finding]:
        for entry in self._recorded.wrong:
            name = f"entry {entry.id} of {getattr(self._ledger.keys, entry.stream)}"
            if entry.why:
                yield Finding("entries", f"{name}: {entry.why}", "removed", (("remove", entry.stream, entry.id),))
                continue
            told = [f"{ranges(entry.doubled)} again"] * bool(entry.doubled)
            told += [f"{ranges(entry.beyond)}, beyond the range"] * bool(entry.beyond)
            remedy = "only the rest of it stays" if entry.kept else "removed"
            yield Finding("indices", f"{name} records {' and '.join(told)}", remedy, (_cut(entry),))

    # --- chunks

    def _divided(self) -> Iterator[Finding]:
        """The open items of each chunk are neither recorded nor in another one."""
        for number, why in self._damaged.items():
            yield Finding("chunks", why, f"removed, and what was open in it {_OPENED}", (("drop", number),))
        leased = self._picture.places["leases"]
        by_worker = (chunk for chunk in self._chunks if b"%d" % chunk.id in leased)
        others = (chunk for chunk in self._chunks if b"%d" % chunk.id not in leased)
        for chunk in (chunk for chunks in (by_worker, others) for chunk in chunks):
            start, items = chunk.next, chunk.stop - chunk.next
            if chunk.stop > self._total:
                text = f"chunk {chunk.id} ends at {chunk.stop}, and the run has {self._total} items"
                yield Finding("chunks", text, f"removed, and what was open in it {_OPENED}", (("drop", chunk.id),))
                self._settled.add(b"%d" % chunk.id)
                continue
            if not items:
                continue
            free = self._taken.outside(start, items)
            if free == [(start, items)]:
                self._taken.add(start, items)
                self._open.append(chunk)
                continue
            name = f"chunk {chunk.id}, open from {start} to {chunk.stop - 1},"
            if recorded := self._recorded.indices.inside(start, items):
                told = f"{name} overlaps what is recorded: {ranges(recorded)}"
            else:
                told = f"{name} overlaps other open chunks: {ranges(self._taken.inside(start, items))}"
            if not free:
                yield Finding("chunks", told, "closed", (("chunk", chunk.id, chunk.start, chunk.stop, chunk.stop),))
                self._settled.add(b"%d" % chunk.id)
                continue
            first, length = free[0]
            self._taken.add(first, length)
            self._open.append(chunk)
            step: Step = ("chunk", chunk.id, chunk.start, first + length, first)
            yield Finding("chunks", told, f"left with {ranges([free[0]])}", (step,))

    def _missing(self) -> Iterator[Finding]:
        missing = self._taken.outside(0, self._total) if self._total else []
        if not missing:
            return
        what = "is" if sum(length for _, length in missing) == 1 else "are"
        yield Finding(
            "indices",
            f"{ranges(missing)} {what} in no result, no failure and no open chunk",
            _OPENED,
            tuple(("open", start, stop) for start, stop in self._pieces(missing)),
        )

    def _pieces(self, spans: list[Span]) -> Iterator[tuple[int, int]]:
        for start, length in spans:
            for at in range(start, start + length, self._largest):
                yield at, min(at + self._largest, start + length)

    def _misplaced(self) -> Iterator[Finding]:
        places = self._picture.places
        open_ = {b"%d" % chunk.id: chunk for chunk in self._open}
        for number in {number for name in PLACES for number in places[name]} - open_.keys() - self._settled:
            where = " and ".join(name for name in PLACES if number in places[name])
            told = number.decode(errors="replace")
            yield Finding("chunks", f"chunk {told} is in {where}, but not open", "taken out", (("unplace", number),))
        for number, chunk in open_.items():
            found = [name for name in PLACES if number in places[name]]
            if found == ["waiting"] or (len(found) == 1 and not self._over):
                continue
            where = " and ".join(found) or f"none of {', '.join(PLACES)}"
            text = f"chunk {chunk.id}, open from {chunk.next} to {chunk.stop - 1}, is in {where}"
            text += f", and the run is {self._state}" if self._over and found else ""
            yield Finding("chunks", text, "waiting", (("place", chunk.id),))

    # --- what mends itself

    def _deliveries(self) -> Iterator[Finding]:
        """Chunks that wait and that RQ does not deliver: idle workers put them back. And the reverse."""
        keys, picture = self._ledger.keys, self._picture
        known = {chunk.id for chunk in self._chunks}
        made = min(count(picture.fields, "chunk_count") or 0, _MOST_UNKNOWN)
        if stray := self._with_job(number for number in range(1, made + 1) if number not in known):
            text = f"{_chunks(stray)}: RQ has a job ({keys.job_prefix}…), and the chunk's record is gone"
            yield Finding(
                "queue", text, "the job is removed", tuple(("unplace", n) for n in sorted(stray)), error=False
            )
        if self._state not in (State.FILLING, State.RUNNING):
            return
        client, waiting = self._ledger.client, picture.places["waiting"]
        with client.pipeline(transaction=True) as pipe:
            for key in (keys.queue, keys.intermediate):
                pipe.lrange(key, 0, -1)
            delivered = {job for jobs in pipe.execute() for job in jobs}
        placed = [chunk.id for chunk in self._open if b"%d" % chunk.id in waiting]
        lost = {number for number in placed if job_id(self._ledger.run, number).encode() not in delivered}
        lost |= set(placed) - self._with_job(placed)
        if lost := {n for n in lost if client.zscore(keys.waiting, str(n)) is not None}:  # else claimed since
            text = f"{_chunks(lost)}: waiting, but RQ does not deliver"
            yield Finding("queue", text, "on the queue again", tuple(("requeue", n) for n in sorted(lost)), error=False)

    def _with_job(self, numbers: Iterable[int]) -> set[int]:
        """Those of the chunks that have an RQ job."""
        found: set[int] = set()
        rest, client, prefix = iter(numbers), self._ledger.client, self._ledger.keys.job_prefix
        while some := list(islice(rest, _JOBS_AT_ONCE)):
            number = client.exists(*(prefix + str(each) for each in some))
            if number == len(some):
                found.update(some)
            elif number:
                found.update(each for each in some if client.exists(prefix + str(each)))
        return found

    def _leases(self) -> Iterator[Finding]:
        """Leases that have run out, or whose worker has left: the next call of `tend` gives the chunk to others."""
        picture = self._picture
        for chunk in self._open:
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


def _chunks(numbers: Iterable[int]) -> str:
    return ranges(spans_of(sorted(numbers))).replace("item", "chunk", 1)


def _cut(entry: WrongEntry) -> Step:
    """The step that leaves of an entry what is not recorded elsewhere; `repair` reads that from the entry."""
    if not entry.kept:
        return ("remove", entry.stream, entry.id)
    return ("replace", entry.stream, entry.id, *(number for piece in entry.kept for number in piece))
