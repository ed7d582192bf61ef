"""The record layer of a session: records sealed, padded and counted, under keys that move on.

A pure state machine: frames and the time in, records and frames out. What a call returns is sealed already,
to be sent in that order, before anything else is sealed. What records mean is for mux.py; how a session
begins is in hello.py.

A frame is an AEAD of: kind u8 | stream u32 | length u16 | body | zeros up to a bucket. It opens only as the
next one of its direction, so that a changed, lost, doubled or reordered frame ends the session for good.

Three things move the keys. Every `rekey_frames` frames a direction replaces its key by a one-way function of
it. After `ratchet_seconds` of use or `ratchet_frames` records a fresh X25519 secret is mixed into the root,
in three steps between which both sides may send whatever they like, because a carrier keeps the order:

    initiator                                       responder
    RATCHET (its public key)  ─────────────────────▶
                              ◀─────────────────────  ACK (its public key); sends with new keys from here
    SWITCH; sends and reads   ─────────────────────▶
    with new keys from here                           reads with new keys from here

Only the initiator begins, so there are never two ratchets at once, and both sides' fresh keys are in each. A
side that refuses to take part weakens a session that it can read anyway, and which ends by its age.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from infraxa.net.errors import REFUSALS, ProtocolError, Refusal
from infraxa.net.noise import KEY, TAG, CipherState, Handshake, KeyPair, RandBytes, hkdf, shared_secret
from infraxa.net.wire import MAX_BODY

BUCKETS: Final = (64, 256, 1024, 4096, 16_384, 60_000)
"""Bytes to which a record is padded, before sealing."""
FIRST_KIND: Final = 16
"""Kinds below are the session's own."""
PING: Final = 16
PONG: Final = 17
"""The kinds of keep-alive: they show that the other side lives, not that the session is used."""

RATCHET: Final = 0
ACK: Final = 1
SWITCH: Final = 2
CLOSE: Final = 3

_HEADER: Final = struct.Struct(">BIH")
_FRAME_SIZES: Final = frozenset(size + TAG for size in BUCKETS)
_REASONS: Final = {reason.encode(): reason for reason in REFUSALS}


class SessionLimits(Struct, frozen=True):
    """When keys move on and sessions end. Both sides of a session have the same."""

    rekey_frames: int = 1024
    ratchet_frames: int = 2**14
    """Records in both directions together."""
    ratchet_seconds: float = 120.0
    early_ratchets: int = 16
    """How often the other side may ratchet before it is due: its clock may have jumped."""
    new_streams_seconds: float = 3600.0
    last_stream_seconds: float = 900.0
    """After `new_streams_seconds`, for the streams that are still open."""
    idle_seconds: float = 600.0


class SessionRecord(NamedTuple):
    """What the mux sends and gets. `kind` FIRST_KIND to 255, `stream` u32, `body` at most MAX_BODY bytes."""

    kind: int
    stream: int
    body: bytes


class SessionClosed(Exception):
    """Nothing can be sent any more: one of the two sides has ended the session, or it is dead."""


