"""The record layer: what was sent arrives in order and equal, or the session is dead."""

from __future__ import annotations

import copy
import hashlib
import hmac
import random
from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)

from infraxa.net.errors import ProtocolError, Refusal
from infraxa.net.noise import CipherState, KeyPair
from infraxa.net.session import (
    ACK,
    BUCKETS,
    CLOSE,
    PING,
    RATCHET,
    SWITCH,
    Session,
    SessionClosed,
    SessionLimits,
    SessionRecord,
)
from infraxa.net.wire import MAX_BODY, MAX_FRAME
from tests.net.pairs import EVERY_FRAME, session_pair

DATA = 32
HEADER = 7
TAG = 16


def one(frames: list[bytes]) -> bytes:
    (frame,) = frames
    return frame


def flow(sender: Session, receiver: Session, frames: list[bytes], now: float = 0.0) -> list[SessionRecord]:
    """Carry frames, and what they are answered with, until both sides are silent: the receiver's records."""
    records = []
    under_way = deque((frame, True) for frame in frames)
    while under_way:
        frame, forward = under_way.popleft()
        record, answers = (receiver if forward else sender).receive(frame, now)
        if record is not None:
            assert forward
            records.append(record)
        under_way.extend((answer, not forward) for answer in answers)
    return records


def refused(session: Session, frame: bytes, now: float = 0.0) -> Refusal:
    with pytest.raises(ProtocolError) as caught:
        session.receive(frame, now)
    return caught.value.reason


def forged(session: Session, kind: int, body: bytes) -> bytes:
    """A frame that opens, with a record that no session of ours sends at this time."""
    return session._seal(kind, 0, body)


def cipher(state: CipherState | None) -> CipherState:
    """A copy, as a thief takes it."""
    assert state is not None
    return copy.copy(state)


def test_both_sides_have_the_same_hash_and_another_session_has_not() -> None:
    initiator, responder = session_pair()
    assert initiator.handshake_hash == responder.handshake_hash
    assert len(initiator.handshake_hash) == 64
    assert initiator.initiator and not responder.initiator
    assert session_pair(seed=1)[0].handshake_hash != initiator.handshake_hash


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_frame_has_one_of_six_sizes(bucket: int) -> None:
    a, b = session_pair()
    whole = min(bucket - HEADER, MAX_BODY)
    for size in {0, 1, whole - 1, whole}:
        frame = one(a.send(DATA, 2**32 - 1, bytes(size), 0.0))
        assert len(frame) - TAG == min(n for n in BUCKETS if size + HEADER <= n)
        assert len(frame) <= MAX_FRAME
        assert b.receive(frame, 0.0) == (SessionRecord(DATA, 2**32 - 1, bytes(size)), [])
    if whole < MAX_BODY:
        assert len(one(a.send(DATA, 0, bytes(whole + 1), 0.0))) > bucket + TAG


