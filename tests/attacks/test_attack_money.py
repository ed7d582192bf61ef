"""Money: tokens of nothing, amounts without end, floods, links that are dropped.

What is tried besides is tested where the till, the purse and the ledger are: README.md says where.
"""

from __future__ import annotations

import asyncio
import logging
import os
from array import array
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from infraxa.app import spending
from infraxa.app.config import Settings
from infraxa.app.credit import Buyer, Credit
from infraxa.app.offers import OfferSeen
from infraxa.app.sold import Sold
from infraxa.app.spending import Ended, Spending
from infraxa.engine.vocabulary import Vocabulary
from infraxa.net import addresses, codec, customers, deals, ratings, wire
from infraxa.net.identity import Signer
from infraxa.net.link import StreamFailed
from infraxa.net.orders import Done
from infraxa.net.purchase import OrderFailed
from infraxa.net.sale import Sale
from infraxa.store import tabs, trade
from infraxa.store.records import StoreError
from infraxa.store.trade_records import Counts
from tests.app.purses import Shop, buying_at
from tests.app.stalls import ids, saying
from tests.app.tills import Payer, cost, engine_of, payer, selling_at
from tests.attacks import report
from tests.attacks.target import replaced, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not in order is not asked for again and again for long."""
    monkeypatch.setattr("infraxa.app.paying.PAUSES", (0.0, 0.01, 0.02, 0.05, 0.1))


OURS: Any = nullcontext


# Drivers.


def nothing(count: int) -> Any:
    """A driver of an answer of so many tokens, none of which says anything but the first."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        await sale.piece("Hi", (*ids("Hi"), *[3] * (count - 2)))
        await sale.done(Done("stop", 5, 0, count, 0, 0, 0))

    return script


async def test_tokens_that_say_nothing(tmp_path: Path) -> None:
    """Of a driver that gives nobody the vocabulary of its model, so that nobody counts."""

    async def paid(folder: Path, driver: AbstractContextManager[None]) -> int | None:
        maple = Shop("maple", nothing(500))
        with driver:
            async with buying_at(folder, maple) as place:
                await place.chat(maple)
                await place.idle()
                (order,) = await place.orders()
                assert order.charge == 5 * 5 + 500 * 20
                return order.accepted

    def trusting(self: Spending, opened: Any, ended: Ended, counts: Counts) -> spending.Write:
        return write(self, opened, ended._replace(text="x" * len(ended.ids)), counts)

    write = Spending._write
    assert await paid(tmp_path / "weak", replaced((Spending, "_write", trusting))) == 5 * 5 + 500 * 20
    assert await paid(tmp_path / "ours", OURS()) == 5 * 5 + 2 * 20
    report.tell(
        "money: 498 tokens of nothing", weakened="paid", ours="disputed: a token that counts has a byte"
    )


async def test_words_sent_as_letters(tmp_path: Path) -> None:
    """By a driver whose model has a token for each word, and that is paid by the token."""
    text = "the beehive behind the school " * 10
    pieces = [*(bytes([byte]) for byte in range(256)), *(f"{word} ".encode() for word in text.split()[:5])]
    vocabulary = Vocabulary(array("H", map(len, pieces)), b"".join(pieces))

    async def known(offer: OfferSeen) -> Vocabulary:
        return vocabulary

    async def disputed(folder: Path, user: AbstractContextManager[None]) -> int:
        maple = Shop("maple", saying(text))
        with user:
            async with buying_at(folder, maple) as place:
                place.purse.vocabulary = known
                await place.chat(maple)
                await place.idle()
                (order,) = await place.orders()
                assert order.charge is not None and order.accepted is not None
                assert order.charge > len(text) * 20
                return order.charge - order.accepted

    assert await disputed(tmp_path / "weak", replaced((Vocabulary, "fair", as_counted))) == 0
    assert await disputed(tmp_path / "ours", OURS()) == (len(text) - 2 * 50) * 20
    report.tell(
        "money: words sent as letters", weakened=f"{len(text)} tokens", ours="two for each that would do"
    )


def as_counted(self: Vocabulary, text: str, count: int) -> int:
    return count


async def test_what_a_driver_has_a_user_keep(tmp_path: Path) -> None:
    """With each receipt a rating may be given, by a form that the user keeps: of 30 kB."""

    async def kept(folder: Path) -> int:
        maple = Shop("maple", saying("Hello"))
        accepted = maple.countersigned

        def stuffed(request: wire.Bargain) -> wire.Accepted | None:
            if not isinstance(request, wire.CountersignPlease):
                return None
            done = accepted(maple.sold[request.order], request.countersign)
            assert done.ratable is not None
            body = msgspec.msgpack.encode([*msgspec.msgpack.decode(done.ratable.body), bytes(30_000)])
            return replace(done, ratable=maple.signer.sign("rating", body))

        maple.answering = stuffed
        async with buying_at(folder, maple) as place:
            await place.chat(maple)
            await place.settled()
            (order,) = await place.orders()
            row = await place.store.run(trade.get_receipt, "user", maple.id, order.id)
            assert row is not None
            return len(row.rating or b"")

    with replaced((ratings, "MAX_BLANK", codec.MAX_MESSAGE)):
        assert await kept(tmp_path / "weak") > 30_000
    assert await kept(tmp_path / "ours") == 0
    report.tell("money: blanks of 30 kB", weakened="30 kB on disk for each order", ours="not kept")


