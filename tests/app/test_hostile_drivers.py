"""Drivers that gather prompts, or look better than they are, while they keep to the protocol."""

from __future__ import annotations

import asyncio

import pytest

from infraxa.app import buying
from infraxa.net import wire
from infraxa.net.link import Link, Stream
from infraxa.net.orders import Claimed, Piece, encode_frame
from infraxa.net.routing import is_new
from infraxa.net.sale import Sale
from tests.app.stalls import MODEL, Script, Stall, market, refusing, saying, silent, told


def taking(code: wire.ErrorCode, *, shown: str = "", retry_after_ms: int = 1) -> Script:
    """Takes the prompt, then does not answer (on)."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        if shown:
            await sale.piece(shown, (1,))
        await sale.fail(code, retry_after_ms=retry_after_ms)

    return script


@pytest.mark.parametrize("shown", ["", "x"])
@pytest.mark.parametrize("code", ["busy", "rate_limited"])
async def test_whoever_has_the_prompt_is_not_busy(code: wire.ErrorCode, shown: str) -> None:
    """Else as many as like to would get it, one after the other."""
    stalls = [Stall(name, taking(code, shown=shown)) for name in ("maple", "birch", "oak", "yew", "elm")]
    async with market(*stalls) as place:
        found = await told(place.buy(failover="auto"))
        offers = place.drivers.offers(place.nodes())
    assert found.end.error is not None and found.end.error.code == "internal"
    assert sum(len(stall.orders) for stall in stalls) == len(found.readers) == buying.MAX_DRIVERS
    assert sum(offer.failed for offer in offers) == buying.MAX_DRIVERS
    assert found.text == shown * buying.MAX_DRIVERS


async def gone_quietly(link: Link, stream: Stream) -> None:
    """Cancels when it has the prompt."""
    await stream.send(encode_frame(Claimed(4096, 9)))
    async for _ in stream:
        pass
    await stream.send(encode_frame(Piece((1,), "x")))
    await asyncio.sleep(0.1)
    stream.cancel()


@pytest.mark.parametrize("code", ["cancelled", "leaving", "model_gone", "not_allowed", "unsupported"])
async def test_a_prompt_that_is_taken_and_not_answered_is_a_fault(code: wire.ErrorCode) -> None:
    for shown in ("", "x"):
        maple = Stall("maple", taking(code, shown=shown))
        async with market(maple) as place:
            found = await told(place.buy(maple))
            (offer,) = place.drivers.offers(place.nodes())
        assert found.end.error is not None and found.end.error.code == code
        assert (offer.failed, offer.cooling_s > 0) == (1, True)
    maple = Stall("maple", silent)
    maple.raw = gone_quietly
    async with market(maple) as place:
        await told(place.buy(maple))
        (offer,) = place.drivers.offers(place.nodes())
    assert offer.failed == 1


@pytest.mark.parametrize("code", ["too_large", "bad_request"])
async def test_what_is_wrong_with_a_prompt_is_no_fault_of_who_read_it(code: wire.ErrorCode) -> None:
    maple = Stall("maple", taking(code))
    async with market(maple) as place:
        await told(place.buy(maple))
        (offer,) = place.drivers.offers(place.nodes())
    assert (offer.failed, offer.cooling_s) == (0, 0)


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_driver_that_is_always_busy_for_a_moment_is_left(
    chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buying, "BUSY_S", 1.5)
    maple = Stall("maple", refusing("busy", retry_after_ms=1))
    async with market(maple) as place, asyncio.timeout(20):
        found = await told(place.buy(maple if chosen else None))
    assert found.end.error is not None and found.end.error.code == "busy"
    assert 2 <= len(maple.orders) <= 8


@pytest.mark.parametrize(("held", "most"), [(0.8, buying.MAX_DRIVERS), (0.35, buying.MAX_DRIVERS + 2)])
async def test_drivers_that_hold_an_order_in_line_and_are_busy_then_are_few(
    held: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all that there are could hold it, one after the other, for as long as a line may last."""
    monkeypatch.setattr(buying, "BUSY_S", 0.75)

    async def holds(sale: Sale) -> None:
        await sale.placed(1)
        await asyncio.sleep(held)
        await sale.fail("busy", retry_after_ms=1)

    stalls = [Stall(f"maple {number}", holds) for number in range(10)]
    async with market(*stalls) as place:
        found = await told(place.buy())
    assert found.end.error is not None and found.end.error.code == "busy"
    assert sum(len(stall.orders) for stall in stalls) in range(buying.MAX_DRIVERS, most + 1)
    assert max(len(stall.orders) for stall in stalls) == 1


async def test_who_has_room_answers_though_another_held_the_order_and_was_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buying, "BUSY_S", 0.2)

    async def holds(sale: Sale) -> None:
        await sale.placed(1)
        await asyncio.sleep(0.3)
        await sale.fail("busy")

    maple, birch = Stall("maple", holds), Stall("birch", saying("Hello"))
    async with market(maple, birch) as place:
        await place.trust(maple)
        found = await told(place.buy())
    assert (found.text, len(maple.orders)) == ("Hello", 1)


async def test_empty_answers_make_nobody_known() -> None:
    maple = Stall("maple", saying())
    async with market(maple) as place:
        for _ in range(12):
            found = await told(place.buy(maple))
            assert found.end.reason == "stop"
        (offer,) = place.drivers.offers(place.nodes())
        assert (offer.answered, offer.failed, offer.success) == (0, 0, None)
        assert is_new(place.drivers._evidence[maple.id, MODEL])
