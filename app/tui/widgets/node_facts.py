"""This node in the network, in words: how it is doing in one line, and all that is known of it."""

from __future__ import annotations

from textwrap import wrap

from textual.content import Content
from textual.style import Style

from infraxa.app.network_words import MDNS, REACHABLE, Meaning, activity, clock
from infraxa.app.sizes import size_text
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.network_rows import address_text
from infraxa.app.tui.widgets.status_bar import sign, waiting_text
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.traffic import Traffic, sparkline
from infraxa.net.identity import display, id_text
from infraxa.net.status import NetworkStatus, SeenNode

NAME = 12
"""Cells of the names of the facts."""
_QUIET = "$foreground 60%"


def headline(status: NetworkStatus, traffic: Traffic, now_ms: int, width: int) -> Content:
    """How the network is doing, in one line of `width` cells."""
    mark, style = sign(status)
    parts = [activity(status)]
    if status.waiting is not None:
        parts.append(waiting_text(status.waiting, now_ms))
    elif status.activity in ("online", "alone"):
        parts.append(f"{status.known:,} node{'s' * (status.known != 1)} known")
        if status.reachability != "unknown":
            parts.append(f"reachable {REACHABLE[status.reachability].label}")
    left = Content.assemble((f"{mark} ", style), (parts[0], "bold"), *(f" · {part}" for part in parts[1:]))
    for bars in (20, 8, 0):
        right = _rates(traffic, bars) if status.activity == "online" else Content("")
        gap = width - left.cell_length - right.cell_length
        if gap >= 2:
            return left + Content(" " * gap) + right
    return left.truncate(width, ellipsis=True)


def _rates(traffic: Traffic, width: int) -> Content:
    """The rates now, each with so many cells of bars."""
    if not traffic.incoming:
        return Content("")
    bars = [f" {sparkline(rates, width)}" if width else "" for rates in (traffic.incoming, traffic.outgoing)]
    return Content.assemble(
        ("↓ ", _QUIET), f"{size_text(int(traffic.incoming[-1]))}/s", (bars[0], "$text-primary"),
        ("  ↑ ", _QUIET), f"{size_text(int(traffic.outgoing[-1]))}/s", (bars[1], "$text-secondary"),
    )  # fmt: skip


def notices(status: NetworkStatus, width: int, most: int) -> Content:
    """What a person should know, and what helps; `most` lines."""
    lines: list[Content] = []
    for notice in status.notices:
        text = wrap(
            f"{one_line(notice.message, 300)} {one_line(notice.remedy, 300)}".strip(), max(20, width - 2)
        )
        lines += [
            Content.assemble(("! " if not at else "  ", "bold $text-warning"), (line, "$text-warning"))
            for at, line in enumerate(text)
        ]
    if len(lines) > most:
        lines[most - 1 :] = [Content.styled("! and more: a larger terminal shows all", "$text-warning")]
    return Content("\n").join(lines)


def facts(status: NetworkStatus, newest: SeenNode | None, traffic: Traffic, width: int) -> Content:
    """All that is known of this node, in lines of at most `width` cells. `newest`: last heard of."""
    lines: list[Content] = []

    def fact(name: str, meaning: Meaning, style: str = "") -> None:
        lines.append(_row(name, meaning.label, width, style))
        lines.extend(Content.styled(" " * NAME + text, _QUIET) for text in _wrapped(meaning.sentence, width))

    if status.id:
        whole = id_text(status.id)
        half = len(whole) // 2 if width < len(whole) else len(whole)
        copy = Style.from_meta({"@click": "screen.copy_own"})
        lines += [
            Content.styled(display(status.name, status.id), "bold $text-primary"),
            Content.styled("\n".join((whole[:half], whole[half:])).strip(), _QUIET).stylize(copy),
            Content.assemble(("Y", "$footer-key-foreground"), " copies the id").stylize(copy),
            Content(""),
        ]
    lines.append(_row("network", one_line(status.network, 64), width))
    lines.append(_row("role", "user", width))
    reached = REACHABLE[status.reachability]
    why = one_line(status.reachability_reason, 200)
    good = status.reachability in ("reachable", "relayed")
    fact("reachable", Meaning(reached.label, why or reached.sentence), "$text-success" if good else "")
    for at, address in enumerate(status.listening):
        lines.append(_row("listens at" if not at else "", address_text(address), width))
    if not status.listening:
        lines.append(_row("listens at", "nothing", width))
    fact("this LAN", MDNS[status.mdns])
    late = clock(status.clock_skew_ms)
    fact("clock", late, "$text-warning" if late.sentence else "")
    lines.append(_row("known", f"{status.known:,} node{'s' * (status.known != 1)}", width))
    if newest is not None:
        lines.append(_row("newest", display(newest.name, newest.id), width))
    lines += [Content(""), Content.styled("TRAFFIC", _QUIET)]
    for arrow, word, total, rates, style in (
        ("↓", "received", status.bytes_in, traffic.incoming, "$text-primary"),
        ("↑", "sent", status.bytes_out, traffic.outgoing, "$text-secondary"),
    ):
        speed = f" · {size_text(int(rates[-1]))}/s" if rates else ""
        lines.append(_row(f"{arrow} {word}", f"{size_text(total)}{speed}", width))
        if rates:
            lines.append(Content.styled(sparkline(rates, width), style))
    new = f" · {status.gossip_new / status.gossip_in:.0%} news" if status.gossip_in else ""
    lines.append(_row("gossip", f"{thousands(status.gossip_in)} records{new}", width))
    circuits = f"{status.relaying} circuit{'s' * (status.relaying != 1)} for others"
    lines.append(_row("relaying", circuits if status.relaying else "nothing", width))
    lines += [Content(""), Content.styled("INTERFACES", _QUIET)]
    for card in status.interfaces:
        mark, style = ("✓ ", "$text-success") if card.chosen else ("– ", _QUIET)
        name = Content.assemble(
            (mark, style), (f"{one_line(card.name, 20):<9} ", "" if card.chosen else _QUIET)
        )
        lines.append(
            (name + Content.styled(one_line(card.reason, 80), _QUIET)).truncate(width, ellipsis=True)
        )
        lines += [
            Content.styled(f"  {one_line(address, 64)}", "" if card.chosen else _QUIET)
            for address in card.addresses
        ]
    if not status.interfaces:
        lines.append(Content.styled("none is looked at", _QUIET))
    return Content("\n").join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(16, width - NAME))


def _row(name: str, value: str, width: int, style: str = "") -> Content:
    line = Content.assemble((f"{name:<{NAME}}", _QUIET), (value, style) if style else value)
    return line.truncate(width, ellipsis=True)
