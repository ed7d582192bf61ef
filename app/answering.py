"""What whoever generates an answer says while it does: this machine's engine, or a driver on the network.

Plain values, and the shape that both have. Who generates is decided in conversing.py, how a driver is spoken
to in buyer.py.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from infraxa.engine.types import Delta, Finished, Progress
from infraxa.store.records import Bill, DriverPart, Reader


class AskBegan(msgspec.Struct, frozen=True, tag=True):
    """The model is ready and has been given the question."""

    model: str
    """Its name."""
    load_ms: int
    """How long the model was waited for."""
    driver: str = ""
    """Who answers a call, as people write its id; empty: this machine."""
    driver_name: str = ""
    """As it claims."""


class Waits(msgspec.Struct, frozen=True, tag=True):
    """Nothing comes, because of this; `what` continues the sentence "waiting for …"."""

    what: str
    since_ms: int
    """Milliseconds since the epoch."""
    limit_s: float
    """It is given up after so long."""


class Sent(msgspec.Struct, frozen=True, tag=True):
    """This node is about to be sent the prompt: it goes out when the next item is asked for."""

    reader: Reader


class Moved(msgspec.Struct, frozen=True, tag=True):
    """Who writes from here on; `part.at` is 0-based in what this generation gave so far."""

    part: DriverPart


class Billed(msgspec.Struct, frozen=True, tag=True):
    """What its orders cost so far; more may be known after the end."""

    bills: tuple[Bill, ...]


class Times(msgspec.Struct, frozen=True, tag=True):
    """What was measured besides the usage, said once before Finished."""

    connect_ms: float | None = None
    wait_ms: float | None = None
    blame: Literal["", "own", "relay", "peer"] = ""
    """Whose fault it was, when a driver failed."""
    dropped_turns: int = 0
    """How many of the oldest turns were left out."""


class Vectors(msgspec.Struct, frozen=True, tag=True):
    """What was asked for instead of an answer: all of it, once."""

    vectors: tuple[bytes, ...]
    """One for each text: float32, little-endian."""
    n_tokens: tuple[int, ...]
    """Of each text."""


Item = Progress | Delta | Waits | Sent | Moved | Billed | Times | Vectors | Finished


class Source(Protocol):
    """An answer on its way: items, the last of which is Finished. Never raises."""

    def __aiter__(self) -> Source: ...

    async def __anext__(self) -> Item: ...

    def cancel(self) -> None:
        """End it now: what came until then still comes, then Finished("cancelled")."""
