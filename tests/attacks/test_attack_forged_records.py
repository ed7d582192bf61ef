"""Records that their signer never wrote: the first one ends the link of whoever brings it."""

from __future__ import annotations

import os

from infraxa.net import codec, intake, streams, wire
from infraxa.net.admission import Admission
from infraxa.net.codec import Signed, Tag
from infraxa.net.records import Card, Record, State
from infraxa.net.session import SessionRecord
from tests.attacks import report
from tests.attacks.attacker import Attacker, attacker, new_identity, now_ms
from tests.attacks.crowd import Victim, sybils
from tests.attacks.target import Target, replaced, target, until
from tests.net.gossiping import PEER, START_MS, a_card, a_state, node_id

HONEST, WITNESS = node_id(1), node_id(2)


def forged(record: Record) -> Record:
    """The same, signed by nobody."""
    return Record(record.kind, Signed(record.signed.body, record.signed.signer, os.urandom(64)))


def test_a_state_that_says_that_somebody_left() -> None:
    card = a_card(HONEST, START_MS)
    lie = forged(a_state(card, START_MS + 1, "offline"))
    found = []
    for gullible in (True, False):
        victim = Victim(PEER, WITNESS, gullible=gullible)
        victim.tell(WITNESS, (card, a_state(card, START_MS)))
        victim.tell(PEER, (lie,))
        found.append(victim.status(HONEST))
    assert found == ["offline", "online"]
    assert victim.gossip.intake.refused["bad_signature"] == 1 and victim.dropped == [PEER]
    report.tell(
        "forged: a state that says that somebody left",
        weakened="shown as offline",
        ours="shown as online; bad_signature, banned for an hour",
        cost="one signature",
    )


def test_the_rest_of_a_push_is_not_looked_at() -> None:
    """What a forger costs does not grow with what it sends."""
    victim = Victim(PEER)
    victim.tell(PEER, map(forged, sybils(10, 32)))
    assert victim.checked == 1 and victim.known == 0 and not victim.sent
    victim.tell(PEER, sybils(10, 32))
    assert victim.known == 0 and victim.gossip.intake.refused["not_allowed"] == 1


class Hasty(Admission):
    """Remembers what it has seen before it knows whether it is genuine, as is cheapest."""

    def seen(self, raw_hash: bytes) -> bool:
        known = super().seen(raw_hash)
        self.remember(raw_hash, 0.0)
        return known

    def identify(self, record: Record) -> tuple[bytes, int]:
        _, size = super().identify(record)
        return codec.digest("state", record.signed.body)[:16], size


def kept_out() -> str:
    """How somebody is shown whose new state was forged before it came."""
    card = a_card(HONEST, START_MS)
    new = a_state(card, START_MS + 1000, "busy")
    victim = Victim(PEER, WITNESS)
    victim.tell(WITNESS, (card, a_state(card, START_MS)))
    victim.tell(PEER, (forged(new),))
    victim.tell(WITNESS, (new,))
    return victim.status(HONEST)


def test_a_forgery_does_not_keep_the_real_record_out() -> None:
    with replaced((intake, "Admission", Hasty)):
        weakened = kept_out()
    assert (weakened, kept_out()) == ("online", "busy")
    report.tell(
        "forged: a copy with a bad signature, earlier than the real one",
        weakened="the real one is a duplicate",
        ours="the real one is taken; bad_signature",
        cost="one signature",
    )


def test_a_record_signed_for_something_else() -> None:
    """A signature under one tag is none under another: an answer to a handshake is not a card."""
    node = new_identity()
    card = Card(1, now_ms(), "x", codec.network_id("test"), (), (), node.id, 2**50, bytes(32))
    body = codec.encode(card)
    tags: tuple[Tag, ...] = ("auth", "state", "successor", "revoke")
    for tag in tags:
        assert not codec.verify("card", node.sign(tag, body))
    assert codec.verify("card", node.sign("card", body))


async def lied_to(attack: Attacker, node: Target) -> tuple[bool, bool]:
    """Whether a node believes that somebody left who did not say so; whether the liar is still linked."""
    honest, liar = new_identity(), new_identity()
    body = codec.encode(
        Card(1, now_ms(), "honest", codec.network_id("attacks"), (), (), honest.id, 2**50, bytes(32))
    )
    card = Record("card", honest.sign("card", body))

    def state(number: int, status: str, signature: bytes | None = None) -> Record:
        said = State(number, codec.digest("card", body)[:8], status)  # type: ignore[arg-type]
        signed = honest.sign("state", codec.encode(said))
        return Record("state", Signed(signed.body, honest.id, signature) if signature else signed)

    talk = await attack.peer(node, liar)
    first = now_ms()
    await push(talk.say, card, state(first, "online"))
    await until(lambda: honest.id in node.gossip.table.entries)
    await push(talk.say, state(first + 1, "offline", os.urandom(64)))
    still = await talk.alive()
    return {seen.id: seen.status for seen in node.network.nodes()}[honest.id] == "offline", still


async def push(say: object, *records: Record) -> None:
    assert callable(say)
    await say(SessionRecord(streams.TELL, 0, codec.encode(wire.Push(records))))


async def test_over_a_real_link() -> None:
    async with attacker() as attack:
        async with target(weaken=gullible) as weak:
            weakened = await lied_to(attack, weak)
            assert weakened == (True, True)
        async with target() as node:
            assert await lied_to(attack, node) == (False, False)
            await node.counted("bad_signature")
            await until(lambda: not node.peers)
    report.tell(
        "forged: over a real link",
        weakened="believed",
        ours="link closed, bad_signature",
        cost="one signature",
    )


def gullible(node: Target) -> None:
    node.gossip.intake._admission._verify = lambda tag, signed: True
