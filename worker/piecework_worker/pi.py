"""Pi, by several processes: a workload whose result anybody can check.

Owns the items (`ranges`), the handler (`terms`) and the reduction (`combine`) of

    1/pi = 12 * sum over k of (-1)^k (6k)! (13591409 + 545140134 k) / ((3k)! (k!)^3 640320^(3k + 3/2))

(D. V. and G. V. Chudnovsky, "Approximations and complex multiplication according to Ramanujan", 1988),
summed by binary splitting (B. Haible and T. Papanikolaou, "Fast multiprecision evaluation of series of
rational numbers", 1998). A stretch of terms becomes three integers P, Q, T, and two neighbours join into
the stretch of both:

    P = P1 P2        Q = Q1 Q2        T = T1 Q2 + P1 T2      and over all terms  pi = 426880 sqrt(10005) Q / T

All arithmetic is on integers. Guarantee: however the terms are split into ranges, `combine` prints the
same digits, each of them right and the last one rounded, or raises. A range that is missing, doubled or out
of order is refused.

Nothing here has state: an item that a crash interrupted is simply computed again.

    piecework run piecework_worker.pi:terms --jsonl ranges.jsonl --reduce piecework_worker.pi:combine
"""

from __future__ import annotations

import importlib
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol, cast

GUARD_DIGITS = 20
"""Digits computed beyond the last one printed, so that its rounding is certain."""

LEAF_TERMS = 8
"""Terms summed one by one before splitting pays; 4 to 16 measure alike."""

_C_CUBED_OVER_24 = 640320**3 // 24
_DIGITS_PER_TERM = math.log10(_C_CUBED_OVER_24 / 72)  # 14.18
_UNITS_OF_ERROR = 2

_Triple = tuple[int, int, int]


class _Gmp(Protocol):
    """The part of gmpy2 in use (https://gmpy2.readthedocs.io): an mpz is an `int` here, of GMP's speed,
    whose `str` has no limit on length."""

    def mpz(self, value: int, /) -> int: ...
    def isqrt(self, value: int, /) -> int: ...


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


def ranges(digits: int, parts: int) -> list[list[int]]:
    """Items for `digits` significant digits of pi: `parts` adjoining `[start, stop]` from term 0 on.

    They hold enough terms for GUARD_DIGITS more digits, and cost about the same each: later ones have fewer
    terms, of larger numbers. None is empty; where there are too few terms, there are fewer than `parts`.

    Raises ValueError for fewer than 1 digit or part.
    """
    _require_positive("digits", digits)
    _require_positive("parts", parts)
    count = 1 + math.ceil((digits + GUARD_DIGITS) / _DIGITS_PER_TERM)
    inner = (bisect_left(range(count), _cost(count) * part / parts, key=_cost) for part in range(1, parts))
    bounds = sorted({0, *inner, count})
    return [[start, stop] for start, stop in pairwise(bounds)]


def terms(item: Sequence[int]) -> list[int]:
    """Handler: the terms `start` to `stop - 1` of the series, `[P, Q, T, start, stop]` for `[start, stop]`.

    All are plain integers. Of n terms around the k-th, P has about n (3 log2 k + 6) bits, Q and T about
    n (3 log2 k + 53). The bounds come back with them because P, Q and T do not tell where they belong: with a
    range left out they still join into a number, of which only the first digits are those of pi. Safe to
    retry: the result depends on the item alone.

    Raises ValueError unless 0 <= start < stop, ImportError without gmpy2.
    """
    match item:
        case [int(start), int(stop)] if 0 <= start < stop:
            return [*map(int, _split(start, stop, _gmp())), start, stop]
    raise ValueError(f"item {item!r} is not [start, stop] with integers 0 <= start < stop")


def combine(results: Iterable[Sequence[int]], digits: int | None = None) -> str:
    """Reduction: pi from the results of `terms` in index order, as "3.14…" with `digits` significant digits.

    Without `digits`, as many as the terms make certain: for `ranges(N, parts)`, N or up to 14 more.

    Raises ValueError unless the results are those of `terms` from term 0 on, without a gap and enough for
    `digits`; ArithmeticError if the guard digits leave the rounding open (one N in 10^19); ImportError
    without gmpy2.
    """
    if digits is not None:
        _require_positive("digits", digits)
    gmp = _gmp()
    parts, count = _in_order(results, gmp)
    certain = math.floor((count - 1) * _DIGITS_PER_TERM) - GUARD_DIGITS
    digits = max(certain, 1) if digits is None else digits
    if digits > certain:
        raise ValueError(
            f"{digits} digits asked, but the terms of these results are good for {max(certain, 0)}: "
            f"make the items with ranges({digits}, parts)"
        )
    text = _rounded(_scaled_pi(_joined(parts), digits - 1 + GUARD_DIGITS, gmp), digits)
    return f"{text[0]}.{text[1:]}" if digits > 1 else text


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}: give 1 or more")