class Session:
    """One side of one session. `now` is always monotonic seconds."""

    __slots__ = (
        "_born",
        "_closing",
        "_dead",
        "_early",
        "_limits",
        "_next_rx",
        "_pending",
        "_randbytes",
        "_ratcheted",
        "_root",
        "_rx",
        "_since",
        "_tx",
        "_used",
        "bytes_in",
        "bytes_out",
        "closed",
        "confirmed",
        "handshake_hash",
        "initiator",
        "peer_reason",
        "ratchets",
    )

    def __init__(
        self,
        handshake: Handshake,
        *,
        now: float,
        randbytes: RandBytes,
        limits: SessionLimits | None = None,
    ) -> None:
        """`handshake` is finished; it is split here."""
        keys = handshake.split()
        self.initiator = handshake.initiator
        self.handshake_hash = handshake.hash
        """64 bytes, the same on both sides and only in this session: what `auth` signs."""
        self.bytes_in = 0
        """Bytes of the frames that opened."""
        self.bytes_out = 0
        self.ratchets = 0
        """Ratchets that this side has finished."""
        self.confirmed = self.initiator
        """The other side has the keys. A first message may be a copy: until its sender's first frame has
        opened, a responder does no work for it."""
        self.closed = False
        """The other side has said its authenticated end. A carrier that ends before that was cut."""
        self.peer_reason: Refusal | None = None
        """Why the other side closed, when it said so."""
        self._tx: CipherState | None = keys.tx
        self._rx: CipherState | None = keys.rx
        self._next_rx: CipherState | None = None
        self._root = keys.root
        self._pending: KeyPair | None = None
        self._dead: Refusal | None = None
        self._closing = False
        self._early = 0
        self._since = 0
        self._born = self._used = self._ratcheted = now
        self._randbytes = randbytes
        self._limits = limits or SessionLimits()

    def send(self, kind: int, stream: int, body: bytes, now: float) -> list[bytes]:
        """The frames to send for one record: its own, then that of a ratchet if one is due. Raises
        SessionClosed; ValueError when the record breaks the limits of SessionRecord."""
        if not FIRST_KIND <= kind <= 255 or len(body) > MAX_BODY:
            raise ValueError(f"no such record: kind {kind}, {len(body)} bytes")
        if self._closing or self._tx is None:
            raise SessionClosed
        frame = self._seal(kind, stream, body)
        self._count(kind, now)
        return [frame, *self._ratchet_if_due(now)]

    def receive(self, frame: bytes, now: float) -> tuple[SessionRecord | None, list[bytes]]:
        """The record in the next frame, None when it was the session's own, and frames to send at once.
        Raises ProtocolError; the session is then dead, and forgets its keys."""
        if self._dead is not None:
            raise ProtocolError(self._dead, "the session is dead")
        try:
            record = self._open(frame)
            if record.kind < FIRST_KIND:
                return None, self._receive_own(record, now)
            self._count(record.kind, now)
            return record, self._ratchet_if_due(now)
        except ProtocolError as error:
            self._dead = error.reason
            self._forget()
            raise

    def tick(self, now: float) -> list[bytes]:
        """The frames that the passing of time asks for. To be called every few seconds."""
        return self._ratchet_if_due(now)

    def close(self, now: float, reason: Refusal | None = None) -> list[bytes]:
        """The frames of an authenticated end, none when it was said before. What is under way from the other
        side is still read, until `closed`."""
        if self._closing or self._tx is None:
            return []
        self._closing = True
        return [self._seal(CLOSE, 0, (reason or "").encode())]

    @property
    def used_at(self) -> float:
        """When something else than keep-alive was last sent or received."""
        return self._used

    def age_limit(self, now: float) -> Literal["open", "no_new_streams", "expired"]:
        """What the session's age allows; with `no_new_streams` it is closed when the last one has ended."""
        age = now - self._born - self._limits.new_streams_seconds
        if age >= self._limits.last_stream_seconds or now - self._used >= self._limits.idle_seconds:
            return "expired"
        return "no_new_streams" if age >= 0 else "open"

    def _seal(self, kind: int, stream: int, body: bytes) -> bytes:
        assert self._tx is not None
        record = _HEADER.pack(kind, stream, len(body)) + body
        frame = self._tx.seal(record.ljust(BUCKETS[bisect_left(BUCKETS, len(record))], b"\0"))
        if self._tx.counter % self._limits.rekey_frames == 0:
            self._tx.rekey()
        self.bytes_out += len(frame)
        return frame

    def _open(self, frame: bytes) -> SessionRecord:
        if len(frame) not in _FRAME_SIZES:
            raise ProtocolError("malformed", f"a frame of {len(frame)} bytes")
        if self.closed or self._rx is None:
            raise ProtocolError("malformed", "a frame after the end")
        padded = self._rx.open(frame)
        if self._rx.counter % self._limits.rekey_frames == 0:
            self._rx.rekey()
        self.bytes_in += len(frame)
        self.confirmed = True
        kind, stream, length = _HEADER.unpack_from(padded)
        end = _HEADER.size + length
        if end > len(padded) or length > MAX_BODY:
            raise ProtocolError("malformed", "a record longer than its frame")
        return SessionRecord(kind, stream, padded[_HEADER.size : end])

    def _receive_own(self, record: SessionRecord, now: float) -> list[bytes]:
        if record.kind == RATCHET and not self.initiator and self._next_rx is None:
            return self._answer_ratchet(record.body, now)
        if record.kind == ACK and self._pending is not None:
            return self._finish_ratchet(self._pending, record.body, now)
        if record.kind == SWITCH and self._next_rx is not None:
            self._rx, self._next_rx = self._next_rx, None
            return []
        if record.kind == CLOSE:
            self.peer_reason = _REASONS.get(record.body)
            frames = self.close(now)
            self.closed = True
            self._forget()
            return frames
        raise ProtocolError("malformed", f"kind {record.kind} is not expected now")

    def _ratchet_if_due(self, now: float) -> list[bytes]:
        if not self.initiator or self._pending is not None or self._closing or self._tx is None:
            return []
        if not self._ratchet_is_due(now):
            return []
        self._pending = KeyPair.of(self._randbytes(KEY))
        return [self._seal(RATCHET, 0, self._pending.public)]

    def _ratchet_is_due(self, now: float) -> bool:
        if self._since >= self._limits.ratchet_frames:
            return True
        return self._since > 0 and now - self._ratcheted >= self._limits.ratchet_seconds

    def _answer_ratchet(self, theirs: bytes, now: float) -> list[bytes]:
        # Every record that the initiator has counted was counted here before, so it is due here as well,
        # unless a clock jumped: each costs two multiplications, so they are limited.
        if not self._ratchet_is_due(now):
            self._early += 1
            if self._early > self._limits.early_ratchets:
                raise ProtocolError("rate", "ratchets that are not due")
        if self._closing:  # nothing may follow the end that was sent
            return []
        mine = KeyPair.of(self._randbytes(KEY))
        initiators, responders = self._mix(mine, theirs, theirs + mine.public, now)
        frames = [self._seal(ACK, 0, mine.public)]
        self._tx, self._next_rx = responders, initiators
        return frames

    def _finish_ratchet(self, mine: KeyPair, theirs: bytes, now: float) -> list[bytes]:
        initiators, responders = self._mix(mine, theirs, mine.public + theirs, now)
        frames = [] if self._closing else [self._seal(SWITCH, 0, b"")]
        self._tx, self._rx = initiators, responders
        self._pending = None
        return frames

    def _mix(self, mine: KeyPair, theirs: bytes, both: bytes, now: float) -> tuple[CipherState, CipherState]:
        """New keys, the initiator's first."""
        if len(theirs) != KEY:
            raise ProtocolError("malformed", "a ratchet without a key")
        self._root, *keys = hkdf(self._root, shared_secret(mine, theirs) + both, 3)
        self._since = 0
        self._ratcheted = now
        self.ratchets += 1
        return CipherState(keys[0][:KEY]), CipherState(keys[1][:KEY])

    def _count(self, kind: int, now: float) -> None:
        self._since += 1
        if kind not in (PING, PONG):
            self._used = now

    def _forget(self) -> None:
        # Python cannot wipe memory: letting go is all it can do.
        self._tx = self._rx = self._next_rx = self._pending = None
        self._root = b""
