"""Whoever sits at an address offers a card that is not of the node which was dialled."""

from __future__ import annotations

import os

from infraxa.net import codec, connect, wire
from infraxa.net.connect import VerifiedCard, verify_card
from infraxa.net.door import Door
from infraxa.net.errors import NetError
from infraxa.net.hello import NO_PREKEY, Prekey, Prekeys
from infraxa.net.link import Link, Stream
from infraxa.net.records import Record
from tests.attacks import report
from tests.attacks.attacker import NETWORK
from tests.attacks.target import replaced, target
from tests.net.nodes import Node

LIE = b"You are talking to whom you wanted."


def of_anybody(raw: bytes, *, node: bytes | None, network: bytes, now_ms: int) -> VerifiedCard:
    return verify_card(raw, node=None, network=network, now_ms=now_ms)


async def lies(link: Link, stream: Stream, request: wire.Request) -> None:
    await stream.send(LIE)


async def believed(wanted: Node, impostor: Node) -> tuple[bool, dict[str, int]]:
    """Whether a node that asks for `wanted` believes what the impostor at its address says."""
    impostor.handler = lies
    async with target() as node:
        try:
            await impostor.listen()
            node.knows(wanted.id, impostor.address)
            try:
                link = await node.network.link_to(wanted.id)
            except NetError:
                return False, dict(node.refused)
            async with await link.request(wire.CardPlease()) as stream:
                return [chunk async for chunk in stream] == [LIE], dict(node.refused)
        finally:
            await impostor.close()


async def test_his_own_card() -> None:
    with replaced((connect, "verify_card", of_anybody)):
        assert await believed(Node(network=NETWORK), Node(network=NETWORK)) == (True, {})
    assert await believed(Node(network=NETWORK), Node(network=NETWORK)) == (False, {"not_asked": 1})
    report.tell(
        "another's card: a man in the middle offers his own",
        weakened="he answers for the node",
        ours="not believed, not_asked",
        cost="one signature checked",
    )


class Claimed(Prekeys):
    """His own secret under the name of another's key."""

    def find(self, wanted: bytes, now_ms: int) -> Prekey | None:
        return None if wanted == NO_PREKEY else self.stored[0]


async def test_the_nodes_card_without_its_keys() -> None:
    """The card is public: everybody has it. It proves nothing without its prekey."""
    wanted, impostor = Node(network=NETWORK), Node(network=NETWORK)
    impostor.door = Door(
        node=wanted.id,
        network=NETWORK,
        prekeys=Claimed(impostor.prekeys.stored, os.urandom),
        card=wanted.card,
        randbytes=os.urandom,
    )
    assert (await believed(wanted, impostor))[0] is False
    assert impostor.refused == ["tampered"]


async def test_a_card_that_he_has_changed() -> None:
    wanted, impostor = Node(network=NETWORK), Node(network=NETWORK)
    decode = codec.decode
    signed: Record = decode(wanted.card(), Record)
    forged = decode(impostor.card(), Record)
    mixed = codec.Signed(forged.signed.body, signed.signed.signer, signed.signed.signature)
    whole = codec.encode(Record("card", mixed))
    impostor.door = Door(
        node=wanted.id,
        network=NETWORK,
        prekeys=impostor.prekeys,
        card=lambda: whole,
        randbytes=os.urandom,
    )
    with replaced((codec, "verify", lambda tag, signed: True)):
        assert (await believed(wanted, impostor))[0] is True
    impostor.transport = type(impostor.transport)()
    assert await believed(wanted, impostor) == (False, {"bad_signature": 1})
    report.tell(
        "another's card: forged, with his prekey in it",
        weakened="he answers for the node",
        ours="not believed, bad_signature",
        cost="one signature checked",
    )
