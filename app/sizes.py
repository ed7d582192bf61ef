"""Bytes as people read them."""

from __future__ import annotations


def size_text(n_bytes: int) -> str:
    """`57 B`, `5.7 MB`, `640 MB`, `4.4 GB`: powers of 1000."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
