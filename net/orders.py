"""What is said on the stream of an order, and the rules of it. Pure: bytes in, frames out.

    user        Order (opens the stream)                   the prompt, in chunks, its end
    provider                              Placed* Claimed            [Placed+ Claimed]   Piece* Done, the end

The prompt leaves its user only when a place is its own. A provider that has lost its engine before the first
piece may go back to a place in line, once: it has the prompt. Progress of reading it is the stream's own,
failures end the stream at any time. A frame is a big-endian uint16 length and so many bytes of msgpack: one
tagged struct. Frames are joined and cut anywhere by the ticks of an answer, so chunks mean nothing.

The waits are in patience.py, the two sides on a link in sale.py and purchase.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from infraxa.net import codec
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.wire import MAX_PROMPT, Order

MAX_FRAME: Final = 16 * 1024
"""Bytes of one encoded frame."""
MAX_TEXT: Final = 2048
"""Characters in one piece."""
MAX_IDS: Final = 1024
"""Tokens in one piece."""
MAX_PLACED: Final = 4096
"""`Placed` of one order."""
MAX_CLAIMS: Final = 2
"""`Claimed` of one order: it goes back to a place in line once."""
MAX_OUT: Final = 2**20
"""Tokens of one answer."""
MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of text of one answer."""
TOKEN_BYTES: Final = 256
"""Bytes of text for each token that came, on average: twice the longest token of known vocabularies."""
SPARE_BYTES: Final = MAX_FRAME
"""Bytes of text that may come beyond that, of few tokens that are longer still."""
MAX_TURNS: Final = 4096
MAX_STOPS: Final = 16
MAX_STOP: Final = 256
"""Characters of one stop string."""

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Role = Literal["system", "user", "assistant", "tool"]


class Turn(Struct, array_like=True, frozen=True):
    """One turn of a conversation."""

    role: Role
    text: str

    def __repr__(self) -> str:
        """Without the text, as all of these: it must not get into a log by a value that is shown."""
        return f"Turn({self.role})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("role", self.role)]


class Prompt(Struct, array_like=True, frozen=True):
    """What is to be answered. When the last turn is an assistant's, its text is continued."""

    turns: Annotated[tuple[Turn, ...], Meta(min_length=1, max_length=MAX_TURNS)]
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_STOP)], ...], Meta(max_length=MAX_STOPS)
    ] = ()
    """End before any of these strings; they are not part of the answer."""

    def __repr__(self) -> str:
        return f"Prompt({len(self.turns)} turns)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("turns", len(self.turns))]


class Placed(Struct, array_like=True, frozen=True, tag=30):
    """The order waits for a place; said when it begins to, at each change, and every 5 s. After a claim: what
    was done is lost, and begins anew when the next place is its own."""

    before: Annotated[int, Meta(ge=0, le=65_535)]
    """Orders that come first."""


