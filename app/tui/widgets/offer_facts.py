"""All that is known of one offer, in words: in a few lines below the table, or in a card beside it.

What the provider claims and what was measured on this machine never stand in one number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from textwrap import wrap

from textual.content import Content
from textual.style import Style

from infraxa.app.audit_words import audits_text, commits
from infraxa.app.network_words import span
from infraxa.app.offers import OfferSeen
from infraxa.app.tui.widgets.driver import is_free
from infraxa.app.tui.widgets.facts import short_time, speed
from infraxa.app.tui.widgets.figures import price, thousands
from infraxa.app.tui.widgets.market_rows import (
    busy_slots,
    label,
    percent,
    promised_first_token,
    promised_speed,
    who,
)
from infraxa.app.tui.widgets.network_rows import address_text, round_trip
from infraxa.app.tui.widgets.price_line import NO_PAST, PricePast
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.addresses import DEFAULT_PORT
from infraxa.net.identity import id_text, short_id
from infraxa.net.status import SeenNode

NAME = 13
"""Cells of the names of the facts in the card."""
CLAIM = 12
"""Cells of its last column, that of the claims."""
_QUIET = "$foreground 60%"


def reached(node: SeenNode) -> str:
    """How a session with it would come about: `on this LAN · 192.168.178.31`."""
    direct = [_host(address) for address in node.addresses if not address.startswith("relay:")]
    if direct:
        return f"{'on this LAN' if node.via == 'lan' else 'direct'} · {direct[0]}"
    if node.relays:
        return f"through a relay · {short_id(node.relays[0])}"
    if node.addresses:
        return f"through a {address_text(node.addresses[0])}"
    return {"lan": "on this LAN", "invite": "as its invite says"}.get(node.via, "no address told")


def _host(address: str) -> str:
    """An address without the port that all nodes have unless told otherwise."""
    text = address_text(address)
    host = text.removesuffix(f":{DEFAULT_PORT}")
    return host.strip("[]") if host != text else text


def warnings(offer: OfferSeen, older_s: float) -> list[tuple[str, str]]:
    """What a person must know before they choose it, each with its style; the worst first."""
    node = offer.node
    found = []
    if offer.mark == "blocked":
        found.append(("You blocked it: nothing is sent to it. b takes that back.", "$text-error"))
    elif offer.problem and offer.problem != offer.caught:
        found.append((one_line(offer.problem, 200), "$text-error"))
    if offer.caught:
        start = "✗ Caught lying. " if offer.proof else "✗ "
        found.append((start + one_line(offer.caught, 200), "$text-error"))
    if node.same_name_as is not None:
        first = short_id(node.same_name_as)
        found.append((f"Not the first with this name: {first} had it before.", "$text-warning"))
    if (cooling := offer.cooling_s - older_s) > 0:
        found.append((f"It failed: infraxa does not choose it for {span(cooling)} more.", "$text-warning"))
    return found


def proof(offer: OfferSeen) -> str:
    """How the proof of its lie is written; empty: there is none."""
    return f"infraxa receipts proof {one_line(offer.proof, 32)} writes the proof." if offer.proof else ""


def prices(offer: OfferSeen) -> str:
    """What it costs now."""
    if is_free(offer):
        return "free"
    return f"{price(offer.price_in)} in, {price(offer.price_out)} out"


def state(offer: OfferSeen) -> str:
    """`online · 3 of 8 slots busy`."""
    node = offer.node
    if not node.slots:
        return node.status
    return f"{node.status} · {busy_slots(node)} of {node.slots} slot{'s' * (node.slots != 1)} busy"


def reputation(offer: OfferSeen) -> str:
    """`★ 4.3 of 12 ratings`, of those that weigh; newcomers are NEW."""
    if offer.stars is None:
        return "NEW" if offer.new else "not rated"
    count = f" · {offer.ratings:,} rating{'s' * (offer.ratings != 1)}" if offer.ratings else ""
    return f"{'NEW · ' if offer.new else ''}★ {offer.stars:.1f}{count}"


def answers(offer: OfferSeen) -> str:
    """How many of its answers came whole; empty when none was asked for."""
    asked = offer.answered + offer.failed
    if not asked:
        return ""
    share = f" · {percent(offer.success)}" if offer.success is not None else ""
    return f"{offer.answered:,} of {asked:,} whole{share}"


def verified(offer: OfferSeen) -> str:
    """What this machine's own audits of its answers found, or whether they can be audited."""
    return audits_text(offer.audited) or ("offered, none audited" if commits(offer) else "commits to nothing")


