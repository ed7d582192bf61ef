"""What is said on the stream of an order, and the rules of it. Pure: bytes in, frames out.

    user        Order (opens the stream)                   the prompt, in chunks, its end
    provider                              Placed* Claimed            [Placed+ Claimed]   Piece* Done, the end
                                                                                 for texts: Part* Done
                                                            to be checked: (Checkpoint | Piece)* Done
                                                            for scores: Scoring Part* Done

The prompt leaves its user only when a place is its own. A provider that has lost its engine before the first
piece may go back to a place in line, once: it has the prompt. Progress of reading it is the stream's own,
failures end the stream at any time. A frame is a big-endian uint16 length and so many bytes of msgpack: one
tagged struct. Frames are joined and cut anywhere by the ticks of an answer, so chunks mean nothing.

The prompt is in prompts.py, vectors are in vectors.py, scores in scores.py, the waits in patience.py, the
two sides on a link in sale.py and purchase.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from infraxa.net import codec
from infraxa.net.codec import Id, Signature, Signed
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.scores import Scores, Scoring
from infraxa.net.vectors import Part, Vectors
from infraxa.net.wire import MAX_TOP, Order

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
MAX_TOKEN: Final = 256
"""Bytes of a token that is named with its logprob; of longer ones the beginning."""
MAX_NAMED: Final = 6 * 1024
"""Bytes that the logprobs of one piece are in, about."""

CHECKPOINT: Final = 64
"""Steps of an answer between two checkpoints. A step is one sampled token, those that end the turn and
control tokens too, so that there are at least as many steps as tokens in the pieces."""
HASH: Final = 32
"""Bytes of a hash, and of a half of a draw."""

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Nats = Annotated[int, Meta(ge=-(2**31), le=0)]
"""A logprob in millionths, so that it is a number on every machine."""
_Token = Annotated[bytes, Meta(max_length=MAX_TOKEN)]


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
    commit: Annotated[bytes, Meta(max_length=32)] = b""
    """digest("draw", the driver's half of the draw), of an answer that is to be checked: it is chosen before
    the user's half is known, and the same in a second claim."""


class Logprob(Struct, array_like=True, frozen=True):
    """How likely a token of the answer was, before sampling changed anything."""

    token: _Token
    """The bytes that it stands for."""
    logprob: Nats
    top: Annotated[tuple[tuple[Count, _Token, Nats], ...], Meta(max_length=MAX_TOP)] = ()
    """The likeliest at this place, no more of them than the order asks for: id, bytes, logprob."""

    def __repr__(self) -> str:
        """Without what the answer is made of."""
        return f"Logprob({len(self.top)} tokens)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("tokens", len(self.top))]


class Piece(Struct, array_like=True, frozen=True, tag=32):
    """What came since the last one: tokens, and the whole characters that they decided. Never both empty.

    Only tokens that stand for bytes are here, and so only these are counted: no control tokens, none that end
    the turn. Where tools were given, the control tokens that mark a call of one stand for their names.
    """

    ids: Annotated[tuple[Count, ...], Meta(max_length=MAX_IDS)]
    text: Annotated[str, Meta(max_length=MAX_TEXT)]
    logprobs: Annotated[tuple[Logprob, ...], Meta(max_length=MAX_IDS)] = ()
    """One for each id when the order asks for them, else none."""
    draw: Annotated[bytes, Meta(max_length=32)] = b""
    """Half of the draw, with the first piece of an answer that is to be checked, and no other."""

    def __repr__(self) -> str:
        return f"Piece({len(self.ids)} tokens)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("tokens", len(self.ids))]


class Checkpoint(Struct, array_like=True, frozen=True, tag=35):
    """What the driver has committed to so far, of an answer that is to be checked: one for each CHECKPOINT
    steps, at the latest before the next token. It cannot change what it has said then."""

    n: Count
    """Steps."""
    root: Id
    """Hash of how many they are and of the root of their tree."""
    signature: Signature
    """The node key's, tag `checkpoint`, over [id of the order, n, root]."""


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
    steps: Count = 0
    """Of an answer that is to be checked."""


def max_steps(claimed: Claimed) -> int:
    """Tokens that can be sampled of an answer to that claim; the last one need not fit."""
    return min(claimed.context + 1, MAX_OUT)


Frame = Placed | Claimed | Piece | Checkpoint | Done | Part | Scoring

_encoder = msgspec.msgpack.Encoder()


def check_order(order: Order) -> None:
    """Raises ProtocolError for an order that is to be checked and could not be, or that holds what it must
    not."""
    size = HASH if order.mode != "none" else 0
    if (len(order.prompt_hash), len(order.audit)) != (size, size):
        raise ProtocolError("malformed", "the hashes of an order")
    if order.mode != "none" and (
        order.texts or order.repeat_penalty != 1_000_000 or order.presence_penalty or order.frequency_penalty
    ):
        raise ProtocolError("malformed", "an order that cannot be checked")
    if order.scores and (order.mode != "none" or order.texts or order.logprobs is not None):
        raise ProtocolError("malformed", "an order for scores and something else")


def checkpoint(order: Order, n: int, root: bytes, signer: Signer) -> Checkpoint:
    """Signed by the driver."""
    return Checkpoint(n, root, signer.sign("checkpoint", _checkpoint_body(order, n, root)).signature)


def check_checkpoint(said: Checkpoint, order: Order, driver: bytes) -> None:
    """Raises ProtocolError `bad_signature` when `driver` did not sign it for this order."""
    signed = Signed(_checkpoint_body(order, said.n, said.root), driver, said.signature)
    if not codec.verify("checkpoint", signed):
        raise ProtocolError("bad_signature", "checkpoint")


def _checkpoint_body(order: Order, n: int, root: bytes) -> bytes:
    return _encoder.encode((order.id, n, root))


class Course:
    """The order of the frames of one answer and what they may hold; both sides keep to it."""

    __slots__ = (
        "_begun",
        "_checkpoints",
        "_claims",
        "_drawn",
        "_limit",
        "_logprobs",
        "_placed",
        "_text_bytes",
        "_verified",
        "claimed",
        "done",
        "in_line",
        "n_out",
        "scores",
        "vectors",
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
        self._logprobs = order.logprobs
        self.scores = Scores(order.scores) if order.scores else None
        self.vectors = self.scores or (Vectors(order.texts) if order.texts else None)
        """Or scores, where they were asked for instead of an answer."""
        self._verified = order.mode != "none"
        self._checkpoints = 0
        self._drawn = False
        """The driver's half of the draw came."""

    def take(self, frame: Frame) -> None:
        """The next frame. Raises ProtocolError, after which nothing may follow."""
        if self.done:
            raise ProtocolError("not_asked", "a frame after the answer")
        if isinstance(frame, Piece):
            self._take_piece(frame)
        elif isinstance(frame, Done):
            self._take_done(frame)
        elif isinstance(frame, Checkpoint):
            self._take_checkpoint(frame)
        elif isinstance(frame, Placed):
            self._take_placed()
        elif isinstance(frame, Part):
            self._take_part(frame)
        elif isinstance(frame, Scoring):
            self._take_scoring(frame)
        else:
            self._take_claimed(frame)

    def _take_claimed(self, claimed: Claimed) -> None:
        if not self.in_line:
            raise ProtocolError("not_asked", "a second claim")
        if len(claimed.commit) != (HASH if self._verified else 0):
            raise ProtocolError("malformed", "a commitment to a draw")
        if self.claimed is not None and claimed.commit != self.claimed.commit:
            raise ProtocolError("equivocation", "a commitment to another draw")
        self._claims += 1
        self.claimed, self.in_line = claimed, False
        self._limit = min(self._limit, claimed.max_out)

    def _take_placed(self) -> None:
        if not self.in_line and (self._begun or self._claims == MAX_CLAIMS):
            raise ProtocolError("not_asked", "a place in line after the last claim")
        self.in_line = True
        self._placed += 1
        if self._placed > MAX_PLACED:
            raise ProtocolError("rate", "places in line")

    def _take_piece(self, piece: Piece) -> None:
        ids, text = piece.ids, piece.text
        if self.in_line or self.vectors is not None:
            raise ProtocolError("not_asked", "a piece before the claim, or where vectors were asked for")
        if not ids and not text:
            raise ProtocolError("malformed", "an empty piece")
        if ids and self._verified and self.n_out >= CHECKPOINT * (self._checkpoints + 1):
            raise ProtocolError("not_asked", "a token before the checkpoint")
        if piece.draw or (self._verified and not self._drawn):
            self._check_draw(piece.draw)
        self._begun = True
        self.n_out += len(ids)
        if self.n_out > self._limit:
            raise ProtocolError("too_large", "more tokens than were asked for")
        self._text_bytes += len(text) if text.isascii() else len(text.encode())
        if self._text_bytes > min(MAX_ANSWER, SPARE_BYTES + TOKEN_BYTES * self.n_out):
            raise ProtocolError("too_large", "more text than its tokens can be")
        if piece.logprobs or self._logprobs is not None:
            self._check_logprobs(piece)

    def _check_draw(self, draw: bytes) -> None:
        if self._drawn or not self._verified:
            raise ProtocolError("not_asked", "a draw")
        assert self.claimed is not None
        if len(draw) != HASH or codec.digest("draw", draw) != self.claimed.commit:
            raise ProtocolError("equivocation", "another draw than was committed to, or none")
        self._drawn = True

    def _take_checkpoint(self, said: Checkpoint) -> None:
        if self.in_line or self.claimed is None or not self._verified:
            raise ProtocolError("not_asked", "a checkpoint before the claim, or of what is not checked")
        if said.n != CHECKPOINT * (self._checkpoints + 1):
            raise ProtocolError("malformed", "the steps of a checkpoint")
        if said.n > max_steps(self.claimed):
            raise ProtocolError("too_large", "more steps than there can be")
        self._begun = True
        self._checkpoints += 1

    def _check_logprobs(self, piece: Piece) -> None:
        if self._logprobs is None:
            raise ProtocolError("not_asked", "logprobs")
        if len(piece.logprobs) != len(piece.ids):
            raise ProtocolError("malformed", "another number of logprobs than of tokens")
        if any(len(one.top) > self._logprobs for one in piece.logprobs):
            raise ProtocolError("too_large", "more likely tokens than were asked for")

    def _take_scoring(self, scoring: Scoring) -> None:
        if self.in_line or self.scores is None:
            raise ProtocolError("not_asked", "scores before the claim, or where something else was asked for")
        self._begun = True
        self.scores.begin(scoring)

    def _take_part(self, part: Part) -> None:
        if self.in_line or self.claimed is None or self.vectors is None:
            raise ProtocolError("not_asked", "a vector before the claim, or where an answer was asked for")
        self._begun = True
        self.vectors.take(part, self.claimed.context)

    def _take_done(self, done: Done) -> None:
        if self.in_line or self.claimed is None:
            raise ProtocolError("not_asked", "an end before the claim")
        if done.n_out != self.n_out:
            raise ProtocolError("malformed", "another number of tokens than came")
        if self.vectors is None:
            right = done.n_prompt <= self.claimed.context
        else:
            right = self.vectors.whole and done.n_prompt == self.vectors.n_tokens
        if done.n_cached > done.n_prompt or not right:
            raise ProtocolError("malformed", "the tokens of the prompt, or not all vectors")
        if self._verified:
            if not self.n_out <= done.steps <= max_steps(self.claimed):
                raise ProtocolError("malformed", "another number of steps than there can be")
            if done.steps // CHECKPOINT != self._checkpoints:
                raise ProtocolError("malformed", "another number of checkpoints than of steps")
        elif done.steps:
            raise ProtocolError("not_asked", "steps")
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


def pieces(
    text: str, ids: tuple[int, ...], logprobs: tuple[Logprob, ...] = (), draw: bytes = b""
) -> Iterator[Piece]:
    """These as pieces that are short enough; none when there is nothing to say. `logprobs`: none, or one for
    each id. `draw`: with the first."""
    if len(text) <= MAX_TEXT and len(ids) <= MAX_IDS and not logprobs:
        if text or ids:
            yield Piece(ids, text, (), draw)
        return
    texts = (text[at : at + MAX_TEXT] for at in range(0, len(text), MAX_TEXT))
    for part, group in zip_longest(texts, _groups(len(ids), logprobs)):
        start, stop = group or (0, 0)
        yield Piece(ids[start:stop], part or "", logprobs[start:stop], draw)
        draw = b""


def _groups(n_ids: int, logprobs: tuple[Logprob, ...]) -> Iterator[tuple[int, int]]:
    """Where the ids are cut."""
    start = size = 0
    for at in range(n_ids):
        more = _size(logprobs[at]) if logprobs else 0
        if at > start and (at - start == MAX_IDS or size + more > MAX_NAMED):
            yield start, at
            start, size = at, 0
        size += more
    if start < n_ids:
        yield start, n_ids


def _size(logprob: Logprob) -> int:
    """Bytes that it takes at most."""
    return 16 + len(logprob.token) + sum(16 + len(token) for _, token, _ in logprob.top)


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
