"""What the parts know, put together: the network as screens show it, and whose fault a failure is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import structs

from infraxa.net import addresses, codec
from infraxa.net.addresses import LOCAL
from infraxa.net.blame import DIALLED_S, Blame, blame
from infraxa.net.book import AddressBook
from infraxa.net.finder import Finder
from infraxa.net.gossip import Gossip
from infraxa.net.health import Health
from infraxa.net.link import Clock, Link
from infraxa.net.peering import Peering
from infraxa.net.reach import Decision
from infraxa.net.records import Card, Record
from infraxa.net.relay import is_relayed
from infraxa.net.status import Activity, Notice, PeerInfo, SeenNode


def seen_nodes(
    me: bytes, gossip: Gossip, peering: Peering, health: Health, finder: Finder, now: float
) -> list[SeenNode]:
    """Everybody but this node: those that are there first, then by the newest news."""
    shown = []
    for seen in gossip.nodes(now):
        if seen.id == me:
            continue
        peer = peering.peer(seen.id)
        rtt_ms = health.rtt_ms.get(seen.id, peer.link.rtt_ms if peer is not None else None)
        gone = peer is None and health.is_silent(seen.id, now - seen.age_s)
        direct = finder.reaches(seen.id, seen.addresses)
        shown.append(
            structs.replace(
                seen,
                rtt_ms=rtt_ms,
                status="offline" if gone else seen.status,
                via=_via(seen.id, finder.book),
                relayed=bool(seen.relays) and not direct,
                dialable=direct or bool(seen.relays),
                near=finder.near(seen.id),
                found_in=finder.found_in(seen.id),
            )
        )
    return sorted(shown, key=lambda seen: (seen.status == "offline", seen.age_s))


def peer_infos(gossip: Gossip, peering: Peering, clock: Clock) -> list[PeerInfo]:
    """Every link, those with peers first."""
    shown = []
    ahead = clock.unix_ms() - clock.monotonic() * 1000
    for peer in peering.peers():
        card = gossip.card(peer.id)
        shown.append(_peer_info(peer.link, peer.id, card.name if card is not None else "", "peer", ahead))
    for link in peering.sessions():
        card = gossip.card(link.peer) if link.peer is not None else None
        kind: Literal["order", "stranger"] = "order" if link.account is not None else "stranger"
        shown.append(_peer_info(link, link.peer or b"", card.name if card is not None else "", kind, ahead))
    return shown


def _peer_info(
    link: Link, node: bytes, name: str, kind: Literal["peer", "order", "stranger"], ahead: float
) -> PeerInfo:
    return PeerInfo(
        id=node,
        name=name,
        address=link.remote,
        direction="out" if link.initiator else "in",
        kind=kind,
        since_ms=int(ahead + link.since * 1000),
        rtt_ms=link.rtt_ms,
        bytes_in=link.bytes_in,
        bytes_out=link.bytes_out,
        account=link.account or b"",
        session=link.handshake_hash[:8],
    )


def find_fault(
    node: bytes, link: Link | None, peering: Peering, finder: Finder, *, networked: bool, now: float
) -> Blame:
    """Whose fault it is that `node` was not reached, or that nothing more comes on a link with it.
    `networked`: this machine has an address by which others can be reached."""
    if link is not None:
        hosts = [link.remote]
        relays: tuple[bytes, ...] = (addresses.parse(link.remote).relay,) if is_relayed(link) else ()
    else:
        hosts = [addresses.parse(place).host for place in finder.direct(node)]
        relays = () if hosts else finder.relays_of(node)
    carriers = (finder.carrier(relay) for relay in relays)
    alive = any(one is not None and now - one.heard_at < DIALLED_S for one in carriers)
    near = {addresses.group(host) for host in hosts} == {LOCAL}
    others = tuple(
        now - heard.at
        for heard in peering.heard()
        # Who is on the same local network says nothing about the way to somebody who is not.
        if heard.node != node
        and heard.node not in relays
        and (near or addresses.group(heard.remote) != LOCAL)
    )
    return blame(
        networked=networked or (near and all(addresses.read_ip(host).is_loopback for host in hosts)),
        silent_s=now - link.heard_at if link is not None else None,
        others_silent_s=others,
        relay="none" if not relays else "alive" if alive else "dead",
    )


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
