"""What is reserved for a canary, whose driver is told of a hold like that of any order.

The figures are canary_rules.py's; what is reserved for other orders is in spending.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from infraxa.app import canary_rules
from infraxa.app.canary_rules import Today
from infraxa.app.counting import LEAST_OUT, TURN_TOKENS, Plan
from infraxa.net import market
from infraxa.net.market import Rates
from infraxa.store import buying
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, OrderRow, Refused

_BYTES: Final = 3
"""Of a token, about, or more: canaries are English. Should the prompt have more tokens than that, no more is
accepted than what is reserved."""
_LATE: Final = LEAST_OUT // 2
"""Tokens that come after a canary is stopped: what a fast driver makes in half a second."""


def _cost(plan: Plan, n_out: int, rates: Rates) -> int:
    return market.hold(math.ceil(plan.n_prompt / _BYTES), n_out, rates)


def least_of(plan: Plan, rates: Rates) -> int:
    """µcr without which a canary is not sent: it would have to be stopped too early."""
    return _cost(plan, min(plan.max_out, LEAST_OUT), rates)


def most_out(plan: Plan, rates: Rates, held: int) -> int | None:
    """Tokens after which a canary is stopped, to cost no more than what is reserved for it; None: it cannot
    cost more."""
    if held >= _cost(plan, plan.max_out, rates):
        return None
    return canary_rules.most_tokens(held, _cost(plan, 0, rates), rates.price_out, _LATE)


def most_chars(part: int, asked_out: int, rates: Rates) -> int:
    """Characters of the prompt of a canary, about, for which `part` µcr are enough; `asked_out`: see
    planned."""
    left = part - market.hold(0, min(asked_out or LEAST_OUT, LEAST_OUT), rates)
    if not rates.price_in:
        return 0 if left < 0 else canary_rules.MOST_SAID
    # Texts may be somewhat longer than asked for.
    n_bytes = max(0, left) * market.MILLION // rates.price_in * _BYTES
    return max(0, n_bytes - 2 * TURN_TOKENS) * 4 // 5


def today(conn: Connection, day_start_ms: int) -> Today:
    """Of the day that began then."""
    day, canaries = buying.spent_since(conn, day_start_ms), buying.spent_on_canaries(conn, day_start_ms)
    return Today(day.spent + day.held, canaries.spent + canaries.held)


def reserve(
    conn: Connection,
    made: Callable[[int], OrderRow],
    hold: int,
    least: int,
    caps: Caps,
    name: str,
    *,
    begun: int = 0,
) -> OrderRow | Refused:
    """As spending.reserve. The driver is told of a hold as that of a message in a new chat, where there is
    `caps.chat`, or of a program's call, where there is `caps.calls`; what is reserved here may be less.
    `begun`: µcr without which such an order would not be sent. Refused: it is not worth sending by what is
    left for canaries, or of the day, or the other one would not be sent."""
    spent = today(conn, caps.day_start_ms)
    hold = min(cap for cap in (hold, caps.request, caps.chat) if cap is not None)
    if hold < begun:
        return Refused("request_cap", hold)
    if caps.calls is not None:
        by_calls = buying.spent_by_calls(conn, caps.day_start_ms)
        used = by_calls.spent + by_calls.held
        hold = min(hold, max(0, caps.calls - used))
        if hold < begun:
            return Refused("calls_cap", caps.calls, used)
    held = canary_rules.reserved(hold, least, caps.canaries or 0, caps.day or 0, caps.request or 0, spent)
    if held is None:
        return Refused("canaries_cap", caps.canaries or 0, spent.canaries)
    order = replace(made(hold), canary=True, held=held)
    if (refused := buying.open_hold(conn, order, caps, name)) is not None:
        return refused
    buying.mark_sent(conn, order.peer, order.id)
    return order
