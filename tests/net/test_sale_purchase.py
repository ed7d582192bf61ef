"""Orders between two nodes on real sockets: whole ones, failures, every wait, every end from either side."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from infraxa.net import orders, prompts, purchase, ticks, wire
from infraxa.net.errors import NetError
from infraxa.net.identity import Signer
from infraxa.net.link import Link, LinkClosed, Stream, StreamFailed
from infraxa.net.orders import Claimed, Done, Piece, Placed, encode_frame
from infraxa.net.patience import Patience, PatienceLimits
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, OrderFailed, Progressed, Purchase
from infraxa.net.sale import Sale, SaleEnded, SaleLimits
from infraxa.net.streams import SEND_ROOM, WINDOW
from tests.net.nodes import Node, nodes, until

Serve = Callable[[Sale], Awaitable[None]]
SECRET = "the words of a person"
ACCOUNT = bytes(range(32))
ASKED = Prompt((Turn("system", "Be kind."), Turn("user", SECRET)), ("\n\n",))
LONG = Prompt((Turn("user", SECRET + os.urandom(1_000_000).hex()),))
"""More than a stream takes before its reader has read any."""
DONE = Done("stop", 5, 2, 0, 1, 2, 3)


async def forever() -> None:
    await asyncio.sleep(3600)


class Shop:
    """A user that has a link to a provider. What the provider does with an order is `serve`."""

    def __init__(self, user: Node, provider: Node) -> None:
        self.provider = provider
        self.serve: Serve = self.sell
        self.limits = SaleLimits()
        self.signer = Signer(provider.secret[:32])
        self.patience = PatienceLimits()
        self.prompts: list[Prompt] = []
        self.ends: list[str | None] = []
        """Why each order was over before its end, as its provider saw it; None: it was not."""
        self.link: Link
        self._user = user
        provider.in_flight = 8
        provider.handler = self._handle

    async def open(self) -> None:
        self.link = await self._user.dial(self.provider)
        await until(lambda: self.provider.links)
        self._tasks = len(asyncio.all_tasks())

    @property
    def links(self) -> list[Link]:
        return [self.link, *self.provider.links]

    async def _handle(self, link: Link, stream: Stream, request: wire.Request) -> None:
        assert isinstance(request, wire.Order)
        link.account = ACCOUNT
        sale = Sale(link, stream, request, self.limits, self.signer)
        try:
            await self.serve(sale)
        except SaleEnded as ended:
            self.ends.append(ended.reason)
            assert sale.ended == ended.reason
        except asyncio.CancelledError:
            self.ends.append(sale.ended)
            raise
        else:
            self.ends.append(sale.ended)
        if sale.breach is not None:
            raise sale.breach

    async def sell(self, sale: Sale) -> None:
        """All there is in an order."""
        await sale.placed(2)
        self.prompts.append(await sale.claim(4096, 100))
        await sale.progress(3, 5)
        await sale.piece("A maple", (1, 2))
        await sale.piece(" is a tree.", (3, 4, 5))
        await sale.done(Done("stop", 5, 2, 5, 1, 2, 3))

    def buy(self, prompt: Prompt = ASKED, **changed: Any) -> Purchase:
        order = wire.Order(os.urandom(16), bytes(32), len(prompts.encode_prompt(prompt)), **changed)
        return Purchase(self.link, order, prompt, Patience(self.patience, self.link.clock.monotonic()))

    async def bought(self, prompt: Prompt = ASKED) -> list[Item]:
        """All that comes. Raises OrderFailed."""
        async with asyncio.timeout(20), self.buy(prompt) as bought:
            return [item async for item in bought]

    async def failed(self, prompt: Prompt = ASKED) -> OrderFailed:
        """How it fails."""
        with pytest.raises(OrderFailed) as failed:
            await self.bought(prompt)
        return failed.value

    async def nothing_left(self) -> None:
        """No handler or task of an order is left on either side, no stream, and there is room for another."""
        await until(lambda: not any(link._handlers for link in self.links))
        await until(lambda: len(asyncio.all_tasks()) <= self._tasks)
        if not self.link.closed:
            await until(lambda: all(link.mux.idle and not link._streams for link in self.links))
            self.serve = self.sell
            assert isinstance((await self.bought())[-1], Done)


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    async with nodes() as (user, provider):
        made = Shop(user, provider)
        await made.open()
        yield made


def said(items: list[Item]) -> tuple[str, list[int]]:
    pieces = [item for item in items if isinstance(item, Piece)]
    return "".join(piece.text for piece in pieces), [token for piece in pieces for token in piece.ids]


async def test_an_order_from_its_place_in_line_to_its_end() -> None:
    async with shop() as here:
        items = await here.bought()
        assert items[:2] == [Placed(2), Claimed(4096, 100)]
        assert items[2] == Progressed(3, 5)
        assert said(items) == ("A maple is a tree.", [1, 2, 3, 4, 5])
        assert items[-1] == Done("stop", 5, 2, 5, 1, 2, 3)
        assert here.prompts == [ASKED]
        assert here.ends == [None]
        await here.nothing_left()


async def test_what_a_sale_says_of_its_user() -> None:
    sales: list[Sale] = []

    async def serve(sale: Sale) -> None:
        sales.append(sale)
        await here.sell(sale)

    async with shop() as here:
        here.serve = serve
        async with here.buy() as bought:
            async for _ in bought:
                pass
        (sale,) = sales
        assert (sale.account, sale.group, sale.relayed) == (ACCOUNT, "local", False)
        assert sale.order == bought.order
        assert 50 < sale.bytes_out < 100


async def test_the_prompt_leaves_when_the_claim_was_taken_note_of() -> None:
    """Not before a place is its own, and not before whoever buys asks for what comes after it."""
    claimed = asyncio.Event()
    steps: list[str] = []

    async def serve(sale: Sale) -> None:
        await sale.placed(1)
        await claimed.wait()
        await sale.claim(10, 10)
        steps.append("the prompt came")
        await sale.done(DONE)

    async with shop() as here:
        here.serve = serve
        async with here.buy() as bought:
            assert await anext(bought) == Placed(1)
            assert not bought.sent
            claimed.set()
            assert await anext(bought) == Claimed(10, 10)
            await asyncio.sleep(0.2)
            (stream,) = here.provider.links[0]._streams.values()
            assert not stream._chunks and not bought.sent
            steps.append("taken note of")
            assert await anext(bought) == DONE
            assert bought.sent
        assert steps == ["taken note of", "the prompt came"]


async def test_the_longest_prompt() -> None:
    fits = wire.MAX_PROMPT - len(prompts.encode_prompt(Prompt((Turn("user", "é" * 100_000),)))) + 200_000
    prompt = Prompt((Turn("user", "é" * (fits // 2)),))
    assert wire.MAX_PROMPT - 10 <= len(prompts.encode_prompt(prompt)) <= wire.MAX_PROMPT
    async with shop() as here:
        await here.bought(prompt)
        assert here.prompts == [prompt]


async def test_many_tokens_come_as_they_were_and_in_ticks() -> None:
    words = [f"w{number} " for number in range(3000)]

    async def serve(sale: Sale) -> None:
        await sale.claim(4096, 10_000)
        for number, word in enumerate(words):
            await sale.piece(word, (number,))
        await sale.piece("é" * 9000, tuple(range(5000)))  # after a stall of the engine
        await sale.done(Done("length", 5, 0, 8000))

    async with shop() as here:
        here.serve = serve
        items = await here.bought()
        text, ids = said(items)
        assert text == "".join(words) + "é" * 9000
        assert ids == [*range(3000), *range(5000)]
        assert len(items) < 1000, "their lengths and times would show"


async def test_orders_at_the_same_time_are_not_mixed_up() -> None:
    async def serve(sale: Sale) -> None:
        prompt = await sale.claim(4096, 100)
        for number in range(50):
            await sale.piece(prompt.turns[0].text, (number,))
        await sale.done(Done("stop", 5, 0, 50))

    async with shop() as here:
        here.serve = serve
        answers = await asyncio.gather(*(here.bought(Prompt((Turn("user", name),))) for name in "abcdefgh"))
        assert [said(items)[0] for items in answers] == [name * 50 for name in "abcdefgh"]
        await here.nothing_left()


# What the provider refuses, or fails at.


@pytest.mark.parametrize("code", get_args(wire.ErrorCode))
async def test_a_refusal(code: wire.ErrorCode) -> None:
    async def serve(sale: Sale) -> None:
        await sale.fail(code, retry_after_ms=1500, limit=7, field="model")

    async with shop() as here:
        here.serve = serve
        error = await here.failed()
        assert (error.code, error.at) == (code, "driver")
        assert (error.retry_after_ms, error.limit, error.sent, error.shown) == (1500, 7, False, False)
        await here.nothing_left()


async def test_a_failure_that_is_not_known_here() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.fail(wire.Failure("\x1b[31mnew"))

    async with shop() as here:
        here.provider.links[0]._handler = answer
        assert (await here.failed()).code == "internal"


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_a_failure_at_any_point(after: int) -> None:
    async def serve(sale: Sale) -> None:
        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: sale.placed(1),
            lambda: sale.claim(4096, 100),
            lambda: sale.piece("A maple", (1,)),
        ]
        for step in steps[:after]:
            await step()
        await sale.fail("leaving")
        with pytest.raises(SaleEnded):
            await sale.piece("x", (1,))

    async with shop() as here:
        here.serve = serve
        error = await here.failed()
        assert (error.code, error.sent, error.shown) == ("leaving", after > 1, after > 2)
        await until(lambda: here.ends)
        assert here.ends == [None]
        await here.nothing_left()


@pytest.mark.parametrize("point", ["line", "upload", "pieces"])
async def test_a_failure_said_beside_whoever_serves(point: str) -> None:
    """The node leaves the network: nobody waits for the task that serves."""
    sales: list[Sale] = []

    async def serve(sale: Sale) -> None:
        sales.append(sale)
        await sale.placed(1)
        if point == "line":
            await forever()
        await sale.claim(4096, 2**20)
        while True:
            await sale.piece("words " * 300, (1,) * 20)

    async with shop() as here:
        here.serve = serve
        async with asyncio.timeout(20), here.buy() as bought:
            assert await anext(bought) == Placed(1)
            if point != "line":
                assert isinstance(await anext(bought), Claimed)
            if point == "pieces":
                assert isinstance(await anext(bought), Piece)
                await until(lambda: not here.provider.links[0].mux.room(1))
            failing = asyncio.gather(sales[0].fail("leaving"))
            with pytest.raises(OrderFailed) as error:
                async for _ in bought:
                    pass
            await failing
            assert error.value.code == "leaving"
        for handler in here.provider.links[0]._handlers.values():
            handler.cancel()
        await here.nothing_left()


async def test_what_waits_for_the_next_tick_is_not_sent_when_the_user_cancels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticks, "TICK_S", 30.0)
    sales: list[Sale] = []

    async def serve(sale: Sale) -> None:
        sales.append(sale)
        await sale.claim(4096, 1000)
        for number in range(7):  # the first goes at once
            await sale.piece("word " * number, tuple(range(number + 1)))
        assert sale.n_sent == 28, "as far as anybody knows"
        await forever()

    async with shop() as here:
        here.serve = serve
        async with here.buy() as bought:
            while not isinstance(item := await anext(bought), Piece):
                pass
            assert item.ids == (0,)
        await until(lambda: here.ends == ["cancelled"])
        assert sales[0].n_sent == 1
        monkeypatch.undo()
        await here.nothing_left()


async def test_what_the_user_does_not_read_is_not_sent_when_it_cancels() -> None:
    """It leaves as far as the credit of the stream goes, in frames that the user may not have taken."""
    sales: list[Sale] = []

    async def serve(sale: Sale) -> None:
        sales.append(sale)
        await sale.claim(4096, 100_000)
        while True:
            await sale.piece("x" * 1000, tuple(range(10)))

    async with shop() as here:
        here.serve = serve
        async with here.buy() as bought:
            while not isinstance(await anext(bought), Piece):
                pass
            await until(lambda: _stands_still(sales[0]))
        await until(lambda: here.ends == ["cancelled"])
        (sale,) = sales
        frame = len(orders.encode_frame(Piece(tuple(range(10)), "x" * 1000)))
        assert 0 < sale.n_sent < sale._n_put
        assert sale.n_sent * frame / 10 <= WINDOW
        assert (sale._n_put - sale.n_sent) * frame / 10 >= SEND_ROOM
        await here.nothing_left()


def _stands_still(sale: Sale) -> bool:
    """All credit is used up, and there is no room for more."""
    mux = sale._link.mux
    return not (mux.room(sale._stream.id) or mux._streams[sale._stream.id].sendable())


async def test_what_a_provider_may_not_say_fails_here_and_not_at_the_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def too_much(sale: Sale) -> None:
        await sale.claim(4096, 1)
        await sale.piece("A", (1, 2))

    async def early(sale: Sale) -> None:
        await sale.piece("A", (1,))

    async def miscounted(sale: Sale) -> None:
        await sale.claim(4096, 1)
        await sale.done(Done("stop", 5, 0, 1))

    async with shop() as here:
        for serve in (too_much, early, miscounted):
            here.serve = serve
            assert (await here.failed()).code == "internal"
        assert len(caplog.records) == 3
        assert all(record.exc_info and record.exc_info[0] is ValueError for record in caplog.records)
        await here.nothing_left()


async def test_an_order_that_goes_back_to_its_place_in_line() -> None:
    async def twice(sale: Sale) -> None:
        here.prompts.append(await sale.claim(4096, 100))
        await sale.progress(4, 5)
        await asyncio.sleep(0.1)  # what is said of the progress is not joined with the next
        await sale.placed(1)
        await sale.progress(3, 5)  # of nothing
        await sale.placed(0)
        await sale.claim_again(2048, 50)
        await asyncio.sleep(0.1)
        await sale.progress(1, 5)
        await asyncio.sleep(0.1)
        await sale.piece("A maple", (1, 2))
        with pytest.raises(ValueError, match="not to be said"):
            await sale.placed(1)
        await sale.done(Done("stop", 5, 2, 2))

    async with shop() as here:
        here.serve = twice
        items = await here.bought()
        assert [item for item in items if not isinstance(item, Piece)] == [
            Claimed(4096, 100),
            Progressed(4, 5),
            Placed(1),
            Placed(0),
            Claimed(2048, 50),
            Progressed(1, 5),
            Done("stop", 5, 2, 2),
        ]
        assert said(items) == ("A maple", [1, 2])
        assert here.prompts == [ASKED], "it is asked for once"
        await here.nothing_left()


async def test_the_prompt_does_not_leave_when_the_place_is_lost_before() -> None:
    async def loses(sale: Sale) -> None:
        await sale._stream.send(frames(Claimed(4096, 10), Placed(1)))
        await asyncio.sleep(0.1)
        here.prompts.append(await sale.claim(4096, 10))
        await sale.done(DONE)

    async with shop() as here:
        here.serve = loses
        async with asyncio.timeout(20), here.buy() as bought:
            assert [await anext(bought), await anext(bought)] == [Claimed(4096, 10), Placed(1)]
            assert isinstance(await anext(bought), Claimed) and not bought.sent
            assert await anext(bought) == DONE
        assert here.prompts == [ASKED]


async def back_in_line_for_ever(sale: Sale) -> None:
    await sale.claim(4096, 10)
    while True:
        await sale.placed(1)
        await asyncio.sleep(0.05)


async def read_twice_and_then_no_more(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await sale.placed(1)
    await sale.claim_again(4096, 10)
    await reading_the_same(sale)


async def reading_the_same(sale: Sale) -> None:
    while True:
        await sale.progress(1, 1000)
        await asyncio.sleep(0.15)


# Drivers that do not keep to the protocol.


def frames(*said: orders.Frame) -> bytes:
    return b"".join(map(encode_frame, said))


CLAIMED = Claimed(4096, 10)
HOSTILE: dict[str, tuple[list[bytes], str]] = {
    "garbage": ([b"\x00\x03" + b"\xc1" * 30], "malformed"),
    "a frame too long": ([b"\xff\xff"], "too_large"),
    "a piece before the claim": ([frames(Piece((1,), "x"))], "not_asked"),
    "an answer before the prompt": ([frames(CLAIMED, Piece((1,), "x"))], "not_asked"),
    "an end before the prompt": ([frames(CLAIMED, DONE)], "not_asked"),
    "an end without a claim": ([frames(DONE)], "not_asked"),
    "two claims": ([frames(CLAIMED, CLAIMED)], "not_asked"),
    "no answer": ([], "truncated"),
    "half an answer": ([frames(CLAIMED), frames(Piece((1,), "x"))], "truncated"),
    "half a frame": ([frames(CLAIMED), frames(Piece((1,), "x"), DONE)[:-3]], "truncated"),
    "more tokens": ([frames(CLAIMED), frames(*[Piece((1,), "x")] * 11)], "too_large"),
    "more text": ([frames(CLAIMED), *[frames(Piece((), "x" * 2000))] * 10], "too_large"),
    "a lying end": ([frames(CLAIMED), frames(Piece((1,), "x"), DONE)], "malformed"),
    "an answer after its end": ([frames(CLAIMED), frames(DONE, Piece((1,), "x"))], "not_asked"),
    "garbage after its end": ([frames(CLAIMED), frames(DONE) + b"\x00"], "not_asked"),
}


def hostile(chunks: list[bytes]) -> Any:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        for chunk in chunks:
            await stream.send(chunk)
            if chunk == frames(CLAIMED):
                async for _ in stream:
                    pass

    return answer


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_driver_that_breaks_the_protocol(what: str) -> None:
    chunks, reason = HOSTILE[what]
    async with shop() as here:
        honest = here.provider.links[0]._handler
        here.provider.links[0]._handler = hostile(chunks)
        error = await here.failed()
        assert (error.code, error.refusal, error.at) == ("garbage", reason, "driver")
        assert error.sent == (frames(CLAIMED) in chunks)
        here.provider.links[0]._handler = honest
        await here.nothing_left()


async def test_a_driver_that_ends_while_the_prompt_is_sent() -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.send(frames(CLAIMED))

    async with shop() as here:
        honest = here.provider.links[0]._handler
        here.provider.links[0]._handler = answer
        error = await here.failed(LONG)
        assert (error.code, error.refusal, error.sent) == ("garbage", "truncated", True)
        here.provider.links[0]._handler = honest
        await here.nothing_left()


async def test_an_order_that_failed_is_over_at_once() -> None:
    """Its driver need not wait until whoever bought has let go of it."""

    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        try:
            await stream.send(frames(DONE))
            await forever()
        finally:
            stopped.set()

    stopped = asyncio.Event()
    async with shop() as here:
        here.provider.links[0]._handler = answer
        async with asyncio.timeout(20), here.buy() as bought:
            with pytest.raises(OrderFailed):
                await anext(bought)
            await stopped.wait()


async def test_progress_that_says_nothing_is_not_told() -> None:
    async def serve(sale: Sale) -> None:
        stream = sale._stream
        await sale.progress(1, 2)  # nothing is read yet
        await sale.placed(1)
        await sale.claim(4096, 10)
        for done, total in ((3, 2), (1, 2**40)):
            await stream.progress(done, total)
            await asyncio.sleep(0.15)
        await sale.progress(1, 2)
        await sale.done(DONE)

    async with shop() as here:
        here.serve = serve
        items = await here.bought()
        assert [item for item in items if isinstance(item, Progressed)] == [Progressed(1, 2)]


# Drivers that are waited for.


async def silent(sale: Sale) -> None:
    await forever()


async def in_line_for_ever(sale: Sale) -> None:
    while True:
        await sale.placed(1)
        await asyncio.sleep(0.05)


async def silent_in_line(sale: Sale) -> None:
    await sale.placed(1)
    await forever()


async def never_reads(sale: Sale) -> None:
    await sale._send(CLAIMED)
    await forever()


async def reads_bit_by_bit(sale: Sale) -> None:
    await sale._send(CLAIMED)
    async for _ in sale._stream:
        await asyncio.sleep(0.08)


async def says_nothing_of_the_prompt(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await forever()


async def reads_the_same_for_ever(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await reading_the_same(sale)


async def reads_a_little_for_ever(sale: Sale) -> None:
    await sale.claim(4096, 10)
    for number in itertools.count():
        await sale.progress(number, 10**6)
        await asyncio.sleep(0.15)


async def stops_in_mid_answer(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await sale.piece("A maple", (1,))
    await forever()


async def byte_by_byte(sale: Sale) -> None:
    await sale.claim(4096, 10)
    for byte in frames(*[Piece((1,), "x" * 50)] * 10):
        await sale._stream.send(bytes((byte,)))
        await asyncio.sleep(0.1)


async def text_without_tokens(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await sale.piece("A", (1,))
    while True:
        await sale.piece("a", ())
        await asyncio.sleep(0.1)


WAITED: dict[Serve, tuple[str, str]] = {
    silent: ("answer", "silent"),
    in_line_for_ever: ("line", "stalled"),
    silent_in_line: ("line", "silent"),
    never_reads: ("upload", "silent"),
    reads_bit_by_bit: ("upload", "stalled"),
    says_nothing_of_the_prompt: ("reading", "silent"),
    reads_the_same_for_ever: ("reading", "stalled"),
    reads_a_little_for_ever: ("reading", "stalled"),
    back_in_line_for_ever: ("line", "stalled"),
    read_twice_and_then_no_more: ("reading", "stalled"),
    stops_in_mid_answer: ("words", "silent"),
    byte_by_byte: ("reading", "silent"),
    text_without_tokens: ("words", "silent"),
}
SHORT = PatienceLimits(
    answer=0.6,
    line=1.0,
    placed=0.6,
    upload=2.0,
    taken=1.2,
    advance=0.6,
    reading=1.5,
    silence=0.6,
    longest=0.8,
)
PATIENT = PatienceLimits(**dict.fromkeys(PatienceLimits.__struct_fields__, 1000.0))


@pytest.mark.parametrize("serve", WAITED, ids=lambda serve: serve.__name__)
async def test_no_driver_is_waited_for_for_ever(serve: Serve) -> None:
    async with shop() as here:
        here.serve = serve
        here.patience = SHORT
        error = await here.failed(LONG)
        assert (error.wait, error.code, error.at) == (*WAITED[serve], "driver")
        assert error.sent == (error.wait not in ("answer", "line") or serve is back_in_line_for_ever)
        assert error.shown == (error.wait == "words")
        await until(lambda: here.ends)
        assert here.ends == ["cancelled"], "it is told"
        here.patience = PatienceLimits()
        await here.nothing_left()


async def test_a_driver_that_gets_on_is_waited_for() -> None:
    """For longer than any one of the waits."""

    async def serve(sale: Sale) -> None:
        for before in (2, 1):
            await sale.placed(before)
            await asyncio.sleep(0.3)
        await sale.claim(4096, 100)
        for done in range(4):
            await sale.progress(done, 4)
            await asyncio.sleep(0.3)
        for number in range(4):
            await sale.piece("word ", (number,))
            await asyncio.sleep(0.3)
        await sale.done(Done("stop", 4, 0, 4))

    async with shop() as here:
        here.serve = serve
        here.patience = PatienceLimits(
            answer=1.5,
            line=3,
            placed=1.5,
            upload=3,
            taken=1.5,
            advance=1.5,
            reading=9,
            silence=1.5,
            longest=2,
        )
        assert said(await here.bought())[0] == "word " * 4


# Ends from either side, at every point.


async def until_claimed(sale: Sale) -> None:
    await sale.claim(4096, 10)


async def until_first_token(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await sale.progress(1, 2)


async def until_piece(sale: Sale) -> None:
    await sale.claim(4096, 10)
    await sale.piece("A maple", (1,))


async def nothing(sale: Sale) -> None:
    pass


async def until_placed(sale: Sale) -> None:
    await sale.placed(1)


async def until_asked(sale: Sale) -> None:
    """And it reads none of the prompt."""
    await sale._send(CLAIMED)


POINTS: dict[str, tuple[Serve, int]] = {
    "the beginning": (nothing, 0),
    "line": (until_placed, 1),
    "upload": (until_asked, 1),
    "reading": (until_claimed, 1),
    "progress": (until_first_token, 2),
    "pieces": (until_piece, 2),
}
"""What the driver does before it waits for ever, and how many items come of it."""


@asynccontextmanager
async def brought_to(here: Shop, point: str) -> AsyncIterator[tuple[Purchase, asyncio.Task[Item], Sale]]:
    """An order at a point where its user waits for more of it."""
    serve, count = POINTS[point]
    reached: list[Sale] = []

    async def served(sale: Sale) -> None:
        await serve(sale)
        reached.append(sale)
        await forever()

    here.serve = served
    here.patience = PATIENT
    async with asyncio.timeout(20), here.buy(LONG) as bought:
        for _ in range(count):
            await anext(bought)
        waiting = asyncio.ensure_future(anext(bought))
        await until(lambda: reached)
        if point == "upload":
            await until(lambda: bought.sent and not here.link.mux.room(1))
        try:
            yield bought, waiting, reached[0]
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, OrderFailed):
                await waiting
    here.patience = PatienceLimits()


@pytest.mark.parametrize("point", POINTS)
async def test_the_user_cancels(point: str) -> None:
    async with shop() as here:
        async with brought_to(here, point) as (bought, waiting, sale):
            bought.cancel()
            with pytest.raises(StopAsyncIteration):
                await waiting
            with pytest.raises(StopAsyncIteration):
                await anext(bought)
            await until(lambda: here.ends)
            assert here.ends == ["cancelled"]
            with pytest.raises(SaleEnded):
                await sale.piece("x", (2,))
            await sale.fail("internal")  # to nobody
        await here.nothing_left()


@pytest.mark.parametrize("point", POINTS)
async def test_whoever_buys_is_cancelled(point: str) -> None:
    async with shop() as here:
        async with brought_to(here, point) as (_, waiting, _):
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await until(lambda: here.ends)
        assert here.ends == ["cancelled"]
        await here.nothing_left()


@pytest.mark.parametrize("point", POINTS)
async def test_the_provider_cancels(point: str) -> None:
    async with shop() as here:
        async with brought_to(here, point) as (_, waiting, sale):
            sale._stream.cancel()
            with pytest.raises(OrderFailed) as error:
                await waiting
            assert (error.value.code, error.value.at) == ("cancelled", "driver")
            for handler in here.provider.links[0]._handlers.values():
                handler.cancel()
        await here.nothing_left()


@pytest.mark.parametrize("by", ["user", "provider", "carrier"])
@pytest.mark.parametrize("point", POINTS)
async def test_the_link_is_lost(point: str, by: str) -> None:
    async with shop() as here:
        async with brought_to(here, point) as (bought, waiting, sale):
            if by == "carrier":
                await here.link._pipe.close()
            else:
                await (here.link if by == "user" else here.provider.links[0]).close()
            with pytest.raises(OrderFailed) as error:
                await waiting
            assert (error.value.code, error.value.at) == ("gone", "link")
            assert error.value.sent == (point not in ("the beginning", "line"))
            assert error.value.shown == (point == "pieces")
            await until(lambda: here.ends)
            assert here.ends == ["gone"]
            with pytest.raises(SaleEnded):
                await sale.piece("x", (2,))
            with pytest.raises(StopAsyncIteration):
                await anext(bought)
        await here.nothing_left()


async def test_the_provider_finds_that_its_user_is_gone_from_another_task() -> None:
    """Whoever serves may speak from a task that the link does not cancel."""
    ended: list[str] = []

    async def pump(sale: Sale) -> None:
        try:
            for number in itertools.count():
                await sale.piece("word ", (number % 100,))
                await asyncio.sleep(0.01)
        except SaleEnded as error:
            ended.append(error.reason)

    async def serve(sale: Sale) -> None:
        await sale.claim(4096, 2**20)
        pumps.append(asyncio.ensure_future(pump(sale)))
        await forever()

    pumps: list[asyncio.Future[None]] = []
    async with shop() as here:
        here.serve = serve
        async with asyncio.timeout(20), here.buy() as bought:
            async for item in bought:
                if isinstance(item, Piece):
                    break
        await asyncio.wait_for(pumps[0], 10)
        assert ended == ["cancelled"]


async def test_a_link_that_is_over_before_the_order() -> None:
    async with shop() as here:
        await here.link.close()
        error = await here.failed()
        assert (error.code, error.at, error.sent) == ("gone", "link", False)


async def test_a_link_that_is_too_old_for_an_order() -> None:
    async with shop() as here:
        here.link.aged = True
        error = await here.failed()
        assert (error.code, error.at, error.sent) == ("expired", "link", False)


async def test_an_order_that_waits_for_its_own_link_is_bounded() -> None:
    async with shop() as here:
        here.patience = SHORT
        here.link.mux._opens_out.rate = 1e-6
        here.link.mux._opens_out.take(here.link.mux._opens_out.burst, here.link.clock.monotonic())
        error = await here.failed()
        assert (error.code, error.at, error.sent) == ("busy", "link", False)


async def test_cancelled_while_it_waits_for_its_own_link() -> None:
    async with shop() as here:
        here.serve = silent
        opens = here.link.mux._opens_out
        opens.rate = 1.0
        opens.take(opens.burst, here.link.clock.monotonic())
        async with asyncio.timeout(20), here.buy() as bought:
            waiting = asyncio.ensure_future(anext(bought))
            await asyncio.sleep(0.1)
            bought.cancel()
            with pytest.raises(StopAsyncIteration):
                await waiting
        opens._full_at = 0.0
        await here.nothing_left()


async def test_cancelled_before_it_began() -> None:
    async with shop() as here:
        bought = here.buy()
        bought.cancel()
        assert [item async for item in bought] == []
        assert not here.link._streams


async def test_an_order_that_announces_another_prompt() -> None:
    async with shop() as here:
        order = wire.Order(bytes(16), bytes(32), 5)
        with pytest.raises(ValueError, match="another prompt"):
            Purchase(here.link, order, ASKED, Patience(PatienceLimits(), 0.0))
        with pytest.raises(NetError):
            here.buy(Prompt(()))


# Users that do not keep to it.


async def test_a_user_that_does_not_read() -> None:
    """It stops the generation, and is ended; others on the same link are not held up."""
    sent = 0

    async def serve(sale: Sale) -> None:
        nonlocal sent
        await sale.claim(4096, 2**20)
        for _ in range(10_000):
            await sale.piece("words " * 300, (1,) * 20)
            sent += 1

    async with shop() as here:
        here.serve = serve
        here.limits = SaleLimits(stall=2)
        async with asyncio.timeout(20), here.buy() as bought:
            while not isinstance(await anext(bought), Piece):
                pass
            here.serve = here.sell
            assert isinstance((await here.bought())[-1], Done)
            await until(lambda: len(here.ends) == 2)
            assert here.ends == [None, "stalled"]
            assert sent * 1800 < 1_000_000
            with pytest.raises(OrderFailed) as error:
                async for _ in bought:
                    pass
            assert error.value.code == "cancelled"
        await here.nothing_left()


async def test_a_failure_does_not_wait_for_a_user_that_does_not_read() -> None:
    async def serve(sale: Sale) -> None:
        await sale.claim(4096, 2**20)
        while here.provider.links[0].mux.room(1):
            await sale.piece("words " * 300, (1,) * 20)
        await sale.fail("internal")

    async with shop() as here:
        here.serve = serve
        here.limits = SaleLimits(fail=0.3)
        async with asyncio.timeout(20), here.buy() as bought:
            while not isinstance(await anext(bought), Piece):
                pass
            await until(lambda: here.ends)
        await here.nothing_left()


async def refused(here: Shop, chunks: list[bytes], length: int, pause: float = 0.0) -> wire.Failure:
    """What comes of a prompt that is sent by hand."""
    order = wire.Order(os.urandom(16), bytes(32), length)
    with pytest.raises(StreamFailed) as failed:
        async with asyncio.timeout(20), await here.link.request(order) as stream:
            for chunk in chunks:
                await stream.send(chunk)
                await asyncio.sleep(pause)
            async for _ in stream:
                pass
    return failed.value.failure


async def test_a_prompt_that_is_never_sent() -> None:
    async with shop() as here:
        here.limits = SaleLimits(idle=0.3)
        assert await refused(here, [], 10) == wire.Failure("expired", field="prompt")
        assert here.ends == ["stalled"]
        await here.nothing_left()


@pytest.mark.parametrize("limits", [SaleLimits(upload=0.7), SaleLimits(begin=0.7, rate=1e6)])
async def test_a_prompt_that_drips(limits: SaleLimits) -> None:
    async with shop() as here:
        here.limits = limits
        assert await refused(here, [b"x"] * 400, 1000, 0.1) == wire.Failure("expired", field="prompt")
        assert here.ends == ["stalled"]
        await here.nothing_left()


async def test_a_long_prompt_has_its_time() -> None:
    async with shop() as here:
        here.limits = SaleLimits(begin=0.05, rate=2)
        chunks = [ENCODED[at : at + 10] for at in range(0, len(ENCODED), 10)]
        order = wire.Order(os.urandom(16), bytes(32), len(ENCODED))
        async with asyncio.timeout(20), await here.link.request(order) as stream:
            for chunk in chunks:
                await stream.send(chunk)
                await asyncio.sleep(0.01)
            await stream.end()
            assert [chunk async for chunk in stream]
        assert here.prompts == [ASKED]


ENCODED = prompts.encode_prompt(ASKED)


@pytest.mark.parametrize(
    ("sent", "length", "reason"),
    [
        (ENCODED, len(ENCODED) + 1, "truncated"),
        (b"", 1, "truncated"),
        (ENCODED, len(ENCODED) - 1, "too_large"),
        (bytes(600_000), len(ENCODED), "too_large"),
        (b"\xc1" * 100, 100, "malformed"),
    ],
    ids=("short", "none", "long", "very long", "garbage"),
)
async def test_a_prompt_that_is_none_closes_the_link(sent: bytes, length: int, reason: str) -> None:
    async with shop() as here:
        order = wire.Order(os.urandom(16), bytes(32), length)
        with pytest.raises(LinkClosed) as error:
            async with asyncio.timeout(20), await here.link.request(order) as stream:
                for at in range(0, len(sent), 50_000):
                    await stream.send(sent[at : at + 50_000])
                await stream.end()
                async for _ in stream:
                    pass
        assert error.value.reason == reason
        assert here.ends == ["bad"]
        await here.nothing_left()


# Nothing of what is said.


@contextlib.contextmanager
def every_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield


async def test_neither_logs_nor_errors_hold_what_is_said(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []

    async def broken(sale: Sale) -> None:
        prompt = await sale.claim(4096, 10)
        await sale.piece(prompt.turns[-1].text, (1,))
        await sale.piece(prompt.turns[-1].text, tuple(range(20)))  # more than it may have

    async with shop() as here:
        with every_log(caplog):
            here.serve = broken
            errors: list[BaseException] = [await here.failed()]
            here.provider.links[0]._handler = hostile([frames(CLAIMED), frames(Piece((1,), SECRET), DONE)])
            errors.append(await here.failed())
            await asyncio.sleep(0)
        for error in errors:
            shown += traceback.format_exception(error)
            shown += map(str, vars(error).values())
        shown += [caplog.handler.format(record) for record in caplog.records]
        assert caplog.records and all(SECRET not in line for line in shown)


async def test_the_end_of_an_answer_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
        await stream.send(frames(CLAIMED))
        async for _ in stream:
            pass
        await stream.send(frames(DONE))
        await forever()

    monkeypatch.setattr(purchase, "END_S", 0.2)
    async with shop() as here:
        honest = here.provider.links[0]._handler
        here.provider.links[0]._handler = answer
        assert (await here.bought())[-1] == DONE
        here.provider.links[0]._handler = honest
        await here.nothing_left()
