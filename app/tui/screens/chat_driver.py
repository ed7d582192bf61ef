"""The driver of the shown chat: choosing another, following how it is, going on elsewhere when it failed."""

from __future__ import annotations

from time import monotonic

import msgspec
from textual import on
from textual.timer import Timer

from infraxa.app.events import Event, NodesChanged, OffersChanged
from infraxa.app.tui.screens.chat_library import Library
from infraxa.app.tui.widgets import requests
from infraxa.store.records import AnswerFacts, Message

SOON = 0.05
"""Seconds: what is told together is looked at once."""
LOOK = 1.0
"""Seconds between two looks at the offers, at least; only while a driver on the network is shown."""
AGE = 5.0
"""Seconds after which its age is shown anew when nothing is told."""
AFTER_OTHERS = 0.2
"""Seconds that the view which was shown before has to end what it asked for."""


class Driving(Library):
    """Who answers the shown chat."""

    def __init__(self, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._looked_at = 0.0
        self._looking: Timer | None = None
        self._ageing: Timer | None = None
        self._watched: tuple[bytes, ...] = ()
        self._is_seen = True

    async def use_driver(self, driver: str, driver_model: str | None, label: str) -> None:
        """Have this driver answer the shown chat, or the one that begins, and go to it.

        `driver`: `local`, `auto` or the id of a node as people write it; `driver_model`: a model_id in hex.
        """
        options = self.chat.options if self.chat is not None else self._options
        await self._set_options(msgspec.structs.replace(options, driver=driver, driver_model=driver_model))
        self.app.action_chat()
        self.prompt.focus()
        self.flash(f"{label} answers from now on")

    def action_driver(self, words: str = "") -> None:
        """Choose who answers the shown chat from a list."""
        from infraxa.app.tui.screens.pick_driver import Choice, PickDriver

        def chosen(choice: Choice | None) -> None:
            if choice is not None:
                self.app.attempt(self.use_driver(*choice), group="driver")

        driver, model = self._wanted_driver()
        self.app.push_screen(PickDriver(driver, model, words), chosen)

    def _driver_changed(self) -> None:
        """Another driver is the one to show: look how it is, have it watched."""
        self._watch()
        if self.driver.kind == "local":
            self._offers = None
        else:
            self._look()
            if self._ageing is None:
                self._ageing = self.set_interval(AGE, self._look)

    def hear_driver(self, event: Event) -> None:
        """Follow what is told of providers, while one of them is the driver."""
        if isinstance(event, NodesChanged | OffersChanged):
            self._look()

    def _look(self) -> None:
        """Look at the offers soon; at once when the last look was long ago."""
        if (
            self.driver.kind == "local"
            or not self.app.opened
            or not self._is_seen
            or self._looking is not None
        ):
            return
        wait = max(SOON, self._looked_at + LOOK - monotonic())
        self._looking = self.set_timer(wait, self._look_now)

    def _look_now(self) -> None:
        self._looking = None
        self._looked_at = monotonic()
        if self.app.opened:
            self.app.attempt(self._list_offers(), group="offers", exclusive=True, screen=self)

    async def _list_offers(self) -> None:
        self._offers = await self.node.list_offers()
        self._paint_driver()
        self._watch()

    def _watch(self) -> None:
        """Have the shown driver asked how it is every second, while it is shown."""
        offer = self.driver.offer
        wanted = (offer.node.id,) if offer is not None and self._is_seen else ()
        if wanted != self._watched and self.app.opened:
            self._watched = wanted
            self.app.attempt(self.node.watch_nodes(wanted), group="watch", screen=self)

    def on_screen_resume(self) -> None:
        """Seen again: another view may have had others watched meanwhile."""
        self._is_seen = True
        if self.driver.kind != "local":
            self._watched = ()
            self.set_timer(AFTER_OTHERS, self._seen_again)

    def _seen_again(self) -> None:
        self._watch()
        self._look()

    def on_screen_suspend(self) -> None:
        self._is_seen = self.app.screen.is_modal
        self._watch()

    @on(requests.ElsewhereRequested)
    def _elsewhere_requested(self, event: requests.ElsewhereRequested) -> None:
        answer = next(
            (turn.message for turn in self.shown_turns if turn.message.id == event.message_id), None
        )
        if answer is not None:
            self.go_elsewhere(answer)

    def go_elsewhere(self, answer: Message) -> None:
        """Ask which driver is to go on with an answer whose driver failed."""
        from infraxa.app.tui.screens.pick_driver import Choice, GoElsewhere

        def chosen(choice: Choice | None) -> None:
            if choice is not None:
                moved = self.node.continue_elsewhere(answer.id, choice.driver, choice.model)
                self.app.attempt(moved, group="send")

        driver, model = self._wanted_driver()
        facts = answer.facts or AnswerFacts()
        asked = [each.id for each in facts.readers] + [part.id for part in facts.drivers if part.id]
        if asked and asked[-1] != driver:
            driver, model = asked[-1], None
        self.app.push_screen(GoElsewhere(answer, driver, model), chosen)
