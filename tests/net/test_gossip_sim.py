"""A small network in the simulator: news reaches everybody although messages are lost, nodes crash, and some
are hostile."""

from __future__ import annotations

from tests.bench.gossip_sim import Config, Result, Simulation


def simulated(seed: int, hostile: float, hidden: float = 0.0) -> Result:
    return Simulation(
        Config(
            nodes=60, hostile=hostile, hidden=hidden, seed=seed, publishers=8, news=6, warm_s=30, measure_s=40
        )
    ).run()


def test_news_reaches_all_in_a_second_with_loss_and_churn() -> None:
    result = simulated(1, 0)
    assert result.coverage_end == 1 and result.coverage >= 0.98
    assert result.t50 is not None and result.t50 < 1
    assert result.copies < 8
    assert result.joiner_s is None or result.joiner_s < 15
    assert result.dead_listed < 0.4
    assert not set(result.refused) - {"stale"}


def test_thirty_percent_hostile_nodes_keep_no_news_from_honest_ones() -> None:
    result = simulated(1, 0.3)
    assert result.eclipsed == 0
    assert result.coverage_end >= 0.97 and result.coverage >= 0.9
    assert result.own_hostile < 0.4
    assert result.refused["rate"] > 0, "the flood is refused"


def test_nodes_that_nobody_can_dial_hear_all() -> None:
    result = simulated(1, 0, hidden=0.8)
    assert result.coverage_end == 1
