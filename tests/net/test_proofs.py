"""How proofs of fraud spread, and what false ones cost those who tell them."""

from __future__ import annotations

import random
import secrets
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import codec, proofs, wire
from infraxa.net.commands import Command, Drop, Refused, Send
from infraxa.net.errors import ProtocolError
from infraxa.net.proofs import (
    ALL_AT_ONCE,
    JOIN,
    JOIN_S,
    KEPT,
    LINK_AT_ONCE,
    SEEN,
    Proofs,
)
from infraxa.net.wire import Proof
from tests.net.gossiping import PEER, START, World, linked_gossip, node_id
from tests.net.nodes import until
from tests.net.test_network import Someone, village

CHEAT = node_id(1)


def a_proof(provider: bytes, number: int = 0) -> bytes:
    return b"true " + provider + number.to_bytes(4, "big")


FALSE = b"false"


def check(proof: bytes) -> bytes | None:
    """As the app's would: true ones say who lied."""
    if proof.startswith(b"newer"):
        raise ProtocolError("version")
    if proof.startswith(b"odd"):
        raise ProtocolError("malformed")
    return proof[5:37] if proof.startswith(b"true ") else None


class Caught(dict[bytes, bytes]):
    def put(self, provider: bytes, proof: bytes) -> None:
        assert provider not in self, "told twice"
        self[provider] = proof


def linked(*peers: bytes, outbound: bool = True) -> tuple[Proofs, Caught]:
    """Of a node that knows everybody."""
    it, caught = Proofs(lambda node: True, random.Random(1)), Caught()
    it.check, it.on_caught = check, caught.put
    for peer in peers or (PEER,):
        it.linked(peer, outbound, START)
    return it, caught


def told(commands: list[Command]) -> list[tuple[bytes, bytes]]:
    return [
        (command.peer, command.message.proof)
        for command in commands
        if isinstance(command, Send) and isinstance(command.message, Proof)
    ]


PEERS = [node_id(number) for number in range(100, 120)]


def test_a_proof_is_believed_once_and_handed_on_to_half_of_the_links_but_not_back() -> None:
    it, caught = linked(*PEERS)
    out = told(it.receive(PEERS[0], a_proof(CHEAT), START))
    assert caught == {CHEAT: a_proof(CHEAT)}
    assert {proof for _, proof in out} == {a_proof(CHEAT)}
    receivers = {peer for peer, _ in out}
    assert len(receivers) == len(out) == 10 and PEERS[0] not in receivers
    for peer in PEERS:
        assert it.receive(peer, a_proof(CHEAT), START) == [], "it is known"
        assert it.receive(peer, a_proof(CHEAT, 1), START) == [], "another about the same"
    assert len(it) == 1


def test_few_links_are_all_told_and_the_cheat_never() -> None:
    it, _ = linked(*PEERS[:3], CHEAT)
    assert {peer for peer, _ in told(it.publish(a_proof(CHEAT), START))} == set(PEERS[:3])


def test_two_links_of_the_own_choice_are_told() -> None:
    """Who fills the inbound side of a node cannot keep a proof from spreading."""
    own = PEERS[:2]
    it, _ = linked(*PEERS[2:], outbound=False)
    for peer in own:
        it.linked(peer, True, START)
    for number in range(10):
        out = told(it.receive(PEERS[-1], a_proof(node_id(number)), START))
        assert set(own) <= {peer for peer, _ in out}


@pytest.mark.parametrize("proof", [FALSE, b"odd", b"true"])
def test_who_tells_a_false_one_is_banned_as_for_a_bad_signature(proof: bytes) -> None:
    it, caught = linked(*PEERS)
    assert it.receive(PEERS[0], proof, START) == [
        Refused(PEERS[0], "bad_signature"),
        Drop(PEERS[0], "bad_signature", 3600),
    ]
    assert not caught and not len(it)


def test_one_of_a_version_that_is_not_known_is_nobodys_fault_and_goes_no_further() -> None:
    it, caught = linked(*PEERS)
    assert it.receive(PEERS[0], b"newer", START) == [] and not caught


def test_without_a_check_nothing_is_believed_or_told() -> None:
    it, caught = linked(*PEERS)
    it.check = None
    assert it.receive(PEERS[0], a_proof(CHEAT), START) == []
    assert it.receive(PEERS[0], FALSE, START) == []
    with pytest.raises(ProtocolError):
        it.publish(a_proof(CHEAT), START)
    it.check = check
    assert told(it.receive(PEERS[0], a_proof(CHEAT), START)), "it was not taken for known"
    assert caught


