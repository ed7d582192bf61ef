"""What is said on the streams of a session: kinds of records, who may say which when, limits, events.

One request is one stream. Ids are counted up by two, odd ones are of the session's initiator; none is left
out or used again. Whoever opens a stream is its asker, the other side answers:

    asker      OPEN (PART | CHUNK)* [END]                   END: the question is complete
    answerer   (PART | CHUNK | PROGRESS)* (END | ERROR)     either one ends the stream, in both directions
    both       CANCEL ends the stream at once;  CREDIT allows the other side so many bytes more

A chunk of up to MAX_WHOLE bytes arrives whole, in one or two records; a longer one arrives as several chunks
that joined are the one sent.

Credit: each direction of a stream begins with WINDOW. A record of a chunk costs its bytes and RECORD_COST, so
that what tiny ones cost to keep is paid for too. The reader gives credit back as its user consumes; one who
does not read stops the sender.

All that costs no credit has a rate. The bursts are what a fair peer can have sent before it takes a silent
side for dead: a process that was suspended finds all of it at once, and must not blame the sender.

The machine that keeps to this is in mux.py; PING and PONG are the session's, see session.py.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from infraxa.net import wire

OPEN: Final = 18
CHUNK: Final = 19
PART: Final = 20
END: Final = 21
ERROR: Final = 22
CANCEL: Final = 23
CREDIT: Final = 24
PROGRESS: Final = 25
TELL: Final = 26

WINDOW: Final = 256 * 1024
"""Bytes that a side may send on a stream before the other has read any."""
RECORD_COST: Final = 64
"""Bytes of credit that a record costs on top of its body."""
MIN_GRANT: Final = WINDOW // 4
"""Bytes of credit in one CREDIT at least, so that there are few of them. This side gives WINDOW / 2."""
MAX_CHUNK: Final = 1024 * 1024
"""Bytes of one chunk at the sender."""
MAX_WHOLE: Final = wire.MAX_FRAME
"""Bytes of a chunk that arrives whole: a sealed frame that is handed on is one chunk."""
SEND_ROOM: Final = 64 * 1024
"""Bytes of a stream that wait for credit or the carrier, beyond which there is no room for another chunk."""
MAX_CONTROL: Final = 1024
"""Records that wait for the carrier besides chunks; more mean that the other side asks and does not read."""
MAX_OWN: Final = 512
"""Streams that this side has open at a time."""
MAX_TELLS: Final = 64
"""Messages outside of streams that wait for the carrier."""
MAX_PINGS: Final = 8
"""Pings without an answer."""
LATE_RECORDS: Final = 256
"""Records besides chunks that may be under way on a stream that this side has ended."""

OPENS_PER_S: Final = 50.0
"""Requests that this side makes, after a burst of OPENS_BURST; of the other side twice as many are taken in
the long run. Those that are refused or cancelled at once are counted as well."""
OPENS_BURST: Final = 100.0
OPENS_BACK: Final = 8.0
"""Requests that an order which was answered whole gives back to who made it: its own, what is asked about its
money, and as many once more. So whoever buys much may ask much, and nobody else."""
TELL_BYTES_PER_S: Final = 256.0 * 1024
"""Bytes outside of streams that this side says, after a burst of TELL_BURST; of the other side twice as many
are taken in the long run. The gossip has stricter limits of its own."""
TELL_BURST: Final = 1024.0 * 1024
PROGRESS_PER_S: Final = 10.0
"""Of this side, on one stream; more are left out. Twice as many are taken."""
PINGS_PER_S: Final = 4.0
UNKNOWN_PER_S: Final = 20.0
"""Records of kinds that a newer version has, ignored."""
SILENT_S: Final = 20.0
"""Seconds of which all that a fair peer says may come at once."""


class Opened(NamedTuple):
    """The other side asks. `body`: the encoded request."""

    stream: int
    body: bytes


class Chunk(NamedTuple):
    """A chunk came. `cost` is to be given to `consumed` when its reader has it."""

    stream: int
    data: bytes
    cost: int


class Ended(NamedTuple):
    """The other side has said all it had to say on this stream."""

    stream: int


class Failed(NamedTuple):
    stream: int
    failure: wire.Failure


class Cancelled(NamedTuple):
    stream: int
    unsent: int = 0
    """Bytes of chunks that were queued here and will not leave."""


class Progressed(NamedTuple):
    stream: int
    done: int
    total: int


class Told(NamedTuple):
    """A message outside of streams. `body`: encoded."""

    body: bytes


class Ponged(NamedTuple):
    """The answer to the ping of this time."""

    sent_at: float


Event = Opened | Chunk | Ended | Failed | Cancelled | Progressed | Told | Ponged

State = Literal["open", "asked", "closed"]
"""`asked`: the question is complete, the answer is not. A closed stream is forgotten."""

# (whether the asker says it, kind, state) -> the state after; what is not here breaks the protocol
TRANSITIONS: Final[dict[tuple[bool, int, State], State]] = {
    (True, PART, "open"): "open",
    (True, CHUNK, "open"): "open",
    (True, END, "open"): "asked",
    (True, CREDIT, "open"): "open",
    (True, CREDIT, "asked"): "asked",
    (True, CANCEL, "open"): "closed",
    (True, CANCEL, "asked"): "closed",
    (False, PART, "open"): "open",
    (False, PART, "asked"): "asked",
    (False, CHUNK, "open"): "open",
    (False, CHUNK, "asked"): "asked",
    (False, PROGRESS, "open"): "open",
    (False, PROGRESS, "asked"): "asked",
    (False, CREDIT, "open"): "open",
    (False, CREDIT, "asked"): "asked",  # was under way when the question ended
    (False, END, "open"): "closed",
    (False, END, "asked"): "closed",
    (False, ERROR, "open"): "closed",
    (False, ERROR, "asked"): "closed",
    (False, CANCEL, "open"): "closed",
    (False, CANCEL, "asked"): "closed",
}
STREAM_KINDS: Final = frozenset(kind for _, kind, _ in TRANSITIONS)
