"""What the network tells the rest of the program: plain values for screens and commands."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from infraxa.net.records import ModelOffer, PriceNow, Status

Activity = Literal["off", "starting", "alone", "online", "blocked", "closing"]
"""`alone`: running, no peer. `blocked`: running, but it may not publish (the clock), or cannot listen."""

Reachability = Literal["unknown", "reachable", "relayed", "unreachable"]


class Waiting(Struct, frozen=True):
    """What is being waited for, and for how long at most."""

    what: str
    since_ms: int
    """Milliseconds since the epoch."""
    limit_s: float


class PeerInfo(Struct, frozen=True):
    """A link with another node."""

    id: bytes
    """Empty when the other side dialled and did not say which node it is."""
    name: str
    """As claimed: shown only through a filter."""
    address: str
    direction: Literal["in", "out"]
    kind: Literal["peer", "order", "stranger"]
    """`order`: a session of an account; `stranger`: one on which nobody said who it is."""
    since_ms: int
    rtt_ms: float | None
    bytes_in: int
    bytes_out: int
    protocol: int = 1
    account: bytes = b""
    """Of an order session: the key by which the provider knows the user, which is no node's."""
    session: bytes = b""
    """Tells this link from all others."""


class SeenNode(Struct, frozen=True):
    """A node that gossip or the LAN told of: its newest card and state."""

    id: bytes
    name: str
    status: Status
    age_s: float
    """Seconds since its last news."""
    addresses: tuple[str, ...]
    relays: tuple[bytes, ...]
    slots: int
    util: int
    models: tuple[ModelOffer, ...]
    prices: tuple[PriceNow, ...]
    first_token_ms: int
    rtt_ms: float | None = None
    """Measured here; None when it was not."""
    same_name_as: bytes | None = None
    """Another known node that had this name first: maybe an impostor."""
    via: Literal["lan", "gossip", "invite", "self"] = "gossip"
    reachable: bool = False
    """Others outside its network reached it by a dial-back, says its card."""
    relayed: bool = False
    """Reached only through a relay."""
    dialable: bool = True
    """A way to it is known here: an address that may be dialled, or a relay."""
    near: bool = False
    """This node reaches it at an address that is not routed globally, see Finder.near."""
    found_in: str = ""
    """In which network a dial from here found it, see Finder.found_in."""
    stranger_limit: int = 0
    """µcr that somebody who is not known to it may owe it, says its card."""
    free_daily: int = 0
    """Requests a day that it serves anybody free of charge, says its card."""


class Offer(Struct, frozen=True):
    """What this node offers to others, for its card."""

    models: tuple[ModelOffer, ...]
    slots: int
    """Requests that are served at the same time."""
    stranger_limit: int = 0
    """µcr that somebody who is not known here may owe."""
    free_daily: int = 0
    """Requests a day that anybody may make free of charge, when there is room."""


class Load(Struct, frozen=True):
    """How busy this node is, for its state."""

    status: Literal["online", "busy"] = "online"
    """`busy`: one more request would be refused."""
    util: int = 0
    """Busy slots ÷ slots, 255 = all."""
    first_token_ms: int = 0
    """Median of the last answers; 0 = not measured."""
    prices: tuple[PriceNow, ...] = ()
    """Now, of the models of the offer by their places; those that are not here cost what the card says."""


class Refused(Struct, frozen=True):
    """Something of a peer that was refused."""

    at_ms: int
    reason: str
    """A Refusal."""
    peer: bytes | None
    """None before the peer said who it is."""
    address: str


class Interface(Struct, frozen=True):
    """A network card of this machine, and whether nodes are told of it."""

    name: str
    addresses: tuple[str, ...]
    chosen: bool
    reason: str
    """`the default route`, `docker`, `a VPN`, `down`, …"""


class Notice(Struct, frozen=True):
    """Something that a person should know, until it is over."""

    code: str
    message: str
    remedy: str = ""


class NetworkStatus(Struct, frozen=True):
    """The network as it is now."""

    activity: Activity = "off"
    id: bytes = b""
    name: str = ""
    network: str = "public"
    listening: tuple[str, ...] = ()
    """Addresses at which this node listens and of which others are told."""
    reachability: Reachability = "unknown"
    reachability_reason: str = ""
    interfaces: tuple[Interface, ...] = ()
    mdns: Literal["off", "searching", "heard", "failed"] = "off"
    peers: int = 0
    known: int = 0
    """Nodes with a live lease."""
    clock_skew_ms: int | None = None
    """Median of the peers' clocks minus this one; None when nobody was asked."""
    waiting: Waiting | None = None
    notices: tuple[Notice, ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    gossip_in: int = 0
    """Records that came."""
    gossip_new: int = 0
    """Of them, those that were news."""
    refused: dict[str, int] = {}
    """How often, by reason."""
    relaying: int = 0
    """Circuits spliced for others."""
    mdns_echo: bool = False
    """This node's own announcement on the LAN came back: multicast works here."""