@pytest.mark.parametrize("owed", [-(2**62), 2**62])
async def test_amounts_at_the_end_of_what_can_be_said(tmp_path: Path, owed: int) -> None:
    """Nothing wraps round, and nothing of it is reserved or spent."""
    maple = Shop("maple", saying("Hello"))
    maple.owed, maple.limit = owed, 2**62
    maple.max_out = 2**31 - 1
    async with buying_at(tmp_path, maple, cap_request=0.1) as place:
        answer = await place.chat(maple)
        await place.idle()
        if owed > 0:
            assert answer.end.error is not None and answer.end.error.code == "tab_limit"
            return
        (order,) = await place.orders()
        assert order.hold <= 100_000, "the cap of a request"
        tab = await place.tab(maple)
        assert tab.owed == 0 and "another balance" in tab.note, "what it says of the tab explains nothing"


async def test_a_driver_whose_clock_is_days_off(tmp_path: Path) -> None:
    """A quote holds for 30 s of either clock, whatever time each says that it is."""
    for days in (-400, 400):
        maple = Shop("maple", saying("Hello"))

        def off(quote: deals.Quote, days: int = days) -> deals.Quote:
            issued = quote.issued + days * 86_400_000
            return replace(quote, issued=issued, expires=issued + 10 * 365 * 86_400_000)

        maple.quoting = off
        async with buying_at(tmp_path / str(days), maple) as place:
            bound = await place.locked(maple)
            assert bound.state == "locked"
            found = place.purse.locked.get(maple.id, maple.model.model_id)
            assert found is not None and found.left_s <= deals.QUOTE_MS / 1000
            assert (await place.chat(maple)).text == "Hello"
            await place.settled()


async def test_every_receipt_that_a_driver_makes_up_is_signed_for_nothing(tmp_path: Path) -> None:
    """It says that more are due, of orders that never were: they cost nothing, and come to an end."""
    maple = Shop("maple", saying("Hello"))
    accepted = maple.countersigned
    made: list[bytes] = []

    def more(request: wire.Bargain) -> wire.Accepted | None:
        if not isinstance(request, wire.CountersignPlease):
            return None
        if request.order in maple.sold:
            done = accepted(maple.sold[request.order], request.countersign)
        else:
            maple.seq += 1
            done = wire.Accepted(maple.seq, maple.owed)
        made.append(os.urandom(16))
        order = next(iter(maple.sold.values()))
        false = replace(
            maple.facts(order), order=made[-1], charge=2**62, seq=maple.seq + 1, owed_before=maple.owed
        )
        return replace(done, next=deals.sign(false, maple.signer))

    maple.answering = more
    async with buying_at(tmp_path, maple) as place:
        await place.chat(maple)
        await place.idle()
        assert 0 < len(made) <= 40
        tab = await place.tab(maple)
        assert tab.owed == maple.owed == (await place.orders())[0].accepted


# Users.


async def test_a_flood_of_questions_about_money(tmp_path: Path) -> None:
    """Through relays, under many accounts: each has a share of its own, and all of them one."""
    accounts, each = report.scale(4, 12), report.scale(60, 200)

    async def answered(folder: Path) -> int:
        async with selling_at(folder) as (shop, _):
            users = [await payer(shop) for _ in range(accounts)]
            count = 0

            async def ask(user: Payer) -> None:
                nonlocal count
                for _ in range(each):
                    try:
                        await user.ask(wire.TabPlease(), wire.TabState)
                    except StreamFailed as failed:
                        assert failed.failure.code == "rate_limited"
                    else:
                        count += 1

            await asyncio.gather(*(ask(user) for user in users))
            return count

    relayed = (customers, "is_relayed", lambda link: True)
    with replaced(relayed, (customers, "ALL_BARGAINS_BURST", 10**6)):
        assert await answered(tmp_path / "weak") == accounts * each
    slow = (customers, "ALL_BARGAINS_S", 1e-3), (customers, "ALL_BARGAINS_BURST", 100)
    with replaced(relayed, *slow):
        assert await answered(tmp_path / "ours") == 100
    report.tell(
        "money: questions of many accounts",
        weakened=f"all {accounts * each} answered",
        ours="200 a second of all together, 800 at once",
        cost="a signature each",
    )