@pytest.mark.parametrize(
    ("kind", "size"), [(15, 0), (256, 0), (-1, 0), (DATA, MAX_BODY + 1)], ids=["own", "high", "low", "long"]
)
def test_a_record_beyond_the_limits_is_not_sent(kind: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such record"):
        session_pair()[0].send(kind, 0, bytes(size), 0.0)


def test_bytes_are_counted_on_both_sides() -> None:
    a, b = session_pair()
    frames = [one(a.send(DATA, 1, bytes(size), 0.0)) for size in (1, 100, 5000)]
    flow(a, b, frames)
    assert a.bytes_out == b.bytes_in == sum(map(len, frames))
    assert a.bytes_in == b.bytes_out == 0


def test_a_responder_knows_when_the_initiator_has_proven_to_be_there() -> None:
    a, b = session_pair()
    assert a.confirmed
    assert not b.confirmed
    with pytest.raises(ProtocolError):
        session_pair()[1].receive(bytes(80), 0.0)
    assert not b.confirmed
    flow(a, b, a.send(PING, 0, b"", 0.0))
    assert b.confirmed


FAULTS = ["flip", "cut", "longer", "drop", "double", "replay", "reflect", "other session", "clear"]


def spoil(fault: str, frame: bytes, before: list[bytes], back: list[bytes], where: int) -> list[bytes]:
    """What arrives in the place of `frame`; `before` went the same way, `back` the other way."""
    byte = where // 8 % len(frame)
    return {
        "flip": [frame[:byte] + bytes((frame[byte] ^ 1 << where % 8,)) + frame[byte + 1 :]],
        "cut": [frame[:byte]],
        "longer": [frame + bytes(where % 2000 + 1)],
        "drop": [],
        "double": [frame, frame],
        "replay": [before[where % len(before)] if before else frame[::-1]],
        "reflect": [back[where % len(back)] if back else frame[::-1]],
        "other session": [session_pair(seed=1)[0].send(DATA, 1, b"x", 0.0)[0]],
        "clear": [bytes((DATA, 0, 0, 0, 1, 0, 1)).ljust(len(frame), b"x")],
    }[fault]


@settings(deadline=None, max_examples=400)
@given(
    turns=st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=400)), min_size=1, max_size=10),
    place=st.integers(0, 30),
    fault=st.sampled_from(FAULTS),
    where=st.integers(0, 100_000),
    limits=st.sampled_from([SessionLimits(), EVERY_FRAME, SessionLimits(rekey_frames=1)]),
)
def test_any_fault_kills_the_session_for_good(
    turns: list[tuple[int, bytes]], place: int, fault: str, where: int, limits: SessionLimits
) -> None:
    """In a conversation one frame is spoilt, of whatever kind: what was said before it is there, of what
    comes after it nothing."""
    sides = session_pair(limits)
    wire: tuple[list[bytes], list[bytes]] = ([], [])
    victim = None  # who got the spoilt frame, or has yet to notice that one is missing
    for side, body in turns:
        under_way = deque((frame, side) for frame in sides[side].send(DATA, side, body, 0.0))
        while under_way:
            frame, sender = under_way.popleft()
            hit = victim is None and len(wire[0]) + len(wire[1]) == place
            arriving = spoil(fault, frame, wire[sender], wire[1 - sender], where) if hit else [frame]
            wire[sender].append(frame)
            victim = 1 - sender if hit else victim
            intact = 1 if fault == "double" and hit else 0
            for number, got in enumerate(arriving):
                if victim == 1 - sender and number >= intact:
                    assert refused(sides[victim], got) in ("tampered", "malformed")
                    assert refused(sides[victim], frame) in ("tampered", "malformed")
                    with pytest.raises(SessionClosed):
                        sides[victim].send(DATA, 1, b"", 0.0)
                    assert sides[victim].close(0.0) == [] == sides[victim].tick(1e9)
                    assert not sides[victim].closed
                    return
                record, answers = sides[1 - sender].receive(got, 0.0)
                assert record in (None, (DATA, side, body))
                under_way.extend((answer, 1 - sender) for answer in answers)
    assert victim is None or fault == "drop"  # of the last frame, and nobody has said the end
    assert not sides[0].closed and not sides[1].closed


def test_every_changed_bit_and_every_cut_of_a_frame_is_found() -> None:
    a, b = session_pair()
    frame = one(a.send(DATA, 1, b"said", 0.0))
    for place in range(len(frame)):
        assert refused(copy.deepcopy(b), frame[:place]) == "malformed"
        for bit in range(8):
            changed = bytearray(frame)
            changed[place] ^= 1 << bit
            assert refused(copy.deepcopy(b), bytes(changed)) == "tampered"
    assert b.receive(frame, 0.0)[0] == (DATA, 1, b"said")


