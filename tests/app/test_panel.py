"""Which referees are tried for one audit, and for how many: by orders that end as the test says."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from infraxa.app import referees
from infraxa.app.attempt import Attempt, Setback
from infraxa.app.audit_values import MOST_REFEREES
from infraxa.app.errors import NodeError
from infraxa.app.offers import OfferSeen
from infraxa.app.opened import Shown
from infraxa.app.referees import MOST_TRIES, Panel
from infraxa.app.replaying import Compared
from infraxa.engine.transcript import decode_leaf
from infraxa.engine.types import ErrorInfo
from infraxa.net.prompts import Prompt
from tests.app.lies import ORDER, run
from tests.app.offered import OFFERS
from tests.app.test_ends import kept

WORDS = ErrorInfo("busy", "It is busy.", "")
USELESS, CAP = Setback("busy", WORDS), NodeError("cap_request", "Too dear.", "Raise it.")
VOTE = Setback("bad_request", WORDS, no_token=True)
RAN = run(20, order=ORDER)
SHOWN = Shown(tuple(range(20)), (decode_leaf(RAN.leaves[19]),))


class Asking:
    """A panel whose referees end so, one after the other."""

    def __init__(self, *ends: Setback | NodeError, scoring: bool = False) -> None:
        self.tried = 0
        self._ends = iter(ends)
        self._scoring = object() if scoring else None
        offers = [OFFERS[0]] * len(ends)
        self.panel = Panel(cast(Any, self._attempt), kept(), RAN.said, offers)

    def _attempt(self, offer: OfferSeen, told: Callable[..., None]) -> Attempt:
        self.tried += 1
        ended = next(self._ends)

        async def ends(order: object, prompt: Prompt) -> Setback:
            if isinstance(ended, NodeError):
                raise ended
            return ended

        return cast(Attempt, SimpleNamespace(run=ends, scoring=self._scoring))

    async def all(self) -> list[Compared]:
        found = []
        while (compared := await self.panel.following(SHOWN)) is not None:
            found.append(compared)
        return found


async def test_those_who_say_nothing_of_use_take_no_place_of_the_others() -> None:
    asking = Asking(*[USELESS] * (MOST_TRIES - 1), VOTE)
    assert len(await asking.all()) == 1 and asking.tried == MOST_TRIES > MOST_REFEREES


async def test_no_more_are_tried_than_so_many_nor_after_enough_answered() -> None:
    asking = Asking(*[USELESS] * (MOST_TRIES + 3))
    assert not await asking.all() and asking.tried == MOST_TRIES
    asking = Asking(*[VOTE] * MOST_TRIES)
    assert len(await asking.all()) == asking.tried == MOST_REFEREES
    # Whoever began to tell scores is paid for what it read, whatever became of them.
    asking = Asking(*[USELESS] * MOST_TRIES, scoring=True)
    assert not await asking.all() and asking.tried == MOST_REFEREES


async def test_who_is_above_a_cap_is_followed_by_who_is_not() -> None:
    asking = Asking(CAP, USELESS, VOTE, CAP)
    assert len(await asking.all()) == 1 and asking.tried == 4
    with pytest.raises(NodeError, match="Too dear"):
        await Asking(USELESS, CAP, USELESS).all()


def test_who_asks_for_far_more_than_others_is_not_asked() -> None:
    def asked(driver: int, *prices: int) -> list[int]:
        offers = [replace(OFFERS[0], price_in=price) for price in prices]
        return [offer.price_in for offer in referees._not_dear(offers, driver)]

    assert asked(50, 100, 40, 101, 45) == [100, 40, 45]
    assert asked(50, 40, 10**9) == [40]
    # One that is cheap, or gives its answers away, is judged all the same.
    assert asked(0, 40, 50, 100, 101) == [40, 50, 100] and asked(0, 40) == [40]
    assert asked(50) == []
