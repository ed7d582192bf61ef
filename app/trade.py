"""What screens and commands are told of money: bounds, tabs, receipts, sums, missed chances. Plain values.

Amounts are µcr, prices µcr per 1M tokens, times ms since the epoch. The user's side is in purse.py, the
provider's in till.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["user", "provider"]
"""`user`: what this node bought, and owes. `provider`: what it sold, and is owed."""
Audited = Literal["", "unverified", "signed", "passed", "failed", "undetermined"]
"""What is known of how an answer that was bought was computed, as of store.records.Verdict.state; empty: it
was sold, or was itself an audit."""
Settling = Literal["", "proposed", "declined"]
"""What became of the last proposal to settle a tab: it waits for the provider's person, or that declined."""


class Bound(msgspec.Struct, frozen=True):
    """What the next message of a chat can cost, before it is sent."""

    state: Literal["local", "free", "asking", "locked", "refused"]
    """`local`: this machine answers. `free`: the driver asks for nothing. `asking`: no rates are locked yet.
    `locked`: they are. `refused`: it cannot be sent, see the reason."""
    driver: str = ""
    """Its id, as people write it."""
    name: str = ""
    """As it claims."""
    most: int = 0
    """It costs no more."""
    price_in: int = 0
    price_out: int = 0
    until_ms: int = 0
    """The rates are locked so long."""
    raised_from: int = 0
    """The price of an output token that was shown before, when it is higher now; 0: it is not."""
    n_prompt: int = 0
    """Tokens of the prompt at most."""
    counted: bool = False
    """They were counted with the model's vocabulary; else they are bounded by the length of the text."""
    max_out: int = 0
    spent_today: int = 0
    """Holds of what runs included."""
    cap_today: int = 0
    owed: int = 0
    """To this driver, by this side's book, what is held for orders that run included; less than nothing: the
    driver owes it. Where it leaves no room for the message: as the driver counts it, if that is more."""
    taken_back: int = 0
    """Of what was signed, besides: the driver counts it all the same."""
    limit: int = 0
    """How much the driver lets this node owe, as it counts; 0: it has not said."""
    unverified: str = ""
    """Why its driver will commit to nothing by which the answer can be checked: a code of
    store.records.Verdict.why; empty: it will, or this machine answers."""
    reason: str = ""
    remedy: str = ""


class Sum(msgspec.Struct, frozen=True):
    """What came of one day, model or peer."""

    key: str
    """`2026-11-21`, the name of a model, the id of a peer."""
    name: str = ""
    """Of a peer, as it claims."""
    earned: int = 0
    spent: int = 0
    sold: int = 0
    """Answers."""
    bought: int = 0
    tokens_sold: int = 0
    """Of answers."""
    tokens_bought: int = 0


class Earnings(msgspec.Struct, frozen=True):
    """Of both roles, since a time."""

    since_ms: int
    total: Sum
    days: tuple[Sum, ...]
    """The oldest first; days without anything are left out."""
    models: tuple[Sum, ...]
    """What moved most first, as the next one."""
    peers: tuple[Sum, ...]
    today: Sum
    week: Sum
    owed_to_me: int = 0
    """Over all tabs, now."""
    owed_by_me: int = 0
    unsigned: int = 0
    """Charged by this node and not countersigned."""
    disputed: int = 0
    before: Sum | None = None
    """All that was before `since_ms`; None: nothing was asked yet."""
    canaries_today: int = 0
    """Spent today on questions that nobody asked, and their referees; held for them included."""


class TabSeen(msgspec.Struct, frozen=True):
    """The running balance with one other."""

    role: Role
    peer: str
    """The provider's node id, or the key by which this provider knows its user."""
    name: str
    owed: int
    """By the user of the two to the provider."""
    limit: int
    """What may be owed; to a driver, as it said last with a quote, which is no more than strangers have left
    today, and 0 while it has not said so since the start."""
    own_limit: bool = False
    """It was set for this one; else it is the limit of strangers."""
    unsigned: int = 0
    held: int = 0
    """Reserved for orders that run."""
    linked: str = ""
    """The node whose account it is, when both said so: what is owed in one direction can pay the other."""
    last_ms: int = 0
    note: str = ""
    """What there is to know: a settlement that was proposed or declined, a difference between the books."""
    settling: Settling = ""
    linked_name: str = ""
    """Of the node whose account it is, as that claims, while it is known in the network."""


class ReceiptSeen(msgspec.Struct, frozen=True):
    """One order that was charged."""

    place: int
    """In the list, which goes on `before` the last one's."""
    role: Role
    order: str
    """Hex."""
    peer: str
    name: str
    model: str
    at_ms: int
    n_prompt: int
    n_cached: int
    n_out: int
    price_in: int
    price_out: int
    charge: int
    """As the driver counts."""
    accepted: int
    """As both agree; 0 while it is not countersigned."""
    state: Literal["due", "signed", "disputed", "reversed"]
    outcome: str
    counted: tuple[int, int, int] | None = None
    """As the user counts: of the prompt, cached of it, of the answer. None: it has not said."""
    canary: bool = False
    """Bought only to audit its driver, or such an audit."""
    verdict: Audited = ""
    """What is known of how it was computed."""
    why: str = ""
    """Where it failed or nothing was determined: the reason in a few words."""
    proven: bool = False
    """A proof of what its driver did is kept."""


class ReceiptLine(msgspec.Struct, frozen=True):
    """A receipt as it is written to a file; see net/receipt_file.py."""

    place: int
    """As in ReceiptSeen."""
    text: str


MissedReason = Literal[
    "dearer", "model", "reputation", "busy", "tab", "paused", "blocked", "unreachable", "no_demand", "free",
    "failed",
]  # fmt: skip


class Missed(msgspec.Struct, frozen=True):
    """A chance to earn that was lost, or why there are none."""

    at_ms: int
    """The last time."""
    reason: MissedReason
    text: str
    """One sentence, with figures."""
    remedy: str = ""
    count: int = 1


class PricePoint(msgspec.Struct, frozen=True):
    """What a provider asked for an output token at a time."""

    at_ms: int
    price_out: int
