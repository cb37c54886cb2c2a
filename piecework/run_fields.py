"""Whether the run's own record says what the rest of its ledger says; and what it should say.

A field that is missing or cannot be read is derived: the specification, the payload, the chunks and the streams each
tell some of the same.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from piecework.blocks import Blocks
from piecework.errors import PieceworkError
from piecework.findings import Finding
from piecework.keys import CONTRACT
from piecework.ledger import KEEP_SECONDS
from piecework.picture import Picture
from piecework.records import Spec, budget
from piecework.states import State


def spec_of(fields: Mapping[str, str]) -> Spec | None:
    """The specification; None if it cannot be read, or if it is one of another contract."""
    try:
        return msgspec.convert(json.loads(fields["spec"]), Spec) if fields["contract"] == str(CONTRACT) else None
    except (KeyError, ValueError, RecursionError, msgspec.ValidationError):
        return None


def is_sealed(fields: Mapping[str, str]) -> bool:
    """Whether the pile is whole: sealing sets three fields, and one of them is enough to tell."""
    begun = (State.RUNNING, State.SUCCEEDED, State.COMPLETED_WITH_FAILURES)
    return fields.get("sealed") == "1" or fields.get("started_ms", "").isdigit() or fields.get("state") in begun


def count(fields: Mapping[str, str], name: str) -> int | None:
    """A field that holds a number, if it does."""
    text = fields.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 17 else None


def total_of(fields: Mapping[str, str], spec: Spec, blocks: Blocks | None, last_stop: int) -> int:
    """How many items the run has: what most say of those that know. Not sealed: those in chunks.

    `last_stop` is where the last chunk ends.
    """
    if not is_sealed(fields):
        return count(fields, "cut") or 0
    if spec.total is not None:
        return spec.total
    told = [count(fields, name) for name in ("total", "filled", "cut")]
    told += [last_stop or None, (blocks.end or None) if blocks else None]
    votes = Counter(vote for vote in told if vote is not None)
    return max(votes, key=lambda vote: (votes[vote], vote), default=0)


def allowed_failures(spec: Spec, total: int) -> int:
    """The failure budget in items, as `seal` computes it; -1: none."""
    try:
        limit = budget(spec.max_failures)
    except PieceworkError:
        return -1
    if limit is None:
        return -1
    number, percent = limit
    return int(total * number / 100 + 1e-6) if percent else int(number)


def check_fields(
    picture: Picture, spec: Spec, total: int, done: int, failed: int, last_chunk: int
) -> Iterator[Finding]:
    """What is wrong with the fields of a sealed run, but its state."""
    fields = picture.fields
    for name in ("filled", "cut", "total"):
        yield from _should(fields, name, total, f"the run has {total} items", "total")
    yield from _should(fields, "done", done, f"the results hold {done} items", "total")
    yield from _should(fields, "failed", failed, f"the failures hold {failed} items", "total")
    made = count(fields, "chunk_count")
    if made is None or made < last_chunk:
        yield from _should(fields, "chunk_count", last_chunk, f"there is a chunk {last_chunk}")
    yield from _should(fields, "sealed", 1, "the run was begun")
    yield from _should(fields, "loss_limit", spec.loss_limit, "the specification says so")
    if spec.max_failures is not None or fields.get("failure_budget") != "-1":
        limit = allowed_failures(spec, total)
        yield from _should(fields, "failure_budget", limit, f"--max-failures is {spec.max_failures or 'not set'}")
    yield from _readable(fields, "duplicates", 0)
    yield from _readable(fields, "created_ms", int(picture.now_ms))
    yield from _readable(fields, "started_ms", count(fields, "created_ms") or int(picture.now_ms))
    if not count(fields, "keep_seconds"):
        yield from _should(fields, "keep_seconds", KEEP_SECONDS, "it is no lifetime")
    if fields.get("paused") not in ("0", "1"):
        yield from _should(fields, "paused", 0, "it is a flag")
    if "reason" not in fields:
        yield from _should(fields, "reason", "", "it is missing")


def check_state(picture: Picture, total: int, done: int, failed: int, limit: int) -> Iterator[Finding]:
    """Whether the state of a sealed run follows from what is recorded. Run `settle` after its steps."""
    told = picture.fields.get("state", "")
    state = State(told) if told in set(State) else None
    over_budget = 0 <= limit < failed
    if state is None or state is State.FILLING or (state.drained and done + failed < total):
        why = (
            f"{total - done - failed} of {total} items are not recorded" if state and state.drained else "it has begun"
        )
        if state is None:
            why = "that is no state"
        yield Finding("run", f"the run's state is {told!r}, but {why}", "it is running again", (("reopen",),))
        return
    if state is State.RUNNING and (over_budget or done + failed == total):
        why = f"{failed} items have failed, {limit} are allowed" if over_budget else "every item is recorded"
        yield Finding("run", f"the run's state is running, but {why}", "it ends", (("settle",),))
    elif state.drained and not over_budget:
        right = State.COMPLETED_WITH_FAILURES if failed else State.SUCCEEDED
        if state is not right:
            why = f"{failed} items have failed" if failed else "no item has failed"
            yield Finding("run", f"the run's state is {state}, but {why}", f"it is {right}", (("set", "state", right),))
    ended = picture.fields.get("ended_ms")
    if state.over and not (ended or "").isdigit():
        yield from _should(picture.fields, "ended_ms", int(picture.now_ms), "the run is over")
    elif not state.over and ended != "":
        yield from _should(picture.fields, "ended_ms", "", "the run is not over")


def _should(
    fields: Mapping[str, str], name: str, right: int | str, why: str, check: Literal["run", "total"] = "run"
) -> Iterator[Finding]:
    told = fields.get(name)
    if told != str(right):
        text = f"the run's {name} is {told[:40] if told else 'missing'}, but {why}"
        yield Finding(check, text, f"it is {right}" if right != "" else "it is empty", (("set", name, right),))


def _readable(fields: Mapping[str, str], name: str, otherwise: int) -> Iterator[Finding]:
    if count(fields, name) is None:
        yield from _should(fields, name, otherwise, "it is no number")
