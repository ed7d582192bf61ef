"""The card of a driver on the network: how it is, what it offers, what was seen of it, who can read.

What this machine measured and what the driver claims are never one number: claims are called so.
"""

from __future__ import annotations

from textual.content import Content

from infraxa.app.audit_words import badge_of
from infraxa.app.network_words import span
from infraxa.app.offers import OfferSeen
from infraxa.app.trade import Bound
from infraxa.app.tui.widgets.bills import STYLES, cost_text, state_text
from infraxa.app.tui.widgets.driver import Driver, named, readable_next, remedy, trouble
from infraxa.app.tui.widgets.facts import short_time, speed
from infraxa.app.tui.widgets.figures import price, thousands
from infraxa.app.tui.widgets.market_rows import (
    busy_slots,
    label,
    percent,
    promised_first_token,
    promised_speed,
)
from infraxa.app.tui.widgets.model_card import context_rows, row
from infraxa.app.tui.widgets.network_rows import round_trip
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.verdicts import verdict_style, verdict_text
from infraxa.net.credits import shown
from infraxa.net.identity import id_text, short_id
from infraxa.net.status import SeenNode
from infraxa.store.records import AnswerFacts

VALUE_CELLS = 16
"""For what stands beside the name of a row."""
FRESH = 10.0
"""Seconds for which news are now."""
_QUIET = "$foreground 60%"
_SIGNS = {"online": ("●", "$text-success"), "busy": ("◐", "$text-warning"), "offline": ("○", "$text-error")}


def lines_of(
    driver: Driver, last: AnswerFacts | None, who: str = "", bound: Bound | None = None
) -> list[Content]:
    """The lines of the card. `last`: what was measured of the newest answer of the chat; `who`: who gives, or
    gave, that answer; `bound`: what the next one can cost."""
    lines = [Content.styled("DRIVER", _QUIET)]
    if driver.kind == "auto":
        lines += [
            Content.styled("infraxa chooses", "bold $text-primary"),
            Content.styled("for each answer, by model, health and load", _QUIET),
        ]
        if who:
            lines += [Content(""), row("chosen", who)]
        if bound is not None and bound.name:
            lines += [Content(""), row("would ask", named(bound.name, bound.driver))]
            lines += _money(bound)
    else:
        lines.append(Content.styled(driver.name, "bold $text-primary"))
    if driver.offer is not None and driver.offer.caught:
        lines.append(Content.styled(f"✗ {one_line(driver.offer.caught, 200)}", "$text-error"))
    if driver.offer is not None:
        is_own = bound is not None and bound.driver == id_text(driver.offer.node.id)
        lines += _offer(driver.offer, last if _is_of(last, driver) else None, bound if is_own else None)
    lines += _last_bill(last)
    lines += [Content(""), Content.styled(readable_next(driver), "$text-warning")]
    if driver.offer is not None and (first := driver.offer.node.same_name_as) is not None:
        warned = f"Another node had this name first: {short_id(first)}. Is this the one you mean?"
        lines += [Content(""), Content.styled(warned, "$text-warning")]
    if wrong := trouble(driver):
        subject = "It" if driver.kind == "node" else "Whoever would be chosen"
        lines += [Content(""), Content.styled(f"{subject} {wrong}. {remedy(driver)}.", "$text-error")]
    elif driver.kind == "node" and driver.offer is None:
        lines += [Content(""), Content.styled("It was not looked for yet.", _QUIET)]
    return lines


def _is_of(last: AnswerFacts | None, driver: Driver) -> bool:
    return last is not None and bool(last.drivers) and last.drivers[-1].id == driver.id


