"""The driver of the shown chat in words: who gets what is sent next, in what state it is, what to do.

Names are claims of strangers: they are shown cleaned, with the beginning of the id that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from textual.content import Content

from infraxa.app.audit_words import WRONG_TEXTS, wrong_of
from infraxa.app.config import ANY, LOCAL
from infraxa.app.network_words import span
from infraxa.app.offers import OfferSeen
from infraxa.app.tui.actions import BY_ID, key_label
from infraxa.app.tui.widgets.figures import price
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.identity import SHORT_LENGTH, display, id_text
from infraxa.net.names import clean_name
from infraxa.store.records import Message

THIS_MACHINE = "this machine"
CHOSEN_BY_INFRAXA = "whoever infraxa chooses"
_QUIET = "$foreground 60%"


class Driver(msgspec.Struct, frozen=True):
    """Who answers what is sent next in the shown chat, as far as it is known."""

    kind: Literal["local", "auto", "node"] = "local"
    id: str = ""
    """Of the node, as people write it."""
    model_id: str | None = None
    """In hex, when a certain model was chosen."""
    name: str = THIS_MACHINE
    """As it is shown: `maple·7k2m9x4q`."""
    offer: OfferSeen | None = None
    """What it offers; None: nothing that is known here."""
    looked: bool = False
    """The offers were looked at."""
    online: bool = True
    """This machine is part of a network."""


def named(name: str, node: str) -> str:
    """`maple·7k2m9x4q`, from a claimed name and the whole id as people write it."""
    cleaned, short = clean_name(name), one_line(node, 64)[:SHORT_LENGTH]
    return f"{cleaned}·{short}" if cleaned else short


def names_in(messages: Iterable[Message]) -> dict[str, str]:
    """The names by which nodes were known when they answered, by id: for those that are not there now."""
    found: dict[str, str] = {}
    for message in messages:
        if message.facts is not None:
            found |= {part.id: part.name for part in message.facts.drivers if part.name}
            found |= {reader.id: reader.name for reader in message.facts.readers if reader.name}
    return found


def driver_words(driver: Driver, who: str) -> str:
    """What it is called where who answers is said; `who`: the one that infraxa chose, if any yet."""
    return f"{ANY} · {who}" if driver.kind == "auto" and who else driver.name


def find_driver(
    driver: str,
    model_id: str | None,
    offers: Sequence[OfferSeen] | None,
    names: Mapping[str, str],
    *,
    online: bool = True,
) -> Driver:
    """What is known of a chat's driver. `offers` is None while nobody looked; `names`: those of earlier."""
    if driver == LOCAL:
        return Driver()
    looked = offers is not None
    if driver == ANY:
        return Driver("auto", name=CHOSEN_BY_INFRAXA, model_id=model_id, looked=looked, online=online)
    # In settings it may be the beginning of an id, with a name before it.
    beginning = driver.rpartition("·")[2].lower()
    own = [offer for offer in offers or () if id_text(offer.node.id).startswith(beginning)]
    if len({offer.node.id for offer in own}) > 1:
        own = []
    offer = next((offer for offer in own if model_id in (None, offer.model.model_id.hex())), None)
    name = display(own[0].node.name, own[0].node.id) if own else named(names.get(driver, ""), beginning)
    return Driver("node", driver, model_id, name, offer, looked, online)


def trouble(driver: Driver) -> str:
    """Why it cannot answer now, in words that follow its name; empty when nothing is known against it."""
    if driver.kind == "local":
        return ""
    if not driver.online:
        return "cannot be reached: infraxa is offline"
    offer = driver.offer
    if driver.kind == "auto" or (offer is None and not driver.looked):
        return ""
    if offer is None:
        return "is not there, or does not offer this model now"
    if offer.node.status == "offline":
        return f"has been offline for {span(offer.node.age_s)}"
    if offer.mark == "blocked":
        return "is blocked by you"
    return one_line(f"cannot answer: {offer.problem}", 200) if offer.problem else ""


def remedy(driver: Driver) -> str:
    """What to do when there is trouble."""
    key = key_label(BY_ID["chat.driver"].key)
    if not driver.online:
        return f"{key_label(BY_ID['app.settings'].key)} turns online on, {key} picks {THIS_MACHINE}"
    return f"{key} picks another"


def model_name(driver: Driver) -> str:
    """What its model is called, as it claims; empty while it is not known."""
    return one_line(driver.offer.model.name, 48) if driver.offer is not None else ""


def is_free(offer: OfferSeen) -> bool:
    """Whether it costs nothing now."""
    return not offer.price_in and not offer.price_out


def cost(offer: OfferSeen) -> str:
    """What it costs now: `free`, or `0.20/M`, the price of 1M generated tokens."""
    if offer.price_in and not offer.price_out:
        return f"{price(offer.price_in)}/M of the prompt"
    return f"{price(offer.price_out)}/M" if offer.price_out else "free"


def where_to(driver: Driver) -> Content:
    """One short line above the prompt: whether what is typed leaves this machine, and to whom."""
    if driver.kind == "local":
        return Content.styled("stays on this machine", _QUIET)
    if wrong := trouble(driver):
        subject = "infraxa" if driver.kind == "auto" else driver.name
        wrong = "cannot choose: it is offline" if driver.kind == "auto" else wrong
        return Content.assemble(
            ("! ", "bold $text-warning"), (f"{subject} {wrong}", "$text-warning"),
            (f" · {remedy(driver)}", _QUIET),
        )  # fmt: skip
    arrow = ("→ ", "bold $text-accent")
    if driver.kind == "auto":
        return Content.assemble(arrow, ("goes to ", _QUIET), (CHOSEN_BY_INFRAXA, "$text-accent"))
    offer = driver.offer
    # The model is what may be cut where there is no room.
    busy = "busy" if offer is not None and offer.node.status == "busy" else ""
    said = [cost(offer) if offer is not None else "not seen yet", busy, model_name(driver)]
    rest = "".join(f" · {part}" for part in said if part)
    impostor = offer is not None and offer.node.same_name_as is not None
    warned = ("  ! another node had this name first", "$text-warning") if impostor else ""
    found = "" if offer is None else wrong_of(offer)
    left = (f"  {WRONG_TEXTS[found]}", "$text-error") if found else ""
    return Content.assemble(
        arrow,
        ("goes to ", _QUIET),
        (driver.name, "bold $text-accent"),
        (" only", _QUIET),
        left,
        (rest, _QUIET),
        warned,
    )


def readable_next(driver: Driver) -> str:
    """Who can read what is sent now, as a sentence."""
    if driver.kind == "local":
        return "readable by this machine only"
    if driver.kind == "auto":
        return "what you send now, and this chat with it, can be read by whoever it chooses"
    return f"what you send now, and this chat with it, can be read by {driver.name} only"
