"""The network in words: what a state, a refusal or a difference of clocks means, and what helps.

Only texts are here; what is shown where is the business of the screens and commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from infraxa.net.status import NetworkStatus, Reachability

SKEW_WARN_MS = 60_000
"""A clock that is further off than this is worth a word."""


class Meaning(NamedTuple):
    """A word of the protocol for people."""

    label: str
    sentence: str


REFUSED: Mapping[str, Meaning] = {
    "malformed": Meaning("malformed", "sent something that cannot be read"),
    "too_large": Meaning("too large", "sent more in one message than is allowed"),
    "bad_signature": Meaning("bad signature", "sent a record that its owner did not sign"),
    "tampered": Meaning("tampered", "its sealed traffic was changed, repeated or put in another order"),
    "truncated": Meaning("cut off", "the connection ended without a sealed goodbye"),
    "replayed": Meaning("replayed", "repeated a hello or an order that was used before"),
    "clock": Meaning("clock", "its clock and this one are too far apart"),
    "prekey": Meaning("old key", "used a key of this node that is no longer valid"),
    "mac": Meaning("not for us", "knocked without knowing this node's key: a scanner, or an old card"),
    "proof_of_work": Meaning("no proof of work", "did not do the small sum asked for when many knock"),
    "version": Meaning("other version", "speaks another major version of infraxa"),
    "network": Meaning("other network", "belongs to another network"),
    "rate": Meaning("too often", "asked for more in this time than is allowed"),
    "full": Meaning("no room", "came when there was no room for it here"),
    "address": Meaning("address", "told an address that nobody may be sent to"),
    "equivocation": Meaning("two stories", "signed two different records with one number"),
    "stale": Meaning("out of date", "sent a record that is old, or from the future"),
    "not_asked": Meaning("not asked for", "answered what was not asked, or spoke for another node"),
    "not_allowed": Meaning("not allowed", "asked for what it may not have"),
    "flow": Meaning("flow", "sent more than it was given room for"),
    "origin": Meaning("web page", "a web page in a browser tried to connect"),
    "silent": Meaning("silent", "said nothing in time"),
}
"""What a peer did, for each net.errors.Refusal; to follow its name."""


def refused(reason: str) -> Meaning:
    """What a reason means; an unknown one, of a newer infraxa, is shown as it is."""
    return REFUSED.get(reason) or Meaning(reason.replace("_", " "), "was refused")


REACHABLE: Mapping[Reachability, Meaning] = {
    "unknown": Meaning("not known yet", "Peers in two other networks must agree on where this node is seen."),
    "reachable": Meaning("from outside", ""),
    "relayed": Meaning("through a relay", "Others come in by a node that hands sealed traffic on."),
    "unreachable": Meaning(
        "from this LAN only",
        "Chats work all the same. To be dialled from outside, let the port through in router and firewall, "
        "or turn on port mapping (F9).",
    ),
}
"""How others reach this node, and what follows from it."""

MDNS: Mapping[str, Meaning] = {
    "off": Meaning("off", "Other nodes on this network are not looked for."),
    "searching": Meaning("nobody heard", "Another infraxa on this network is found by itself."),
    "heard": Meaning("others heard", ""),
    "failed": Meaning(
        "does not work", "Multicast is blocked: a firewall, a VPN or a guest network. An invite works."
    ),
}
"""Finding nodes on the local network."""


def activity(status: NetworkStatus) -> str:
    """What the network does, in a word."""
    match status.activity:
        case "online":
            return peers_text(status.peers)
        case "alone":
            return "no peers"
        case "off":
            return "offline"
        case other:
            return other


def peers_text(count: int) -> str:
    """`1 peer`, `6 peers`."""
    return f"{count} peer{'s' * (count != 1)}"


def clock(skew_ms: int | None) -> Meaning:
    """How far this machine's clock is off, by the median of the peers'; positive: theirs are ahead."""
    if skew_ms is None:
        return Meaning("not compared yet", "")
    if abs(skew_ms) < 1000:
        return Meaning("right", "")
    way = "behind" if skew_ms > 0 else "ahead of"
    off = abs(skew_ms) / 1000
    label = f"{f'{off:.0f} s' if off < 600 else span(off)} {way} the peers'"
    return Meaning(label, "Set the clock of this machine." if abs(skew_ms) >= SKEW_WARN_MS else "")


def span(seconds: float) -> str:
    """A time in its largest unit: `7 s`, `12 min`, `3 h`, `5 d`."""
    value = max(0, int(seconds))
    if value < 60:
        return f"{value} s"
    if value < 3600:
        return f"{value // 60} min"
    if value < 48 * 3600:
        return f"{value // 3600} h"
    return f"{value // 86400} d"