def test_what_everybody_would_refuse_is_not_told() -> None:
    it, caught = linked(*PEERS)
    for proof in (FALSE, a_proof(CHEAT) + bytes(wire.MAX_PROOF)):
        with pytest.raises(ProtocolError):
            it.publish(proof, START)
    assert not caught


def test_keys_that_accuse_themselves_are_not_kept() -> None:
    here: set[bytes] = set()
    it, caught = linked(*PEERS)
    it._on_network = here.__contains__
    assert it.receive(PEERS[0], a_proof(CHEAT), START) == [] and not caught and not len(it)
    assert it.publish(a_proof(CHEAT), START) == [] and not caught
    here.add(CHEAT)
    assert it.receive(PEERS[1], a_proof(CHEAT), START) and caught, "its card came meanwhile"


def test_a_new_link_is_told_some_and_one_that_is_replaced_nothing_again() -> None:
    it, _ = linked(PEER)
    for number in range(2 * JOIN):
        it.publish(a_proof(node_id(number)), START + 100 * number)
    late = START + 10_000
    assert told(it.tick(late))
    it.linked(PEERS[0], True, late)
    assert it.next_tick() == late + JOIN_S and not it.tick(late + JOIN_S - 1)
    it.linked(PEERS[0], False, late + 1)
    out = told(it.tick(late + JOIN_S))
    assert len(out) == len(set(out)) == JOIN and {peer for peer, _ in out} == {PEERS[0]}
    it.linked(PEERS[0], False, late + JOIN_S)
    assert it.next_tick() == float("inf") and not it.tick(late + 1000)
    it.unlinked(PEERS[0])
    it.linked(PEERS[0], True, late + 1000)
    assert len(told(it.tick(late + 2000))) == JOIN


def test_a_later_run_tells_what_others_told_before() -> None:
    """Nothing of it is believed again, and nobody is told of who is not here."""
    it, caught = linked()
    here = {node_id(number): a_proof(node_id(number)) for number in range(4)}
    gone = {node_id(number): a_proof(node_id(number)) for number in range(4, 2 * KEPT)}
    it._on_network = here.__contains__
    it.restore(gone | here)
    assert len(it) == KEPT and not caught
    assert {proof for _, proof in told(it.tick(START + JOIN_S))} == set(here.values())
    it.check = lambda proof: pytest.fail("it was judged before")
    assert it.receive(PEER, here[node_id(1)], START) == []


def test_a_link_may_cost_so_many_checks() -> None:
    checks: Counter[bytes] = Counter()

    def counted(proof: bytes) -> bytes | None:
        checks[proof] += 1
        raise ProtocolError("version")

    it, _ = linked(*PEERS)
    it.check = counted
    for number in range(1000):
        out = it.receive(PEERS[0], b"newer %d" % number, START)
        assert out == ([] if number < LINK_AT_ONCE else [Refused(PEERS[0], "rate")])
    assert len(checks) == LINK_AT_ONCE and max(checks.values()) == 1
    for peer in PEERS[1:]:
        for number in range(LINK_AT_ONCE):
            it.receive(peer, peer + b"%d" % number, START)
    assert len(checks) == ALL_AT_ONCE, "and all together"


def test_memory_is_bounded() -> None:
    it, caught = linked(*PEERS)
    now = START
    for number in range(SEEN + KEPT):
        now += 1.0
        it.receive(PEERS[number % len(PEERS)], a_proof(node_id(number)), now)
    assert len(it) == KEPT and len(it._seen) <= SEEN
    assert len(caught) > KEPT


def test_an_honest_node_never_tells_more_than_the_other_side_takes() -> None:
    """However many proofs come to it, those whom it tells refuse none for their number."""
    it, _ = linked(*PEERS[:1])
    other, _ = linked(node_id(0))
    now = START
    for number in range(3000):
        now += 0.5
        for _, proof in told(it.publish(a_proof(node_id(number)), now)):
            assert not [one for one in other.receive(node_id(0), proof, now) if isinstance(one, Refused)]
    assert len(other) > 100


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["receive", "publish", "link", "cut"]),
            st.integers(0, 5),
            st.integers(0, 8),
            st.floats(0, 30),
        ),
        max_size=60,
    )
)
@settings(deadline=None, max_examples=150)
def test_whatever_happens_each_cheat_is_told_of_once(steps: list[tuple[str, int, int, float]]) -> None:
    it, caught = Proofs(lambda node: True, random.Random(2)), Caught()
    it.check, it.on_caught = check, caught.put
    there: set[bytes] = set()
    now = START
    for what, peer_number, number, later in steps:
        peer, now = PEERS[peer_number], now + later
        proof = a_proof(node_id(number % 4), number) if number else FALSE
        out: list[Command] = []
        if what == "link":
            there.add(peer)
            it.linked(peer, True, now)
        elif what == "cut":
            there.discard(peer)
            it.unlinked(peer)
        elif what == "receive" and peer in there:
            out = it.receive(peer, proof, now)
        elif what == "publish" and number:
            out = it.publish(proof, now)
        assert {command.peer for command in out if isinstance(command, Send | Refused | Drop)} <= there
        out += it.tick(now)
        for _, one in told(out):
            assert one in caught.values()
    assert len(it) == len(caught)


