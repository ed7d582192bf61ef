"""Streams inside a session, without one: two machines and the records under way between them."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infraxa.net import codec, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.mux import Mux
from infraxa.net.session import PING, PONG, SessionRecord
from infraxa.net.streams import (
    CANCEL,
    CHUNK,
    CREDIT,
    END,
    ERROR,
    MAX_CHUNK,
    MAX_CONTROL,
    MAX_OWN,
    MAX_TELLS,
    MAX_WHOLE,
    MIN_GRANT,
    OPEN,
    OPENS_BURST,
    OPENS_PER_S,
    PART,
    PROGRESS,
    RECORD_COST,
    SEND_ROOM,
    SILENT_S,
    TELL,
    WINDOW,
    Cancelled,
    Chunk,
    Ended,
    Event,
    Failed,
    Opened,
    Ponged,
    Progressed,
    Told,
)


def pair(in_flight: int = 4) -> tuple[Mux, Mux]:
    return (
        Mux(initiator=True, in_flight=in_flight),
        Mux(initiator=False, in_flight=in_flight),
    )


def opened(mux: Mux) -> int:
    stream = mux.open(b"request", 0.0)
    assert stream is not None
    return stream


def taken(mux: Mux) -> list[SessionRecord]:
    """All that it would send now."""
    records = []
    while (record := mux.next()) is not None:
        records.append(record)
    return records


def deliver(source: Mux, target: Mux, now: float = 0.0) -> list[Event]:
    events = (target.receive(record, now) for record in taken(source))
    return [event for event in events if event is not None]


def asked(in_flight: int = 4) -> tuple[Mux, Mux, int]:
    """A stream of the initiator that the other side knows of."""
    asker, answerer = pair(in_flight)
    stream = opened(asker)
    assert deliver(asker, answerer) == [Opened(stream, b"request")]
    return asker, answerer, stream


class Seen:
    """What one side of one stream has queued and got."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.unread: deque[Chunk] = deque()
        self.ended = False
        """It has ended its direction."""
        self.end_came = False
        self.stopped = False
        """Cancelled or failed: what was under way may be lost."""


class Side:
    def __init__(self, initiator: bool) -> None:
        self.mux = Mux(initiator=initiator, in_flight=3)
        self.streams: dict[int, Seen] = {}
        self.mine: set[int] = set()
        self.incoming: deque[SessionRecord] = deque()
        self.told: list[bytes] = []
        self.tells: list[bytes] = []


