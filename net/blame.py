"""Whose fault a silence is: this machine's network, the relay's, or the other node's. Pure.

Only what the other node does is held against it: a laptop that leaves its Wi-Fi must not come back to find
all providers in disgrace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

Blame = Literal["own", "relay", "peer"]

QUIET_S: Final = 6.0
"""Seconds of silence on a link that works: a ping goes every 5 s, and its answer takes a moment."""
DIALLED_S: Final = 12.0
"""The silence of a node that did not answer a dial."""


def blame(
    *,
    networked: bool,
    silent_s: float | None,
    others_silent_s: Sequence[float],
    relay: Literal["none", "alive", "dead"],
) -> Blame:
    """Why a node is not heard.

    `networked`: this machine has an address by which others can be reached. `silent_s`: seconds since it was
    heard on a link; None when none came to be. `others_silent_s`: the same of the links with other nodes, and
    of those that ended a short time ago. `relay`: that of the link, or of a node that has no other way.
    """
    if not networked:
        return "own"
    silent = DIALLED_S if silent_s is None else silent_s
    if others_silent_s and min(others_silent_s) > max(QUIET_S, silent - QUIET_S):
        return "own"
    return "relay" if relay == "dead" else "peer"
