"""Who attacks: knows the protocol, has keys of its own, and says whatever it likes in whatever order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from infraxa.net import codec, streams, wire
from infraxa.net.connect import verify_card
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.hello import CardRequest, Dialing, Reject
from infraxa.net.identity import Identity
from infraxa.net.keyfile import make
from infraxa.net.pipe import Pipe, PipeClosed
from infraxa.net.session import Session, SessionRecord
from infraxa.net.websocket import WebSocketTransport
from tests.attacks.target import Target

NETWORK = codec.network_id("attacks")
WAIT_S = 20.0
"""For anything that the other side says."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_identity() -> Identity:
    key, _ = make()
    return key.identity()


def dialing(node: bytes, card: bytes, challenge: Reject | None = None) -> Dialing:
    """A first message to `node`, for the prekey in this card, an encoded Record."""
    kx = verify_card(card, node=None, network=NETWORK, now_ms=0).card.kx
    return Dialing(node=node, kx=kx, network=NETWORK, randbytes=os.urandom, challenge=challenge)


def auth(identity: Identity, handshake_hash: bytes) -> wire.Auth:
    signed = identity.sign("auth", b"node\0" + handshake_hash)
    return wire.Auth("node", identity.id, signed.signature)


class Attacker:
    """Makes pipes and sessions to nodes; all end with `close`."""

    def __init__(self) -> None:
        self.transport = WebSocketTransport()

    async def pipe(self, address: str) -> Pipe:
        async with asyncio.timeout(WAIT_S):
            return await self.transport.dial(address)

    async def hello(self, address: str, frame: bytes) -> bytes | None:
        """The answer to one first message on a new connection; None: it was closed without a word."""
        pipe = await self.pipe(address)
        try:
            await pipe.send(frame)
            return await heard(pipe)
        except PipeClosed:
            return None
        finally:
            await pipe.close()

    async def card(self, address: str) -> bytes | None:
        """What is answered to a card request."""
        request = CardRequest(network=NETWORK, randbytes=os.urandom)
        answer = await self.hello(address, request.hello())
        return request.receive(answer).card if answer is not None else None

    async def talk(self, node: Target) -> Talk:
        """A session, by the rules."""
        pipe = await self.pipe(node.address)
        began = dialing(node.id, node.card)
        await pipe.send(began.hello(node.clock.unix_ms()))
        answer = began.receive(await heard(pipe), node.clock.unix_ms(), 0.0)
        assert isinstance(answer, Session), answer
        talk = Talk(pipe, answer)
        await talk.say(streams_ping())
        return talk

    async def peer(self, node: Target, identity: Identity | None = None) -> Talk:
        """A session on which this one has said who it is, by the rules."""
        talk = await self.talk(node)
        stream = await talk.ask(auth(identity or new_identity(), talk.session.handshake_hash))
        answer = await talk.answer(stream)
        assert answer and isinstance(codec.decode(answer[0], wire.Authenticated), wire.Authenticated)
        return talk

    async def close(self) -> None:
        await self.transport.close()


def streams_ping() -> SessionRecord:
    return SessionRecord(16, 0, os.urandom(8))


async def heard(pipe: Pipe) -> bytes:
    """The next frame. Raises PipeClosed."""
    async with asyncio.timeout(WAIT_S):
        return await pipe.receive()


class Talk:
    """A session of which every record is made by hand; nothing is answered by itself."""

    def __init__(self, pipe: Pipe, session: Session) -> None:
        self.pipe = pipe
        self.session = session
        self.next = 1
        self.refused: Refusal | None = None
        """Why the other side closed, when it said so."""
        self.failed: dict[int, str] = {}
        """Codes of the failures that were answered, by stream."""

    def seal(self, record: SessionRecord) -> bytes:
        """A frame, of whatever kind."""
        return self.session._seal(*record)

    async def say(self, *records: SessionRecord) -> bool:
        """False: the other side has closed."""
        return await self.frames(*(self.seal(record) for record in records))

    async def frames(self, *frames: bytes) -> bool:
        try:
            for frame in frames:
                await self.pipe.send(frame)
        except PipeClosed:
            return False
        return True

    async def ask(self, request: wire.Request | bytes) -> int:
        """Open a stream; its id."""
        body = request if isinstance(request, bytes) else codec.encode(request)
        number, self.next = self.next, self.next + 2
        await self.say(SessionRecord(streams.OPEN, number, body))
        return number

    async def read(self) -> SessionRecord | None:
        """The next record of the other side; None: it is over."""
        while True:
            try:
                record, answers = self.session.receive(await heard(self.pipe), 0.0)
            except (PipeClosed, ProtocolError):
                await self.pipe.close()
                return None
            if self.session.closed:
                self.refused = self.session.peer_reason
                await self.frames(*answers)  # its own end, so that nobody waits for it
                await self.pipe.close()
                return None
            if record is not None:
                if record.kind == streams.ERROR:
                    failure = codec.decode(record.body, wire.Failure)
                    self.failed[record.stream] = failure.code
                return record

    async def answer(self, stream: int) -> list[bytes] | None:
        """The chunks of the answer; None when it failed or the link is over."""
        chunks: list[bytes] = []
        while (record := await self.read()) is not None:
            if record.stream != stream:
                continue
            if record.kind in (streams.END, streams.ERROR, streams.CANCEL):
                return chunks if record.kind == streams.END else None
            if record.kind in (streams.CHUNK, streams.PART):
                chunks.append(record.body)
        return None

    async def fetch(self, request: wire.Request, answer: type[msgspec.Struct]) -> Any:
        """The one-chunk answer to a request; None when it failed."""
        chunks = await self.answer(await self.ask(request))
        return codec.decode(chunks[0], answer) if chunks else None

    async def alive(self) -> bool:
        """Whether the other side still answers."""
        ping = streams_ping()
        if not await self.say(ping):
            await self.over()
            return False
        while (record := await self.read()) is not None:
            if record.kind == 17 and record.body == ping.body:
                return True
        return False

    async def over(self) -> Refusal | None:
        """Read until the other side has closed: the reason that it gave."""
        while await self.read() is not None:
            pass
        return self.refused


@asynccontextmanager
async def attacker() -> AsyncIterator[Attacker]:
    made = Attacker()
    try:
        yield made
    finally:
        await made.close()
