"""What is reserved for a canary, whose driver is told of a hold like that of any order.

The figures are canary_rules.py's; what is reserved for other orders is in spending.py.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from infraxa.app import canary_rules
from infraxa.app.canary_rules import Today
from infraxa.app.counting import IN_FLIGHT, LEAST_OUT, Plan
from infraxa.net import market
from infraxa.net.market import Rates
from infraxa.store import buying
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, OrderRow, Refused


def least_of(plan: Plan, rates: Rates) -> int:
    """µcr without which a canary is not sent: it would have to be stopped too early."""
    return market.hold(plan.n_prompt, min(plan.max_out, LEAST_OUT + IN_FLIGHT[1]), rates)


def today(conn: Connection, day_start_ms: int) -> Today:
    """Of the day that began then."""
    day, canaries = buying.spent_since(conn, day_start_ms), buying.spent_on_canaries(conn, day_start_ms)
    return Today(day.spent + day.held, canaries.spent + canaries.held)


def reserve(
    conn: Connection, made: Callable[[int], OrderRow], hold: int, least: int, caps: Caps, name: str
) -> OrderRow | Refused:
    """As spending.reserve. The driver is told of a hold as that of a message, and what is reserved here may
    be less. Refused: it is not worth sending by what is left for canaries, or of the day."""
    spent = today(conn, caps.day_start_ms)
    hold = min(hold, *(cap for cap in (caps.request, caps.chat) if cap is not None))
    held = canary_rules.reserved(hold, least, caps.canaries or 0, caps.day or 0, caps.request or 0, spent)
    if held is None:
        return Refused("canaries_cap", caps.canaries or 0, spent.canaries)
    order = replace(made(hold), canary=True, held=held)
    if (refused := buying.open_hold(conn, order, caps, name)) is not None:
        return refused
    buying.mark_sent(conn, order.peer, order.id)
    return order
