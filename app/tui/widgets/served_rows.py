"""What the tables of the Provide view show of requests and of blocked users: columns, rows, one row in full.

Keys of users and addresses come from strangers: they pass a filter here and are never markup.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import nlargest

from textual.content import Content

from infraxa.app import serving_words as words
from infraxa.app.network_words import span
from infraxa.app.serving import BlockedUser, Served
from infraxa.app.tui.widgets.facts import short_time, speed
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.table import Cell, Column, Row
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.identity import SHORT_LENGTH, id_text, short_id

SHOWN_ENDED = 200
"""Requests that have ended and are listed, the newest."""
FRESH = 10.0
"""Seconds in which a request that has ended stands out from those before it."""

REQUESTS = (
    Column("#", 4, right=True, descending=True),
    Column("user", SHORT_LENGTH),
    Column("from", 14, grow=1, from_width=90),
    Column("state", 12, grow=1),
    Column("why", 16, grow=4, from_width=110),
    Column("tokens", 6, right=True, from_width=46, descending=True),
    Column("speed", 10, right=True, from_width=58, descending=True),
    Column("first token", 11, right=True, from_width=74),
    Column("time", 6, right=True, descending=True),
)
BLOCKED = (
    Column("user", SHORT_LENGTH),
    Column("blocked", 8, right=True),
    Column("note", 12, grow=1),
)

_ORDER = ("answering", "reading", "sending", "waiting", "done", "failed", "cancelled", "refused")
"""By which states are sorted."""
_PLACES = {"relay": "by a relay", "local": "local network"}
_WAITING, _ENDED = 1, 2
"""Groups of rows; those that are being served are above."""


def user_text(user: bytes) -> str:
    """The beginning of a user's key."""
    return short_id(user) or "unknown"


def from_text(where: str) -> str:
    """Where a request came from: a group of addresses."""
    return _PLACES.get(where) or one_line(where, 64) or "unknown"


def request_rows(served: Iterable[Served], now_ms: int) -> list[Row]:
    """Those that are served, then those that wait, then the newest of those that have ended."""
    all_of_them = list(served)
    ended = nlargest(SHOWN_ENDED, (one for one in all_of_them if one.ended_ms), key=lambda one: one.number)
    return [_row(one, now_ms) for one in (*(one for one in all_of_them if not one.ended_ms), *ended)]


def _row(one: Served, now_ms: int) -> Row:
    took = ((one.ended_ms or now_ms) - one.since_ms) / 1000
    texts = (
        f"{one.number}",
        user_text(one.user),
        from_text(one.where),
        one_line(words.state(one), 40),
        one_line(one.reason, 160),
        thousands(one.n_out) if one.n_out else "",
        speed(one.tokens_per_second) if one.tokens_per_second is not None else "",
        short_time(one.first_token_ms) if one.first_token_ms is not None else "",
        span(took),
    )
    order = (
        float(one.number),
        texts[1],
        texts[2],
        float(_ORDER.index(one.state)),
        texts[4] or None,
        float(one.n_out),
        one.tokens_per_second,
        one.first_token_ms,
        took,
    )
    if one.ended_ms:
        old = now_ms - one.ended_ms > FRESH * 1000
        cells: list[Cell] = [(text, ".table--aside") if old else text for text in texts]
        cells[3] = (f"{_MARKS[one.state]} {texts[3]}", _STYLES.get(one.state, ".table--aside"))
        return Row(_key(one), tuple(cells), order, one, _ENDED)
    cells = [*texts]
    cells[3] = ("● " + texts[3], ".table--good") if one.state == "answering" else "◌ " + texts[3]
    return Row(_key(one), tuple(cells), order, one, _WAITING if one.state == "waiting" else 0)


_MARKS = {"done": "✓", "failed": "✕", "cancelled": "–", "refused": "–"}
_STYLES = {"failed": ".table--warn"}


def _key(one: Served) -> bytes:
    return one.number.to_bytes(8, "big", signed=True)


def blocked_rows(blocked: Iterable[BlockedUser], now_ms: int) -> list[Row]:
    """`now_ms`: milliseconds since the epoch."""
    rows: list[Row] = []
    for one in blocked:
        age = (now_ms - one.since_ms) / 1000
        note = one_line(one.note, 80)
        rows.append(
            Row(one.user, (user_text(one.user), span(age), note), (user_text(one.user), age, note), one)
        )
    return rows


def in_full(thing: object, blocked: Collection[bytes], now_ms: int) -> Content:
    """All of what a row is of that the row has no room for, in two lines."""
    match thing:
        case Served():
            return _served_in_full(thing, thing.user in blocked, now_ms)
        case BlockedUser():
            return _two_lines(thing.user, "", ["blocked: it is refused", "b takes it back"])
        case _:
            return Content("")


def _served_in_full(one: Served, is_blocked: bool, now_ms: int) -> Content:
    parts = [one_line(one.reason, 160).rstrip(".")] if one.reason else []
    came = {"relay": "came by a relay", "local": "from the local network"}
    parts.append(came.get(one.where) or f"from {from_text(one.where)}")
    if one.n_prompt:
        parts.append(f"prompt {thousands(one.n_prompt)} tokens")
    parts.append(f"asked {words.time_of_day(one.since_ms)}")
    if one.ended_ms:
        parts.append(f"ended {span((now_ms - one.ended_ms) / 1000)} ago")
    return _two_lines(one.user, "blocked · " if is_blocked else "", parts)


def _two_lines(user: bytes, mark: str, parts: list[str]) -> Content:
    return Content.assemble(
        id_text(user) or "A user without a key",
        "\n",
        (mark, "$text-warning"),
        (" · ".join(parts), "$foreground 60%"),
    )
