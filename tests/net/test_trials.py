"""Trials between peers: who may ask for one, how often, and that it costs no more than that."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import trials, wire
from infraxa.net.errors import NetError
from infraxa.net.link import Link, StreamFailed
from infraxa.net.relay import is_relayed
from infraxa.net.trials import FAILED_S, IN_ALL, IN_ALL_S, SERVED_S, Turns
from tests.net.nodes import until
from tests.net.test_network import Someone, village
from tests.net.test_peering import stranger

MODEL = bytes(range(32))
SERVED = wire.Tried("", "local", 3, 40, True, bytes(32))
NODES = st.integers(0, 5).map(lambda number: bytes([number]))


class Buyer:
    """What a node does that is asked, as a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.answer: wire.Tried | wire.Failure = SERVED
        self.open = asyncio.Event()
        self.open.set()
        self.ended = 0

    async def run(self, node: bytes, request: wire.TryPlease) -> wire.Tried | wire.Failure:
        self.asked.append((node, request.model))
        try:
            await self.open.wait()
        finally:
            self.ended += 1
        return self.answer


async def peers(birch: Someone, oak: Someone) -> Link:
    """The link of `birch` with `oak`, once both know each other."""
    await birch.net.join(oak.id, oak.where)
    await until(lambda: oak.net._peering.peer(birch.id) is not None)
    peer = birch.net._peering.peer(oak.id)
    assert peer is not None
    return peer.link


async def refused(node: Someone, other: Someone) -> wire.Failure:
    with pytest.raises(StreamFailed) as failed:
        await node.net.ask_for_trial(other.id, MODEL)
    return failed.value.failure


async def test_a_peer_buys_and_says_what_came_of_it() -> None:
    async with village("birch", "oak") as (birch, oak):
        await peers(birch, oak)
        assert (await refused(birch, oak)).code == "unsupported"
        buyer = Buyer()
        oak.net.try_others(buyer.run)
        assert await birch.net.ask_for_trial(oak.id, MODEL) == SERVED
        assert buyer.asked == [(birch.id, MODEL)]
        # It was its turn, and it is not told that it broke a rule.
        again = await refused(birch, oak)
        assert again.code == "rate_limited" and SERVED_S - 60 < again.retry_after_ms / 1000 <= SERVED_S
        assert len(buyer.asked) == 1 and oak.net.status.refused == {"rate": 1}
        # In the other direction all of it is another matter.
        assert (await refused(oak, birch)).code == "unsupported"
        with pytest.raises(NetError) as nobody:
            await birch.net.ask_for_trial(bytes(32), MODEL)
        assert nobody.value.code == "unreachable"


async def test_who_was_not_served_may_ask_sooner_and_a_defect_is_not_told() -> None:
    async with village("birch", "oak") as (birch, oak):
        await peers(birch, oak)
        buyer = Buyer()
        buyer.answer = wire.Tried("unreachable")
        oak.net.try_others(buyer.run)
        assert (await birch.net.ask_for_trial(oak.id, MODEL)).code == "unreachable"
        assert (await refused(birch, oak)).retry_after_ms <= FAILED_S * 1000

        async def broken(node: bytes, request: wire.TryPlease) -> wire.Tried:
            raise ZeroDivisionError

        oak.net._trials._turns = Turns()
        oak.net.try_others(broken)
        assert (await refused(birch, oak)).code == "internal"


async def test_nobody_but_a_peer_is_tried() -> None:
    async with village("birch", "oak") as (birch, oak):
        buyer = Buyer()
        birch.net.try_others(buyer.run)
        oak.net.try_others(buyer.run)
        async with stranger(birch) as link:
            with pytest.raises(StreamFailed) as failed:
                await link.ask(wire.TryPlease(MODEL), wire.Tried, 5)
        assert failed.value.failure.code == "not_allowed"
        await peers(oak, birch)
        account = await oak.net.order_link(birch.id)
        with pytest.raises(StreamFailed) as failed:
            await account.ask(wire.TryPlease(MODEL), wire.Tried, 5)
        assert failed.value.failure.code == "not_allowed" and not buyer.asked


async def test_a_peer_whose_word_counts_for_nothing_is_not_tried() -> None:
    async with village("birch", "oak") as (birch, oak):
        await peers(birch, oak)
        buyer = Buyer()
        oak.net.try_others(buyer.run)
        for _ in range(2):
            oak.net._overlay.refused(birch.id, "malformed", oak.net._clock.monotonic())
        assert (await refused(birch, oak)).code == "unsupported" and not buyer.asked


