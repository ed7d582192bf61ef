"""A node whose books are as the test says: a month of trade with several others, and the year before it."""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence

import msgspec

from infraxa.app.config import Settings
from infraxa.app.events import TradeChanged
from infraxa.app.folders import Folders
from infraxa.app.trade import Earnings, Missed, ReceiptLine, ReceiptSeen, Role, Sum, TabSeen
from infraxa.net.identity import id_text
from tests.app.still import DAY, HOUR, MINUTE, NOW, an_id
from tests.app.still_provider import ProvidingNode


def peer(name: str) -> str:
    """The id of the node or account that is called so in tests, as people write it."""
    return id_text(an_id(name))


TABS = [
    TabSeen("provider", peer("ada"), "ada", 41_200, 50_000, True, 420, 1_800, peer("birch"), NOW - 9_000),
    TabSeen(
        "provider", peer("noah"), "noah", 4_950, 5_000, False, 38, 0, "", NOW - 3 * HOUR,
        "It proposes to settle 0.00495 credits: “Two coffees on Thursday”", "proposed",
    ),
    TabSeen("provider", peer("lin"), "", 312, 5_000, False, 0, 0, "", NOW - 2 * DAY),
    TabSeen("user", peer("birch"), "birch", 18_750, 30_000, True, 0, 2_400, "", NOW - 40_000),
    TabSeen("user", peer("quartz"), "quartz", 0, 5_000, False, 0, 0, "", NOW - 19 * DAY),
    TabSeen(
        "user", peer("slate"), "[b]slate[/b]\x1b[31m", 77, 0, False, 0, 0, "", NOW - 4 * DAY,
        "Its book says 0.0002 more than this one.",
    ),
]  # fmt: skip
_SELLS = [("guide", 900), ("Qwen3-4B-Instruct-2507", 2_600)]
_BUYS = [("Mistral-Small-3.2-24B-Instruct", 800), ("Qwen3-30B-A3B", 1_200)]


def _days(count: int) -> tuple[Sum, ...]:
    """A sum for most of the last days; the same at every run."""
    draw = random.Random(7)
    today = datetime.date.fromtimestamp(NOW / 1000)
    days = []
    for back in reversed(range(count)):
        day = today - datetime.timedelta(days=back)
        weekend = day.weekday() >= 5
        sold = 0 if draw.random() < 0.1 else draw.randint(8, 40) * (2 if weekend else 1)
        bought = 0 if draw.random() < 0.3 else draw.randint(1, 12)
        if sold or bought:
            days.append(
                Sum(
                    day.isoformat(), "", sold * draw.randint(60, 140), bought * draw.randint(80, 210), sold,
                    bought, sold * 412, bought * 300,
                )
            )  # fmt: skip
    return tuple(days)


YEAR = _days(365)


def _total(key: str, days: Sequence[Sum]) -> Sum:
    names = ("earned", "spent", "sold", "bought", "tokens_sold", "tokens_bought")
    return Sum(key, "", *(sum(getattr(day, name) for day in days) for name in names))


