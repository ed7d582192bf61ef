"""Streams inside a session: their states, their credit, whose turn it is.

A pure state machine, the same on both sides, that keeps the rules of streams.py. Calls queue what is to be
said, `next` gives it out record by record, `receive` takes a record of the other side and says what happened.
Sealing is session.py's, waiting and tasks are link.py's, what the bytes of a request mean is wire.py's.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from infraxa.net import codec, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.rates import Bucket
from infraxa.net.session import PING, PONG, SessionRecord
from infraxa.net.streams import (
    CANCEL,
    CHUNK,
    CREDIT,
    END,
    ERROR,
    LATE_RECORDS,
    MAX_CHUNK,
    MAX_CONTROL,
    MAX_OWN,
    MAX_PINGS,
    MAX_TELLS,
    MAX_WHOLE,
    MIN_GRANT,
    OPEN,
    OPENS_BACK,
    OPENS_BURST,
    OPENS_PER_S,
    PART,
    PINGS_PER_S,
    PROGRESS,
    PROGRESS_PER_S,
    RECORD_COST,
    SEND_ROOM,
    SILENT_S,
    STREAM_KINDS,
    TELL,
    TELL_BURST,
    TELL_BYTES_PER_S,
    TRANSITIONS,
    UNKNOWN_PER_S,
    WINDOW,
    Cancelled,
    Chunk,
    Ended,
    Event,
    Failed,
    Opened,
    Ponged,
    Progressed,
    State,
    Told,
)

_CREDIT: Final = struct.Struct(">I")
_PROGRESS: Final = struct.Struct(">QQ")
_FAILURE_BYTES: Final = 128


class _Stream:
    __slots__ = (
        "consumed",
        "credit",
        "ending",
        "mine",
        "parts",
        "parts_cost",
        "pending",
        "pending_bytes",
        "progress",
        "progress_in",
        "progress_out",
        "queued",
        "state",
        "window",
    )

    def __init__(self, mine: bool) -> None:
        self.mine = mine
        self.state: State = "open"
        self.credit = WINDOW
        """What this side may still send."""
        self.window = WINDOW
        """What the other side may still send."""
        self.consumed = 0
        """What was read here and not given back yet."""
        self.pending: deque[tuple[int, bytes]] = deque()
        self.pending_bytes = 0
        self.progress: bytes | None = None
        self.parts = bytearray()
        """The beginning of a chunk."""
        self.parts_cost = 0
        self.ending = False
        """Nothing more may be queued here."""
        self.queued = False
        """Stands in the row of those that have something to send."""
        self.progress_in = Bucket(2 * PROGRESS_PER_S, 2 * PROGRESS_PER_S * SILENT_S)
        self.progress_out = Bucket(PROGRESS_PER_S, 1)

    def sendable(self) -> bool:
        if self.progress is not None:
            return True
        if not self.pending:
            return False
        kind, body = self.pending[0]
        return kind not in (CHUNK, PART) or len(body) + RECORD_COST <= self.credit


class Mux:
    """All streams of one side of a session. Methods that are told a stream which is over do nothing: its end
    may just have come.

    What has come and was not consumed is at most WINDOW for each stream: the `in_flight` ones of the other
    side, and those that this side has opened.
    """

    def __init__(self, *, initiator: bool, in_flight: int = 1) -> None:
        self.in_flight = in_flight
        """Streams that the other side may have open; more are answered `busy`. May be changed at any time."""
        self._streams: dict[int, _Stream] = {}
        self._theirs = 0
        """How many of them the other side has opened."""
        self._next_mine = 1 if initiator else 2
        self._next_theirs = 2 if initiator else 1
        self._control: deque[SessionRecord] = deque()
        self._pong: bytes | None = None
        self._tells: deque[bytes] = deque()
        self._row: deque[int] = deque()
        """Streams with something to send, in turn; 0 stands for the messages outside of streams."""
        self._pings: deque[tuple[bytes, float]] = deque()
        self._late = 0
        """Bytes of credit that may still come on streams which this side has ended."""
        self._opens_out = Bucket(OPENS_PER_S, OPENS_BURST)
        self._opens_in = Bucket(2 * OPENS_PER_S, OPENS_BURST + OPENS_PER_S * SILENT_S)
        self._tells_out = Bucket(TELL_BYTES_PER_S, TELL_BURST)
        self._tells_in = Bucket(2 * TELL_BYTES_PER_S, TELL_BURST + TELL_BYTES_PER_S * SILENT_S)
        self._pings_in = Bucket(PINGS_PER_S, PINGS_PER_S * SILENT_S)
        self._unknown = Bucket(UNKNOWN_PER_S, UNKNOWN_PER_S * SILENT_S)

    def open(self, body: bytes, now: float) -> int | None:
        """Ask: the id of a new stream, None when too many are open or wait. After `open_wait`."""
        if len(body) > wire.MAX_BODY:
            raise ValueError(f"a request of {len(body)} bytes")
        mine = len(self._streams) - self._theirs
        if mine >= MAX_OWN or len(self._control) >= MAX_CONTROL or self._next_mine >= 2**32:
            return None
        self._opens_out.take(1, now)
        stream = self._next_mine
        self._next_mine += 2
        self._streams[stream] = _Stream(True)
        self._control.append(SessionRecord(OPEN, stream, body))
        return stream

    def open_wait(self, now: float) -> float:
        """Seconds until the other side expects another request; 0 for at once."""
        return self._opens_out.wait(1, now)

    def give_back(self, *, mine: bool) -> None:
        """An order was answered whole, which this side had made or not: see OPENS_BACK."""
        (self._opens_out if mine else self._opens_in).give(OPENS_BACK)

    def room(self, stream: int) -> bool:
        """Whether a chunk may be queued; always on a stream that is over, where it goes nowhere."""
        found = self._streams.get(stream)
        return found is None or found.pending_bytes < SEND_ROOM

    def send(self, stream: int, chunk: bytes) -> None:
        """Queue a chunk of 1 to MAX_CHUNK bytes. Raises ValueError for another size, or after `end`."""
        if not 0 < len(chunk) <= MAX_CHUNK:
            raise ValueError(f"a chunk of {len(chunk)} bytes")
        found = self._unended(stream)
        if found is None:
            return
        whole = len(chunk) <= MAX_WHOLE
        for start in range(0, len(chunk), wire.MAX_BODY):
            piece = chunk[start : start + wire.MAX_BODY]
            last = start + len(piece) == len(chunk)
            found.pending.append((PART if whole and not last else CHUNK, piece))
        found.pending_bytes += len(chunk)
        self._enqueue(stream, found)

    def end(self, stream: int) -> None:
        """Say that nothing more follows, after what waits. The answerer's end ends the stream."""
        self._finish(stream, END, b"")

    def fail(self, stream: int, failure: wire.Failure) -> None:
        """Answer that there is no (more) answer, after what waits."""
        self._finish(stream, ERROR, codec.encode(failure))

    def progress(self, stream: int, done: int, total: int, now: float) -> None:
        """Say how much of the work before the answer is done. What comes too often is left out."""
        found = self._unended(stream)
        if found is None:
            return
        if found.mine:
            raise ValueError("progress is said by the answerer")
        if found.progress_out.take(1, now):
            found.progress = _PROGRESS.pack(done, total)
            self._enqueue(stream, found)

    def cancel(self, stream: int) -> None:
        """End the stream at once, in both directions; what waits is dropped."""
        found = self._streams.get(stream)
        if found is not None:
            self._forget(stream, found, late=True)
            self._control.append(SessionRecord(CANCEL, stream, b""))

    def consumed(self, stream: int, cost: int) -> None:
        """The reader has a chunk of this cost: let the other side send as much again."""
        found = self._streams.get(stream)
        if found is None or (not found.mine and found.state == "asked"):
            return  # nothing more comes
        found.consumed += cost
        if found.consumed >= WINDOW // 2:
            self._control.append(SessionRecord(CREDIT, stream, _CREDIT.pack(found.consumed)))
            found.window += found.consumed
            found.consumed = 0

    def tell(self, body: bytes, now: float) -> bool:
        """Queue a message outside of streams. False: the other side, or its limit, is too slow."""
        if len(body) > wire.MAX_BODY:
            raise ValueError(f"a message of {len(body)} bytes")
        if len(self._tells) >= MAX_TELLS or not self._tells_out.take(len(body) + RECORD_COST, now):
            return False
        if not self._tells:
            self._row.append(0)
        self._tells.append(body)
        return True

    def ping(self, nonce: bytes, now: float) -> None:
        """Ask for a sign of life. `nonce`: 8 random bytes. Nothing when MAX_PINGS have no answer."""
        if len(self._pings) < MAX_PINGS:
            self._pings.append((nonce, now))
            self._control.append(SessionRecord(PING, 0, nonce))

    @property
    def ready(self) -> bool:
        """Whether `next` may have something."""
        return bool(self._row or self._control or self._pong)

    @property
    def idle(self) -> bool:
        """No stream is open."""
        return not self._streams

    def next(self) -> SessionRecord | None:
        """The next record to send, None when there is none; streams take turns."""
        if self._pong is not None:
            pong, self._pong = self._pong, None
            return SessionRecord(PONG, 0, pong)
        if self._control:
            return self._control.popleft()
        while self._row:
            stream = self._row.popleft()
            if stream == 0:
                body = self._tells.popleft()
                if self._tells:
                    self._row.append(0)
                return SessionRecord(TELL, 0, body)
            found = self._streams.get(stream)
            if found is None:
                continue
            found.queued = False
            if found.sendable():
                return self._take(stream, found)
        return None

    def receive(self, record: SessionRecord, now: float) -> Event | None:
        """What happened, None when it concerns nobody. Raises ProtocolError: the link is over."""
        kind, stream, body = record
        if kind in STREAM_KINDS:
            return self._receive_stream(kind, stream, body, now)
        if kind == OPEN:
            return self._receive_open(stream, body, now)
        if kind == PING or kind == PONG or kind == TELL:
            if stream != 0:
                raise ProtocolError("malformed", "a stream where there is none")
            if kind == TELL:
                _limit(self._tells_in, len(body) + RECORD_COST, now, "messages")
                return Told(body)
            if len(body) != 8:
                raise ProtocolError("malformed", "the length of a ping")
            if kind == PONG:
                return self._receive_pong(body)
            _limit(self._pings_in, 1, now, "pings")
            self._pong = body  # the newest is enough: it answers those before it
            return None
        _limit(self._unknown, 1, now, "unknown records")
        return None

    def _receive_open(self, stream: int, body: bytes, now: float) -> Event | None:
        if stream != self._next_theirs:
            raise ProtocolError("flow", "the id of a new stream")
        _limit(self._opens_in, 1, now, "requests")
        self._next_theirs += 2
        if self._theirs >= self.in_flight:
            self._late += WINDOW + LATE_RECORDS * RECORD_COST
            self._answer(SessionRecord(ERROR, stream, codec.encode(wire.Failure("busy", 1000))))
            return None
        self._streams[stream] = _Stream(False)
        self._theirs += 1
        return Opened(stream, body)

    def _receive_stream(self, kind: int, stream: int, body: bytes, now: float) -> Event | None:
        found = self._streams.get(stream)
        if found is None:
            self._receive_late(stream, body)
            return None
        state = TRANSITIONS.get((not found.mine, kind, found.state))
        if state is None:
            raise ProtocolError("flow", f"kind {kind} on a stream that is {found.state}")
        if kind in (CHUNK, PART):
            return self._receive_chunk(kind, stream, found, body)
        if kind == CREDIT:
            self._receive_credit(stream, found, body)
            return None
        if kind == PROGRESS:
            if len(body) != _PROGRESS.size:
                raise ProtocolError("malformed", "the length of a progress")
            _limit(found.progress_in, 1, now, "progress")
            return Progressed(stream, *_PROGRESS.unpack(body))
        if kind == ERROR:
            failure = codec.decode(body, wire.Failure, _FAILURE_BYTES)
        elif body:
            raise ProtocolError("malformed", "a body where there is none")
        if kind == END and found.parts:
            raise ProtocolError("malformed", "an end within a chunk")
        found.state = state
        if state == "closed":
            self._forget(stream, found, late=False)
        if kind == ERROR:
            return Failed(stream, failure)
        return Ended(stream) if kind == END else Cancelled(stream, found.pending_bytes)

    def _receive_chunk(self, kind: int, stream: int, found: _Stream, body: bytes) -> Event | None:
        cost = len(body) + RECORD_COST
        if not body:
            raise ProtocolError("malformed", "an empty chunk")
        if cost > found.window:
            raise ProtocolError("flow", "more than the credit")
        found.window -= cost
        if kind == CHUNK and not found.parts:
            return Chunk(stream, body, cost)
        found.parts += body
        found.parts_cost += cost
        if len(found.parts) > MAX_WHOLE:
            raise ProtocolError("too_large", "a chunk in parts")
        if kind == PART:
            return None
        event = Chunk(stream, bytes(found.parts), found.parts_cost)
        found.parts, found.parts_cost = bytearray(), 0
        return event

    def _receive_credit(self, stream: int, found: _Stream, body: bytes) -> None:
        if len(body) != _CREDIT.size:
            raise ProtocolError("malformed", "the length of a credit")
        (amount,) = _CREDIT.unpack(body)
        if amount < MIN_GRANT:
            raise ProtocolError("rate", "credit in small pieces")
        if found.credit + amount > WINDOW:
            raise ProtocolError("flow", "credit for what was not sent")
        found.credit += amount
        self._enqueue(stream, found)

    def _receive_late(self, stream: int, body: bytes) -> None:
        """What was under way on a stream when this side ended it."""
        mine = stream % 2 == self._next_mine % 2
        if stream == 0 or stream >= (self._next_mine if mine else self._next_theirs):
            raise ProtocolError("flow", "a stream that nobody opened")
        self._late -= len(body) + RECORD_COST
        if self._late < 0:
            raise ProtocolError("flow", "a stream that is over")

    def _receive_pong(self, nonce: bytes) -> Event:
        while self._pings:
            known, sent_at = self._pings.popleft()
            if known == nonce:
                return Ponged(sent_at)
        raise ProtocolError("not_asked", "a pong without its ping")

    def _unended(self, stream: int) -> _Stream | None:
        found = self._streams.get(stream)
        if found is not None and found.ending:
            raise ValueError("the stream was ended here")
        return found

    def _finish(self, stream: int, kind: int, body: bytes) -> None:
        found = self._unended(stream)
        if found is not None:
            if kind == ERROR and found.mine:
                raise ValueError("the asker cancels")
            found.ending = True
            found.pending.append((kind, body))
            self._enqueue(stream, found)

    def _enqueue(self, stream: int, found: _Stream) -> None:
        if not found.queued and found.sendable():
            found.queued = True
            self._row.append(stream)

    def _take(self, stream: int, found: _Stream) -> SessionRecord:
        if found.progress is not None:
            kind, body = PROGRESS, found.progress
            found.progress = None
        else:
            kind, body = found.pending.popleft()
        if kind in (CHUNK, PART):
            found.credit -= len(body) + RECORD_COST
            found.pending_bytes -= len(body)
        found.state = TRANSITIONS[found.mine, kind, found.state]
        if found.state == "closed":
            self._forget(stream, found, late=True)
        else:
            self._enqueue(stream, found)
        return SessionRecord(kind, stream, body)

    def _forget(self, stream: int, found: _Stream, *, late: bool) -> None:
        """The stream is over; `late`: this side ended it, so something may be under way."""
        del self._streams[stream]
        self._theirs -= not found.mine
        if late:
            self._late += found.window + LATE_RECORDS * RECORD_COST

    def _answer(self, record: SessionRecord) -> None:
        if len(self._control) >= MAX_CONTROL:
            raise ProtocolError("rate", "asks and does not read")
        self._control.append(record)


def _limit(bucket: Bucket, amount: float, now: float, what: str) -> None:
    if not bucket.take(amount, now):
        raise ProtocolError("rate", what)
