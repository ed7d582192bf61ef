"""Money: finding out who a user is, having more signed than was agreed to, tokens of nothing, floods.

What is tried besides is tested where the till, the purse and the ledger are: README.md says where.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from infraxa.app import proofs, settling, spending
from infraxa.app.config import Settings
from infraxa.app.credit import Buyer, Credit
from infraxa.app.errors import NodeError
from infraxa.app.settlements import Settlements
from infraxa.app.sold import Sold
from infraxa.app.spending import Ended, Spending
from infraxa.app.till import Till
from infraxa.net import addresses, codec, customers, deals, ratings, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Identity, Signer
from infraxa.net.link import LinkClosed, StreamFailed
from infraxa.net.orders import Done
from infraxa.net.purchase import OrderFailed
from infraxa.net.sale import Sale
from infraxa.store import tabs, trade
from infraxa.store.records import StoreError
from infraxa.store.trade_records import Counts
from tests.app.purses import Shop, buying_at
from tests.app.stalls import ids, saying
from tests.app.test_till_settling import owe
from tests.app.tills import Payer, cost, engine_of, payer, selling_at
from tests.attacks import report
from tests.attacks.target import replaced, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not in order is not asked for again and again for long."""
    monkeypatch.setattr("infraxa.app.paying.PAUSES", (0.0, 0.01, 0.02, 0.05, 0.1))


OURS: Any = nullcontext
LARGE = 10**11
"""µcr."""


# Settlements.


async def neighbour(shop: Any) -> tuple[Identity, Payer]:
    """A node that bought here, and the account that it has here."""
    node = Identity(os.urandom(32), bytes(32))
    user = await payer(shop, node.account_key(shop.identity.id))
    await user.pay(await user.bought(1000, hold=1000))
    linked = deals.sign(deals.Linked(node.id, user.key, user.provider), node)
    both = deals.cosigned(linked.body, user.user.signer, deals.Linked)
    assert await user.ask(wire.LinkPlease(linked, both), wire.LinkedTo) == wire.LinkedTo()
    return node, user


def please(
    user: Payer, amount: int, number: bytes = b"", netted: Signed | None = None, **changed: Any
) -> wire.SettlePlease:
    """It proposes that what it owes after one order becomes less."""
    fields: dict[str, Any] = {
        "id": number or os.urandom(16), "provider": user.provider, "account": user.key, "amount": amount,
        "seq": 2, "owed_before": cost(1000),
    }  # fmt: skip
    return wire.SettlePlease(deals.sign(deals.Settlement(**fields | changed), user.user.signer), netted)


async def test_a_provider_that_asks_which_of_its_users_a_node_is(tmp_path: Path) -> None:
    """It buys something, says whose account that is, and proposes to net it with the tab of each of its users
    in turn: of one of them the node answers otherwise."""

    async def told(folder: Path) -> bool:
        """Whether the answers tell it."""
        async with selling_at(folder) as (shop, _):
            node, spy = await neighbour(shop)
            answers = []
            for account in (os.urandom(32), shop.identity.account_key(node.id).id):
                number, other = os.urandom(16), os.urandom(16)
                half = deals.Settlement(other, node.id, account, 1, 1, 1, against=number)
                request = please(spy, 1, number, deals.sign(half, node), against=other)
                try:
                    answers.append(await spy.ask(request, wire.Settled))
                except (LinkClosed, StreamFailed):
                    answers.append(wire.Settled("refused", bytes(64)))
                    spy = await payer(shop, spy.user.signer)
            return answers[0] != answers[1]

    with replaced((settling, "may_know", lambda conn, node: True)):
        assert await told(tmp_path / "weak")
    assert not await told(tmp_path / "ours")
    report.tell(
        "money: whose account is it?",
        weakened="one of the provider's accounts is answered otherwise",
        ours="refused, whoever it is, until the person has settled with it",
    )


async def test_another_settlement_under_a_name_that_was_agreed_to(tmp_path: Path) -> None:
    """The provider's signature that all is paid, by its name for what was paid of it."""

    async def signed(folder: Path) -> bool:
        async with selling_at(folder) as (shop, _):
            _, user = await neighbour(shop)
            number = os.urandom(16)
            request = please(user, 1, number)
            assert await user.ask(request, wire.Settled) == wire.Settled("waiting")
            assert await shop.provider.till.settle(user.key) == 1
            honest = await user.ask(request, wire.Settled)
            assert honest.state == "agreed", "again, likewise"
            answer = await user.ask(please(user, LARGE, number), wire.Settled)
            assert (await user.tab()).owed == cost(1000) - 1
            return answer.signature is not None

    def trusting(*args: Any, **more: Any) -> None:
        if args[4] != LARGE:
            assert real(*args, **more) is None

    real = tabs.settle
    with replaced((tabs, "settle", trusting)):
        assert await signed(tmp_path / "weak")
    assert not await signed(tmp_path / "ours")
    report.tell(
        "money: a settlement of another amount",
        weakened="the provider's signature that 100 000 credits are paid",
        ours="refused: kept is what was agreed to",
    )


