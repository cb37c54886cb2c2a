"""Filling a queue with JSON lines of 100 bytes: how fast, and how much of the server's memory does it take?

A million lines are read from a file, parsed, and put on the server: by piecework until the run is sealed, by RQ with
`Queue.enqueue_many` in batches of 1,000 (fewer lines, since it takes longer). Lines are like those of a catalogue: a
running number, a random hash, names of a few, numbers of a few digits; the random ones have a hash of 64 digits
instead, of which nothing but half can be saved. Memory is the growth of `used_memory` on a server that has nothing
else, divided by the bytes of the lines. It has the append-only file on.
"""

import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from rq import Queue
from rq.serializers import JSONSerializer

from bench._harness import Claim, Table, arguments, interleaved, publish, repetitions
from bench._piecework import private_server
from piecework.items import jsonl
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework_producer.pile import fill
from piecework_producer.session import Session

LINE_BYTES = 100
BATCH = 1000
KINDS = ("catalogue", "random")


def line(index: int, drawn: random.Random, kind: str) -> str:
    """One line of `LINE_BYTES`, its end included."""
    if kind == "random":
        text = json.dumps({"id": index, "sha256": f"{drawn.getrandbits(256):064x}"})
    else:
        text = json.dumps({
            "id": index,
            "key": f"{drawn.getrandbits(48):012x}",
            "path": f"images/{drawn.choice(('train', 'test', 'dev'))}/{drawn.randrange(1000):04d}.jpg",
            "width": drawn.randrange(200, 2000),
            "score": drawn.randrange(10_000) / 10_000,
        })  # fmt: skip
    return text.ljust(LINE_BYTES - 1) + "\n"


def write_lines(path: Path, lines: int, kind: str) -> None:
    """The same lines each time."""
    drawn = random.Random(1)
    with path.open("w") as file:
        file.writelines(line(index, drawn, kind) for index in range(lines))


def used_memory(session: Session) -> int:
    """Bytes."""
    return int(session.client.info("memory")["used_memory"])


def piecework(path: Path, lines: int) -> tuple[float, float]:
    """(lines per second, bytes of memory for each byte of the lines)."""
    with private_server() as session, path.open("rb") as file:
        before, started = used_memory(session), time.monotonic()
        ledger = Ledger(session.client, "bench")
        spec = Spec(handler="bench._handlers:noop", items="jsonl")
        fill(ledger, spec, jsonl(file, path.name), parallelism=2, keep_seconds=3600)
        seconds = time.monotonic() - started
        if ledger.status().total != lines:
            raise SystemExit("piecework lost lines")
        return lines / seconds, (used_memory(session) - before) / (lines * LINE_BYTES)


def rq(path: Path, lines: int) -> tuple[float, float]:
    """The same for RQ, with as many lines as given."""
    with private_server() as session, path.open() as file:
        before, started = used_memory(session), time.monotonic()
        queue = Queue("bench", connection=session.client, serializer=JSONSerializer)
        for batch in batches(itertools.islice(file, lines)):
            queue.enqueue_many([Queue.prepare_data("bench._handlers.noop", (json.loads(each),)) for each in batch])
        seconds = time.monotonic() - started
        if len(queue) != lines:
            raise SystemExit("RQ lost lines")
        return lines / seconds, (used_memory(session) - before) / (lines * LINE_BYTES)


def batches(lines: Iterable[str]) -> Iterable[list[str]]:
    """Lists of at most `BATCH`."""
    iterator = iter(lines)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def main() -> None:
    """Fill in turn and print both tables."""
    options = arguments(__doc__ or "")
    lines = 200_000 if options.short else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder) / f"{kind}.jsonl" for kind in KINDS}
        for kind, path in paths.items():
            write_lines(path, lines, kind)
        systems = {
            "piecework": lambda: piecework(paths["catalogue"], lines),
            "piecework, random lines": lambda: piecework(paths["random"], lines),
            "rq enqueue_many": lambda: rq(paths["catalogue"], lines // 50),
        }
        figures = interleaved(systems, repetitions(options, in_short=3))
    publish(tables(figures, lines), options, lines=lines, line_bytes=LINE_BYTES)


def tables(figures: dict[str, list[tuple[float, float]]], lines: int) -> list[Table]:
    """Of speed and of memory."""
    speed = {name: [each[0] for each in of] for name, of in figures.items()}
    memory = {name: [each[1] for each in of] for name, of in figures.items()}
    title = f"{lines:,} JSON lines of {LINE_BYTES} bytes"
    return [
        Table(f"filling with {title}", "lines per second", speed,
              claims=[Claim(at_least=30, rivals=["rq enqueue_many"])]),
        Table(f"memory of {title}", "bytes of Redis for each byte of the lines", memory, more_is_better=False,
              claims=[Claim(at_most=0.4)]),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