def test_gossip_takes_proofs_from_its_links_alone() -> None:
    gossip = linked_gossip()
    gossip.proofs.check = check
    out = gossip.receive(PEER, Proof(FALSE), START, 0)
    assert Drop(PEER, "bad_signature", 3600) in out
    out = gossip.receive(node_id(7), Proof(FALSE), START, 0)
    assert Refused(node_id(7), "not_allowed") in out and not [one for one in out if isinstance(one, Drop)]
    gossip.unlinked(PEER, START)
    assert Refused(PEER, "not_allowed") in gossip.receive(PEER, Proof(b"true"), START, 0)


def watched(world: World) -> list[Caught]:
    found = []
    for gossip in world.nodes:
        caught = Caught()
        gossip.proofs.check, gossip.proofs.on_caught = check, caught.put
        found.append(caught)
    return found


def test_everybody_hears_of_it_and_whoever_comes_later() -> None:
    count = 30
    world, rng = World(count), random.Random(4)
    caught = watched(world)
    for number in range(1, count - 1):
        for other in rng.sample(range(number), min(number, 4)):
            world.link(number, other)
    world.run(60)
    cheat = world.ids[7]
    proof = a_proof(cheat)
    world.apply(3, world.nodes[3].proofs.publish(proof, world.now))
    world.run(5)
    heard = sum(cheat in one for one in caught[: count - 1])
    assert heard >= count - 3  # all but the cheat, and hardly anybody by chance
    assert not world.dropped
    late = count - 1
    world.link(late, 0)
    world.link(late, 1)
    world.run(JOIN_S + 5)
    assert caught[late] == {cheat: proof}


def test_a_flood_of_false_ones_ends_at_the_first_honest_node() -> None:
    world = World(6)
    caught = watched(world)
    for number in range(5):
        world.link(number, number + 1)
    world.run(30)
    for number in range(200):
        world.queue.append((0, 1, Proof(b"false %d" % number)))
    world.settle()
    assert {drop.peer for drop in world.dropped} == {world.ids[0]}
    assert not any(caught)


def test_the_bytes_of_one_are_bounded_where_they_are_read() -> None:
    for size in (0, wire.MAX_PROOF + 1):
        with pytest.raises(ProtocolError):
            codec.decode(codec.encode(Proof(bytes(size))), wire.Tell)
    assert codec.decode(codec.encode(Proof(bytes(wire.MAX_PROOF))), wire.Tell) == Proof(bytes(wire.MAX_PROOF))


async def test_over_real_links_a_true_one_arrives_and_a_false_one_ends_the_link() -> None:
    async with village("birch", "oak", "elm") as people:
        birch, oak, elm = people
        caught = [Caught(), Caught(), Caught()]
        for one, found in zip(people, caught, strict=True):
            one.net.judge_proofs(check, found.put)
        await oak.net.join(birch.id, birch.where)
        await elm.net.join(birch.id, birch.where)
        await until(lambda: all(_knows(one, other) for one in people for other in people if one is not other))
        proof = a_proof(elm.id, int.from_bytes(secrets.token_bytes(2), "big"))
        oak.net.tell_proof(proof)
        await until(lambda: caught[0] == {elm.id: proof} == caught[1])
        assert not caught[2], "not to whom it accuses"
        with pytest.raises(ProtocolError):
            oak.net.tell_proof(FALSE)
        oak.net.judge_proofs(lambda proof: birch.id, lambda provider, proof: None)
        oak.net.tell_proof(FALSE)  # it believes that birch lied, and tells elm alone, if they are linked
        oak.net._peering.peers()[0].link.tell_soon(Proof(FALSE))
        await until(lambda: birch.net.status.refused.get("bad_signature", 0) >= 1)
        await until(lambda: all(peer.id != oak.id for peer in birch.net._peering.peers()))


def _knows(one: Someone, other: Someone) -> bool:
    entry = one.net._gossip.table.entries.get(other.id)
    return entry is not None and bool(entry.card.records)


def test_constants_keep_to_each_other() -> None:
    """What a link may bring at once holds what a new link is told."""
    assert JOIN <= 0.9 * LINK_AT_ONCE and proofs.LINK_PER_S <= proofs.ALL_PER_S
