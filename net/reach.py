"""Can others reach this node from outside, and at which address? Pure: evidence in, a decision out.

Where this node may be reached, the likeliest first: global addresses of its own cards; the address that a
port mapping gives; the address that most peers see it at, of two groups at least, with the port it listens
at. Whether it is reached there only somebody else can say: a peer that dials back, or one that came in.
Peers may lie, so of one group only the newest word counts, and the majority of groups decides; a lie costs a
wrong line in a card for a while. Peers on the local network say nothing of outside.

Here is also the other side: whom this node dials back, and how often.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from infraxa.net import addresses
from infraxa.net.addresses import LOCAL
from infraxa.net.errors import NetError
from infraxa.net.guard import Rates
from infraxa.net.rates import Bucket
from infraxa.net.records import MAX_ADDRESSES
from infraxa.net.status import Reachability

AGREE: Final = 2
"""Groups that must see the same address before it is believed."""
REFUTED: Final = 2
"""Groups that failed to reach any address, before this node counts as not reachable."""
ASK_S: Final = 20.0
"""How long an answer to a question is waited for."""
KNOWN_S: Final = 30 * 60.0
"""How long a word counts."""
RECHECK_S: Final = 15 * 60.0
"""How often it is asked again, where this node is reached; elsewhere three times as often."""
PATIENCE_S: Final = 60.0
"""With a peer from outside and no result after so long, a relay is asked for meanwhile."""
HIDDEN_S: Final = 5.0
"""The same for a node without a global address of its own: most of these are behind a router."""
MAX_PEERS: Final = 64
RELAYED: Final = "relay"
"""What a Pipe through a relay says of where the other side is."""

DIAL_BACK_S: Final = 60.0
"""One dial-back per group in this time, and BACK_PER_MINUTE of all."""
BACK_PER_MINUTE: Final = 12


class Decision(Struct, frozen=True):
    """What is known of this node's reachability, and what to do next."""

    reachability: Reachability
    reason: str
    """A sentence for the person."""
    remedy: str = ""
    announce: tuple[str, ...] = ()
    """Addresses for the card, confirmed ones first. None that was refuted, nor one that only peers claim."""
    ask: tuple[bytes, str] | None = None
    """Ask this peer to dial this address back, now; see `asked`."""
    relay_wanted: bool = False
    """Reserve a place at a relay."""
    next_s: float = RECHECK_S
    """Decide again after so many seconds, if nothing happens before."""


class _Peer(Struct):
    group: str
    seen_at: str = ""
    asked: dict[str, float] = {}
    """Address → when this peer was last asked about it."""


