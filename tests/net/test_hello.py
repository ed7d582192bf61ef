"""A session begins: hello, welcome and every reason for a refusal, on both sides."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from infraxa.net.addresses import LOCAL
from infraxa.net.codec import decode, encode
from infraxa.net.door import Admitted, Door, DoorLimits, Refused
from infraxa.net.errors import ProtocolError
from infraxa.net.guard import MAX_BITS, MIN_BITS, solve
from infraxa.net.hello import (
    CLOCK_MS,
    HELLO_SIZE,
    CardRequest,
    Dialing,
    Prekeys,
    Reject,
    Rejection,
    prekey_id,
    read_time,
    reject,
)
from infraxa.net.noise import KeyPair
from infraxa.net.records import MAX_CARD
from infraxa.net.session import Session
from infraxa.net.wire import MAX_HELLO, MAX_REJECT

NODE, NETWORK, PSK = b"n" * 32, b"w" * 32, b"p" * 32
NOW_MS = 1_800_000_000_000
SOURCE = "192.0.2.0/24"
DATA = 32


class House:
    """A door and the clock beside it."""

    def __init__(self, **change: Any) -> None:
        self.randbytes = random.Random(1).randbytes
        self.prekeys = Prekeys((), self.randbytes)
        self.prekeys.rotate(NOW_MS)
        given: dict[str, Any] = {
            "node": NODE,
            "network": NETWORK,
            "prekeys": self.prekeys,
            "card": lambda: b"the card",
            "randbytes": self.randbytes,
            **change,
        }
        self.door = Door(**given)

    def knock(
        self, frame: bytes, *, source: str = SOURCE, now_ms: int = NOW_MS, now: float = 10.0
    ) -> Admitted | Refused:
        return self.door.receive(frame, source=source, now_ms=now_ms, now=now)

    def request(self, challenge: Reject | None = None) -> CardRequest:
        return CardRequest(network=NETWORK, randbytes=self.randbytes, challenge=challenge)

    def dialing(self, **change: Any) -> Dialing:
        given: dict[str, Any] = {
            "node": NODE,
            "kx": self.prekeys.stored[-1].public,
            "network": NETWORK,
            "randbytes": self.randbytes,
            **change,
        }
        return Dialing(**given)

    def admitted(self, frame: bytes, **place: Any) -> Admitted:
        answer = self.knock(frame, **place)
        assert isinstance(answer, Admitted)
        return answer

    def refused(self, frame: bytes, **place: Any) -> Refused:
        answer = self.knock(frame, **place)
        assert isinstance(answer, Refused)
        return answer


def told(refused: Refused) -> Reject:
    """What the dialer makes of a refusal."""
    assert refused.reply is not None and len(refused.reply) <= MAX_REJECT
    return CardRequest(network=NETWORK, randbytes=os.urandom).receive(refused.reply)


def speak(a: Session, b: Session) -> None:
    for sender, receiver in ((a, b), (b, a)):
        (frame,) = sender.send(DATA, 1, b"hello", 0.0)
        assert receiver.receive(frame, 0.0)[0] == (DATA, 1, b"hello")


@pytest.mark.parametrize("psk", [None, PSK], ids=["open", "private"])
def test_a_session_begins(psk: bytes | None) -> None:
    house = House(psk=psk)
    dialing = house.dialing(psk=psk)
    hello = dialing.hello(NOW_MS)
    admitted = house.admitted(hello, now_ms=NOW_MS + 5040)
    session = dialing.receive(admitted.reply, NOW_MS + 80, 3.0)
    assert isinstance(session, Session)
    assert session.initiator and not admitted.session.initiator
    assert session.handshake_hash == admitted.session.handshake_hash
    assert admitted.skew_ms == -5040 and dialing.skew_ms == 5000
    assert session.confirmed and not admitted.session.confirmed
    speak(session, admitted.session)


def test_each_session_is_another_and_no_hello_shows_who_calls() -> None:
    house = House()
    hellos = [house.dialing().hello(NOW_MS) for _ in range(3)]
    hashes = {house.admitted(hello).session.handshake_hash for hello in hellos}
    assert len(hashes) == 3
    # What they have in common: the start with the prekey id, and by chance a byte here and there.
    same = sum(len({hello[place] for hello in hellos}) == 1 for place in range(20, HELLO_SIZE))
    assert same < 10


@pytest.mark.parametrize("private", [False, True], ids=["open", "private"])
@pytest.mark.parametrize("ours_dials", [True, False], ids=["dialing", "answering"])
def test_with_an_independent_implementation(ours_dials: bool, private: bool) -> None:
    """The frames around the Noise messages are as documented, and so is the prologue."""
    house = House(psk=PSK if private else None)
    prekey = house.prekeys.stored[-1]
    name = f"Noise_IK{'psk2' if private else ''}_25519_ChaChaPoly_BLAKE2b"
    other = NoiseConnection.from_name(name.encode())
    other.set_prologue(b"infraxa/1\0" + NETWORK + NODE + prekey.public)
    if private:
        other.set_psks(PSK)
    mine = house.dialing(psk=PSK if private else None)
    hello = mine.hello(NOW_MS)
    moment = encode_time(NOW_MS + 7)
    if ours_dials:
        other.set_as_responder()
        other.set_keypair_from_private_bytes(Keypair.STATIC, prekey.secret)
        other.start_handshake()
        assert read_time(bytes(other.read_message(hello[36:]))) == NOW_MS
        session = mine.receive(b"ix\x02\x01" + bytes(other.write_message(moment)), NOW_MS, 0.0)
        assert isinstance(session, Session) and mine.skew_ms == 7
    else:
        other.set_as_initiator()
        other.set_keypair_from_private_bytes(Keypair.STATIC, os.urandom(32))
        other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, prekey.public)
        other.start_handshake()
        message = bytes(other.write_message(moment.ljust(HELLO_SIZE - 36 - 96, b"\0")))
        admitted = house.admitted(frame_for(message, prekey_id(prekey.public)))
        assert admitted.reply[:4] == b"ix\x02\x01" and admitted.skew_ms == 7
        assert read_time(bytes(other.read_message(admitted.reply[4:]))) == NOW_MS
        session = admitted.session
    assert session.handshake_hash == other.get_handshake_hash()
    (frame,) = session.send(DATA, 3, b"across", 0.0)
    assert other.decrypt(frame) == bytes((DATA, 0, 0, 0, 3, 0, 6)) + b"across" + bytes(51)
    record, _ = session.receive(other.encrypt(bytes((DATA, 0, 0, 0, 3, 0, 4)) + b"back" + bytes(53)), 0.0)
    assert record == (DATA, 3, b"back")


def encode_time(now_ms: int) -> bytes:
    data = encode(Reject("clock", now_ms))  # any array: its second field is a time
    body = b"\x91" + data[data.index(b"\xcf") : data.index(b"\xcf") + 9]
    return len(body).to_bytes(2, "big") + body


def frame_for(message: bytes, prekey: bytes, network: bytes = NETWORK, start: bytes = b"ix\x01\x01") -> bytes:
    """A hello as the format says, made without the code under test."""
    head = start + prekey + bytes(8)
    mac = hashlib.blake2b(head + message, key=network, digest_size=16, person=b"ix hello mac").digest()
    return head + mac + message


def test_a_card_request_is_answered_with_the_card_and_is_no_refusal() -> None:
    house = House(card=lambda: b"c" * MAX_CARD)
    request = house.request()
    refused = house.refused(request.hello())
    assert refused.reason is None and refused.reply is not None
    answer = request.receive(refused.reply)
    assert (answer.reason, answer.now_ms, answer.card) == ("prekey", NOW_MS, b"c" * MAX_CARD)
    assert len(refused.reply) <= min(MAX_REJECT, 2 * HELLO_SIZE)


def test_an_old_prekey_is_refused_with_the_new_card_and_the_next_try_succeeds() -> None:
    house = House()
    old = house.dialing()
    day = 24 * 3600 * 1000
    house.prekeys.rotate(NOW_MS + day)
    assert house.admitted(
        house.dialing(kx=house.prekeys.stored[0].public).hello(NOW_MS + day), now_ms=NOW_MS + day
    )
    later = NOW_MS + day + 10 * 60 * 1000
    refused = house.refused(old.hello(later), now_ms=later)
    answer = told(refused)
    assert refused.reason == answer.reason == "prekey" and answer.card == b"the card"
    again = house.dialing(challenge=answer)
    assert again.puzzle is None
    assert house.admitted(again.hello(later), now_ms=later)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": b"x" * 32}, "mac"),
        ({"node": b"x" * 32}, "tampered"),
        ({"psk": PSK}, "tampered"),
        ({"kx": KeyPair.of(b"x" * 32).public}, "prekey"),
    ],
    ids=["network", "node", "psk", "kx"],
)
def test_a_hello_for_somebody_else_is_refused(change: dict[str, bytes], reason: str) -> None:
    house = House()
    refused = house.refused(house.dialing(**change).hello(NOW_MS))
    assert refused.reason == reason
    if reason != "prekey":
        assert refused.reply is None


def test_another_psk_shows_at_the_dialer() -> None:
    house = House(psk=PSK)
    dialing = house.dialing(psk=b"q" * 32)
    admitted = house.admitted(dialing.hello(NOW_MS))
    with pytest.raises(ProtocolError) as caught:
        dialing.receive(admitted.reply, NOW_MS, 0.0)
    assert caught.value.reason == "tampered"


def test_one_who_does_not_know_the_network_learns_nothing() -> None:
    house = House()
    request = CardRequest(network=b"x" * 32, randbytes=os.urandom)
    assert house.refused(request.hello()) == Refused(None, "mac")
    for frame in (b"", b"GET / HTTP/1.1", bytes(HELLO_SIZE), b"ix\x01\x01" + bytes(HELLO_SIZE)):
        assert house.refused(frame).reply is None


@pytest.mark.parametrize("ahead", [-CLOCK_MS - 1, CLOCK_MS + 1])
def test_a_clock_too_far_away(ahead: int) -> None:
    house = House()
    refused = house.refused(house.dialing().hello(NOW_MS + ahead))
    answer = told(refused)
    assert refused.reason == answer.reason == "clock" and answer.now_ms == NOW_MS
    edge = CLOCK_MS if ahead > 0 else -CLOCK_MS
    assert house.admitted(house.dialing().hello(NOW_MS + edge)).skew_ms == edge


def test_a_copied_hello_is_refused_as_long_as_its_time_would_do() -> None:
    house = House()
    # Made by a dialer whose clock is as far ahead as may be: good until 2 × CLOCK_MS from now.
    hello = house.dialing().hello(NOW_MS + CLOCK_MS)
    assert house.admitted(hello)
    for seconds in (0, 1, 120, 239):
        place = {"now": 10.0 + seconds, "now_ms": NOW_MS + 1000 * seconds, "source": f"elsewhere {seconds}"}
        assert house.refused(hello, **place) == Refused(None, "replayed")
    later = {"now": 261.0, "now_ms": NOW_MS + 251_000}
    assert house.admitted(house.dialing().hello(NOW_MS + 251_000), **later)
    assert house.refused(hello, **later).reason == "clock"


def test_a_copy_that_comes_after_a_restart_begins_a_session_without_a_word() -> None:
    house = House()
    dialing = house.dialing()
    hello = dialing.hello(NOW_MS)
    first = house.admitted(hello)
    session = dialing.receive(first.reply, NOW_MS, 0.0)
    assert isinstance(session, Session)
    frames = session.send(DATA, 1, b"an order", 0.0)
    restarted = House(prekeys=house.prekeys)
    copied = restarted.admitted(hello).session
    with pytest.raises(ProtocolError) as caught:
        copied.receive(frames[0], 0.0)
    assert caught.value.reason == "tampered" and not copied.confirmed


def test_a_flood_of_one_source_is_refused_and_others_are_not() -> None:
    house = House()
    answers = [house.knock(house.dialing().hello(NOW_MS)) for _ in range(25)]
    assert sum(isinstance(answer, Admitted) for answer in answers) == 20
    last = answers[-1]
    assert isinstance(last, Refused) and last.reason == "rate" and told(last).reason == "rate"
    assert told(last).card == b""
    assert house.admitted(house.dialing().hello(NOW_MS), source="198.51.100.0/24")
    again = [house.knock(house.dialing().hello(NOW_MS), now=11.0) for _ in range(10)]
    assert sum(isinstance(answer, Admitted) for answer in again) == 5


def test_card_requests_count_as_hellos() -> None:
    house = House()
    requests = [house.request().hello() for _ in range(21)]
    assert [house.refused(frame).reason for frame in requests] == [None] * 20 + ["rate"]


def test_local_addresses_are_one_source_with_more_room() -> None:
    house = House()
    request = house.request().hello()
    reasons = [house.refused(request, source=LOCAL).reason for _ in range(201)]
    assert reasons == [None] * 200 + ["rate"]
    later = [house.refused(request, source=LOCAL, now=11.0).reason for _ in range(51)]
    assert later == [None] * 50 + ["rate"]


BUSY = DoorLimits(free_per_second=0.3)
"""Even one hello is a flood."""


def work(attempt: Dialing | CardRequest) -> bytes | None:
    return None if attempt.puzzle is None else solve(attempt.puzzle)


@pytest.mark.parametrize("kind", ["dialing", "card"])
def test_work_is_asked_for_under_load_and_lets_in(kind: str) -> None:
    house = House(limits=BUSY)

    def attempt(challenge: Reject | None = None) -> tuple[Dialing | CardRequest, bytes]:
        if kind == "card":
            request = house.request(challenge)
            return request, request.hello(work(request))
        dialing = house.dialing(challenge=challenge)
        return dialing, dialing.hello(NOW_MS, work(dialing))

    first, frame = attempt()
    assert first.puzzle is None
    refused = house.refused(frame)
    answer = told(refused)
    assert refused.reason == answer.reason == "proof_of_work"
    assert MIN_BITS <= answer.difficulty <= MAX_BITS and answer.card == b""
    second, frame = attempt(answer)
    assert second.puzzle is not None and second.puzzle.bits == answer.difficulty
    through = house.knock(frame, source="203.0.113.0/24", now=20.0)
    assert isinstance(through, Refused) and through.reason == "proof_of_work"  # work for another source
    through = house.knock(frame, now=30.0)
    if kind == "dialing":
        assert isinstance(through, Admitted)
        assert house.refused(frame, now=40.0).reason == "replayed"
    else:
        assert isinstance(through, Refused) and through.reason is None


def test_one_solution_lets_one_hello_in() -> None:
    """It is bound to the hello's ephemeral key, and that is remembered."""
    house = House(limits=BUSY)
    answer = told(house.refused(house.dialing().hello(NOW_MS)))
    dialing = house.dialing(challenge=answer)
    assert dialing.puzzle is not None
    proof = solve(dialing.puzzle)
    assert house.admitted(dialing.hello(NOW_MS, proof))
    for number in range(8):
        refused = house.refused(house.dialing().hello(NOW_MS, proof), source=SOURCE, now=10.0 + number)
        assert refused.reason == "proof_of_work"


