"""Recomputes a run from what it has recorded, and says what is wrong with its ledger. Changes nothing.

A sound run has each index of its range in exactly one place: in one entry of the results, in one of the failures, or in
one open chunk; the counters, the state, the index of the payload and the lifetimes follow from that. Runs at work are
audited as they are at one moment: the small parts are read in one transaction, and the streams, to which workers only
append, up to where they ended then. What a server forgot that lost its last writes is not found, since nothing is wrong
with what it has.
"""

from collections.abc import Iterator

from piecework.blocks import Blocks, read_blocks
from piecework.deliveries import check_deliveries, check_leases
from piecework.errors import RunIsOver, UnknownRun
from piecework.findings import Audit, Finding, Step, ranges
from piecework.ledger import Ledger
from piecework.open_chunks import OpenChunks, check_copies, parse_chunks
from piecework.picture import Picture, look
from piecework.recorded import STREAMS, Recorded, WrongEntry
from piecework.records import Chunk, Spec
from piecework.run_fields import allowed_failures, check_fields, check_state, count, is_sealed, spec_of, total_of
from piecework.spans import format_spans
from piecework.states import State

_ATTEMPTS = 20


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
            chunks, damaged = parse_chunks(picture)
            total = total_of(picture.fields, spec, blocks, max((chunk.stop for chunk in chunks), default=0))
            if self._recorded is None or self._total != total:
                self._recorded, self._total = Recorded(self._ledger, total), total
            if self._recorded.read_to(picture):
                return _Comparison(self._ledger, picture, spec, blocks, total, self._recorded).audit(chunks, damaged)
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


class _Comparison:
    """One picture, compared with what the streams hold."""

    def __init__(
        self, ledger: Ledger, picture: Picture, spec: Spec, blocks: Blocks | None, total: int, recorded: Recorded
    ) -> None:
        self._ledger, self._picture, self._spec, self._blocks = ledger, picture, spec, blocks
        self._total, self._recorded = total, recorded
        self._sealed = is_sealed(picture.fields)
        self._state = picture.fields.get("state", "")

    def audit(self, chunks: list[Chunk], damaged: dict[bytes, str]) -> Audit:
        """In the order in which the steps have to be done: the counters before what they count."""
        picture = self._picture
        verdict = list(self._verdict())
        # A state that is not the right one says nothing about lifetimes and places.
        trusted = not verdict and self._state in set(State)
        over = self._state if trusted and State(self._state).over else None
        compared = OpenChunks(picture, chunks, damaged, self._total, self._recorded.indices, over)
        findings = [
            *self._fields(max((chunk.id for chunk in chunks), default=0)),
            *self._keys(),
            *(self._lifetimes() if trusted else ()),
            *verdict,
            *self._payload(),
            *self._entries(),
            *compared.findings(),
            *check_deliveries(self._ledger, picture, chunks, compared.open),
            *check_leases(picture, compared.open),
            *check_copies(self._ledger.keys.copies, picture, chunks),
        ]
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
            open=len(compared.taken) - len(self._recorded.indices),
            entries=sum(self._recorded.entries.values()),
            chunks=len(compared.open),
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

    def _fields(self, last_chunk: int) -> Iterator[Finding]:
        if not self._sealed:
            if self._recorded.counts != dict.fromkeys(STREAMS, 0):
                yield Finding("run", "the run was never begun, but has results or failures", "")
            return
        counts = self._recorded.counts
        done, failed = counts["results"], counts["failures"]
        yield from check_fields(self._picture, self._spec, self._total, done, failed, last_chunk)

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


def _cut(entry: WrongEntry) -> Step:
    """The step that leaves of an entry what is not recorded elsewhere; `repair` reads that from the entry."""
    if not entry.kept:
        return ("remove", entry.stream, entry.id)
    return ("replace", entry.stream, entry.id, *(number for piece in entry.kept for number in piece))
