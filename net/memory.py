"""What the network asks to be remembered between runs, as plain values."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from infraxa.net.hello import Prekey


class KnownNode(Struct, frozen=True):
    """A node that was spoken to."""

    id: bytes
    name: str
    """As first claimed."""
    addresses: tuple[str, ...]
    """Those that worked, newest first."""
    last_contact_ms: int


class Memory(Struct, frozen=True):
    """What an earlier run kept."""

    seq: int = 0
    """The last number published under this node's key."""
    prekeys: tuple[Prekey, ...] = ()
    anchors: tuple[bytes, ...] = ()
    """Nodes to link with first."""
    known: tuple[KnownNode, ...] = ()


class Keeper(Protocol):
    """Keeps it. Each returns when it is safe from a crash, and raises NetError `not_written` otherwise."""

    async def seq_used(self, seq: int) -> None: ...

    async def prekeys_made(self, prekeys: tuple[Prekey, ...]) -> None: ...

    async def anchors_chosen(self, anchors: tuple[bytes, ...]) -> None: ...

    async def node_met(self, node: KnownNode) -> None: ...
