"""What a relay allows: how many circuits, how fast, how much in a day. Pure; relay.py does the work.

Every circuit is on two accounts, that of the node which is reached and that of whoever dials it, and what one
of them has no room for is not handed on. The dialer is known by its address only, so its account is that of
its address group.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from infraxa.net.addresses import LOCAL, group
from infraxa.net.rates import Bucket
from infraxa.net.wire import MAX_FRAME, Failure

DAY_S: Final = 86_400.0


class RelayLimits(Struct, frozen=True):
    """What is given away to strangers."""

    circuits: int = 64
    """Open at a time, of all."""
    circuits_to: int = 32
    """Open at a time to one node."""
    circuits_from: int = 8
    """Open at a time from one address group."""
    opens_per_second: float = 1.0
    """New circuits from one address group, after a burst of `opens_burst`. The node that is reached has a
    limit of its own for those who knock, which one dialer must not be able to fill here."""
    opens_burst: float = 32.0
    bytes_per_second: int = 256_000
    """Of one account, both directions together, after a burst of as much."""
    bytes_per_day: int = 128 << 20
    """Of one account: so much at once, and so much again spread over each day."""
    reservations: int = 64
    """Nodes that can be reached through this one."""
    accounts: int = 1024
    """Remembered; those without a circuit that were not used for longest are forgotten."""


class _Pace:
    """Gives each frame its turn, in the order of asking: nobody is overtaken (GCRA, ITU-T I.371)."""

    __slots__ = ("_done_at", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._done_at = float("-inf")

    def turn(self, size: int, now: float) -> float:
        """Seconds until a frame of `size` bytes may go; one second's bytes may go at once."""
        self._done_at = max(self._done_at, now) + size / self._rate
        return max(0.0, self._done_at - now - 1)


class _Account:
    __slots__ = ("circuits", "day", "opens", "pace")

    def __init__(self, limits: RelayLimits) -> None:
        self.circuits = 0
        self.opens = Bucket(limits.opens_per_second, limits.opens_burst)
        self.pace = _Pace(limits.bytes_per_second)
        self.day = Bucket(limits.bytes_per_day / DAY_S, limits.bytes_per_day)


class Circuit:
    """An open circuit on its two accounts. Made by `Circuits.open`."""

    __slots__ = ("_accounts", "_open", "bytes")

    def __init__(self, accounts: tuple[_Account, _Account]) -> None:
        self._accounts = accounts
        self._open = True
        self.bytes = 0
        """Handed on so far."""

    def hand_on(self, size: int, now: float) -> float | Failure:
        """Put a frame of `size` bytes on both accounts: the seconds to wait before it goes. A Failure, and on
        no account: the day's bytes are used up."""
        for account in self._accounts:
            if wait := account.day.wait(size, now):
                return Failure("rate_limited", retry_after_ms=min(int(wait * 1000) + 1, 86_400_000))
        self.bytes += size
        for account in self._accounts:
            account.day.take(size, now)
        return max(account.pace.turn(size, now) for account in self._accounts)

    def close(self) -> bool:
        """Give its place back; False when that was done before."""
        if not self._open:
            return False
        self._open = False
        for account in self._accounts:
            account.circuits -= 1
        return True


class Circuits:
    """All circuits and accounts of one relay."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.limits = limits or RelayLimits()
        self._accounts: OrderedDict[bytes | str, _Account] = OrderedDict()
        self._open: list[Circuit] = []

    def __len__(self) -> int:
        return len(self._open)

    @property
    def accounts(self) -> int:
        return len(self._accounts)

    def open(self, target: bytes, remote: str, now: float) -> Circuit | Failure:
        """A circuit to the node `target`, dialled from the address `remote`; or why there is none."""
        limits = self.limits
        if len(self._open) >= limits.circuits:
            return Failure("busy", retry_after_ms=10_000, limit=limits.circuits)
        to, source = self._account(target, now), self._account(dialer(remote), now)
        for account, most in ((to, limits.circuits_to), (source, limits.circuits_from)):
            if account.circuits >= most:
                return Failure("busy", retry_after_ms=10_000, limit=most)
        if wait := source.opens.wait(1, now):
            return Failure("rate_limited", retry_after_ms=int(wait * 1000) + 1)
        for account in (to, source):
            if wait := account.day.wait(MAX_FRAME, now):
                return Failure("rate_limited", retry_after_ms=min(int(wait * 1000) + 1, 86_400_000))
        source.opens.take(1, now)
        to.circuits += 1
        source.circuits += 1
        circuit = Circuit((to, source))
        self._open.append(circuit)
        return circuit

    def close(self, circuit: Circuit) -> None:
        """It is over. May be called twice."""
        if circuit.close():
            self._open.remove(circuit)

    def _account(self, key: bytes | str, now: float) -> _Account:
        account = self._accounts.get(key)
        if account is None:
            while len(self._accounts) >= self.limits.accounts:
                self._forget_one()
            account = self._accounts[key] = _Account(self.limits)
        self._accounts.move_to_end(key)
        return account

    def _forget_one(self) -> None:
        for key, account in self._accounts.items():
            if not account.circuits:
                del self._accounts[key]
                return
        raise AssertionError("fewer accounts than two per circuit")


def dialer(remote: str) -> str:
    """The account of whoever dials from `remote`. In a local network, which is many machines of one group,
    each address has its own."""
    where = group(remote)
    return remote if where == LOCAL else where
