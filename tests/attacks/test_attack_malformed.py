"""Frames and messages that mean nothing: whoever sends one is refused at the first."""

from __future__ import annotations

import os
from typing import Any

import pytest

from infraxa.net import codec, connect, streams, wire
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.link import Link
from infraxa.net.session import PING, PONG, SessionRecord
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import Target, replaced, target, unlimited

RECORDS: dict[str, tuple[SessionRecord, Refusal]] = {
    "a request that does not decode": (SessionRecord(streams.OPEN, 1, b"\xc1"), "malformed"),
    "a request nested too deeply": (SessionRecord(streams.OPEN, 1, b"\x91" * 30_000), "malformed"),
    "a request with a key of one byte": (
        SessionRecord(streams.OPEN, 1, codec.encode(wire.RelayDial(b"1"))),
        "malformed",
    ),
    "a message of a stranger that does not decode": (SessionRecord(streams.TELL, 0, b"\x92"), "malformed"),
    "a ping of three bytes": (SessionRecord(PING, 0, b"abc"), "malformed"),
    "a ping on a stream": (SessionRecord(PING, 7, bytes(8)), "malformed"),
    "a pong that nobody asked for": (SessionRecord(PONG, 0, bytes(8)), "not_asked"),
    "the id of a stream that is not the next": (SessionRecord(streams.OPEN, 99, b"\x91\x0e"), "flow"),
    "the id of a stream of the other side": (SessionRecord(streams.OPEN, 2, b"\x91\x0e"), "flow"),
    "a chunk on a stream that nobody opened": (SessionRecord(streams.CHUNK, 5, b"x"), "flow"),
    "credit on a stream that nobody opened": (SessionRecord(streams.CREDIT, 0, bytes(4)), "flow"),
    "an acknowledgement of no ratchet": (SessionRecord(1, 0, bytes(32)), "malformed"),
    "a kind of the session that there is not": (SessionRecord(15, 0, b""), "malformed"),
    "a ratchet without a key": (SessionRecord(0, 0, b"short"), "malformed"),
}

HELLOS: dict[str, tuple[bytes, Refusal]] = {
    "nothing": (b"", "malformed"),
    "three bytes": (b"ix\x01", "malformed"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n".ljust(1200), "malformed"),
    "a short hello": (b"ix\x01\x01" + bytes(100), "malformed"),
    "a long hello": (b"ix\x01\x01" + bytes(5000), "too_large"),
    "noise": (b"ix\x01\x01" + os.urandom(1196), "mac"),
}


class Overlooks(Link):
    """Goes on after what it cannot read."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        unlimited(self.mux)  # it is asked after each record whether it is still there

    def _receive(self, frame: bytes) -> None:
        try:
            super()._receive(frame)
        except ProtocolError:
            return


async def garbage(attack: Attacker, node: Target, count: int) -> int:
    """How many useless records a node takes of one session."""
    talk = await attack.talk(node)
    for taken in range(count):
        if not await talk.say(SessionRecord(streams.CHUNK, 101, bytes(1000))) or not await talk.alive():
            return taken
    return count


async def test_whoever_goes_on_after_garbage_is_fed_more_of_it() -> None:
    count = report.scale(50, 2000)
    async with attacker() as attack:
        with replaced((connect, "Link", Overlooks)):
            async with target() as weak:
                weakened = await garbage(attack, weak, count)
                assert weakened == count and not weak.refused
        async with target() as node:
            ours = await garbage(attack, node, count)
            assert ours == 0
            await node.counted("flow")
    report.tell(
        "malformed: records that mean nothing",
        weakened=f"read {weakened} of {count}",
        ours="closed at the 1st, flow",
        cost="one record opened",
    )


@pytest.mark.parametrize("what", RECORDS)
async def test_a_sealed_record_that_means_nothing(what: str) -> None:
    record, reason = RECORDS[what]
    async with attacker() as attack, target() as node:
        talk = await attack.talk(node)
        await talk.say(record)
        assert await talk.over() in (reason, None)  # a session that is dead cannot say why
        await node.counted(reason)
        assert not node.links


@pytest.mark.parametrize("what", HELLOS)
async def test_a_first_message_that_is_none(what: str) -> None:
    frame, reason = HELLOS[what]
    async with attacker() as attack, target() as node:
        assert await attack.hello(node.address, frame) is None
        await node.counted(reason)
        assert not node.links


@pytest.mark.parametrize("size", [0, 1, 63, 79, 81, 272 + 1, 60_016 + 1, wire.MAX_FRAME])
async def test_a_frame_of_a_size_that_no_frame_has(size: int) -> None:
    async with attacker() as attack, target() as node:
        talk = await attack.talk(node)
        await talk.frames(os.urandom(size))
        await talk.over()
        await node.counted("malformed")
