"""Loaded by Python as it starts, in processes of the chaos tests alone (`PYTHONPATH`): what no signal can do.

- `CHAOS_FAULTS`: `when:call:number:signal:role:token`, several with `;`. When the process makes that call for the
  number-th time, it sends itself the signal: `before` it sends anything, or `after` the reply has come. A call is a
  transition of the ledger (`commit`), another Redis command (`blmove`) or `pipeline`; the role is `main`, or `horse`
  for a fork. The token is a file: whoever renames it may do it, so that each happens once, and tells where.
- `CHAOS_CLOCK`: a file with the seconds by which this machine's clock is wrong.
- `CHAOS_CONTRACT`: another version of the contract.
"""

import functools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MAIN = os.getpid()


def _fault_points(faults: list[list[str]]) -> None:
    from redis import Redis
    from redis.client import Pipeline

    from piecework.scripts import Scripts

    made: Counter[str] = Counter()
    os.register_at_fork(after_in_child=made.clear)

    def reach(when: str, call: str) -> None:
        role = "main" if os.getpid() == _MAIN else "horse"
        for fault in faults:
            if fault[:3] == [when, call, str(made[call])] and fault[4] == role:
                try:
                    Path(fault[5]).rename(f"{fault[5]} {when} {call}")
                except FileNotFoundError:
                    continue
                os.kill(os.getpid(), signal.Signals[fault[3]])

    def around(method: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        @functools.wraps(method)
        def called(self: Any, *args: Any, **options: Any) -> Any:
            call = name(*args)
            made[call] += 1
            reach("before", call)
            reply = method(self, *args, **options)
            reach("after", call)
            return reply

        return called

    Scripts.call = around(Scripts.call, lambda verb, *args: verb)  # type: ignore[method-assign]
    Redis.execute_command = around(Redis.execute_command, lambda command, *args: str(command).lower())  # type: ignore[method-assign]
    Pipeline.execute = around(Pipeline.execute, lambda *args: "pipeline")  # type: ignore[method-assign]


def _wrong_clock(file: Path) -> None:
    right = time.time

    def wrong() -> float:
        try:
            return right() + float(file.read_text() or 0)
        except OSError:
            return right()

    time.time = wrong
    from datetime import UTC, datetime

    import rq.utils

    before = rq.utils.now
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "rq"]:
        if getattr(module, "now", None) is before:
            module.now = lambda: datetime.fromtimestamp(wrong(), UTC)  # type: ignore[attr-defined]


def _other_contract(version: int) -> None:
    from piecework import keys

    keys.CONTRACT, keys._PREFIX = version, f"piecework:{version}"
    keys.RUNS = f"{keys._PREFIX}:runs"


if _contract := os.environ.get("CHAOS_CONTRACT"):
    _other_contract(int(_contract))
if _clock := os.environ.get("CHAOS_CLOCK"):
    _wrong_clock(Path(_clock))
if _faults := os.environ.get("CHAOS_FAULTS"):
    _fault_points([fault.split(":") for fault in _faults.split(";")])
