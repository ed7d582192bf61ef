"""What one account owes one provider, and how much it may; and what strangers may use of a provider in a day.

Values in, values out, µcr throughout. Nothing here is kept over a restart: the ledger does, and `Daily.count`
tells a new one what was used today.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

RECEIPT_GRACE_MS: Final = 10_000
"""An issued receipt may be unsigned for so long before new orders are refused."""
DAY_MS: Final = 24 * 3600 * 1000

Refused = Literal["tab_limit", "receipt_due"]


class Tab(Struct, frozen=True):
    """One account at one provider, as one of the two has it in its book."""

    owed: int = 0
    """By countersigned receipts and settlements; below 0 the provider owes."""
    seq: int = 0
    """Of the last of them."""
    limit: int = 0
    """How far the creditor lets it go."""
    unsigned: int = 0
    """Charges of orders that are over and not countersigned."""
    held: int = 0
    """Of orders that are not over."""


def exposure(tab: Tab) -> int:
    """What the account will owe at most when everything that is open is over."""
    return tab.owed + tab.unsigned + tab.held


def room(tab: Tab) -> int:
    """For the holds of further orders."""
    return max(0, tab.limit - exposure(tab))


def refusal(tab: Tab, hold: int, due_since_ms: int | None, now_ms: int) -> Refused | None:
    """Why an order that may cost `hold` is not taken. `due_since_ms`: when the receipt that is to be
    countersigned was issued; None: there is none."""
    if due_since_ms is not None and now_ms - due_since_ms > RECEIPT_GRACE_MS:
        return "receipt_due"
    # What is free does not raise what is owed: a full tab does not stop it.
    return "tab_limit" if hold > room(tab) and hold > 0 else None


def reserve(tab: Tab, hold: int) -> Tab | None:
    """An order that may cost `hold` begins; None: there is no room for it."""
    if hold < 0 or (hold > 0 and hold > room(tab)):
        return None
    return replace(tab, held=tab.held + hold)


def end(tab: Tab, hold: int, charge: int) -> Tab:
    """An order with this hold is over and costs `charge`, 0 when it is released. Raises ValueError for a
    charge above the hold, and for a hold that is not open."""
    if not 0 <= charge <= hold <= tab.held:
        raise ValueError(f"a charge of {charge} for a hold of {hold}, {tab.held} are held")
    return replace(tab, held=tab.held - hold, unsigned=tab.unsigned + charge)


def accept(tab: Tab, charge: int, accepted: int) -> Tab:
    """A receipt over `charge` is countersigned for `accepted`; what is disputed moves nothing. Raises
    ValueError for more than the charge, and for a charge that is not open."""
    if not 0 <= accepted <= charge <= tab.unsigned:
        raise ValueError(f"{accepted} accepted of {charge}, {tab.unsigned} are unsigned")
    return replace(tab, owed=tab.owed + accepted, seq=tab.seq + 1, unsigned=tab.unsigned - charge)


def settle(tab: Tab, amount: int) -> Tab:
    """The account owes `amount` less: by agreement, or by what it served itself."""
    if amount < 0:
        raise ValueError(f"a settlement of {amount}")
    return replace(tab, owed=tab.owed - amount, seq=tab.seq + 1)


def recover(mine: Tab, theirs: Tab) -> Tab | None:
    """My tab after a loss on either side: the state that both signed last; what is open stays mine. None:
    the two books say different things under one number, which only persons can decide."""
    if theirs.seq == mine.seq and theirs.owed != mine.owed:
        return None
    return replace(mine, owed=theirs.owed, seq=theirs.seq) if theirs.seq > mine.seq else mine


def day_of(now_ms: int) -> int:
    """The number of the UTC day of a wall-clock time."""
    return now_ms // DAY_MS


Spent = Literal["all", "account", "group"]
"""Whose share of a day is used up: everybody's, the account's, that of its group of addresses."""


class Daily:
    """What is given away in a UTC day: so much in all, to one account, and to one group of addresses.

    Fresh identities are free, addresses are not quite: no number of either gets beyond `in_all`. That bounds
    the memory, too, because whoever took nothing is not remembered.
    """

    def __init__(self, in_all: int, per_account: int, per_group: int, per_relayed: int) -> None:
        self.in_all = in_all
        self.per_account = per_account
        self.per_group = per_group
        self.per_relayed = per_relayed
        """All who come through relays, which hide addresses, are one group."""
        self._day = 0
        self._total = 0
        self._accounts = Counter[bytes]()
        self._groups = Counter[str | None]()

    def left(self, account: bytes, group: str | None, day: int) -> int:
        """What the account may still take. `group`: addresses.group; None: it came through a relay."""
        return max(0, min(left for left, _ in self._lefts(account, group, day)))

    def take(self, account: bytes, group: str | None, amount: int, day: int) -> Spent | None:
        """Use `amount`, or nothing, and return why."""
        for left, reason in self._lefts(account, group, day):
            if amount > left and amount > 0:
                return reason
        self.count(account, group, max(0, amount), self._day)
        return None

    def count(self, account: bytes, group: str | None, amount: int, day: int) -> None:
        """`amount` was used, whatever the limits say now; below 0: it is given back. Of a day that is over
        nothing is changed."""
        self._turn(day)
        if day < self._day or not amount:
            return
        self._total = max(0, self._total + amount)
        self._accounts[account] += amount
        if self._accounts[account] <= 0:
            del self._accounts[account]
        self._groups[group] += amount
        if self._groups[group] <= 0:
            del self._groups[group]

    def _lefts(self, account: bytes, group: str | None, day: int) -> tuple[tuple[int, Spent], ...]:
        self._turn(day)
        of_group = self.per_relayed if group is None else self.per_group
        return (
            (self.in_all - self._total, "all"),
            (of_group - self._groups[group], "group"),
            (self.per_account - self._accounts[account], "account"),
        )

    def _turn(self, day: int) -> None:
        # A clock that is set back does not begin a day again: it is still the later one.
        if day > self._day:
            self._day = day
            self._total = 0
            self._accounts.clear()
            self._groups.clear()


class Pool(Daily):
    """µcr for which strangers are served on credit: holds are taken, what is not charged is given back."""

    def __init__(
        self,
        in_all: int = 50_000,
        per_account: int = 5_000,
        per_group: int = 10_000,
        per_relayed: int = 10_000,
    ) -> None:
        super().__init__(in_all, per_account, per_group, per_relayed)


class Quota(Daily):
    """Requests that are free of charge."""

    def __init__(
        self, in_all: int = 1_000, per_account: int = 3, per_group: int = 3, per_relayed: int = 0
    ) -> None:
        super().__init__(in_all, per_account, per_group, per_relayed)
