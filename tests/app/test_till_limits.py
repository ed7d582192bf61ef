"""How far anybody is served on credit, and how often free of charge."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infraxa.app.terms import Refusal
from infraxa.net import deals, tab, wire
from infraxa.net.identity import Signer
from infraxa.net.purchase import OrderFailed
from infraxa.net.sale import Sale
from infraxa.store import selling
from tests.app.selling import Shop
from tests.app.tills import Payer, Time, cost, engine_of, payer, say, selling_at, whole
from tests.net.nodes import until


async def test_open_holds_unsigned_charges_and_debts_together_stay_within_the_limit(tmp_path: Path) -> None:
    async with selling_at(tmp_path, stranger_limit=0.001) as (shop, _):
        user = await payer(shop)
        signed = await user.bought(1000, hold=300)
        await user.pay(signed)
        await user.bought(500, hold=200)
        running = asyncio.ensure_future(user.user.bought(**await user.order(hold=600)))
        await engine_of(shop).asked(3)
        quoted = await user.quoted()
        owed = cost(1000) + cost(500) + 600
        assert (quoted.owed, quoted.limit) == (owed, 1000)
        refused = await user.user.refused(**await user.order(hold=1000 - owed + 1))
        assert (refused.code, refused.limit) == ("tab_limit", 1000)
        await user.buy(**await user.order(hold=1000 - owed))
        say(engine_of(shop).generations[2])
        await running
        assert not (await user.tab()).owed > 1000
        await whole(shop)


async def test_many_at_once_do_not_pass_the_limit(tmp_path: Path) -> None:
    async with selling_at(tmp_path, stranger_limit=0.0035) as (shop, _):
        user = await payer(shop)
        asking = []
        for _ in range(6):
            order = await user.order(hold=1000)
            asking.append(asyncio.ensure_future(_outcome(user, order)))
            await until(lambda: asking[-1].done() or taken(shop, user, order["id"]))  # noqa: B023
        assert (await user.tab()).held == 3000
        say((await engine_of(shop).asked(2))[0])
        say(engine_of(shop).generations[1])
        say((await engine_of(shop).asked(3))[2])
        assert await asyncio.gather(*asking) == ["answered"] * 3 + ["tab_limit"] * 3


def taken(shop: Shop, user: Payer, number: bytes) -> bool:
    """The order is in the ledger, or about to be."""
    return (user.key, number) in shop.provider.till._running


async def _outcome(user: Payer, order: dict[str, Any]) -> str:
    try:
        await user.user.bought(**order)
    except OrderFailed as failed:
        return failed.code
    return "answered"


async def test_a_limit_of_its_own_replaces_that_of_strangers_and_outlives_a_restart(tmp_path: Path) -> None:
    signer = Signer(os.urandom(32))
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop, signer)
        assert (await user.user.refused(**await user.order(hold=5001))).code == "strangers_full"
        await shop.provider.till.set_limit(user.key, 8000)
        assert (await user.quoted()).limit == 8000
        await user.buy(**await user.order(hold=8000))
        assert (await user.user.refused(**await user.order(hold=8001))).code == "tab_limit"
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, signer)
        await user.buy(**await user.order(hold=7000))
        await shop.provider.till.set_limit(user.key, None)
        assert (await user.quoted()).limit == 5000


async def test_strangers_share_a_pool_and_a_network_a_part_of_it(tmp_path: Path) -> None:
    async with selling_at(tmp_path, stranger_limit=0.005, strangers_daily=0.05) as (shop, time):
        for _ in range(2):
            user = await payer(shop)
            order = await user.order(hold=5000, id=os.urandom(16))
            running = asyncio.ensure_future(_outcome(user, order))
            await until(lambda: taken(shop, user, order["id"]))  # noqa: B023 - awaited at once
            running.cancel()
            await asyncio.wait([running])
        # What was reserved and not charged is there again.
        holders = []
        for number in range(2):
            user = await payer(shop)
            holders.append(asyncio.ensure_future(_outcome(user, await user.order(hold=5000))))
            await engine_of(shop).asked(number + 1)
        third = await payer(shop)
        refused = await third.refused(wire.QuotePlease(shop.model_id))
        assert refused.code == "strangers_full", "one network has 10000"
        assert refused.retry_after_ms == tab.DAY_MS - time.ms % tab.DAY_MS
        for generation in engine_of(shop).generations:
            say(generation, 1000)
        for holder in holders:
            assert await holder == "answered"
        left = 10_000 - 2 * cost(1000)
        await third.buy(**await third.order(hold=min(5000, left)))
        assert (await third.quoted()).limit == 5000


async def test_a_quote_says_how_much_a_stranger_can_reserve_now(tmp_path: Path) -> None:
    """So it reserves no more, instead of being refused."""
    async with selling_at(tmp_path, stranger_limit=0.005, strangers_daily=0.05) as (shop, _):
        holders = []
        for number, hold in enumerate((5000, 3000)):
            user = await payer(shop)
            holders.append(asyncio.ensure_future(_outcome(user, await user.order(hold=hold))))
            await engine_of(shop).asked(number + 1)
        third = await payer(shop)
        quoted = await third.quoted()
        assert (quoted.owed, quoted.limit) == (0, 2000)
        for generation in engine_of(shop).generations:
            say(generation)
        await asyncio.gather(*holders)
        await third.buy(**await third.order(hold=2000))


async def test_what_strangers_used_today_is_known_after_a_restart(tmp_path: Path) -> None:
    signer = Signer(os.urandom(32))
    time = Time()
    time.ms = time.ms // tab.DAY_MS * tab.DAY_MS + 1000
    async with selling_at(tmp_path, time=time) as (shop, _):
        user = await payer(shop, signer)
        numbers = [await user.bought(1000), await user.bought(1000)]
        await user.pay(numbers[0])
        used = 2 * cost(1000)
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, signer)
        await shop.provider.till.set_limit(user.key, 10**9)
        await shop.provider.till.set_limit(user.key, None)
        await user.pay(numbers[1])
        assert (await user.user.refused(**await user.order(hold=5001 - used))).code == "strangers_full"
        time.ms += tab.DAY_MS
        await user.buy(**await user.order(hold=5000 - used))


async def test_what_is_free_of_charge_is_counted_by_account_and_network(tmp_path: Path) -> None:
    async with selling_at(tmp_path, free_daily=2) as (shop, time):
        user, other = await payer(shop), await payer(shop)
        assert (await user.quoted()).free_left == 2
        items = await user.buy(3, id=os.urandom(16))
        request = engine_of(shop).generations[-1].request
        assert request.sampling.max_tokens == 256 and request.budget is None and items
        assert (await other.quoted()).free_left == 1, "it comes from the same network"
        number = os.urandom(16)
        await other.buy(3, id=number)
        refused = await user.user.refused()
        assert refused.code == "price_changed" and refused.limit >= 200_000
        accepted = await other.pay(number)
        assert (accepted.owed, accepted.seq) == (0, 1)
        time.ms += tab.DAY_MS
        assert (await user.quoted()).free_left == 2


async def test_what_was_free_today_is_known_after_a_restart(tmp_path: Path) -> None:
    """By account; addresses are not kept. What was bought counts for nothing."""
    signer, time = Signer(os.urandom(32)), Time()
    async with selling_at(tmp_path, time=time) as (shop, _):
        user = await payer(shop, signer)
        await user.buy(3, id=os.urandom(16))
        time.ms += tab.DAY_MS
        for _ in range(2):
            await user.buy(3, id=os.urandom(16))
        await user.bought()
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user, other = await payer(shop, signer), await payer(shop)
        assert (await user.quoted()).free_left == 1 and (await other.quoted()).free_left == 3
        await user.buy(3, id=os.urandom(16))
        assert (await user.user.refused()).code == "price_changed"


async def test_what_is_free_of_charge_takes_no_place_from_others(tmp_path: Path) -> None:
    async with selling_at(tmp_path, capacity=1) as (shop, _):
        paying, user = await payer(shop), await payer(shop)
        running = asyncio.ensure_future(paying.user.bought(**await paying.order()))
        await engine_of(shop).asked(1)
        assert (await user.user.refused()).code == "busy"
        assert (await user.quoted()).free_left == 3, "it was not served"
        say(engine_of(shop).generations[0])
        await running
        await shop.free()
        await user.buy(id=os.urandom(16))


async def test_through_a_relay_nothing_is_free_where_others_pay(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        terms = shop.provider.till.serving(bytes(32))

        order = wire.Order(os.urandom(16), terms.model_id, 10)
        sale = cast(Sale, SimpleNamespace(order=order, account=bytes(32), group="relay", relayed=True))
        with pytest.raises(Refusal, match="price_changed"):
            await shop.provider.till.admit(sale, terms)


async def test_who_does_not_sign_is_served_no_more_until_it_does(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop)
        number = await user.bought()
        time.ms += 10 * tab.RECEIPT_GRACE_MS
        await user.bought()  # nobody asked for the first receipt yet
        await user.receipt(number)
        await user.bought()
        time.ms += tab.RECEIPT_GRACE_MS + 1
        assert (await user.user.refused(**await user.order())).code == "receipt_due"
        refused = await user.refused(
            wire.CountersignPlease(number, user.countersigned(await user.receipt(number), less=-9))
        )
        assert refused.code == "bad_request"
        accepted = await user.pay(number)
        assert accepted.next is not None, "the next one has its own time"
        await user.bought()
        time.ms += tab.RECEIPT_GRACE_MS + 1
        assert (await user.user.refused(**await user.order())).code == "receipt_due"


async def test_who_never_asks_for_a_receipt_is_served_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selling, "MAX_DUE", 5)
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        for _ in range(selling.MAX_DUE):
            await user.bought(hold=10)
        assert (await user.user.refused(**await user.order(hold=10))).code == "receipt_due"


def prices(shop: Shop) -> list[int]:
    """What others are told that differs from the card."""
    return [price.price_out for price in shop.loads[-1].prices]


async def test_the_price_follows_the_work_and_others_are_told(tmp_path: Path) -> None:
    async with selling_at(tmp_path, capacity=2) as (shop, _):
        user = await payer(shop)
        (offer,) = [one for one in shop.offers if one is not None][-1:]
        assert (offer.models[0].price_in, offer.models[0].price_out) == (50_000, 200_000)
        assert (offer.stranger_limit, offer.free_daily) == (5000, 3)
        assert prices(shop) == [], "as the card says"
        quiet = await user.quote()
        users = [await payer(shop) for _ in range(2)]
        running = [asyncio.ensure_future(one.user.bought(**await one.order())) for one in users]
        await engine_of(shop).asked(2)
        # So much work is a demand of some hundredths: it takes its time, and comes.
        await until(lambda: prices(shop), 20)
        dear = await user.quote()
        (now,) = prices(shop)
        assert dear.price_out > now * 98 // 100 and now > quiet.price_out
        assert dear.price_in == -(-dear.price_out // 4)
        assert deals.QUOTE_MS == dear.expires - dear.issued
        for generation in engine_of(shop).generations:
            say(generation)
        await asyncio.gather(*running)
