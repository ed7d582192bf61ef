"""Calls by programs: what is asked for by a model's name, by whom it may be answered, what is told of it.

Plain values. How a call finds who answers it is in calling.py; how HTTP requests become calls is for the
gateway.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from infraxa.app.answering import AskBegan, Item
from infraxa.engine.types import Request

AUTO: Final = "auto"
"""The model of whoever the settings say answers new chats."""
MAX_TEXTS: Final = 2048
"""Of one call for embeddings."""


class Policy(Struct, frozen=True):
    """By whom a call may be answered."""

    where: Literal["auto", "local", "market"] = "auto"
    """`auto`: by this machine when it has the model, else by a driver."""
    driver: str | None = None
    """A node's id as people write it; None: infraxa chooses. A name is no id: anybody can take any."""
    max_price: int | None = None
    """µcr per 1M tokens, of the answer and of the prompt; None: as the setting says."""
    audited: bool = False
    """Of drivers, only those whose answers passed audits of this node."""


class Call(Struct, frozen=True):
    """One answer is asked for."""

    model: str
    """The name of a model of this machine or on offer, the model_id of one on offer in hex, or `auto`."""
    request: Request
    policy: Policy = Policy()


class EmbedCall(Struct, frozen=True):
    """A vector for each of these texts is asked for."""

    model: str
    texts: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_TEXTS)]
    policy: Policy = Policy()


class EmbeddedBy(Struct, frozen=True):
    """The vectors, and who made them."""

    vectors: tuple[bytes, ...]
    """One for each text: float32, little-endian, of length 1."""
    n_tokens: tuple[int, ...]
    """Of each text."""
    model: str
    """Its name."""
    driver: str = ""
    """As people write its id; empty: this machine."""
    driver_name: str = ""
    charge: int | None = None
    """µcr; None: nothing was asked for it."""


class CallableModel(Struct, frozen=True):
    """What can be written as the model of a call."""

    id: str
    where: Literal["local", "market"]
    context: int = 0
    """Tokens, the most of all providers; 0 = not known."""
    providers: int = 0
    """On the market: how many offer it now."""
    price_in: int = 0
    """µcr per 1M tokens, the lowest now."""
    price_out: int = 0
    created_ms: int = 0
    """When it was added to this machine, milliseconds since the epoch; 0 = not known."""


class CallSpending(Struct, frozen=True):
    """Of today, by calls; amounts in µcr."""

    spent: int
    held: int
    """For calls that run, or are not settled."""
    cap: int


CallEvent = AskBegan | Item
