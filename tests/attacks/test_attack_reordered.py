"""Sealed frames in another order, twice, or not at all: the session is dead at the first.

The man in the middle cannot read them. Where a node takes them as they come, he decides which of a person's
words arrive, and in which order.
"""

from __future__ import annotations

import pytest

from infraxa.net import codec, door, streams, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.session import Session, SessionRecord
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import Target, replaced, target

WINDOW = 8


class Datagrams(Session):
    """Opens any of the frames around the one that is due, as often as they come."""

    def _open(self, frame: bytes) -> SessionRecord:
        assert self._rx is not None
        due = self._rx.counter
        for counter in range(max(0, due - WINDOW), due + WINDOW):
            self._rx.counter = counter
            try:
                record = super()._open(frame)
            except ProtocolError:
                continue
            self._rx.counter = max(due, counter + 1)
            return record
        raise ProtocolError("tampered")


CHANGES = {
    "swapped": lambda frames: [frames[1], frames[0], *frames[2:]],
    "doubled": lambda frames: [frames[0], *frames],
    "lost": lambda frames: [frames[0], *frames[2:]],
}


async def pushed_around(attack: Attacker, node: Target, change: str) -> list[int]:
    """The order in which the words of one who asks arrive at a node."""
    arrived: list[int] = []
    talk = await attack.talk(node)
    assert await talk.alive()
    (at,) = node.links
    receive = at.mux.receive

    def tap(record: SessionRecord, now: float) -> streams.Event | None:
        if record.kind == streams.CHUNK:
            arrived.append(record.body[0])
        return receive(record, now)

    at.mux.receive = tap  # type: ignore[method-assign]
    stream = await talk.ask(codec.encode(wire.Probe()))
    frames = [talk.seal(SessionRecord(streams.CHUNK, stream, bytes((word,)))) for word in range(4)]
    await talk.frames(*CHANGES[change](frames))
    await talk.alive()
    return arrived


@pytest.mark.parametrize("change", CHANGES)
async def test_frames_that_were_pushed_around(change: str) -> None:
    wanted = CHANGES[change]([0, 1, 2, 3])
    async with attacker() as attack:
        with replaced((door, "Session", Datagrams)):
            async with target() as weak:
                weakened = await pushed_around(attack, weak, change)
                assert weakened == wanted
        async with target() as node:
            ours = await pushed_around(attack, node, change)
            assert ours == [word for due, word in enumerate(wanted) if word == due][: len(ours)]
            assert len(ours) < 2
            await node.counted("tampered")
            assert not node.links
    report.tell(
        f"reordered: frames {change}",
        weakened=f"heard {weakened}",
        ours=f"heard {ours}, tampered",
        cost="one frame that does not open",
    )
