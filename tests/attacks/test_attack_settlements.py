"""Settlements and netting: finding out who a user is, having more signed than was agreed to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from infraxa.app import proofs, settling
from infraxa.app.errors import NodeError
from infraxa.app.settlements import Settlements
from infraxa.app.till import Till
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Identity
from infraxa.net.link import LinkClosed, StreamFailed
from infraxa.store import tabs
from tests.app.purses import Shop, buying_at
from tests.app.stalls import saying
from tests.app.test_till_settling import owe
from tests.app.tills import Payer, cost, payer, selling_at
from tests.attacks import report
from tests.attacks.target import replaced


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not in order is not asked for again and again for long."""
    monkeypatch.setattr("infraxa.app.paying.PAUSES", (0.0, 0.01, 0.02, 0.05, 0.1))


LARGE = 10**11
"""µcr."""


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
        "settlements: whose account is it?",
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
        "settlements: a settlement of another amount",
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
        "settlements: another half of what was netted",
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
        "settlements: a proposal that changes", weakened="all is settled", ours="refused: the first one holds"
    )


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
        "settlements: an old proposal with a high number",
        weakened="what was settled is owed again",
        ours="nothing of a lower number is signed after it",
    )
