"""A batch handler: a list of items in, a list of as many results out. For what is faster on many at once.

An item is the number of a segment of 10,000 integers; the result is how many primes the segment has.

    piecework run primes_batch:count_primes --batch --range 0:100 --reduce primes_batch:total
"""

from collections.abc import Iterable
from math import isqrt

SEGMENT = 10_000


def count_primes(segments: list[int]) -> list[int]:
    """Sieve all segments with the same small primes, which are found once for each list of items."""
    if not segments:
        return []
    small = _primes_up_to(isqrt((max(segments) + 1) * SEGMENT))
    return [_count(segment * SEGMENT, small) for segment in segments]


def total(counts: Iterable[int]) -> int:
    """The reduction: gets the results in the order of their items."""
    return sum(counts)


def _primes_up_to(limit: int) -> list[int]:
    is_prime = bytearray([1]) * (limit + 1)
    for number in range(2, isqrt(limit) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, limit + 1, number)))
    return [number for number in range(2, limit + 1) if is_prime[number]]


def _count(start: int, small: list[int]) -> int:
    is_prime = bytearray([1]) * SEGMENT
    for prime in small:
        first = max(prime * prime, -(-start // prime) * prime)
        if first < start + SEGMENT:
            is_prime[first - start :: prime] = bytes(len(range(first - start, SEGMENT, prime)))
    if start == 0:
        is_prime[:2] = bytes(2)
    return sum(is_prime)
