"""Hostile nodes that hand nothing on want an honest node's news not to be heard."""

from __future__ import annotations

import pytest

from infraxa.net import gossip
from infraxa.net.spreading import Spreading, Target, _Waiting
from infraxa.net.wire import Push
from tests.attacks import report
from tests.attacks.target import replaced
from tests.attacks.test_attack_eclipse import Open
from tests.bench.gossip_sim import Config, Result, Simulation

SEEDS = range(1, report.scale(2, 6))


class ToWhoeverCame(Spreading):
    """News goes to two of those who dialled this node: an attacker can be all of them."""

    def _address(self, ready: list[_Waiting], targets: list[Target], now: float) -> list[tuple[bytes, Push]]:
        inbound = [target for target in targets if not target.outbound] or targets
        for one in ready:
            one.own = False
        return super()._address(ready, self._rng.sample(inbound, min(2, len(inbound))), now)


def simulated(kind: type[Simulation], seed: int) -> Result:
    config = Config(
        nodes=report.scale(50, 200), hostile=0.3, seed=seed, publishers=5, news=6, warm_s=25, measure_s=40
    )
    return kind(config).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_thirty_percent_hand_nothing_on(seed: int) -> None:
    with replaced((gossip, "Spreading", ToWhoeverCame), (gossip, "ROOT_EVERY_S", 600.0)):
        weak = simulated(Open, seed)
    ours = simulated(Simulation, seed)
    assert weak.coverage < 0.8
    assert ours.coverage_end >= 0.99
    assert ours.coverage >= 0.9
    report.tell(
        f"censor: 30 % hand nothing on, seed {seed}",
        weakened=f"{weak.coverage:.0%} heard the worst of the news in 10 s, {weak.coverage_end:.0%} ever",
        ours=f"{ours.coverage:.0%} in 10 s, {ours.coverage_end:.0%} in the end",
        cost=f"{ours.copies:.1f} copies a node",
    )