async def test_another_half_of_what_was_netted(tmp_path: Path) -> None:
    """It netted 1 µcr, and says so again with a half by which this node owes it as much as can be said; what
    both have signed is believed by whoever is told of it."""

    async def signed(folder: Path) -> bool:
        async with selling_at(folder) as (shop, _):
            node, user = await neighbour(shop)
            own = shop.identity.account_key(node.id)
            await shop.store.run(owe, node.id, 50)
            await shop.store.run(settling.let_know, node.id)
            number, other = os.urandom(16), os.urandom(16)
            half = deals.Settlement(other, node.id, own.id, 1, 2, 50, against=number)
            honest = await user.ask(
                please(user, 1, number, deals.sign(half, node), against=other), wire.Settled
            )
            assert honest.state == "agreed"
            half = replace(half, seq=2**62, owed_before=2**62)
            again = deals.sign(half, node)
            answer = await user.ask(please(user, 1, number, again, against=other), wire.Settled)
            if answer.netted_signature is None:
                return False
            told = wire.TabState(2**62, 2**62 - 1, 0, settlement=again, signature=answer.netted_signature)
            return proofs.proven(told, own.id, node.id) == (2**62, 2**62 - 1)

    def trusting(*args: Any, **more: Any) -> None:
        real(*args, **more)

    real = tabs.net_tabs
    with replaced((tabs, "net_tabs", trusting)):
        assert await signed(tmp_path / "weak")
    assert not await signed(tmp_path / "ours")
    report.tell(
        "money: another half of what was netted",
        weakened="a debt of 2**62 µcr that both have signed",
        ours="refused: kept is what was agreed to",
    )


async def test_a_proposal_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """A person is shown 1 µcr, and agrees to everything; what is written with it is a screen's trouble."""

    async def agreed(folder: Path) -> int:
        async with selling_at(folder) as (shop, _):
            _, user = await neighbour(shop)
            await user.ask(please(user, 1, note="\x1b[2J\u202e[red]"), wire.Settled)
            shown = (await user.tab()).note
            assert "0.000001" in shown and shown.isprintable() and "\u202e" not in shown
            await user.ask(please(user, cost(1000)), wire.Settled)
            done = await shop.provider.till.settle(user.key)
            with pytest.raises(NodeError, match="has not proposed"):
                await shop.provider.till.settle(user.key)
            return done

    def forgetting(till: Till, account: bytes, request: wire.SettlePlease) -> Any:
        till._proposed.pop(account, None)
        return settle(till, account, request)

    settle = Till._settle
    with replaced((Till, "_settle", forgetting)):
        assert await agreed(tmp_path / "weak") == cost(1000)
    assert await agreed(tmp_path / "ours") == 1
    report.tell(
        "money: a proposal that changes", weakened="all is settled", ours="refused: the first one holds"
    )


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


async def test_a_refused_proposal_that_is_agreed_to_when_it_is_old(tmp_path: Path) -> None:
    """A driver has a little proposed under a number far ahead, and refuses. When all is settled, it agrees to
    that: the highest number that both have signed says what is owed."""

    async def owed(folder: Path) -> int:
        maple = Shop("maple", saying("Hello"))
        first: list[Signed] = []
        state = {"next": 10**9, "lies": False}

        def answer(request: wire.Bargain) -> wire.Answer | None:
            if isinstance(request, wire.LinkPlease):
                return wire.LinkedTo()
            if isinstance(request, wire.TabPlease) and state["lies"]:
                said: deals.Settlement = codec.decode(first[0].body, deals.Settlement)
                both = deals.cosigned(first[0].body, maple.signer, deals.Settlement)
                left = said.owed_before - said.amount
                return wire.TabState(said.seq, left, 10**9, settlement=first[0], signature=both)
            if isinstance(request, wire.TabPlease):
                return wire.TabState(maple.seq, maple.owed, 10**9, next=state["next"])
            if not isinstance(request, wire.SettlePlease):
                return None
            if not first:
                first.append(request.settlement)
                state["next"] = 0
                return wire.Settled("refused")
            signed = deals.cosigned(request.settlement.body, maple.signer, deals.Settlement)
            maple.seq, maple.owed = maple.seq + 1, 0
            return wire.Settled("agreed", signed)

        maple.answering = answer
        async with buying_at(folder, maple) as place:
            place.identity = Identity(os.urandom(32), bytes(32))  # type: ignore[attr-defined]
            settlements = Settlements(cast(Any, place), place.purse.paying, lambda: None)
            settlements.open(place.store)
            try:
                await place.chat(maple)
                await place.idle()
                all_of_it = (await place.tab(maple)).owed
                assert all_of_it > 1
                with pytest.raises(NodeError, match="did not accept"):
                    await settlements.settle(maple.id, 1, "")
                try:
                    await settlements.settle(maple.id, None, "")
                except NodeError as error:
                    assert error.code == "books_differ"
                    return 0
                assert (await place.tab(maple)).owed == 0
                state["lies"] = True
                await place.purse.paying.settled(maple.id, 5)
                assert (await place.tab(maple)).owed == all_of_it - 1
                return all_of_it - 1
            finally:
                await settlements.close()

    with replaced((tabs, "promise", lambda conn, provider, seq: None)):
        assert await owed(tmp_path / "weak") > 0
    assert await owed(tmp_path / "ours") == 0
    report.tell(
        "money: an old proposal with a high number",
        weakened="what was settled is owed again",
        ours="nothing of a lower number is signed after it",
    )


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
    """Somebody with 65 536 networks of IPv6 is as many strangers as it likes, and gets what they get in a
    day."""
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
    assert free <= 1000 and owed <= 50_000
    weak = Credit()
    weak.use(Settings())
    weak._pool.in_all = weak._quota.in_all = 10**12
    assert got(weak) == (wanted, 100 * wanted)
    report.tell(
        "money: a stranger for each of its networks",
        weakened=f"{wanted} free answers, {wanted * 100} µcr of credit",
        ours=f"{free} free answers, {owed} µcr of credit a day, all strangers together",
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
