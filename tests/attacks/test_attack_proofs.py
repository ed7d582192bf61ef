"""Proofs of fraud that prove nothing, or that nobody needs: lies, keys that accuse themselves, floods."""

from __future__ import annotations

from collections.abc import Iterable

from infraxa.net import proofs
from infraxa.net.commands import Send
from infraxa.net.errors import ProtocolError
from infraxa.net.wire import MAX_PROOF, Proof
from tests.attacks import report
from tests.attacks.crowd import Victim
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, a_card, a_state, node_id

PEERS = [PEER, *(node_id(number) for number in range(500, 511))]
HONEST = node_id(1)
TRUE = b"true "


class Court:
    """What a victim is told, and what it does about it."""

    def __init__(self, *, gullible: bool = False, known: Iterable[bytes] = (HONEST,)) -> None:
        self.gullible = gullible
        self.checked = self.told = 0
        self.caught: set[bytes] = set()
        self.victim = Victim(*PEERS)
        for node in known:
            card = a_card(node, START_MS)
            self.victim.learn(PEERS[-1], (card, a_state(card, START_MS)))
        self.proofs = self.victim.gossip.proofs
        self.proofs.check = self._check
        self.proofs.on_caught = lambda provider, proof: self.caught.add(provider)

    def _check(self, proof: bytes) -> bytes | None:
        self.checked += 1
        true = proof.startswith(TRUE)
        return proof[len(TRUE) : len(TRUE) + 32] if true or self.gullible else None

    def hear(self, peer: bytes, proof: bytes) -> None:
        victim = self.victim
        if peer in victim.dropped:
            return
        out = victim.gossip.receive(peer, Proof(proof), victim.now, victim.now_ms)
        self.told += sum(isinstance(one, Send) and isinstance(one.message, Proof) for one in out)
        victim.do(out)


def test_lies_about_an_honest_provider() -> None:
    count = report.scale(200, 2000)
    lies = [b"lies " + HONEST + number.to_bytes(4, "big") for number in range(count)]
    weak, ours = Court(gullible=True), Court()
    for court in (weak, ours):
        for lie in lies:
            court.hear(PEER, lie)
    assert weak.caught == {HONEST} and weak.told
    assert not ours.caught and not ours.told and ours.checked == 1
    assert ours.victim.dropped == [PEER] and ours.victim.refused == {"bad_signature": 1}
    report.tell(
        f"proofs: {count} lies about an honest provider",
        weakened="excluded, and told on",
        ours="bad_signature, banned for an hour",
        cost="1 check",
    )


def test_keys_that_accuse_themselves() -> None:
    """Anybody can make keys, and true proofs against them, to fill the memory and the links of others."""
    count = report.scale(500, 5000)
    found = []
    for weakened in (True, False):
        court = Court()
        if weakened:
            court.proofs._on_network = lambda node: True
        for number in range(count):
            court.victim.wait(1)
            court.hear(PEERS[number % 10], TRUE + node_id(1000 + number))
        found.append((len(court.proofs), court.told))
    (kept, told), ours = found
    assert kept == proofs.KEPT and told > 500 and ours == (0, 0)
    report.tell(
        f"proofs: {count} keys that accuse themselves",
        weakened=f"{kept} kept, told on {told} times",
        ours="none is kept or told on",
        cost="a check each",
    )


def test_true_proofs_in_masses() -> None:
    """Of nodes that are on the network, each of them as long as may be, by all peers at once."""
    count = 60
    cheats = [node_id(2000 + number) for number in range(count)]
    flood = [
        (TRUE + cheat + number.to_bytes(4, "big")).ljust(MAX_PROOF, b".")
        for number in range(report.scale(50, 500))
        for cheat in cheats
    ]

    def flooded() -> Court:
        court = Court(known=cheats)
        for number, proof in enumerate(flood):
            court.hear(PEERS[number % len(PEERS)], proof)
        return court

    limits = ("LINK_PER_S", "LINK_AT_ONCE", "ALL_PER_S", "ALL_AT_ONCE")
    with replaced(*((proofs, name, 1e12) for name in limits)):
        weak = flooded()
    ours = flooded()
    assert weak.checked == len(flood)
    assert ours.checked <= proofs.ALL_AT_ONCE and ours.told <= len(PEERS) * proofs.LINK_AT_ONCE
    assert set(ours.victim.refused) == {"rate"} and not ours.victim.dropped
    assert len(ours.proofs) <= count
    # Cards are taken all the same.
    card = a_card(node_id(900), START_MS)
    ours.victim.tell(PEERS[-1], (card, a_state(card, START_MS)))
    assert ours.victim.status(node_id(900)) == "online"
    report.tell(
        f"proofs: {len(flood)} at once",
        weakened=f"{weak.checked} checks",
        ours="rate; one of each provider is kept",
        cost=f"{ours.checked} checks",
    )


def test_a_check_that_breaks_costs_its_teller_and_nobody_else() -> None:
    court = Court()

    def broken(proof: bytes) -> bytes | None:
        raise ProtocolError("malformed", "a proof")

    court.proofs.check = broken
    court.hear(PEER, TRUE + HONEST)
    assert court.victim.dropped == [PEER] and not court.caught
