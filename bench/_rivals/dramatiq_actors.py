"""dramatiq: a message for each item, processes of one thread each, no results (which it leaves out unless asked).

The broker and the actors are the module's, which `dramatiq` imports.
"""

import os
import sys
from collections.abc import Callable, Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench import _handlers
from bench._rivals._staged import LIVE, Pile, measure, server

broker = RedisBroker(url=os.environ["BENCH_REDIS"], middleware=[])
dramatiq.set_broker(broker)


def _without_result(name: str) -> Callable[[int], None]:
    """A handler that returns nothing: dramatiq writes a warning for each result that nobody is to keep."""
    handler = getattr(_handlers, name)

    def actor(item: int) -> None:
        handler(item)

    return actor


ACTORS = {
    name: dramatiq.actor(_without_result(name), actor_name=name, queue_name=LIVE, broker=broker)
    for name in _handlers.NAMES
}


class Actors:
    """One `dramatiq` with as many processes as there are to be workers."""

    packages = ("dramatiq", "redis")

    def __init__(self) -> None:
        self._client = server()

    def commands(self, workers: int, piles: Sequence[Pile]) -> Sequence[Sequence[str]]:
        # As many as pay, and few enough that no worker sits on another's items at the end: two is the default.
        fetched = min(100, min(pile["items"] for pile in piles) // (8 * workers))
        os.environ["dramatiq_queue_prefetch"] = str(max(2, fetched))  # noqa: SIM112 - its name
        command = [sys.executable, "-m", "dramatiq", "bench._rivals.dramatiq_actors", "--queues", LIVE]
        return [[*command, "--processes", str(workers), "--threads", "1", "--skip-logging"]]

    def ready(self, workers: int) -> bool:
        return self._client.zcard("dramatiq:__heartbeats__") >= workers

    def enqueue(self, pile: Pile, queue: str) -> None:
        actor = ACTORS[pile["handler"]]
        for item in range(pile["items"]):
            # As `broker.enqueue` does it, but for the name of the list: the message itself has to name the live queue.
            message = actor.message(item)
            key = message.message_id
            broker.do_enqueue(queue, key, message.copy(options={"redis_message_id": key}).encode())

    def release(self, queue: str) -> None:
        with self._client.pipeline() as pipe:
            for suffix in (".msgs", ""):
                pipe.rename(f"dramatiq:{queue}{suffix}", f"dramatiq:{LIVE}{suffix}")
            pipe.execute()

    def done(self, queue: str, pile: Pile) -> int:
        # A message stays until it is acknowledged.
        return pile["items"] - int(self._client.hlen(f"dramatiq:{LIVE}.msgs"))


if __name__ == "__main__":
    measure(Actors())
