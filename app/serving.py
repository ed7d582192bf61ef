"""What provider mode says of itself: plain values for screens and commands. Nothing of a prompt or an answer.

The role itself is in provider.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from infraxa.net.status import Waiting

Mode = Literal["off", "starting", "serving", "paused", "draining", "failed"]
"""`paused`: on, but nobody is served now, see the reason. `draining`: off, as soon as those that are being
answered have their answers. `failed`: on, and it does not work, see the reason."""

ServedState = Literal["waiting", "sending", "reading", "answering", "done", "failed", "cancelled", "refused"]
"""`sending`: its prompt is on its way here. `cancelled`: by its user. `failed`, `refused`: see the reason."""


Missing = Literal["", "no_peer", "declined", "silent"]
"""No peer is linked, none does it now, those that were asked did not answer."""


class TrialResult(msgspec.Struct, frozen=True):
    """What a peer says of the tiny answer that it was asked to buy here."""

    at_ms: int
    """When it said so."""
    peer: bytes
    code: str = ""
    """Why it was not served; empty: it was."""
    way: Literal["", "direct", "relay", "local"] = ""
    """By which it had a session."""
    connect_ms: int = 0
    first_token_ms: int = 0
    signed: bool = False
    """It got a receipt, and countersigned it."""


class SelfTest(msgspec.Struct, frozen=True):
    """Whether strangers are served, as far as peers say; see self_test_words.py."""

    state: Literal["off", "strangers", "on"]
    """`strangers`: nobody is tested, since by the settings no stranger is served."""
    last: TrialResult | None = None
    other: TrialResult | None = None
    """The last one of another peer."""
    missing: Missing = ""
    """Why nobody bought when that was wanted last; empty: somebody did, or could not."""
    wait: Waiting | None = None
    """For a peer that is buying now."""


class ProviderStatus(msgspec.Struct, frozen=True):
    """Provider mode as it is now."""

    mode: Mode = "off"
    reason: str = ""
    """Why it is paused or failed, one sentence."""
    remedy: str = ""
    since_ms: int = 0
    """When it was turned on."""
    model: str = ""
    """Its name."""
    quantization: str = ""
    context: int = 0
    capacity: int = 0
    """Answers at the same time."""
    running: int = 0
    waiting: int = 0
    room: int = 0
    """How many may wait."""
    users: int = 0
    """That are being served or wait."""
    answered: int = 0
    """Since it was turned on, as all counters here."""
    failed: int = 0
    cancelled: int = 0
    refused: dict[str, int] = {}
    """How often, by the code on the wire."""
    tokens: int = 0
    """Sent."""
    bytes_out: int = 0
    """Of answers."""
    tokens_per_second: float = 0.0
    """Of all answers together, over the last 10 s."""
    first_token_ms: int = 0
    """Median of the last answers; 0 = none yet."""
    price_in: int = 0
    """Now, while somebody is served."""
    price_out: int = 0
    wait: Waiting | None = None
    """What starting or draining waits for."""
    self_test: SelfTest = SelfTest("off")


class Served(msgspec.Struct, frozen=True):
    """One request of another node."""

    number: int
    """Counts up from the start of this node."""
    user: bytes
    """The account key by which this provider knows its user."""
    where: str
    """The group of addresses it came from, or `relay`."""
    state: ServedState
    since_ms: int
    ended_ms: int = 0
    """0 = it runs or waits."""
    place: int = 0
    """How many are before it while it waits."""
    prompt_read: int = 0
    n_prompt: int = 0
    n_out: int = 0
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    reason: str = ""
    """Why it failed, was cancelled or refused, or why it waits again; one sentence."""
    charge: int | None = None
    """µcr, of an answer that came to its end; None: none did, and what was delivered is on the receipt."""


class BlockedUser(msgspec.Struct, frozen=True):
    """A user that this provider does not serve."""

    user: bytes
    since_ms: int
    note: str = ""
