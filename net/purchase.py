"""One order at its user: frames in, the prompt out when it is asked for, every wait bounded.

What is said is orders.py's, how long is waited patience.py's. Which driver, and what to do when it fails, is
decided by who buys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Literal, Self, get_args

from msgspec import Struct

from infraxa.net import codec, orders, patience, prompts, wire
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.link import Link
from infraxa.net.patience import Patience
from infraxa.net.scores import NO_TOKEN, Scoring
from infraxa.net.stream import LinkClosed, Stream, StreamCancelled, StreamFailed
from infraxa.net.vectors import Part

PART: Final = 32 * 1024
"""Bytes of a chunk of the prompt."""
MAX_TOTAL: Final = 2**31 - 1
"""Tokens of a prompt."""
END_S: Final = 5.0
"""From the last frame to the end of the stream, which come together."""


class Progressed(Struct, frozen=True):
    """So many tokens of the prompt were read."""

    done: int
    total: int


class Vector(Struct, frozen=True):
    """Of the next text; or the scores of the next step."""

    data: bytes
    """float32, little-endian; of scores see scores.decode_row."""
    n_tokens: int
    """Of the text; see scores.Scores."""


Item = (
    orders.Placed
    | orders.Claimed
    | Progressed
    | orders.Piece
    | orders.Checkpoint
    | Vector
    | Scoring
    | orders.Done
)
"""Of a piece and a checkpoint that came together the checkpoint is given first."""


class OrderFailed(Exception):
    """There is no (more) answer. Holds nothing that the driver wrote but numbers."""

    def __init__(
        self,
        code: str,
        *,
        at: Literal["driver", "link"],
        sent: bool,
        shown: bool,
        failure: wire.Failure | None = None,
        wait: patience.Wait | None = None,
        pace: patience.Pace | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        """A wire.ErrorCode as the driver said it; `silent`, `stalled`: nothing, or nothing new, came for too
        long; `gone`: the link is lost; `garbage`: the driver broke the protocol."""
        self.at = at
        """Whether the driver itself failed, or the way to it."""
        self.sent = sent
        """The prompt left, or some of it."""
        self.shown = shown
        """A piece came."""
        self.retry_after_ms = failure.retry_after_ms if failure else 0
        self.limit = failure.limit if failure else 0
        said = (failure.code, failure.field) if failure else None
        self.no_token = sent and said == ("bad_request", NO_TOKEN)
        """There are no scores: the answer holds a token that the model does not have."""
        self.wait = wait
        """What did not come in time."""
        self.pace = pace
        """How slowly it came, where it did come."""
        self.refusal = refusal
        """Why it was `garbage`, to be counted; why the link was closed, if that was said."""


class Purchase:
    """An order on its way: iterates over what comes, the last of which is Done. Raises OrderFailed.

    As an asynchronous context manager it is cancelled at the end of the block, unless it is over by then.
    """

    def __init__(self, link: Link, order: wire.Order, prompt: prompts.Prompt, patience: Patience) -> None:
        """Raises ValueError when the order announces another prompt, by its length or its hash, or is to be
        checked and could not be; NetError as encode_prompt."""
        self.order = order
        self.sent = False
        """The prompt leaves, or has left."""
        self.shown = False
        """A piece came."""
        self._link = link
        self._prompt = prompts.encode_prompt(prompt)
        if len(self._prompt) != order.prompt_bytes or bool(prompt.salt) != (order.mode != "none"):
            raise ValueError("the order announces another prompt")
        if order.mode != "none" and codec.digest("prompt", self._prompt) != order.prompt_hash:
            raise ValueError("the order announces another prompt")
        try:
            orders.check_order(order)
        except ProtocolError as error:
            raise ValueError(error.detail) from None
        self._patience = patience
        self._reader = orders.FrameReader(order)
        self._items: deque[Item] = deque()
        self._progress: Progressed | None = None
        self._stream: Stream | None = None
        self._waiting: asyncio.Timeout | None = None
        self._vector = bytearray()
        """What came of the next one."""
        self._vector_bytes = 0
        """Of all that came: the texts are read one after the other."""
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """What came next; once it was Claimed, the prompt is sent before that."""
        if self._items:
            return self._items.popleft()
        if self._over:
            raise StopAsyncIteration
        try:
            if self._stream is None:
                await self._open()
            if not self._reader.course.in_line and not self.sent:
                await self._send()
            return await self._next()
        except OrderFailed:
            raise
        except StreamFailed as error:
            code = error.failure.code
            raise self._failed(
                code if code in get_args(wire.ErrorCode) else "internal", failure=error.failure
            ) from None
        except StreamCancelled:
            if self._over:
                raise StopAsyncIteration from None  # by `cancel`
            raise self._failed("cancelled") from None
        except LinkClosed as error:
            raise self._failed("gone", at="link", refusal=error.reason) from None
        except NetError as error:
            raise self._failed(error.code, at="link") from None
        except ProtocolError as error:
            raise self._failed("garbage", refusal=error.reason) from None

    def cancel(self) -> None:
        """Want no more of it; the iteration ends. What came and was not taken is still given."""
        self._over = True
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._left()):
                stream = await self._link.request(self.order)
        except TimeoutError:
            raise self._failed("busy", at="link") from None  # of our own requests
        self._stream = stream
        stream.on_progress = self._on_progress
        if self._over:
            stream.cancel()

    async def _send(self) -> None:
        """All of the prompt, or as much of it as the driver wants."""
        assert self._stream is not None
        self.sent = True
        data, self._prompt = self._prompt, b""
        try:
            for at in range(0, len(data), PART):
                self._patience.uploading(self._now())
                part = data[at : at + PART]
                while not self._stream.push(part):
                    await self._room()
            await self._stream.end()
        except StreamCancelled:
            pass  # it wants no more; what it said is still to be read
        self._patience.uploaded(self._now())

    async def _room(self) -> None:
        assert self._stream is not None
        while True:
            try:
                async with asyncio.timeout(self._left()):
                    await self._stream.room()
                return
            except TimeoutError:
                self._judge()

    async def _next(self) -> Item:
        assert self._stream is not None
        while True:
            if self._progress is not None:
                progress, self._progress = self._progress, None
                return progress
            self._patience.reads(self._now())
            try:
                async with asyncio.timeout(self._left()) as self._waiting:
                    chunk = await anext(self._stream)
            except StopAsyncIteration:
                self._reader.end()
                raise
            except TimeoutError:
                if self._progress is None:
                    self._judge()
                continue
            finally:
                self._waiting = None
            self._take(self._reader.feed(chunk))
            if self._reader.course.done:
                await self._finish()
            if self._items:
                return self._items.popleft()

    def _take(self, frames: list[orders.Frame]) -> None:
        """Pieces that came together are given as one."""
        now = self._now()
        texts: list[str] = []
        ids: list[int] = []
        logprobs: list[orders.Logprob] = []
        draw = b""
        done: orders.Done | None = None
        for frame in frames:
            if isinstance(frame, orders.Placed):
                self._patience.placed(now)
                self._progress = None
                self._items.append(frame)
            elif isinstance(frame, orders.Claimed):
                if self.sent:
                    self._patience.uploaded(now)  # it has the prompt
                self._items.append(frame)
            elif not self.sent:
                raise ProtocolError("not_asked", "an answer before the prompt")
            elif isinstance(frame, orders.Piece):
                texts.append(frame.text)
                ids.extend(frame.ids)
                logprobs.extend(frame.logprobs)
                draw = draw or frame.draw
            elif isinstance(frame, orders.Checkpoint):
                self._check(frame)
                self._items.append(frame)
            elif isinstance(frame, Part):
                self._take_part(frame)
            elif isinstance(frame, Scoring):
                self._items.append(frame)
            else:
                done = frame
        if texts:
            self.shown, self._progress = True, None
            if ids:
                self._patience.piece(now, len(ids))
            self._items.append(orders.Piece(tuple(ids), "".join(texts), tuple(logprobs), draw))
        if done is not None:
            self._items.append(done)

    def _check(self, said: orders.Checkpoint) -> None:
        if self._link.peer is None:
            raise ProtocolError("not_allowed", "a checkpoint of nobody")
        orders.check_checkpoint(said, self.order, self._link.peer)

    def _take_part(self, part: Part) -> None:
        self.shown, self._progress = True, None
        self._vector_bytes += len(part.data)
        self._patience.progressed(self._vector_bytes, self._now())
        self._vector += part.data
        if part.n_tokens is not None:
            self._items.append(Vector(bytes(self._vector), part.n_tokens))
            self._vector.clear()

    async def _finish(self) -> None:
        """Nothing may follow but the end of the stream."""
        assert self._stream is not None
        self._over = True
        self._link.mux.give_back(mine=True)
        try:
            async with asyncio.timeout(END_S):
                async for chunk in self._stream:
                    self._reader.feed(chunk)
                self._reader.end()
        except (TimeoutError, StreamCancelled, LinkClosed):
            pass  # the answer is whole
        self._stream.cancel()

    def _on_progress(self, done: int, total: int) -> None:
        if not self.sent or self.shown or self._reader.course.in_line or not done <= total <= MAX_TOTAL:
            return  # it tells of nothing
        self._patience.progressed(done, self._now())
        self._progress = Progressed(done, total)
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def _judge(self) -> None:
        overdue = self._patience.overdue(self._now())
        if overdue is not None:
            code = "silent" if overdue.silent else "stalled"
            raise self._failed(code, wait=overdue.wait, pace=overdue.pace)

    def _failed(
        self,
        code: str,
        *,
        at: Literal["driver", "link"] = "driver",
        failure: wire.Failure | None = None,
        wait: patience.Wait | None = None,
        pace: patience.Pace | None = None,
        refusal: Refusal | None = None,
    ) -> OrderFailed:
        self.cancel()
        self._items.clear()
        return OrderFailed(
            code,
            at=at,
            sent=self.sent,
            shown=self.shown,
            failure=failure,
            wait=wait,
            pace=pace,
            refusal=refusal,
        )

    def _now(self) -> float:
        return self._link.clock.monotonic()

    def _left(self) -> float:
        return max(0.0, self._patience.due() - self._now())