class Conversations(RuleBasedStateMachine):
    """Both sides do whatever they may, the carrier delivers whenever it likes."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.serial = 0
        self.sides = (Side(True), Side(False))

    sides_of = st.integers(0, 1)
    which = st.integers(0, 2**16)

    def pick(self, side: Side, which: int) -> int | None:
        return sorted(side.streams)[which % len(side.streams)] if side.streams else None

    @rule(at=sides_of)
    def open(self, at: int) -> None:
        side = self.sides[at]
        self.now += side.mux.open_wait(self.now)
        stream = side.mux.open(b"request", self.now)
        assert stream is not None
        assert stream % 2 == (1 if at == 0 else 0)
        side.mine.add(stream)
        side.streams[stream] = Seen()

    @rule(
        at=sides_of, which=which, size=st.sampled_from([4, 40, 5000, 59_900, 59_901, 65_535, 65_536, 300_000])
    )
    def send(self, at: int, which: int, size: int) -> None:
        side = self.sides[at]
        stream = self.pick(side, which)
        if stream is None:
            return
        seen = side.streams[stream]
        if seen.ended or seen.stopped or not side.mux.room(stream):
            return
        self.serial += 1
        chunk = self.serial.to_bytes(4, "big").ljust(size, b".")
        side.mux.send(stream, chunk)
        seen.sent.append(chunk)

    @rule(at=sides_of, which=which)
    def end(self, at: int, which: int) -> None:
        side = self.sides[at]
        stream = self.pick(side, which)
        if stream is not None and not side.streams[stream].ended:
            side.mux.end(stream)
            side.streams[stream].ended = True

    @rule(at=sides_of, which=which)
    def fail(self, at: int, which: int) -> None:
        side = self.sides[at]
        stream = self.pick(side, which)
        if stream is not None and stream not in side.mine and not side.streams[stream].ended:
            side.mux.fail(stream, wire.Failure("internal"))
            side.streams[stream].ended = True

    @rule(at=sides_of, which=which)
    def cancel(self, at: int, which: int) -> None:
        side = self.sides[at]
        stream = self.pick(side, which)
        if stream is not None:
            side.mux.cancel(stream)
            side.streams[stream].stopped = True

    @rule(at=sides_of, which=which, done=st.integers(0, 100))
    def progress(self, at: int, which: int, done: int) -> None:
        side = self.sides[at]
        stream = self.pick(side, which)
        if stream is not None and stream not in side.mine and not side.streams[stream].ended:
            side.mux.progress(stream, done, 100, self.now)

    @rule(at=sides_of)
    def tell(self, at: int) -> None:
        side = self.sides[at]
        self.serial += 1
        body = self.serial.to_bytes(4, "big")
        if side.mux.tell(body, self.now):
            side.tells.append(body)

    @rule(at=sides_of)
    def ping(self, at: int) -> None:
        self.serial += 1
        self.sides[at].mux.ping(self.serial.to_bytes(8, "big"), self.now)
        self.now += 1.0

    @rule(seconds=st.floats(0, SILENT_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(at=sides_of, limit=st.integers(1, 5))
    def limit(self, at: int, limit: int) -> None:
        self.sides[at].mux.in_flight = limit

    @rule(at=sides_of, count=st.integers(1, 40))
    def carry(self, at: int, count: int) -> None:
        """Some records leave a side."""
        for _ in range(count):
            record = self.sides[at].mux.next()
            if record is None:
                return
            self.sides[1 - at].incoming.append(record)

    @rule(at=sides_of, count=st.integers(1, 40))
    def arrive(self, at: int, count: int) -> None:
        for _ in range(min(count, len(self.sides[at].incoming))):
            self.take(self.sides[at])

    @rule(at=sides_of, which=which)
    def flow(self, at: int, which: int) -> None:
        """All that a side has to say arrives, and one stream of it is read."""
        side, other = self.sides[at], self.sides[1 - at]
        while (record := side.mux.next()) is not None:
            other.incoming.append(record)
        while other.incoming:
            self.take(other)
        stream = self.pick(other, which)
        if stream is not None:
            while other.streams[stream].unread:
                self.read_one(other, stream)

    @precondition(lambda self: any(seen.unread for side in self.sides for seen in side.streams.values()))
    @rule(at=sides_of, which=which, count=st.integers(1, 5))
    def read(self, at: int, which: int, count: int) -> None:
        side = self.sides[at]
        stream = self.pick(side, which)
        if stream is not None:
            for _ in range(min(count, len(side.streams[stream].unread))):
                self.read_one(side, stream)

    def read_one(self, side: Side, stream: int) -> None:
        chunk = side.streams[stream].unread.popleft()
        side.streams[stream].got.append(chunk.data)
        side.mux.consumed(stream, chunk.cost)

    def take(self, side: Side) -> None:
        event = side.mux.receive(side.incoming.popleft(), self.now)
        if isinstance(event, Opened):
            assert event.stream not in side.streams
            side.streams[event.stream] = Seen()
        elif isinstance(event, Told):
            side.told.append(event.body)
        elif isinstance(event, Ponged):
            assert event.sent_at <= self.now
        elif event is not None:
            seen = side.streams[event.stream]
            if isinstance(event, Chunk):
                assert not seen.stopped and not seen.end_came
                seen.unread.append(event)
            elif isinstance(event, Ended):
                seen.end_came = True
            elif isinstance(event, Failed | Cancelled):
                seen.stopped = True

    @invariant()
    def bounded(self) -> None:
        for side in getattr(self, "sides", ()):
            for stream, seen in side.streams.items():
                assert sum(chunk.cost for chunk in seen.unread) <= WINDOW
                state = side.mux._streams.get(stream)
                if state is not None:
                    assert 0 <= state.credit <= WINDOW
                    assert 0 <= state.window <= WINDOW
                    assert state.pending_bytes <= SEND_ROOM + MAX_CHUNK

    def teardown(self) -> None:
        """All that was queued arrives as it was sent, when everybody reads and the questions end first."""
        if not hasattr(self, "sides"):
            return
        answered = {
            stream
            for side in self.sides
            for stream, seen in side.streams.items()
            if stream not in side.mine and seen.ended
        }
        self.come_to_rest()
        for mine in (True, False):
            for side in self.sides:
                for stream, seen in side.streams.items():
                    if (stream in side.mine) == mine and not seen.ended:
                        side.mux.end(stream)
            self.come_to_rest()
        for at, side in enumerate(self.sides):
            other = self.sides[1 - at]
            assert side.mux.idle, "a stream was left open"
            assert other.told == side.tells
            for stream, seen in side.streams.items():
                heard = other.streams.get(stream, Seen())  # not there: it was refused
                expected = [piece for chunk in seen.sent for piece in arriving(chunk)]
                assert heard.got == expected[: len(heard.got)]
                if (
                    not seen.stopped
                    and not heard.stopped
                    and not (stream in side.mine and stream in answered)
                ):
                    assert heard.got == expected

    def come_to_rest(self) -> None:
        for _ in range(10_000):
            moved = False
            for at, side in enumerate(self.sides):
                for stream, seen in side.streams.items():
                    while seen.unread:
                        self.read_one(side, stream)
                        moved = True
                while (record := side.mux.next()) is not None:
                    self.sides[1 - at].incoming.append(record)
                    moved = True
                while side.incoming:
                    self.take(side)
                    moved = True
            if not moved:
                return
        raise AssertionError("the two sides never come to rest")


def arriving(chunk: bytes) -> list[bytes]:
    if len(chunk) <= MAX_WHOLE:
        return [chunk]
    return [chunk[at : at + wire.MAX_BODY] for at in range(0, len(chunk), wire.MAX_BODY)]


TestConversations = Conversations.TestCase
TestConversations.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_an_answer_comes_in_order_and_whole() -> None:
    asker, answerer, stream = asked()
    chunks = [b"a", b"b" * MAX_WHOLE, b"c" * 100]
    for chunk in chunks:
        answerer.send(stream, chunk)
    answerer.end(stream)
    events = deliver(answerer, asker)
    assert [event.data for event in events if isinstance(event, Chunk)] == chunks
    assert events[-1] == Ended(stream)
    assert asker.idle and answerer.idle


def test_a_chunk_longer_than_a_frame_comes_in_several() -> None:
    asker, answerer, stream = asked()
    answerer.send(stream, b"x" * 150_000)
    sizes = [len(event.data) for event in deliver(answerer, asker) if isinstance(event, Chunk)]
    assert sizes == [wire.MAX_BODY, wire.MAX_BODY, 150_000 - 2 * wire.MAX_BODY]


def test_who_does_not_read_stops_the_sender() -> None:
    asker, answerer, stream = asked()
    sent = 0
    while answerer.room(stream):
        answerer.send(stream, b"x" * 1000)
        sent += 1
        deliver(answerer, asker)
    assert sent * 1000 <= WINDOW + SEND_ROOM + 1000
    assert sent * 1000 > WINDOW - 10_000


def test_who_reads_lets_the_sender_go_on() -> None:
    asker, answerer, stream = asked()
    total = 0
    for _ in range(40):
        answerer.send(stream, b"x" * wire.MAX_BODY)
        for event in deliver(answerer, asker):
            assert isinstance(event, Chunk)
            total += len(event.data)
            asker.consumed(stream, event.cost)
        deliver(asker, answerer)
    assert total == 40 * wire.MAX_BODY


@pytest.mark.parametrize("size", [1, 1000, wire.MAX_BODY, MAX_WHOLE, 200_000])
def test_credit_comes_back_exactly(size: int) -> None:
    """However the bytes are cut, forty windows of them go through."""
    asker, answerer, stream = asked()
    left = 40 * WINDOW // (size + RECORD_COST)
    while left or answerer.ready:
        while left and answerer.room(stream):
            answerer.send(stream, bytes(size))
            left -= 1
        events = deliver(answerer, asker)
        assert events, "nothing moves any more"
        for event in events:
            assert isinstance(event, Chunk)
            asker.consumed(stream, event.cost)
        deliver(asker, answerer)


def test_a_long_answer_comes_after_its_question_has_ended() -> None:
    asker, answerer, stream = asked()
    asker.end(stream)
    deliver(asker, answerer)
    for _ in range(10):
        answerer.send(stream, bytes(MAX_WHOLE))
        for event in deliver(answerer, asker):
            assert isinstance(event, Chunk) and len(event.data) == MAX_WHOLE
            asker.consumed(stream, event.cost)
        deliver(asker, answerer)


def test_credit_lets_what_waits_go_on() -> None:
    asker, answerer, stream = asked()
    answerer.send(stream, bytes(MAX_CHUNK))
    got = 0
    for _ in range(20):
        for event in deliver(answerer, asker):
            assert isinstance(event, Chunk)
            got += len(event.data)
            asker.consumed(stream, event.cost)
        deliver(asker, answerer)
    assert got == MAX_CHUNK


def test_streams_take_turns() -> None:
    asker, answerer = pair()
    streams = [opened(asker), opened(asker)]
    deliver(asker, answerer)
    for stream in streams:
        for _ in range(3):
            answerer.send(stream, b"x")
    assert [record.stream for record in taken(answerer)] == streams * 3


def test_a_cancel_overtakes_what_waits_and_drops_it() -> None:
    asker, answerer, stream = asked()
    answerer.send(stream, b"x" * MAX_CHUNK)
    deliver(answerer, asker)
    answerer.cancel(stream)
    assert taken(answerer) == [SessionRecord(CANCEL, stream, b"")]
    assert asker.receive(SessionRecord(CANCEL, stream, b""), 0.0) == Cancelled(stream)
    assert asker.idle and answerer.idle


def test_what_was_under_way_when_a_stream_was_cancelled_is_ignored() -> None:
    asker, answerer, stream = asked()
    for _ in range(100):
        answerer.send(stream, b"x" * 100)
    under_way = taken(answerer)
    asker.cancel(stream)
    assert [asker.receive(record, 0.0) for record in under_way] == [None] * 100


def test_not_more_than_could_be_under_way_is_ignored() -> None:
    asker, _, stream = asked()
    asker.cancel(stream)
    with pytest.raises(ProtocolError) as error:
        for _ in range(10):
            asker.receive(SessionRecord(CHUNK, stream, b"x" * wire.MAX_BODY), 0.0)
    assert error.value.reason == "flow"


def test_a_request_beyond_the_limit_is_answered_busy() -> None:
    asker, answerer = pair(in_flight=1)
    first, second = opened(asker), opened(asker)
    assert deliver(asker, answerer) == [Opened(first, b"request")]
    assert deliver(answerer, asker) == [Failed(second, wire.Failure("busy", 1000))]
    answerer.in_flight = 2
    third = opened(asker)
    assert deliver(asker, answerer) == [Opened(third, b"request")]


def test_an_ended_request_makes_room_for_the_next() -> None:
    asker, answerer, first = asked(in_flight=1)
    answerer.end(first)
    deliver(answerer, asker)
    second = opened(asker)
    assert deliver(asker, answerer) == [Opened(second, b"request")]


def test_the_answer_goes_on_after_the_question_has_ended() -> None:
    asker, answerer, stream = asked()
    asker.send(stream, b"question")
    asker.end(stream)
    assert deliver(asker, answerer)[1:] == [Ended(stream)]
    answerer.send(stream, b"answer")
    answerer.progress(stream, 3, 7, 0.0)
    answerer.end(stream)
    events = deliver(answerer, asker)
    assert Progressed(stream, 3, 7) in events
    assert events[-1] == Ended(stream)


def test_an_answer_may_end_before_the_question_does() -> None:
    asker, answerer, stream = asked()
    answerer.end(stream)
    asker.send(stream, b"more of the question")
    records = taken(asker)
    assert deliver(answerer, asker) == [Ended(stream)]
    assert [answerer.receive(record, 0.0) for record in records] == [None]


def test_nothing_can_be_sent_after_the_end() -> None:
    asker, _, stream = asked()
    asker.end(stream)
    with pytest.raises(ValueError, match="ended"):
        asker.send(stream, b"x")


def test_progress_is_limited_at_the_sender() -> None:
    asker, answerer, stream = asked()
    count = 0
    for step in range(1000):
        answerer.progress(stream, step, 1000, step * 0.001)
        count += len(deliver(answerer, asker, step * 0.001))
    assert 5 <= count <= 12


def test_all_that_a_fair_peer_said_to_a_suspended_one_is_taken() -> None:
    """Twenty seconds of it at one instant."""
    asker, answerer, stream = asked()
    records = []
    for step in range(int(SILENT_S * 100)):
        now = step / 100
        answerer.progress(stream, step, 10_000, now)
        answerer.tell(b"x" * 2000, now)
        if step % 100 == 0:
            answerer.ping(bytes(8), now)
        if answerer.open_wait(now) == 0:
            answerer.open(b"request", now)
        records += taken(answerer)
    assert len(records) > 2000
    for record in records:
        asker.receive(record, 0.0)


def test_a_pong_answers_its_ping() -> None:
    one, other = pair()
    one.ping(b"12345678", 2.0)
    deliver(one, other)
    assert deliver(other, one) == [Ponged(2.0)]


def test_pings_to_who_does_not_write_cost_one_answer() -> None:
    one, other = pair()
    for number in range(50):
        other.receive(SessionRecord(PING, 0, number.to_bytes(8, "big")), 0.0)
    assert taken(other) == [SessionRecord(PONG, 0, (49).to_bytes(8, "big"))]
    assert one.idle


def test_tells_are_bounded() -> None:
    one, _ = pair()
    assert [one.tell(b"x", 0.0) for _ in range(MAX_TELLS + 1)] == [True] * MAX_TELLS + [False]
    taken(one)
    assert one.tell(b"x", 0.0)
    with pytest.raises(ValueError):
        one.tell(bytes(wire.MAX_BODY + 1), 0.0)


def test_tells_have_a_rate_at_the_sender() -> None:
    one, _ = pair()
    sent = 0
    while one.tell(b"x" * 10_000, 0.0):
        taken(one)
        sent += 1
    assert 90 <= sent <= 110
    assert one.tell(b"x" * 10_000, 1.0)


def test_own_streams_are_bounded() -> None:
    one, _ = pair()
    assert [one.open(b"x", 0.0) is None for _ in range(MAX_OWN + 1)] == [False] * MAX_OWN + [True]


def test_kinds_of_a_newer_version_are_ignored() -> None:
    one, _ = pair()
    for number in range(200):
        assert one.receive(SessionRecord(200, number, b"?"), 0.0) is None


WHOLE = bytes(8)
OTHER_END = codec.encode(wire.Failure("internal"))


@pytest.mark.parametrize(
    ("reason", "records"),
    [
        ("flow", [(OPEN, 2, b"")]),  # an id of the other parity
        ("flow", [(OPEN, 5, b"")]),  # one left out
        ("flow", [(OPEN, 1, b"")]),  # used again
        ("flow", [(OPEN, 0, b"")]),
        ("flow", [(CHUNK, 7, b"x")]),  # a stream that nobody opened
        ("flow", [(CHUNK, 0, b"x")]),
        ("flow", [(CHUNK, 2, b"x")]),
        ("malformed", [(CHUNK, 1, b"")]),
        ("malformed", [(PART, 1, b"")]),
        ("flow", [(END, 1, b""), (CHUNK, 1, b"x")]),
        ("flow", [(END, 1, b""), (END, 1, b"")]),
        ("malformed", [(END, 1, b"x")]),
        ("malformed", [(CANCEL, 1, b"x")]),
        ("malformed", [(PART, 1, b"x"), (END, 1, b"")]),
        ("flow", [(ERROR, 1, OTHER_END)]),  # who asks cancels
        ("flow", [(PROGRESS, 1, bytes(16))]),
        ("too_large", [(PART, 1, b"x" * wire.MAX_BODY)] * 2),
        ("flow", [(CHUNK, 1, b"x" * wire.MAX_BODY)] * 5),
        ("flow", [(CHUNK, 1, b"x")] * (WINDOW // (RECORD_COST + 1) + 1)),
        ("malformed", [(CREDIT, 1, b"")]),
        ("rate", [(CREDIT, 1, (MIN_GRANT - 1).to_bytes(4, "big"))]),
        ("rate", [(CREDIT, 1, bytes(4))]),
        ("flow", [(CREDIT, 1, MIN_GRANT.to_bytes(4, "big"))]),  # nothing was sent
        ("malformed", [(PING, 0, b"short")]),
        ("malformed", [(PING, 1, WHOLE)]),
        ("malformed", [(TELL, 1, b"x")]),
        ("not_asked", [(PONG, 0, WHOLE)]),
        ("rate", [(PING, 0, WHOLE)] * 200),
        ("rate", [(TELL, 0, b"x")] * 200_000),
        ("rate", [(TELL, 0, b"x" * wire.MAX_BODY)] * 200),
        ("rate", [(99, 0, b"")] * 1000),
        ("rate", [(kind, 3 + 2 * n, b"") for n in range(2000) for kind in (OPEN, CANCEL)]),
    ],
)
def test_what_breaks_the_protocol(reason: str, records: list[tuple[int, int, bytes]]) -> None:
    """Said by the asker of stream 1."""
    _, answerer, _ = asked(in_flight=10_000)
    with pytest.raises(ProtocolError) as error:
        for record in records:
            answerer.receive(SessionRecord(*record), 0.0)
            taken(answerer)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("reason", "records"),
    [
        ("malformed", [(ERROR, 1, b"?")]),
        ("too_large", [(ERROR, 1, bytes(200))]),
        ("malformed", [(PROGRESS, 1, bytes(15))]),
        ("rate", [(PROGRESS, 1, bytes(16))] * 1000),
        ("flow", [(END, 1, b""), (CHUNK, 1, b"x")]),  # after its own end nothing can be under way
        ("flow", [(ERROR, 1, OTHER_END), (END, 1, b"")]),
        ("flow", [(CANCEL, 1, b""), (CANCEL, 1, b"")]),
    ],
)
def test_what_breaks_the_protocol_in_an_answer(reason: str, records: list[tuple[int, int, bytes]]) -> None:
    asker, _, _ = asked()
    with pytest.raises(ProtocolError) as error:
        for record in records:
            asker.receive(SessionRecord(*record), 0.0)
    assert error.value.reason == reason


@given(
    st.lists(
        st.tuples(
            st.integers(PING, 30),
            st.integers(0, 6),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([b"", bytes(8), bytes(16), MIN_GRANT.to_bytes(4, "big"), OTHER_END]),
            ),
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_taken_or_breaks_the_protocol(records: list[tuple[int, int, bytes]]) -> None:
    _, answerer, stream = asked()
    answerer.send(stream, bytes(1000))
    answerer.ping(bytes(8), 0.0)
    assert answerer.open(b"", 0.0) == 2
    try:
        for record in records:
            answerer.receive(SessionRecord(*record), 0.0)
            taken(answerer)
    except ProtocolError:
        return
    assert len(answerer._streams) <= answerer.in_flight + 1


def test_who_asks_and_never_reads_the_refusals_is_cut_off() -> None:
    """At a pace that is within all rates."""
    _, answerer = pair(in_flight=0)
    with pytest.raises(ProtocolError) as error:
        for number in range(2 * MAX_CONTROL):
            answerer.receive(SessionRecord(OPEN, 1 + 2 * number, b""), number / OPENS_PER_S)
    assert error.value.reason == "rate"
    assert len(taken(answerer)) == MAX_CONTROL


def test_a_fair_asker_may_go_on_for_hours() -> None:
    asker, answerer = pair(in_flight=1)
    now = 0.0
    for _ in range(int(OPENS_BURST) * 5):
        now += asker.open_wait(now)
        stream = asker.open(b"request", now)
        assert stream is not None
        deliver(asker, answerer, now)
        answerer.end(stream)
        assert deliver(answerer, asker, now) == [Ended(stream)]


def test_who_gets_whole_answers_may_ask_for_more() -> None:
    """As many as are answered, and no more: what is given back beyond that is not kept."""
    asker, answerer = pair(in_flight=1)

    def ask() -> None:
        assert asker.open_wait(0.0) == 0
        stream = asker.open(b"request", 0.0)
        assert stream is not None
        assert deliver(asker, answerer) == [Opened(stream, b"request")]
        answerer.end(stream)
        assert deliver(answerer, asker) == [Ended(stream)]

    for _ in range(int(OPENS_BURST) * 20):
        for _ in range(4):  # a quote, the order, its receipt, and the answer to that
            ask()
        answerer.give_back(mine=False)
        asker.give_back(mine=True)
    for _ in range(int(OPENS_BURST)):
        ask()
    assert asker.open_wait(0.0) > 0