def _offer(offer: OfferSeen, last: AnswerFacts | None, bound: Bound | None) -> list[Content]:
    node, model = offer.node, offer.model
    sign, style = _SIGNS.get(node.status, ("○", _QUIET))
    age = "now" if node.age_s < FRESH else f"{span(node.age_s)} ago"
    lines = [
        Content.assemble((f"{sign} {node.status}", style), (f" · {age}", _QUIET)),
        Content(""),
        row("model", label(model.name) or "unnamed"),
    ]
    if kind := " · ".join(part for part in (label(model.quantization), label(model.arch)) if part):
        lines.append(row("file", kind))
    if last is not None:
        lines += context_rows(last.n_prompt + last.n_out, model.context)
    else:
        lines.append(row("context", thousands(model.context)))
    lines += _prices("price", offer.price_in, offer.price_out)
    if bound is not None:
        # Who was caught leaves little room: what stands in the price already is not said again.
        told, locked = (_prices("", one.price_in, one.price_out) for one in (offer, bound))
        lines += _money(bound, quoted=not (offer.caught and told == locked))
    lines.append(row("reached", _reached(node)))
    if node.rtt_ms is not None:
        lines.append(row("round trip", round_trip(node.rtt_ms)))
    if node.slots:
        lines.append(row("slots", f"{busy_slots(node)} of {node.slots} busy"))
    return [*lines, Content(""), *_seen(offer)]


def _prices(name: str, price_in: int, price_out: int) -> list[Content]:
    """Of 1M tokens each way; in two rows, for which there is room."""
    if not price_in and not price_out:
        return [row(name, "free")]
    return [row(name, f"{price(price_out)}/M out"), row("", f"{price(price_in)}/M in")]


def _money(bound: Bound, *, quoted: bool = True) -> list[Content]:
    """What the driver locked last, if that is to be `quoted`, and what is owed to the driver."""
    lines = _prices("quoted", bound.price_in, bound.price_out) if quoted and bound.state == "locked" else []
    name, counted = "you owe", bound.owed + bound.taken_back
    if bound.taken_back:
        lines.append(row(name if bound.owed >= 0 else "they owe", shown(abs(bound.owed))))
        name = "they count"
    if bound.limit:
        owed, limit = shown(counted), f"of {shown(bound.limit)}"
        if len(owed) + 1 + len(limit) <= VALUE_CELLS:
            lines.append(row(name, f"{owed} {limit}"))
        else:
            lines += [row(name, owed), row("", limit)]
    elif counted:
        lines.append(row(name, shown(counted)))
    return lines


def _last_bill(last: AnswerFacts | None) -> list[Content]:
    """What the newest answer cost; each of its orders stands under it, when it has the focus."""
    if last is None or not last.bills:
        return []
    state = state_text(last)
    return [
        Content(""),
        row("last answer", cost_text(last)),
        Content.assemble((f"{'':<12}", _QUIET), (state, STYLES.get(state, ""))),
        *([Content.styled(verdict, verdict_style(last))] if (verdict := verdict_text(last)) else []),
    ]


def _reached(node: SeenNode) -> str:
    """How a session with it would come about."""
    if not node.dialable:
        return "no address yet"
    if node.relayed:
        return "through a relay"
    return "on this LAN" if node.via == "lan" else "directly"


def _seen(offer: OfferSeen) -> list[Content]:
    """What was seen of its answers here, and what it claims where nothing was."""
    asked = offer.answered + offer.failed
    share = f"{percent(offer.success)} of {asked}" if offer.success is not None else "none yet"
    lines = [row("answered", share)]
    first, rate = promised_first_token(offer), promised_speed(offer)
    if offer.tokens_per_second is not None:
        lines.append(row("speed", speed(offer.tokens_per_second)))
    elif rate is not None:
        lines.append(row("claims", speed(rate)))
    if offer.first_token_ms is not None:
        lines.append(row("first token", short_time(offer.first_token_ms)))
    elif first is not None:
        lines.append(row("claims", f"first in {short_time(first)}"))
    if not offer.caught:  # that stands at the top
        lines.append(row("verified", badge_of(offer)))
    return lines