class Wire:
    """Two sessions and what is under way between them; frames leave one at a time, in their order."""

    def __init__(self, limits: SessionLimits) -> None:
        self.sides = session_pair(limits)
        self.queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self.sent: tuple[list[SessionRecord], list[SessionRecord]] = ([], [])
        self.got: tuple[list[SessionRecord], list[SessionRecord]] = ([], [])
        self.ended = [False, False]
        self.now = [0.0, 5000.0]

    def send(self, side: int, record: SessionRecord) -> None:
        if self.ended[side] or self.sides[side].closed:
            with pytest.raises(SessionClosed):
                self.sides[side].send(*record, self.now[side])
            return
        self.queues[side].extend(self.sides[side].send(*record, self.now[side]))
        self.sent[side].append(record)

    def deliver(self, side: int) -> None:
        """The next frame that `side` has sent."""
        if self.queues[side]:
            frame = self.queues[side].popleft()
            record, answers = self.sides[1 - side].receive(frame, self.now[1 - side])
            self.queues[1 - side].extend(answers)
            if record is not None:
                self.got[1 - side].append(record)

    def tick(self, side: int, seconds: float) -> None:
        self.now[side] += seconds
        self.queues[side].extend(self.sides[side].tick(self.now[side]))

    def close(self, side: int) -> None:
        self.queues[side].extend(self.sides[side].close(self.now[side]))
        self.ended[side] = True

    def drain(self) -> None:
        while any(self.queues):
            self.deliver(0)
            self.deliver(1)


RECORDS = st.builds(SessionRecord, st.integers(16, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))
STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), RECORDS),
    st.tuples(st.just("deliver"), st.integers(0, 1), st.none()),
    st.tuples(st.just("tick"), st.integers(0, 1), st.sampled_from([0.0, 1.0, 121.0, 4000.0, 1e7])),
)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    limits=st.sampled_from([EVERY_FRAME, SessionLimits(), SessionLimits(rekey_frames=1, ratchet_frames=3)]),
    steps=st.lists(STEPS, max_size=60),
    ends=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60)), max_size=3),
)
def test_everything_arrives_in_order_however_it_is_interleaved(
    limits: SessionLimits,
    steps: list[tuple[str, int, SessionRecord | float | None]],
    ends: list[tuple[int, int]],
) -> None:
    """Both sides send, frames are under way in both directions while keys move on, clocks jump, either side
    or both end the session at any time."""
    wire = Wire(limits)
    for number, (step, side, argument) in enumerate(steps):
        for ending, at in ends:
            if at == number:
                wire.close(ending)
        if step == "send":
            assert isinstance(argument, SessionRecord)
            wire.send(side, argument)
        elif step == "deliver":
            wire.deliver(side)
        else:
            assert isinstance(argument, float)
            wire.tick(side, argument)
        for got, sent in zip(wire.got, reversed(wire.sent), strict=True):
            assert got == sent[: len(got)]
    wire.drain()
    a, b = wire.sides
    if any(wire.ended):
        # What the side that ended first had not read by then was still read by it.
        assert a.closed and b.closed
        for side in (0, 1):
            assert wire.got[1 - side] == wire.sent[side]
            wire.send(side, SessionRecord(DATA, 0, b""))
    else:
        assert wire.got == (wire.sent[1], wire.sent[0])
        assert a._root == b._root and a.ratchets == b.ratchets
        if limits.ratchet_frames == 1 and wire.sent[0]:
            assert a.ratchets > 0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), writers=st.integers(1, 6))
def test_writers_with_a_ratchet_at_every_frame(seed: int, writers: int) -> None:
    """Each writer's records arrive in its order, on both sides, while every frame calls for a ratchet."""
    order = random.Random(seed)
    wire = Wire(EVERY_FRAME)
    left = {(side, writer): 12 for side in (0, 1) for writer in range(writers)}
    while left or any(wire.queues):
        side, writer = order.choice([*left, (0, -1), (1, -1)])
        if writer < 0:
            wire.deliver(side)
            continue
        left[side, writer] -= 1
        wire.send(side, SessionRecord(DATA, writer, bytes((left[side, writer],))))
        if not left[side, writer]:
            del left[side, writer]
    a, b = wire.sides
    assert wire.got == (wire.sent[1], wire.sent[0])
    assert a._root == b._root
    assert a.ratchets == b.ratchets >= 1


