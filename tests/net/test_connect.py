"""How links begin, on real sockets: cards, refusals that are heeded, what is told of the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from infraxa.net import codec, connect, websocket, wire
from infraxa.net.connect import Target, verify_card
from infraxa.net.door import Door, DoorLimits
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.hello import HELLO_SIZE, PREKEY_KEPT_MS, PREKEY_MS, CardRequest, Reject
from infraxa.net.link import Clock, LinkEnd
from infraxa.net.lobby import Lobby
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.records import Record
from tests.net.nodes import NETWORK, Node, nodes, until

HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of these say nothing at the end, which a pipe waits for."""
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)


def later(hours: float) -> Clock:
    return Clock(unix_ms=lambda: time.time_ns() // 1_000_000 + int(hours * HOUR_MS))


async def failure(one: Node, other: Node, target: Target | None = None) -> NetError:
    with pytest.raises(NetError) as error:
        await one.dial(other, target)
    return error.value


class Counted:
    """A pipe that counts what was sent."""

    def __init__(self, inner: Pipe) -> None:
        self.inner = inner
        self.sent = 0
        self.remote = inner.remote

    async def send(self, frame: bytes) -> None:
        self.sent += 1
        await self.inner.send(frame)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def close(self) -> None:
        await self.inner.close()


async def test_with_a_card_the_first_hello_is_enough() -> None:
    async with nodes() as (one, other):
        pipe = Counted(await one.transport.dial(other.address))
        link = await one.connect(pipe, Target(other.id, other.card()))
        assert link.peer == other.id and link.card == other.card()
        await until(lambda: link.rtt_ms)
        assert pipe.sent == 2  # the hello and a ping


@pytest.mark.parametrize("known", [True, False])
async def test_without_a_card_it_is_asked_for(known: bool) -> None:
    async with nodes() as (one, other):
        link = await one.dial(other, Target(other.id if known else None))
        assert link.peer == other.id and link.card == other.card()


async def test_an_old_card_is_replaced() -> None:
    async with nodes() as (one, other):
        old = other.card()
        now_ms = other.clock.unix_ms()
        other.prekeys.rotate(now_ms + PREKEY_MS + 1)
        other.prekeys.stored = other.prekeys.stored[-1:]
        link = await one.dial(other, Target(other.id, old))
        assert link.card == other.card() != old


async def test_a_card_whose_prekey_is_over_is_not_used() -> None:
    async with nodes() as (one, other):
        expired = other.card(kx_expires=1)
        pipe = Counted(await one.transport.dial(other.address))
        link = await one.connect(pipe, Target(other.id, expired))
        assert link.peer == other.id
        await until(lambda: link.rtt_ms)
        assert pipe.sent == 3


async def test_another_node_at_the_address_is_not_the_one_that_was_dialled() -> None:
    async with nodes(3) as (one, other, third):
        error = await failure(one, other, Target(third.id))
        assert error.code == "refused" and "Another node" in error.message
        error = await failure(one, other, Target(third.id, third.card()))
        assert error.code == "refused"
        assert not one.links and not other.links


async def test_a_private_network_needs_its_key() -> None:
    inside, outside = Node(psk=bytes(32)), Node()
    try:
        await inside.listen()
        assert (await failure(outside, inside)).code in ("refused", "timeout")
        outside.psk = bytes(32)
        assert (await outside.dial(inside)).peer == inside.id
    finally:
        await outside.close()
        await inside.close()


async def test_another_network_says_nothing() -> None:
    one, other = Node(), Node(network=codec.network_id("other"))
    try:
        await other.listen()
        error = await failure(one, other)
        assert error.code == "refused" and "network" in error.remedy
        await until(lambda: other.refused == ["mac"])
    finally:
        await one.close()
        await other.close()


@pytest.mark.parametrize("hours", [-1.0, 1.0])
@pytest.mark.parametrize("has_card", [True, False])
async def test_clocks_that_are_apart_are_both_told(hours: float, has_card: bool) -> None:
    one, other = Node(), Node(clock=later(hours))
    try:
        await other.listen()
        error = await failure(one, other, Target(other.id, other.card() if has_card else None))
        assert error.code == "clock"
        assert error.message.count("UTC") == 2
        assert error.remedy
    finally:
        await one.close()
        await other.close()


async def test_a_clock_that_is_days_apart_is_told_too() -> None:
    """No card of the other side seems valid here."""
    one, other = Node(), Node(clock=later(-(PREKEY_MS + PREKEY_KEPT_MS) / HOUR_MS - 1))
    try:
        await other.listen()
        assert (await failure(one, other)).code == "clock"
    finally:
        await one.close()
        await other.close()


def guarded(node: Node, limits: DoorLimits) -> None:
    node.door = Door(
        node=node.id,
        network=NETWORK,
        prekeys=node.prekeys,
        card=node.card,
        randbytes=os.urandom,
        limits=limits,
    )


@pytest.mark.parametrize("has_card", [True, False])
async def test_work_that_is_asked_for_is_done(has_card: bool) -> None:
    async with nodes() as (one, other):
        guarded(other, DoorLimits(free_per_second=0.4))
        link = await one.dial(other, Target(other.id, other.card() if has_card else None))
        assert link.peer == other.id


async def test_work_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made in a thread, and ends with the dial."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(puzzle: object, stop: Callable[[], bool]) -> None:
        while not stop():
            time.sleep(0.01)
        loop.call_soon_threadsafe(stopped.set)

    monkeypatch.setattr(connect, "solve", endless)
    monkeypatch.setattr(connect, "HANDSHAKE_S", 0.5)
    monkeypatch.setattr(connect, "WORK_S", 0.5)
    async with nodes() as (one, other):
        guarded(other, DoorLimits(free_per_second=0.01))
        error = await failure(one, other)
        assert error.code == "timeout" and "work" in error.message
        async with asyncio.timeout(10):
            await stopped.wait()


async def test_too_many_hellos_are_told_as_busy() -> None:
    async with nodes() as (one, other):
        guarded(other, DoorLimits(local_per_second=0.001, local_burst=1))
        error = await failure(one, other)
        assert error.code == "busy"
        await until(lambda: other.refused == ["rate"])


async def test_no_room_for_a_handshake() -> None:
    async with nodes() as (one, other):
        other.lobby = Lobby(max_all=0)
        assert (await failure(one, other)).code == "busy"
        await until(lambda: other.refused == ["full"])


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[Node, str]]:
    """What listens at an address and says these frames, one to each that comes."""

    async def answer(pipe: Pipe) -> None:
        for frame in answers:
            await pipe.receive()
            await pipe.send(frame)
        await pipe.receive()
        await asyncio.sleep(60)

    one, other = Node(), Node()
    try:
        ((_, port),) = await other.transport.listen(["127.0.0.1"], 0, answer)
        yield one, f"ws://127.0.0.1:{port}"
    finally:
        await one.close()
        await other.close()