class Reach:
    """Collects what peers say of this node's addresses."""

    def __init__(self, port: int, now: float) -> None:
        """`port`: at which this node listens."""
        self._port = port
        self._own: tuple[str, ...] = ()
        self._mapped = ""
        self._relays = 0
        self._peers: dict[bytes, _Peer] = {}
        self._words: dict[str, dict[str, tuple[bool, float]]] = {}
        """Address → group → whether it got through, and when it said so."""
        self._local_reached = False
        self._pending: tuple[bytes, str, float] | None = None
        self._since: float | None = None
        """Since when there is somebody from outside to ask."""

    def cards(self, hosts: tuple[str, ...]) -> None:
        """The machine's addresses are `hosts` (interfaces.Survey): all that was known of others is void."""
        self._own = tuple(
            addresses.format(addresses.at(ip, self._port))
            for ip in map(addresses.read_ip, hosts)
            if addresses.place(ip) == "global"
        )
        self._words.clear()
        self._local_reached = False
        self._pending = None
        for peer in self._peers.values():
            peer.seen_at = ""
            peer.asked = {}
        self._since = None

    def linked(self, peer: bytes, group: str) -> None:
        """A link with `peer` stands, in either direction. `group`: addresses.group of where it is. Whoever
        is linked through a relay sees the relay and not this node, so it is no help."""
        if group != RELAYED and len(self._peers) < MAX_PEERS:
            self._peers.setdefault(peer, _Peer(group))

    def unlinked(self, peer: bytes) -> None:
        self._peers.pop(peer, None)
        if self._pending is not None and self._pending[0] == peer:
            self._pending = None

    def observed(self, peer: bytes, text: str) -> None:
        """`peer` says at which address it sees this node: an IP address, or an address with any port."""
        known = self._peers.get(peer)
        if known is None or known.group == LOCAL:
            return
        try:
            ip = addresses.parse(text).ip if "/" in text else addresses.read_ip(text)
        except (NetError, ValueError):
            return
        if ip is not None and addresses.place(ip) == "global":
            known.seen_at = addresses.format(addresses.at(ip, self._port))

    def mapped(self, text: str) -> None:
        """A router maps `text` to this node; empty when it does not any more."""
        self._mapped = text

    def relayed(self, count: int) -> None:
        """How many relays keep a place for this node."""
        self._relays = count

    def came_in(self, group: str, now: float) -> None:
        """Somebody of `group`, who was not asked to, completed a handshake on a connection that it made."""
        if group in (LOCAL, RELAYED):
            self._local_reached = self._local_reached or group == LOCAL
            return
        # Nobody knows which address it dialled; with one candidate of its kind there is no doubt.
        candidates = [text for text in self._candidates() if (":" in _host(text)) == (":" in group)]
        if len(candidates) == 1:
            self._say(candidates[0], group, True, now)

    def asked(self, peer: bytes, text: str, now: float) -> None:
        """`Decision.ask` is being carried out."""
        known = self._peers.get(peer)
        if known is not None:
            known.asked = {other: at for other, at in known.asked.items() if now - at < RECHECK_S} | {
                text: now
            }
            self._pending = (peer, text, now)

    def dialled_back(self, peer: bytes, text: str, reached: bool | None, now: float) -> None:
        """What `peer` answered; None when it would not or could not try."""
        if self._pending is not None and self._pending[:2] == (peer, text):
            self._pending = None
        known = self._peers.get(peer)
        if known is None or reached is None:
            return
        if known.group == LOCAL:
            self._local_reached = self._local_reached or reached
        elif text in self._candidates():
            self._say(text, known.group, reached, now)

    def decide(self, now: float) -> Decision:
        """The state at `now`, and the next step."""
        candidates = self._candidates()
        for words in self._words.values():
            for group in [group for group, (_, at) in words.items() if now - at >= KNOWN_S]:
                del words[group]
        if self._pending is not None and now - self._pending[2] >= ASK_S:
            self._pending = None
        if all(peer.group == LOCAL for peer in self._peers.values()):
            self._since = None
        elif self._since is None:
            self._since = now

        reached = [text for text in candidates if self._verdict(text) is True]
        open_ = [text for text in candidates if self._verdict(text) is None]
        told = [text for text in open_ if text in self._own or text == self._mapped]
        state, reason, relay_wanted = self._state(candidates, reached, open_, now)
        remedy = ""
        if state == "unreachable":
            remedy = f"Allow TCP port {self._port} in the firewall"
            if not self._mapped:
                remedy += (
                    ", and forward it in the router or let infraxa ask the router (setting port_mapping)"
                )
            remedy += ". Until then relays are used where there are any."
        ask = None if self._pending is not None else self._question(candidates, bool(reached), now)
        next_s = self._next(ask is not None, bool(reached), now)
        announce = tuple(reached + told)[:MAX_ADDRESSES]
        return Decision(state, reason, remedy, announce, ask, relay_wanted, next_s)

    def _state(
        self, candidates: list[str], reached: list[str], open_: list[str], now: float
    ) -> tuple[Reachability, str, bool]:
        """The state, why, and whether a relay is wanted."""
        if reached:
            return "reachable", "Nodes outside reached this one.", False
        if self._relays:
            return "relayed", "Nodes outside reach this one through a relay, which cannot read along.", True
        if candidates and not open_:
            reason = "Nodes outside tried to reach this one and could not: a router or a firewall is between."
            return "unreachable", reason, True
        if self._since is None:
            reason = "No node outside the local network is linked, so none could be asked."
            return "unknown", f"{'Reached on the local network. ' * self._local_reached}{reason}", False
        late = now - self._since >= PATIENCE_S
        if late and not candidates:
            return "unreachable", "No two of this node's peers see it at the same address.", True
        hidden = not self._own and now - self._since >= HIDDEN_S
        return "unknown", "Nodes outside are being asked whether they reach this one.", late or hidden

    def _say(self, text: str, group: str, reached: bool, now: float) -> None:
        if group == _group(text):  # a neighbour: not outside
            return
        words = self._words.setdefault(text, {})
        words.pop(group, None)
        words[group] = (reached, now)
        if len(words) > MAX_PEERS:
            del words[next(iter(words))]

    def _candidates(self) -> list[str]:
        found = dict.fromkeys(self._own)
        if self._mapped:
            found[self._mapped] = None
        groups: dict[str, set[str]] = {}
        for peer in self._peers.values():
            if peer.seen_at:
                groups.setdefault(peer.seen_at, set()).add(peer.group)
        for six in (False, True):
            seen = [text for text in groups if text.startswith("ws://[") == six]
            most = max(seen, key=lambda text: len(groups[text]), default="")
            if most and len(groups[most]) >= AGREE:
                found[most] = None
        kept = list(found)[:MAX_ADDRESSES]
        for text in self._words.keys() - set(kept):
            del self._words[text]
        return kept

    def _verdict(self, text: str) -> bool | None:
        """Whether others get through to `text`; None when that is open."""
        words = [reached for reached, _ in self._words.get(text, {}).values()]
        good = sum(words)
        bad = len(words) - good
        if good and good >= bad:
            return True
        return False if bad >= REFUTED else None

    def _question(self, candidates: list[str], reached: bool, now: float) -> tuple[bytes, str] | None:
        """Whom to ask about what: the address of which the least is known, and the peer that was asked about
        it the longest ago. A peer dials only the host that it sees, so it is asked about no other."""
        wait = RECHECK_S if reached else RECHECK_S / 3
        best: tuple[tuple[int, float], bytes, str] | None = None
        for text in candidates:
            words = self._words.get(text, {})
            settled = self._verdict(text) is not None and len(words) >= AGREE
            if settled and any(now - at < wait for _, at in words.values()):
                continue
            for id_, peer in self._peers.items():
                asked_at = peer.asked.get(text, float("-inf"))
                _, word_at = words.get(peer.group, (False, float("-inf")))
                if (
                    peer.group in (LOCAL, _group(text))
                    or (peer.seen_at and _host(peer.seen_at) != _host(text))
                    or now - max(asked_at, word_at) < wait
                ):
                    continue
                rank = (len(words), asked_at)
                if best is None or rank < best[0]:
                    best = (rank, id_, text)
        return None if best is None else (best[1], best[2])

    def _next(self, asking: bool, reached: bool, now: float) -> float:
        waits = [ASK_S] if asking or self._pending is not None else []
        if not reached and self._since is not None:
            waited = now - self._since
            patiences = (PATIENCE_S,) if self._own else (HIDDEN_S, PATIENCE_S)
            waits += [max(1.0, patience - waited) for patience in patiences if waited < patience]
        return min(waits, default=RECHECK_S if reached else RECHECK_S / 3)


def _host(text: str) -> str:
    return addresses.parse(text).host


def _group(text: str) -> str:
    return addresses.group(_host(text))


class DialBacks:
    """Serving others: which requests to be dialled back are carried out. A node that dialled wherever it is
    told would be a weapon and a scanner, so it dials only the host that asks, at a port of a node."""

    def __init__(self) -> None:
        self._groups = Rates(sources=256)
        self._all = Bucket(BACK_PER_MINUTE / 60, BACK_PER_MINUTE)

    def admit(
        self, text: str, remote: str, now: float
    ) -> addresses.Address | Literal["not_allowed", "rate_limited"]:
        """The address to dial, or why not. `text`: of wire.DialBack. `remote`: the IP address from which the
        link comes, as its socket says; of a relayed link it is none, and nothing is dialled."""
        try:
            address = addresses.parse(text)
            host = addresses.read_ip(remote)
        except (NetError, ValueError):
            return "not_allowed"
        if address.ip != host or not addresses.may_dial(address, "mdns"):
            return "not_allowed"
        group = addresses.group(remote)
        if group == LOCAL:
            group = str(host)
        if not self._groups.allow(group, 1 / DIAL_BACK_S, 2.0, now) or not self._all.take(1.0, now):
            return "rate_limited"
        return address
