"""Loads the Lua scripts and runs them: the only module that talks Lua.

Each file in `lua/` is one transition of the ledger, named by its verb; `_prelude.lua` is put in front of
each. A script runs atomically in the server, so a client that dies leaves it either done or not begun.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.commands.core import Script

from piecework.damage import reading
from piecework.keys import RunKeys

Value = str | bytes | int | float

VERBS = [
    "open",
    "fill",
    "cut",
    "seal",
    "claim",
    "steal",
    "copy",
    "renew",
    "commit",
    "release",
    "blame",
    "tend",
    "reap",
    "join",
    "pause",
    "abort",
    "retry",
    "delete",
    "status",
    "note",
    "repair",
    "refill",
]

_VALUES = {
    "fill": 3,
    "cut": 3,
    "seal": 2,
    "claim": 8,
    "steal": 2,
    "copy": 7,
    "renew": 3,
    "commit": 5,
    "blame": 2,
    "tend": 6,
    "retry": 2,
}
"""How many values a script replies with; a list from Lua ends where a field of a damaged run is missing."""


@cache
def source(verb: str) -> str:
    """The Lua text of a transition, prelude included."""
    folder = files("piecework") / "lua"
    return (folder / "_prelude.lua").read_text() + (folder / f"{verb}.lua").read_text()


class Scripts:
    """The scripts of one run on one server. Redis errors pass through to the caller; damage is `CorruptData`."""

    def __init__(self, client: Redis, keys: RunKeys, run: str) -> None:
        self._client, self._run = client, run
        self._keys = keys.as_list()
        self._scripts: dict[str, Script] = {}

    def call(self, verb: str, *args: Value) -> Any:
        """Run a transition and return its raw reply; `piecework.ledger` gives each its type."""
        script = self._scripts.get(verb)
        if script is None:
            script = self._scripts[verb] = Script(self._client, source(verb))
        with reading(f"run {self._run}, {verb}"):
            reply = script(keys=self._keys, args=args)
            if verb in _VALUES and len(reply) != _VALUES[verb]:
                raise ValueError(f"{len(reply)} values in place of {_VALUES[verb]}")
            return reply
