"""What the Market view says around its table: how much there is, who answers the chat, why there are no rows.

Only texts are made here, from plain values; a key, a sign and a word that can be clicked are one switch.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.style import Style

from infraxa.app.offers import OfferSeen
from infraxa.app.tui.widgets.driver import CHOSEN_BY_INFRAXA, THIS_MACHINE, Driver
from infraxa.app.tui.widgets.figures import price
from infraxa.app.tui.widgets.market_rows import Wanted, label, who
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.errors import NetError
from infraxa.net.identity import parse_id
from infraxa.net.status import Activity, NetworkStatus

NOBODY = """No provider yet.

On the same network they are found by themselves. Elsewhere, join with an invite: alt+n, then j. To be one \
yourself, press alt+p; to see a whole market on this machine, run: infraxa demo"""
_NOBODY: dict[Activity, str] = {
    "starting": "The network is starting.",
    "closing": "The network is being left.",
    "off": "The network is off: this machine alone answers.\n\n"
    "Turn on the setting online (F9) to find providers.",
    "blocked": "The network cannot be used: alt+n says why, and what helps.",
}
"""What is said in place of offers when there can be none."""
_QUIET = "$foreground 60%"


def nothing(offers: Sequence[OfferSeen], wanted: Wanted, status: NetworkStatus) -> str:
    """Why no row is shown, and what to do."""
    if offers:
        named = f" with “{one_line(wanted.words, 40)}”" if wanted.words.strip() else ""
        which = [word for word, on in (("free", wanted.free), ("online", wanted.online)) if on]
        if wanted.most is not None:
            which.append(f"up to {price(wanted.most)}/M")
        that = " and ".join(which)
        kind = f" that is {that}" if that else ""
        return f"No offer{named}{kind}.\n\nThere are {len(offers):,} in all: Esc shows them."
    if status.activity == "online" and status.known:
        them = "1 node is" if status.known == 1 else f"{status.known:,} nodes are"
        none = "it offers no model" if status.known == 1 else "none of them offers a model"
        return f"{them} there, {none}.\n\nPress alt+p to serve yours."
    return _NOBODY.get(status.activity, NOBODY)


def headline(offers: Sequence[OfferSeen], shown: int, *, short: bool) -> Content:
    """How many offers there are, and how many of them a filter leaves; of how many providers."""
    if not offers:
        return Content.styled("Market", "bold")
    count = f"{shown:,} of {len(offers):,}" if shown != len(offers) else f"{shown:,}"
    text = Content.styled(f"{count} offer{'s' * (len(offers) != 1)}", "bold")
    if short:
        return text
    nodes = {offer.node.id: offer.node.status for offer in offers}
    there = sum(status != "offline" for status in nodes.values())
    return text + Content.styled(
        f" · {there:,} of {len(nodes):,} provider{'s' * (len(nodes) != 1)} there", _QUIET
    )


def switches(wanted: Wanted, max_price: int | None, *, can_open: bool, short: bool) -> Content:
    """What the rows can be filtered by. `max_price`: the setting, if there is one; `can_open`: the words of
    the filter are not in sight."""
    only = "" if short else " only"
    parts = [_switch("/", "filter", "screen.filter", on=None)] if can_open else []
    parts += [
        _switch("f", f"free{only}", "screen.only('free')", on=wanted.free),
        _switch("o", f"online{only}", "screen.only('online')", on=wanted.online),
    ]
    if max_price is not None:
        most = _switch("m", f"≤ {price(max_price)}", "screen.only('most')", on=wanted.most is not None)
        parts.append(most)
    return Content("   ").join(parts)


def driver_of(driver: Driver) -> tuple[bytes, str | None]:
    """Which node answers a chat, empty: none in particular; and its model_id in hex, if one is set."""
    if driver.kind != "node":
        return b"", None
    if driver.offer is not None:
        return driver.offer.node.id, driver.model_id
    try:
        return parse_id(driver.id), driver.model_id
    except NetError:  # the beginning of an id, in the settings
        return b"", None


def answering(driver: Driver, offers: Sequence[OfferSeen], *, short: bool) -> Content:
    """The three kinds of driver that the shown chat can have, the present one marked."""
    if driver.kind == "node":
        node, _ = driver_of(driver)
        there = (who(offer.node) for offer in offers if offer.node.id == node)
        by_hand = _switch("", next(there, one_line(driver.name, 64)), "", on=True)
    else:
        by_hand = _switch("Enter", "the one below", "screen.choose", on=False)
    which = "infraxa chooses" if short else CHOSEN_BY_INFRAXA
    if driver.kind == "auto" and driver.model_id is not None:
        known = (offer.model for offer in offers if offer.model.model_id.hex() == driver.model_id)
        which += f", with {next((label(model.name) for model in known), 'one model')}"
    parts = [
        _switch("l", THIS_MACHINE, "screen.local", on=driver.kind == "local"),
        _switch("a", which, "screen.auto", on=driver.kind == "auto"),
        by_hand,
    ]
    lead = "" if short else "This chat is answered by   "
    return Content.styled(lead, _QUIET) + Content("   ").join(parts)


def _switch(key: str, word: str, action: str, *, on: bool | None) -> Content:
    """A key, a mark for whether what it does is so (None: it is nothing that can be so), and what that is."""
    mark = "" if on is None else "● " if on else "○ "
    text = Content.assemble(
        (f"{key} " if key else "", "$footer-key-foreground"),
        (mark, "$text-success" if on else _QUIET),
        (word, "bold $text-primary" if on else _QUIET),
    )
    return text.stylize(Style.from_meta({"@click": action})) if action else text
