"""What the tables of the Earnings view show of sums, tabs and receipts: columns, rows, one row in full.

Names and notes are claims of strangers: they pass a filter here and are never markup. Amounts of one column
have their points one under the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from textual.content import Content

from infraxa.app.network_words import span
from infraxa.app.trade import Earnings, ReceiptSeen, Sum, TabSeen
from infraxa.app.tui.widgets.driver import named
from infraxa.app.tui.widgets.earnings_chart import EARNED, SPENT, Bar, day_text
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.table import Cell, Column, Row
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.verdict_words import verdict_text
from infraxa.net.credits import shown
from infraxa.net.identity import SHORT_LENGTH
from infraxa.net.names import clean_name

_QUIET = "$foreground 60%"
_BAR = 8
"""Cells of the bar that says how much of a limit is used."""
NEAR = 0.8
"""Of a limit: from here on it stands out."""

MODELS = (
    Column("model", 14, grow=1),
    Column("earned", 9, right=True, descending=True),
    Column("spent", 9, right=True, descending=True),
    Column("answers", 8, right=True, from_width=48, descending=True),
    Column("tokens", 9, right=True, from_width=60, descending=True),
)
PEERS = (Column("peer", 14, grow=1, tail=SHORT_LENGTH + 1), *MODELS[1:])
TABS = (
    Column("peer", 14, grow=3, tail=SHORT_LENGTH + 1),
    Column("", 7),
    Column("owed", 9, right=True, descending=True),
    Column("limit", 9, right=True, descending=True),
    Column("used", _BAR, from_width=62, descending=True),
    Column("unsigned", 9, right=True, from_width=110, descending=True),
    Column("held", 9, right=True, from_width=98, descending=True),
    Column("last", 5, right=True, from_width=74),
    Column("note", 13, grow=2, from_width=84),
)
RECEIPTS = (
    Column("when", 12, descending=True),
    Column("", 6),
    Column("peer", 14, grow=1, tail=SHORT_LENGTH + 1),
    Column("model", 10, grow=1, from_width=96),
    Column("prompt", 7, right=True, from_width=118, descending=True),
    Column("answer", 7, right=True, from_width=86, descending=True),
    Column("charge", 9, right=True, from_width=62, descending=True),
    Column("accepted", 9, right=True, descending=True),
    Column("state", 10),
    Column("verdict", 12, from_width=106),
)
VERDICT = len(RECEIPTS) - 1
"""The place of the column that only what was bought has something for."""
OWES = {"provider": "owes me", "user": "I owe"}
_WAY = {"provider": "sold", "user": "bought"}
STATES = {
    "due": ("◌ unsigned", ".table--warn"),
    "signed": ("✓ signed", ".table--good"),
    "disputed": ("≠ disputed", ".table--warn"),
    "reversed": ("↺ reversed", ".table--warn"),
}
"""Of a receipt, and the style."""
VERDICTS = {
    "": ("", ""),
    "unverified": ("unverified", ".table--aside"),
    "signed": ("not audited", ".table--aside"),
    "passed": ("✓ passed", ".table--good"),
    "failed": ("✗ failed", ".table--warn"),
    "undetermined": ("undetermined", ".table--aside"),
}
"""Of what was bought, and the style."""
_CAUGHT = ("✗ caught", ".table--warn")
_SAID = {
    "due": "the user has not countersigned it yet",
    "signed": "both sides signed it",
    "disputed": "both sides signed what is accepted; the rest moves nothing",
    "reversed": "it was taken back since",
}
_ENDS = {
    "stop": "a whole answer",
    "length": "cut at the limit of tokens",
    "embedded": "vectors of texts",
    "scored": "scores of an answer",
    "cancelled": "stopped by the user",
    "failed": "failed at the provider",
}


def peer_name(name: str, peer: str) -> str:
    """`maple·7k2m9x4q`, or the beginning of the id alone."""
    return named(name, peer)


def who(tab: TabSeen) -> str:
    """Whose tab it is, where one name is wanted: the node behind an account, if it is known."""
    return peer_name(tab.linked_name, tab.linked) if tab.linked_name else peer_name(tab.name, tab.peer)


def aligned(listed: Iterable[int]) -> list[str]:
    """As texts with their points one under the other when they stand at the right."""
    texts = [shown(one) for one in listed]
    longest = max((len(text) - text.index(".") for text in texts), default=0)
    return [text + " " * (longest - len(text) + text.index(".")) for text in texts]


def amounts(listed: Iterable[int]) -> list[str]:
    """The same, with nothing for 0."""
    given = list(listed)
    texts = iter(aligned(one for one in given if one))
    return [next(texts) if one else "" for one in given]


_SUMMED = ("earned", "spent", "sold", "bought", "tokens_sold", "tokens_bought")


def _more(part: Sum, other: Sum) -> Sum:
    return Sum("", "", *(getattr(part, name) + getattr(other, name) for name in _SUMMED))


def totals(earnings: Earnings, width: int) -> Content:
    """What came in and went out, and what is owed, in three lines."""
    before = earnings.before
    everything = _more(earnings.total, before) if before is not None else None
    columns = [("today", earnings.today), ("7 days", earnings.week)]
    if everything is not None:
        columns.append(("all", everything))
    lines: list[Content] = []
    for sign, word, style, of in (("▲", "earned", EARNED, "earned"), ("▼", "spent", SPENT, "spent")):
        parts: list[Content | str | tuple[str, str]] = [(f"{sign} ", style), (f"{word:<7}", "bold")]
        for at, (label, one) in enumerate(columns):
            both = aligned([one.earned, one.spent])
            amount = both[0] if of == "earned" else both[1]
            parts += [f"{'   ' if at else ' '}{amount:>{max(map(len, both))}} ", (label, _QUIET)]
        line = Content.assemble(*parts)
        if everything is not None:
            answers, tokens = (
                (everything.sold, everything.tokens_sold)
                if of == "earned"
                else (everything.bought, everything.tokens_bought)
            )
            more = f"   {thousands(answers)} answer{'s' * (answers != 1)}, {thousands(tokens)} tokens"
            if answers and line.cell_length + len(more) <= width:
                line += Content.styled(more, _QUIET)
        lines.append(line)
    lines.append(_owed(earnings, width))
    return Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)


def _owed(earnings: Earnings, width: int) -> Content:
    balance = earnings.owed_to_me - earnings.owed_by_me
    parts = [
        Content.assemble(("owed to me ", _QUIET), shown(earnings.owed_to_me)),
        Content.assemble(("by me ", _QUIET), shown(earnings.owed_by_me)),
    ]
    for amount, word in ((earnings.unsigned, "unsigned"), (earnings.disputed, "disputed")):
        if amount:
            parts.append(Content.styled(f"{shown(amount)} {word}", "$text-warning"))
    if earnings.canaries_today:
        parts.append(Content.styled(f"{shown(earnings.canaries_today)} on canaries today", _QUIET))
    owed = Content.styled(" · ", _QUIET).join(parts)
    total = Content.assemble(("balance", "bold"), f" {'+' if balance > 0 else ''}{shown(balance)}   ")
    return Content("= ") + (total + owed if 2 + total.cell_length + owed.cell_length <= width else owed)


def sum_rows(sums: Sequence[Sum], *, peers: bool) -> list[Row]:
    """A row for each model, or peer."""
    earned, spent = amounts(one.earned for one in sums), amounts(one.spent for one in sums)
    rows: list[Row] = []
    for at, one in enumerate(sums):
        label = peer_name(one.name, one.key) if peers else one_line(one.name, 80) or "a model without a name"
        answers, tokens = one.sold + one.bought, one.tokens_sold + one.tokens_bought
        cells = (label, earned[at], spent[at], thousands(answers), thousands(tokens))
        order = (label.lower(), float(one.earned), float(one.spent), float(answers), float(tokens))
        rows.append(Row(one.key.encode(), cells, order, one))
    return rows


def tab_rows(tabs: Sequence[TabSeen], now_ms: int) -> list[Row]:
    """`now_ms`: milliseconds since the epoch."""
    owed, limits = amounts(tab.owed for tab in tabs), amounts(tab.limit for tab in tabs)
    unsigned, held = amounts(tab.unsigned for tab in tabs), amounts(tab.held for tab in tabs)
    rows: list[Row] = []
    for at, tab in enumerate(tabs):
        name = peer_name(tab.name, tab.peer)
        if tab.linked:
            name += f" ⇄ {clean_name(tab.linked_name)}".rstrip()
        used = used_of(tab)
        age = (now_ms - tab.last_ms) / 1000 if tab.last_ms else None
        note = one_line(tab.note, 120)
        cells: tuple[Cell, ...] = (
            name,
            OWES[tab.role],
            owed[at] or "0",
            limits[at] if tab.limit else "–",
            (_used_bar(used), ".table--warn" if used is not None and used >= NEAR else ""),
            unsigned[at],
            held[at],
            span(age) if age is not None else "",
            (note, ".table--mark"),
        )
        order = (
            name.lower(), tab.role, float(tab.owed), float(tab.limit) if tab.limit else None, used,
            float(tab.unsigned), float(tab.held), age, note or None,
        )  # fmt: skip
        rows.append(Row(f"{tab.role} {tab.peer}".encode(), cells, order, tab))
    return rows


def waits(tab: TabSeen) -> bool:
    """Whether its note wants something of the person: not what this side proposed."""
    return bool(tab.note) and not (tab.role == "user" and tab.settling)


def used_of(tab: TabSeen) -> float | None:
    """How much of the limit is owed, unsigned or held; None: the limit is not known."""
    return (tab.owed + tab.unsigned + tab.held) / tab.limit if tab.limit else None


def _used_bar(used: float | None) -> str:
    if used is None:
        return ""
    full = max(0, min(_BAR, round(used * _BAR)))
    return "━" * (max(1, full) if used > 0 else 0) + "─" * (_BAR - (max(1, full) if used > 0 else 0))


def receipt_rows(receipts: Sequence[ReceiptSeen]) -> list[Row]:
    """The newest have the highest place."""
    charges = amounts(one.charge for one in receipts)
    accepted = amounts(one.accepted for one in receipts)
    rows: list[Row] = []
    for at, one in enumerate(receipts):
        name, model = peer_name(one.name, one.peer), one_line(one.model, 60)
        cells: tuple[Cell, ...] = (
            when(one.at_ms),
            way(one),
            name,
            model,
            thousands(one.n_prompt),
            thousands(one.n_out),
            charges[at] or "free",
            accepted[at] or ("" if one.state == "due" else "0"),
            STATES[one.state],
            _CAUGHT if one.proven else VERDICTS[one.verdict],
        )
        order = (
            float(one.place), one.role, name.lower(), model.lower(), float(one.n_prompt), float(one.n_out),
            float(one.charge), float(one.accepted), one.state, one.verdict or None,
        )  # fmt: skip
        rows.append(Row(one.place.to_bytes(8, "big"), cells, order, one))
    return rows


def when(milliseconds: int) -> str:
    """`21 Nov 14:02`, in the time of this machine."""
    moment = time.localtime(milliseconds / 1000)
    return f"{moment.tm_mday:2} {time.strftime('%b %H:%M', moment)}"


def way(one: ReceiptSeen) -> str:
    """In which direction it went."""
    if one.canary:
        return "audit" if one.outcome == "scored" else "canary"
    return _WAY[one.role]


def in_full(thing: object, tabs: Sequence[TabSeen], now_ms: int) -> Content:
    """All of what is under the cursor that it has no room for, in three lines."""
    match thing:
        case Bar():
            return _bar_in_full(thing)
        case TabSeen():
            return _tab_in_full(thing, tabs, now_ms)
        case ReceiptSeen():
            return _receipt_in_full(thing)
        case Sum():
            return _sum_in_full(thing)
        case _:
            return Content("")


def _lines(first: str, *others: str) -> Content:
    return Content.assemble(first, *(("\n" + line, _QUIET) for line in others if line))


def _bar_in_full(bar: Bar) -> Content:
    title = day_text(bar.start) if bar.days == 1 else f"{bar.days} days from {day_text(bar.start)}"
    return _lines(f"{title} {bar.start.year}", *_both(bar))


def _sum_in_full(one: Sum) -> Content:
    return _lines(one_line(one.key, 80), *_both(one))


def _both(one: Sum | Bar) -> list[str]:
    parts = (
        ("earned", one.earned, one.sold, one.tokens_sold),
        ("spent", one.spent, one.bought, one.tokens_bought),
    )
    return [
        f"{word} {shown(amount)} credits for {thousands(answers)} answer{'s' * (answers != 1)}, "
        f"{thousands(tokens)} tokens of them"
        for word, amount, answers, tokens in parts
        if amount or answers
    ] or ["nothing was earned or spent"]


def _tab_in_full(tab: TabSeen, tabs: Sequence[TabSeen], now_ms: int) -> Content:
    owes = f"{OWES[tab.role].replace('I owe', 'I owe it')} {shown(tab.owed)}"
    if tab.limit:
        whose = "its own limit" if tab.own_limit else "as any stranger"
        parts = [f"{owes} of {shown(tab.limit)}, {whose if tab.role == 'provider' else 'as it said last'}"]
    else:
        parts = [f"{owes} credits"]
    if tab.unsigned:
        parts.append(f"{shown(tab.unsigned)} not countersigned")
    if tab.held:
        parts.append(f"{shown(tab.held)} held for what runs")
    if tab.last_ms:
        parts.append(f"last {span((now_ms - tab.last_ms) / 1000)} ago")
    netted = netting(tab, tabs)
    owner = who(tab) if tab.linked_name else f"node {one_line(tab.linked, 64)}"
    third = one_line(tab.note, 200)
    if not third and netted:
        third = f"⇄ {shown(netted)} of it can be paid by what is owed the other way: t settles"
    elif not third and tab.linked:
        third = f"⇄ it is the account of {owner}"
    return _lines(one_line(tab.peer, 64), " · ".join(parts), third)


def netting(tab: TabSeen, tabs: Sequence[TabSeen]) -> int:
    """How much of a tab can be paid by what is owed the other way between the same two nodes."""
    if tab.role == "user":
        others = [other for other in tabs if other.role == "provider" and other.linked == tab.peer]
    else:
        others = [other for other in tabs if other.role == "user" and tab.linked == other.peer]
    return min(tab.owed, sum(max(0, other.owed) for other in others)) if tab.owed > 0 else 0


def _receipt_in_full(one: ReceiptSeen) -> Content:
    driver, user = counts(one.n_prompt, one.n_cached, one.n_out), counted(one)
    told = f"both count {driver}" if driver == user else f"driver counts {driver} · user {user}"
    price = f"at {shown(one.price_in)} / {shown(one.price_out)}"
    whole = one.state == "signed" and one.accepted == one.charge
    accepted = "" if whole else f" · accepted {shown(one.accepted)}"
    money = f"charge {shown(one.charge)}{accepted} · {_SAID[one.state]}"
    return _lines(
        f"{one.order[:16]} · {one_line(one.peer, 64)}",
        " · ".join(part for part in (verdict_of(one), told, price) if part),
        f"{money} · {ending(one)}{_purpose(one)}",
    )


def verdict_of(one: ReceiptSeen) -> str:
    """What is known of how it was computed, as below an answer; empty where there is nothing to know."""
    return one_line(verdict_text(one.verdict, one.why, proven=one.proven), 80) if one.verdict else ""


def _purpose(one: ReceiptSeen) -> str:
    if not one.canary:
        return ""
    return " · it judged a canary" if one.outcome == "scored" else " · nobody asked: it audits the driver"


def counts(n_prompt: int, n_cached: int, n_out: int) -> str:
    """`812 (480 cached) + 412`."""
    cached = f" ({thousands(n_cached)} cached)" if n_cached else ""
    return f"{thousands(n_prompt)}{cached} + {thousands(n_out)}"


def counted(one: ReceiptSeen) -> str:
    """What the user of the two counted."""
    if one.counted is None:
        return "not told yet" if one.state == "due" else "the same or less"
    return counts(*one.counted)


def ending(one: ReceiptSeen) -> str:
    """How the answer ended."""
    return _ENDS.get(one.outcome) or one_line(one.outcome, 40) or "it ended"


def said_of(one: ReceiptSeen) -> str:
    """What its state means, in a few words."""
    return _SAID[one.state]
