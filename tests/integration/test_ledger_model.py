"""Every order of the ledger's transitions, searched exhaustively on small runs over the real scripts.

A state is what the run has in Redis, without times and counters that only grow, and what each worker believes about the
chunk that it holds. From each state every move is made that workers and bad luck may make: claims, doubled deliveries,
commits whole and in part, of failures, with lost replies, steals, hand-backs, crashes, workers that vanish or come back
after their lease, expiry, a lost queue, retries. The search ends when no move leads to a state that was not seen. In
each state the properties of docs/guarantees.md must hold, and from each the run must be able to end.

Times are moves of their own: leases are long until a move lets one run out. The queue
delivers in any order, and any chunk once more.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import pytest
from redis import Redis

from piecework.keys import chunk_of_job, job_id
from piecework.ledger import Ledger
from piecework.records import Failure
from piecework.spans import indices, parse_spans
from tests.ledger_fixture import Chunk, at_pace, commit, sealed, set_all_to_the_past
from tests.server_fixture import ServerProcess

RUN = "model"
CRASH = Failure("Crash", "because")

_RESTORE = """
redis.call('FLUSHDB')
for i = 1, #ARGV, 3 do redis.call('RESTORE', ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
"""
_LOOK = """
local dumps = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if not string.find(key, ':events$') and not string.find(key, 'model:workers$') then
    dumps[#dumps + 1] = key
    dumps[#dumps + 1] = math.max(0, redis.call('PTTL', key))
    dumps[#dumps + 1] = redis.call('DUMP', key)
  end
end
return {
  dumps, redis.call('HMGET', KEYS[1], 'state', 'sealed', 'done', 'failed', 'total', 'cut'),
  redis.call('HGETALL', KEYS[2]),
  redis.call('ZRANGE', KEYS[3], 0, -1), redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[6]),
  redis.call('XRANGE', KEYS[7], '-', '+'), redis.call('XRANGE', KEYS[8], '-', '+'),
  redis.call('LRANGE', KEYS[15], 0, -1),
}
"""


class Held(NamedTuple):
    """What a worker believes of its chunk."""

    chunk: int
    next: int
    stop: int
    copy: bool = False


class State(NamedTuple):
    """All that two orders of moves may have in common: then they are one."""

    run: tuple[bytes | None, ...]
    chunks: tuple[tuple[object, ...], ...]
    waiting: tuple[int, ...]
    leases: tuple[tuple[int, bool], ...]
    delayed: tuple[tuple[int, bool], ...]
    copies: tuple[tuple[int, str, str], ...]
    results: tuple[int, ...]
    failures: tuple[int, ...]
    queue: tuple[int, ...]
    workers: tuple[Held | None, ...]


@dataclass(frozen=True)
class Instance:
    """A run, small enough."""

    total: int
    size: int
    workers: int
    retries: int = 0
    losses: int = 2
    """So many losses of workers fail an item."""
    faults: bool = True
    """Items fail, crash and vanish with their workers, too."""
    copies: bool = False
    """Who is idle does the last item of another as well."""


class Model:
    """One run on a server, put into any state and moved on from there."""

    def __init__(self, client: Redis, instance: Instance) -> None:
        self.client, self.instance = client, instance
        client.flushdb()
        self.ledger: Ledger = sealed(
            client,
            RUN,
            instance.total,
            instance.size,
            retries=instance.retries,
            crash_limit=2,
            loss_limit=instance.losses,
        )
        self._keys = self.ledger.keys.as_list()
        self._look: Any = client.register_script(_LOOK)
        self._restore: Any = client.register_script(_RESTORE)

    def look(self, workers: tuple[Held | None, ...]) -> tuple[State, list[bytes]]:
        """The state, and what `put` needs to come back to it."""
        dumps, run, packed, waiting, leases, delayed, copies, results, failures, queue = self._look(keys=self._keys)
        chunks = [Chunk.parse(*pair) for pair in zip(packed[::2], packed[1::2], strict=True)]
        told = sorted(
            (c.id, c.start, c.stop, c.next, c.careful, c.crashes, c.losses, c.attempt, c.owner) for c in chunks
        )
        state = State(
            tuple(run),
            tuple(told),
            tuple(sorted(map(int, waiting))),
            _scored(leases),
            _scored(delayed),
            _copies(copies),
            _recorded(results),
            _recorded(failures),
            tuple(sorted({cast(int, chunk_of_job(RUN, job.decode())) for job in queue})),
            workers,
        )
        return state, dumps

    def put(self, dumps: list[bytes]) -> None:
        """Go on from a state that was looked at."""
        self._restore(args=dumps)

    # --- moves: each is made from the state that is put, and gives what the workers believe afterwards

    def moves(self, state: State) -> Iterator[tuple[str, Callable[[], tuple[Held | None, ...]]]]:
        open_chunks = [cast(int, c[0]) for c in state.chunks if cast(int, c[3]) < cast(int, c[2])]
        for number, held in enumerate(state.workers):
            name = "ab"[number]
            if held is None:
                for chunk in state.queue:
                    yield f"{name} pops {chunk}", partial(self._pop, state, number, chunk)
                for chunk in open_chunks:
                    if chunk not in state.queue:
                        yield f"{name} gets {chunk} once more", partial(self._claim, state, number, chunk)
                if not state.queue and state.leases:
                    yield f"{name} steals", partial(self._steal, state, number)
                if self.instance.copies and state.leases:
                    yield f"{name} copies", partial(self._copy, state, number)
            elif held.copy:
                yield f"{name} commits its copy", partial(self._commit, state, number, 1)
                yield f"{name} loses its copy", partial(_with, state, number, None)
                yield f"{name} renews its copy", partial(self._renew, state, number)
            else:
                for count in {1, held.stop - held.next}:
                    yield f"{name} commits {count}", partial(self._commit, state, number, count)
                yield f"{name} hands back", partial(self._release, state, number)
                yield f"{name} vanishes", partial(_with, state, number, None)
                if self.instance.faults:
                    rest = held.stop - held.next
                    yield f"{name} commits, reply lost", partial(self._commit, state, number, rest, lost=True)
                    yield f"{name} fails 1", partial(self._commit, state, number, 1, fails=True)
                    yield f"{name} crashes", partial(self._crash, state, number)
        for chunk, expired in state.leases:
            if not expired:
                yield f"lease of {chunk} runs out", partial(self._past, state, self.ledger.keys.leases, chunk)
        for chunk, due in state.delayed:
            if not due:
                yield f"retry {chunk} is due", partial(self._past, state, self.ledger.keys.delayed, chunk)
        yield "somebody tends", partial(self._tend, state)
        for chunk, until, _ in state.copies:
            if until == "later":
                yield f"the copy of {chunk} runs out", partial(self._copy_past, state, chunk)
        if state.queue:
            yield "the queue is lost", partial(self._lose_the_queue, state)

    def _pop(self, state: State, number: int, chunk: int) -> tuple[Held | None, ...]:
        self.client.lrem(self.ledger.keys.queue, 0, job_id(RUN, chunk))
        return self._claim(state, number, chunk)

    def _claim(self, state: State, number: int, chunk: int) -> tuple[Held | None, ...]:
        claim = self.ledger.claim(chunk, "ab"[number], 3600)
        return _with(state, number, Held(chunk, claim.next, claim.stop) if claim else None)

    def _steal(self, state: State, number: int) -> tuple[Held | None, ...]:
        for chunk, _ in state.leases:
            at_pace(self.ledger, chunk, since=30, item_seconds=60)
        self.ledger.steal("ab"[number])
        return state.workers

    def _copy(self, state: State, number: int) -> tuple[Held | None, ...]:
        for chunk, _ in state.leases:
            at_pace(self.ledger, chunk, since=30, item_seconds=1)
        claim, _ = self.ledger.copy("ab"[number], 3600)
        return _with(state, number, Held(claim.chunk, claim.next, claim.stop, copy=True) if claim else None)

    def _renew(self, state: State, number: int) -> tuple[Held | None, ...]:
        held = cast(Held, state.workers[number])
        renewed, _, _ = self.ledger.renew(held.chunk, "ab"[number], 3600)
        return state.workers if renewed else _with(state, number, None)

    def _copy_past(self, state: State, chunk: int) -> tuple[Held | None, ...]:
        who = next(copy[2] for copy in state.copies if copy[0] == chunk)
        self.client.hset(self.ledger.keys.copies, str(chunk), f"1 {who}")
        return state.workers

    def _tend(self, state: State) -> tuple[Held | None, ...]:
        set_all_to_the_past(self.ledger, self.ledger.keys.waiting)
        self.ledger.tend()
        return state.workers

    def _commit(
        self, state: State, number: int, count: int, *, fails: bool = False, lost: bool = False
    ) -> tuple[Held | None, ...]:
        held = cast(Held, state.workers[number])
        attempt = next(cast(int, c[7]) for c in state.chunks if c[0] == held.chunk)
        again = fails and attempt < self.instance.retries
        failing = range(held.next, held.next + count) if fails else ()
        reply = commit(
            self.ledger,
            held.chunk,
            held.next,
            count,
            failing=() if again else failing,
            retries=dict.fromkeys(failing, 3600.0) if again else None,
            worker="ab"[number],
        )
        if lost:
            return state.workers
        stays = reply.status != "over" and reply.next < reply.stop
        return _with(state, number, Held(held.chunk, reply.next, reply.stop) if stays else None)

    def _release(self, state: State, number: int) -> tuple[Held | None, ...]:
        held = cast(Held, state.workers[number])
        self.ledger.release(held.chunk, "ab"[number], "because")
        return _with(state, number, None)

    def _crash(self, state: State, number: int) -> tuple[Held | None, ...]:
        held = cast(Held, state.workers[number])
        self.ledger.blame_crash(held.chunk, "ab"[number], held.next, CRASH, 2)
        return _with(state, number, None)

    def _past(self, state: State, zset: str, chunk: int) -> tuple[Held | None, ...]:
        self.client.zadd(zset, {str(chunk): 1})
        return state.workers

    def _lose_the_queue(self, state: State) -> tuple[Held | None, ...]:
        self.client.delete(self.ledger.keys.queue)
        return state.workers


def _scored(flat: list[bytes]) -> tuple[tuple[int, bool], ...]:
    """(chunk, whether its time is over)"""
    return tuple(sorted((int(chunk), float(score) == 1) for chunk, score in zip(flat[::2], flat[1::2], strict=True)))


def _copies(flat: list[bytes]) -> tuple[tuple[int, str, str], ...]:
    """(chunk, whether its time is over or it is finished, whose)"""
    found = []
    for chunk, text in zip(flat[::2], flat[1::2], strict=True):
        expiry, who = text.decode().split(" ")
        found.append((int(chunk), {"0": "finished", "1": "past"}.get(expiry, "later"), who))
    return tuple(sorted(found))


def _recorded(entries: list[Any]) -> tuple[int, ...]:
    """Indices in a stream, with those that are there twice."""
    return tuple(sorted(i for _, (_, spans, *_) in entries for i in indices(parse_spans(spans.decode(), "model"))))


def _with(state: State, number: int, held: Held | None) -> tuple[Held | None, ...]:
    return (*state.workers[:number], held, *state.workers[number + 1 :])


def _twins(state: State) -> State:
    """Of a state and those with the workers' names exchanged, the least: what one can do, the other can."""
    if len(state.workers) < 2:
        return state
    other = {"a": "b", "b": "a", "": ""}
    chunks = tuple((*c[:-1], other[cast(str, c[-1])]) for c in state.chunks)
    copies = tuple((chunk, until, other[who]) for chunk, until, who in state.copies)
    return min(state, state._replace(chunks=chunks, copies=copies, workers=state.workers[::-1]), key=repr)


def check(state: State, total: int) -> None:
    """What must hold in each state."""
    run_state, is_sealed, done, failed, told_total, cut = state.run
    assert (is_sealed, told_total, cut) == (b"1", b"%d" % total, b"%d" % total)
    places = [*state.results, *state.failures]
    still_open = []
    for number, start, stop, next_, *_ in state.chunks:
        assert cast(int, start) <= cast(int, next_) <= cast(int, stop)
        places += range(cast(int, next_), cast(int, stop))
        still_open += [number] if cast(int, next_) < cast(int, stop) else []
    assert sorted(places) == list(range(total)), "each item is recorded, or in one chunk"
    assert (done, failed) == (b"%d" % len(state.results), b"%d" % len(state.failures))
    known = [*state.waiting, *(c for c, _ in state.leases), *(c for c, _ in state.delayed)]
    assert sorted(known) == sorted(cast(list[int], still_open)), "each open chunk is in one place"
    owned = {c[0] for c in state.chunks if c[-1]} & set(still_open)
    assert owned == {c for c, _ in state.leases}
    assert all((until == "finished") == (chunk not in still_open) for chunk, until, _ in state.copies)
    if len(state.results) + len(state.failures) == total:
        assert run_state == (b"completed_with_failures" if state.failures else b"succeeded")
    else:
        assert run_state == b"running"


@pytest.fixture(scope="module")
def own_client() -> Iterator[Redis]:
    """A server of its own: it is emptied for each move."""
    with ServerProcess() as server:
        yield server.client()


larger = pytest.mark.skipif(not os.environ.get("PIECEWORK_TEST_MODEL"), reason="PIECEWORK_TEST_MODEL=1: takes minutes")


@pytest.mark.parametrize(
    "instance",
    [
        pytest.param(Instance(2, 2, 2, losses=1, faults=False), id="two workers, one chunk"),
        pytest.param(Instance(2, 2, 1), id="faults"),
        pytest.param(Instance(1, 1, 2, losses=1, faults=False, copies=True), id="a copy"),
        pytest.param(Instance(2, 2, 2, faults=False), id="two workers, more losses", marks=larger),
        pytest.param(Instance(3, 3, 1, faults=False), id="three items", marks=larger),
        pytest.param(Instance(2, 1, 2, faults=False), id="two workers, two chunks", marks=larger),
        pytest.param(Instance(2, 2, 1, retries=1), id="faults and retries", marks=larger),
        pytest.param(Instance(1, 1, 2, copies=True), id="a copy and faults", marks=larger),
    ],
)
def test_every_order_of_moves(own_client: Redis, instance: Instance) -> None:
    model = Model(own_client, instance)
    first, dumps = model.look((None,) * instance.workers)
    todo, moves = [(first, dumps)], 0
    leads_to: dict[State, set[State]] = {_twins(first): set()}
    how: dict[State, tuple[State | None, str]] = {_twins(first): (None, "sealed")}
    while todo:
        state, dumps = todo.pop()
        here = _twins(state)
        for name, move in model.moves(state):
            model.put(dumps)
            after, more = model.look(move())
            moves += 1
            there = _twins(after)
            if there not in leads_to:
                leads_to[there] = set()
                how[there] = (here, name)
                try:
                    check(after, instance.total)
                except AssertionError as error:
                    raise AssertionError(f"{error}\nafter: {_way(how, there)}\n{after}") from None
                if after.run[0] == b"running":
                    todo.append((after, more))
            leads_to[here].add(there)
    print(f"{instance}: {len(leads_to)} states, {moves} moves")
    stuck = set(leads_to) - _can_end(leads_to)
    assert not stuck, f"cannot end after: {_way(how, next(iter(stuck)))}"
    assert any(state.run[0] == b"succeeded" for state in leads_to)


def _can_end(leads_to: dict[State, set[State]]) -> set[State]:
    comes_from: dict[State, list[State]] = {state: [] for state in leads_to}
    for state, later in leads_to.items():
        for each in later:
            comes_from[each].append(state)
    todo = [state for state in leads_to if state.run[0] != b"running"]
    ends = set(todo)
    while todo:
        for earlier in comes_from[todo.pop()]:
            if earlier not in ends:
                ends.add(earlier)
                todo.append(earlier)
    return ends


def _way(how: dict[State, tuple[State | None, str]], state: State | None) -> str:
    moves: list[str] = []
    while state is not None:
        state, name = how[state]
        moves.append(name)
    return ", ".join(reversed(moves))