def test_frames_of_both_sides_under_way_at_every_step_of_a_ratchet() -> None:
    a, b = session_pair(SessionLimits(ratchet_frames=4, rekey_frames=3))
    before = a._root
    to_b = deque(frame for n in range(4) for frame in a.send(DATA, 1, bytes((n,)), 0.0))
    assert len(to_b) == 5  # the fourth calls for a ratchet
    to_a = deque(b.send(DATA, 1, b"a", 0.0))
    to_b.extend(a.send(DATA, 1, b"behind the ratchet", 0.0))
    got_b, got_a = [], []
    for _ in range(5):
        record, answers = b.receive(to_b.popleft(), 0.0)
        got_b.append(record)
        to_a.extend(answers)
    assert b.ratchets == 1 and a.ratchets == 0
    to_a.extend(b.send(DATA, 1, b"under the new keys", 0.0))
    to_b.extend(a.send(DATA, 1, b"under the old keys", 0.0))
    while to_a:
        record, answers = a.receive(to_a.popleft(), 0.0)
        got_a.append(record)
        to_b.extend(answers)
        to_b.extend(a.send(DATA, 1, b"more", 0.0)[:1])
    while to_b:
        record, _ = b.receive(to_b.popleft(), 0.0)
        got_b.append(record)
    said = [record.body for record in got_b if record is not None]
    assert said[4:6] == [b"behind the ratchet", b"under the old keys"]
    assert [record.body for record in got_a if record is not None] == [b"a", b"under the new keys"]
    assert a._root == b._root != before


