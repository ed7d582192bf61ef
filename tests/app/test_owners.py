"""Who probably has one owner, and in which order the others are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.app.owners import UNKNOWN, Lot, Owner, drawn, owners
from infraxa.net.status import SeenNode

DRIVER = b"driver"
FAR = {DRIVER: Owner(frozenset({"driver's"}), found=frozenset({"driver's"}))}
NEAR = {DRIVER: Owner(near=True)}


def lot_of(secret: int) -> Lot:
    return lambda what: hashlib.sha256(bytes([secret]) + what).digest()


def node(
    name: str, *addresses: str, relays: tuple[str, ...] = (), near: bool = False, found_in: str = ""
) -> SeenNode:
    by = tuple(relay.encode() for relay in relays)
    told = SeenNode(name.encode(), name, "online", 1.0, addresses, by, 1, 0, (), (), 0)
    return replace(told, near=near, found_in=found_in)


def driver_in(network: str) -> SeenNode:
    return node("driver", found_in=network)


def at(host: str) -> str:
    return f"ws://{host}:7741"


def asked(*nodes: SeenNode) -> list[str]:
    """Those that are asked of all after the first, which is the driver."""
    driver, *others = nodes
    found = drawn([one.id for one in others], {driver.id}, owners(nodes), lot_of(1))
    return sorted(one.decode() for one in found)


# Who has the same owner.


def test_in_a_private_network_each_node_counts_as_its_own() -> None:
    home = [node(f"n{number}", at(f"192.168.1.{number}"), near=True) for number in range(2, 6)]
    assert asked(*home) == ["n3", "n4", "n5"]
    loopback = [node(f"n{port}", f"ws://127.0.0.1:{port}", near=True) for port in (7741, 7742, 7743)]
    assert asked(*loopback) == ["n7742", "n7743"]
    # Whatever else they say of where they are: one line to the network is that of all machines behind it.
    behind = [node(f"n{number}", at("8.8.8.8"), at(f"10.0.0.{number}"), near=True) for number in range(2, 5)]
    assert asked(*behind) == ["n3", "n4"]


def test_who_is_only_said_to_be_in_it_does_not() -> None:
    near = node("driver", at("192.168.1.2"), near=True)
    claims = [node(f"n{number}", at(f"192.168.1.{number}")) for number in range(3, 9)]
    relayed = [node(f"r{number}", relays=("relay",)) for number in range(3, 9)]
    # All of whom nothing is known are one, and the driver may be one of them.
    assert asked(near, *claims, *relayed) == []
    assert asked(near, *claims, node("real", at("192.168.1.9"), near=True)) == ["real"]


def test_where_the_driver_is_not_in_it_all_of_it_is_one() -> None:
    near = [node(f"n{number}", at(f"192.168.1.{number}"), near=True) for number in range(3, 9)]
    assert len(asked(driver_in("8.8.0.0/16"), *near)) == 1
    assert len(asked(driver_in("8.8.0.0/16"), node("far", at("9.9.9.9")), *near)) == 2


def test_a_driver_behind_a_relay_of_the_private_network_leaves_referees_there() -> None:
    near = [node(f"n{number}", at(f"192.168.1.{number}"), near=True) for number in range(3, 6)]
    relayed = node("driver", relays=("n3",), found_in="local")
    assert asked(relayed, *near) == ["n3", "n4", "n5"]
    assert asked(relayed, *near, node("claims", at("192.168.1.9"))) == ["n3", "n4", "n5"]


def test_what_the_driver_says_of_itself_keeps_nobody_away() -> None:
    others = [node("a", at("8.8.8.8")), node("b", at("9.9.9.9")), node("c", relays=("a",))]
    told = node("driver", at("8.8.8.9"), at("9.9.9.8"), relays=("a", "b"), found_in="7.7.0.0/16")
    assert len(asked(told, *others)) == 2
    assert asked(replace(told, found_in="8.8.0.0/16"), *others) == ["b"]
    # Nor does who says that it is elsewhere than where it was found get away from the driver.
    assert asked(driver_in("8.8.0.0/16"), node("a", at("9.9.9.9"), found_in="8.8.0.0/16")) == []


def test_one_tunnel_is_one_owner() -> None:
    tunnel = [node(f"n{number}", at(f"[2001:470:1:{number:x}00::1]")) for number in range(1, 250)]
    assert len(asked(driver_in("8.8.0.0/16"), *tunnel)) == 1
    assert asked(driver_in("2001:470::/32"), *tunnel) == []
    assert len(asked(driver_in("7.7.0.0/16"), node("a", at("8.8.1.1")), node("b", at("8.8.200.1")))) == 1


def test_one_that_is_near_has_the_owner_of_those_that_say_the_same_address_elsewhere() -> None:
    driver = node("driver", near=True)
    other = node("other", at("9.9.9.9"), at("10.0.0.7"), near=True)
    assert asked(driver, other, node("far", at("1.1.1.1"))) == ["far", "other"]
    assert len(asked(driver, other, node("far", at("9.9.200.8")))) == 1


def test_groups_are_those_of_public_addresses_and_of_relays() -> None:
    nodes = [
        node("relay", at("8.8.8.8")),
        node("relayed", at("192.168.1.2"), relays=("relay", "nobody")),
        node("private", at("10.1.2.3")),
        node("odd", "nothing that is an address"),
        node("both", at("9.9.9.9"), at("[2001:4860:4860::8888]")),
    ]
    found = {one.decode(): owner.groups for one, owner in owners(nodes).items()}
    assert found == {
        "relay": {"8.8.0.0/16"},
        "relayed": {"8.8.0.0/16"},
        "private": {UNKNOWN},
        "odd": {UNKNOWN},
        "both": {"9.9.0.0/16", "2001:4860::/32"},
    }


def test_a_driver_that_is_gone_may_be_anybody_of_whom_nothing_is_known() -> None:
    known = owners([node("a", at("10.0.0.1"), near=True), node("b", at("8.8.8.8"))])
    assert set(drawn([b"a", b"b", b"c"], {b"gone"}, known, lot_of(1))) == {b"a", b"b"}


# Who is drawn.

GROUPS = st.integers(0, 7).map(lambda number: f"group {number}")
NODES = st.dictionaries(
    st.binary(min_size=1, max_size=3),
    st.builds(
        Owner, st.frozensets(GROUPS, min_size=1, max_size=3) | st.just(frozenset({UNKNOWN})), st.booleans()
    ),
    max_size=12,
)
SECRETS = st.integers(0, 255)
DRIVERS = st.sampled_from([FAR, NEAR, {DRIVER: Owner()}, {}])


def first(nodes: Iterable[bytes], known: dict[bytes, Owner], secret: int) -> list[bytes]:
    return drawn(list(nodes), {DRIVER}, known, lot_of(secret))


@given(NODES, DRIVERS, SECRETS, st.randoms())
def test_no_two_seem_to_have_one_owner_and_chance_alone_orders_them(
    nodes: dict[bytes, Owner], driver: dict[bytes, Owner], secret: int, rng: object
) -> None:
    known = nodes | driver
    chosen = first(nodes, known, secret)
    assert chosen == first(reversed(list(nodes)), known, secret)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(nodes)
    found = known.get(DRIVER, Owner()).found
    driver_near = not found
    taken = [(found or frozenset({UNKNOWN}), driver_near)]
    for one in chosen:
        groups, near = known[one].groups, driver_near and known[one].near
        assert all(groups.isdisjoint(other) or (near and other_near) for other, other_near in taken)
        taken.append((groups, near))
    # Nobody who could be asked is left out.
    for one in set(nodes) - set(chosen):
        groups, near = known[one].groups, driver_near and known[one].near
        assert any(not groups.isdisjoint(other) and not (near and other_near) for other, other_near in taken)


@given(NODES, st.integers(1, 20), GROUPS, st.lists(GROUPS, max_size=3), SECRETS)
def test_who_splits_its_nodes_further_is_drawn_no_sooner(
    honest: dict[bytes, Owner], count: int, group: str, claimed: list[str], secret: int
) -> None:
    """Whatever groups the new ones say that they are in besides that in which they are reached."""
    one = {b"mine": Owner(frozenset({group}))}
    many = {b"mine" + bytes([n]): Owner(frozenset({group, *claimed[: n % 4]})) for n in range(count)}
    others = {key: Owner(owner.groups) for key, owner in honest.items() if group not in owner.groups}
    before = first(others | one, others | one | FAR, secret)
    after = first(others | one | many, others | one | many | FAR, secret)
    mine = {*one, *many}
    place = next((at for at, node in enumerate(before) if node in mine), None)
    later = next((at for at, node in enumerate(after) if node in mine), None)
    assert place is None or later == place
    if all(len(owner.groups) == 1 for owner in others.values()):
        assert [one for one in after if one not in mine] == [one for one in before if one not in mine]


def test_each_group_is_as_likely_as_another_however_many_nodes_it_has() -> None:
    crowd = {bytes([n]): Owner(frozenset({"crowd"})) for n in range(40)}
    alone = {b"alone": Owner(frozenset({"alone"})), b"other": Owner(frozenset({"other"}))}
    firsts = [first(crowd | alone, crowd | alone | FAR, secret)[0] for secret in range(256)]
    assert 60 < sum(one in crowd for one in firsts) < 110
    # And in its group each node.
    assert len(set(firsts) & set(crowd)) > 25
    near = {key: owner._replace(near=True) for key, owner in (crowd | alone).items()}
    firsts = [first(near, near | NEAR, secret)[0] for secret in range(256)]
    assert 220 < sum(one in crowd for one in firsts)
