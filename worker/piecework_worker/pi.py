"""Pi, by several processes: a workload whose result anybody can check.

Owns the items (`ranges`), the handler (`terms`) and the reduction (`combine`) of

    1/pi = 12 * sum over k of (-1)^k (6k)! (13591409 + 545140134 k) / ((3k)! (k!)^3 640320^(3k + 3/2))

(D. V. and G. V. Chudnovsky, "Approximations and complex multiplication according to Ramanujan", 1988),
summed by binary splitting (B. Haible and T. Papanikolaou, "Fast multiprecision evaluation of series of
rational numbers", 1998). A stretch of terms becomes three integers P, Q, T, and two neighbours join into
the stretch of both:

    P = P1 P2        Q = Q1 Q2        T = T1 Q2 + P1 T2      and over all terms  pi = 426880 sqrt(10005) Q / T

Only P/Q and T/Q matter, and the terms before the k-th settle 47 k bits of pi; so a stretch that begins with
the k-th of M terms is cut to the 47 (M - k) bits that it can add. The root is an item of its own.

All arithmetic is on integers. Guarantee: however the terms are split into ranges, `combine` prints the
same digits, each of them right and the last one rounded, or raises. An item that is missing, doubled or out
of order is refused.

Nothing here has state: an item that a crash interrupted is simply computed again.

    piecework run piecework_worker.pi:terms --jsonl ranges.jsonl --reduce piecework_worker.pi:combine

with `ranges.jsonl` as in docs/handlers.md, "Items of several kinds".
"""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import IO, Protocol, cast

GUARD_DIGITS = 20
"""Digits computed beyond the last one printed, so that its rounding is certain."""

LEAF_TERMS = 8
"""Terms summed one by one before splitting pays; 4 to 16 measure alike."""

TWO_PROCESSES_DIGITS = 2_000_000
"""From here on writing half of the digits takes longer than starting a process that does it."""

_C_CUBED_OVER_24 = 640320**3 // 24
_BITS_PER_TERM = math.log2(_C_CUBED_OVER_24 / 72)  # 47.11
_DIGITS_PER_TERM = _BITS_PER_TERM / math.log2(10)  # 14.18
_GUARD_BITS = 64
_UNITS_OF_ERROR = 2
_WRITE_HALF = "import gmpy2, sys; sys.stdout.write(str(gmpy2.from_binary(sys.stdin.buffer.read())))"

Item = list[str | int]
_Stretch = tuple[int, int, int, int]
"""P, Q, T, and how many bits of them matter."""


class _Gmp(Protocol):
    """The part of gmpy2 in use (https://gmpy2.readthedocs.io): an mpz is an `int` here, of GMP's speed,
    whose `str` has no limit on length."""

    def mpz(self, value: int, /) -> int: ...
    def isqrt(self, value: int, /) -> int: ...
    def to_binary(self, value: int, /) -> bytes: ...


def _gmp() -> _Gmp:
    try:
        return cast(_Gmp, importlib.import_module("gmpy2"))
    except ImportError as error:
        raise ImportError("computing pi needs gmpy2: pip install 'piecework[pi]'") from error


