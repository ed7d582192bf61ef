"""How a session begins: the frames, and the side that dials. The side that answers is in door.py. Pure.

    hello    "ix" 1 major | prekey id 8 | nonce 8 | mac 16 | Noise message 1, or 32 random bytes and padding
    welcome  "ix" 2 major | Noise message 2
    reject   "ix" 3 major | Reject

The first four bytes mean the same in every major version. A hello is at least HELLO_SIZE bytes, so that no
answer is much larger than what asked for it. The mac is keyed by the network: who does not know it learns
nothing, not even a card. The prekey id says for which X25519 key of the node the hello is made; all zero is a
card request, answered with the current card, for dialers who know an address but no prekey.

The handshake is Noise IK, in a private network IKpsk2. Its prologue binds the version, the network, the node
and the prekey. A reject is not authenticated: it is a hint for one more try, and nothing in it is believed
but a card that verifies.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

from infraxa.net.codec import decode, encode
from infraxa.net.errors import ProtocolError
from infraxa.net.guard import CHALLENGE, MAX_BITS, NONCE, Puzzle
from infraxa.net.noise import IK, IKPSK2, KEY, TAG, Handshake, KeyPair, RandBytes
from infraxa.net.records import MAJOR, MAX_CARD, Millis
from infraxa.net.session import Session
from infraxa.net.wire import MAX_HELLO, MAX_REJECT

HELLO_SIZE: Final = 1200
"""Bytes of a hello as it is made here, and the least that is taken."""
PREKEY_MS: Final = 24 * 3600 * 1000
"""For so long a prekey is the current one."""
PREKEY_KEPT_MS: Final = 10 * 60 * 1000
"""For so long after that, its private half is kept for those who have an older card."""
CLOCK_MS: Final = 120_000
"""How far the clocks of two nodes may be apart."""
NO_PREKEY: Final = bytes(8)
"""Where the id of a prekey would stand, in a card request."""

_HELLO: Final = b"ix\x01"
_WELCOME: Final = b"ix\x02"
_REJECT: Final = b"ix\x03"
_VERSION: Final = bytes((MAJOR,))
_VERSION_AT: Final = 3
_PREKEY_AT: Final = 4
_NONCE_AT: Final = _PREKEY_AT + len(NO_PREKEY)
_MAC_AT: Final = _NONCE_AT + NONCE
_MAC: Final = 16
_MESSAGE_AT: Final = _MAC_AT + _MAC
_HELLO_TIME: Final = HELLO_SIZE - _MESSAGE_AT - (KEY + KEY + TAG + TAG)
"""Bytes of message 1's payload: the rest are the ephemeral key, the sealed static key and a tag."""
_WELCOME_TIME: Final = 64

Rejection = Literal["prekey", "clock", "proof_of_work", "full", "rate", "version"]
"""A dialer takes no other: one more is another major version."""


class Reject(Struct, array_like=True, frozen=True):
    """Why a hello is refused, in clear: a hint for the dialer."""

    reason: Rejection
    now_ms: Millis
    """The door's own time."""
    challenge: Annotated[bytes, Meta(max_length=CHALLENGE)] = b""
    difficulty: Annotated[int, Meta(ge=0, le=MAX_BITS)] = 0
    """Zero bits, with `proof_of_work`."""
    card: Annotated[bytes, Meta(max_length=MAX_CARD)] = b""
    """With `prekey`: the Record of the current card, encoded."""


class Moment(Struct, array_like=True, frozen=True):
    """What the two handshake messages carry, padded."""

    now_ms: Millis


class Hello(NamedTuple):
    """A hello of this version and network."""

    prekey: bytes
    nonce: bytes
    message: bytes

    @property
    def ephemeral(self) -> bytes:
        """What makes this hello different from all others."""
        return self.message[:KEY]


def read_hello(frame: bytes, network: bytes) -> Hello:
    """Cheap, no matter what it is. Raises ProtocolError `malformed`, `too_large`, `version`, `mac`."""
    if len(frame) > MAX_HELLO:
        raise ProtocolError("too_large", "a hello")
    if len(frame) <= _VERSION_AT or not frame.startswith(_HELLO):
        raise ProtocolError("malformed", "no hello")
    if frame[_VERSION_AT:_PREKEY_AT] != _VERSION:
        raise ProtocolError("version")
    if len(frame) < HELLO_SIZE:
        raise ProtocolError("malformed", "a short hello")
    if not hmac.compare_digest(_mac(network, frame), frame[_MAC_AT:_MESSAGE_AT]):
        raise ProtocolError("mac")
    return Hello(frame[_PREKEY_AT:_NONCE_AT], frame[_NONCE_AT:_MAC_AT], frame[_MESSAGE_AT:])


