"""One order at its provider: frames out, the prompt in, every wait bounded.

What is said is orders.py's. Whether and when an order gets a place is decided by who serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable
from typing import Final, Literal

from msgspec import Struct

from infraxa.net import addresses, codec, orders, prompts, scores, vectors, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.link import Link
from infraxa.net.relay import is_relayed
from infraxa.net.stream import LinkClosed, Stream, StreamCancelled
from infraxa.net.ticks import TickedWriter

Ending = Literal["cancelled", "gone", "stalled", "bad"]
"""The user cancelled; its link is lost, or this node leaves; it did not read, or did not send its prompt, in
time; it broke the protocol."""
MAX_RETRY_MS: Final = 24 * 3600 * 1000
RECENT: Final = 4096
"""Frames of which it is known how many tokens were in them; more seldom wait to be sent."""


class SaleLimits(Struct, frozen=True):
    """Seconds, but for `rate`."""

    idle: float = 15.0
    """Between two chunks of the prompt."""
    begin: float = 10.0
    """For all of it, besides its bytes at `rate`: it holds a place that others wait for."""
    upload: float = 120.0
    """The most for all of it, however long it is."""
    stall: float = 60.0
    """In which the user reads nothing."""
    fail: float = 0.5
    """The same when the answer has failed: what it did not read is not worth more."""
    rate: float = 8000.0
    """Bytes per second, of a user on a slow line."""


class SaleEnded(Exception):
    """Nobody wants this order served any more."""

    def __init__(self, reason: Ending) -> None:
        super().__init__(reason)
        self.reason: Ending = reason


class Sale:
    """An order that came. All methods raise SaleEnded, after which nothing more can be said. They are for one
    task, but `fail` may be called beside them.

    The task that handles the order is also cancelled when the user cancels or the link is lost, as that of
    any request; `ended` says which.
    """

    def __init__(
        self,
        link: Link,
        stream: Stream,
        order: wire.Order,
        limits: SaleLimits | None = None,
        signer: Signer | None = None,
    ) -> None:
        """`link` has an account. `signer`: this node's key, for checkpoints."""
        assert link.account is not None
        self.order = order
        self.account = link.account
        """The account key of the user."""
        self.group = addresses.group(link.remote)
        """The group of addresses it came from; the relay, when it came through one."""
        self.relayed = is_relayed(link)
        self.bytes_out = 0
        """Of frames, before padding and seals."""
        self._recent = deque[tuple[int, int]](maxlen=RECENT)
        """Bytes and tokens of the last frames of the answer."""
        self._n_put = 0
        self._link = link
        self._stream = stream
        self._limits = limits or SaleLimits()
        self._signer = signer
        self._course = orders.Course(order)
        self._writer: TickedWriter | None = None
        self._over = False
        """This side has said the last."""
        self._reason: Ending | None = None
        self.breach: ProtocolError | None = None
        """What the user did wrong, for which its link is to be closed."""

    @property
    def ended(self) -> Ending | None:
        """Why nobody wants it served any more; None as long as somebody does, and after `done` and `fail`."""
        if self._reason is None and not self._over and self._stream.over:
            self._reason = "gone" if self._link.closed else "cancelled"
        return self._reason

    @property
    def answered(self) -> bool:
        """Whole: its end was said."""
        return self._course.done

    @property
    def n_sent(self) -> int:
        """Tokens that have left, or would have, if the user had not cancelled before."""
        left, sent = self._stream.unsent, self._n_put
        for size, n_ids in reversed(self._recent):
            if left <= 0:
                break
            left -= size
            sent -= n_ids
        return sent

    async def placed(self, before: int) -> None:
        """It waits, and so many come first; said at once, at each change, and every 5 s. After a claim, and
        before the first piece: it waits again, once. Raises ValueError when it may not."""
        await self._send(orders.Placed(min(before, 65_535)))

    async def claim(self, context: int, max_out: int, commit: bytes = b"") -> prompts.Prompt:
        """It has a place: ask for the prompt. `context`, `max_out`: tokens; the answer may have no more than
        the smaller of `max_out`, the order's `max_tokens` and orders.MAX_OUT. `commit`: see Claimed."""
        await self._send(orders.Claimed(context, min(max_out, orders.MAX_OUT), commit))
        limits = self._limits
        try:
            async with asyncio.timeout(
                min(limits.begin + self.order.prompt_bytes / limits.rate, limits.upload)
            ):
                data = await self._read()
            prompt = prompts.decode_prompt(data)
            asked = (len(prompt.texts), len(prompt.steps))
            if asked != (self.order.texts, self.order.scores) or not _is_announced(data, prompt, self.order):
                raise ProtocolError("malformed", "another prompt than was announced")
            return prompt
        except TimeoutError:
            await self.fail("expired", field="prompt")
            raise self._end("stalled") from None
        except ProtocolError as error:
            self.breach = error
            raise self._end("bad") from None
        except (StreamCancelled, LinkClosed):
            raise self._lost() from None

    async def claim_again(self, context: int, max_out: int, commit: bytes = b"") -> None:
        """It has a place again; the prompt is here. As `claim`, with the same `commit`."""
        await self._send(orders.Claimed(context, min(max_out, orders.MAX_OUT), commit))

    async def progress(self, done: int, total: int) -> None:
        """So many tokens of the prompt were read."""
        self._check()
        try:
            await self._stream.progress(done, total)
        except (StreamCancelled, LinkClosed):
            raise self._lost() from None

    async def piece(
        self,
        text: str,
        ids: tuple[int, ...],
        logprobs: tuple[orders.Logprob, ...] = (),
        draw: bytes = b"",
    ) -> None:
        """More of the answer, of any length; waits while the user does not read. `draw`: with the first that
        says anything, when it is to be checked. Raises ValueError for more than it may have."""
        for piece in orders.pieces(text, ids, logprobs, draw):
            await self._write(piece)

    async def checkpoint(self, n: int, root: bytes) -> None:
        """This side commits to the first `n` steps, whose root is this; due at each orders.CHECKPOINT steps,
        at the latest before the next token. Raises ValueError when it is not due."""
        assert self._signer is not None
        await self._write(orders.checkpoint(self.order, n, root, self._signer))

    async def vector(self, vector: bytes, n_tokens: int) -> None:
        """That of the next text, which has so many tokens; as `piece`."""
        for part in vectors.parts(vector, n_tokens):
            await self._write(part)

    async def scoring(self, scoring: scores.Scoring) -> None:
        """How the scores that follow are computed."""
        await self._write(scoring)

    async def score(self, row: bytes, n_tokens: int) -> None:
        """That of the next step, see scores.encode_row; with the first, how many tokens the prompt and the
        answer have, with the others 0."""
        await self._write(vectors.Part(row, n_tokens))

    async def done(self, done: orders.Done) -> None:
        """The answer is whole. Raises ValueError for other counts than those of the pieces."""
        await self._write(done)
        self._link.mux.give_back(mine=False)
        await self._end_stream(self._stream.end(), self._limits.stall)

    async def fail(
        self, code: wire.ErrorCode, *, retry_after_ms: int = 0, limit: int = 0, field: str = ""
    ) -> None:
        """There is no (more) answer, and why. Never raises: nobody may be there to hear it."""
        if self.ended is None and not self._over:
            failure = wire.Failure(code, min(retry_after_ms, MAX_RETRY_MS), limit, field)
            with contextlib.suppress(SaleEnded):
                await self._end_stream(self._stream.fail(failure), self._limits.fail)

    def stall(self) -> None:
        """End it: its user reads too slowly. What is being said raises SaleEnded."""
        self._end("stalled")

    async def _end_stream(self, ending: Awaitable[None], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await ending
        except TimeoutError:
            raise self._end("stalled") from None
        except (StreamCancelled, LinkClosed):
            raise self._lost() from None
        self._over = True

    async def _send(self, frame: orders.Frame) -> None:
        data = self._encoded(frame)
        try:
            async with asyncio.timeout(self._limits.stall):
                await self._stream.send(data)
        except TimeoutError:
            raise self._end("stalled") from None
        except (StreamCancelled, LinkClosed):
            raise self._lost() from None

    async def _write(self, frame: orders.Frame) -> None:
        data = self._encoded(frame)
        if self._writer is None:
            self._writer = self._stream.ticked()
        try:
            if not self._link.mux.room(self._stream.id):  # seldom, and a timer costs as much as all the rest
                async with asyncio.timeout(self._limits.stall):
                    await self._stream.room()
                self._check()
            # There is room, so nothing happens before it is taken.
            n_ids = len(frame.ids) if isinstance(frame, orders.Piece) else 0
            self._recent.append((len(data), n_ids))
            self._n_put += n_ids
            await self._writer.write(data)
        except TimeoutError:
            raise self._end("stalled") from None
        except (StreamCancelled, LinkClosed):
            raise self._lost() from None

    def _encoded(self, frame: orders.Frame) -> bytes:
        self._check()
        data = orders.encode_frame(frame)
        try:
            self._course.take(frame)
        except ProtocolError as error:
            # The user would leave this provider for it.
            raise ValueError(f"not to be said now: {error.detail}") from None
        self.bytes_out += len(data)
        return data

    async def _read(self) -> bytes:
        data = bytearray()
        try:
            while True:
                async with asyncio.timeout(self._limits.idle):
                    data += await anext(self._stream)
                if len(data) > self.order.prompt_bytes:
                    raise ProtocolError("too_large", "a prompt longer than announced")
        except StopAsyncIteration:
            if len(data) < self.order.prompt_bytes:
                raise ProtocolError("truncated", "a prompt shorter than announced") from None
            return bytes(data)

    def _check(self) -> None:
        if self._over:
            raise SaleEnded("gone")
        if (reason := self.ended) is not None:
            raise SaleEnded(reason)

    def _lost(self) -> SaleEnded:
        return SaleEnded(self.ended or self._end("cancelled").reason)

    def _end(self, reason: Ending) -> SaleEnded:
        """This side wants no more of it."""
        self._reason = self._reason or reason
        if not self._over and reason != "bad":  # for which the link is closed, and says why
            self._stream.cancel()
        return SaleEnded(self._reason)


def _is_announced(data: bytes, prompt: prompts.Prompt, order: wire.Order) -> bool:
    """Whether a prompt is what an order that is to be checked has committed to, and salted only then."""
    if order.mode == "none":
        return not prompt.salt
    return bool(prompt.salt) and codec.digest("prompt", data) == order.prompt_hash
