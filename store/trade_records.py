"""The plain values of what was bought and sold: orders, receipts, tabs, sums.

Amounts are whole µcr, prices µcr per million tokens, times milliseconds since the epoch. What is signed is
kept as its bytes and opaque here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["user", "provider"]
"""Which side of a trade this node was on. The `peer` of a user is the provider's node id; that of a provider
is the account key that the user has towards this node alone."""
OrderState = Literal["pending", "claimed", "processing", "completed", "failed", "cancelled", "expired"]
ENDED: tuple[OrderState, ...] = ("completed", "failed", "cancelled", "expired")
BillState = Literal["held", "counted", "signed", "due", "issued", "closed", "released"]
"""How far the money of an order is.

User: `held` (reserved) → `counted` (its own count is kept) → `signed` (countersigned and posted, not yet
known to have arrived) → `closed` (the provider has it), or → `released` (nothing is owed).
Provider: `held` → `due` (ended, the charge is known) → `issued` (the receipt is signed by this node) →
`closed` (countersigned and posted), or `held` → `released`.
"""
SyncResult = Literal["same", "adopted", "ahead", "differs"]
RefusalReason = Literal[
    "request_cap", "chat_cap", "day_cap", "tab_limit", "receipt_due", "out_of_step", "unknown", "running",
    "released", "seq_used", "calls_cap", "canaries_cap",
]  # fmt: skip

MAX_AMOUNT = 10**12
"""µcr: the largest hold and settlement, and the largest charge that is written out of a receipt. Sums of
millions of them fit a column."""


class Counts(msgspec.Struct, frozen=True):
    """Tokens of one order."""

    n_prompt: int = 0
    """The cached ones included."""
    n_cached: int = 0
    n_out: int = 0


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One order, as one side keeps it. To open one, only what stands before `state` is given."""

    peer: bytes
    id: bytes
    """16 bytes, made by the user; unique among the orders with this peer."""
    model: bytes
    model_name: str = ""
    """As claimed."""
    chat_id: str | None = None
    message_id: str | None = None
    quote: bytes = b""
    """The signed quote; empty: none was needed."""
    price_in: int = 0
    price_out: int = 0
    price_cached: int = 0
    hold: int = 0
    """The most that it may cost."""
    called: bool = False
    """A program made it by a call, not a person in a chat."""
    mode: str = "none"
    """How it can be checked what answered, as the order says."""
    canary: bool = False
    """Nobody wanted its answer: it is there to be audited, or is such an audit by somebody else. Then less
    may be `held` for it than its hold, and no more is accepted."""

    role: Role = "user"
    state: OrderState = "pending"
    bill: BillState = "held"
    held: int = 0
    """What is still reserved of the hold: all of it unless it is a canary, after the count (user) or the end
    (provider) the charge, at last nothing."""
    billed: Counts | None = None
    """As the provider counted, once known."""
    counted: Counts | None = None
    """As the user counted, once known."""
    charge: int | None = None
    """What the receipt says, once known; MAX_AMOUNT when it says more."""
    accepted: int | None = None
    """What the user countersigned: what moved the tab. The rest of the charge is disputed."""
    reversed: int = 0
    """What was taken back of it since."""
    outcome: str = ""
    requeued: bool = False
    opened_at: int = 0
    """All sums of days count an order on the day on which it was opened."""
    sent_at: int | None = None
    claimed_at: int | None = None
    ended_at: int | None = None
    unclaimed_until: int | None = None
    """User: the driver has gone without an end; its charge may be claimed until then."""
    transcript: bytes | None = None
    """What the receipt says of how it was answered, encoded; None: nothing."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def reserved(self) -> int:
        """What is reserved when it is opened."""
        return min(self.held, self.hold) if self.canary else self.hold


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What a user is ready to spend; None = no limit."""

    request: int | None = None
    chat: int | None = None
    day: int | None = None
    calls: int | None = None
    """Of the day, by calls of programs."""
    canaries: int | None = None
    """Of the day, by canaries."""
    day_start_ms: int = 0
    """When the day began here; on a quarter of an hour, as in every time zone."""
    tab: int | None = None
    """What it is ready to owe one provider, where the tab has no limit of its own."""


class Refused(msgspec.Struct, frozen=True):
    """Why the ledger did not do what was asked; nothing was written."""

    reason: RefusalReason
    limit: int = 0
    """The cap or limit that would be broken."""
    used: int = 0
    """What is spent, owed and held of it already."""
    order: bytes = b""
    """`receipt_due`: whose receipt is to be signed first."""


class Spending(msgspec.Struct, frozen=True):
    """What a user spent, and may still have to."""

    spent: int
    """Countersigned."""
    held: int
    """Reserved for orders that are open, or whose receipt is not signed."""


class ReceiptRow(msgspec.Struct, frozen=True):
    """A receipt, and what became of it."""

    role: Role
    peer: bytes
    order_id: bytes
    tab_seq: int
    receipt: bytes
    """Signed by the provider; encoded."""
    countersign: bytes | None
    """Signed by the user; encoded. None while it is not."""
    rating: bytes | None
    """The rating that came with it; encoded."""
    charge: int
    accepted: int | None
    issued_at: int
    signed_at: int | None

    @property
    def disputed(self) -> int:
        """What the user did not accept; it moved nothing."""
        return 0 if self.accepted is None else self.charge - self.accepted


class TabRow(msgspec.Struct, frozen=True, kw_only=True):
    """What two nodes owe for one account; one row per role and peer."""

    role: Role
    peer: bytes
    owed: int
    """By the user to the provider; below 0 when it paid ahead."""
    held: int
    """Reserved for open orders and unsigned receipts."""
    reversed: int = 0
    """What the user takes back of what it signed, which the provider does not know of."""
    unsigned: int = 0
    """Of that held, for orders that have ended."""
    last_at: int = 0
    """When the receipt of its last order was made; 0: there was none."""
    disputed: int = 0
    seq: int
    """The highest number that was used, or seen."""
    signed_seq: int
    """The highest number whose change is in `owed`."""
    needs_sync: bool = False
    """After a restored backup, until the other side has told its highest state: nothing is signed."""
    limit: int | None = None
    """None: the default of the settings."""
    name: str = ""
    """As it was last claimed."""
    node: bytes | None = None
    """Provider: the node that is known to be behind the account."""
    note: str = ""


class Sum(msgspec.Struct, frozen=True):
    """What the countersigned orders of one day, model or peer come to."""

    key: str | bytes
    """A day as `YYYY-MM-DD`; a `model_id`; a peer."""
    name: str
    """The model's or the peer's, as last claimed."""
    orders: int
    n_prompt: int
    n_cached: int
    n_out: int
    accepted: int
    disputed: int
    reversed: int


class Sums(msgspec.Struct, frozen=True):
    """One role's sums, the newest day, then the largest amount, first."""

    days: tuple[Sum, ...]
    models: tuple[Sum, ...]
    peers: tuple[Sum, ...]

    @property
    def accepted(self) -> int:
        return sum(one.accepted for one in self.days)
