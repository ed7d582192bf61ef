"""Amounts as people write them: credits as decimal text, exactly, to and from the µcr of everything else."""

from __future__ import annotations

import re
from typing import Final

from infraxa.net.errors import NetError

CREDIT: Final = 1_000_000
"""µcr."""
MAX_CREDITS: Final = 10**12
"""No text means more: it still fits into 64 bits."""

_TEXT: Final = re.compile(r"([+-]?)([0-9]{1,13})?(?:\.([0-9]*))?", re.ASCII)


def read_credits(text: str) -> int:
    """`0.0004` → 400 µcr. Raises NetError (`bad_amount`) for what is no decimal number, has more than six
    decimals that are not 0, or is more than MAX_CREDITS."""
    found = _TEXT.fullmatch(text.strip())
    if found is None or not (found[2] or found[3]):
        raise NetError("bad_amount", "This is not an amount of credits.", "Write it like 0.25 or 12.")
    decimals = (found[3] or "").rstrip("0")
    if len(decimals) > 6:
        raise NetError(
            "bad_amount", "An amount has at most six decimals.", "The smallest amount is 0.000001 credits."
        )
    micro = int(found[2] or 0) * CREDIT + int(decimals.ljust(6, "0"))
    if micro > MAX_CREDITS * CREDIT:
        raise NetError("bad_amount", f"An amount is at most {MAX_CREDITS} credits.", "Write a smaller one.")
    return -micro if found[1] == "-" else micro


def micro(value: float) -> int:
    """µcr of a setting in credits, whose sixth decimal is the last that counts."""
    return read_credits(f"{value:.6f}")


def shown(micro: int) -> str:
    """400 µcr → `0.0004`: all decimals that are not 0, and at least two."""
    whole, rest = divmod(abs(micro), CREDIT)
    return f"{'-' if micro < 0 else ''}{whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"
