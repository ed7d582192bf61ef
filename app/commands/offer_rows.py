"""The rows of `infraxa providers`: what a node offers and how it did, as JSON and as cells of a table.

What a node says of itself is a claim of a stranger: it passes a filter here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from infraxa.app.audit_words import badge, commits, wrong
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.output import GAP, clean
from infraxa.app.offers import OfferSeen
from infraxa.net.identity import display, id_text
from infraxa.net.names import clean_name
from infraxa.net.status import SeenNode


class Row(msgspec.Struct, frozen=True):
    """One model of a node, or a node that offers nothing, as `--json` prints it."""

    id: str
    node: str
    name: str
    status: str
    age_s: float
    rtt_ms: float | None
    slots: int
    busy: float
    """Share of the slots, 0 to 1."""
    addresses: tuple[str, ...]
    relays: tuple[str, ...]
    warning: str | None = None
    model: str | None = None
    """Its name, as claimed."""
    model_id: str | None = None
    quantization: str | None = None
    context: int | None = None
    price_in: int | None = None
    """µcr per 1M tokens, now; 0 = free."""
    price_out: int | None = None
    promised_first_token_ms: int | None = None
    promised_tokens_per_second: float | None = None
    first_token_ms: float | None = None
    """Measured here, as all that follows."""
    tokens_per_second: float | None = None
    answered: int = 0
    failed: int = 0
    success: float | None = None
    """Share of the answers that came whole, newer ones weigh more."""
    new: bool = True
    """Too few answers to judge by."""
    cooling_s: float = 0.0
    """So long it is not chosen by itself."""
    mark: str = ""
    """`pinned`, `blocked` or nothing."""
    problem: str | None = None
    """Why it cannot be the driver now."""
    commits: bool = False
    """It offers to sign what it computes, step by step, so that answers can be audited."""
    audits_passed: int = 0
    """Of this machine's own audits of its answers."""
    audits_failed: int = 0
    audits_undetermined: int = 0
    caught: str | None = None
    """What an audit or a proof has shown: it is not chosen by itself."""
    proof: str | None = None
    """The order whose proof `infraxa receipts proof` writes."""


class _Column(msgspec.Struct, frozen=True):
    title: str
    cell: Callable[[Row], str]
    key: Callable[[Row], Any]
    """To sort by, the best first; rows that have none are last."""
    right: bool = False


def rows_of(offers: Iterable[OfferSeen], idle: Iterable[SeenNode] = ()) -> list[Row]:
    """One for each offer, in their order, then one for each of the nodes that offer nothing."""
    return [_offer(offer) for offer in offers] + [_node(seen) for seen in idle]


def _node(seen: SeenNode) -> Row:
    first = seen.same_name_as
    return Row(
        id=id_text(seen.id),
        node=display(seen.name, seen.id),
        name=clean_name(seen.name),
        status=seen.status,
        age_s=round(seen.age_s, 1),
        rtt_ms=_rounded(seen.rtt_ms, 2),
        slots=seen.slots,
        busy=round(seen.util / 255, 2),
        addresses=tuple(map(clean, seen.addresses)),
        relays=tuple(map(id_text, seen.relays)),
        warning=None if first is None else f"same name as {display(seen.name, first)}",
    )


def _offer(offer: OfferSeen) -> Row:
    model = offer.model
    return msgspec.structs.replace(
        _node(offer.node),
        model=clean(model.name),
        model_id=model.model_id.hex(),
        quantization=clean(model.quantization),
        context=model.context,
        price_in=offer.price_in,
        price_out=offer.price_out,
        promised_first_token_ms=offer.node.first_token_ms or None,
        promised_tokens_per_second=model.speed / 1000 or None,
        first_token_ms=_rounded(offer.first_token_ms, 1),
        tokens_per_second=_rounded(offer.tokens_per_second, 2),
        answered=offer.answered,
        failed=offer.failed,
        success=_rounded(offer.success, 3),
        new=offer.new,
        cooling_s=round(offer.cooling_s, 1),
        mark=offer.mark,
        problem=offer.problem or None,
        commits=commits(offer),
        audits_passed=offer.audited.passed,
        audits_failed=offer.audited.failed,
        audits_undetermined=offer.audited.undetermined,
        caught=clean(offer.caught) or None,
        proof=clean(offer.proof) or None,
    )


def sort_rows(rows: Sequence[Row], column: str | None) -> list[Row]:
    """By a column of the table, the best first; without one, as they are. UsageError when there is none."""
    if column is None:
        return list(rows)
    wanted = column.strip().lower().replace("-", " ")
    for known in _COLUMNS:
        if known.title == wanted:
            filled = [row for row in rows if known.key(row) is not None]
            return sorted(filled, key=known.key) + [row for row in rows if known.key(row) is None]
    names = ", ".join(known.title.replace(" ", "-") for known in _COLUMNS)
    raise UsageError(f"There is no column {clean(column)} to sort by. These are: {names}.")


