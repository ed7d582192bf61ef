"""Whom a node links with: networks, caps, back-off, feelers, and what an attacker can take of it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import addresses
from infraxa.net.addresses import LOCAL, Source
from infraxa.net.overlay import Overlay, OverlayLimits
from infraxa.net.sampling import Candidate
from infraxa.net.table import group_of
from tests.net.gossiping import node_id

ME = bytes(31) + b"\x80"
LOW, HIGH = bytes(32), b"\xff" * 32


def may_dial(address: str, source: Source) -> bool:
    return addresses.may_dial(addresses.parse(address), source)


def an_overlay(*anchors: bytes, limits: OverlayLimits | None = None, seed: int = 1) -> Overlay:
    return Overlay(
        ME,
        random.Random(seed),
        anchors,
        may_dial=may_dial,
        group_of=group_of,
        limits=limits or OverlayLimits(),
    )


def far(
    number: int, *, network: int | None = None, tried: bool = False, source: Source = "gossip"
) -> Candidate:
    """A node of its own /16, or of the given one."""
    second = number if network is None else network
    host = f"{20 + second // 250}.{second % 250}.{number // 250}.{number % 250}"
    return Candidate(node_id(number), (f"ws://{host}:7741",), source, tried)


def near(number: int, source: Source = "mdns") -> Candidate:
    return Candidate(node_id(number), (f"ws://192.168.1.{number}:7741",), source)


class Driver:
    """Dials what the overlay wants; `dead` never answer."""

    def __init__(self, overlay: Overlay, dead: frozenset[bytes] = frozenset()) -> None:
        self.overlay = overlay
        self.dead = dead
        self.number = 0
        self.linked: dict[int, bytes] = {}
        self.tried: list[tuple[float, bytes, tuple[str, ...]]] = []

    def link(self, node: bytes, group: str, direction: str, now: float) -> tuple[int, ...]:
        self.number += 1
        self.linked[self.number] = node
        cut = self.overlay.linked(self.number, node, group, direction, now)  # type: ignore[arg-type]
        for link in cut:
            del self.linked[link]
            self.overlay.unlinked(link, now)
        return cut

    def step(self, candidates: list[Candidate], now: float) -> int:
        dials = self.overlay.wanted(now, candidates)
        for dial in dials:
            self.tried.append((now, dial.node, dial.addresses))
            if dial.node in self.dead:
                self.overlay.failed(dial.node, now)
            else:
                self.link(dial.node, group_of(dial.addresses[0]), "out", now)
        return len(dials)

    def run(self, candidates: list[Candidate], start: float, end: float, step: float = 2.0) -> None:
        now = start
        while now < end:
            self.step(candidates, now)
            now += step


def test_alone_it_chooses_eight_each_in_another_network() -> None:
    driver = Driver(an_overlay())
    driver.run([far(number, network=number // 10) for number in range(300)], 0, 60)
    assert len(driver.linked) == 8
    networks = [node_of(node) // 10 for node in driver.linked.values()]
    assert len(set(networks)) == 8


def node_of(node: bytes) -> int:
    return next(number for number in range(2000) if node_id(number) == node)


def test_when_others_dial_it_four_of_its_own_choice_are_enough_but_never_fewer() -> None:
    driver = Driver(an_overlay())
    for number in range(1000, 1030):
        driver.link(node_id(number), f"30.0.{number}.0/24", "in", 0)
    driver.run([far(number) for number in range(50)], 0, 60)
    assert len(driver.linked) == 34


def test_a_thousand_ids_in_one_network_get_one_link() -> None:
    driver = Driver(an_overlay())
    driver.run([far(number, network=7) for number in range(200)], 0, 300)
    assert len(driver.linked) == 1


def test_a_lan_is_not_the_whole_view() -> None:
    driver = Driver(an_overlay())
    everybody = [near(number) for number in range(1, 40)] + [far(number) for number in range(50, 90)]
    driver.run(everybody, 0, 100)
    local = sum(node_of(node) < 40 for node in driver.linked.values())
    assert len(driver.linked) - local >= 6
    alone = Driver(an_overlay())
    alone.run([near(number) for number in range(1, 40)], 0, 60)
    assert len(alone.linked) == 8, "with nobody further away it is"


def test_gossip_alone_makes_nobody_dial_a_private_address() -> None:
    driver = Driver(an_overlay())
    inside = Candidate(
        node_id(1), ("ws://192.168.1.1:7741", "ws://127.0.0.1:7741", "ws://169.254.169.254:8080")
    )
    nonsense = Candidate(node_id(3), ("ws://example.org:7741", "\x1b[2J", "ws://8.8.8.8:22"))
    both = Candidate(node_id(2), ("ws://10.0.0.1:7741", "ws://8.8.8.8:7741"))
    driver.run([inside, nonsense, both], 0, 30)
    assert [found[1:] for found in driver.tried] == [(node_id(2), ("ws://8.8.8.8:7741",))]


def test_one_host_that_never_answered_is_tried_each_ten_minutes_whoever_names_it() -> None:
    victim = [Candidate(node_id(number), (f"ws://8.8.8.8:{2000 + number}",)) for number in range(500)]
    driver = Driver(an_overlay(), dead=frozenset(one.node for one in victim))
    driver.run(victim, 0, 3600)
    assert 5 <= len(driver.tried) <= 7


def test_back_off_doubles_from_8_s_to_8_min_for_what_a_person_named() -> None:
    one = far(1, source="person")
    driver = Driver(an_overlay(), dead=frozenset([one.node]))
    driver.run([one], 0, 3600, step=1)
    times = [at for at, _, _ in driver.tried]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:6] == [8, 16, 32, 64, 128, 256] and set(gaps[6:]) == {480}


def test_a_link_that_stood_is_made_again_soon_and_one_that_flaps_is_not() -> None:
    one = far(1, source="person")
    driver = Driver(an_overlay())
    driver.step([one], 0)
    (link,) = driver.linked
    driver.overlay.unlinked(link, 100)
    assert not driver.overlay.wanted(100, [one]) and driver.step([one], 101)
    flaps = 0
    for second in range(200, 400):
        for link in list(driver.linked):
            driver.overlay.unlinked(link, second)
        driver.linked.clear()
        flaps += driver.step([one], second)
    assert flaps <= 6


@pytest.mark.parametrize(("peer", "kept"), [(HIGH, "out"), (LOW, "in")])
@pytest.mark.parametrize("first", ["out", "in"])
def test_of_a_pairs_links_the_one_dialled_by_the_lower_id_stays(peer: bytes, kept: str, first: str) -> None:
    overlay = an_overlay()
    second = "in" if first == "out" else "out"
    assert overlay.linked(1, peer, "8.8.0.0/16", first, 0) == ()  # type: ignore[arg-type]
    cut = overlay.linked(2, peer, "8.8.0.0/16", second, 1)  # type: ignore[arg-type]
    assert cut == ((2,) if first == kept else (1,))
    assert overlay.peers == (peer,)
    overlay.unlinked(cut[0], 2)
    assert overlay.peers == (peer,)
    assert overlay.linked(3, peer, "8.8.0.0/16", kept, 3) == ((1 if first == kept else 2),)  # type: ignore[arg-type]


def test_itself_is_no_peer_and_not_dialled_again() -> None:
    overlay = an_overlay()
    assert overlay.linked(1, ME, "8.8.0.0/16", "out", 0) == (1,)
    assert overlay.peers == ()


def test_inbound_is_capped_by_network_and_in_all() -> None:
    driver = Driver(an_overlay())
    for number in range(10):
        driver.link(node_id(number), "8.8.8.0/24", "in", number)
    assert len(driver.linked) == 4
    assert driver.overlay.may_accept("8.8.8.0/24", 11) == "full"
    assert driver.overlay.may_accept("9.9.9.0/24", 11) is None
    for number in range(100, 200):
        driver.link(node_id(number), f"30.{number}.0.0/24", "in", number)
    assert len(driver.linked) == 64
    for number in range(300, 400):
        driver.link(node_id(number), LOCAL, "in", number)
    assert len(driver.linked) == 64


def test_a_flood_of_inbound_does_not_push_out_the_oldest_nearest_and_best() -> None:
    driver = Driver(an_overlay())
    good = [node_id(number) for number in range(12)]
    for number in range(64):
        driver.link(node_id(number), f"30.{number}.0.0/24", "in", number)
    for node in good[4:8]:
        driver.overlay.measured(node, 1.0)
    for node in good[8:]:
        driver.overlay.supplied(node, 50, 64)
    for number in range(100, 600):
        now = 100 + number / 100
        driver.link(node_id(number), f"40.0.{number % 256}.0/24", "in", now)
        driver.overlay.supplied(node_id(number), 2, now)
    assert set(good) <= set(driver.linked.values()) and len(driver.linked) <= 64


def test_a_flood_out_of_few_networks_pushes_out_itself() -> None:
    driver = Driver(an_overlay())
    for number in range(64):
        driver.link(node_id(number), f"30.{number}.0.0/24", "in", number)
    for number in range(100, 600):
        driver.link(node_id(number), f"40.0.{number % 12}.0/24", "in", 100 + number / 100)
    assert sum(node_of(node) < 64 for node in driver.linked.values()) >= 40


def test_anchors_are_dialled_first_and_are_those_that_stood_longest() -> None:
    anchors = (node_id(190), node_id(191))
    driver = Driver(an_overlay(*anchors))
    driver.step([far(number) for number in range(200)], 0)
    assert {node for _, node, _ in driver.tried[:2]} == set(anchors)
    driver.run([far(number) for number in range(200)], 2, 20)
    assert set(driver.overlay.anchors) == set(anchors)
    for link, node in list(driver.linked.items()):
        if node in anchors:
            driver.overlay.unlinked(link, 30)
    assert not set(driver.overlay.anchors) & set(anchors)


def test_feelers_try_new_nodes_and_replace_a_useless_link() -> None:
    driver = Driver(an_overlay())
    start = [far(number, tried=True) for number in range(8)]
    driver.run(start, 0, 20)
    assert len(driver.linked) == 8
    new = [far(number) for number in range(100, 200)]
    driver.run(new, 20, 620)
    assert 4 <= len(driver.tried) - 8 <= 7, "one each two minutes"
    assert set(driver.linked.values()) == {one.node for one in start}, "nobody supplied more than another"
    for one in start[1:]:
        driver.overlay.supplied(one.node, 100, 620)
    driver.run(new, 620, 760)
    assert start[0].node not in driver.linked.values() and len(driver.linked) == 8


def test_a_peer_that_breaks_rules_loses_its_standing_then_its_link() -> None:
    overlay = an_overlay()
    overlay.linked(1, HIGH, "8.8.0.0/16", "in", 0)
    assert overlay.good_standing(HIGH, 0)
    assert overlay.refused(HIGH, "malformed", 0) is None
    assert not overlay.good_standing(HIGH, 0)
    assert overlay.good_standing(HIGH, 60), "it fades"
    assert [overlay.refused(HIGH, "malformed", 60) for _ in range(5)][-1] == 1
    overlay.unlinked(1, 60)
    assert overlay.linked(2, HIGH, "8.8.0.0/16", "in", 61) == (2,)
    assert overlay.linked(3, HIGH, "8.8.0.0/16", "in", 60 + 601) == ()


def test_what_an_honest_peer_can_run_into_does_not_cost_its_link() -> None:
    overlay = an_overlay()
    overlay.linked(1, HIGH, "8.8.0.0/16", "in", 0)
    for second in range(120):
        for reason in ("rate", "stale"):
            assert overlay.refused(HIGH, reason, second) is None
    assert overlay.good_standing(HIGH, 180)


events = st.one_of(
    st.tuples(st.just("in"), st.integers(0, 30), st.integers(0, 8)),
    st.tuples(st.just("out"), st.integers(0, 30), st.integers(0, 8)),
    st.tuples(st.just("lost"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("want"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 30), st.just(0)),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(events, max_size=80))
def test_whatever_happens_the_bounds_hold(happened: list[tuple[str, int, int]]) -> None:
    limits = OverlayLimits(inbound=6, inbound_per_group=2, protected=1)
    overlay = an_overlay(limits=limits)
    standing: dict[int, tuple[bytes, str, str]] = {}
    for number, (what, node, group) in enumerate(happened):
        now = float(number * 3)
        if what in ("in", "out"):
            standing[number] = (node_id(node), f"9.{group}.0.0/16", what)
            for link in overlay.linked(number, node_id(node), f"9.{group}.0.0/16", what, now):  # type: ignore[arg-type]
                del standing[link]
        elif what == "lost":
            for link in [link for link, found in standing.items() if found[0] == node_id(node)]:
                del standing[link]
                overlay.unlinked(link, now)
        elif what == "fail":
            overlay.failed(node_id(node), now)
        else:
            overlay.wanted(now, [far(100 + node), far(200 + node, network=3)])
        assert sorted(overlay.peers) == sorted(found[0] for found in standing.values())
        inbound = [found for found in standing.values() if found[2] == "in"]
        assert len(inbound) <= 6
        assert all(sum(other[1] == found[1] for other in inbound) <= 2 for found in inbound)
