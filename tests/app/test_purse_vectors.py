"""The user's money when vectors are bought, from drivers that are honest and from others."""

from __future__ import annotations

import asyncio
import struct
from array import array
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app.counting import EMBED_TEXTS, TEXT_TOKENS
from infraxa.app.offers import OfferSeen
from infraxa.app.spending import Spending
from infraxa.engine.vocabulary import Vocabulary
from infraxa.net import market
from infraxa.net.orders import Done
from infraxa.net.records import DOES_VECTORS
from infraxa.net.sale import Sale
from tests.app.purses import Shop, buying_at
from tests.app.stalls import Script, told
from tests.net.nodes import until

VECTOR = struct.pack("<2f", 0.6, 0.8)


def vectors(*n_tokens: int) -> Script:
    """Says that the texts have so many tokens."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1)
        for count in n_tokens:
            await sale.vector(VECTOR, count)
        await sale.done(Done("stop", sum(n_tokens), 0, 0))

    return script


def then(script: Script, *n_tokens: int) -> Script:
    """Some vectors, and then as the script says."""

    async def both(sale: Sale) -> None:
        await sale.claim(4096, 1)
        for count in n_tokens:
            await sale.vector(VECTOR, count)
        await script(sale)

    return both


def shop(script: Script) -> Shop:
    maple = Shop("maple", script)
    maple.model = replace(maple.model, does=DOES_VECTORS)
    return maple


async def test_the_price_of_the_texts_is_bounded(tmp_path: Path) -> None:
    maple = shop(vectors(3))
    maple.rates = market.Rates(5_000_000, 1_000_000, 5_000_000)
    maple.price(5_000_000, 1_000_000)
    async with buying_at(tmp_path, maple) as place:
        end = (await told(place.embed(maple, ("abc",), max_price=4_999_999))).end
        assert end.error is not None and end.error.code == "too_dear", end
        assert "asks 5.00 credits" in end.error.message and "X-Infraxa-Max-Price" in end.error.remedy
        assert maple.orders == []
        end = (await told(place.embed(maple, ("abc",), max_price=5_000_000))).end
        assert end.error is None
        await place.settled()
        assert maple.owed == 3 * 5


TEXTS = ("abc", "ü€", "four")
MOST = 3 + 5 + 4 + 3 * TEXT_TOKENS


async def test_of_a_text_no_more_is_paid_than_it_can_have(tmp_path: Path) -> None:
    maple = shop(vectors(2, 4000, 4))
    async with buying_at(tmp_path, maple) as place:
        assert (await told(place.embed(maple, TEXTS))).end.error is None
        await place.settled()
        (order,) = await place.orders()
        assert order.hold == MOST * 5
        paid = (2 + (5 + TEXT_TOKENS) + 4) * 5
        assert maple.owed == order.accepted == paid < order.hold == order.charge


async def test_texts_of_whose_model_the_vocabulary_is_here(tmp_path: Path) -> None:
    pieces = [b"", *(bytes([n]) for n in range(256)), b"rain", b" rain"]
    vocabulary = Vocabulary(array("I", map(len, pieces)), b"".join(pieces))
    texts = ("rain" + " rain" * 99, "a b")

    async def here(offer: OfferSeen) -> Vocabulary:
        return vocabulary

    for said, paid in ((102, 102), (502, 2 * 104 + 2 * TEXT_TOKENS)):
        maple = shop(vectors(said - 2, 2))
        async with buying_at(tmp_path / str(said), maple) as place:
            place.purse.vocabulary = here
            assert (await told(place.embed(maple, texts))).end.error is None
            await place.settled()
            (signed,) = maple.said()
            assert maple.owed == paid * 5 and not signed.counted


@pytest.mark.parametrize("n_tokens", [(), (7, 4000, 9)])
async def test_cancelled_vectors_cost_what_came_and_what_may_have_been_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_tokens: tuple[int, ...]
) -> None:
    texts, most = tuple("a" * 50 for _ in range(40)), 50 + TEXT_TOKENS
    heard, prompted = list[bytes](), asyncio.Event()
    monkeypatch.setattr(Spending, "arrived", lambda spending, order: heard.append(order))

    async def waits(sale: Sale) -> None:
        prompted.set()
        await asyncio.sleep(60)

    maple = shop(then(waits, *n_tokens))
    maple.billing = lambda receipt: replace(receipt, n_prompt=40 * most, charge=40 * most * 5)
    async with buying_at(tmp_path, maple) as place:
        buying = place.embed(maple, texts)
        ending = asyncio.ensure_future(told(buying))
        await prompted.wait()
        await until(lambda: len(heard) == 1 + len(n_tokens))  # the claim, and these
        buying.cancel()
        await ending
        await place.settled()
        paid = sum(min(count, most) for count in n_tokens) + EMBED_TEXTS * most
        assert maple.owed == paid * 5
