"""The side that answers: judges the hellos of all connections of one node, the cheapest check first. Pure.

A first message can be a copy of an older one. So its time has to be near ours, its ephemeral key is
remembered for as long as that time would do, and Session.confirmed tells when its sender has proven to be
there. A copy that comes after a restart, when the memory is empty, begins a session in which nothing is ever
said.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from infraxa.net.addresses import LOCAL
from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.guard import Challenges, Load, Rates, Seen
from infraxa.net.hello import (
    CLOCK_MS,
    NO_PREKEY,
    Hello,
    Prekey,
    Prekeys,
    new_handshake,
    read_hello,
    read_time,
    reject,
    write_welcome,
)
from infraxa.net.noise import KEY, KeyPair, RandBytes
from infraxa.net.session import Session


class DoorLimits(Struct, frozen=True):
    """What all who knock may cost together."""

    per_second: float = 5.0
    """Hellos of one source."""
    burst: float = 20.0
    local_per_second: float = 50.0
    """Hellos of all local addresses, which are one source."""
    local_burst: float = 200.0
    sources: int = 4096
    free_per_second: float = 200.0
    """Hellos of all sources; beyond, proof of work is asked for."""
    remembered: int = 120_000
    """First messages of the last 2 × CLOCK_MS: 500 a second, about as many as one core can serve."""


class Admitted(Struct, frozen=True):
    """A session has begun: send `reply` first."""

    session: Session
    reply: bytes
    skew_ms: int
    """Their clock minus ours, less the time on the way."""


class Refused(Struct, frozen=True):
    """No session: send `reply`, if there is one, and close."""

    reply: bytes | None
    reason: Refusal | None
    """None for a card request, which was answered."""


class Door:
    """Judges the hellos of all connections of one node; the cheapest check first."""

    def __init__(
        self,
        *,
        node: bytes,
        network: bytes,
        prekeys: Prekeys,
        card: Callable[[], bytes],
        randbytes: RandBytes,
        psk: bytes | None = None,
        limits: DoorLimits | None = None,
    ) -> None:
        """`card` gives the Record of the current card, encoded, or nothing."""
        self._node = node
        self._network = network
        self._prekeys = prekeys
        self._card = card
        self._randbytes = randbytes
        self._psk = psk
        self._limits = limits or DoorLimits()
        self._rates = Rates(self._limits.sources)
        self._load = Load(self._limits.free_per_second)
        self._challenges = Challenges(randbytes)
        # As long as a hello from a clock that is ahead may come again, and a little for inexact clocks.
        self._seen = Seen(self._limits.remembered, 2 * CLOCK_MS / 1000 + 10.0)

    def receive(self, frame: bytes, *, source: str, now_ms: int, now: float) -> Admitted | Refused:
        """Answer a first message. `source` is addresses.group of where it comes from."""
        try:
            hello = read_hello(frame, self._network)
        except ProtocolError as error:
            return Refused(reject("version", now_ms) if error.reason == "version" else None, error.reason)
        if not self._within_rate(source, now):
            return Refused(reject("rate", now_ms), "rate")
        bits = self._load.bits(now)
        if bits and not self._challenges.solved(
            source, hello.prekey, hello.ephemeral, hello.nonce, bits, now
        ):
            challenge = self._challenges.challenge(source, hello.prekey, now)
            return Refused(
                reject("proof_of_work", now_ms, challenge=challenge, difficulty=bits), "proof_of_work"
            )
        prekey = self._prekeys.find(hello.prekey, now_ms)
        if prekey is None:
            asked = hello.prekey == NO_PREKEY
            return Refused(reject("prekey", now_ms, card=self._card()), None if asked else "prekey")
        if hello.ephemeral in self._seen:
            return Refused(None, "replayed")
        if not self._seen.add(hello.ephemeral, now):
            return Refused(reject("full", now_ms), "full")
        try:
            return self._shake_hands(hello, prekey, now_ms, now)
        except ProtocolError as error:
            return Refused(reject("clock", now_ms) if error.reason == "clock" else None, error.reason)

    def _shake_hands(self, hello: Hello, prekey: Prekey, now_ms: int, now: float) -> Admitted:
        handshake = new_handshake(
            initiator=False,
            network=self._network,
            node=self._node,
            kx=prekey.public,
            static=KeyPair(prekey.secret, prekey.public),
            psk=self._psk,
        )
        skew_ms = read_time(handshake.read(hello.message)) - now_ms
        if abs(skew_ms) > CLOCK_MS:
            raise ProtocolError("clock")
        reply = write_welcome(handshake, now_ms, KeyPair.of(self._randbytes(KEY)))
        return Admitted(Session(handshake, now=now, randbytes=self._randbytes), reply, skew_ms)

    def _within_rate(self, source: str, now: float) -> bool:
        limits = self._limits
        if source == LOCAL:
            return self._rates.allow(source, limits.local_per_second, limits.local_burst, now)
        return self._rates.allow(source, limits.per_second, limits.burst, now)
