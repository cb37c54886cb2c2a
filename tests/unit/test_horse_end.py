"""What the ledger is told of a horse's end."""

from typing import cast

import pytest

from piecework.ledger import Ledger
from piecework.records import Claim, Spec
from piecework_worker import horse
from piecework_worker.horse_end import ITEM_TIMEOUT, HorseEnd


@pytest.mark.parametrize(
    "end",
    [
        HorseEnd(horse.COMPLETE, None, -1, "handed back"),
        HorseEnd(horse.HANDED_BACK, None, -1, "handed back"),
        HorseEnd(horse.ERROR, None, -1, "handed back"),
        HorseEnd(None, ITEM_TIMEOUT, 4, "was killed by SIGKILL"),
        HorseEnd(None, "told to stop", 4, "was killed by SIGKILL"),
        HorseEnd(None, None, 4, "was killed by SIGSEGV"),
        HorseEnd(None, None, -1, "was killed by SIGSEGV"),
        HorseEnd.unborn(OSError("no memory")),
    ],
    ids=lambda end: f"{end.code} {end.killed_for} {end.item}",
)
def test_of_the_end_of_a_copy_it_is_told_nothing(end: HorseEnd) -> None:
    """No call is made, and it is no crash that its worker counts."""
    copy = Claim(1, 0, 5, 4, False, 0, 1, copy=True)
    assert end.settle(cast(Ledger, None), Spec(handler="m:f"), copy, "w", 1.0) == "done"