def default_parts(digits: int, parallelism: int) -> int:
    """How many ranges finish soonest: one per worker, but at most 8 and at most one per 10,000 digits.

    Joining is the reducer's work, alone: each doubling of the parts adds a level to it that takes about a
    tenth of the whole series, which from 8 parts on is more than it takes off the workers.

    Raises ValueError for fewer than 1 digit or worker.
    """
    _require_positive("digits", digits)
    _require_positive("parallelism", parallelism)
    return max(1, min(parallelism, 8, digits // 10_000))


def ranges(digits: int, parts: int) -> list[Item]:
    """Items for `digits` significant digits of pi: the root, and `parts` adjoining stretches of the terms.

    They are `["root", count]` and `["terms", start, stop, count]`, from term 0 to `count`: enough terms for
    GUARD_DIGITS more digits. The stretches cost about the same each: later ones have fewer terms, of larger
    numbers. The last ones cost a little less, since more of them is cut off; whoever has computed the root
    takes one. None is empty; where there are too few terms, there are fewer than `parts`.

    Raises ValueError for fewer than 1 digit or part.
    """
    _require_positive("digits", digits)
    _require_positive("parts", parts)
    count = 1 + math.ceil((digits + GUARD_DIGITS) / _DIGITS_PER_TERM)
    inner = (bisect_left(range(count), _cost(count) * part / parts, key=_cost) for part in range(1, parts))
    bounds = sorted({0, *inner, count})
    items: list[Item] = [["root", count]]
    items.extend(["terms", start, stop, count] for start, stop in pairwise(bounds))
    return items


def terms(item: Sequence[str | int]) -> list[str | int]:
    """Handler: one of the items of `ranges`, with what it comes to appended.

    `["root", count, root]`: the root of 10005, an integer, of as many decimals as `count` terms give pi.
    `["terms", start, stop, count, P, Q, T]`: the terms `start` to `stop - 1` of the `count` that there are.
    Of n terms around the k-th, P has about n (3 log2 k + 6) bits, Q and T about n (3 log2 k + 53), but none
    more than matter; P of the last stretch is 0, since there is nothing left to multiply by it. The item comes
    back too because the numbers do not tell where they belong: with a range left out they still join into a
    number, of which only the first digits are those of pi. Safe to retry: the result depends on the item
    alone.

    Raises ValueError for other items, ImportError without gmpy2.
    """
    match item:
        case ["root", int(count)] if count > 0:
            gmp = _gmp()
            return [*item, int(gmp.isqrt(10005 * gmp.mpz(10) ** (2 * _decimals(count))))]
        case ["terms", int(start), int(stop), int(count)] if 0 <= start < stop <= count:
            return [*item, *map(int, _split(start, stop, count, _gmp())[:3])]
    raise ValueError(
        f'item {item!r} is not ["root", count] or ["terms", start, stop, count] '
        "with integers 0 <= start < stop <= count"
    )


def combine(results: Iterable[Sequence[str | int]], digits: int | None = None) -> str:
    """Reduction: pi from the results of `terms` in index order, as "3.14…" with `digits` significant digits.

    Without `digits`, as many as the terms make certain: for `ranges(N, parts)`, N or up to 14 more.

    Raises ValueError unless the results are those of all items that one call of `ranges` makes, and enough for
    `digits`; ArithmeticError if the guard digits leave the rounding open (one N in 10^19); ImportError
    without gmpy2.
    """
    if digits is not None:
        _require_positive("digits", digits)
    gmp = _gmp()
    root, stretches, count = _in_order(results, gmp)
    certain = _decimals(count) - GUARD_DIGITS
    digits = max(certain, 1) if digits is None else digits
    if digits > certain:
        raise ValueError(
            f"{digits} digits asked, but the terms of these results are good for {max(certain, 0)}: "
            f"make the items with ranges({digits}, parts)"
        )
    scaled = _scaled_pi(root, _joined(stretches))
    text = _decimal(_rounded(scaled, _decimals(count) + 1 - digits, gmp), digits, gmp)
    return f"{text[0]}.{text[1:]}" if digits > 1 else text


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}: give 1 or more")


def _cost(count: int) -> float:
    """Bits of P, Q and T over the terms before `count`, up to a factor: the integral of log2 k + 12.5."""
    return count * (math.log2(count) + 11.1) if count else 0.0


def _decimals(count: int) -> int:
    """How many decimals of pi `count` terms give, guard digits among them."""
    return math.floor((count - 1) * _DIGITS_PER_TERM)


def _bits(start: int, count: int) -> int:
    """How many bits of a stretch matter that begins at term `start` of `count`."""
    return math.ceil((count - start) * _BITS_PER_TERM) + _GUARD_BITS


def _split(start: int, stop: int, count: int, gmp: _Gmp) -> _Stretch:
    if stop - start > LEAF_TERMS:
        middle = (start + stop) // 2
        return _join(_split(start, middle, count, gmp), _split(middle, stop, count, gmp))
    p, q, t = 1, 1, 0
    for k in range(start, stop):
        if k:
            p *= (6 * k - 5) * (2 * k - 1) * (6 * k - 1)
            q_k = k * k * k * _C_CUBED_OVER_24
            q *= q_k
            t *= q_k
        a_p = (13591409 + 545140134 * k) * p
        t += -a_p if k % 2 else a_p
    return gmp.mpz(p if stop < count else 0), gmp.mpz(q), gmp.mpz(t), _bits(start, count)


def _join(left: _Stretch, right: _Stretch) -> _Stretch:
    (p1, q1, t1, bits), (p2, q2, t2, _) = left, right
    p, q, t = p1 * p2, q1 * q2, t1 * q2 + p1 * t2
    excess = q.bit_length() - bits
    return (p >> excess, q >> excess, t >> excess, bits) if excess > 0 else (p, q, t, bits)


def _joined(stretches: Sequence[_Stretch]) -> _Stretch:
    """All as one, pairwise, so that the factors of each product are of like size."""
    level = list(stretches)
    while len(level) > 1:
        pairs = [_join(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def _in_order(results: Iterable[Sequence[str | int]], gmp: _Gmp) -> tuple[int, list[_Stretch], int]:
    """The root, the stretches, and the number of terms, having seen that they are one whole."""
    how = "combine takes the results of all items of ranges, in order"
    numbered = enumerate(results)
    match next(numbered, None):
        case (_, ["root", int(count), int(root)]):
            pass
        case _:
            raise ValueError(f"result 0 is not the root: {how}")
    stretches: list[_Stretch] = []
    reached = 0
    for index, result in numbered:
        match result:
            case ["terms", int(start), int(stop), int(whole), int(p), int(q), int(t)]:
                if (start, whole) != (reached, count):
                    begins = f"begins at term {start} of {whole}, not at {reached} of {count}"
                    raise ValueError(f"result {index} {begins}: {how}")
                stretches.append((gmp.mpz(p), gmp.mpz(q), gmp.mpz(t), _bits(start, count)))
                reached = stop
            case _:
                raise ValueError(f"result {index} is not a stretch of terms: {how}")
    if reached != count:
        raise ValueError(f"the results end at term {reached} of {count}: {how}")
    return gmp.mpz(root), stretches, count


def _scaled_pi(root: int, whole: _Stretch) -> int:
    """pi with the decimals of the root, as an integer, to less than _UNITS_OF_ERROR in the last place.

    What M terms leave out begins with the M-th and alternates in sign, so it is less than that term: of the
    sum, (1 + 41 M) / 10^14 of 10^-((M - 1) _DIGITS_PER_TERM), which is 10^-decimals or less. So for every M
    within reach the series is off by less than 1/3 of a unit; the root, cut after as many decimals, by 1/30;
    the stretches, cut to _GUARD_BITS more than that, by 10^-15; the quotient, cut to an integer, by 1.
    """
    _, q, t, _ = whole
    return 426880 * q * root // t


def _rounded(scaled: int, guard_digits: int, gmp: _Gmp) -> int:
    """`scaled` without its guard digits, rounded half up; raises if its error could change the outcome.

    Only guard digits 4999… and 5000… are open; from 9999… or 0000… both sides round alike. Trying again with
    more precision would need more terms, which a reduction cannot ask for, so it raises.
    """
    unit: int = gmp.mpz(10) ** guard_digits
    low, high = ((scaled + unit // 2 + error) // unit for error in (-_UNITS_OF_ERROR, _UNITS_OF_ERROR))
    if low != high:
        raise ArithmeticError("the rounding of the last digit is open: compute one digit more or fewer")
    return high


def _decimal(value: int, digits: int, gmp: _Gmp) -> str:
    """`str(value)`, which has `digits` digits. Of many, another process writes the first half meanwhile."""
    if digits < TWO_PROCESSES_DIGITS:
        return str(value)
    command = [sys.executable, "-c", _WRITE_HALF]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        its_input, its_output = cast(IO[bytes], other.stdin), cast(IO[bytes], other.stdout)
        high, low = divmod(value, gmp.mpz(10) ** (digits // 2))
        its_input.write(gmp.to_binary(high))
        its_input.close()
        second = str(low).zfill(digits // 2)
        first = its_output.read().decode("ascii")
    if other.returncode:
        raise subprocess.CalledProcessError(other.returncode, command)
    return first + second