def test_a_ratchet_after_its_number_of_records_in_both_directions() -> None:
    limits = SessionLimits()
    a, b = session_pair(limits)
    for _ in range(limits.ratchet_frames // 2 - 1):
        flow(a, b, a.send(DATA, 1, b"", 0.0))
        flow(b, a, b.send(DATA, 1, b"", 0.0))
    flow(a, b, a.send(DATA, 1, b"", 0.0))
    assert a.ratchets == 0
    flow(b, a, b.send(DATA, 1, b"", 0.0))
    assert a.ratchets == b.ratchets == 1
    assert limits.ratchet_frames == 2**14 and limits.rekey_frames == 1024


def test_a_ratchet_after_two_minutes_of_use_and_none_without() -> None:
    a, b = session_pair()
    assert a.tick(1000.0) == [] and b.tick(1000.0) == []
    flow(a, b, a.send(DATA, 1, b"", 1001.0), 1001.0)
    assert a.ratchets == b.ratchets == 1
    flow(a, b, a.send(DATA, 1, b"", 1002.0), 1002.0)
    assert a.tick(1120.9) == []
    assert flow(a, b, a.tick(1121.0), 1121.0) == []
    assert a.ratchets == b.ratchets == 2
    flow(b, a, b.send(DATA, 1, b"", 1122.0), 1122.0)
    assert b.tick(2000.0) == []  # it is for the initiator to begin
    assert len(a.tick(2000.0)) == 1
    assert a.tick(2500.0) == []  # one at a time


def test_a_ratchet_is_what_it_is_said_to_be() -> None:
    """root, keys = HKDF(root, X25519(fresh, fresh) ‖ both public keys), made here by hand."""
    a, b = session_pair()
    root = a._root
    assert len(root) == 64
    fresh = [bytes((7,)) * 32, bytes((9,)) * 32]
    a._randbytes, b._randbytes = (lambda _: fresh[0]), (lambda _: fresh[1])
    flow(a, b, a.send(DATA, 1, b"", 0.0))
    flow(a, b, a.tick(500.0), 500.0)
    publics = [crypto_scalarmult_base(secret) for secret in fresh]
    material = crypto_scalarmult(fresh[0], publics[1]) + publics[0] + publics[1]
    secret = hmac.new(root, material, "blake2b").digest()
    outputs = [b""]
    for number in (1, 2, 3):
        outputs.append(hmac.new(secret, outputs[-1] + bytes((number,)), "blake2b").digest())
    assert a._root == b._root == outputs[1]
    plain = (bytes((DATA, 0, 0, 0, 5, 0, 2)) + b"hi").ljust(64, b"\0")
    for session, key in ((a, outputs[2][:32]), (b, outputs[3][:32])):
        expected = crypto_aead_chacha20poly1305_ietf_encrypt(plain, b"", bytes(12), key)
        assert session.send(DATA, 5, b"hi", 500.0) == [expected]


def test_the_bytes_on_the_wire_stay_the_same() -> None:
    """A change of this number is a change of the protocol."""
    wire = hashlib.sha256()
    a, b = session_pair(SessionLimits(rekey_frames=3, ratchet_frames=5))
    for number in range(20):
        sides = (a, b) if number % 3 else (b, a)
        under_way = deque((frame, sides) for frame in sides[0].send(DATA, number, bytes(number * 40), 0.0))
        while under_way:
            frame, (sender, receiver) = under_way.popleft()
            wire.update(frame)
            under_way.extend((answer, (receiver, sender)) for answer in receiver.receive(frame, 0.0)[1])
    assert a.ratchets == b.ratchets == 4
    assert wire.hexdigest() == "48fac249b43d28feab32b5488781df5bdca0aff3ed146a8a42f218c87a0f468e"


def test_stolen_keys_do_not_open_what_was_said_before_a_rekey() -> None:
    a, b = session_pair(SessionLimits(rekey_frames=4))
    frames = [one(a.send(DATA, 1, b"said", 0.0)) for _ in range(5)]
    for frame in frames[:4]:
        b.receive(frame, 0.0)
    stolen = cipher(b._rx)
    for number, frame in enumerate(frames):
        stolen.counter = number
        if number == 4:
            assert b"said" in stolen.open(frame)
            continue
        with pytest.raises(ProtocolError):
            stolen.open(frame)


def test_stolen_keys_do_not_open_what_is_said_after_a_ratchet() -> None:
    a, b = session_pair()
    forward, backward = cipher(b._rx), cipher(b._tx)
    first = one(a.send(DATA, 1, b"before", 0.0))
    assert b"before" in forward.open(first)
    flow(a, b, [first])
    flow(a, b, a.tick(200.0), 200.0)
    there, back = one(a.send(DATA, 1, b"after", 200.0)), one(b.send(DATA, 1, b"after", 200.0))
    for stolen, frame in ((forward, there), (backward, back)):
        for counter in range(8):
            stolen.counter = counter
            with pytest.raises(ProtocolError):
                stolen.open(frame)
    assert flow(a, b, [there])[0].body == b"after"


def test_clocks_that_jump_do_not_break_a_session() -> None:
    """One machine is suspended, or moved: its clock jumps and the other side's does not."""
    a, b = session_pair()
    for number in range(SessionLimits().early_ratchets):
        flow(a, b, a.send(DATA, 1, b"x", number * 3600.0), 1.0)
        assert [record.body for record in flow(b, a, b.send(DATA, 1, b"y", 1.0), number * 3600.0)] == [b"y"]
    assert a.ratchets == b.ratchets >= 15
    assert a._root == b._root


def test_ratchets_that_are_not_due_are_limited() -> None:
    """Each would cost this side two multiplications for 80 bytes."""
    hostile, b = session_pair(SessionLimits(ratchet_frames=1), theirs=SessionLimits())
    for _ in range(SessionLimits().early_ratchets):
        flow(hostile, b, hostile.send(DATA, 1, b"", 0.0))
    with pytest.raises(ProtocolError) as caught:
        flow(hostile, b, hostile.send(DATA, 1, b"", 0.0))
    assert caught.value.reason == "rate"
    assert b.ratchets == SessionLimits().early_ratchets


LOW_ORDER = (1).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("to_responder", "kind", "body"),
    [
        *((True, kind, b"") for kind in range(4, 16)),
        (True, RATCHET, b""),
        (True, RATCHET, bytes(31)),
        (True, RATCHET, bytes(33)),
        (True, RATCHET, LOW_ORDER),
        (True, ACK, KeyPair.of(b"k" * 32).public),
        (True, SWITCH, b""),
        (False, RATCHET, KeyPair.of(b"k" * 32).public),
        (False, ACK, KeyPair.of(b"k" * 32).public),
        (False, SWITCH, b""),
    ],
)
def test_a_session_record_out_of_place_is_malformed(to_responder: bool, kind: int, body: bytes) -> None:
    a, b = session_pair()
    sender, receiver = (a, b) if to_responder else (b, a)
    assert refused(receiver, forged(sender, kind, body)) == "malformed"
    assert refused(receiver, forged(sender, DATA, b"")) == "malformed"