async def test_one_at_a_time_and_who_cancels_has_had_its_turn() -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        await peers(birch, oak)
        await peers(elm, oak)
        buyer = Buyer()
        buyer.open.clear()
        oak.net.try_others(buyer.run)
        asking = asyncio.ensure_future(birch.net.ask_for_trial(oak.id, MODEL))
        await until(lambda: buyer.asked)
        assert (await refused(elm, oak)).code == "busy"
        asking.cancel()
        await until(lambda: buyer.ended == 1)
        assert (await refused(birch, oak)).code == "rate_limited"
        buyer.open.set()
        assert await elm.net.ask_for_trial(oak.id, MODEL) == SERVED


async def test_it_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "TRIAL_S", 0.2)
    async with village("birch", "oak") as (birch, oak):
        await peers(birch, oak)
        buyer = Buyer()
        buyer.open.clear()
        oak.net.try_others(buyer.run)
        assert (await refused(birch, oak)).code == "busy" and buyer.ended == 1


async def test_a_session_of_a_trial_is_one_of_its_own() -> None:
    async with village("birch", "oak") as (birch, oak):
        await peers(oak, birch)
        usual = await oak.net.order_link(birch.id)
        account = oak.identity.account_key(bytes(32))
        link = await oak.net.trial_link(birch.id, account)
        assert link is not usual and link.account == account.id != usual.account
        keys = {link.account for link in birch.net._customers}
        assert keys == {usual.account, account.id}
        assert await oak.net.order_link(birch.id) is usual
        await link.close()


async def test_from_outside_it_is_dialled_as_its_card_says() -> None:
    async with village("birch", "oak") as (birch, oak):
        await peers(oak, birch)
        finder = oak.net._finder
        assert finder._places(birch.id) == list(birch.where), "known from the person"
        assert finder._announced(birch.id) == [], "a public network hears of no private address"
        await (await oak.net.trial_link(birch.id, oak.identity.account_key(bytes(32)))).close()
        peer = oak.net._peering.peer(birch.id)
        assert peer is not None
        peer.link.remote = "1.2.3.4"
        with pytest.raises(NetError) as error:
            await oak.net.trial_link(birch.id, oak.identity.account_key(bytes(32)))
        assert error.value.code == "unreachable"


async def test_through_a_relay_but_not_by_the_relay_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        relay = Someone("relay", oak.options.network, relay=True)
        await relay.open()
        try:
            place = await peers(birch, relay)
            await birch.net._relayed.listen(place, birch.net._peering.take)
            await oak.net.join(relay.id, relay.where)
            for node in (oak, relay):
                monkeypatch.setattr(
                    node.net._finder, "relays_of", lambda node: (relay.id,) * (node == birch.id)
                )
            link = await oak.net.trial_link(birch.id, oak.identity.account_key(bytes(32)))
            assert is_relayed(link) and relay.net.status.relaying == 1
            await link.close()
            buyer = Buyer()
            relay.net.try_others(buyer.run)
            assert (await refused(birch, relay)).code == "unsupported" and not buyer.asked
        finally:
            await relay.close()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(NODES, st.floats(0, 1200), st.sampled_from([True, False, None])), max_size=120))
def test_however_it_is_asked_it_is_tried_no_more_often(
    asks: list[tuple[bytes, float, bool | None]],
) -> None:
    turns, now = Turns(), 0.0
    begun: list[float] = []
    last: dict[bytes, tuple[float, bool | None]] = defaultdict(lambda: (float("-inf"), False))
    for node, later, served in asks:
        now += later
        failure = turns.begin(node, now)
        if failure is not None:
            assert failure.code in ("busy", "rate_limited") and failure.retry_after_ms > 0
            continue
        other = turns.begin(bytes([99]), now)
        assert other is not None and other.code == "busy", "one at a time"
        at, was = last[node]
        assert now - at >= (FAILED_S if was is False else SERVED_S) - 1e-6
        begun.append(now)
        turns.end(node, now, served=served)
        last[node] = now, served
    for first in begun:
        within = [at for at in begun if first <= at <= first + 3600]
        assert len(within) <= IN_ALL + 3600 / IN_ALL_S


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "MAX_NODES", 10)
    turns = Turns()
    for number in range(100):
        assert turns.begin(number.to_bytes(2, "big"), 1000.0 * number) is None
        turns.end(number.to_bytes(2, "big"), 1000.0 * number, served=True)
    assert len(turns._next) == 10
