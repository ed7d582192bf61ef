"""Why a node is not earning: from what happened, with figures, one entry per reason."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from infraxa.app import missed
from infraxa.app.missed import KEPT_MS, MissedLog, poorly_rated
from infraxa.app.trade import Missed
from infraxa.net import wire
from infraxa.net.deals import QUOTE_MS
from infraxa.net.link import StreamFailed
from tests.app.tills import engine_of, payer, say, selling_at
from tests.net.nodes import until

KEYS = [bytes([number]) * 32 for number in range(9)]


def listed(log: MissedLog, now_ms: int, **changed: object) -> list[Missed]:
    options = {"serving_since_ms": now_ms, "free": False, "unreachable": False} | changed
    return log.listed(now_ms, **options)  # type: ignore[arg-type]


def test_quotes_that_were_not_taken_say_how_much_dearer_they_were() -> None:
    log = MissedLog()
    log.not_taken(KEYS[0], 300, 200, 1000)
    log.not_taken(KEYS[1], 300, 200, 2000)
    log.not_taken(KEYS[1], 360, 240, 3000)
    (found,) = listed(log, 3000)
    assert (found.reason, found.count, found.at_ms) == ("dearer", 3, 3000)
    assert found.text == (
        "A price was asked and not taken 3 times, by 2 users; it was 50 % above the cheapest other."
    )
    log.not_taken(KEYS[2], 250_000, None, 4000)
    log.not_taken(KEYS[2], 250_000, 250_000, 5000)
    first, _ = listed(log, 5000)
    assert first.count == 2 and "0.25 credits per 1M tokens. Nobody known was cheaper." in first.text
    free = MissedLog()
    free.not_taken(KEYS[0], 300, 0, 1)
    assert "free of charge" in listed(free, 1)[0].text


def test_refusals_are_told_by_what_they_mean_for_the_provider() -> None:
    log = MissedLog()
    codes = ("busy", "expired", "tab_limit", "receipt_due", "strangers_full", "model_gone", "internal")
    for at, code in enumerate((*codes, "bad_request", "price_changed", "too_large")):
        log.refused(KEYS[0], code, at)
    log.refused(KEYS[0], "busy", 20, paused=True)
    found = listed(log, 20)
    assert [one.reason for one in found] == ["paused", "failed", "model", "tab", "tab", "tab", "busy", "busy"]
    assert all("{" not in one.text and one.text.endswith(".") for one in found)


def test_what_keeps_others_away_is_told_as_it_is_now() -> None:
    log, hour = MissedLog(), 3_600_000
    assert listed(log, hour) == []
    quiet = listed(log, hour, serving_since_ms=hour - missed.NO_DEMAND_MS)
    assert [one.reason for one in quiet] == ["no_demand"] and "last 10 minutes" in quiet[0].text
    log.asked(KEYS[0], hour - 1)
    assert listed(log, hour, serving_since_ms=0) == []
    reasons = {one.reason for one in listed(log, hour, free=True, unreachable=True)}
    assert reasons == {"free", "unreachable"}
    assert listed(log, hour, serving_since_ms=None, free=True) == []


def test_bad_ratings_are_a_reason_once_they_are_some() -> None:
    assert poorly_rated([1, 1], 5) is None
    assert poorly_rated([3, 2, 4], 5) is None
    found = poorly_rated([1, 2, 4, 1], 5)
    assert found is not None and (found.reason, found.at_ms) == ("reputation", 5)
    assert found.text == "4 ratings give its answers 2.0 of 5 stars."


def test_a_test_of_ones_own_is_no_demand() -> None:
    log, hour, day = MissedLog(), 3_600_000, 24 * 3_600_000
    log.asked(KEYS[0], hour)
    log.asked(KEYS[1], day - 1)  # a quote
    log.asked(KEYS[1], day)  # and the order
    log.was_test(KEYS[1])
    (quiet,) = listed(log, day, serving_since_ms=0)
    assert "1380 minutes" in quiet.text
    log.asked(KEYS[1], day)
    log.asked(KEYS[2], day)
    log.was_test(KEYS[1])
    assert listed(log, day, serving_since_ms=0) == []


def test_it_forgets_and_stays_small() -> None:
    log = MissedLog()
    for number in range(5000):
        log.refused(number.to_bytes(32, "big"), "busy", number)
    (found,) = listed(log, 5000)
    assert found.count == 5000 and len(log._lost["busy"].accounts) == missed.MAX_ACCOUNTS
    assert listed(log, 5000 + KEPT_MS) == []


async def test_a_provider_notes_what_it_missed(tmp_path: Path) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, time):
        shop.provider.till.cheapest = lambda model: 100_000 if model == shop.model_id else None
        user = await payer(shop)
        await user.bought()
        replaced = await user.quote()
        await user.ask(wire.QuotePlease(shop.model_id, instead=replaced.id), wire.Quoted)
        time.ms += QUOTE_MS
        await until(lambda: shop.provider.missed(unreachable=False))
        (found,) = shop.provider.missed(unreachable=False)
        assert (found.reason, found.count) == ("dearer", 1), "one that was replaced or taken is none"
        assert "100 % above" in found.text
        running = [asyncio.ensure_future(user.user.bought(**await user.order()))]
        await engine_of(shop).asked(2)
        time.ms += 1
        assert (await user.user.refused(id=os.urandom(16))).code == "busy"
        assert shop.provider.missed(unreachable=False)[0].reason == "busy"
        say(engine_of(shop).generations[1])
        await asyncio.gather(*running)
        await shop.provider.till.set_limit(user.key, 1)
        time.ms += 1
        assert (await user.user.refused(**await user.order())).code == "tab_limit"
        assert shop.provider.missed(unreachable=False)[0].reason == "tab"
        await shop.provider.block(user.key, True)
        for _ in range(2):
            time.ms += 1
            with pytest.raises(StreamFailed, match="not_allowed"):
                await user.quote()
        found = shop.provider.missed(unreachable=False)[0]
        assert (found.reason, found.count) == ("blocked", 2) and "own choice" in found.text