def test_a_full_memory_of_hellos_refuses_until_the_oldest_has_gone() -> None:
    house = House(limits=DoorLimits(remembered=3))
    first = house.dialing().hello(NOW_MS)
    for frame in (first, house.dialing().hello(NOW_MS), house.dialing().hello(NOW_MS)):
        assert house.admitted(frame)
    refused = house.refused(house.dialing().hello(NOW_MS), now=255.0)
    assert refused.reason == told(refused).reason == "full"
    assert house.refused(first, now=255.0).reason == "replayed"
    assert house.admitted(house.dialing().hello(NOW_MS), now=261.0)


def test_another_version_is_told_so_and_nothing_older_is_spoken() -> None:
    house = House()
    frame = house.dialing().hello(NOW_MS)
    for major in (0, 2, 255):
        for other in (b"ix\x01" + bytes((major,)), b"ix\x01" + bytes((major,)) + frame[4:]):
            refused = house.refused(other)
            assert refused.reason == told(refused).reason == "version"
    # A door that pretends to be of another version gets no session, and no second way to try.
    newer = b"ix\x03\x02" + b"words of version 2"
    assert house.dialing().receive(newer, NOW_MS, 0.0) == Reject("version", 0)
    dialing = house.dialing()
    welcome = house.admitted(dialing.hello(NOW_MS), source="else").reply
    with pytest.raises(ProtocolError) as caught:
        dialing.receive(b"ix\x02\x02" + welcome[4:], NOW_MS, 0.0)
    assert caught.value.reason == "version"


