"""The user's money when vectors are bought, from drivers that are honest and from others."""

from __future__ import annotations

import struct
from pathlib import Path

from msgspec.structs import replace

from infraxa.net import market
from infraxa.net.orders import Done
from infraxa.net.records import DOES_VECTORS
from infraxa.net.sale import Sale
from tests.app.purses import Shop, buying_at
from tests.app.stalls import Script, told

VECTOR = struct.pack("<2f", 0.6, 0.8)


def vectors(*n_tokens: int) -> Script:
    """Says that the texts have so many tokens."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1)
        for count in n_tokens:
            await sale.vector(VECTOR, count)
        await sale.done(Done("stop", sum(n_tokens), 0, 0))

    return script


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