def reject(
    reason: Rejection, now_ms: int, *, challenge: bytes = b"", difficulty: int = 0, card: bytes = b""
) -> bytes:
    """The frame that turns a dialer away; for a reason other than its hello, also before that is read."""
    return _REJECT + _VERSION + encode(Reject(reason, now_ms, challenge, difficulty, card))


def new_handshake(
    *, initiator: bool, network: bytes, node: bytes, kx: bytes, static: KeyPair, psk: bytes | None
) -> Handshake:
    """A handshake with `node`, whose prekey is `kx`. `static` is a throw-away key, or that prekey's pair."""
    return Handshake(
        IK if psk is None else IKPSK2,
        initiator=initiator,
        prologue=f"infraxa/{MAJOR}\0".encode() + network + node + kx,
        static=static,
        remote_static=kx if initiator else None,
        psk=psk,
    )


def write_welcome(handshake: Handshake, now_ms: int, ephemeral: KeyPair) -> bytes:
    """The frame that answers a hello which was read by `handshake`."""
    return _WELCOME + _VERSION + handshake.write(_time_payload(now_ms, _WELCOME_TIME), ephemeral)


def read_time(payload: bytes) -> int:
    """The other side's unix milliseconds, from the payload of a handshake message. Raises ProtocolError."""
    length = int.from_bytes(payload[:2], "big")
    moment: Moment = decode(payload[2 : 2 + length], Moment, MAX_HELLO)
    return moment.now_ms


def prekey_id(public: bytes) -> bytes:
    """The 8 bytes that name an X25519 prekey in a hello."""
    return hashlib.blake2b(public, digest_size=len(NO_PREKEY), person=b"ix prekey").digest()


class Prekey(Struct, array_like=True, frozen=True):
    """An X25519 key that a card certifies for a day. Stored; never shown."""

    secret: bytes
    public: bytes
    made_ms: int
    expires_ms: int
    """A card with it says so; from then on its private half is gone."""

    def __repr__(self) -> str:
        return f"Prekey({prekey_id(self.public).hex()})"


class Prekeys:
    """A node's prekeys, the newest last: `stored` is what has to survive a restart."""

    def __init__(self, stored: tuple[Prekey, ...], randbytes: RandBytes) -> None:
        self.stored = stored
        self._randbytes = randbytes

    def current(self, now_ms: int) -> Prekey:
        """The one for the card. Raises LookupError when it is due to `rotate` first."""
        if not self.stored or now_ms >= self.stored[-1].expires_ms:
            raise LookupError("no prekey is valid: rotate first")
        return self.stored[-1]

    def find(self, wanted: bytes, now_ms: int) -> Prekey | None:
        """The valid one with this id."""
        for prekey in self.stored:
            if now_ms < prekey.expires_ms and prekey_id(prekey.public) == wanted:
                return prekey
        return None

    def rotate(self, now_ms: int) -> bool:
        """To be called at the start and every minute. True when there is a new one: sign a card with it.
        Whenever `stored` has changed, store it, so that what has expired is erased there as well."""
        kept = tuple(prekey for prekey in self.stored if now_ms < prekey.expires_ms)
        # One from the future was made while the clock was wrong: it would live for too long.
        if kept and now_ms - PREKEY_MS < kept[-1].made_ms <= now_ms + CLOCK_MS:
            self.stored = kept
            return False
        pair = KeyPair.of(self._randbytes(KEY))
        expires_ms = now_ms + PREKEY_MS + PREKEY_KEPT_MS
        self.stored = (
            *(
                Prekey(old.secret, old.public, old.made_ms, min(old.expires_ms, now_ms + PREKEY_KEPT_MS))
                for old in kept
            ),
            Prekey(pair.secret, pair.public, now_ms, expires_ms),
        )
        return True