async def said(*answers: bytes) -> NetError:
    async with answering(*answers) as (one, address):
        pipe = await one.transport.dial(address)
        with pytest.raises(NetError) as error:
            await one.connect(pipe, Target())
        with pytest.raises(PipeClosed):
            await pipe.receive()  # it was closed
        return error.value


def rejected(**fields: object) -> bytes:
    values: dict[str, object] = {"reason": "prekey", "now_ms": time.time_ns() // 1_000_000}
    return b"ix\x03\x01" + codec.encode(Reject(**(values | fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "answers"),
    [
        ("refused", [b""]),
        ("refused", [b"garbage"]),
        ("refused", [bytes(wire.MAX_FRAME)]),
        ("refused", [b"ix\x02\x01" + bytes(100)]),
        ("refused", [b"ix\x03\x01\xc1"]),
        ("refused", [b"ix\x03\x09whatever"]),  # another version
        ("refused", [rejected()]),  # no card
        ("refused", [rejected(card=b"\xc1")]),
        ("refused", [rejected(card=Node(network=bytes(32)).card())]),
        ("refused", [rejected(card=Node().card(version=2))]),
        (
            "refused",
            [rejected(card=Node().card()), rejected(card=Node().card()), rejected(card=Node().card())],
        ),
        ("refused", [rejected(reason="proof_of_work")] * 2),
        ("busy", [rejected(reason="full")]),
        ("clock", [rejected(reason="clock", now_ms=0)]),
        ("clock", [rejected(reason="clock", now_ms=2**62)]),
    ],
)
async def test_what_cannot_be_dialled(code: str, answers: list[bytes]) -> None:
    error = await said(*answers)
    assert error.code == code
    assert error.remedy and error.message.endswith(".")


async def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "HANDSHAKE_S", 0.3)
    error = await said()
    assert error.code == "timeout" and "card" in error.message


@pytest.mark.parametrize(
    ("reason", "frames"),
    [
        ("malformed", [b"garbage"]),
        ("malformed", [b""]),
        ("too_large", [bytes(wire.MAX_FRAME)]),
        ("version", [b"ix\x01\x09" + bytes(HELLO_SIZE)]),
        ("mac", [b"ix\x01\x01" + bytes(HELLO_SIZE)]),
        ("silent", []),
    ],
)
async def test_a_hello_that_is_none(
    reason: str, frames: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "HANDSHAKE_S", 0.5)
    async with nodes() as (one, other):
        pipe = await one.transport.dial(other.address)
        for frame in frames:
            await pipe.send(frame)
        await until(lambda: other.refused)
        assert other.refused == [reason]
        with pytest.raises(PipeClosed):
            while True:
                await pipe.receive()
        assert len(other.transport.lobby) == 0


async def test_a_copy_of_a_hello_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent again to a node that has forgotten it: its sender cannot go on, so no link is made."""
    monkeypatch.setattr(connect, "HANDSHAKE_S", 0.5)
    async with nodes() as (one, other):
        kept: list[bytes] = []

        class Tapped(Counted):
            async def send(self, frame: bytes) -> None:
                kept.append(frame)
                await super().send(frame)

        await one.connect(Tapped(await one.transport.dial(other.address)), Target(other.id, other.card()))
        await until(lambda: other.links)
        guarded(other, DoorLimits())
        pipe = await one.transport.dial(other.address)
        await pipe.send(kept[0])
        await pipe.receive()
        await until(lambda: other.refused)
        assert other.refused == ["silent"] and len(other.links) == 1


async def test_hellos_on_one_pipe_are_bounded() -> None:
    async with nodes() as (one, other):
        guarded(other, DoorLimits(free_per_second=0.01))
        pipe = await one.transport.dial(other.address)
        hello = CardRequest(network=NETWORK, randbytes=os.urandom).hello()
        with pytest.raises(PipeClosed):
            for _ in range(100):
                await pipe.send(hello)
                await pipe.receive()
        await until(lambda: other.refused == ["rate"])


async def test_a_dial_that_is_given_up_leaves_nothing() -> None:
    async with answering() as (one, address):
        pipe = await one.transport.dial(address)
        task = asyncio.ensure_future(one.connect(pipe, Target()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(PipeClosed):
            await pipe.receive()


async def test_the_first_frame_may_already_break_the_protocol() -> None:
    async with nodes() as (one, other):
        link = await one.dial(other)
        link.mux.open(b"\xc1", time.monotonic())
        link.wake()
        async with asyncio.timeout(10):
            assert await link.wait_closed() == LinkEnd("malformed", "peer")


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("bad_signature", lambda node: flipped(node.card())),
        ("malformed", lambda node: b""),
        ("malformed", lambda node: other_kind(node)),
        ("too_large", lambda node: bytes(3000)),
        ("version", lambda node: node.card(version=2)),
        ("network", lambda node: node.card(network=bytes(32))),
        ("prekey", lambda node: node.card(kx_expires=1000)),
        ("not_asked", lambda node: Node().card()),
    ],
)
def test_a_card_that_does_not_verify(reason: str, change: Callable[[Node], bytes]) -> None:
    node = Node()
    assert verify_card(node.card(), node=node.id, network=NETWORK, now_ms=999).id == node.id
    with pytest.raises(ProtocolError) as error:
        verify_card(change(node), node=node.id, network=NETWORK, now_ms=1000)
    assert error.value.reason == reason


def flipped(card: bytes) -> bytes:
    return card[:-1] + bytes((card[-1] ^ 1,))


def other_kind(node: Node) -> bytes:
    record: Record = codec.decode(node.card(), Record)
    return codec.encode(Record("state", record.signed))