def _shares(total: Sum, sellers: Sequence[tuple[str, str]], buyers: Sequence[tuple[str, str]]) -> list[Sum]:
    """The total among these (key, name): the first has the most."""
    parts = []
    for at, (key, name) in enumerate(sellers):
        share = 2 ** (len(sellers) - at)
        parts.append(
            Sum(key, name, total.earned // share, 0, total.sold // share, 0, total.tokens_sold // share)
        )
    for at, (key, name) in enumerate(buyers):
        share = 2 ** (len(buyers) - at)
        parts.append(
            Sum(key, name, 0, total.spent // share, 0, total.bought // share, 0, total.tokens_bought // share)
        )
    return [part for part in parts if part.earned or part.spent]


def books(since_ms: int, days: Sequence[Sum] = YEAR, tabs: Sequence[TabSeen] = TABS) -> Earnings:
    """The sums since then."""
    since = datetime.date.fromtimestamp(since_ms / 1000).isoformat()
    today = datetime.date.fromtimestamp(NOW / 1000)
    week = (today - datetime.timedelta(days=6)).isoformat()
    found = [day for day in days if day.key >= since]
    total = _total("", found)
    return Earnings(
        since_ms,
        total,
        tuple(found),
        tuple(_shares(total, [(name, name) for name, _ in _SELLS], [(name, name) for name, _ in _BUYS])),
        tuple(
            _shares(
                total,
                [(peer("ada"), "ada"), (peer("noah"), "noah"), (peer("lin"), "")],
                [(peer("birch"), "birch"), (peer("quartz"), "quartz")],
            )
        ),
        _total("today", [day for day in days if day.key == today.isoformat()]),
        _total("week", [day for day in days if day.key >= week]),
        sum(tab.owed for tab in tabs if tab.role == "provider"),
        sum(tab.owed for tab in tabs if tab.role == "user"),
        sum(tab.unsigned for tab in tabs),
        120 if tabs else 0,
        _total("", [day for day in days if day.key < since]),
    )


_VERDICTS: tuple[tuple[str, str, bool], ...] = (
    ("passed", "", False),
    ("unverified", "", False),
    ("signed", "", False),
    ("undetermined", "too few tokens", False),
    ("failed", "another model", False),
    ("failed", "wrong token", True),
)


def receipts(count: int) -> list[ReceiptSeen]:
    """The newest first; some of every state."""
    sold, bought = ("ada", "noah", ""), ("birch", "quartz")
    found = []
    for at in range(count):
        is_sold = at % 4 != 3
        name = sold[at % 3] if is_sold else bought[at % 2]
        n_prompt, n_out = 812 + 37 * at % 900, 88 + 53 * at % 700
        charge = (n_prompt * 50_000 + n_out * 200_000) // 1_000_000
        state = "due" if at == 0 else "disputed" if at % 17 == 5 else "reversed" if at % 41 == 9 else "signed"
        over = 12 if state == "disputed" else 0
        found.append(
            ReceiptSeen(
                count - at,
                "provider" if is_sold else "user",
                f"{at:032x}",
                peer(name or "lin"),
                name,
                "guide" if is_sold else "Qwen3-30B-A3B",
                NOW - 7 * MINUTE * at - 4 * MINUTE,
                n_prompt,
                480 if at % 2 else 0,
                n_out,
                50_000,
                200_000,
                charge,
                0 if state == "due" else charge - over // 5,
                state,  # type: ignore[arg-type] # one of them
                "cancelled" if at % 11 == 4 else "stop",
                None if state == "due" else (n_prompt, 480 if at % 2 else 0, n_out - over),
                False,
                *(("",) if is_sold else _VERDICTS[at // 4 % len(_VERDICTS)]),
            )
        )
    return found


MISSED = [
    Missed(
        NOW - 3 * MINUTE,
        "dearer",
        "A price was asked and not taken 12 times, by 5 users; it was 35 % above the cheapest other.",
        "A lower base_price or price_ceiling makes it cheaper.",
        12,
    ),
    Missed(
        NOW - 40 * MINUTE,
        "busy",
        "There was no room 4 times, for 2 users.",
        "More capacity, or a higher base_price, which fewer pay.",
        4,
    ),
    Missed(
        NOW - 5 * HOUR,
        "tab",
        "The tab was full once, of 1 user.",
        "infraxa tabs shows who owes what; a limit of its own lets somebody owe more.",
    ),
    Missed(NOW - 7 * HOUR, "failed", "An answer failed once, of 1 user.", "The log says why."),
]


class TradingNode(ProvidingNode):
    """Its books are as it was told, and it notes what it is asked for."""

    days: Sequence[Sum] = YEAR
    known_tabs: Sequence[TabSeen] = TABS
    known: Sequence[ReceiptSeen] = ()
    missed: Sequence[Missed] = ()
    lines = (ReceiptLine(1, '{"infraxa_receipt": 1}'),)

    def __init__(self, settings: Settings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.known = receipts(250)

    async def earnings(self, since_ms: int = 0) -> Earnings:
        self.asked.append(("earnings", since_ms))
        return books(since_ms, self.days, self.known_tabs)

    async def list_tabs(self) -> list[TabSeen]:
        return list(self.known_tabs)

    async def set_tab_limit(self, peer: str, limit: int | None) -> None:
        self.asked.append(("limit", peer, limit))
        self.known_tabs = [
            msgspec.structs.replace(tab, limit=5_000 if limit is None else limit, own_limit=limit is not None)
            if tab.peer == peer
            else tab
            for tab in self.known_tabs
        ]
        self._emit(TradeChanged())

    async def settle(self, peer: str, amount: int | None = None, note: str = "") -> str:
        self.asked.append(("settle", peer, amount, note))
        return "Settled by what it owes this node: 0.01875 credits."

    async def decline(self, peer: str) -> str:
        self.asked.append(("decline", peer))
        self.known_tabs = [
            msgspec.structs.replace(tab, note="", settling="") if tab.peer == peer else tab
            for tab in self.known_tabs
        ]
        self._emit(TradeChanged())
        return "Declined: 0.00495 credits are owed as before."

    async def list_receipts(
        self, *, role: Role | None = None, before: int | None = None, count: int = 100
    ) -> list[ReceiptSeen]:
        self.asked.append(("receipts", role, before, count))
        found = [
            one
            for one in self.known
            if (before is None or one.place < before) and (role is None or one.role == role)
        ]
        return found[:count]

    async def export_receipts(
        self, order: str | None = None, *, before: int | None = None, count: int = 100
    ) -> list[ReceiptLine]:
        self.asked.append(("export", order))
        return list(self.lines)

    async def list_missed(self) -> list[Missed]:
        return list(self.missed)

    def become_books(
        self,
        days: Sequence[Sum],
        tabs: Sequence[TabSeen] = (),
        known: Sequence[ReceiptSeen] = (),
        missed: Sequence[Missed] = (),
    ) -> None:
        """These are the books from now on, and it says so."""
        self.days, self.known_tabs, self.known, self.missed = days, tabs, known, missed
        self._emit(TradeChanged())
