"""The ledger: the run's record in Redis of what is done. It is the truth; the queue is only a hint.

One method for each transition, one Lua script behind each, so that a process that dies at any line leaves the
transition either done or not begun. Whether a call may be repeated after a lost reply is said at each: all
may, and at worst an item is computed once more and refused. Redis errors (`redis.exceptions.RedisError`) pass
through.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self, cast

import msgspec
from redis import Redis

from piecework import codec
from piecework.damage import reading
from piecework.errors import ContractMismatch, RunIsOver, UnknownRun
from piecework.keys import CONTRACT, RUN_ID, RUNS, RunKeys, checked_run_id, nudge_channel, run_keys
from piecework.records import Claim, Committed, Failure, Spec, Status, Tended, pack_failures
from piecework.scripts import Scripts
from piecework.spans import Span, format_spans, parse_spans
from piecework.states import State

LEASE_SECONDS = 15.0
"""Default lease; the worker renews it every third of it."""
KEEP_SECONDS = 7 * 24 * 3600
"""Default lifetime of a run's keys after its end."""
_CUT_CHUNKS = 1000
COMMIT_SECONDS = 0.5
"""A worker commits what has gathered so often."""
_STEAL_WORTH_SECONDS = 0.1
"""Less work than that is done sooner where it is: a chunk costs about 0.02 s, most of it the fork."""
_LONG_ITEM_SECONDS = 1.5 * COMMIT_SECONDS
_LEASES_LOOKED_AT = 64
"""Of more leases a steal looks at so many, drawn at random, so that its cost does not grow with the workers."""
_COPY_TIMES = 3.0
"""An item is copied that takes so many times as long as those before it: the default of Spark's
`spark.speculation.multiplier` since 4.0 (SPARK-47720, https://github.com/apache/spark/pull/45858)."""
_MOST_INDEX = 1 << 53
"""Lua counts exactly up to here."""
_RQ_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_LOST_WORKERS = Failure(
    "WorkerLost", "worker after worker vanished while this item alone was in progress; nobody saw why"
)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _state(value: bytes) -> State | None:
    with reading("a run's state"):
        return State(_text(value)) if value else None