def test_a_low_order_key_in_a_hello_or_a_card_is_refused() -> None:
    house = House()
    message = (1).to_bytes(32, "little") + os.urandom(HELLO_SIZE - 36 - 32)
    frame = frame_for(message, prekey_id(house.prekeys.stored[-1].public))
    assert house.refused(frame) == Refused(None, "malformed")
    with pytest.raises(ProtocolError):
        house.dialing(kx=(1).to_bytes(32, "little")).hello(NOW_MS)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, HELLO_SIZE - 1), bit=st.integers(0, 7), cut=st.integers(0, HELLO_SIZE - 1))
def test_a_changed_or_cut_hello_begins_nothing(place: int, bit: int, cut: int) -> None:
    house = House()
    frame = bytearray(house.dialing().hello(NOW_MS))
    assert house.refused(bytes(frame[:cut])).reason == "malformed"
    frame[place] ^= 1 << bit
    assert house.refused(bytes(frame)).reason in ("malformed", "version", "mac")


@settings(deadline=None, max_examples=200)
@given(place=st.integers(4, HELLO_SIZE - 1), bit=st.integers(0, 7))
def test_a_changed_hello_with_a_right_mac_begins_nothing(place: int, bit: int) -> None:
    """The mac is no secret: all that matters is in the handshake, or does not matter."""
    house = House()
    hello = bytearray(house.dialing().hello(NOW_MS))
    hello[place] ^= 1 << bit
    frame = frame_for(bytes(hello[36:]), bytes(hello[4:12]))
    answer = house.knock(frame)
    if 12 <= place < 36:  # the nonce and the mac, which frame_for makes again
        assert isinstance(answer, Admitted)
    else:
        assert isinstance(answer, Refused)
        assert answer.reason == ("prekey" if place < 12 else "tampered")


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, 115), bit=st.integers(0, 7), cut=st.integers(0, 115))
def test_a_changed_or_cut_welcome_begins_nothing(place: int, bit: int, cut: int) -> None:
    house = House()
    for change in ("flip", "cut"):
        dialing = house.dialing()
        reply = bytearray(house.admitted(dialing.hello(NOW_MS)).reply)
        assert len(reply) == 116
        if change == "flip":
            reply[place] ^= 1 << bit
        else:
            del reply[cut:]
        try:
            answer = dialing.receive(bytes(reply), NOW_MS, 0.0)
        except ProtocolError:
            continue
        assert isinstance(answer, Reject)  # a flipped bit can make it one: a hint, no session


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"ix\x02",
        b"ix\x03\x01",
        b"ix\x01\x01" + bytes(100),
        b"HTTP/1.1 400 Bad Request",
        b"ix\x03\x01" + bytes(100),
        b"ix\x03\x01\x92\xa6prekey\xff",
        b"ix\x03\x01\x92\xa9\x1b[2J nope\x01",
        b"ix\x02\x01" + bytes(112),
    ],
)
def test_an_answer_that_is_none_is_refused(answer: bytes) -> None:
    dialing = House().dialing()
    dialing.hello(NOW_MS)
    with pytest.raises(ProtocolError) as caught:
        dialing.receive(answer, NOW_MS, 0.0)
    assert caught.value.reason in ("malformed", "tampered")


