"""The state of the network as screens show it, gathered from the parts that know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import structs

from infraxa.net import codec
from infraxa.net.book import AddressBook
from infraxa.net.gossip import Gossip
from infraxa.net.health import Health
from infraxa.net.link import Link
from infraxa.net.peering import Peering
from infraxa.net.reach import Decision
from infraxa.net.records import Card, Record
from infraxa.net.status import Activity, Notice, SeenNode


def seen_nodes(
    me: bytes, gossip: Gossip, peering: Peering, health: Health, book: AddressBook, now: float
) -> list[SeenNode]:
    """Everybody but this node: those that are there first, then by the newest news."""
    shown = []
    for seen in gossip.nodes(now):
        if seen.id == me:
            continue
        peer = peering.peer(seen.id)
        rtt_ms = health.rtt_ms.get(seen.id, peer.link.rtt_ms if peer is not None else None)
        gone = seen.id in health.silent and peer is None
        shown.append(
            structs.replace(
                seen,
                rtt_ms=rtt_ms,
                status="offline" if gone else seen.status,
                via=_via(seen.id, book),
            )
        )
    return sorted(shown, key=lambda seen: (seen.status == "offline", seen.age_s))


def met(link: Link) -> SeenNode:
    """A node of which nothing is known yet but that there is a link with it."""
    card: Card | None = None
    if link.card is not None:  # of who was dialled; verified then
        record: Record = codec.decode(link.card, Record)
        card = codec.decode(record.signed.body, Card)
    return SeenNode(
        id=link.peer or b"",
        name=card.name if card is not None else "",
        status="online",
        age_s=0.0,
        addresses=card.addresses if card is not None else (),
        relays=card.relays if card is not None else (),
        slots=0,
        util=0,
        models=(),
        prices=(),
        first_token_ms=0,
        rtt_ms=link.rtt_ms,
        via="invite",
    )


def _via(node: bytes, book: AddressBook) -> Literal["lan", "gossip", "invite"]:
    if book.knows(node, "mdns"):
        return "lan"
    return "invite" if book.knows(node, "person") else "gossip"


def activity(given: Activity, peers: int, *, may_publish: bool) -> Activity:
    """`given`, made exact while the network runs."""
    if given != "online":
        return given
    if not may_publish:
        return "blocked"
    return "online" if peers else "alone"


def notices(
    own: Iterable[Notice], others: Iterable[Notice | None], decision: Decision | None
) -> list[Notice]:
    """All that is to be told, the own ones first."""
    found = [*own, *(notice for notice in others if notice is not None)]
    if decision is not None and decision.reachability == "unreachable":
        found.append(Notice("unreachable", decision.reason, decision.remedy))
    return found
