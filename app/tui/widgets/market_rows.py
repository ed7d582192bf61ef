"""What the market's table shows of offers: its columns, its rows, and which rows a filter leaves.

Names are claims of strangers: they pass a filter here and are never markup. What a row has no room for is in
offer_facts.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from infraxa.app.audit_words import badge_of, commits, wrong_of
from infraxa.app.network_words import span
from infraxa.app.offers import Mark, OfferSeen
from infraxa.app.tui.widgets.driver import is_free
from infraxa.app.tui.widgets.facts import short_time
from infraxa.app.tui.widgets.figures import price
from infraxa.app.tui.widgets.network_rows import round_trip
from infraxa.app.tui.widgets.price_line import NO_PAST, PricePast
from infraxa.app.tui.widgets.table_rows import AnyRow, Cell, Column, Value
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.identity import SHORT_LENGTH, display, id_text
from infraxa.net.status import SeenNode

_CACHED = 8192
"""Names whose safe form is remembered: cleaning one takes longer than painting it."""
_WHOLE_ID = 12
"""A word of a filter that is longer than what is shown of an id may be the beginning of a whole one."""

DAY_BARS = 8
"""Cells of the price of the last 24 hours, 3 hours each."""
PAST_FROM = 147
"""Cells of a table from which it has room."""

COLUMNS = (
    Column("★", 2),
    Column("provider", 16, grow=1, tail=SHORT_LENGTH + 1),
    Column("model", 12, grow=2),
    Column("quant", 8, from_width=112),
    Column("context", 8, right=True, from_width=157, descending=True),
    Column("price", 6, right=True, from_width=52),
    Column("24 h", DAY_BARS, from_width=PAST_FROM),
    Column("stars", 9, right=True, from_width=73, descending=True),
    Column("verified", 8, from_width=102, descending=True),
    Column("state", 7, from_width=46),
    Column("slots", 6, right=True, from_width=86, descending=True),
    Column("trip", 7, right=True, from_width=94),
    Column("success", 8, right=True, from_width=133, descending=True),
    Column("1st token", 10, right=True, from_width=124),
    Column("tok/s", 6, right=True, from_width=62, descending=True),
    Column("heard", 6, right=True, from_width=142),
)
BEST = 0
"""The column that keeps offers as Node lists them, the best first."""
_GROUPS: dict[Mark, int] = {"pinned": -1, "": 0, "blocked": 1}


class Wanted(NamedTuple):
    """Which offers are shown."""

    words: str = ""
    """Each of them is in what is shown of the provider's name or of the model."""
    free: bool = False
    online: bool = False
    most: int | None = None
    """µcr per 1M tokens of the answer; None: any."""

    def shows(self, offer: OfferSeen) -> bool:
        """Whether this offer is one of them."""
        if self.free and not is_free(offer):
            return False
        if self.most is not None and offer.price_out > self.most:
            return False
        if self.online and offer.node.status != "online":
            return False
        return not self.words or all(_holds(offer, word) for word in self.words.casefold().split())


@lru_cache(_CACHED)
def label(text: str) -> str:
    """A claimed name of a model, a format or a backend as it may be shown: one line, nothing invisible."""
    plain = unicodedata.normalize("NFKC", one_line(text, 96))
    return "".join(char for char in plain if char == " " or unicodedata.category(char)[0] not in "CZM")


@lru_cache(_CACHED)
def _who(name: str, node: bytes) -> str:
    return display(name, node)


def who(node: SeenNode) -> str:
    """`maple·7k2m9x4q`."""
    return _who(node.name, node.id)


@lru_cache(_CACHED)
def _text(name: str, node: bytes, model: str, quantization: str) -> str:
    return f"{_who(name, node)} {label(model)} {label(quantization)}".casefold()


def _holds(offer: OfferSeen, word: str) -> bool:
    node, model = offer.node, offer.model
    if word in _text(node.name, node.id, model.name, model.quantization):
        return True
    return len(word) >= _WHOLE_ID and id_text(node.id).startswith(word)


def tokens(count: int) -> str:
    """A number of tokens in at most five characters: `512`, `32k`, `1M`."""
    for unit, size in (("G", 2**30), ("M", 2**20), ("k", 2**10)):
        if count >= size:
            return f"{count // size}{unit}"
    return str(count)


