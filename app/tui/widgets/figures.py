"""Figures as people read them: counts, and prices of tokens. Amounts of credits are net/credits.py's."""

from __future__ import annotations


def thousands(number: int) -> str:
    """`8192` as `8 192`, with a thin gap that does not break."""
    return f"{number:,}".replace(",", "\u202f")


def price(micro: int) -> str:
    """µcr per 1M tokens as credits per 1M tokens: `0.20`, `0.0004`, `12.50`."""
    cr = micro / 1_000_000
    if cr >= 100_000:
        return ">99999"
    if cr >= 1000:
        return f"{cr:.0f}"
    return f"{cr:.2f}" if cr >= 0.01 or not micro else f"{cr:.4f}"
