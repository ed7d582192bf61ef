"""What the tables of the Network view show of peers, nodes and refusals: columns, rows, and one row in full.

Names and addresses are claims of strangers: they pass a filter here and are never markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
from textual.content import Content

from infraxa.app.network_words import refused, span
from infraxa.app.sizes import size_text
from infraxa.app.tui.widgets.table import Cell, Column, Row
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.addresses import DEFAULT_PORT
from infraxa.net.identity import SHORT_LENGTH, display, id_text, short_id
from infraxa.net.status import PeerInfo, Refused, SeenNode

_NEVER = float("inf")
_ID = SHORT_LENGTH + 1
"""Characters of `·7k2m9x4q`."""

PEERS = (
    Column("peer", 16, grow=2, tail=_ID),
    Column("way", 3, from_width=56),
    Column("address", 15, grow=3, from_width=40),
    Column("round trip", 11, right=True),
    Column("linked", 7, right=True, from_width=66, descending=True),
    Column("traffic", 8, right=True, from_width=46, below_width=96, descending=True),
    Column("received", 9, right=True, from_width=96, descending=True),
    Column("sent", 8, right=True, from_width=96, descending=True),
)
NODES = (
    Column("node", 16, grow=2, tail=_ID),
    Column("state", 8),
    Column("heard", 7, right=True),
    Column("by", 6, from_width=52),
    Column("round trip", 11, right=True, from_width=96),
    Column("address", 15, grow=3, from_width=62),
)
REFUSALS = (
    Column("when", 7, right=True),
    Column("reason", 17),
    Column("from", 17, grow=1),
    Column("what it did", 30, grow=3, from_width=96),
)


def address_text(address: str) -> str:
    """`192.0.2.1:7741`, `relay 7k2m9x4q`."""
    text = one_line(address, 128)
    if text.startswith("relay:"):
        return f"relay {text.removeprefix('relay:')[:SHORT_LENGTH]}"
    return text.removeprefix("ws://")


def _short_address(address: str) -> str:
    """An address without the port that all nodes have unless told otherwise."""
    text = address_text(address)
    host = text.removesuffix(f":{DEFAULT_PORT}")
    return host.strip("[]") if host != text else text


def round_trip(milliseconds: float | None) -> str:
    """`0.4 ms`, `23 ms`; a dash when it was not measured."""
    if milliseconds is None:
        return "–"
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def peer_key(peer: PeerInfo) -> bytes:
    """What tells a link from others: with a peer there may be two, one each way, and one that takes the place
    of another is the same row; of sessions there may be many with one node, or with who knows whom."""
    return peer.id + peer.direction.encode() if peer.kind == "peer" else peer.session


def _other_side(peer: PeerInfo) -> str:
    """An account is not a node: who dials for an order does not say which one it is."""
    if peer.id:
        return display(peer.name, peer.id)
    return f"account·{short_id(peer.account)}" if peer.account else "stranger"


def peer_rows(peers: Iterable[PeerInfo], now_ms: int) -> list[Row]:
    """`now_ms`: milliseconds since the epoch."""
    rows: list[Row] = []
    for peer in peers:
        who, address = _other_side(peer), _short_address(peer.address)
        age = (now_ms - peer.since_ms) / 1000
        total = peer.bytes_in + peer.bytes_out
        rows.append(
            Row(
                peer_key(peer),
                (
                    who,
                    peer.direction,
                    address,
                    round_trip(peer.rtt_ms),
                    span(age),
                    size_text(total),
                    size_text(peer.bytes_in),
                    size_text(peer.bytes_out),
                ),
                (
                    who.casefold(),
                    peer.direction,
                    address,
                    _NEVER if peer.rtt_ms is None else peer.rtt_ms,
                    age,
                    total,
                    peer.bytes_in,
                    peer.bytes_out,
                ),
                peer,
            )
        )
    return rows


def node_rows(nodes: Iterable[SeenNode], older_s: float) -> list[Row]:
    """`older_s`: seconds since `nodes` were listed."""
    rows: list[Row] = []
    for node in nodes:
        who = display(node.name, node.id)
        address = _short_address(node.addresses[0]) if node.addresses else _without_address(node)
        age = node.age_s + older_s
        state: Cell = (
            ("online", ".table--good")
            if node.status == "online"
            else ("busy", ".table--warn")
            if node.status == "busy"
            else (node.status, ".table--aside")
        )
        rows.append(
            Row(
                node.id,
                (
                    (f"! {who}", ".table--warn") if node.same_name_as is not None else who,
                    state,
                    span(age),
                    node.via,
                    round_trip(node.rtt_ms),
                    address,
                ),
                (
                    who.casefold(),
                    node.status,
                    age,
                    node.via,
                    _NEVER if node.rtt_ms is None else node.rtt_ms,
                    address,
                ),
                node,
            )
        )
    return rows


def _without_address(node: SeenNode) -> str:
    if node.relays:
        return f"relay {short_id(node.relays[0])}"
    return "on this LAN" if node.via == "lan" else "none told"


def refused_rows(refusals: Iterable[Refused], now_ms: int) -> list[Row]:
    """Newest first, as they come; `now_ms`: milliseconds since the epoch."""
    rows: list[Row] = []
    same: Counter[bytes] = Counter()
    for refusal in refusals:
        meaning = refused(refusal.reason)
        age = (now_ms - refusal.at_ms) / 1000
        key = msgspec.msgpack.encode(refusal)
        same[key] += 1
        rows.append(
            Row(
                b"%b %d" % (key, same[key]),  # many may come in one millisecond
                (span(age), one_line(meaning.label, 40), _from(refusal), meaning.sentence),
                (age, meaning.label, _from(refusal), meaning.sentence),
                refusal,
            )
        )
    return rows


def _from(refusal: Refused) -> str:
    if refusal.peer is not None:
        return short_id(refusal.peer)
    return address_text(refusal.address) or "unknown"


def in_full(thing: object) -> Content:
    """All of what a row is of that the row has no room for, in two lines."""
    match thing:
        case PeerInfo():
            return _peer_in_full(thing)
        case SeenNode():
            return _node_in_full(thing)
        case Refused():
            return _refused_in_full(thing)
        case _:
            return Content("")


def _peer_in_full(peer: PeerInfo) -> Content:
    match peer.kind:
        case "peer":
            kind = ""
        case "order":
            kind = " · a session for orders"
        case "stranger":
            kind = " · nobody said who dials" if peer.direction == "in" else " · it is not told who dials"
    whose = (
        id_text(peer.id) if peer.id else f"account {id_text(peer.account)}" if peer.account else "A stranger"
    )
    return _two_lines(whose, f"{one_line(peer.address, 128)} · protocol {peer.protocol}{kind}")


def _node_in_full(node: SeenNode) -> Content:
    if node.same_name_as is not None:
        first = short_id(node.same_name_as)
        return _two_lines(
            id_text(node.id), f"Not the first with this name: {first} had it before.", "$text-warning"
        )
    where = [one_line(address, 128) for address in node.addresses]
    where += [f"by relay {short_id(relay)}" for relay in node.relays]
    return _two_lines(id_text(node.id), " · ".join(where) or "It told no address.")


def _refused_in_full(refusal: Refused) -> Content:
    meaning = refused(refusal.reason)
    who = id_text(refusal.peer) if refusal.peer is not None else "Somebody who did not say who it is"
    where = f" · {one_line(refusal.address, 128)}" if refusal.address else ""
    return _two_lines(f"{meaning.sentence[0].upper()}{meaning.sentence[1:]}.", f"{who}{where}")


def _two_lines(first: str, second: str, style: str = "$foreground 60%") -> Content:
    return Content.assemble(first, "\n", (second, style))


def counts_text(counts: dict[str, int]) -> str:
    """`12 too often · 3 bad signature`, the most frequent first."""
    frequent = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return " · ".join(
        f"{count:,} {one_line(refused(reason).label, 40)}" for reason, count in frequent if count
    )
