"""Tabs that are reduced: by agreement of two persons, and by what both sides served each other."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from infraxa.app import proofs, settlements, settling
from infraxa.app.credit import Buyer
from infraxa.app.errors import NodeError
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.customers import Customer
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Identity
from infraxa.store import buying, tabs
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, Counts, OrderRow
from tests.app.selling import Shop
from tests.app.tills import Payer, cost, payer, selling_at, whole


def an_identity() -> Identity:
    return Identity(os.urandom(32), bytes(32))


async def neighbour(shop: Shop, *, bought: int = 1000, hold: int = 1000) -> tuple[Identity, Payer]:
    """A node that bought here, and the user that it is."""
    node = an_identity()
    user = await payer(shop, node.account_key(shop.identity.id))
    await user.pay(await user.bought(bought, hold=hold))
    return node, user


def proposal(user: Payer, amount: int, **changed: Any) -> deals.Settlement:
    """Of what it owes after one order."""
    fields: dict[str, Any] = {
        "id": os.urandom(16), "provider": user.provider, "account": user.key, "amount": amount, "seq": 2,
        "owed_before": cost(1000), "note": "for the cake",
    }  # fmt: skip
    return deals.Settlement(**fields | changed)


def please(user: Payer, said: deals.Settlement, netted: Signed | None = None) -> wire.SettlePlease:
    return wire.SettlePlease(deals.sign(said, user.user.signer), netted)


def cosigned(settled: wire.Settled, request: wire.SettlePlease, shop: Shop) -> bool:
    """The creditor agreed to exactly this."""
    assert settled.signature is not None
    signed = Signed(request.settlement.body, shop.identity.id, settled.signature)
    return codec.verify("settle", signed)


async def test_an_agreement_waits_for_the_person_and_happens_once(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        node, user = await neighbour(shop)
        till = shop.provider.till
        request = please(user, proposal(user, 100))
        with pytest.raises(NodeError, match="has not proposed"):
            await till.settle(user.key)
        for _ in range(2):
            assert await user.ask(request, wire.Settled) == wire.Settled("waiting")
        tab = await user.tab()
        assert (tab.owed, tab.note) == (cost(1000), "It proposes to settle 0.0001 credits: “for the cake”")
        with pytest.raises(NodeError, match=r"proposed 0\.0001 credits"):
            await till.settle(user.key, 99)
        assert await till.settle(user.key, 100) == 100
        answers = [await user.ask(request, wire.Settled) for _ in range(3)]
        assert all(answer == answers[0] for answer in answers) and cosigned(answers[0], request, shop)
        tab = await user.tab()
        assert (tab.owed, tab.signed_seq, tab.note) == (cost(1000) - 100, 2, "")
        other = please(user, proposal(user, 100))
        assert await user.ask(other, wire.Settled) == wire.Settled("refused"), "of a state that is over"
        number = await user.bought(10)
        assert (await user.pay(number)).owed == cost(1000) - 100 + cost(10)
        await whole(shop)
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, node.account_key(shop.identity.id))
        assert await user.ask(request, wire.Settled) == answers[0]
        assert (await user.tab()).owed == cost(1000) - 100 + cost(10)


async def test_the_person_declines_and_something_else_can_be_proposed(tmp_path: Path) -> None:
    declined = wire.Settled("refused", declined=True)
    async with selling_at(tmp_path) as (shop, time):
        node, user = await neighbour(shop)
        till = shop.provider.till
        request, other = please(user, proposal(user, 100)), please(user, proposal(user, 60))
        with pytest.raises(NodeError, match="has not proposed"):
            await till.decline(user.key)
        await user.ask(request, wire.Settled)
        assert await user.ask(other, wire.Settled) == wire.Settled("refused"), "one is open"
        assert await till.decline(user.key) == 100
        assert (await user.tab()).note == ""
        assert [await user.ask(request, wire.Settled) for _ in range(2)] == [declined] * 2
        with pytest.raises(NodeError, match="has not proposed"):
            await till.settle(user.key)
        assert await user.ask(other, wire.Settled) == wire.Settled("waiting")
        assert await user.ask(request, wire.Settled) == declined, "as before"
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, node.account_key(shop.identity.id))
        assert await user.ask(request, wire.Settled) == declined, "after a restart"
        assert await user.ask(other, wire.Settled) == wire.Settled("waiting")
        assert await shop.provider.till.settle(user.key) == 60
        assert await user.ask(request, wire.Settled) == declined, "on a tab that has moved"
        assert (await user.tab()).owed == cost(1000) - 60
        await whole(shop)


@pytest.mark.parametrize("first", ["agree", "decline"])
async def test_who_agrees_and_declines_at_once_does_the_first(tmp_path: Path, first: str) -> None:
    async with selling_at(tmp_path) as (shop, _):
        till, (_, user) = shop.provider.till, await neighbour(shop)
        request = please(user, proposal(user, 100))
        await user.ask(request, wire.Settled)
        both = [till.settle(user.key), till.decline(user.key)]
        told = await asyncio.gather(*(both if first == "agree" else both[::-1]), return_exceptions=True)
        assert told[0] == 100
        assert isinstance(told[1], NodeError)
        heard = await user.ask(request, wire.Settled)
        if first == "agree":
            assert told[1].code == "tab_changed" and cosigned(heard, request, shop)
        else:
            assert told[1].code == "declined" and heard == wire.Settled("refused", declined=True)
        tab = await user.tab()
        assert (tab.owed, tab.note) == (cost(1000) - 100 * (first == "agree"), "")
        await whole(shop)


async def test_what_is_settled_is_no_credit_any_more(tmp_path: Path) -> None:
    """Else who settled would still be refused until the day is over."""
    async with selling_at(tmp_path, stranger_limit=0.000201, strangers_daily=0.000201) as (shop, _):
        _, user = await neighbour(shop, hold=201)
        owed = cost(1000)
        assert (await user.user.refused(**await user.order(hold=1))).code == "strangers_full"
        await user.ask(please(user, proposal(user, owed)), wire.Settled)
        other = await payer(shop)
        for _ in range(2):
            assert await other.ask(please(other, proposal(other, 1, seq=1, owed_before=0)), wire.Settled) == (
                wire.Settled("refused")
            ), "it owes nothing"
        await shop.provider.till.settle(user.key)
        await user.buy(**await user.order(hold=201))
        assert (await user.user.refused(**await user.order(hold=202))).code == "strangers_full"


async def test_no_agreement_while_a_receipt_is_unsigned_or_on_another_state(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        _, user = await neighbour(shop)
        for wrong in ({"seq": 3}, {"owed_before": 0}):
            request = please(user, proposal(user, 100, **wrong))
            assert await user.ask(request, wire.Settled) == wire.Settled("refused")
        assert await user.ask(please(user, proposal(user, 100)), wire.Settled) == wire.Settled("waiting")
        number = await user.bought(10)
        await user.receipt(number)
        with pytest.raises(NodeError, match="has changed"):
            await shop.provider.till.settle(user.key)
        await user.pay(number)
        assert (await user.tab()).owed == cost(1000) + cost(10)


@pytest.mark.parametrize("which", ["provider", "account", "signer"])
async def test_a_proposal_of_others_breaks_the_protocol(tmp_path: Path, which: str) -> None:
    async with selling_at(tmp_path) as (shop, _):
        node, user = await neighbour(shop)
        changed = {which: bytes(32)} if which != "signer" else {}
        signer = node if which == "signer" else user.user.signer
        request = wire.SettlePlease(deals.sign(proposal(user, 100, **changed), signer))
        with pytest.raises(ProtocolError):
            await shop.provider.till.bargain(Customer(user.key, "local", False), request)


def link_of(node: Identity, user: Payer, **changed: bytes) -> wire.LinkPlease:
    fields = {"node": node.id, "account": user.key, "provider": user.provider} | changed
    linked = deals.sign(deals.Linked(**fields), node)
    return wire.LinkPlease(linked, deals.cosigned(linked.body, user.user.signer, deals.Linked))


def owe(conn: Connection, provider: bytes, amount: int) -> None:
    """This node bought there, too."""
    order = OrderRow(peer=provider, id=os.urandom(16), model=bytes(32), price_out=1, hold=amount)
    assert buying.open_hold(conn, order, Caps()) is None
    buying.mark_sent(conn, provider, order.id)
    buying.count_order(conn, provider, order.id, "completed", Counts(1, 0, 1), amount, "stop")
    buying.sign_receipt(
        conn, provider, order.id, receipt=b"receipt", countersign=b"countersign", seq=1,
        billed=Counts(1, 0, 1), charge=amount, accepted=amount,
    )  # fmt: skip


async def test_who_an_account_is_both_keys_say(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        node, user = await neighbour(shop)
        fresh = await payer(shop)
        assert await fresh.ask(link_of(node, fresh), wire.LinkedTo) == wire.LinkedTo()
        assert (await fresh.tab()).node is None, "nothing is kept of who owes nothing"
        assert await user.ask(link_of(node, user), wire.LinkedTo) == wire.LinkedTo()
        assert (await user.tab()).node == node.id
        await shop.store.run(owe, node.id, 50)
        assert await user.ask(link_of(node, user), wire.LinkedTo) == wire.LinkedTo(), "nobody asked for it"
        await shop.store.run(settling.let_know, node.id)
        told = await user.ask(link_of(node, user), wire.LinkedTo)
        assert told.linked is not None and told.signature is not None
        linked = deals.opened_linked(told.linked, shop.identity.id)
        own = shop.identity.account_key(node.id).id
        assert linked == deals.Linked(shop.identity.id, own, node.id)
        assert codec.verify("link", Signed(told.linked.body, own, told.signature))
        customer = Customer(user.key, "local", False)
        good = link_of(node, user)
        for bad in (
            link_of(node, user, provider=bytes(32)),
            link_of(node, user, account=bytes(32)),
            wire.LinkPlease(good.linked, bytes(64)),
            wire.LinkPlease(
                deals.sign(deals.Linked(node.id, user.key, user.provider), an_identity()), good.signature
            ),
        ):
            with pytest.raises(ProtocolError):
                await shop.provider.till.bargain(customer, bad)


async def test_what_both_served_each_other_is_netted_once(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        node, user = await neighbour(shop)
        await shop.store.run(owe, node.id, 120)
        own = shop.identity.account_key(node.id).id
        number, other = os.urandom(16), os.urandom(16)
        said = proposal(user, 100, id=number, against=other)
        theirs = deals.Settlement(other, node.id, own, 100, seq=2, owed_before=120, against=number)
        request = please(user, said, deals.sign(theirs, node))
        assert await user.ask(request, wire.Settled) == wire.Settled("refused"), "nobody said whose it is"
        await user.ask(link_of(node, user), wire.LinkedTo)
        assert await user.ask(request, wire.Settled) == wire.Settled("refused"), "nobody asked for it"
        await shop.store.run(settling.let_know, node.id)
        for wrong in (
            {"seq": 1}, {"owed_before": 121}, {"amount": 121}
        ):  # fmt: skip
            changed = deals.sign(deals.Settlement(**_fields(theirs) | wrong), node)
            both = please(
                user, deals.Settlement(**_fields(said) | {"amount": wrong.get("amount", 100)}), changed
            )
            assert await user.ask(both, wire.Settled) == wire.Settled("refused")
        answers = [await user.ask(request, wire.Settled) for _ in range(3)]
        assert all(answer == answers[0] for answer in answers) and cosigned(answers[0], request, shop)
        assert answers[0].netted_signature is not None and request.netted is not None
        assert codec.verify("settle", Signed(request.netted.body, own, answers[0].netted_signature))
        tab, mine = await user.tab(), await shop.store.run(tabs.get_tab, "user", node.id)
        assert (tab.owed, tab.signed_seq) == (cost(1000) - 100, 2)
        assert (mine.owed, mine.signed_seq) == (20, 2)
        await whole(shop)
    async with selling_at(tmp_path, identity=shop.identity, time=time) as (shop, _):
        user = await payer(shop, node.account_key(shop.identity.id))
        assert await user.ask(request, wire.Settled) == answers[0]
        assert (await user.tab()).owed == cost(1000) - 100
        await whole(shop)


@pytest.mark.parametrize("netted", [False, True])
async def test_what_is_settled_twice_at_once_is_credit_again_once(tmp_path: Path, netted: bool) -> None:
    async with selling_at(tmp_path) as (shop, time):
        till, (node, user) = shop.provider.till, await neighbour(shop)
        await shop.store.run(owe, node.id, 120)
        await shop.store.run(settling.let_know, node.id)
        await user.ask(link_of(node, user), wire.LinkedTo)
        number, other = os.urandom(16), os.urandom(16)
        own = shop.identity.account_key(node.id).id
        theirs = deals.Settlement(other, node.id, own, 100, seq=2, owed_before=120, against=number)
        said = proposal(user, 100, id=number, against=other if netted else b"")
        request = please(user, said, deals.sign(theirs, node) if netted else None)

        def left() -> int:
            found = till._credit.left(Buyer(user.key, "local"), time())
            assert found is not None
            return found

        before = left()
        if netted:
            customer = Customer(user.key, "local", False)
            answers = await asyncio.gather(*(till.bargain(customer, request) for _ in range(3)))
            assert [isinstance(one, wire.Settled) and one.state for one in answers] == ["agreed"] * 3
        else:
            await user.ask(request, wire.Settled)
            assert await asyncio.gather(*(till.settle(user.key) for _ in range(3))) == [100] * 3
        assert left() == before + 100
        assert (await user.tab()).owed == cost(1000) - 100
        await whole(shop)


def _fields(said: deals.Settlement) -> dict[str, Any]:
    return {name: getattr(said, name) for name in said.__struct_fields__}


async def test_halves_that_do_not_belong_together_break_the_protocol(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, _):
        node, user = await neighbour(shop)
        own = shop.identity.account_key(node.id).id
        number, other = os.urandom(16), os.urandom(16)
        theirs = deals.Settlement(other, node.id, own, 100, seq=2, owed_before=120, against=number)
        for said, signed in (
            (proposal(user, 100, id=number), deals.sign(theirs, node)),
            (proposal(user, 101, id=number, against=other), deals.sign(theirs, node)),
            (proposal(user, 100, id=number, against=other), deals.sign(theirs, user.user.signer)),
        ):
            with pytest.raises(ProtocolError):
                await shop.provider.till.bargain(
                    Customer(user.key, "local", False), please(user, said, signed)
                )


@pytest.mark.parametrize("netted", [False, True])
async def test_an_agreement_that_was_not_heard_of_is_posted_once(tmp_path: Path, netted: bool) -> None:
    """Before this node asks again, the other one tells it as the last change of the tab."""
    async with selling_at(tmp_path) as (shop, _):
        me, (node, user) = shop.identity, await neighbour(shop)
        await shop.store.run(owe, node.id, 120)
        own, number, other = me.account_key(node.id), os.urandom(16), os.urandom(16)
        against = other if netted else b""
        said = deals.Settlement(number, node.id, own.id, 100, seq=2, owed_before=120, against=against)
        half = deals.Settlement(other, me.id, user.key, 100, seq=2, owed_before=cost(1000), against=number)
        request = wire.SettlePlease(deals.sign(said, own), deals.sign(half, me) if netted else None)
        answer = wire.Settled(
            "agreed",
            deals.cosigned(request.settlement.body, node, deals.Settlement),
            deals.cosigned(deals.sign(half, me).body, user.user.signer, deals.Settlement),
        )
        told = wire.TabPlease(settlement=request.settlement, signature=answer.signature)
        assert proofs.proven(told, own.id, node.id) == (2, 20)
        proof = codec.encode(told)
        assert await shop.store.run(tabs.adopt_state, "user", node.id, 2, 20, proof=proof) == "adopted"
        less = [await shop.store.run(settlements._post, node.id, said, request, answer) for _ in range(2)]
        assert less == [half if netted else None, None], "it is credit again once"
        mine, tab = await shop.store.run(tabs.get_tab, "user", node.id), await user.tab()
        assert (mine.owed, mine.note) == (20, "")
        assert tab.owed == cost(1000) - 100 * netted
        await whole(shop)