@settings(deadline=None, max_examples=300)
@given(
    frame=st.binary(max_size=200), start=st.sampled_from([b"", b"ix\x01\x01", b"ix\x02\x01", b"ix\x03\x01"])
)
def test_no_bytes_break_either_side(frame: bytes, start: bytes) -> None:
    house = House()
    assert isinstance(house.knock(start + frame), Refused)
    dialing = house.dialing()
    dialing.hello(NOW_MS)
    try:
        assert isinstance(dialing.receive(start + frame, NOW_MS, 0.0), Reject)
    except ProtocolError:
        pass


def test_what_is_too_large_is_not_looked_at() -> None:
    house = House()
    no_prekey = bytes(8)
    assert house.refused(frame_for(bytes(MAX_HELLO - 36), no_prekey)).reason is None
    assert house.refused(frame_for(bytes(MAX_HELLO - 35), no_prekey)) == Refused(None, "too_large")
    for start in (b"ix\x02\x01", b"ix\x03\x01"):
        with pytest.raises(ProtocolError) as caught:
            house.request().receive(start.ljust(MAX_REJECT + 1, b"\0"))
        assert caught.value.reason == "too_large"


def test_a_door_cannot_ask_for_more_work_than_is_sane() -> None:
    for bits in (MAX_BITS + 1, 64, 255):
        hostile = reject("proof_of_work", NOW_MS, challenge=bytes(16), difficulty=bits)
        with pytest.raises(ProtocolError) as caught:
            CardRequest(network=NETWORK, randbytes=os.urandom).receive(hostile)
        assert caught.value.reason == "malformed"


