"""Loads the Lua scripts and runs them: the only module that talks Lua.

Each file in `lua/` is one transition of the ledger, named by its verb; `_prelude.lua` is put in front of
each. A script runs atomically in the server, so a client that dies leaves it either done or not begun.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.commands.core import Script

from piecework.keys import RunKeys

Value = str | bytes | int | float

VERBS = [
    "open",
    "fill",
    "cut",
    "seal",
    "claim",
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


@cache
def source(verb: str) -> str:
    """The Lua text of a transition, prelude included."""
    folder = files("piecework") / "lua"
    return (folder / "_prelude.lua").read_text() + (folder / f"{verb}.lua").read_text()


class Scripts:
    """The scripts of one run on one server. Redis errors pass through to the caller."""

    def __init__(self, client: Redis, keys: RunKeys) -> None:
        self._client = client
        self._keys = keys.as_list()
        self._scripts: dict[str, Script] = {}

    def call(self, verb: str, *args: Value) -> Any:
        """Run a transition and return its raw reply; `piecework.ledger` gives each its type."""
        script = self._scripts.get(verb)
        if script is None:
            script = self._scripts[verb] = Script(self._client, source(verb))
        return script(keys=self._keys, args=args)
