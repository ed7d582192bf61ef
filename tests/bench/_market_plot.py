"""The picture of the simulated market, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench._market_figures import Gain
from tests.bench._market_world import World

WIDTH, LEFT, RIGHT = 960, 70, 30
TALL, GAP = 170, 62
INK, SOFT, PRICE, ORDERS, NEW = "#24292f", "#d0d7de", "#0969da", "#8c959f", "#1a7f37"
BOUND = "#cf222e"

Points = Sequence[tuple[float, float]]


class Panel:
    """A diagram over time. `highest`: at the upper edge."""

    def __init__(self, number: int, title: str, end: float, highest: float, unit: str) -> None:
        self.top = 50 + number * (TALL + GAP)
        self.end, self.highest = end, highest
        self.parts = [text(LEFT, self.top - 12, title, weight="bold")]
        for share in (0.0, 0.5, 1.0):
            y = self.y(share * highest)
            self.parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{SOFT}"/>')
            self.parts.append(text(LEFT - 8, y + 4, f"{share * highest:g}{unit}", anchor="end"))
        for minute in range(0, int(end / 60) + 1, 5):
            x = self.x(minute * 60)
            self.parts.append(text(x, self.top + TALL + 18, f"{minute} min", anchor="middle"))

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / self.end

    def y(self, value: float) -> float:
        return self.top + TALL * (1 - min(value, self.highest) / self.highest)

    def line(self, points: Points, colour: str, label: str, place: int, *, dashed: bool = False) -> None:
        path = "L".join(f"{self.x(at):.1f} {self.y(value):.1f}" for at, value in points)
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>')
        x = WIDTH - RIGHT - 600 + 220 * place
        self.parts.append(f'<path d="M{x} {self.top - 16}h22" stroke="{colour}" stroke-width="2"{dashes}/>')
        self.parts.append(text(x + 28, self.top - 12, label))


def text(x: float, y: float, what: str, *, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{INK}">{what}</text>'


def figure(number: float) -> str:
    """`3.29`, `49 827`."""
    return f"{number:,.0f}".replace(",", " ") if number >= 100 else f"{number:.3g}"


def picture(world: World, gains: Sequence[tuple[str, str, Gain]]) -> str:
    """`gains`: what a ring got of what, in which unit."""
    samples, end = world.samples, world.config.end_s
    minutes = [samples[number : number + 12] for number in range(0, len(samples) - 11, 12)]
    price = Panel(0, "Price follows demand", end, 2.0, " ×")
    asked = [(part[-1].at, sum(one.asked for one in part) / 60) for part in minutes]
    most = max(orders for _, orders in asked)
    price.line([(one.at, one.price) for one in samples], PRICE, "price ÷ base price", 0)
    price.line(
        [(at, orders / most * 1.8) for at, orders in asked],
        ORDERS,
        f"orders (top {most:.0f}/s)",
        1,
        dashed=True,
    )
    new = [one for one in world.honest if one.newcomer]
    work = Panel(1, "Newcomers get work", end, 100.0, " %")
    served = [
        (one.at, 100 * sum(p.first_order is not None and p.first_order <= one.at for p in new) / len(new))
        for one in samples
    ]
    share = [
        (part[-1].at, 100 * sum(one.to_newcomers for one in part) / max(1, sum(one.began for one in part)))
        for part in minutes
    ]
    work.line(served, NEW, "had a first order", 0)
    work.line(share, PRICE, "their share of orders", 1)
    parts = [*price.parts, *work.parts]
    top = 50 + 2 * (TALL + GAP)
    parts.append(text(LEFT, top - 12, "What a ring of fresh identities gains", weight="bold"))
    parts.append(f'<path d="M{WIDTH - 260} {top - 24}v16" stroke="{BOUND}" stroke-width="3"/>')
    parts.append(text(WIDTH - 250, top - 12, "the bound of the rules"))
    widest = 340.0
    for number, (name, unit, gain) in enumerate(gains):
        y = top + 12 + number * 34
        scale = widest / max(gain.bound, gain.got)
        parts.append(text(LEFT, y + 14, name))
        parts.append(
            f'<rect x="430" y="{y}" width="{gain.got * scale:.1f}" height="18" fill="{ORDERS}"/>'
            f'<path d="M{430 + gain.bound * scale:.1f} {y - 3}v24" stroke="{BOUND}" stroke-width="3"/>'
        )
        parts.append(text(430 + widest + 10, y + 14, f"{figure(gain.got)} of {figure(gain.bound)}{unit}"))
    height = top + 12 + len(gains) * 34 + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="13"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