async def test_orders_that_reserve_more_than_there_is(tmp_path: Path) -> None:
    """Amounts at the end of what can be said, of an account that may owe as much."""
    async with selling_at(tmp_path) as (shop, _):
        user = await payer(shop)
        await shop.provider.till.set_limit(user.key, 2**62)
        assert (await user.user.refused(**await user.order(2**62))).code == "tab_limit"
        number = await user.bought(4)
        receipt = await user.receipt(number)
        value = deals.Countersign(deals.receipt_hash(receipt), 2**31 - 1, 2**31 - 1, 2**62, True, 1)
        request = wire.CountersignPlease(number, deals.sign(value, user.user.signer))
        assert (await user.refused(request)).code == "bad_request"
        tab = await user.tab()
        assert (tab.owed, tab.held) == (0, cost(4)), "it is still to be signed"
        assert (await user.pay(number)).owed == cost(4)


async def test_a_link_that_is_dropped_whenever_a_prompt_was_read(tmp_path: Path) -> None:
    """Nobody knows whose fault it was, so nothing is charged: a provider that reads prompts for nothing."""

    async def read(folder: Path) -> int:
        """How many prompts of 40 000 tokens, 2000 µcr each."""
        async with selling_at(folder, stranger_limit=0.005, strangers_daily=0.05) as (shop, _):
            signer = Signer(os.urandom(32))
            for number in range(4):
                user = await payer(shop, signer)
                bought = asyncio.ensure_future(user.user.bought(**await user.order(hold=2100)))
                await asyncio.wait(
                    [bought, asked := asyncio.ensure_future(engine_of(shop).asked(number + 1))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                asked.cancel()
                if bought.done():
                    assert isinstance(refused := bought.exception(), OrderFailed)
                    assert refused.code == "strangers_full"
                    return number
                engine_of(shop).generations[-1].read(40_000, 40_000)
                await until(lambda: any(one.prompt_read == 40_000 for one in shop.provider.served()))
                await user.user.link.close()
                await asyncio.wait([bought])
                assert bought.exception() is not None
                await shop.free()
                await until(lambda: not shop.provider.till._running)
                assert (await shop.store.run(tabs.get_tab, "provider", signer.id)).held == 0
            return 4

    with replaced((Sold, "used", Sold.charge)):
        assert await read(tmp_path / "weak") == 4
    assert await read(tmp_path / "ours") == 2
    report.tell(
        "money: links dropped after the prompt",
        weakened="any number of prompts read for nothing",
        ours="as many as its share of a day pays, and all strangers together likewise",
    )


async def test_fresh_identities_of_many_networks(tmp_path: Path) -> None:
    """Somebody with a /32 of IPv6 is as many strangers as it likes, and gets two fifths of what they get in a
    day: the rest is there for others."""
    wanted = report.scale(3000, 30_000)
    groups = [addresses.group(f"2a01:4f8:{n:x}::1") for n in range(wanted)]
    assert len(set(groups)) == len(groups)

    def got(credit: Credit) -> tuple[int, int]:
        """Free requests, and µcr on credit."""
        free = owed = 0
        for group in groups:
            buyer = Buyer(os.urandom(32), group)
            free += credit.take_free(buyer, 0)
            try:
                credit.take(buyer, 100, 0)
            except Exception as error:
                assert type(error).__name__ == "Refusal"
            else:
                owed += 100
        return free, owed

    credit = Credit()
    credit.use(Settings())
    free, owed = got(credit)
    other = Buyer(os.urandom(32), addresses.group("8.8.8.8"))
    assert free <= 400 and owed <= 20_000
    assert credit.free_left(other, 0) == 2 and credit.left(other, 0) == 5_000
    weak = Credit()
    weak.use(Settings())
    weak._pool.in_all = weak._quota.in_all = 10**12
    assert got(weak) == (wanted, 100 * wanted)
    report.tell(
        "money: a stranger for each of its networks",
        weakened=f"{wanted} free answers, {wanted * 100} µcr of credit",
        ours=f"{free} free answers, {owed} µcr of credit a day, and as much again for others",
    )


async def test_no_prompt_is_in_the_log_when_money_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "the beehive behind the school"

    async def fails(*args: Any, **more: Any) -> Any:
        raise StoreError("disk_full", "The disk is full.", "Make room.")

    with caplog.at_level(logging.DEBUG):
        async with selling_at(tmp_path / "sells") as (shop, _):
            user = await payer(shop)
            with replaced((shop.store, "run", fails)):
                failed = await user.user.refused(secret, quote=os.urandom(16), hold=5)
                assert failed.code == "internal"
            assert (await user.user.refused(secret, quote=os.urandom(16), hold=5)).code == "price_changed"
    assert caplog.records and secret not in caplog.text
