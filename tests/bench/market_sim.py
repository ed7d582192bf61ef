"""A market of hundreds of providers and users with budgets: does the price follow the demand and settle, do
newcomers get work, and what does a ring of fresh identities gain?

The rules are those of the program, see _market_world.py; what the figures mean is in _market_figures.py. The
same seed gives the same market. The picture is docs/market-simulation.svg.
"""

from __future__ import annotations

import time
from pathlib import Path

from infraxa.net.routing import NEW_SHARE
from tests.bench._market_figures import Gain, credit, free_requests, newcomers, praised, settling
from tests.bench._market_plot import figure, picture
from tests.bench._market_world import Config, World

PICTURE = Path(__file__).parents[2] / "docs" / "market-simulation.svg"
RING = 240
"""Hostile providers: as many as there are honest ones."""
ACCOUNTS = 20_000
SHORT = ((0.0, 1.0), (200.0, 2.5))


def main() -> None:
    began = time.process_time()
    world = World(Config()).run()
    config = world.config
    asked = sum(one.asked for one in world.samples)
    print(
        f"{config.providers} providers ({config.newcomers:.0%} newcomers), {config.users} users, "
        f"{asked} requests in {config.end_s / 60:.0f} min: {dict(world.ends)}"
    )
    ends = [since for since, _ in config.steps[2:]] + [config.end_s]
    for (_, usual), (since, factor), end in zip(config.steps, config.steps[1:], ends, strict=False):
        one = settling(world.samples, since, end)
        print(
            f"demand × {factor / usual:g}: price × {one.before:.2f} -> × {one.after:.2f} of the base; "
            f"nine tenths of the way after {one.rise_s:.0f} s, within 10 % after {one.settled_s:.0f} s, "
            f"overshoot {one.overshoot:.0%} of the step; then ± {one.amplitude:.1%}, swing {one.swing:.2f}"
        )
    for herd in (False, True):
        part = World(Config(steps=SHORT, end_s=500.0, herd=herd)).run()
        one = settling(part.samples, 200.0, 500.0)
        rule = "if all took the best that they see" if herd else "the better of two"
        print(
            f"{rule}: one provider's own price ± {one.provider_amplitude:.0%}, swing {one.swing:.2f}, "
            f"{part.refused} orders refused as busy"
        )
    new = newcomers(world)
    print(
        f"newcomers: {new.capacity:.0%} of the capacity, {new.orders:.1%} of the orders, "
        f"{new.per_hour:.0f} orders an hour each; {new.served:.0%} had one, "
        f"the first after {new.median_s / 60:.1f} min (median)"
    )
    ring = World(Config(ring=RING, steps=((0.0, 1.0),), end_s=600.0)).run()
    chosen = Gain(100 * ring.free_ring / ring.free_choices, 100 * NEW_SHARE)
    gains = [
        (f"{RING} providers praised 100 times each, of choices", " %", chosen),
        ("Opinion by 10 000 fresh accounts", " stars", praised(0, 10_000, 1)),
        ("Opinion, one of them served the reader 1000 µcr", " stars", praised(1000, 10_000, 2)),
        ("Unpaid, 20 000 accounts, one /24 and relays", " µcr", credit(ACCOUNTS, 1, 3)),
        ("Unpaid, 20 000 accounts, a thousand /24", " µcr", credit(ACCOUNTS, 1000, 4)),
        ("Free answers, 20 000 accounts, one /24", "", free_requests(ACCOUNTS, 1, 5)),
        ("Free answers, 20 000 accounts, a thousand /24", "", free_requests(ACCOUNTS, 1000, 6)),
    ]
    for name, unit, gain in gains:
        print(f"{name}: {figure(gain.got)}{unit}, bound {figure(gain.bound)}{unit}")
    everything = sum(one.to_ring for one in ring.samples) / sum(one.began for one in ring.samples)
    earned = sum(one.earned for one in ring.providers if one.ring) / sum(one.earned for one in ring.providers)
    print(
        f"with those who had nobody whom they know within their price: {everything:.1%} of all "
        f"orders, {earned:.1%} of all that was charged"
    )
    PICTURE.write_text(picture(world, gains))
    print(f"{time.process_time() - began:.0f} s CPU; {PICTURE.name}")


if __name__ == "__main__":
    main()
