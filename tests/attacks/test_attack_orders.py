"""Hostile orders: users that hold a place or fill the memory of a provider, drivers that lie or never come to
an end."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from infraxa.app.unsent import Rest
from infraxa.net import auth, customers, orders, prompts, streams, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.link import Link, Stream
from infraxa.net.orders import Claimed, Course, Done, Piece, Placed, encode_frame
from infraxa.net.patience import Patience, PatienceLimits
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, OrderFailed, Purchase
from infraxa.net.sale import Sale, SaleLimits
from infraxa.net.session import SessionRecord
from tests.app.selling import Scripted, Shop, scripted
from tests.attacks import report
from tests.attacks.attacker import Attacker, Talk, attacker, new_identity
from tests.attacks.target import Target, replaced, target, until
from tests.net.nodes import nodes

ASKED = Prompt((Turn("user", "What is a maple?"),))
ENCODED = prompts.encode_prompt(ASKED)
EVER = 10.0**6
WEAK_SALES = SaleLimits(idle=EVER, begin=EVER, upload=EVER, stall=EVER, fail=0.5)
SALES = SaleLimits(idle=0.5, upload=1.0, stall=0.5, fail=0.5)
"""Shorter than ours, so that nobody has to wait for it."""
WEAK_WAITS = PatienceLimits(**dict.fromkeys(PatienceLimits.__struct_fields__, EVER))
WAITS = PatienceLimits(
    0.5,
    line=1.0,
    placed=0.5,
    upload=1.0,
    taken=0.5,
    advance=0.5,
    reading=1.0,
    silence=0.5,
    per_token=0.1,
    pace=1.0,
)


# Users.


class Counter:
    """A provider with slots: who holds one, and what became of the orders."""

    def __init__(self) -> None:
        self.slots = 0
        self.prompts: list[Prompt] = []
        self.text = "A maple is a tree. "
        self.pieces = 1

    async def serve(self, sale: Sale) -> None:
        self.slots += 1
        try:
            self.prompts.append(await sale.claim(4096, orders.MAX_OUT))
            for _ in range(self.pieces):
                await sale.piece(self.text, (1,) * 20)
            await sale.done(Done("stop", 5, 0, 20 * self.pieces))
        finally:
            self.slots -= 1


@asynccontextmanager
async def provider(limits: SaleLimits) -> AsyncIterator[tuple[Target, Counter]]:
    counter = Counter()
    with replaced((customers, "Sale", functools.partial(Sale, limits=limits))):
        async with target() as node:
            node.network.sell(counter.serve)
            yield node, counter


async def customer(attack: Attacker, node: Target) -> Talk:
    """A session on which orders are taken."""
    talk = await attack.talk(node)
    key = new_identity()
    signed = key.sign("auth", auth.body("account", talk.session.handshake_hash))
    assert await talk.answer(await talk.ask(wire.Auth("account", key.id, signed.signature))) is not None
    return talk


def an_order(length: int = len(ENCODED), number: bytes | None = None, model: bytes = bytes(32)) -> wire.Order:
    return wire.Order(number or os.urandom(16), model, length)


async def chunk(talk: Talk, stream: int) -> bytes | None:
    """The next chunk of an answer; None: there is none."""
    while (record := await talk.read()) is not None and record.kind not in (streams.END, streams.ERROR):
        if record.stream == stream and record.kind == streams.CHUNK:
            return record.body
    return None


async def asked(talk: Talk, order: wire.Order) -> int:
    """The stream of an order whose prompt is asked for."""
    stream = await talk.ask(order)
    assert await chunk(talk, stream) is not None
    return stream


async def test_a_prompt_that_is_never_sent() -> None:
    """Nor is one of which a byte comes now and then: a place is held without work."""

    async def held(attack: Attacker, node: Target, counter: Counter) -> bool:
        """Whether both are, for longer than ours waits."""
        never, drips = await customer(attack, node), await customer(attack, node)
        await asked(never, an_order())
        stream = await asked(drips, an_order(10**6))
        for _ in range(15):
            await drips.say(SessionRecord(streams.CHUNK, stream, b"x"))
            await asyncio.sleep(0.1)
        return counter.slots == 2

    async with attacker() as attack:
        async with provider(WEAK_SALES) as (weak, counter):
            assert await held(attack, weak, counter)
        async with provider(SALES) as (node, counter):
            await held(attack, node, counter)
            await until(lambda: not counter.slots)
            assert not counter.prompts
    report.tell(
        "orders: a prompt that does not come",
        weakened="2 slots held for ever",
        ours="expired after 15 s of silence, or 120 s",
        cost="one slot for so long",
    )


class Trusting(Sale):
    """Reads a prompt as long as one comes."""

    async def _read(self) -> bytes:
        global kept
        data = bytearray()
        async for part in self._stream:
            data += part
            kept = len(data)
        return bytes(data)


kept = 0
"""Bytes of a prompt that a provider holds."""


async def test_a_prompt_longer_than_announced() -> None:
    size = report.scale(4, 64) << 20

    async def stuffed(attack: Attacker, node: Target) -> int:
        """Bytes that were taken of it."""
        talk = await customer(attack, node)
        stream = await asked(talk, an_order(100))
        sent = credit = 0
        while sent < size:
            if sent + 40_000 > 4 * streams.WINDOW // 5 + credit:  # what it reads is let come again
                while (record := await talk.read()) is not None and record.kind != streams.CREDIT:
                    pass
                if record is None:
                    return sent
                credit += int.from_bytes(record.body)
            if not await talk.say(SessionRecord(streams.CHUNK, stream, bytes(32_768))):
                return sent
            sent += 32_768
        return kept

    async with attacker() as attack:
        with replaced((customers, "Sale", Trusting)):
            async with target() as weak:
                weak.network.sell(Counter().serve)
                weakened = await stuffed(attack, weak)
                assert weakened > size // 2
        async with provider(SALES) as (node, counter):
            ours = await stuffed(attack, node)
            assert ours <= streams.WINDOW
            await node.counted("too_large")
            assert not counter.prompts and not counter.slots
    report.tell(
        "orders: a prompt longer than announced",
        weakened=f"{weakened >> 20} MiB kept",
        ours="closed at the first chunk too many, too_large",
        cost="256 KiB of credit",
    )


async def test_a_prompt_shorter_than_announced() -> None:
    """What an order is admitted for is not what is to be done."""

    async def served(attack: Attacker, node: Target) -> bool:
        talk = await customer(attack, node)
        stream = await asked(talk, an_order(len(ENCODED) + 1))
        await talk.say(SessionRecord(streams.CHUNK, stream, ENCODED), SessionRecord(streams.END, stream, b""))
        return await chunk(talk, stream) is not None

    async with attacker() as attack:
        with replaced((customers, "Sale", Trusting)):
            async with target() as weak:
                weak.network.sell(Counter().serve)
                assert await served(attack, weak)
        async with provider(SALES) as (node, counter):
            assert not await served(attack, node)
            await node.counted("truncated")
            assert not counter.prompts
    report.tell("orders: a prompt shorter than announced", weakened="served", ours="closed, truncated")


async def test_an_answer_that_is_never_read(tmp_path: Path) -> None:
    """A slot that others wait for, and what was generated, are held for whoever takes it little by little."""

    async def unread(attack: Attacker, node: Target, shop: Shop) -> None:
        """The engine is through with it, and its user has stopped reading."""
        engine = cast(Scripted, shop.engine)
        count, talk = len(engine.generations), await customer(attack, node)
        sent = [shop.provider.status.tokens]
        stream = await asked(talk, an_order(model=shop.model_id))
        await talk.say(SessionRecord(streams.CHUNK, stream, ENCODED), SessionRecord(streams.END, stream, b""))
        generation = (await engine.asked(count + 1))[-1]
        for _ in range(2000):
            generation.say("words " * 300, 20)
        while sent[-1] == sent[0] or len(sent) < 50 or sent[-1] != sent[-50]:
            await asyncio.sleep(0.01)
            sent.append(shop.provider.status.tokens)
        generation.finish()
        await asyncio.sleep(1.0)

    async with attacker() as attack, scripted(tmp_path, context=100_000) as shop:
        await shop.open(capacity=1)
        provider = shop.provider
        with replaced((customers, "Sale", functools.partial(Sale, limits=WEAK_SALES))):
            with replaced((Rest, "through", lambda *answer: None)):
                async with target() as weak:
                    weak.network.sell(provider.serve)
                    await unread(attack, weak, shop)
                    assert provider.status.running == 1, "until all is sent, as it was before"
            await shop.free()
            async with target() as node:
                node.network.sell(provider.serve)
                await unread(attack, node, shop)
                assert provider.status.running == 0
                assert [one.state for one in provider.served()].count("answering") == 1
            await shop.free()
        with replaced((customers, "Sale", functools.partial(Sale, limits=SALES))):
            async with target() as node:
                node.network.sell(provider.serve)
                await unread(attack, node, shop)
                await until(lambda: not provider._sales._runs)
    report.tell(
        "orders: an answer that nobody reads",
        weakened="a slot held for ever",
        ours="no slot once it is generated, ended after 60 s in which nothing was read",
        cost="8 MiB of answers that are kept",
    )


async def test_one_order_twice() -> None:
    """Two answers for one number, of which one would be denied."""
    number = os.urandom(16)

    async def twice(attack: Attacker, node: Target, counter: Counter) -> int:
        talk = await customer(attack, node)
        for _ in range(2):
            stream = await talk.ask(an_order(number=number))
            if await chunk(talk, stream) is None:
                assert talk.failed[stream] == "bad_request"
        return counter.slots

    async with attacker() as attack:
        with replaced((customers.Customers, "_is_new", lambda *order: True)):
            async with provider(SaleLimits()) as (weak, counter):
                assert await twice(attack, weak, counter) == 2
        async with provider(SaleLimits()) as (node, counter):
            assert await twice(attack, node, counter) == 1
            await node.counted("replayed")
    report.tell("orders: one number twice", weakened="both served", ours="the second: bad_request, replayed")


# Drivers.


Answer = Callable[[Stream], Awaitable[None]]


@asynccontextmanager
async def bought_of(
    answer: Answer, limits: PatienceLimits, kind: type[Purchase] = Purchase
) -> AsyncIterator[Purchase]:
    """An order at a driver that says whatever it likes."""

    async def handle(link: Link, stream: Stream, request: wire.Request) -> None:
        await answer(stream)

    async with nodes() as (user, driver):
        driver.handler = handle
        link = await user.dial(driver)
        patience = Patience(limits, link.clock.monotonic())
        order = wire.Order(os.urandom(16), bytes(32), len(ENCODED), 10)
        async with asyncio.timeout(30), kind(link, order, ASKED, patience) as bought:
            yield bought


async def taken(
    answer: Answer, limits: PatienceLimits, kind: type[Purchase] = Purchase
) -> tuple[list[Item], str]:
    """What a user takes of it, and how it ends."""
    items: list[Item] = []
    async with bought_of(answer, limits, kind) as bought:
        try:
            async for item in bought:
                items.append(item)
                if isinstance(item, Piece) and sum(len(one.text) for one in pieces(items)) >= FLOOD:
                    return items, "all taken"
        except OrderFailed as error:
            return items, str(error.refusal or error.wait)
    return items, "whole"


def pieces(items: list[Item]) -> list[Piece]:
    return [item for item in items if isinstance(item, Piece)]


FLOOD = report.scale(1, 32) << 20


async def claims(stream: Stream) -> None:
    await stream.send(encode_frame(Claimed(4096, 10)))
    async for _ in stream:
        pass


async def says(stream: Stream, *frames: orders.Frame) -> None:
    for frame in frames:
        await stream.send(encode_frame(frame))


async def tokens_too_many(stream: Stream) -> None:
    await claims(stream)
    await says(stream, *[Piece((1,), "a")] * 11, Done("stop", 5, 0, 11))


async def a_lying_end(stream: Stream) -> None:
    """It will ask to be paid for that."""
    await claims(stream)
    await says(stream, Piece((1,), "a"), Done("stop", 5, 0, 10))


async def words_before_the_claim(stream: Stream) -> None:
    """Whoever has no slot to give."""
    await says(stream, Piece((1,), "a"), Claimed(4096, 10))
    async for _ in stream:
        pass
    await says(stream, Done("stop", 5, 0, 1))


async def words_after_the_end(stream: Stream) -> None:
    await claims(stream)
    await says(stream, Piece((1,), "a"), Done("stop", 5, 0, 1), Piece((1,), "b"))


async def places_without_end(stream: Stream) -> None:
    """As fast as they are taken."""
    for _ in range(orders.MAX_PLACED + 1):
        await stream.send(encode_frame(Placed(1)))
    await claims(stream)
    await says(stream, Done("stop", 5, 0, 0))


async def begins_again_for_ever(stream: Stream) -> None:
    """And has the prompt."""
    await claims(stream)
    for _ in range(3):
        await says(stream, Placed(0), Claimed(4096, 10))
    await says(stream, Done("stop", 5, 0, 0))


class Gullible(Course):
    """Takes whatever frames come."""

    def take(self, frame: orders.Frame) -> None:
        if isinstance(frame, Claimed):
            self.claimed, self.in_line = frame, False
        self.done = self.done or isinstance(frame, Done)
        self.n_out += len(frame.ids) if isinstance(frame, Piece) else 0


class Careless(Purchase):
    """Does not ask whether its prompt has left."""

    def _take(self, frames: list[orders.Frame]) -> None:
        sent, self.sent = self.sent, True
        super()._take(frames)
        self.sent = sent


LIES: dict[Answer, str] = {
    tokens_too_many: "too_large",
    a_lying_end: "malformed",
    words_before_the_claim: "not_asked",
    words_after_the_end: "not_asked",
    places_without_end: "rate",
    begins_again_for_ever: "not_asked",
}


@pytest.mark.parametrize("answer", LIES, ids=lambda answer: answer.__name__)
async def test_a_driver_that_lies(answer: Answer) -> None:
    with replaced((orders, "Course", Gullible)):
        _, ended = await taken(answer, WEAK_WAITS, Careless)
        assert ended == "whole"
    _, ended = await taken(answer, WEAK_WAITS)
    assert ended == LIES[answer]
    report.tell(
        f"orders: {answer.__name__.replace('_', ' ')}",
        weakened="believed",
        ours=f"the driver is left, {ended}",
    )


async def test_a_flood_of_text() -> None:
    """Text for which no token comes costs the driver nothing, and the user its memory and its screen."""

    async def flood(stream: Stream) -> None:
        await claims(stream)
        await says(stream, Piece((1,), "a"))
        many = encode_frame(Piece((), "\u2588" * orders.MAX_TEXT)) * 10
        while True:
            await stream.send(many)

    with replaced((orders, "Course", Gullible)):
        items, ended = await taken(flood, WEAK_WAITS)
        weakened = sum(len(piece.text.encode()) for piece in pieces(items))
        assert ended == "all taken" and weakened >= FLOOD
    items, ended = await taken(flood, WEAK_WAITS)
    ours = sum(len(piece.text.encode()) for piece in pieces(items))
    assert ended == "too_large" and ours <= orders.SPARE_BYTES + orders.TOKEN_BYTES
    report.tell(
        "orders: text without tokens",
        weakened=f"{weakened >> 20} MiB taken",
        ours="at most 16 KiB, too_large",
        cost="one chunk decoded",
    )


async def test_garbage_at_full_speed() -> None:
    """The first of it is the last that is looked at."""
    sent = 0

    async def garbage(stream: Stream) -> None:
        nonlocal sent
        await claims(stream)
        for _ in range(200):
            await stream.send(b"\x00\x40" + os.urandom(64))
            sent += 66

    class Skipping(orders.FrameReader):
        """Goes on after what it does not understand."""

        def feed(self, chunk: bytes) -> list[orders.Frame]:
            try:
                return super().feed(chunk)
            except ProtocolError:
                skipped.append(len(chunk))
                return []

    skipped: list[int] = []
    with replaced((orders, "FrameReader", Skipping)):
        _, ended = await taken(garbage, WEAK_WAITS)
        assert sum(skipped) > 100 * 66
    _, ended = await taken(garbage, WEAK_WAITS)
    assert ended in ("malformed", "not_asked")
    report.tell("orders: garbage", weakened="decoded to its end", ours=f"the driver is left, {ended}")


async def nothing(stream: Stream) -> None:
    await asyncio.sleep(EVER)


async def the_same_place(stream: Stream) -> None:
    while True:
        await says(stream, Placed(1))
        await asyncio.sleep(0.05)


async def the_same_progress(stream: Stream) -> None:
    await claims(stream)
    while True:
        await stream.progress(1, 1000)
        await asyncio.sleep(0.15)


async def a_little_progress(stream: Stream) -> None:
    await claims(stream)
    for number in itertools.count():
        await stream.progress(number, 10**9)
        await asyncio.sleep(0.15)


async def a_byte_at_a_time(stream: Stream) -> None:
    await claims(stream)
    for byte in itertools.cycle(encode_frame(Piece((1,), "a" * 200))):
        await stream.send(bytes((byte,)))
        await asyncio.sleep(0.1)


async def letters_without_tokens(stream: Stream) -> None:
    await claims(stream)
    await says(stream, Piece((1,), "a"))
    while True:
        await says(stream, Piece((), "a"))
        await asyncio.sleep(0.1)


async def tokens_that_drip(stream: Stream) -> None:
    """After one that came late, for which more time is given."""
    await claims(stream)
    await says(stream, Piece((1,), "a"))
    await asyncio.sleep(0.3)
    while True:
        await says(stream, Piece((1,), "a"))
        await asyncio.sleep(0.4)


TIME: dict[Answer, str] = {
    nothing: "answer",
    the_same_place: "line",
    the_same_progress: "reading",
    a_little_progress: "reading",
    a_byte_at_a_time: "reading",
    letters_without_tokens: "words",
    tokens_that_drip: "words",
}


@pytest.mark.parametrize("answer", TIME, ids=lambda answer: answer.__name__)
async def test_a_driver_that_never_comes_to_an_end(answer: Answer) -> None:
    """Its user waits for it instead of asking another one."""

    async def waits(limits: PatienceLimits, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                _, ended = await taken(answer, limits)
        except TimeoutError:
            return True
        assert ended == TIME[answer]
        return False

    assert await waits(WEAK_WAITS, 1.2)
    assert not await waits(WAITS, 20)
    report.tell(
        f"orders: {answer.__name__.replace('_', ' ')} for ever",
        weakened="waited for",
        ours="left: 15 s without a word, 180 s in line, 60 s without getting on, 5 minutes with few tokens",
    )
