"""The records that pass between the ledger and both sides: what a run is, what a claim gives, what a status
shows.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from piecework.codec import pack
from piecework.errors import CorruptData, SpecConflict, UsageError
from piecework.states import State

ItemsKind = Literal["range", "lines", "jsonl", "iterable"]


def handler_text(handler: str | None, command: str | None, shell: bool) -> str:
    """How a specification names a handler: `package.module:function`, `exec:CMD` or `shell:CMD`."""
    if handler is not None:
        return handler
    return f"{'shell' if shell else 'exec'}:{command}"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What makes two submissions the same run. A second one under the same id must agree in every field."""

    handler: str
    """See `handler_text`."""
    stdin: bool = False
    """The command gets each item on its standard input, as JSON."""
    batch: bool = False
    """The handler takes a list of items and returns as many results."""
    items: ItemsKind = "range"
    start: int = 0
    """First value of a range."""
    step: int = 1
    """Difference between the values of a range."""
    total: int | None = None
    """Number of items; None if only the end of the input tells."""
    retries: int = 0
    """How often an item is tried again after a failure."""
    max_failures: str | None = None
    """`N` or `P%`: the run has failed when more items than that have failed. None: no limit."""
    crash_limit: int = 3
    """An item that has killed its horse so often is recorded as failed."""
    loss_limit: int = 10
    """An item whose worker vanished so often in a row, while it was alone in progress, has failed."""

    def __post_init__(self) -> None:
        if self.step == 0:
            raise ValueError("a range with step 0")

    def conflict(self, other: "Spec", run: str) -> None:
        """Raise `SpecConflict` naming the first field in which `other`, the run on the server, differs."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise SpecConflict(
                    f"run {run} exists with another specification: its {name} is {theirs!r}, "
                    f"yours is {mine!r}. Use another --run ID, or delete the old run: piecework delete {run}"
                )


def budget(max_failures: str | None) -> tuple[float, bool] | None:
    """`N` or `P%` as (number, whether it is a percentage). Raises `UsageError`."""
    if max_failures is None:
        return None
    number, percent = max_failures.removesuffix("%"), max_failures.endswith("%")
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = -1
    if not 0 <= value <= (100 if percent else 1 << 50):
        raise UsageError(f"--max-failures {max_failures!r} is neither a number of items nor a percentage, such as 5%")
    return value, percent


class Failure(msgspec.Struct, frozen=True):
    """Why an item failed."""

    type: str
    """Name of the exception's class, or of what ended the item: Crash, TimeoutError, WorkerLost,
    CommandFailed.
    """
    message: str
    traceback: str = ""
    attempt: int = 1
    """How many attempts the item has had, this one included."""


_MOST_MESSAGE = 10_000


def pack_failures(failures: list[Failure]) -> bytes:
    """Pack failures for their stream; texts are cut to 10,000 characters and freed of lone surrogates."""

    def fit(text: str) -> str:
        text = text if len(text) <= _MOST_MESSAGE else f"{text[: _MOST_MESSAGE // 2]} … {text[-_MOST_MESSAGE // 2 :]}"
        return text.encode(errors="backslashreplace").decode()

    return pack([[fit(f.type), fit(f.message), fit(f.traceback), f.attempt] for f in failures])


def to_failure(fields: Any, where: str) -> Failure:
    """One failure as `pack_failures` stored it. Raises `CorruptData` naming `where`."""
    try:
        return Failure(*msgspec.convert(fields, tuple[str, str, str, int]))
    except msgspec.ValidationError as error:
        raise CorruptData(f"{where}: not a failure ({error})") from None


_CHUNK = re.compile(r"(\d{1,16}) (\d{1,16}) (\d{1,16})" + r" (\d+)" * 8 + " (.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it stands in Redis: items start..next-1 are recorded, next..stop-1 are open."""

    id: int
    start: int
    stop: int
    next: int
    careful: int = 0
    deliveries: int = 0
    crashes: int = 0
    losses: int = 0
    attempt: int = 0
    owner: str = ""
    begun: int = field(default=0, compare=False)
    """At `begun_ms` (the server's clock) the owner had begun the items before this one; `steal` estimates by it."""
    begun_ms: int = field(default=0, compare=False)
    item_ns: int = field(default=0, compare=False)
    """What an item takes; 0: not known."""

    @classmethod
    def parse(cls, number: bytes, packed: bytes) -> "Chunk":
        """From a field and a value of the chunks' hash. Raises `CorruptData`."""
        found = _CHUNK.fullmatch(packed.decode(errors="replace"))
        if found is None or not number.isdigit():
            raise CorruptData(f"chunk {number.decode(errors='replace')}: {packed[:80]!r} is no chunk")
        *numbers, owner = found.groups()
        start, stop, next_, careful, deliveries, crashes, losses, attempt, *estimate = map(int, numbers)
        counts = careful, deliveries, crashes, losses, attempt
        return cls(int(number), start, stop, next_, *counts, owner, *estimate)


class Claim(msgspec.Struct, frozen=True):
    """A chunk that a worker holds: items start..stop-1, of which next..stop-1 are still to do."""

    chunk: int
    start: int
    stop: int
    next: int
    careful: bool
    """The chunk was in progress when its horse or worker died: commit in small steps until that item is
    behind.
    """
    attempt: int
    """How often its items have failed before."""
    deliveries: int
    copy: bool = False
    """Another worker holds it: its last item is done a second time, and whoever commits first has done it."""


class Committed(msgspec.Struct, frozen=True):
    """The ledger's answer to a commit."""

    status: Literal["recorded", "refused", "over"]
    next: int
    """First item of the chunk that is not recorded; tells after a refusal where the ledger is."""
    stop: int
    """End of the chunk now: it may have been lowered."""
    state: State | None
    """None: the run is gone."""
    paused: bool


class Tended(msgspec.Struct, frozen=True):
    """What an idle worker learns."""

    state: State | None
    """None: the run is gone."""
    paused: bool
    waiting: int
    leased: int
    delayed: int
    workers: int
    """How many have joined and not left."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent picture of a run. `status --output json` promises the fields up to eta_seconds."""

    run: str
    state: State
    paused: bool
    sealed: bool
    total: int
    """Number of items; while the run is filling, the number filled so far."""
    done: int
    failed: int
    duplicates: int
    """Items that were computed once more and refused, or stopped, with `--speculate`, when the other was the first."""
    in_flight: int
    """Items in claimed chunks that are not recorded yet."""
    workers: int
    """Workers seen within the last two leases."""
    items_per_second: float
    """Items recorded per second since the run was sealed."""
    elapsed_seconds: float
    eta_seconds: float | None
    """None: not known (nothing recorded yet, or over)."""
    reason: str = ""
    """Why the run failed or was cancelled."""
    waiting: int = 0
    """Chunks on the queue."""
    leased: int = 0
    delayed: int = 0
    """Items that wait for their next attempt."""
    created_at: float = 0.0
    """Unix seconds, the server's clock."""
    ended_at: float | None = None