class Claimed(Struct, array_like=True, frozen=True, tag=31):
    """A place is its own: the prompt is asked for, the first time."""

    context: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Tokens of the prompt and the answer together at most."""
    max_out: Annotated[int, Meta(ge=1, le=MAX_OUT)]
    """Tokens of the answer at most."""


class Piece(Struct, array_like=True, frozen=True, tag=32):
    """What came since the last one: tokens, and the whole characters that they decided. Never both empty.

    Only tokens that stand for bytes are here, and so only these are counted: no control tokens, none that end
    the turn.
    """

    ids: Annotated[tuple[Count, ...], Meta(max_length=MAX_IDS)]
    text: Annotated[str, Meta(max_length=MAX_TEXT)]

    def __repr__(self) -> str:
        return f"Piece({len(self.ids)} tokens)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("tokens", len(self.ids))]


class Done(Struct, array_like=True, frozen=True, tag=33):
    """The answer is whole. Times in milliseconds, measured by the provider."""

    finish: Literal["stop", "length"]
    n_prompt: Count
    """Tokens."""
    n_cached: Count
    """Of them, those that were still in memory."""
    n_out: Count
    """Tokens of the answer: as many as ids came."""
    queued_ms: Count = 0
    first_token_ms: Count = 0
    """From the claim to the first token."""
    decode_ms: Count = 0
    """From the first token to the last."""


Frame = Placed | Claimed | Piece | Done

_encoder = msgspec.msgpack.Encoder()


class Course:
    """The order of the frames of one answer and what they may hold; both sides keep to it."""

    __slots__ = (
        "_begun",
        "_claims",
        "_limit",
        "_placed",
        "_text_bytes",
        "claimed",
        "done",
        "in_line",
        "n_out",
    )

    def __init__(self, order: Order) -> None:
        self.claimed: Claimed | None = None
        """The last."""
        self.in_line = True
        """It waits for a place, for the first time or again."""
        self.done = False
        """The answer was whole; nothing follows."""
        self.n_out = 0
        """Tokens that came."""
        self._limit = order.max_tokens or MAX_OUT
        self._placed = 0
        self._claims = 0
        self._begun = False
        """A piece came."""
        self._text_bytes = 0

    def take(self, frame: Frame) -> None:
        """The next frame. Raises ProtocolError, after which nothing may follow."""
        if self.done:
            raise ProtocolError("not_asked", "a frame after the answer")
        if isinstance(frame, Piece):
            self._take_piece(frame)
        elif isinstance(frame, Done):
            self._take_done(frame)
        elif isinstance(frame, Placed):
            self._take_placed()
        elif not self.in_line:
            raise ProtocolError("not_asked", "a second claim")
        else:
            self._claims += 1
            self.claimed, self.in_line = frame, False
            self._limit = min(self._limit, frame.max_out)

    def _take_placed(self) -> None:
        if not self.in_line and (self._begun or self._claims == MAX_CLAIMS):
            raise ProtocolError("not_asked", "a place in line after the last claim")
        self.in_line = True
        self._placed += 1
        if self._placed > MAX_PLACED:
            raise ProtocolError("rate", "places in line")

    def _take_piece(self, piece: Piece) -> None:
        ids, text = piece.ids, piece.text
        if self.in_line:
            raise ProtocolError("not_asked", "a piece before the claim")
        if not ids and not text:
            raise ProtocolError("malformed", "an empty piece")
        self._begun = True
        self.n_out += len(ids)
        if self.n_out > self._limit:
            raise ProtocolError("too_large", "more tokens than were asked for")
        self._text_bytes += len(text) if text.isascii() else len(text.encode())
        if self._text_bytes > min(MAX_ANSWER, SPARE_BYTES + TOKEN_BYTES * self.n_out):
            raise ProtocolError("too_large", "more text than its tokens can be")

    def _take_done(self, done: Done) -> None:
        if self.in_line or self.claimed is None:
            raise ProtocolError("not_asked", "an end before the claim")
        if done.n_out != self.n_out:
            raise ProtocolError("malformed", "another number of tokens than came")
        if done.n_cached > done.n_prompt or done.n_prompt > self.claimed.context:
            raise ProtocolError("malformed", "the tokens of the prompt")
        self.done = True


def encode_frame(frame: Frame) -> bytes:
    """The frame and its length. Raises ValueError when it is too long, or not Unicode."""
    try:
        body = _encoder.encode(frame)
    except UnicodeEncodeError:
        raise ValueError("a text that is not Unicode") from None
    if len(body) > MAX_FRAME:
        raise ValueError(f"a frame of {len(body)} bytes")
    return len(body).to_bytes(2, "big") + body


def pieces(text: str, ids: tuple[int, ...]) -> Iterator[Piece]:
    """`text` and `ids` as pieces that are short enough; none when there is nothing to say."""
    if len(text) <= MAX_TEXT and len(ids) <= MAX_IDS:
        if text or ids:
            yield Piece(ids, text)
        return
    texts = (text[at : at + MAX_TEXT] for at in range(0, len(text), MAX_TEXT))
    groups = (ids[at : at + MAX_IDS] for at in range(0, len(ids), MAX_IDS))
    for part, group in zip_longest(texts, groups):
        yield Piece(group or (), part or "")


class FrameReader:
    """The user's side of an answer: chunks in, frames out, as long as they keep to the course."""

    def __init__(self, order: Order) -> None:
        self.course = Course(order)
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that are whole now. Raises ProtocolError, after which nothing may be fed."""
        data = self._rest + chunk if self._rest else chunk
        view = memoryview(data)
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= 2:
            stop = at + 2 + (view[at] << 8 | view[at + 1])
            if stop - at - 2 > MAX_FRAME:
                raise ProtocolError("too_large", "the length of a frame")
            if stop > end:
                break
            frame: Frame = codec.decode(view[at + 2 : stop], Frame)
            self.course.take(frame)
            frames.append(frame)
            at = stop
        self._rest = data[at:]
        return frames

    def end(self) -> None:
        """The stream has ended in good order. Raises ProtocolError when the answer has not."""
        if not self.course.done:
            raise ProtocolError("truncated", "the end of a stream before that of its answer")
        if self._rest:
            raise ProtocolError("not_asked", "something after the answer")


def encode_prompt(prompt: Prompt) -> bytes:
    """Raises NetError `bad_request`, `too_large`: it is refused here rather than by the provider."""
    try:
        data = _encoder.encode(prompt)
    except UnicodeEncodeError:
        raise NetError(
            "bad_request",
            "The conversation holds characters that are not Unicode, which cannot be sent.",
            "Delete them, or start a new chat.",
        ) from None
    stops = [len(stop) for stop in prompt.stop]
    if len(stops) > MAX_STOPS or any(not 0 < size <= MAX_STOP for size in stops):
        raise NetError(
            "bad_request",
            f"At most {MAX_STOPS} stop strings of 1 to {MAX_STOP} characters can be sent.",
            "Use fewer, or shorter ones.",
        )
    if not prompt.turns:
        raise NetError("bad_request", "There is nothing to send.", "Write something first.")
    if len(data) > MAX_PROMPT or len(prompt.turns) > MAX_TURNS:
        raise NetError(
            "too_large",
            f"The conversation is too long to be sent: {len(data) / 2**20:.1f} MiB in {len(prompt.turns)} "
            f"turns, where at most {MAX_PROMPT >> 20} MiB in {MAX_TURNS} can be.",
            "Start a new chat.",
        )
    return data


def decode_prompt(data: bytes) -> Prompt:
    """Raises ProtocolError, which holds nothing of it."""
    prompt: Prompt = codec.decode(data, Prompt, MAX_PROMPT)
    return prompt
