"""Handlers that the tests' workers run. The item is a number, or says what is to happen."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import piecework
from piecework import codec


def square(item: int) -> int:
    return item * item


def slow(item: int) -> int:
    """50 ms each."""
    time.sleep(0.05)
    return item * item


def very_slow(item: int) -> int:
    time.sleep(1.0)
    return item * item


def brief(item: int) -> int:
    """Half a millisecond."""
    time.sleep(0.0005)
    return item * item


def long(item: int) -> int:
    """Tells in a file that it has begun, and takes a second."""
    Path(os.environ["TEST_FILE"]).touch()
    time.sleep(1.0)
    return item * item


def starts_a_process(item: int) -> int:
    """A program and a fork that would outlive it by far; then it is deep in C code."""
    if item == 3:
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
        subprocess.Popen(["sleep", "600"])
        ctypes.PyDLL(None).sleep(600)  # it holds the interpreter's lock
    return item * item


def endless_from_5(item: int) -> int:
    if item >= 5:
        time.sleep(600)
    return item * item


def four_failures(item: int) -> object:
    """The failures of which one run has to show all four."""
    if item == 3:
        raise ValueError("three is odd")
    if item == 5:
        os.abort()
    if item == 7:
        ctypes.PyDLL(None).sleep(600)  # in C, and it holds the interpreter's lock
    if item == 9:
        return {"handle": object()}
    return item


def in_item_5(item: int) -> int:
    """Whatever PIECEWORK_TEST_DO says, in item 5."""
    if item == 5:
        what = os.environ["TEST_DO"]
        if what == "sys.exit":
            sys.exit("leaving")
        elif what.startswith("os._exit"):
            os._exit(int(what[-1]))
        elif what.startswith("signal"):
            os.kill(os.getpid(), int(what.split()[1]))
        elif what == "bad str":
            raise BadStrError
        elif what == "close stdout":
            sys.stdout.close()
        elif what == "print":
            print("said by a handler", flush=True)
        elif what == "fork and return":
            if os.fork() == 0:
                return item
            os.wait()
        elif what == "fork and exit":
            if (child := os.fork()) == 0:
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        elif what == "pool":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(square, range(10)) == [i * i for i in range(10)]
        elif what == "terminate":  # before the process has come to its first line: it shares a core with this one
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            for _ in range(5):
                process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
                process.start()
                process.terminate()
                process.join()
                assert process.exitcode == -signal.SIGTERM
        elif what == "default SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(600)
        elif what == "group exception":
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
        else:
            raise AssertionError(what)
    return item * item


class BadStrError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message for you")


def poison_500(item: int) -> int:
    if item == 500:
        os.kill(os.getpid(), signal.SIGSEGV)
    return item


def poison_result(item: int) -> int:
    """The result of item 50 kills the process when it is packed, with no item in hand any more."""
    pack = codec.pack
    codec.pack = lambda values: os.abort() if 50 in values else pack(values)
    return item


def fails_twice(item: int) -> list[int]:
    if piecework.current().attempt < 3:
        raise ConnectionError(f"attempt {piecework.current().attempt}")
    return [item, piecework.current().attempt]


def fails_slowly(item: int) -> None:
    time.sleep(0.02)
    raise ConnectionError(f"attempt {piecework.current().attempt}")


def told(item: int) -> list[Any]:
    """What `piecework.current()` tells; leaves something in the scratch directory."""
    context = piecework.current()
    context.scratch.joinpath("left").write_text("behind")
    others = [path.name for path in context.scratch.parent.glob(f"piecework-{context.run}-*")]
    return [context.run, context.index, context.attempt, context.idempotency_key, len(others)]


def scratch_then_fail(item: int) -> None:
    raise RuntimeError(str(piecework.current().scratch))


ALL_TYPES: dict[str, Any] = {
    "none": None,
    "true": True,
    "small": -1,
    "int64": 2**64 - 1,
    "big": 3**1000,
    "negative": -(2**63) - 1,
    "float": 0.1,
    "str": "ä\u0000😀",
    "bytes": b"\xff\x00",
    "aware": datetime(2024, 2, 29, 12, tzinfo=UTC),
    "naive": datetime(2024, 2, 29, 12),  # noqa: DTZ001 - naive is meant
    "list": [1, [2, [3, {"x": None}]]],
}


def all_types(item: int) -> object:
    return ALL_TYPES[list(ALL_TYPES)[item]]


def unstorable(item: int) -> object:
    values = [object(), {1, 2}, {1: 2}, Path("x"), "\ud800", 1j, square, [[{"a": object()}]]]
    recursive: list[Any] = []
    recursive.append(recursive)
    return [*values, recursive, "fine"][item]


def huge(item: int) -> bytes:
    """Ten megabytes that cannot be compressed."""
    return os.urandom(10 << 20)


def greedy(item: int) -> int:
    """Items 3 and 5 want far more memory than the others: at once, and in small pieces."""
    if item == 3:
        return len(bytearray(1 << 30))
    hoard = []
    while item == 5:
        hoard.append("x" * 10_000)
    return len(bytearray(20 << 20))


KEPT: list[str] = []


def greedy_for_ever(item: int) -> int:
    """Item 5 does not let go of what it has."""
    while item == 5:
        KEPT.append("x" * 10_000)
    return greedy(item)


async def greedy_async(item: int) -> int:
    await asyncio.sleep(0)
    return greedy(item)


def greedy_many(items: list[int]) -> list[int]:
    return [greedy(item) for item in items]


def aborts_without_memory(item: int) -> int:
    """What C++ does when it gets none."""
    try:
        return len(bytearray((1 << 30) * (item == 3)))
    except MemoryError:
        os.abort()


def result_too_large_to_pack(item: int) -> bytes:
    return os.urandom(60 << 20 if item == 3 else 1)


def megabyte(item: int) -> bytes:
    return os.urandom(1 << 20)


def slow_batch(items: list[dict[str, int]]) -> list[int]:
    time.sleep(0.05 * len(items))
    return [item["n"] ** 2 for item in items]


# --- async


async def napping(item: int) -> list[int]:
    await asyncio.sleep(0.02 * (item % 3))
    return [item, piecework.current().index]


async def napping_long(item: dict[str, int]) -> int:
    await asyncio.sleep(0.2)
    return item["n"] ** 2


async def napping_badly(item: int) -> int:
    await asyncio.sleep(0.01)
    if item == 3:
        raise ValueError("three")
    if item == 5:
        raise SystemExit(5)
    if item == 7:
        raise asyncio.CancelledError("seven")
    if item == 9:
        await asyncio.sleep(600)
    return item


async def blocking(item: int) -> int:
    await asyncio.sleep(0.01)
    if item == 9:
        time.sleep(600)
    return item


async def stubborn(item: int) -> int:
    """Item 9 does not let itself be cancelled."""
    while item == 9:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue
    return item


# --- batches


def many(items: list[int]) -> list[int]:
    return [item * item for item in items]


def many_but_3(items: list[int]) -> list[int]:
    if 3 in items:
        raise ValueError("three is in it")
    return [item * item for item in items]


def too_few(items: list[int]) -> list[int]:
    return [0] * (len(items) - 1)


def no_list(items: list[int]) -> Any:
    return dict.fromkeys(items, 0)


def eats_its_list(items: list[int]) -> list[int]:
    results = []
    while items:
        results.append(items.pop() ** 2)
    return results[::-1]


def one_hangs(items: list[int]) -> list[int]:
    if 5 in items:
        time.sleep(600)
    return items


# --- processes of their own


def spawns(item: int) -> int:
    """Starts a process that outlives the item, and tells its pid in a file."""
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["TEST_FILE"]).write_text(str(child.pid))
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def noted(item: int) -> int:
    """Appends its index to a file: what was really computed, and how often."""
    with Path(os.environ["TEST_FILE"]).open("a") as file:
        file.write(f"{item}\n")
    time.sleep(0.05)
    return item * item


def held_at_3(item: int) -> int:
    """As `noted`, but item 3 lasts as long as the file TEST_HOLD is there."""
    result = noted(item)
    while item == 3 and Path(os.environ["TEST_HOLD"]).exists():
        time.sleep(0.01)
    return result


not_callable = 5


def told_and_held(item: int) -> list[int]:
    """Item 3: its N-th execution leaves its pid in TEST_FILE.N, and takes for as long as TEST_HOLD.N is there."""
    if item != 3:
        time.sleep(0.02)
        return [item, 0]
    number = 1
    while True:
        try:
            with Path(f"{os.environ['TEST_FILE']}.{number}").open("x") as note:
                note.write(f"{os.getpid()}\n")
            break
        except FileExistsError:
            number += 1
    hold = Path(f"{os.environ['TEST_HOLD']}.{number}")
    while hold.exists():
        time.sleep(0.02)
    if os.environ.get("TEST_FAILS") == str(number):
        raise ValueError(f"execution {number}")
    return [item, number]
