"""The simulated market is the same for the same seed, and its figures tell what they are there to tell."""

from __future__ import annotations

import math
import random

import pytest

from infraxa.net.routing import NEW_SHARE
from tests.bench._market_figures import (
    Gain,
    credit,
    free_requests,
    newcomers,
    praised,
    settling,
    swing,
)
from tests.bench._market_plot import picture
from tests.bench._market_world import Config, World

SMALL = Config(providers=60, users=100, orders_per_s=1.5, steps=((0.0, 1.0), (200.0, 4.0)), end_s=400.0)


@pytest.fixture(scope="module")
def small() -> World:
    return World(SMALL).run()


def test_the_same_seed_gives_the_same_market(small: World) -> None:
    again = World(SMALL).run()
    assert again.samples == small.samples
    assert again.ends == small.ends
    gains = [("x", "", Gain(1, 2))]
    assert picture(again, gains) == picture(small, gains)


def test_the_price_follows_the_demand(small: World) -> None:
    one = settling(small.samples, 200.0, 400.0)
    assert 1 < one.before < one.after
    assert one.rise_s > 0


def test_nobody_is_charged_more_than_the_budget_and_no_sum_is_lost(small: World) -> None:
    assert all(user.spent + user.held <= user.budget for user in small.users)
    assert all(user.held >= 0 for user in small.users)
    assert sum(user.spent for user in small.users) == sum(one.earned for one in small.providers)
    for provider in small.providers:
        owed = sum(one.owed for one in provider.tabs.values())
        strangers = provider.earned - owed
        assert 0 <= strangers <= provider.pool.in_all


def test_newcomers_get_work(small: World) -> None:
    new = newcomers(small)
    assert 0 < new.orders < new.capacity
    assert new.served > 0.1


def test_a_ring_of_providers_gets_no_more_of_the_choices_than_all_new_ones() -> None:
    world = World(
        Config(providers=60, users=100, ring=200, orders_per_s=2.0, steps=((0.0, 1.0),), end_s=300.0)
    )
    world.run()
    assert world.free_choices > 300
    # Three standard deviations of the lot that is drawn.
    spread = 3 * math.sqrt(NEW_SHARE * (1 - NEW_SHARE) / world.free_choices)
    assert world.free_ring / world.free_choices <= NEW_SHARE + spread


@pytest.mark.parametrize("settled", [0, 1, 500, 1000, 20_000])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_praise_is_worth_no_more_than_what_was_settled(settled: int, count: int) -> None:
    gain = praised(settled, count, count)
    assert 3.0 <= gain.got <= gain.bound + 1e-9
    if not settled:
        assert gain.got == 3.0


@pytest.mark.parametrize("groups", [1, 3, 500])
def test_fresh_accounts_use_no_more_than_a_days_share(groups: int) -> None:
    unpaid, free = credit(2000, groups, groups), free_requests(2000, groups, groups)
    assert 0 < unpaid.got <= unpaid.bound
    assert 0 < free.got <= free.bound


def test_swing_tells_what_swings_from_what_is_only_noisy() -> None:
    rng = random.Random(1)
    phases = [rng.uniform(0, 6) for _ in range(50)]
    waves = [
        [1 + 0.1 * math.sin(phase + at / 8 * math.tau) + rng.gauss(0, 0.02) for at in range(120)]
        for phase in phases
    ]
    memory = []
    for _ in range(50):
        value, series = 0.0, []
        for _ in range(120):
            value = 0.8 * value + rng.gauss(0, 0.1)
            series.append(value)
        memory.append(series)
    assert swing(waves) < -0.7
    assert swing(memory) > -0.15
