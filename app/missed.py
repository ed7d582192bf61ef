"""Why this node is not earning: chances that were lost, by their reason, from what really happened.

Nothing is guessed: each reason comes of a quote that was asked for, an order that was refused, or a state of
this node that keeps others away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from infraxa.app.trade import Missed, MissedReason
from infraxa.net.credits import shown

KEPT_MS: Final = 24 * 3600 * 1000
"""What is older than this is over."""
NO_DEMAND_MS: Final = 10 * 60 * 1000
"""Nobody asked for so long: that is the reason."""
MAX_ACCOUNTS: Final = 1024
FEW_RATINGS: Final = 3
POOR: Final = 3.0
"""Stars in the mean, below which they keep others away."""

_OF_CODE: Final[dict[str, MissedReason]] = {
    "busy": "busy",
    "expired": "busy",
    "tab_limit": "tab",
    "receipt_due": "tab",
    "strangers_full": "tab",
    "model_gone": "model",
    "not_allowed": "blocked",
    "internal": "failed",
}
"""By the code of a refusal."""


@dataclass
class _Lost:
    at_ms: int = 0
    count: int = 0
    accounts: set[bytes] = field(default_factory=set)
    more: int = 0
    """Of the last: µcr, or per cent."""


class MissedLog:
    """Of one node since its start; one entry per reason, so its size is bounded. Times are ms since the
    epoch."""

    def __init__(self) -> None:
        self._lost: dict[str, _Lost] = {}
        self._asked_ms = 0
        """The last time anybody asked for a quote, or ordered."""
        self._asker = b""
        self._before_ms = 0
        """The last time before that anybody else did."""

    def asked(self, account: bytes, now_ms: int) -> None:
        """Somebody wants to be served."""
        if account != self._asker:
            self._asker, self._before_ms = account, self._asked_ms
        self._asked_ms = now_ms

    def was_test(self, account: bytes) -> None:
        """This one asked because this node wanted it to: that is no demand."""
        if account == self._asker:
            self._asked_ms = self._before_ms

    def not_taken(self, account: bytes, price_out: int, cheapest: int | None, now_ms: int) -> None:
        """A quote of this price was not used. `cheapest`: of the others that offer the same model now."""
        if cheapest is not None and cheapest < price_out:
            dearer = (price_out - cheapest) * 100 // max(cheapest, 1) if cheapest else 0
            self._add("dearer", account, now_ms, dearer)
        else:
            self._add("not taken", account, now_ms, price_out)

    def refused(self, account: bytes, code: str, now_ms: int, *, paused: bool = False) -> None:
        """A quote or an order was refused, or failed, with this code on the wire. `paused`: since nobody was
        served then."""
        if paused or code in _OF_CODE:
            self._add("paused" if paused else code, account, now_ms)

    def listed(
        self, now_ms: int, *, serving_since_ms: int | None, free: bool, unreachable: bool
    ) -> list[Missed]:
        """The last first. `serving_since_ms`: None when nobody is served; `free`: the base price is 0;
        `unreachable`: others cannot dial this node, and no relay hands it on."""
        self._forget(now_ms)
        found = [_told(key, lost) for key, lost in self._lost.items()]
        if unreachable:
            found.append(
                Missed(
                    now_ms,
                    "unreachable",
                    "Other nodes cannot reach this one.",
                    "infraxa doctor says what stands in the way.",
                )
            )
        if serving_since_ms is not None:
            quiet = now_ms - max(serving_since_ms, self._asked_ms)
            if quiet >= NO_DEMAND_MS:
                minutes = quiet // 60_000
                found.append(
                    Missed(
                        now_ms,
                        "no_demand",
                        f"Nobody asked for a price in the last {minutes} minutes.",
                        "Another model or a lower base_price may be wanted more.",
                    )
                )
            if free:
                found.append(
                    Missed(
                        now_ms,
                        "free",
                        "Its base price is 0: it serves free of charge.",
                        "infraxa config set base_price 0.2 asks for credits.",
                    )
                )
        return sorted(found, key=lambda missed: -missed.at_ms)

    def _add(self, key: str, account: bytes, now_ms: int, more: int = 0) -> None:
        lost = self._lost.setdefault(key, _Lost())
        lost.at_ms, lost.more = now_ms, more
        lost.count += 1
        if len(lost.accounts) < MAX_ACCOUNTS:
            lost.accounts.add(account)

    def _forget(self, now_ms: int) -> None:
        for key, lost in list(self._lost.items()):
            if now_ms - lost.at_ms > KEPT_MS:
                del self._lost[key]


def poorly_rated(stars: Sequence[int], now_ms: int) -> Missed | None:
    """By those who gave these stars; None: so few say nothing, or they are good enough."""
    if len(stars) < FEW_RATINGS or (mean := sum(stars) / len(stars)) >= POOR:
        return None
    return Missed(
        now_ms,
        "reputation",
        f"{len(stars)} ratings give its answers {mean:.1f} of 5 stars.",
        "Where infraxa chooses, others go first. Wrong, cut and slow answers get few stars: "
        "another model, or less capacity, may help.",
    )


def _told(key: str, lost: _Lost) -> Missed:
    users = f"{len(lost.accounts)} user{'s' if len(lost.accounts) != 1 else ''}"
    times = "once" if lost.count == 1 else f"{lost.count} times"
    reason: MissedReason
    remedy = ""
    match key:
        case "dearer" | "not taken":
            reason = "dearer"
            text = f"A price was asked and not taken {times}, by {users}"
            if key == "dearer":
                text += (
                    f"; it was {lost.more} % above the cheapest other."
                    if lost.more
                    else ("; another node serves the same model free of charge.")
                )
                remedy = "A lower base_price or price_ceiling makes it cheaper."
            else:
                text += f"; the last at {shown(lost.more)} credits per 1M tokens. Nobody known was cheaper."
        case "paused":
            reason = "paused"
            text = f"{users[0].upper() + users[1:]} asked {times} while nobody was served."
            remedy = "provide_hours, pause_on_battery and pause_when_busy say when it pauses."
        case _:
            reason = _OF_CODE[key]
            text, remedy = _REFUSED[key]
            text = text.format(times=times, users=users)
    return Missed(lost.at_ms, reason, text, remedy, lost.count)


_REFUSED: Final[dict[str, tuple[str, str]]] = {
    "busy": (
        "There was no room {times}, for {users}.",
        "More capacity, or a higher base_price, which fewer pay.",
    ),
    "expired": ("Orders waited too long in the line {times}, of {users}.", "More capacity serves them."),
    "tab_limit": (
        "The tab was full {times}, of {users}.",
        "infraxa tabs shows who owes what; a limit of its own lets somebody owe more.",
    ),
    "receipt_due": ("A receipt was not countersigned {times}, by {users}.", ""),
    "strangers_full": (
        "What strangers may run up in a day was used up {times}, for {users}.",
        "strangers_daily and stranger_limit say how much it is.",
    ),
    "model_gone": ("A model was asked for that is not served {times}, by {users}.", ""),
    "not_allowed": (
        "By your own choice {users} got nothing {times}: blocked.",
        "The Provide view shows whom you blocked.",
    ),
    "internal": ("An answer failed {times}, of {users}.", "The log says why."),
}
