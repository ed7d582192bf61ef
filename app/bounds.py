"""What the next message can cost at most, in figures and, where it cannot be sent, in words. Nothing is kept
here; the rates are locked in locked.py."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from infraxa.app import order_words
from infraxa.app.counting import hold_in, planned, prompt_most
from infraxa.app.locked import Locked
from infraxa.app.offers import OfferSeen
from infraxa.app.trade import Bound
from infraxa.engine.types import ChatMessage, Sampling
from infraxa.net import market
from infraxa.net.identity import id_text
from infraxa.net.market import Rates
from infraxa.net.names import clean_name
from infraxa.store import buying, tabs
from infraxa.store.db import Connection
from infraxa.store.trade_records import Caps, RefusalReason


class Spent(NamedTuple):
    """µcr that are spent or held, of today and of the chat, and what is owed to the driver."""

    day: int
    chat: int
    owed: int
    """By what both signed, and what is held."""
    reversed: int = 0
    """Of that, what was taken back since, which the driver does not count."""


def spent_of(conn: Connection, provider: bytes, chat_id: str | None, day_start_ms: int) -> Spent:
    day = buying.spent_since(conn, day_start_ms)
    chat = 0
    if chat_id is not None:
        of_chat = buying.spent_in_chat(conn, chat_id)
        chat = of_chat.spent + of_chat.held
    tab = tabs.get_tab(conn, "user", provider)
    return Spent(day.spent + day.held, chat, tab.owed + tab.held, tab.reversed)


def bounded(
    offer: OfferSeen,
    said: tuple[ChatMessage, ...],
    sampling: Sampling,
    caps: Caps,
    spent: Spent,
    locked: Locked | None,
    failed: str,
    now_ms: int,
    *,
    free: bool,
) -> Bound:
    """`failed`: the code for which the driver locked no rates lately. `free`: it is ordered without any."""
    name = order_words.display_name(offer.node.name, offer.node.id)
    bound = Bound(
        "free" if free else "asking",
        id_text(offer.node.id),
        clean_name(offer.node.name),
        spent_today=spent.day,
        cap_today=caps.day or 0,
        owed=spent.owed - spent.reversed,
        taken_back=spent.reversed,
    )
    if free:
        return bound
    rates, max_out, room = Rates(offer.price_in, offer.price_out, offer.price_in), 0, None
    if locked is not None:
        rates, max_out, room = locked.rates, locked.quote.max_out, locked.room
    context = offer.model.context or market.UNBOUNDED
    n_prompt = prompt_most(message.content for message in said)
    plan = planned(n_prompt, context, sampling.max_tokens or 0, max_out or context, rates)
    limits: list[tuple[RefusalReason, int | None, int]] = [
        ("request_cap", caps.request, 0),
        ("chat_cap", caps.chat, spent.chat),
        ("day_cap", caps.day, spent.day),
    ]
    left = [max(0, cap - used) for _, cap, used in limits if cap is not None]
    most = min(plan.most if room is None else hold_in(plan, room), *left)
    bound = replace(
        bound,
        most=most,
        price_in=rates.price_in,
        price_out=rates.price_out,
        raised_from=offer.price_out if rates.price_out > offer.price_out else 0,
        n_prompt=plan.n_prompt,
        max_out=max(0, min(plan.max_out, market.affordable(most, plan.n_prompt, 0, rates))),
    )
    for reason, cap, used in limits:
        if cap is not None and cap - used < plan.least:
            words = order_words.cap_reached(reason, cap, used, plan.least)
            return replace(bound, state="refused", reason=words.message, remedy=words.remedy)
    if locked is not None:
        # What a quote says of the tab may be with the hold of an order that is paid since: that leaves less
        # room by this quote, and is not owed.
        bound = replace(bound, limit=locked.limit)
        if locked.room < plan.least:
            theirs = max(spent.owed, locked.owed)
            full = order_words.no_room(name, theirs, bound.limit)
            return replace(
                bound,
                state="refused",
                owed=theirs - spent.reversed,
                reason=full.message,
                remedy=full.remedy,
            )
        until_ms = now_ms + max(0, round(locked.left_s * 1000))
        return replace(bound, state="locked", until_ms=until_ms)
    if failed:
        words_of = order_words.ended(failed, name)
        return replace(bound, state="refused", reason=words_of.message, remedy=words_of.remedy)
    return bound
