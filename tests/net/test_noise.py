"""Noise: the official vectors, and handshakes with an independent implementation, both ways."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from infraxa.net.errors import ProtocolError
from infraxa.net.noise import (
    IK,
    IKPSK2,
    LAST_NONCE,
    CipherState,
    Handshake,
    KeyPair,
    Keys,
    Pattern,
    hkdf,
    shared_secret,
)

PATTERNS = {
    pattern.name: pattern
    for pattern in (
        IK,
        IKPSK2,
        Pattern("IKpsk1", (("e", "es", "s", "ss", "psk"), ("e", "ee", "se")), True),
        Pattern("NK", (("e", "es"), ("e", "ee")), True),
        Pattern("NKpsk2", (("e", "es"), ("e", "ee", "psk")), True),
        Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se")), False),
        Pattern("XXpsk3", (("e",), ("e", "ee", "s", "es"), ("s", "se", "psk")), False),
    )
}

VECTORS = json.loads((Path(__file__).parent / "vectors" / "noise-25519-chachapoly-blake2b.json").read_text())[
    "vectors"
]

# Of small order on Curve25519: with any secret they give the all-zero shared secret.
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def pair(secret: str | None) -> KeyPair | None:
    return None if secret is None else KeyPair.of(bytes.fromhex(secret))


def sides(vector: dict[str, Any]) -> tuple[Handshake, Handshake]:
    pattern = PATTERNS[vector["protocol_name"].split("_")[1]]

    def side(name: str) -> Handshake:
        known = vector.get(f"{name}_remote_static")
        psks = vector.get(f"{name}_psks")
        return Handshake(
            pattern,
            initiator=name == "init",
            prologue=bytes.fromhex(vector[f"{name}_prologue"]),
            static=pair(vector.get(f"{name}_static")),
            remote_static=known and bytes.fromhex(known),
            psk=psks and bytes.fromhex(psks[0]),
        )

    return side("init"), side("resp")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_official_vector(vector: dict[str, Any]) -> None:
    initiator, responder = sides(vector)
    ephemerals = {True: pair(vector["init_ephemeral"]), False: pair(vector["resp_ephemeral"])}
    turns = itertools.cycle(((initiator, responder), (responder, initiator)))
    messages = iter(vector["messages"])
    while not initiator.finished:
        writer, reader = next(turns)
        message = next(messages)
        payload, sealed = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert writer.write(payload, ephemerals[writer.initiator]) == sealed
        assert reader.read(sealed) == payload
    assert initiator.hash == responder.hash == bytes.fromhex(vector["handshake_hash"])
    keys: dict[Handshake, Keys] = {initiator: initiator.split(), responder: responder.split()}
    assert keys[initiator].root == keys[responder].root
    transport = list(messages)
    assert len(transport) >= 2
    for message in transport:
        writer, reader = next(turns)
        payload, sealed = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert keys[writer].tx.seal(payload) == sealed
        assert keys[reader].rx.open(sealed) == payload


def test_all_vectors_are_there() -> None:
    assert {vector["protocol_name"].split("_")[1] for vector in VECTORS} == set(PATTERNS)


def theirs(pattern: Pattern, *, initiator: bool, static: bytes, known: bytes | None, psk: bytes) -> Any:
    """One side of a handshake by the independent implementation."""
    other = NoiseConnection.from_name(f"Noise_{pattern.name}_25519_ChaChaPoly_BLAKE2b".encode())
    (other.set_as_initiator if initiator else other.set_as_responder)()
    other.set_prologue(b"prologue")
    other.set_keypair_from_private_bytes(Keypair.STATIC, static)
    if known is not None:
        other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, known)
    if "psk" in pattern.name:
        other.set_psks(psk)
    other.start_handshake()
    return other


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
@pytest.mark.parametrize("ours_begins", [True, False], ids=["dialing", "answering"])
def test_shakes_hands_with_another_implementation(pattern: Pattern, ours_begins: bool) -> None:
    mine, their_secret, psk = KeyPair.of(os.urandom(32)), os.urandom(32), os.urandom(32)
    their_public = KeyPair.of(their_secret).public
    anonymous = pattern.name.startswith("N")
    ours = Handshake(
        pattern,
        initiator=ours_begins,
        prologue=b"prologue",
        static=None if anonymous and ours_begins else mine,
        remote_static=their_public if pattern.responder_known and ours_begins else None,
        psk=psk if "psk" in pattern.name else None,
    )
    other = theirs(
        pattern,
        initiator=not ours_begins,
        static=their_secret,
        known=mine.public if pattern.responder_known and not ours_begins else None,
        psk=psk,
    )
    writes = ours_begins
    for number in range(len(pattern.messages)):
        payload = os.urandom(number * 7)
        if writes:
            sent = ours.write(payload, KeyPair.of(os.urandom(32)))
            assert bytes(other.read_message(sent)) == payload
        else:
            assert ours.read(bytes(other.write_message(payload))) == payload
        writes = not writes
    assert ours.finished and other.handshake_finished
    assert ours.hash == other.get_handshake_hash()
    if not (anonymous and not ours_begins):
        assert ours.remote_static == their_public

    keys = ours.split()
    for _ in range(3):
        for size in (0, 1, 64, 60_000):
            data = os.urandom(size)
            assert other.decrypt(keys.tx.seal(data)) == data
            assert keys.rx.open(other.encrypt(data)) == data
        keys.tx.rekey()
        other.rekey_inbound_cipher()
        keys.rx.rekey()
        other.rekey_outbound_cipher()


def finished(**change: bytes) -> tuple[Handshake, Handshake]:
    """Two sides of IKpsk2 before their first message; the responder differs by `change`."""
    static = KeyPair.of(b"r" * 32)
    wanted = {"prologue": b"p", "psk": b"k" * 32}
    initiator = Handshake(
        IKPSK2,
        initiator=True,
        static=KeyPair.of(b"i" * 32),
        remote_static=static.public,
        prologue=wanted["prologue"],
        psk=wanted["psk"],
    )
    wanted |= change
    responder = Handshake(
        IKPSK2, initiator=False, static=static, prologue=wanted["prologue"], psk=wanted["psk"]
    )
    return initiator, responder


@pytest.mark.parametrize("change", [{"prologue": b"q"}, {"psk": b"x" * 32}], ids=lambda c: next(iter(c)))
def test_sides_that_differ_do_not_agree(change: dict[str, bytes]) -> None:
    initiator, responder = finished(**change)
    with pytest.raises(ProtocolError) as caught:
        responder.read(initiator.write(b"", KeyPair.of(b"e" * 32)))
        initiator.read(responder.write(b"", KeyPair.of(b"f" * 32)))
    assert caught.value.reason == "tampered"


def test_every_changed_or_missing_byte_of_a_message_is_found() -> None:
    initiator, _ = finished()
    message = initiator.write(b"payload", KeyPair.of(b"e" * 32))
    for place in range(len(message)):
        changed = bytearray(message)
        # Not the top bit of the ephemeral key: X25519 ignores it, the hash of the message does not.
        changed[place] ^= 0x80
        with pytest.raises(ProtocolError):
            finished()[1].read(bytes(changed))
        with pytest.raises(ProtocolError):
            finished()[1].read(message[:place])
    assert finished()[1].read(message) == b"payload"


@pytest.mark.parametrize("public", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_a_public_key_of_low_order_is_refused(public: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        shared_secret(KeyPair.of(os.urandom(32)), public)
    assert caught.value.reason == "malformed"
    initiator, responder = finished()
    message = initiator.write(b"", KeyPair.of(b"e" * 32))
    with pytest.raises(ProtocolError):
        responder.read(public + message[32:])


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_never_reaches_libsodium(size: int) -> None:
    with pytest.raises(ValueError, match="key"):
        KeyPair.of(bytes(size))
    with pytest.raises(ValueError, match="key"):
        shared_secret(KeyPair.of(b"k" * 32), bytes(size))


def test_too_long_messages() -> None:
    initiator, responder = finished()
    with pytest.raises(ValueError, match="65"):
        initiator.write(bytes(65_536), KeyPair.of(b"e" * 32))
    with pytest.raises(ProtocolError) as caught:
        responder.read(bytes(65_536))
    assert caught.value.reason == "too_large"


def test_a_handshake_is_used_in_order_and_split_once() -> None:
    initiator, responder = finished()
    with pytest.raises(ValueError, match="turn"):
        responder.write(b"", KeyPair.of(b"f" * 32))
    with pytest.raises(ValueError, match="not finished"):
        initiator.split()
    with pytest.raises(ValueError, match="ephemeral"):
        finished()[0].write(b"")
    responder.read(initiator.write(b"", KeyPair.of(b"e" * 32)))
    initiator.read(responder.write(b"", KeyPair.of(b"f" * 32)))
    with pytest.raises(ValueError, match="turn"):
        initiator.write(b"", KeyPair.of(b"e" * 32))
    initiator.split()
    assert initiator._static is initiator._ephemeral is None
    assert initiator._psk is None and initiator._chaining_key == b""
    with pytest.raises(ValueError, match="split before"):
        initiator.split()


@given(st.binary(max_size=200), st.binary(max_size=40), st.integers(0, 2000))
def test_a_seal_opens_once_in_its_place(plain: bytes, bound: bytes, flip: int) -> None:
    key = hkdf(plain, bound, 1)[0][:32]
    tx, rx = CipherState(key), CipherState(key)
    first, second = tx.seal(plain, bound), tx.seal(plain, bound)
    assert first != second
    broken = bytearray(first)
    broken[flip // 8 % len(first)] ^= 1 << flip % 8
    for wrong, with_bound in ((second, bound), (first, bound + b"x"), (bytes(broken), bound), (b"", bound)):
        with pytest.raises(ProtocolError):
            rx.open(wrong, with_bound)
    assert rx.open(first, bound) == plain
    with pytest.raises(ProtocolError):
        rx.open(first, bound)
    assert rx.open(second, bound) == plain


def test_the_last_nonce_is_kept_for_rekeying() -> None:
    cipher = CipherState(bytes(32))
    cipher.counter = LAST_NONCE - 1
    cipher.seal(b"")
    with pytest.raises(OverflowError):
        cipher.seal(b"")
