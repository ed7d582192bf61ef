"""Choosing who answers: this machine, whoever infraxa chooses, or a provider.

For a chat, or for the rest of an answer whose driver failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from infraxa.app.audit_words import WRONG_TEXTS, wrong_of
from infraxa.app.config import ANY, LOCAL
from infraxa.app.events import Event, NodesChanged, OffersChanged
from infraxa.app.tui.screens.view import View
from infraxa.app.tui.widgets.driver import CHOSEN_BY_INFRAXA, THIS_MACHINE, find_driver, names_in, trouble
from infraxa.app.tui.widgets.facts import short_time, speed
from infraxa.app.tui.widgets.market_rows import label, who
from infraxa.app.tui.widgets.network_rows import round_trip
from infraxa.app.tui.widgets.offer_facts import prices
from infraxa.net.identity import id_text
from infraxa.store.records import Message

if TYPE_CHECKING:
    from infraxa.app.offers import OfferSeen

MOST = 200
"""Providers that are listed; typing finds the others."""
_QUIET = "$foreground 60%"


class Choice(NamedTuple):
    """Who is to answer."""

    driver: str
    """`local`, `auto` or the id of a node, as people write it."""
    model: str | None
    """A model_id in hex; None: any."""
    label: str
    """As it is shown."""


class Candidate(NamedTuple):
    """A row."""

    choice: Choice
    row: Content
    text: str
    """What is searched when words are typed."""
    problem: str = ""
    """Why it cannot be chosen."""


def candidates(offers: Iterable[OfferSeen]) -> list[Candidate]:
    """What is offered, the best first; who failed an audit and what cannot answer now at the end, with the
    reason."""
    return [
        _offered(offer) for offer in sorted(offers, key=lambda one: (bool(one.problem), bool(one.caught)))
    ]


def _offered(offer: OfferSeen) -> Candidate:
    node, model = offer.node, offer.model
    problem = label(offer.problem) or ("You blocked it." if offer.mark == "blocked" else "")
    rate = offer.tokens_per_second
    facts = [
        " ".join(part for part in (label(model.name) or "unnamed", label(model.quantization)) if part),
        prices(offer),
        node.status,
        speed(rate) if rate is not None else "",
        f"{short_time(offer.first_token_ms)} to first token" if offer.first_token_ms is not None else "",
        f"{round_trip(node.rtt_ms)} away" if node.rtt_ms is not None else "",
    ]
    said = problem or " · ".join(fact for fact in facts if fact)
    row = Content.styled(who(node), "bold" if not problem else _QUIET)
    if wrong := wrong_of(offer):
        row += Content.styled(f"  {WRONG_TEXTS[wrong]}", "$text-error")
    if node.same_name_as is not None:
        row += Content.styled("  ! not the first with this name", "$text-warning")
    row += Content("  ") + Content.styled(said, "$text-error" if problem else _QUIET)
    choice = Choice(id_text(node.id), model.model_id.hex(), who(node))
    return Candidate(choice, row, f"{who(node)} {label(model.name)} {node.status}".casefold(), problem)


def _fixed(driver: str, name: str, said: str, model: str | None = None) -> Candidate:
    row = Content.assemble((name, "bold"), "  ", (said, _QUIET))
    return Candidate(Choice(driver, model, name), row, f"{driver} {name} {said}".casefold())


class PickDriver(View[Choice]):
    """The list, with a line that filters it."""

    HEADING = "Who answers this chat"
    KEYS = "type to filter · Enter chooses · alt+m opens the market · Esc leaves it as it is"
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False, priority=True),
        Binding("down", "move(1)", "Down", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    PickDriver > #view { height: auto; max-height: 85%; }
    PickDriver #said { height: auto; width: 1fr; margin-bottom: 1; }
    PickDriver Input { height: 1; border: none; background: $panel; padding: 0 1; margin-bottom: 1; }
    PickDriver OptionList {
        height: auto; max-height: 1fr; min-height: 3; background: $surface; border: none; padding: 0;
        scrollbar-size-vertical: 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    def __init__(self, driver: str, model: str | None, words: str = "") -> None:
        """`driver` and `model`: those that are chosen now; `words`: a filter to begin with."""
        super().__init__()
        self._driver, self._model = driver, model
        self._words = words
        self._offers: list[OfferSeen] | None = None
        self._shown: list[Candidate] = []
        self._moved = False
        """The person has moved the cursor."""

    def compose_body(self) -> ComposeResult:
        if said := self.said():
            yield Static(said, id="said", markup=False)
        yield Input(self._words, placeholder="driver or model", compact=True)
        options = OptionList(markup=False, compact=True)
        options.can_focus = False
        yield options

    def said(self) -> str:
        """What a person must know before they choose."""
        return ""

    def on_mount(self) -> None:
        self.app.told.subscribe(self, self._hear)
        self._list()
        self._look()

    def _hear(self, event: Event) -> None:
        # What stands under the cursor must not be another one when Enter is pressed: only a list that was
        # still without providers is read again.
        if isinstance(event, NodesChanged | OffersChanged) and not self._offers:
            self._look()

    def _look(self) -> None:
        self.app.attempt(self._read(), group="offers of the list", exclusive=True, screen=self)

    async def _read(self) -> None:
        offers = await self.app.node.list_offers()
        if offers != self._offers:
            self._offers = offers
            self._list()

    def all(self) -> list[Candidate]:
        """Everybody who can be chosen, in order."""
        return [
            _fixed(LOCAL, THIS_MACHINE, "nothing that you write leaves it"),
            _fixed(ANY, CHOSEN_BY_INFRAXA, "for each answer, by model, health and load"),
            *candidates(self._offers or ()),
        ]

    @on(Input.Changed)
    def _list(self) -> None:
        """Show those in which every typed word is found."""
        words = self.query_one(Input).value.casefold().split()
        before = self._highlighted() if self._moved else None
        found = [one for one in self.all() if all(word in one.text for word in words)][:MOST]
        self._shown = found
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._marked(one)) for one in found])
        if not found:
            options.add_option(Option(Content.styled("  nobody fits what is typed", _QUIET), disabled=True))
            return
        kept = [at for at, one in enumerate(found) if before is not None and one.choice == before.choice]
        options.highlighted = kept[0] if kept else self.first(found)

    def first(self, found: list[Candidate]) -> int:
        """The row that the cursor begins at: the one that is chosen now."""
        return next((at for at, one in enumerate(found) if self._is_chosen(one)), 0)

    def _is_chosen(self, one: Candidate) -> bool:
        return one.choice.driver == self._driver and (self._model is None or one.choice.model == self._model)

    def _marked(self, one: Candidate) -> Content:
        chosen = self._is_chosen(one)
        return Content.styled("● " if chosen else "  ", "$text-success") + one.row

    def _highlighted(self) -> Candidate | None:
        index = self.query_one(OptionList).highlighted
        return self._shown[index] if index is not None and index < len(self._shown) else None

    def action_move(self, rows: int) -> None:
        self._moved = True
        options = self.query_one(OptionList)
        options.action_cursor_down() if rows > 0 else options.action_cursor_up()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _chosen(self, event: Input.Submitted | OptionList.OptionSelected) -> None:
        event.stop()
        if (one := self._highlighted()) is None:
            return
        if one.problem:
            self.app.notify(f"{one.choice.label}: {one.problem}", severity="warning", markup=False)
        else:
            self.dismiss(one.choice)


class GoElsewhere(PickDriver):
    """Who goes on with an answer whose driver failed: the same again, another with the same model first, or
    this machine."""

    KEYS = "type to filter · Enter sends it there · Esc leaves the answer as it is"

    def __init__(self, answer: Message, driver: str, model: str | None) -> None:
        """`driver`: the one that failed."""
        super().__init__(driver, model)
        self._answer = answer

    @property
    def heading(self) -> str:
        return "Continue elsewhere" if self._answer.content else "Send elsewhere"

    def said(self) -> str:
        if self._answer.content:
            sent = "The whole conversation and the text so far are sent to whom you choose, who can read them"
        else:
            sent = "The whole conversation is sent to whom you choose, who can read it"
        return f"{sent}, and answers this chat from then on."

    def all(self) -> list[Candidate]:
        failed = find_driver(self._driver, self._model, self._offers, names_in([self._answer]))
        offers = list(self._offers or ())
        model = self._model or next(
            (one.model.model_id.hex() for one in offers if id_text(one.node.id) == self._driver), None
        )
        others = [one for one in offers if id_text(one.node.id) != self._driver]
        listed = [
            _fixed(ANY, CHOSEN_BY_INFRAXA, "by model, health and load"),
            _fixed(LOCAL, THIS_MACHINE, "reads it here; nothing more leaves it"),
            *candidates(one for one in others if one.model.model_id.hex() == model),
            *candidates(one for one in others if one.model.model_id.hex() != model),
        ]
        if failed.kind == "node":
            wrong = trouble(failed)
            again = f"the same again, but it {wrong}" if wrong else "the same again"
            listed.insert(0, _fixed(failed.id, failed.name, again, self._model))
        return listed

    def first(self, found: list[Candidate]) -> int:
        """The driver that failed is chosen on purpose, never by a quick Enter."""
        return next((at for at, one in enumerate(found) if one.choice.driver != self._driver), 0)