def lasting(row: Row | None) -> Row | None:
    """A row without what changes by itself all the time."""
    if row is None:
        return None
    return msgspec.structs.replace(row, age_s=0.0, rtt_ms=None, cooling_s=float(row.cooling_s > 0))


class Cells(msgspec.Struct, frozen=True):
    """Rows as texts."""

    titles: tuple[str, ...]
    right: tuple[str, ...]
    """Titles of the columns of numbers."""
    rows: tuple[tuple[str, ...], ...]


def cells_of(rows: Sequence[Row], width: int | None = None) -> Cells:
    """Without the least important columns, when `width` characters are not enough for all."""
    columns = [(column, [column.cell(row) for row in rows]) for column in _COLUMNS]
    if width is not None:
        for least in _FIRST_TO_GO:
            if sum(max(map(len, (column.title, *cells))) + GAP for column, cells in columns) <= width:
                break
            columns = [(column, cells) for column, cells in columns if column.title != least]
    return Cells(
        tuple(column.title for column, _ in columns),
        tuple(column.title for column, _ in columns if column.right),
        tuple(zip(*(cells for _, cells in columns), strict=True)),
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _price(row: Row) -> str:
    if row.price_in is None or row.price_out is None:
        return ""
    if not row.price_in and not row.price_out:
        return "free"
    return f"{row.price_in / 1e6:.2f} + {row.price_out / 1e6:.2f}/M"


def _state(row: Row) -> str:
    """`online pinned`, `busy caught`."""
    return " ".join(word for word in (row.status, row.mark, wrong(row.caught, row.proof)) if word)


def _success(row: Row) -> str:
    """`NEW`, `97% of 31`."""
    if row.model is None:
        return ""
    share = "" if row.success is None else f"{row.success:.0%} of {row.answered + row.failed}"
    return f"NEW {share}".rstrip() if row.new else share


def _milliseconds(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f} ms"


def _best_first(value: float | None) -> float | None:
    return None if value is None else -value


def _taken(row: Row) -> int:
    """Slots that are busy, of `row.slots`."""
    return round(row.busy * row.slots)


def _badge(row: Row) -> str:
    """`12 ✓`, `offered`, `✗ caught`."""
    if row.model is None:
        return ""
    return badge(row.audits_passed, offered=row.commits, wrong=wrong(row.caught, row.proof))


def _verified(row: Row) -> int | None:
    """To sort by: the most audits that passed first, who failed one last."""
    if row.caught:
        return 1
    return -row.audits_passed or (0 if row.commits else None)


_STATES = {"online": 0, "busy": 1, "offline": 2}

_COLUMNS: Final = (
    _Column(
        "provider",
        lambda row: f"{row.node} ({row.warning})" if row.warning else row.node,
        lambda row: row.node.casefold(),
    ),
    _Column("state", _state, lambda row: _STATES.get(row.status, 9)),
    _Column("model", lambda row: row.model or "no offer", lambda row: row.model and row.model.lower()),
    _Column("quant", lambda row: row.quantization or "", lambda row: row.quantization),
    _Column("price", _price, lambda row: row.price_out, right=True),
    _Column(
        "slots",
        lambda row: f"{_taken(row)}/{row.slots}" if row.slots else "",
        lambda row: _taken(row) - row.slots if row.slots else None,
        right=True,
    ),
    _Column("trip", lambda row: _milliseconds(row.rtt_ms, 1), lambda row: row.rtt_ms, True),
    _Column(
        "1st token",
        lambda row: _milliseconds(row.first_token_ms),
        lambda row: row.first_token_ms,
        True,
    ),
    _Column(
        "tok/s",
        lambda row: "" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}",
        lambda row: _best_first(row.tokens_per_second),
        True,
    ),
    _Column("success", _success, lambda row: _best_first(row.success), True),
    _Column("verified", _badge, _verified),
    _Column("heard", lambda row: f"{row.age_s:.0f} s", lambda row: row.age_s, True),
    _Column(
        "reached by",
        lambda row: "relay" if row.relays and not row.addresses else ", ".join(row.addresses[:1]),
        lambda row: row.addresses[0] if row.addresses else None,
    ),
)

_FIRST_TO_GO: Final = (
    "reached by",
    "heard",
    "verified",
    "1st token",
    "quant",
    "trip",
    "slots",
    "tok/s",
    "success",
    "price",
)
"""On a terminal that is too narrow for all columns."""