def _limits(offer: OfferSeen) -> str:
    model = offer.model
    return f"context {thousands(model.context)} · answers ≤ {thousands(model.max_out)}"


def in_lines(offer: OfferSeen, older_s: float, width: int, past: PricePast = NO_PAST) -> Content:
    """All of it in four lines of `width` cells, what matters most at the left."""
    node, model = offer.node, offer.model
    whole = id_text(node.id)
    name = Content.styled(who(node), "bold").truncate(max(8, width - len(whole) - 5), ellipsis=True)
    first = Content.assemble(name, ("  id ", _QUIET), (whole, _QUIET))
    kind = " · ".join(part for part in (label(model.quantization), label(model.arch)) if part)
    second = Content.assemble(
        (label(model.name) or "unnamed", "bold $text-primary"),
        (f"  {kind} · {_limits(offer)} · {label(model.backend)}".rstrip(" ·"), _QUIET),
    )
    if offer.proof:  # whose number must be whole; how fast it lied matters less
        third = Content.styled(proof(offer), _QUIET)
    else:
        third = _fitting(width, lambda short: _health_line(offer, short=short))
    if found := warnings(offer, older_s):
        last = Content("  ").join(
            Content.assemble(("! ", f"bold {style}"), (text, style)) for text, style in found
        )
    else:
        states = _state_lines(offer, older_s, past)
        last = next((line for line in states if line.cell_length <= width), states[-1])
    return Content("\n").join(line.truncate(width, ellipsis=True) for line in (first, second, third, last))


def _fitting(width: int, line: Callable[[bool], Content]) -> Content:
    """The line as it is, or the short form of it when it has no room."""
    whole = line(False)
    return whole if whole.cell_length <= width else line(True)


def _health_line(offer: OfferSeen, *, short: bool) -> Content:
    return Content.assemble(
        ("measured " if short else "measured here ", _QUIET), _numbers(measured(offer, short=short)),
        ("  claims " if short else "  it claims ", _QUIET), _numbers(claims(offer, short=short)),
    )  # fmt: skip


def _state_lines(offer: OfferSeen, older_s: float, past: PricePast) -> list[Content]:
    """What it costs, how it is thought of, how it is and how it is reached; ever less."""
    asks, now, way = prices(offer), state(offer), reached(offer.node)
    spread = "" if is_free(offer) else past.spread()
    day = f"{asks} (24 h {spread})" if spread else asks
    ago = f"{span(offer.node.age_s + older_s)} ago"
    rated, proven = reputation(offer), verified(offer)
    lines = [
        (day, rated, proven, now, way, f"heard {ago} {_by(offer.node)}"),
        (day, rated, proven, now, way),
        (day, rated, proven, now),
        (day, rated, now),
        (day, now, way.partition(" · ")[0]) if spread else (asks, now, way, ago),
        (asks, now, way, ago),
    ]
    return [Content(" · ".join(parts)) for parts in lines]


def _by(node: SeenNode) -> str:
    return {"lan": "over the LAN", "invite": "by an invite", "gossip": "by gossip"}.get(node.via, "")


def measured(offer: OfferSeen, *, short: bool) -> list[str]:
    """What was measured on this machine."""
    asked = offer.answered + offer.failed
    parts = _times(offer.first_token_ms, offer.tokens_per_second, short=short)
    if asked:
        parts.append(f"{offer.answered:,} of {asked:,} whole" if short else answers(offer))
    if not short and offer.node.rtt_ms is not None:
        parts.append(f"{round_trip(offer.node.rtt_ms)} away")
    return parts


def claims(offer: OfferSeen, *, short: bool) -> list[str]:
    """What the provider says of itself."""
    return _times(promised_first_token(offer), promised_speed(offer), short=short)


