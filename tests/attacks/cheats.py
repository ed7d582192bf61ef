"""What a provider that cheats says in place of an honest one: answers, openings, receipts."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from infraxa.app.transcripts import Written
from infraxa.engine import gumbel, transcript
from infraxa.engine.gguf_vocabulary import read_vocabulary
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.text import TextAssembler
from infraxa.engine.transcript import Leaf
from infraxa.engine.types import Delta, Finished, Request
from infraxa.net import audits, codec, deals, wire
from infraxa.net.customers import Customer
from tests.attacks.den import Cheat, Den
from tests.attacks.target import replaced


class Spoken(NamedTuple):
    """An answer as a driver gives it."""

    text: str
    ids: tuple[int, ...]
    leaves: tuple[bytes, ...]
    ctx0: bytes
    finished: Finished

    @property
    def tokens(self) -> list[int]:
        """All that were sampled."""
        return [transcript.decode_leaf(leaf).token for leaf in self.leaves]

    def of(self, ids: Sequence[int]) -> Spoken:
        """These tokens, with their text."""
        known, text = read_vocabulary(GUIDE_PATH), TextAssembler()
        said = text.feed(b"".join(map(known.piece, ids))) + text.finish()
        return self._replace(ids=tuple(ids), text=said)


Speak = Callable[[Request], Awaitable[Spoken]]


class Said:
    """In place of an engine's generation."""

    def __init__(self, speak: Speak, request: Request) -> None:
        self.ended: Finished | None = None
        self._speak = speak
        self._request = request
        self._items: list[Delta | Finished] | None = None

    def __aiter__(self) -> Said:
        return self

    async def __anext__(self) -> Delta | Finished:
        if self._items is None:
            one = await self._speak(self._request)
            delta = Delta(one.text, one.ids, leaves=one.leaves, ctx0=one.ctx0)
            self._items, self.ended = [delta, one.finished], one.finished
        if not self._items:
            raise StopAsyncIteration
        return self._items.pop(0)

    def when_ended(self, call: Callable[[], None]) -> None: ...

    def cancel(self) -> None: ...


def speaking(den: Den, speak: Speak) -> Cheat:
    """The provider says this."""
    return replaced((den.real.engine, "generate", lambda request, retry=True: Said(speak, request)))


async def spoken(engine: Engine, request: Request) -> Spoken:
    """What the model says."""
    texts, ids, leaves, ctx0 = list[str](), list[int](), list[bytes](), b""
    async for item in Engine.generate(engine, request, retry=False):
        if isinstance(item, Delta):
            texts.append(item.text)
            ids += item.token_ids
            leaves += item.leaves
            ctx0 = ctx0 or item.ctx0
        elif isinstance(item, Finished):
            assert item.error is None, item.error
            return Spoken("".join(texts), tuple(ids), tuple(leaves), ctx0, item)
    raise AssertionError("it did not end")


Rows = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
"""Of each step: candidates and their logits."""


async def scored(engine: Engine, request: Request, tokens: Sequence[int]) -> tuple[bytes, Rows]:
    """What a model would have committed to for these tokens: ctx0, and the rest of each leaf."""
    found = await engine.score(request, tokens, range(len(tokens)))
    assert request.verified is not None
    prompt = struct.unpack(f"<{found.n_prompt}I", found.prompt_ids)
    rows = [(_numbers(row.ids, "I"), _numbers(row.q, "i")) for row in found.rows]
    return transcript.ctx0(request.verified.salt, prompt), rows


def _numbers(data: bytes, kind: str) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}{kind}", data)


def committed(request: Request, one: Spoken, ctx0: bytes, tokens: Sequence[int], rows: Rows) -> Spoken:
    """The same answer, with leaves that stand on each other and say this."""
    verified, ctx = request.verified, ctx0
    assert verified is not None
    leaves = []
    for step, (token, (ids, q)) in enumerate(zip(tokens, rows, strict=True)):
        flags = 0
        if step == len(tokens) - 1:
            flags = transcript.LENGTH if one.finished.reason == "length" else transcript.EOS
        tag = transcript.leaf_tag(verified.salt, step)
        leaf = Leaf(verified.order, step, ctx, token, flags, ids, q, tag)
        leaves.append(transcript.encode_leaf(leaf))
        ctx = transcript.ctx_next(ctx, token)
    return one._replace(leaves=tuple(leaves), ctx0=ctx0)


def chosen(request: Request, rows: Rows) -> list[int]:
    """The tokens that the draw takes of these candidates."""
    verified = request.verified
    assert verified is not None
    draw = gumbel.draw_of(*verified.ppm)
    return [gumbel.choose(ids, q, draw, verified.seed, step) for step, (ids, q) in enumerate(rows)]


def rewriting(den: Den, change: Callable[[Request, Spoken], Spoken]) -> Cheat:
    """What the right model says, changed."""

    async def speak(request: Request) -> Spoken:
        return change(request, await spoken(den.real.engine, request))

    return speaking(den, speak)


def opening(den: Den, change: Callable[[audits.Opening, wire.AuditPlease], audits.Opening]) -> Cheat:
    """The provider opens something else."""

    async def audit(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        data = await den.real.shop.provider.till.transcripts.audit(customer, request)
        assert isinstance(data, bytes)
        return codec.encode(change(audits.decode(data), request))

    return replaced((den.real.shop.customers, "auditor", audit))


def ending(change: Callable[[deals.Transcript], deals.Transcript]) -> Cheat:
    """Its receipt says something else of the transcript."""
    honest = Written.end

    def end(self: Written, **given: Any) -> bytes | None:
        said = honest(self, **given)
        return None if said is None else codec.encode(change(codec.decode(said, deals.Transcript)))

    return replaced((Written, "end", end))