def busy_slots(node: SeenNode) -> int:
    """Slots that are taken, of `node.slots`."""
    return round(node.util * node.slots / 255)


def percent(share: float) -> str:
    """`98 %`; what is not quite all is not rounded to all."""
    return f"{int(share * 100)} %"


def promised_speed(offer: OfferSeen) -> float | None:
    """Tokens per second that the node promises; None: it promises nothing."""
    return offer.model.speed / 1000 if offer.model.speed else None


def promised_first_token(offer: OfferSeen) -> float | None:
    """Milliseconds to the first token, as the node says."""
    return offer.node.first_token_ms or None


def offer_key(offer: OfferSeen) -> bytes:
    """Of this model of this node."""
    return offer.node.id + offer.model.model_id


class OfferRow(msgspec.Struct, frozen=True, gc=False):
    """The row of an offer. `gc`: there are thousands, made anew every second, and a value is in no cycle."""

    key: bytes
    of: OfferSeen
    at: int
    """Its place among all, the best first."""
    age_s: float
    """Since its provider was heard of."""
    is_driver: bool
    """It answers the shown chat."""
    past: PricePast
    most: int | None
    """µcr per 1M tokens; what is dearer is not chosen by itself."""

    @property
    def group(self) -> int:
        return _GROUPS[self.of.mark]

    def cells(self) -> tuple[Cell, ...]:
        """Its texts, in the order of COLUMNS."""
        offer, node, model = self.of, self.of.node, self.of.model
        gone = node.status == "offline" or offer.mark == "blocked"
        aside = ".table--aside" if gone else ""
        name = who(node)
        suspicious = node.same_name_as is not None
        mark = {"pinned": "★", "blocked": "✕"}.get(offer.mark, " ")
        return (
            (f"{'▸' if self.is_driver else ' '}{mark}", ".table--aside" if gone else ".table--mark"),
            (f"! {name}", ".table--warn") if suspicious else (name, aside),
            (label(model.name) or "unnamed", aside),
            (label(model.quantization), ".table--aside"),
            (tokens(model.context), aside),
            (price_text(offer), aside or _price_style(offer, self.most)),
            (self.past.bars(DAY_BARS), ".table--aside"),
            (rating_text(offer), aside or (".table--mark" if offer.new else "")),
            _verified(offer, aside),
            _state(offer),
            (f"{busy_slots(node)}/{node.slots}" if node.slots else "–", aside),
            (round_trip(node.rtt_ms), aside),
            (percent(offer.success) if offer.success is not None else "–", _success_style(offer) or aside),
            _measured(offer.first_token_ms, promised_first_token(offer), short_time, aside),
            _measured(offer.tokens_per_second, promised_speed(offer), rate_text, aside),
            (span(self.age_s), aside),
        )

    def value(self, column: int) -> Value:
        """What this one of COLUMNS sorts it by."""
        return _ORDER[column](self)


_ORDER: tuple[Callable[[OfferRow], Value], ...] = (
    lambda row: row.at,
    lambda row: who(row.of.node).casefold(),
    lambda row: label(row.of.model.name).casefold(),
    lambda row: row.of.model.quantization,
    lambda row: row.of.model.context,
    lambda row: row.of.price_out + row.of.price_in,
    lambda row: row.past.points[-1].price_out if row.past.points else None,
    lambda row: None if row.of.new else row.of.stars,
    lambda row: _proven(row.of),
    lambda row: row.of.node.status,
    lambda row: row.of.node.slots - busy_slots(row.of.node),
    lambda row: row.of.node.rtt_ms,
    lambda row: row.of.success,
    lambda row: _first_of(row.of.first_token_ms, promised_first_token(row.of)),
    lambda row: _first_of(row.of.tokens_per_second, promised_speed(row.of)),
    lambda row: row.age_s,
)
"""What each of COLUMNS sorts a row by."""


def _first_of(here: float | None, promised: float | None) -> float | None:
    """What was measured here, else what the node says."""
    return here if here is not None else promised


