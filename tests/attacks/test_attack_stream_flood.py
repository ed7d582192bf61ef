"""Requests without end inside a session: they are not worked on, and their sender is refused."""

from __future__ import annotations

from typing import Any

import pytest

from infraxa.net import codec, connect, health, link, mux, streams, wire
from infraxa.net.errors import Refusal
from infraxa.net.link import Link
from infraxa.net.session import PING, SessionRecord
from infraxa.net.streams import WINDOW
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker
from tests.attacks.target import SetClock, Target, replaced, target, unlimited, until

PROBE = codec.encode(wire.Probe())


class Unlimited(Link):
    """Takes as many requests as come, as fast as they come."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.mux.in_flight = 10**9
        unlimited(self.mux)


async def flood(attack: Attacker, node: Target, count: int) -> int:
    """Requests of one stranger that a node works on at once."""
    talk = await attack.talk(node)
    await until(lambda: node.links)
    for number in range(count):
        if not await talk.say(SessionRecord(streams.OPEN, 2 * number + 1, PROBE)):
            break
    most = 0

    def seen() -> bool:
        nonlocal most
        most = max(most, node.handlers)
        return not node.links or most == count

    await until(seen)
    return most


async def test_requests_at_once() -> None:
    count = report.scale(1200, 5000)
    async with attacker() as attack:
        with replaced((connect, "Link", Unlimited), (health, "MAX_PROBES", 10**9)):
            async with target(clock=SetClock(frozen=True)) as weak:
                weakened = await flood(attack, weak, count)
                assert weakened == count
        async with target(clock=SetClock(frozen=True)) as node:
            ours = await flood(attack, node, count)
            assert ours <= 1
            await node.counted("rate")
    report.tell(
        "flood: requests in one session",
        weakened=f"{weakened} at work",
        ours=f"{ours} at work, closed at the 1101st, rate",
        cost="one task",
    )


async def test_probes() -> None:
    """Each is a node that wants to hear of every change at once."""
    limit = report.scale(12, health.MAX_PROBES)
    count = limit + 6
    async with attacker() as attack:

        async def probed(node: Target) -> int:
            for _ in range(count):
                talk = await attack.talk(node)
                await talk.ask(PROBE)
            probes = node.network._presence.probes
            await until(lambda: len(probes._streams) + node.refused["full"] == count)
            return len(probes._streams)

        with replaced((health, "MAX_PROBES", 10**9)):
            async with target() as weak:
                weakened = await probed(weak)
                assert weakened == count
        with replaced((health, "MAX_PROBES", limit)):
            async with target() as node:
                ours = await probed(node)
                assert ours == limit
    report.tell("flood: probes", weakened=f"{weakened} told", ours=f"{ours} told, full", cost="one task each")


async def test_a_probe_that_ends_as_it_is_told() -> None:
    """Those who wait beside it are told all the same."""
    async with attacker() as attack, target() as node:
        first, second = await attack.talk(node), await attack.talk(node)
        for talk in (first, second):
            await talk.ask(PROBE)
        probes = node.network._presence.probes
        await until(lambda: len(probes._streams) == 2)
        for stream in list(probes._streams):
            if stream._link.since == min(other._link.since for other in probes._streams):
                stream.stopped(link.StreamCancelled())  # what a CANCEL does, just before
        probes.tell(b"a new state")
        while (record := await second.read()) is not None:
            if record.body == b"a new state":
                return
        raise AssertionError("the second was not told")


class Gullible(mux.Mux):
    """Believes that what comes was asked for."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        unlimited(self)  # it is asked after each chunk whether it is still there

    def _receive_chunk(self, kind: int, stream: int, found: Any, body: bytes) -> Any:
        found.window = 1 << 40
        return super()._receive_chunk(kind, stream, found, body)


async def stuffed(attack: Attacker, node: Target, size: int) -> int:
    """Bytes that a node keeps on one stream which nobody reads there."""
    talk = await attack.talk(node)
    stream = await talk.ask(PROBE)
    await until(lambda: node.handlers)
    kept = next(iter(node.links))._streams[stream]
    most = 0
    for _ in range(size // 32_768):
        if not await talk.say(SessionRecord(streams.CHUNK, stream, bytes(32_768))):
            break
        if not await talk.alive():
            break
        most = max(most, sum(len(chunk.data) for chunk in kept._chunks))
    return most


async def test_chunks_beyond_the_credit() -> None:
    size = report.scale(1 << 20, 16 << 20)
    async with attacker() as attack:
        with replaced((link, "Mux", Gullible)):
            async with target() as weak:
                weakened = await stuffed(attack, weak, size)
                assert weakened == size
        async with target() as node:
            ours = await stuffed(attack, node, size)
            assert ours <= WINDOW
            await node.counted("flow")
    report.tell(
        "flood: chunks that nobody reads",
        weakened=f"{weakened >> 10} KiB kept",
        ours=f"{ours >> 10} KiB kept, flow",
        cost="256 KiB for a stream",
    )


def pings(count: int) -> list[SessionRecord]:
    return [SessionRecord(PING, 0, bytes(8))] * count


def cancels(count: int) -> list[SessionRecord]:
    return [
        SessionRecord(kind, stream, body)
        for stream in range(1, 2 * count, 2)
        for kind, body in ((streams.OPEN, PROBE), (streams.CANCEL, b""))
    ]


def credits_(count: int) -> list[SessionRecord]:
    nothing = SessionRecord(streams.CREDIT, 1, bytes(4))
    return [SessionRecord(streams.OPEN, 1, PROBE), *[nothing] * count]


def unknown(count: int) -> list[SessionRecord]:
    return [SessionRecord(200, 0, b"")] * count


SMALL: dict[str, tuple[Any, int, Refusal]] = {
    "pings": (pings, 200, "rate"),
    "requests that are cancelled at once": (cancels, 1200, "rate"),
    "credit of nothing": (credits_, 100, "rate"),
    "records of no known kind": (unknown, 500, "rate"),
}


async def swallowed(attack: Attacker, node: Target, said: list[SessionRecord]) -> bool:
    """Whether a node has taken all of it."""
    talk = await attack.talk(node)
    for record in said:
        if not await talk.say(record):
            break
    return await talk.alive()


@pytest.mark.parametrize("what", SMALL)
async def test_small_records_without_end(what: str) -> None:
    make, quick, reason = SMALL[what]
    said = make(report.scale(quick, 4 * quick))
    async with attacker() as attack:
        with replaced((connect, "Link", Unlimited), (mux, "MIN_GRANT", 0)):
            async with target(clock=SetClock(frozen=True)) as weak:
                assert await swallowed(attack, weak, said)
        async with target(clock=SetClock(frozen=True)) as node:
            assert not await swallowed(attack, node, said)
            await node.counted(reason)
            assert not node.links
    report.tell(f"flood: {what}", weakened=f"all {len(said)} taken", ours=f"closed, {reason}")