def test_a_second_ratchet_before_the_switch_is_malformed() -> None:
    a, b = session_pair()
    for expected in ("", "malformed"):
        frame = forged(a, RATCHET, KeyPair.of(b"k" * 32).public)
        if expected:
            assert refused(b, frame, 500.0) == expected
        else:
            b.receive(frame, 500.0)


def test_an_answer_without_a_key_is_malformed() -> None:
    a, b = session_pair()
    flow(a, b, a.send(DATA, 1, b"", 0.0))
    assert len(a.tick(500.0)) == 1
    assert refused(a, forged(b, ACK, LOW_ORDER)) == "malformed"


def test_a_length_beyond_the_frame_is_malformed() -> None:
    for length, size in ((58, 64), (65_535, 64), (59_901, 60_000), (59_994, 60_000)):
        a, b = session_pair()
        assert a._tx is not None
        plain = bytes((DATA, 0, 0, 0, 1)) + length.to_bytes(2, "big")
        assert refused(b, a._tx.seal(plain.ljust(size, b"\0"))) == "malformed"


@pytest.mark.parametrize("size", [0, 1, 16, 79, 81, 60_017, 65_535, 1_000_000])
def test_a_frame_of_another_size_is_malformed(size: int) -> None:
    assert refused(session_pair()[1], bytes(size)) == "malformed"


def test_an_end_is_answered_and_nothing_follows() -> None:
    a, b = session_pair()
    on_the_way = b.send(DATA, 1, b"last words", 0.0)
    end = a.close(0.0, "full")
    assert a.close(0.0) == []
    with pytest.raises(SessionClosed):
        a.send(DATA, 1, b"", 0.0)
    assert not a.closed and not b.closed
    record, answer = b.receive(one(end), 0.0)
    assert record is None and b.closed and b.peer_reason == "full"
    with pytest.raises(SessionClosed):
        b.send(DATA, 1, b"", 0.0)
    assert [record.body for record in flow(b, a, on_the_way + answer)] == [b"last words"]
    assert a.closed and a.peer_reason is None
    assert refused(a, bytes(80)) == "malformed"
    assert refused(b, bytes(80)) == "malformed"


def test_both_sides_end_at_once() -> None:
    a, b = session_pair()
    ends = a.close(0.0), b.close(0.0)
    assert b.receive(one(ends[0]), 0.0) == (None, [])
    assert a.receive(one(ends[1]), 0.0) == (None, [])
    assert a.closed and b.closed


@pytest.mark.parametrize("ending", ["initiator", "responder", "both"])
@pytest.mark.parametrize("step", range(4))
def test_an_end_during_a_ratchet(ending: str, step: int) -> None:
    wire = Wire(SessionLimits(ratchet_frames=1))
    wire.send(0, SessionRecord(DATA, 1, b"one"))
    wire.send(1, SessionRecord(DATA, 1, b"two"))
    for side in (0, 0, 1, 1)[:step]:
        wire.deliver(side)
    for side in (0, 1):
        if ending in (("initiator", "responder")[side], "both"):
            wire.close(side)
    wire.drain()
    assert wire.got == (wire.sent[1], wire.sent[0])
    assert wire.sides[0].closed and wire.sides[1].closed


