"""Being reached: places at relays, dialling others back; what ends while it is under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infraxa.net import codec, reaching
from infraxa.net.errors import NetError
from infraxa.net.link import Link, StreamCancelled
from infraxa.net.reach import Decision
from infraxa.net.reaching import Reaching
from infraxa.net.records import Card, Record
from infraxa.net.wire import DialBack, DialedBack
from tests.net.nodes import until
from tests.net.test_network import Someone, village

HIDDEN = Decision("unreachable", "Nobody reaches it.", relay_wanted=True)


def part(node: Someone) -> Reaching:
    assert node.net._reaching is not None
    return node.net._reaching


def card(node: Someone) -> Card:
    record: Record = codec.decode(node.net._presence.card, Record)
    found: Card = codec.decode(record.signed.body, Card)
    return found


def hide(node: Someone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it find that it is not reached."""
    monkeypatch.setattr(reaching, "RELAY_AGAIN_S", 0.1)
    monkeypatch.setattr(part(node)._reach, "decide", lambda now: HIDDEN)
    part(node)._news.set()


async def test_a_hidden_node_keeps_places_at_two_relays_and_finds_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with village("ash", "elm", "yew", relay=True) as relays, village("oak") as (oak,):
        await oak.close()
        oak.options = type(oak.options)(
            name="oak", network=relays[0].options.network, hosts=("127.0.0.1",), port=0, lan=False
        )
        await oak.open()
        for relay in relays:
            await oak.net.join(relay.id, relay.where)
        hide(oak, monkeypatch)
        await until(lambda: len(part(oak).relays) == 2)
        await until(lambda: card(oak).relays == part(oak).relays)
        first = next(relay for relay in relays if relay.id in part(oak).relays)
        await first.close()
        await until(lambda: first.id not in part(oak).relays and len(part(oak).relays) == 2)
        await until(lambda: card(oak).relays == part(oak).relays)


async def test_who_has_no_place_is_asked_again_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("ash", "elm", "yew", relay=True) as relays, village("oak") as (oak,):
        await oak.close()
        oak.options = type(oak.options)(
            name="oak", network=relays[0].options.network, hosts=("127.0.0.1",), port=0, lan=False
        )
        await oak.open()
        monkeypatch.setattr(reaching, "RELAY_TRIES", 1)
        asked: list[bytes | None] = []
        listen = oak.net._relayed.listen

        async def full(link: Link, on_pipe: Any) -> Any:
            asked.append(link.peer)
            if link.peer == relays[2].id:
                return await listen(link, on_pipe)
            raise NetError("busy", "The relay has no room.")

        monkeypatch.setattr(oak.net._relayed, "listen", full)
        for relay in relays:
            await oak.net.join(relay.id, relay.where)
        hide(oak, monkeypatch)
        await until(lambda: part(oak).relays == (relays[2].id,))
        assert asked[:3] == [relay.id for relay in relays]


async def test_decisions_do_not_wait_for_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("oak") as (oak,):
        waiting, decided = asyncio.Event(), 0

        async def hang() -> None:
            waiting.set()
            await asyncio.Event().wait()

        def decide(now: float) -> Decision:
            nonlocal decided
            decided += waiting.is_set()
            return HIDDEN

        monkeypatch.setattr(part(oak), "_reserve", hang)
        hide(oak, monkeypatch)
        monkeypatch.setattr(part(oak)._reach, "decide", decide)
        await until(lambda: decided > 2)
        assert oak.net.status.reachability == "unreachable"


async def test_a_decision_that_breaks_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with village("oak") as (oak,):
        monkeypatch.setattr(reaching, "RELAY_AGAIN_S", 0.1)
        await oak.close()
        await oak.open()
        with monkeypatch.context() as patch:
            patch.setattr(part(oak)._reach, "decide", lambda now: 1 / 0)
            part(oak)._news.set()
            await until(lambda: "reachability failed" in caplog.text)
        hide(oak, monkeypatch)
        await until(lambda: oak.net.status.reachability == "unreachable")


async def test_a_dial_back_to_what_says_nothing_is_answered_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "BACK_S", 0.2)
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(hear, "127.0.0.1", 0) as silent:
            port = silent.sockets[0].getsockname()[1]
            link = await oak.net.link_to(birch.id)
            answer = await link.ask(DialBack(f"ws://127.0.0.1:{port}"), DialedBack, 3)
            assert (answer.reached, answer.reason) == (False, "timeout")


async def test_a_dial_back_that_nobody_waits_for_leaves_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        made: list[Link] = []
        dial = birch.net._dialer.dial

        async def and_cancel(target: Any, where: Any) -> Link:
            made.append(await dial(target, where))
            handling = asyncio.current_task()
            assert handling is not None
            handling.cancel()  # as if a CANCEL had come at this moment
            return made[0]

        monkeypatch.setattr(birch.net._dialer, "dial", and_cancel)
        link = await oak.net.link_to(birch.id)
        with pytest.raises(StreamCancelled):
            await link.ask(DialBack(oak.where[0]), DialedBack, 5)
        await until(lambda: made[0].closed)