def _cost(count: int) -> float:
    """Bits of P, Q and T over the terms before `count`, up to a factor: the integral of log2 k + 12.5."""
    return count * (math.log2(count) + 11.1) if count else 0.0


def _split(start: int, stop: int, gmp: _Gmp) -> _Triple:
    if stop - start > LEAF_TERMS:
        middle = (start + stop) // 2
        return _join(_split(start, middle, gmp), _split(middle, stop, gmp))
    p, q, t = 1, 1, 0
    for k in range(start, stop):
        if k:
            p *= (6 * k - 5) * (2 * k - 1) * (6 * k - 1)
            q_k = k * k * k * _C_CUBED_OVER_24
            q *= q_k
            t *= q_k
        a_p = (13591409 + 545140134 * k) * p
        t += -a_p if k % 2 else a_p
    return gmp.mpz(p), gmp.mpz(q), gmp.mpz(t)


def _join(left: _Triple, right: _Triple) -> _Triple:
    (p1, q1, t1), (p2, q2, t2) = left, right
    return p1 * p2, q1 * q2, t1 * q2 + p1 * t2


def _joined(parts: Sequence[_Triple]) -> _Triple:
    """All parts as one, pairwise, so that the factors of each product are of like size."""
    *others, (_, q, t) = parts
    unused_p = 0 * q
    level = [*others, (unused_p, q, t)]
    while len(level) > 1:
        pairs = [_join(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def _in_order(results: Iterable[Sequence[int]], gmp: _Gmp) -> tuple[list[_Triple], int]:
    """P, Q, T of each result, and the number of terms, having seen that they adjoin from term 0 on."""
    parts: list[_Triple] = []
    count = 0
    for index, result in enumerate(results):
        match result:
            case [int(p), int(q), int(t), int(start), int(stop)]:
                if start != count:
                    raise ValueError(
                        f"result {index} begins at term {start}, not at {count}: "
                        "combine takes the results of all ranges from term 0 on, in order"
                    )
                parts.append((gmp.mpz(p), gmp.mpz(q), gmp.mpz(t)))
                count = stop
            case _:
                raise ValueError(f"result {index} is not the [P, Q, T, start, stop] of a range of terms")
    return parts, count


def _scaled_pi(whole: _Triple, decimals: int, gmp: _Gmp) -> int:
    """pi * 10^decimals, to less than _UNITS_OF_ERROR in the last place.

    What M terms leave out begins with the M-th and alternates in sign, so it is less than that term: of the
    sum, (1 + 41 M) / 10^14 of 10^-((M - 1) _DIGITS_PER_TERM), which is below the latter for every M within
    reach. So the series, good for a relative 10^-(decimals + 1), is off by less than 1/3 of a unit; the root,
    cut after as many decimals, by 1/30; Q and T, cut to 64 bits more than pi needs, by 10^-18; the quotient,
    cut to an integer, by 1.
    """
    _, q, t = whole
    needed_bits = math.ceil(decimals * math.log2(10)) + 64
    excess = max(0, q.bit_length() - needed_bits)
    root = gmp.isqrt(10005 * gmp.mpz(10) ** (2 * decimals))
    return (q >> excess) * 426880 * root // (t >> excess)


def _rounded(scaled: int, digits: int) -> str:
    """`scaled` without its guard digits, rounded half up; raises if its error could change the outcome.

    Only guard digits 4999… and 5000… are open; from 9999… or 0000… both sides round alike. Trying again with
    more precision would need more terms, which a reduction cannot ask for, so it raises.
    """
    unit = 10**GUARD_DIGITS
    low, high = ((scaled + unit // 2 + error) // unit for error in (-_UNITS_OF_ERROR, _UNITS_OF_ERROR))
    if low != high:
        raise ArithmeticError(f"the rounding of digit {digits} is open: compute one digit more or fewer")
    return str(high)
