"""The smallest handler: a function of one item.

    piecework run squares:square --range 0:1000 > squares.jsonl

An item of a range is an integer.
"""


def square(number: int) -> int:
    """What is returned is the item's result."""
    return number * number