def _times(first_token_ms: float | None, rate: float | None, *, short: bool) -> list[str]:
    parts = []
    if first_token_ms is not None:
        parts.append(short_time(first_token_ms) + ("" if short else " to first token"))
    if rate is not None:
        parts.append(speed(rate))
    return parts


def _numbers(parts: list[str]) -> Content:
    return Content(" · ".join(parts)) if parts else Content.styled("nothing yet", _QUIET)


def card(offer: OfferSeen, older_s: float, width: int, past: PricePast = NO_PAST) -> Content:
    """All of it, one fact under the other, in lines of at most `width` cells."""
    node, model = offer.node, offer.model
    whole = id_text(node.id)
    half = len(whole) // 2
    copy = Style.from_meta({"@click": "screen.copy"})
    lines = [
        Content.styled(who(node), "bold $text-primary"),
        Content.styled(whole[:half], _QUIET).stylize(copy),
        Content.styled(whole[half:], _QUIET).stylize(copy),
        Content.assemble(("y", "$footer-key-foreground"), (" copies the id", _QUIET)).stylize(copy),
    ]
    if offer.mark == "pinned":
        lines.append(Content.assemble(("★ pinned", "$text-accent"), (" above all others", _QUIET)))
    for text, style in warnings(offer, older_s):
        lines.append(Content(""))
        lines += [Content.styled(line, style) for line in wrap(text, width)]
    lines += [Content.styled(line, _QUIET) for line in wrap(proof(offer), width)]

    def fact(name: str, value: str, style: str = "") -> None:
        if value:
            lines.append(Content.assemble((f"{name:<{NAME}}", _QUIET), (value, style)))

    def heading(text: str, *asides: str) -> None:
        spaced = "".join(f"{aside:<{CLAIM}}" for aside in asides)
        lines.extend((Content(""), Content.styled(f"{text:<{NAME}}{spaced}".rstrip(), _QUIET)))

    heading("MODEL")
    named = label(model.name) or "unnamed"
    lines += [Content.styled(line, "bold") for line in wrap(named, width)[:3]]
    fact("format", label(model.quantization))
    fact("family", label(model.arch))
    fact("context", f"{thousands(model.context)} tokens")
    fact("answers", f"up to {thousands(model.max_out)} tokens")
    fact("runs on", label(model.backend))
    fact("file", f"{model.model_id.hex()[:16]}…")
    heading("NOW")
    fact("price", prices(offer), "$text-success" if is_free(offer) else "")
    if not is_free(offer):
        fact("", "cr per 1M tokens")
        fact("24 h", past.bars(max(0, min(24, width - NAME))).rstrip())
        fact("", past.spread())
    fact("state", state(offer))
    fact("reached", reached(node))
    fact("heard", f"{span(node.age_s + older_s)} ago {_by(node)}")
    heading("HEALTH", "measured", "its claim")
    for name, here, claimed in (
        ("first token", _time(offer.first_token_ms), _time(promised_first_token(offer))),
        ("speed", _speed(offer.tokens_per_second), _speed(promised_speed(offer))),
    ):
        lines.append(Content.assemble((f"{name:<{NAME}}", _QUIET), f"{here:<{CLAIM}}", (claimed, _QUIET)))
    fact("round trip", round_trip(node.rtt_ms))
    fact("answers", answers(offer) or "none asked for yet")
    passed, _, failed = verified(offer).partition(" · ")
    fact("verified", passed)
    fact("", failed, "$text-error")
    if offer.audited.last_ms:
        fact("", f"last {_day(offer.audited.last_ms)}")
    fact("reputation", reputation(offer))
    if offer.unweighted:
        fact("", f"{offer.unweighted:,} rating{'s' * (offer.unweighted != 1)} of strangers")
    return Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)


def _day(at_ms: int) -> str:
    """`Sat 21 Nov 17:04`."""
    return time.strftime("%a %d %b %H:%M", time.localtime(at_ms / 1000))


def _time(milliseconds: float | None) -> str:
    return short_time(milliseconds) if milliseconds is not None else "–"


def _speed(rate: float | None) -> str:
    return speed(rate) if rate is not None else "–"