class CardRequest:
    """One attempt to learn the card of whoever answers at an address."""

    def __init__(self, *, network: bytes, randbytes: RandBytes, challenge: Reject | None = None) -> None:
        self._network = network
        self._random = randbytes(KEY)
        self.puzzle = _puzzle(challenge, self._random)
        """To be given to guard.solve; its result is the `proof`. None when no work was asked for."""

    def hello(self, proof: bytes | None = None) -> bytes:
        """The frame to send."""
        padding = bytes(HELLO_SIZE - _MESSAGE_AT - KEY)
        return _hello_frame(self._network, NO_PREKEY, proof, self._random + padding)

    def receive(self, frame: bytes) -> Reject:
        """The answer: `prekey` and a card, or another reason. Raises ProtocolError."""
        answer = _read_answer(frame)
        if not isinstance(answer, Reject):
            raise ProtocolError("not_asked", "a welcome for a card request")
        return answer


class Dialing:
    """One attempt to begin a session with `node`, whose card certifies the prekey `kx`."""

    def __init__(
        self,
        *,
        node: bytes,
        kx: bytes,
        network: bytes,
        randbytes: RandBytes,
        psk: bytes | None = None,
        challenge: Reject | None = None,
    ) -> None:
        self.skew_ms = 0
        """Their clock minus ours, known after the welcome; half a round trip exact."""
        self._network = network
        self._kx = kx
        self._randbytes = randbytes
        ephemeral = KeyPair.of(randbytes(KEY))
        self._ephemeral: KeyPair | None = ephemeral
        self._sent_ms = 0
        static = KeyPair.of(randbytes(KEY))
        self._handshake = new_handshake(
            initiator=True, network=network, node=node, kx=kx, static=static, psk=psk
        )
        self.puzzle = _puzzle(challenge, ephemeral.public)
        """To be given to guard.solve; its result is the `proof`. None when no work was asked for."""

    def hello(self, now_ms: int, proof: bytes | None = None) -> bytes:
        """The frame to send, once. Raises ProtocolError when the prekey is not a usable key."""
        self._sent_ms = now_ms
        ephemeral, self._ephemeral = self._ephemeral, None
        message = self._handshake.write(_time_payload(now_ms, _HELLO_TIME), ephemeral)
        return _hello_frame(self._network, prekey_id(self._kx), proof, message)

    def receive(self, frame: bytes, now_ms: int, now: float) -> Session | Reject:
        """The session that the answer begins, or why there is none. Raises ProtocolError."""
        answer = _read_answer(frame)
        if isinstance(answer, Reject):
            return answer
        self.skew_ms = read_time(self._handshake.read(answer)) - (self._sent_ms + now_ms) // 2
        return Session(self._handshake, now=now, randbytes=self._randbytes)


def _hello_frame(network: bytes, prekey: bytes, proof: bytes | None, message: bytes) -> bytes:
    start = _HELLO + _VERSION + prekey + (proof or bytes(NONCE))
    return start + _mac(network, start + bytes(_MAC) + message) + message


def _mac(network: bytes, frame: bytes) -> bytes:
    """Over all of a hello but the mac itself."""
    mac = hashlib.blake2b(frame[:_MAC_AT], key=network, digest_size=_MAC, person=b"ix hello mac")
    mac.update(frame[_MESSAGE_AT:])
    return mac.digest()


def _time_payload(now_ms: int, size: int) -> bytes:
    data = encode(Moment(now_ms))
    return (len(data).to_bytes(2, "big") + data).ljust(size, b"\0")


def _puzzle(challenge: Reject | None, ephemeral: bytes) -> Puzzle | None:
    if challenge is None or not challenge.difficulty:
        return None
    return Puzzle(challenge.challenge + ephemeral, challenge.difficulty)


def _read_answer(frame: bytes) -> Reject | bytes:
    """A refusal, or the handshake message of a welcome."""
    if len(frame) > MAX_REJECT:
        raise ProtocolError("too_large", "an answer to a hello")
    kind, version, rest = frame[:_VERSION_AT], frame[_VERSION_AT:_PREKEY_AT], frame[_PREKEY_AT:]
    if kind not in (_WELCOME, _REJECT) or not version:
        raise ProtocolError("malformed", "no answer to a hello")
    if version != _VERSION:
        if kind == _WELCOME:
            raise ProtocolError("version")
        return Reject("version", 0)  # its other words are of that version
    if kind == _WELCOME:
        return rest
    rejected: Reject = decode(rest, Reject, MAX_REJECT)
    return rejected