def test_a_welcome_for_a_card_request_is_not_asked() -> None:
    house = House()
    welcome = house.admitted(house.dialing().hello(NOW_MS)).reply
    with pytest.raises(ProtocolError) as caught:
        CardRequest(network=NETWORK, randbytes=os.urandom).receive(welcome)
    assert caught.value.reason == "not_asked"


def test_a_refusal_can_be_made_before_a_hello_is_read() -> None:
    reasons: tuple[Rejection, ...] = ("prekey", "clock", "proof_of_work", "full", "rate", "version")
    for reason in reasons:
        frame = reject(reason, NOW_MS)
        answer = CardRequest(network=NETWORK, randbytes=os.urandom).receive(frame)
        assert answer == Reject(reason, NOW_MS)
        assert len(frame) < 40


def test_fields_that_a_later_version_appends_are_ignored() -> None:
    longer = b"\x97" + encode(Reject("full", NOW_MS))[1:] + b"\xa3new\xc3"
    assert decode(longer, Reject) == Reject("full", NOW_MS)


def test_no_answer_is_much_larger_than_its_question() -> None:
    house = House(card=lambda: b"c" * MAX_CARD, limits=BUSY)
    asked = house.request().hello()
    assert len(asked) == len(house.dialing().hello(NOW_MS)) == HELLO_SIZE <= MAX_HELLO
    for frame in (
        asked,
        house.dialing(kx=b"k" * 32).hello(NOW_MS),
        frame_for(bytes(HELLO_SIZE - 36), bytes(8)),
    ):
        for place in range(3):
            reply = house.refused(frame, source=f"source {place}", now=1000.0 * place).reply
            assert reply is not None and len(reply) <= 2 * len(frame)
    for short in (b"ix\x01\x02", frame_for(b"", bytes(8)), frame_for(bytes(HELLO_SIZE - 37), bytes(8))):
        reply = house.refused(short, now=1e6).reply
        assert reply is None or len(reply) < 40


def test_a_hello_can_be_made_once() -> None:
    dialing = House().dialing()
    dialing.hello(NOW_MS)
    with pytest.raises(ValueError, match="turn"):
        dialing.hello(NOW_MS)