def offer_rows(
    offers: Iterable[OfferSeen],
    older_s: float,
    driver: tuple[bytes, str | None],
    pasts: Mapping[bytes, PricePast] = MappingProxyType({}),
    most: int | None = None,
) -> list[OfferRow]:
    """`offers`: the best first; `older_s`: seconds since they were listed; `driver`: who answers the shown
    chat, and the model_id in hex when that is a certain one; `pasts`: their prices of the last day, by
    `offer_key`; `most`: what is dearer is not chosen by itself."""
    rows: list[OfferRow] = []
    taken: set[bytes] = set()
    chosen, chosen_model = driver
    for at, offer in enumerate(offers):
        node, model = offer.node, offer.model
        key = offer_key(offer)
        past = pasts.get(key, NO_PAST)
        while key in taken:  # a card may name one model twice
            key += b"+"
        taken.add(key)
        is_driver = node.id == chosen and chosen_model in (None, model.model_id.hex())
        rows.append(OfferRow(key, offer, at, node.age_s + older_s, is_driver, past, most))
    return rows


def price_text(offer: OfferSeen) -> str:
    """`free`, or credits per 1M generated tokens."""
    return "free" if is_free(offer) else price(offer.price_out)


def _price_style(offer: OfferSeen, most: int | None) -> str:
    if is_free(offer):
        return ".table--good"
    return ".table--warn" if most is not None and offer.price_out > most else ""


def rating_text(offer: OfferSeen) -> str:
    """`4.3 (12)`: stars, and the ratings that weigh. Newcomers are `NEW`, whatever is said of them."""
    if offer.new or offer.stars is None:
        return "NEW" if offer.new else "–"
    count = str(offer.ratings) if offer.ratings < 1000 else f"{min(offer.ratings // 1000, 9)}k"
    return f"{offer.stars:.1f} ({count})"


def _verified(offer: OfferSeen, aside: str) -> Cell:
    """What own audits found, or whether its answers can be audited: `12 ✓`, `✗ caught`, `offered`."""
    style = ".table--warn" if offer.caught else ".table--good" if offer.audited.passed else ".table--aside"
    return (badge_of(offer), style if offer.caught else aside or style)


def _proven(offer: OfferSeen) -> float | None:
    """To sort by: audits that passed, then answers that can be audited; who is left below."""
    if offer.caught:
        return -1.0
    return offer.audited.passed + 0.5 if commits(offer) else offer.audited.passed or None


def rate_text(rate: float) -> str:
    """Tokens per second: `812`, `33.8`."""
    return f"{rate:.0f}" if rate >= 99.95 else f"{rate:.1f}"


def _measured(here: float | None, promised: float | None, text: Callable[[float], str], aside: str) -> Cell:
    """What was measured here, else what the node says, marked as that."""
    if here is not None:
        return (text(here), aside)
    return (f"~{text(promised)}", ".table--aside") if promised is not None else ("–", ".table--aside")


def _state(offer: OfferSeen) -> Cell:
    status = offer.node.status
    if offer.mark == "blocked":
        return (status, ".table--aside")
    if wrong := wrong_of(offer):
        return (wrong, ".table--warn")
    if status == "online" and (offer.cooling_s or offer.problem):
        return ("failed" if offer.cooling_s else "not now", ".table--warn")
    if status == "online":
        return ("online", ".table--good")
    return (status, ".table--warn" if status == "busy" else ".table--aside")


def _success_style(offer: OfferSeen) -> str:
    return ".table--warn" if offer.success is not None and offer.success < 0.9 else ""


def watched(
    rows: Sequence[AnyRow], highlighted: AnyRow | None, pinned: Iterable[OfferSeen], most: int
) -> tuple[bytes, ...]:
    """The nodes whose health matters most to who looks: that of the row under the cursor, pinned ones, then
    those of the rows in sight from the top; not those that are blocked."""
    under = [highlighted.of] if highlighted is not None else []
    found: dict[bytes, None] = {}
    for offer in (*under, *pinned, *(row.of for row in rows)):
        if isinstance(offer, OfferSeen) and offer.mark != "blocked":
            found[offer.node.id] = None
            if len(found) == most:
                break
    return tuple(found)