def test_an_unknown_reason_is_none_and_a_cut_carrier_is_no_end() -> None:
    a, b = session_pair()
    flow(a, b, a.send(DATA, 1, b"cut after this", 0.0))
    assert not b.closed
    b.receive(forged(a, CLOSE, b"\x1b[2Jrm -rf"), 0.0)
    assert b.closed and b.peer_reason is None


def test_a_dead_or_ended_session_has_no_keys_left() -> None:
    a, b = session_pair()
    refused(b, bytes(80))
    flow(*session_pair(), [])
    other, another = session_pair()
    flow(other, another, other.close(0.0))
    for session in (b, other, another):
        left = (session._tx, session._rx, session._next_rx, session._pending)
        assert left == (None, None, None, None) and session._root == b""
    assert a._tx is not None


def test_age_limits() -> None:
    a, b = session_pair(now=100.0)
    minute = 60.0

    def use(now: float) -> None:
        flow(a, b, a.send(DATA, 1, b"", now), now)

    now = 100.0
    while now < 100.0 + 60 * minute:
        assert a.age_limit(now) == b.age_limit(now) == "open"
        use(now)
        now += 5 * minute
    assert a.age_limit(100.0 + 60 * minute - 0.1) == "open"
    assert a.age_limit(100.0 + 60 * minute) == b.age_limit(100.0 + 60 * minute) == "no_new_streams"
    use(100.0 + 70 * minute)
    assert a.age_limit(100.0 + 75 * minute - 0.1) == "no_new_streams"
    assert a.age_limit(100.0 + 75 * minute) == b.age_limit(100.0 + 75 * minute) == "expired"
    assert a.close(100.0 + 80 * minute)  # ending it is still possible


def test_ten_idle_minutes_end_it_and_pings_are_no_use() -> None:
    a, b = session_pair()
    for now in range(0, 600, 5):
        assert a.age_limit(now) == b.age_limit(now) == "open"
        flow(a, b, a.send(PING, 0, b"", now), now)
    assert a.age_limit(600.0) == b.age_limit(600.0) == "expired"
    flow(b, a, b.send(DATA, 1, b"", 601.0), 601.0)
    assert a.age_limit(602.0) == b.age_limit(602.0) == "open"


def test_a_suspended_machine_finds_its_session_expired_and_working() -> None:
    a, b = session_pair()
    flow(a, b, a.send(DATA, 1, b"", 0.0))
    assert a.age_limit(8 * 3600.0) == "expired"
    assert flow(a, b, a.tick(8 * 3600.0), 10.0) == []
    assert flow(a, b, a.send(DATA, 1, b"still here", 8 * 3600.0), 10.0)[0].body == b"still here"


@settings(deadline=None, max_examples=60)
@given(body=st.binary(min_size=8, max_size=2000), limits=st.sampled_from([SessionLimits(), EVERY_FRAME]))
def test_nothing_that_is_said_is_on_the_wire(body: bytes, limits: SessionLimits) -> None:
    a, b = session_pair(limits)
    wire: list[bytes] = []
    sides = (a, b)
    queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
    for number in range(6):
        queues[number % 2].extend(sides[number % 2].send(DATA, 1, body, 0.0))
        for side in (0, 1):
            while queues[side]:
                wire.append(queues[side].popleft())
                queues[1 - side].extend(sides[1 - side].receive(wire[-1], 0.0)[1])
    seen = b"".join(wire)
    for start in range(len(body) - 7):
        if len(set(body[start : start + 8])) > 1 or body[start] == 0:
            assert body[start : start + 8] not in seen
    assert len(set(wire)) == len(wire)
    assert bytes(8) not in seen  # nor its padding
