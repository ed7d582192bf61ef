"""Frames that nobody sealed: whoever is on the way cannot put words into a session."""

from __future__ import annotations

import struct

from infraxa.net import codec, door, streams, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.session import Session, SessionRecord
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import Target, replaced, target


class Lenient(Session):
    """Reads what was not sealed, as a node in need of a debugger does."""

    def _open(self, frame: bytes) -> SessionRecord:
        try:
            return super()._open(frame)
        except ProtocolError:
            kind, stream, length = struct.unpack_from(">BIH", frame)
            return SessionRecord(kind, stream, frame[7 : 7 + length])


def plain(kind: int, stream: int, body: bytes) -> bytes:
    """A record as it is before it is sealed, of the size of a frame."""
    return (struct.pack(">BIH", kind, stream, len(body)) + body).ljust(256 + 16, b"\0")


async def slipped_in(attack: Attacker, node: Target) -> bool:
    """Whether a request is answered that did not come from whoever has the keys."""
    talk = await attack.talk(node)
    await talk.frames(plain(streams.OPEN, 1, codec.encode(wire.CardPlease())))
    return await talk.answer(1) == [node.card]


async def test_a_request_in_plain_text() -> None:
    async with attacker() as attack:
        with replaced((door, "Session", Lenient)):
            async with target() as weak:
                assert await slipped_in(attack, weak)
        async with target() as node:
            assert not await slipped_in(attack, node)
            await node.counted("tampered")
            assert not node.links
    report.tell(
        "plaintext: a request without a seal",
        weakened="answered",
        ours="closed, tampered",
        cost="one frame that does not open",
    )