class Ledger:
    """The ledger of one run. Cheap to make; no call is sent before the first transition."""

    def __init__(self, client: Redis, run: str) -> None:
        self.client = client
        self.run = checked_run_id(run)
        self.keys: RunKeys = run_keys(run)
        self._scripts = Scripts(client, self.keys, run)

    @classmethod
    def find(cls, client: Redis, run: str) -> Self:
        """The ledger of a run that exists. Raises `UnknownRun`, `ContractMismatch`."""
        ledger = cls(client, run)
        ledger.spec()
        return ledger

    # --- the producer's transitions

    def open(
        self,
        spec: Spec,
        template: dict[str, Any],
        keep_seconds: int = KEEP_SECONDS,
        worker_arguments: Sequence[str] = (),
    ) -> bool:
        """Make the run, or continue it: True if it is new. `template` is the RQ job that delivers each chunk.

        `worker_arguments` are kept for who launches workers later (`worker_arguments`); they are not
        compared. Raises `SpecConflict` if the run exists with another specification. Safe to repeat.
        """
        fields: dict[str, str | int] = {
            "run": self.run,
            "contract": CONTRACT,
            "spec": json.dumps({name: getattr(spec, name) for name in spec.__struct_fields__}),
            "keep_seconds": keep_seconds,
            "loss_limit": spec.loss_limit,
            "worker_arguments": json.dumps(list(worker_arguments)),
        }
        flat = [part for pair in (*fields.items(), *template.items()) for part in pair]
        if self._scripts.call("open", len(fields), *flat):
            return True
        spec.conflict(self.spec(), self.run)
        return False

    def spec(self) -> Spec:
        """The specification the run was opened with. Raises `UnknownRun`, `ContractMismatch`."""
        with reading(f"run {self.run}, the specification"):
            contract, spec = self.client.hmget(self.keys.run, "contract", "spec")
            if spec is None or contract is None:
                raise self._unknown()
            if int(contract) != CONTRACT:
                raise ContractMismatch(
                    f"run {self.run} has contract version {int(contract)}, this piecework has {CONTRACT}: "
                    "use the piecework version that submitted it"
                )
            return msgspec.json.decode(spec, type=Spec)

    def worker_arguments(self) -> tuple[str, ...]:
        """The options of `piecework-worker` with which the run was submitted."""
        with reading(f"run {self.run}, the workers' options"):
            stored = self.client.hget(self.keys.run, "worker_arguments")
            return msgspec.json.decode(stored, type=tuple[str, ...]) if stored else ()

    def note_place(self, place: str) -> None:
        """Keep a word about where the run's workers are, for those who look at it later."""
        self._scripts.call("note", "place", place)

    def place(self) -> str:
        """What `note_place` kept; "" if nothing."""
        with reading(f"run {self.run}, its place"):
            return _text(self.client.hget(self.keys.run, "place") or b"")

    def filled(self) -> tuple[int, str]:
        """Number of items filled so far, and the digest of them. (0, "") for a new run."""
        with reading(f"run {self.run}, what is filled"):
            filled, digest = self.client.hmget(self.keys.run, "filled", "digest")
            return int(filled or 0), _text(digest or b"")

    def fill(self, start: int, count: int, packed: bytes, digest: str) -> tuple[bool, int]:
        """Append items start..start+count-1, packed by `codec.pack` (b"" for a range), in index order.

        Returns whether they were accepted, and the number of items filled: a refusal means that this or
        another producer has filled them before.
        """
        accepted, filled, _ = self._scripts.call("fill", start, count, packed, digest)
        return bool(accepted), int(filled)

    def cut(self, size: int) -> None:
        """Make chunks of `size` items of all that is filled and not cut yet. Safe to repeat after a crash."""
        with reading(f"run {self.run}, what is cut"):
            at = int(self.client.hget(self.keys.run, "cut") or 0)
        while True:
            at, filled, state = self._scripts.call("cut", at, size, _CUT_CHUNKS)
            if at >= filled or state != b"filling":
                return

    def seal(self, total: int, budget: tuple[float, bool] | None) -> State:
        """Say that the pile is whole: `total` items. `budget` is (N, False) or (percent, True) of failures
        allowed.

        Raises `RunIsOver` if the run is not being filled, or does not hold `total` items. Safe to repeat.
        """
        limit, percent = budget if budget is not None else (-1, False)
        sealed, state = self._scripts.call("seal", total, limit, int(percent), nudge_channel(self.run))
        if not sealed:
            raise RunIsOver(f"run {self.run} cannot be sealed with {total} items: it is {_text(state) or 'gone'}")
        return State(_text(state))

    def pause(self, paused: bool) -> State:
        """Let workers hand back and wait, or go on. Returns the state; raises `UnknownRun`."""
        return self._known(self._scripts.call("pause", int(paused), nudge_channel(self.run)))

    def abort(self, state: State, reason: str) -> State:
        """End the run as failed or cancelled. Returns the state that it is in then; raises `UnknownRun`."""
        return self._known(self._scripts.call("abort", state, reason))

    def retry(self) -> int:
        """Open the failed items again; returns how many. Raises `UnknownRun`, `RunIsOver` (cancelled, not
        sealed).
        """
        items, raw = self._scripts.call("retry")
        state = self._known(raw)
        if items < 0:
            unsealed = " and was never sealed" if state is State.FAILED else ""
            raise RunIsOver(f"run {self.run} is {state}{unsealed}: its failed items cannot be tried again")
        return int(items)

    def delete(self) -> bool:
        """Remove all keys of the run; False if there were none. Safe to repeat."""
        return bool(self._scripts.call("delete"))

    def reap(self, worker: str) -> int:
        """Release at once what a worker held that was seen to die; returns the number of chunks."""
        return int(self._scripts.call("reap", worker))

    def repair(self, version: bytes, steps: Sequence[Sequence[str | int | bytes]]) -> bytes:
        """Do steps of a repair (see `repair.lua`) in one go, and return the version that the run has then.

        b"" and nothing is done if the run is not at `version` any more.
        """
        flat = [part for name, *arguments in steps for part in (name, len(arguments), *arguments)]
        return bytes(self._scripts.call("repair", version, *flat))

    def lost(self) -> list[Span]:
        """Items whose payload is gone, as the last repair found: who has the input may `refill` them."""
        stored = self.client.hget(self.keys.run, "lost")
        return parse_spans(_text(stored), f"run {self.run}, lost items") if stored else []

    def stage(self, token: str, start: int, packed: bytes) -> None:
        """Hand over a block of lost items. Nobody sees it before `refill` with the same token."""
        self._scripts.call("refill", token, start, packed)

    def refill(self, token: str) -> None:
        """Put what was staged into the payload, and let a run go on that was paused for the lack of it."""
        while self._scripts.call("refill", token) > 0:
            pass

    # --- the worker's transitions

    def join(self, worker: str) -> State | None:
        """Note that a worker begins. None: the run is gone."""
        return _state(self._scripts.call("join", worker, "join", ""))

    def leave(self, worker: str, reason: str) -> State | None:
        """Note that a worker leaves. None: the run is gone."""
        return _state(self._scripts.call("join", worker, "leave", reason))

    def claim(self, chunk: int, worker: str, lease_seconds: float) -> Claim | None:
        """Take the lease of a chunk that the queue delivered. None: somebody holds it, or nothing is left of
        it.

        Safe to repeat after a lost reply: a worker works on one chunk at a time, so a lease that it has
        already and asks for again is one that it does not know of.
        """
        status, start, stop, next_, careful, attempt, deliveries, _ = self._scripts.call(
            "claim", chunk, worker, round(lease_seconds * 1000), datetime.now(UTC).strftime(_RQ_TIME)
        )
        if status != b"claimed":
            return None
        return self._given(Claim(chunk, start, stop, next_, careful > 0, attempt, deliveries))

    def _given(self, claim: Claim) -> Claim:
        with reading(f"run {self.run}, chunk {claim.chunk}"):
            if not 0 <= claim.start <= claim.next <= claim.stop <= _MOST_INDEX:
                raise ValueError(f"items {claim.start} to {claim.stop}, next {claim.next}")
        return claim

    def steal(self, worker: str) -> tuple[bool, float]:
        """Take about half of what is left of the chunk that will take its owner the longest, onto the queue's front.

        Returns whether there was something worth it, and the seconds after which to ask again (0: at the next
        occasion). The owner hears of it at its next commit, which a message on its channel brings about. Safe to
        repeat: at worst a chunk is split twice.
        """
        chunk, again_ms = self._scripts.call(
            "steal",
            worker,
            round(_STEAL_WORTH_SECONDS * 1e9),
            round(_LONG_ITEM_SECONDS * 1000),
            _LEASES_LOOKED_AT,
            nudge_channel(self.run),
        )
        return bool(chunk), again_ms / 1000

    def copy(self, worker: str, lease_seconds: float) -> tuple[Claim | None, float]:
        """Take a copy of a chunk whose last item another worker has in hand for far longer than it took for others.

        Returns the copy, and the seconds after which to ask again (0: at the next occasion). The copy is this worker's
        for `lease_seconds`, and for as long as it is renewed; the lease stays the owner's, and the first commit wins.
        Safe to repeat: after a lost reply nobody has that copy until it has run out.
        """
        chunk, start, stop, next_, attempt, deliveries, again_ms = self._scripts.call(
            "copy",
            worker,
            round(lease_seconds * 1000),
            round(_LONG_ITEM_SECONDS * 1000),
            _COPY_TIMES,
            _LEASES_LOOKED_AT,
        )
        claim = self._given(Claim(chunk, start, stop, next_, False, attempt, deliveries, copy=True)) if chunk else None
        return claim, again_ms / 1000

    def renew(self, chunk: int, worker: str, lease_seconds: float) -> tuple[bool, State | None, bool]:
        """Extend the lease, or the copy: (whether it is still this worker's, state, paused)."""
        renewed, state, paused = self._scripts.call("renew", chunk, worker, round(lease_seconds * 1000))
        return bool(renewed), _state(state), bool(paused)

    def commit(
        self,
        chunk: int,
        start: int,
        count: int,
        *,
        worker: str = "",
        careful: int = 0,
        results: tuple[list[Span], bytes] = ([], b""),
        failures: tuple[list[Span], bytes] = ([], b""),
        retries: dict[int, float] | None = None,
        meta: bytes = b"",
        begun: int = 0,
        item_seconds: float = 0.0,
    ) -> Committed:
        """Record the outcome of items start..start+count-1 of a chunk, or be told where the ledger is.

        `results` and `failures` are spans and what is packed for them; `retries` maps the index of an item
        that is to be tried again to the seconds until then. Together they must account for `count` items.
        `careful` is the number of items that the next commit may hold at most (0: no limit). `begun` is the index of
        the first item that the worker has not begun, `item_seconds` what an item takes it (0: not known): by these
        `steal` estimates. `worker` is whose outcomes these are: of two that are at the same item (`copy`) the other one
        is told. `count` 0 only asks. Safe to repeat: the second is refused.
        """
        args: list[str | bytes | int] = [chunk, start, count, careful]
        for spans, packed in (results, failures):
            args += [sum(length for _, length in spans), format_spans(spans), packed]
        args += [meta, begun, round(item_seconds * 1e9), worker, nudge_channel(self.run)]
        for index, delay in (retries or {}).items():
            args += [index, round(delay * 1000)]
        status, next_, stop, state, paused = self._scripts.call("commit", *args)
        return Committed(_text(status), int(next_), int(stop), _state(state), bool(paused))  # type: ignore[arg-type]

    def release(self, chunk: int, worker: str, reason: str, careful: bool = False) -> bool:
        """Hand the rest of a chunk back, uncharged. False: this worker did not hold it any more."""
        return bool(self._scripts.call("release", chunk, worker, int(careful), reason))

    def blame_crash(self, chunk: int, worker: str, index: int, failure: Failure, limit: int) -> bool | None:
        """Charge a crash to an item; at `limit` it is recorded as failed. True: recorded, None: not held any
        more.
        """
        return self._blame(chunk, worker, index, limit, -1, failure)

    def blame_failure(
        self, chunk: int, worker: str, index: int, failure: Failure, delay_seconds: float | None
    ) -> bool | None:
        """Record a failure of an item that had to be killed, or try it again later (None: no more)."""
        delay_ms = -1 if delay_seconds is None else round(delay_seconds * 1000)
        return self._blame(chunk, worker, index, 0, delay_ms, failure)

    def _blame(self, chunk: int, worker: str, index: int, limit: int, delay_ms: int, failure: Failure) -> bool | None:
        packed = pack_failures([failure])
        status, _ = self._scripts.call("blame", chunk, worker, index, limit, delay_ms, packed, b"")
        return None if status == b"refused" else status == b"failed"

    def tend(self, worker: str = "", most: int = 100) -> Tended:
        """Put back on the queue what is due; any worker may, at any time."""
        state, paused, waiting, leased, delayed, workers = self._scripts.call(
            "tend", worker, most, pack_failures([_LOST_WORKERS]), b""
        )
        return Tended(_state(state), bool(paused), waiting, leased, delayed, workers)

    # --- reading

    def status(self, lease_seconds: float = LEASE_SECONDS) -> Status:
        """One consistent picture of the run. Raises `UnknownRun`."""
        reply = self._scripts.call("status", round(2000 * lease_seconds))
        if not reply:
            raise self._unknown()
        with reading(f"run {self.run}, its counters"):
            return self._status(reply)

    def _status(self, reply: Any) -> Status:
        flat, in_flight, workers, waiting, leased, delayed, _, _, now_ms = reply
        pairs = zip(flat[::2], flat[1::2], strict=True)
        fields = {_text(name): _text(value) for name, value in pairs}
        state = State(fields["state"])
        sealed = fields["sealed"] == "1"
        recorded = int(fields["done"]) + int(fields["failed"])
        total = int(fields["total"] if sealed else fields["filled"])
        ended = int(fields["ended_ms"]) if fields["ended_ms"] else None
        begun = int(fields["started_ms"] or fields["created_ms"])
        elapsed = max(0.0, ((ended or now_ms) - begun) / 1000)
        rate = recorded / elapsed if elapsed > 0 else 0.0
        return Status(
            run=self.run,
            state=state,
            paused=fields["paused"] == "1",
            sealed=sealed,
            total=total,
            done=int(fields["done"]),
            failed=int(fields["failed"]),
            duplicates=int(fields["duplicates"]),
            in_flight=in_flight,
            workers=workers,
            items_per_second=round(rate, 3),
            elapsed_seconds=round(elapsed, 3),
            eta_seconds=round((total - recorded) / rate, 1) if rate > 0 and not state.over and sealed else None,
            reason=fields["reason"],
            waiting=waiting,
            leased=leased,
            delayed=delayed,
            created_at=int(fields["created_ms"]) / 1000,
            ended_at=ended / 1000 if ended else None,
        )

    def block_at(self, index: int) -> tuple[int, list[Any]]:
        """The block of items that holds `index`: (index of its first item, items). Raises `CorruptData`."""
        with reading(f"run {self.run}, the block of item {index}"):
            found = self.client.zrevrangebyscore(self.keys.blocks, index, "-inf", start=0, num=1)
            start = int(cast(bytes, found[0])) if found else -1
            packed = self.client.hget(self.keys.payload, str(start)) if found else None
        if packed is None:
            raise UnknownRun(f"run {self.run}: the payload of item {index} is gone; the run was deleted")
        return start, codec.unpack(cast(bytes, packed), f"run {self.run}, block {start}")

    def _unknown(self) -> UnknownRun:
        return UnknownRun(f"run {self.run} is not on this server; `piecework status` lists the runs that are")

    def _known(self, raw: bytes) -> State:
        state = _state(raw)
        if state is None:
            raise self._unknown()
        return state


def runs(client: Redis) -> list[str]:
    """All runs on the server, oldest first. Forgets those whose keys have expired."""
    with reading("the list of runs"):
        stored = [_text(name) for name in cast(list[bytes], client.zrange(RUNS, 0, -1))]
    names = [name for name in stored if RUN_ID.fullmatch(name)]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.exists(run_keys(name).run)
        alive = pipe.execute()
    gone = [name for name, exists in zip(names, alive, strict=True) if not exists]
    if gone:
        client.zrem(RUNS, *gone)
    return [name for name, exists in zip(names, alive, strict=True) if exists]
