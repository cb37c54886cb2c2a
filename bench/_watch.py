"""Follows the streams of a run from outside, through kills of the server too; sends nothing but reads."""

import time
from typing import Any

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bench._recoveries import Kill, Recoveries
from piecework.keys import run_keys
from piecework.spans import parse_spans
from piecework_producer.run_streams import Meta


class Watch:
    """Reads a run's streams as they grow (the events are cut at 2,000), and tells `recoveries` in the order of time."""

    def __init__(self, url: str, run: str) -> None:
        self._client: Any = Redis.from_url(url, socket_timeout=5.0, retry=Retry(NoBackoff(), 0))
        keys = run_keys(run)
        self._results, self._events = keys.results.encode(), keys.events.encode()
        self._last = {self._results: b"0", self._events: b"0"}
        self._to_tell: list[Kill] = []
        self.recoveries = Recoveries()
        self.progress: list[tuple[float, int]] = []
        """(time, items recorded by then)."""

    def killed(self, kill: Kill) -> None:
        """It is told in its turn, when all before it was read."""
        self._to_tell.append(kill)

    def read(self) -> None:
        """All that is new; nothing if the server is away just now. (It forgets nothing when it is killed.)"""
        try:
            reply = self._client.xread(self._last) or {}
        except (RedisError, OSError):
            return
        streams = dict(reply) if isinstance(reply, list) else reply
        news = []
        for stream, found in streams.items():
            # redis-py gives a list of entries (RESP 2) or a list of such lists (RESP 3).
            entries = [entry for part in found for entry in (part if isinstance(part, list) else [part])]
            news += [(int(entry.partition(b"-")[0]) / 1000, stream, fields) for entry, fields in entries]
            self._last[stream] = entries[-1][0]
        for at, stream, fields in sorted(news, key=lambda one: one[0]):
            self._tell_kills(at)
            (self._commit if stream == self._results else self._event)(at, fields)
        self._tell_kills(time.time())

    def _tell_kills(self, until: float) -> None:
        while self._to_tell and self._to_tell[0].at < until:
            self.recoveries.killed(self._to_tell.pop(0))

    def _commit(self, at: float, fields: dict[bytes, bytes]) -> None:
        worker = msgspec.msgpack.decode(fields[b"m"], type=Meta).worker if fields[b"m"] else ""
        self.recoveries.committed(at, worker, parse_spans(fields[b"s"].decode(), "results"))
        self.progress.append((at, len(self.recoveries.recorded)))

    def _event(self, at: float, fields: dict[bytes, bytes]) -> None:
        kind, worker, chunk, detail = (fields[name].decode() for name in (b"kind", b"worker", b"chunk", b"detail"))
        if kind in ("claim", "steal"):
            start, stop = map(int, detail.split("-"))
            if kind == "claim":
                self.recoveries.claimed(at, worker, chunk, start, stop)
            else:
                self.recoveries.stolen(chunk, start)
