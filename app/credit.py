"""Whom this provider serves on credit and free of charge, and how much in a day: the shares of strangers, and
the free requests. What is used today is taken from the ledger after a restart.
"""

from __future__ import annotations

from typing import NamedTuple

from infraxa.app.config import Settings
from infraxa.app.terms import Refusal
from infraxa.net import tab
from infraxa.net.credits import micro


class Buyer(NamedTuple):
    """Who orders."""

    account: bytes
    group: str | None
    """Of addresses; None: it came through a relay."""


class Credit:
    """Of one provider; times are ms since the epoch."""

    def __init__(self) -> None:
        self.stranger_limit = 0
        """µcr that an account without a limit of its own may owe."""
        self.known: set[bytes] = set()
        """Accounts that have a limit of their own: they are no strangers."""
        self._pool = tab.Pool()
        self._taken: dict[bytes, tuple[str | None, int]] = {}
        """What each stranger took of the pool today, and from where: as many as the pool can have."""
        self._day = 0
        self._quota = tab.Quota()

    def use(self, settings: Settings) -> None:
        """The limits are these from now on; what was used today stays used."""
        self.stranger_limit = micro(settings.stranger_limit)
        pool, quota = self._pool, self._quota
        pool.in_all = micro(settings.strangers_daily)
        # One key has a tenth of it or what it may owe, one network twice as much.
        pool.per_account = min(max(pool.in_all // 10, self.stranger_limit), pool.in_all)
        pool.per_group = pool.per_relayed = min(2 * pool.per_account, pool.in_all)
        quota.per_account = quota.per_group = settings.free_daily

    def used(self, account: bytes, amount: int, now_ms: int) -> None:
        """A stranger's share that was used earlier today, from a network that is not known any more."""
        self._count(Buyer(account, ""), amount, tab.day_of(now_ms))

    def left(self, buyer: Buyer, now_ms: int) -> int | None:
        """µcr that this buyer may still run up today; None: as much as its own limit says."""
        if buyer.account in self.known:
            return None
        return self._pool.left(*buyer, tab.day_of(now_ms))

    def used_free(self, account: bytes, requests: int, now_ms: int) -> None:
        """Free requests that were used earlier today, from a network that is not known any more."""
        self._quota.count(account, "", requests, tab.day_of(now_ms))

    def take(self, buyer: Buyer, hold: int, now_ms: int) -> None:
        """Reserve a stranger's share. Raises Refusal `strangers_full`."""
        if not hold or buyer.account in self.known:
            return
        day = tab.day_of(now_ms)
        if self._pool.take(*buyer, hold, day) is not None:
            raise self.full(buyer, now_ms)
        self._note(buyer, hold, day)

    def full(self, buyer: Buyer, now_ms: int) -> Refusal:
        """What a stranger is told whose share is too small for what it wants."""
        day = tab.day_of(now_ms)
        return Refusal(
            "strangers_full",
            "What strangers may run up in a day was used up.",
            retry_after_ms=(day + 1) * tab.DAY_MS - now_ms,
            limit=self._pool.left(*buyer, day),
        )

    def give_back(self, buyer: Buyer, amount: int, taken_ms: int) -> None:
        """So much of what was taken then was not charged."""
        if amount and buyer.account not in self.known:
            self._count(buyer, -amount, tab.day_of(taken_ms))

    def settled(self, account: bytes, amount: int, now_ms: int) -> None:
        """The account owes so much less: what it took of that today is no credit any more."""
        day = tab.day_of(now_ms)
        group, taken = self._taken.get(account, ("", 0)) if day == self._day else ("", 0)
        self._count(Buyer(account, group), -min(amount, taken), day)

    def _count(self, buyer: Buyer, amount: int, day: int) -> None:
        if amount:
            self._pool.count(*buyer, amount, day)
            self._note(buyer, amount, day)

    def _note(self, buyer: Buyer, amount: int, day: int) -> None:
        if day > self._day:
            self._day = day
            self._taken.clear()
        if day == self._day:
            _, before = self._taken.pop(buyer.account, (None, 0))
            if before + amount > 0:
                self._taken[buyer.account] = buyer.group, before + amount

    def free_left(self, buyer: Buyer, now_ms: int) -> int:
        """Free requests that are left today."""
        return self._quota.left(*buyer, tab.day_of(now_ms))

    def take_free(self, buyer: Buyer, now_ms: int) -> bool:
        """Use one; False: there is none left."""
        return self._quota.take(*buyer, 1, tab.day_of(now_ms)) is None

    def give_back_free(self, buyer: Buyer, taken_ms: int) -> None:
        """What was taken then was not served."""
        self._quota.count(*buyer, -1, tab.day_of(taken_ms))
