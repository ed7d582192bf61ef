"""How a node takes part in the network, as its person wants it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

HOSTS: Final = ("::", "0.0.0.0")


class NetworkOptions(Struct, frozen=True):
    """How a node takes part."""

    name: str
    network: str = "public"
    psk: bytes | None = None
    """The key of a private network."""
    joined: tuple[tuple[bytes, tuple[str, ...]], ...] = ()
    """Nodes of this network that invites named, and their addresses."""
    hosts: tuple[str, ...] = HOSTS
    """Where to listen."""
    port: int = 7741
    announce: bool = True
    lan: bool = True
    """Look for others on the local network."""
    bootstrap: tuple[str, ...] = ()
    port_mapping: bool = False
    relay: bool = False
