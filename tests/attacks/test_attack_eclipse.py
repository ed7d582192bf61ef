"""Many hostile nodes try to be all that one node, or everybody, is linked with.

In the simulator of the figures of gossip, with the real classes; and one node alone against thousands of ids.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from infraxa.net.overlay import Overlay, OverlayLimits
from infraxa.net.sampling import Candidate
from infraxa.net.table import group_of
from tests.attacks import report
from tests.attacks.crowd import ME
from tests.bench.gossip_sim import Config, Member, Result, Simulation
from tests.net.gossiping import node_id

SEEDS = range(1, report.scale(2, 6))
NO_RULE = OverlayLimits(own=0, anchors=0, inbound_per_group=64, protected=0)
"""Links are whoever comes first, and whoever came last pushes one out."""


class Open(Simulation):
    """Nodes without rules: candidates by id and not by network, any number of links to one network, and none
    that must be of their own choice. The hostile ones know that, and dial everybody."""

    def _join(self, hostile: bool) -> None:
        super()._join(hostile)
        member = (self.hostiles if hostile else self.honest)[-1]
        if not hostile:
            member.overlay = Overlay(
                member.id,
                self.rng,
                may_dial=lambda address, source: True,
                group_of=lambda address: address,
                limits=NO_RULE,
            )

    def _candidates(self, member: Member) -> list[Candidate]:
        # A hostile node has a hundred ids, each with a card of its own.
        weight = 100 * len(self.hostiles) / (100 * len(self.hostiles) + len(self.honest))
        pool = [
            self.rng.choice(self.hostiles if self.rng.random() < weight else self.honest) for _ in range(24)
        ]
        return [Candidate(one.id, (one.address,)) for one in pool if one is not member]


def simulated(kind: type[Simulation], seed: int) -> Result:
    config = Config(
        nodes=report.scale(50, 200), hostile=0.3, seed=seed, publishers=5, news=4, warm_s=25, measure_s=20
    )
    return kind(config).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_thirty_percent_hostile(seed: int) -> None:
    weak = simulated(Open, seed)
    ours = simulated(Simulation, seed)
    assert weak.own_hostile > 0.6 and weak.own_hostile > 2 * ours.own_hostile
    assert ours.eclipsed == 0
    assert ours.own_hostile < 0.4
    report.tell(
        f"eclipse: 30 % hostile, seed {seed}",
        weakened=f"{weak.eclipsed:.0%} eclipsed, {weak.own_hostile:.0%} of own links hostile",
        ours=f"{ours.eclipsed:.0%} eclipsed, {ours.own_hostile:.0%} of own links hostile",
        cost=f"{ours.links:.1f} links a node",
    )


def surrounded(
    seed: int, limits: OverlayLimits, *, ruled: bool, anchors: Sequence[bytes] = ()
) -> tuple[int, int]:
    """One node against an attacker with 2000 ids in 20 networks, who dials it all the time and answers at
    every address. One of 200 honest nodes, each in a network of its own, dials it every 20 s; their links
    last for 8 minutes, and only they bring news. How many of its links are honest, at the least in the last
    half of the time; how many there are."""
    rng = random.Random(seed)
    view = Overlay(
        ME,
        rng,
        anchors,
        may_dial=lambda address, source: True,
        group_of=group_of if ruled else (lambda address: address),
        limits=limits,
    )
    hostile = [
        Candidate(node_id(number), (f"ws://66.{number % 20}.{number // 20}.9:7741",))
        for number in range(2000)
    ]
    honest = [
        Candidate(node_id(9000 + number), (f"ws://{100 + number % 90}.{number}.1.1:7741",))
        for number in range(200)
    ]
    evil = {one.node for one in hostile}
    links: dict[int, bytes] = {}

    def link(candidate: Candidate, direction: str, now: float) -> None:
        host = candidate.addresses[0][5:].rpartition(":")[0]
        narrow = host.rpartition(".")[0]
        group = view._group_of(candidate.addresses[0]) if direction == "out" else narrow
        if direction == "in" and view.may_accept(group, now) is not None:
            return
        number = len(seen)
        seen.append(candidate.node)
        links[number] = candidate.node
        for closed in view.linked(number, candidate.node, group, direction, now):  # type: ignore[arg-type]
            links.pop(closed, None)
            view.unlinked(closed, now)

    seen: list[bytes] = []
    by_node = {one.node: one for one in (*hostile, *honest)}
    fewest = len(honest)
    seconds = report.scale(600, 3600)
    for second in range(seconds):
        for _ in range(5):
            link(rng.choice(hostile), "in", second)
        if second % 20 == 10:
            link(rng.choice(honest), "in", second)
        for closed in [number for number, node in links.items() if node not in evil and rng.random() < 0.002]:
            del links[closed]  # honest nodes come and go
            view.unlinked(closed, second)
        for node in links.values():
            if ruled and second % 10 == 0 and node not in evil:
                view.supplied(node, 1, second)
        if ruled:  # as sampling.candidates: of each network alike
            offered = [rng.choice(hostile[network::20]) for network in range(20)] + rng.sample(honest, 44)
        else:
            offered = [rng.choice((*hostile, *honest[:200])) for _ in range(64)]
        for dial in view.wanted(second, offered):
            link(by_node[dial.node], "out", second)
        if second >= seconds // 2:
            fewest = min(fewest, sum(node not in evil for node in links.values()))
    return fewest, len(links)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_node_against_two_thousand_ids(seed: int) -> None:
    weakened, of = surrounded(seed, NO_RULE, ruled=False)
    assert weakened <= 1
    ours, links = surrounded(seed, OverlayLimits(), ruled=True)
    assert links <= 64 + 16 and ours >= 6
    report.tell(
        f"eclipse: one node, 2000 ids in 20 networks, seed {seed}",
        weakened=f"{weakened} of {of} links honest at the least",
        ours=f"{ours} of {links} links honest at the least",
        cost="64 inbound links at most",
    )
