"""What others are told of the gateway, and how it is asked for. Plain values, quick to import."""

from __future__ import annotations

import msgspec

from infraxa.engine.types import ErrorInfo


class GatewayStatus(msgspec.Struct, frozen=True):
    """Whether it is open."""

    address: str
    """`http://127.0.0.1:8790`; empty while it is closed."""
    error: ErrorInfo | None = None
    """Why it could not be opened as the settings say."""
    has_given_key: bool = False
    """Its key is one that was given by whoever opened it, not the one that is kept."""


CLOSED = GatewayStatus("")


class GatewayWish(msgspec.Struct, frozen=True):
    """How somebody who asks for the gateway wants it; None: as the settings say."""

    port: int | None = None
    """0: any free one."""
    host: str | None = None
    """Said by a person for this time: it may be in reach of other machines."""
    key: str | None = None
    """Instead of the one that is kept."""
