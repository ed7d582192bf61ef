"""Two whole nodes that buy from each other: a full tab refuses, serving back empties it, both books agree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infraxa.app.errors import NodeError
from infraxa.app.events import AnswerEnded, Event
from infraxa.app.node import Node
from infraxa.app.trade import TabSeen
from infraxa.net.credits import read_credits
from infraxa.net.identity import id_text
from infraxa.store.records import AnswerFacts, ChatOptions, Message
from tests.app.networked import network_name, running

QUESTION = "What is a driver?"
LIMIT = 0.000054
"""Credits: room for an order of 256 tokens, the least that is begun, and not for another one after it."""


@contextlib.asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Each serves the guide, to strangers for LIMIT at most."""
    common = {
        "network": network_name(tmp_path),
        "listen_hosts": "127.0.0.1",
        "provide": True,
        "stranger_limit": LIMIT,
        "price_ceiling": 0.2,  # a price that rose with the work would leave no room for the same order
        "free_daily": 0,
        "pause_on_battery": False,
        "threads": 1,
    }
    async with running(tmp_path / "oak", name="oak", **common) as oak:
        await oak.accept_serving()
        await oak.provide(True)
        async with running(tmp_path / "fern", name="fern", **common) as fern:
            await fern.accept_serving()
            await fern.provide(True)
            await until_offered(oak, fern)
            await until_offered(fern, oak)
            yield oak, fern


async def until_offered(node: Node, other: Node) -> None:
    def found() -> bool:
        return any(offer.node.id == other.network.id and offer.has_room for offer in offers)

    offers = await node.list_offers()
    for _ in range(1200):
        if found():
            return
        await asyncio.sleep(0.05)
        offers = await node.list_offers()
    raise AssertionError("not offered within 60 s")


async def bought(node: Node, driver: Node) -> Message:
    """One answer in a chat of its own, with the facts that it has once its money is settled."""
    chat = await node.create_chat()
    options = ChatOptions(driver=id_text(driver.network.id), temperature=0.0)
    await node.set_chat_options(chat.id, options)
    ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def listen(event: Event) -> None:
        if isinstance(event, AnswerEnded) and event.message.chat_id == chat.id and not ended.done():
            ended.set_result(event.message)

    stop: Callable[[], None] = node.subscribe(listen)
    try:
        async with asyncio.timeout(60):
            await node.send(chat.id, QUESTION)
            message = await ended
            while any(bill.state in ("open", "due") for bill in facts(message).bills):
                await asyncio.sleep(0.02)
                message = (await node.branch(chat.id))[-1].message
    finally:
        stop()
    return message


def facts(message: Message) -> AnswerFacts:
    return message.facts or AnswerFacts()


async def tab(node: Node, role: str) -> TabSeen:
    (found,) = [one for one in await node.list_tabs() if one.role == role]
    return found


async def test_a_full_tab_is_emptied_by_serving_back(tmp_path: Path) -> None:
    async with both(tmp_path) as (oak, fern):
        first = await bought(fern, oak)
        (bill,) = facts(first).bills
        assert first.state == "complete" and bill.state == "signed" and bill.counted == bill.n_out
        assert 0 < bill.charge < bill.hold <= read_credits(f"{LIMIT:f}")

        # Nothing is left on the tab: it is not sent.
        second = await bought(fern, oak)
        assert (second.state, facts(second).error_code) == ("failed", "tab_limit")
        assert facts(second).readers == () and all(one.state == "released" for one in facts(second).bills)

        back = await bought(oak, fern)
        assert back.state == "complete" and facts(back).bills[0].charge == bill.charge

        # Nobody learns whose account is whose before both persons have asked to settle.
        assert "Proposed" in await fern.settle(id_text(oak.network.id))
        assert (await tab(oak, "provider")).linked == id_text(fern.network.id)
        assert (await tab(fern, "provider")).linked == ""
        assert "by what it owes this node" in await oak.settle(id_text(fern.network.id))

        for node in (oak, fern):
            assert [(one.owed, one.note) for one in await node.list_tabs()] == [(0, "")] * 2
            total = (await node.earnings()).total
            assert (total.earned, total.spent, total.sold, total.bought) == (bill.charge, bill.charge, 1, 1)
            assert not node._provider.till._credit._taken, "it can be run up again today"
        third = await bought(fern, oak)
        assert third.state == "complete", third.error
        with pytest.raises(NodeError, match="no tab"):
            await oak.settle("0" * 52)


async def test_a_proposal_counts_when_the_other_person_agrees(tmp_path: Path) -> None:
    async with both(tmp_path) as (oak, fern):
        charge = facts(await bought(fern, oak)).bills[0].charge
        with pytest.raises(NodeError, match="has not proposed"):
            await oak.settle((await tab(oak, "provider")).peer)
        assert "Proposed" in await fern.settle(id_text(oak.network.id), note="paid in apples")
        theirs = await tab(oak, "provider")
        assert "paid in apples" in theirs.note and theirs.owed == charge
        assert (theirs.settling, (await tab(fern, "user")).settling) == ("proposed", "proposed")
        assert (theirs.linked, theirs.linked_name) == (id_text(fern.network.id), "fern")
        assert "not answered yet" in (await tab(fern, "user")).note
        with pytest.raises(NodeError, match="agrees or declines"):
            await fern.decline(id_text(oak.network.id))
        assert "owed as before" in await oak.decline(theirs.peer)
        # The other side hears of it when it asks again, and can propose something else.
        with pytest.raises(NodeError, match="declined to settle"):
            await fern.settle(id_text(oak.network.id))
        assert (await tab(fern, "user")).settling == "declined" and (await tab(oak, "provider")).note == ""
        assert "Proposed" in await fern.settle(id_text(oak.network.id), note="paid in pears")
        theirs = await tab(oak, "provider")
        assert "paid in pears" in theirs.note and (await tab(fern, "user")).settling == "proposed"
        await oak.settle(theirs.peer)
        assert (await tab(oak, "provider")).owed == 0 and (await tab(fern, "user")).owed == charge
        assert "as agreed" in await fern.settle(id_text(oak.network.id))
        mine = await tab(fern, "user")
        assert (mine.owed, mine.note, mine.settling) == (0, "", "")
