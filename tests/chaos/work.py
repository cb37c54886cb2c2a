"""The pile of a scenario, drawn from its seed: what is to be computed, how it is cut, and what must be recorded."""

import json
import random
from dataclasses import dataclass, replace
from typing import Any

from piecework.states import State
from tests.worker_fixture import Pile

SQUARES = "tests.chaos.handlers"
LEASE_SECONDS = 1.0
_CRASH_LIMIT = 6
"""More than the horses that a scenario kills: what it does not call poison must not fail."""
_LOSS_LIMIT = 1000


@dataclass(frozen=True)
class Work:
    """What the workers of a run have to do, and how."""

    total: int
    chunk: int
    handler: str
    seconds: float
    options: tuple[str, ...]
    url_options: str
    """How long a worker waits for a reply: usually longer than any silence here."""
    values: tuple[int, ...] | None
    """The items, if the run is no range."""
    failing: frozenset[int]
    flaky: frozenset[int]
    """They fail at the first attempt."""
    poison: frozenset[int]
    """They kill the process that computes them."""
    stragglers: frozenset[int] = frozenset()
    """They take up to `straggling` seconds, at each attempt another time."""
    straggling: float = 3.0

    @classmethod
    def draw(cls, rng: random.Random, small: bool) -> "Work":
        """About a second of work for two workers, or a few."""
        total = rng.choice([40, 60] if small else [60, 150, 400, 1000])
        kind = rng.choice(["one", "many", "awaited", "forking"])
        isolation = "none" if rng.random() < 0.25 and kind != "forking" else "process"
        values = tuple(rng.randrange(10_000) for _ in range(total)) if rng.random() < 0.4 else None
        known = values or range(total)
        poisonous = isolation == "process" and rng.random() < 0.2
        options = ["--isolation", isolation, "--lease", str(LEASE_SECONDS), "--patience", "30", "--grace", "2"]
        options += {"many": ["--batch-size", "10"], "awaited": ["--concurrency", "4"]}.get(kind, [])
        return cls(
            total=total,
            chunk=rng.choice([3, 10, max(1, total // 8), max(1, total // 3), total]),
            handler=f"{SQUARES}:{kind}",
            seconds=(rng.uniform(0.5, 1.0) if small else rng.uniform(1.0, 6.0)) / total,
            options=tuple(options),
            url_options=rng.choice(["", "?socket_timeout=1"]),
            values=values,
            failing=frozenset(rng.sample(known, rng.choice([0, 0, 1, 3]))),
            flaky=frozenset(rng.sample(known, rng.choice([0, 0, 2]))),
            poison=frozenset(rng.sample(known, 1) if poisonous else ()),
        )

    @property
    def environ(self) -> dict[str, str]:
        """What tells the handlers."""
        told: dict[str, Any] = {
            name: sorted(getattr(self, name)) for name in ("failing", "flaky", "poison", "stragglers")
        }
        return {"CHAOS_WORK": json.dumps(told | {"seconds": self.seconds, "straggling": self.straggling})}

    def speculating(self, rng: random.Random) -> "Work":
        """The same with stragglers, which idle workers do a second time."""
        known = self.values or range(self.total)
        stragglers = frozenset(rng.sample(known, 2)) - self.poison
        return replace(self, stragglers=stragglers, options=(*self.options, "--speculate"))

    def submit(self, pile: Pile) -> None:
        """Make the run."""
        pile.submit(
            self.handler,
            self.total,
            self.chunk,
            items=self.values,
            block=100,
            retries=1 if self.flaky else 0,
            crash_limit=_CRASH_LIMIT,
            loss_limit=_LOSS_LIMIT,
            batch=self.handler.endswith("many"),
        )

    def value(self, index: int) -> int:
        """The item of an index."""
        return index if self.values is None else self.values[index]

    def expected(self, index: int) -> int | None:
        """The result of an item; None if it must fail."""
        value = self.value(index)
        return None if value in self.failing or value in self.poison else value * value

    @property
    def verdict(self) -> State:
        """How the run must end."""
        fails = any(self.expected(index) is None for index in range(self.total))
        return State.COMPLETED_WITH_FAILURES if fails else State.SUCCEEDED
