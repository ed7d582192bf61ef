"""Two sessions that have shaken hands, with a known randomness."""

from __future__ import annotations

import random

from infraxa.net.noise import IK, Handshake, KeyPair
from infraxa.net.session import Session, SessionLimits

EVERY_FRAME = SessionLimits(rekey_frames=2, ratchet_frames=1)
"""Keys that move on as often as they can."""


def session_pair(
    limits: SessionLimits | None = None,
    *,
    theirs: SessionLimits | None = None,
    seed: int = 0,
    now: float = 0.0,
) -> tuple[Session, Session]:
    """The initiator and the responder; `theirs` are the limits of a responder who sees them differently."""
    randbytes = random.Random(seed).randbytes
    static = KeyPair.of(randbytes(32))
    initiator = Handshake(
        IK, initiator=True, prologue=b"", static=KeyPair.of(randbytes(32)), remote_static=static.public
    )
    responder = Handshake(IK, initiator=False, prologue=b"", static=static)
    responder.read(initiator.write(b"", KeyPair.of(randbytes(32))))
    initiator.read(responder.write(b"", KeyPair.of(randbytes(32))))
    return (
        Session(initiator, now=now, randbytes=randbytes, limits=limits),
        Session(responder, now=now, randbytes=randbytes, limits=theirs or limits),
    )
