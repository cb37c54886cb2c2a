"""Says whether a run that is over is what it must be, from nothing but the server: the streams, the counters, the keys.

`piecework audit` is asked beside it, and must agree.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from redis import Redis

from piecework import codec
from piecework.audit import audit
from piecework.keys import RUNS
from piecework.ledger import Ledger
from piecework.spans import indices, parse_spans
from tests.chaos.work import Work

_SHARED = {RUNS, "rq:workers", "rq:queues"}
"""Keys of all runs: what is in them goes with the runs."""


@dataclass
class Examined:
    """What is wrong with a run, and what it had."""

    items: int = 0
    duplicates: int = 0
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)


def examine(client: Redis, run: str, work: Work, foreign: str = "foreign") -> Examined:
    """Examine a run that is over, and delete it. Keys that have `foreign` in their name are somebody else's."""
    ledger = Ledger(client, run)
    found = _compare(client, ledger, work)
    found.problems += [f"audit: {finding.text}" for finding in audit(ledger).findings]
    left = [key.decode() for key in client.scan_iter(count=1000)]
    immortal = [key for key in left if client.ttl(key) == -1 and key not in _SHARED and foreign not in key]
    found.problems += [f"the key {key} would stay for ever" for key in immortal]
    ledger.delete()
    left = [key.decode() for key in client.scan_iter(count=1000)]
    found.problems += [
        f"the key {key} is left by delete"
        for key in left
        if run in key and foreign not in key and client.ttl(key) <= 0  # jobs that came when the run was over, for one
    ]
    return found


def _compare(client: Redis, ledger: Ledger, work: Work) -> Examined:
    recorded: Counter[int] = Counter()
    wrong: list[str] = []
    counts = {"results": 0, "failures": 0}
    for stream in counts:
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], client.xrange(getattr(ledger.keys, stream)))
        for _, fields in entries:
            spans = list(indices(parse_spans(fields[b"s"].decode(), stream)))
            values = codec.unpack(fields[b"d"], stream)
            counts[stream] += len(spans)
            recorded.update(spans)
            for index, value in zip(spans, values, strict=True):
                result = value if stream == "results" else None
                if index < work.total and result != work.expected(index):
                    wrong.append(f"item {index} has {value!r} in the {stream}")
    status = ledger.status()
    found = Examined(
        items=len(recorded),
        duplicates=status.duplicates,
        lost=len(set(range(work.total)) - set(recorded)),
        doubled=sum(count > 1 for count in recorded.values()),
        problems=wrong[:5],
    )
    for what, is_so in {
        f"{found.lost} items are lost": found.lost > 0,
        f"{found.doubled} items are there twice": found.doubled > 0,
        f"items beyond the range: {max(recorded, default=0)}": max(recorded, default=0) >= work.total,
        f"it ended as {status.state} ({status.reason}), not as {work.verdict}": status.state is not work.verdict,
        f"the counters say {status.done} done, {status.failed} failed of {status.total}; the streams hold {counts}": (
            (status.done, status.failed, status.total) != (counts["results"], counts["failures"], work.total)
        ),
    }.items():
        if is_so:
            found.problems.append(what)
    return found
