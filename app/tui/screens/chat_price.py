"""What the next message can cost, asked before Enter: when, for which text, and what is done with the answer.

Nothing is asked while this machine answers. Asking never holds up typing or sending.
"""

from __future__ import annotations

from textual import on
from textual.timer import Timer

from infraxa.app.errors import FAILURES
from infraxa.app.events import Event, TradeChanged
from infraxa.app.trade import Bound
from infraxa.app.tui.screens.chat_driver import Driving
from infraxa.app.tui.widgets.bound_line import BoundLine
from infraxa.app.tui.widgets.driver import is_free, trouble

TYPED = 0.3
"""Seconds without typing after which it is asked anew."""
AGAIN = 5.0
"""Seconds after which it is asked again whether what cannot be sent can be: nobody tells of all changes."""
TOLD = 0.2
"""Seconds after something else changed it: what is told together is asked about once."""


class Pricing(Driving):
    """The bound of the shown chat."""

    def __init__(self, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._price_timer: Timer | None = None
        self._again_timer: Timer | None = None
        self._price_due = False
        """Something else than the text is another one."""
        self._priced = ""
        """The text for which it was asked last."""

    def on_mount(self) -> None:
        self.watch(self.prompt.area, "has_focus", self._focus_moved)

    def on_screen_resume(self) -> None:
        self._focus_moved()

    def on_screen_suspend(self) -> None:
        self._focus_moved()

    def _focus_moved(self) -> None:
        """The seconds count while the person can press Enter; what is shown then must hold."""
        line = self.prompt.bound_line
        line.count(self._can_send)
        if self._can_send and not line.left_s:
            self._price_soon(TOLD)

    @property
    def _can_send(self) -> bool:
        """Enter would send what is typed."""
        return self.prompt.area.has_focus and self.app.screen is self

    def _typed(self) -> None:
        super()._typed()
        if self._price_timer is not None:
            self._price_timer.reset()
        elif self.driver.kind != "local" and self.app.opened:
            self._price_timer = self.set_timer(TYPED, self._price_typed)

    def _price_typed(self) -> None:
        """Also a cursor that only moved leads here."""
        self._price_timer = None
        if self._price_due or self._to_price() != self._priced:
            self._price_now()

    def _driver_changed(self) -> None:
        super()._driver_changed()
        self._price_again()

    def _painted(self) -> None:
        super()._painted()
        self._price_again()

    def _price_again(self) -> None:
        """Another chat, or another driver: what is known does not hold for it."""
        self._show_bound(None)
        self._price_soon(TOLD)

    def hear_driver(self, event: Event) -> None:
        super().hear_driver(event)
        if isinstance(event, TradeChanged) and self._can_send:
            self._price_soon(TOLD)

    async def _list_offers(self) -> None:
        before = self._has_price
        await super()._list_offers()
        if self._has_price != before:
            self._price_soon(TOLD)

    @property
    def _has_price(self) -> bool:
        """The driver is known to ask for something."""
        offer = self.driver.offer
        return offer is not None and not is_free(offer)

    @on(BoundLine.LockEnded)
    def _lock_ended(self) -> None:
        self._price_now()

    def _price_soon(self, seconds: float) -> None:
        if self.driver.kind == "local" or not self.app.opened:
            return
        self._price_due = True
        if self._price_timer is None:
            self._price_timer = self.set_timer(seconds, self._price_now)

    def _price_now(self) -> None:
        if self._price_timer is not None:
            self._price_timer.stop()
            self._price_timer = None
        self._price_due = False
        if self.driver.kind != "local" and self.app.opened:
            self.app.attempt(self._price(), group="price", exclusive=True, screen=self)

    def _ask_again(self) -> None:
        self._again_timer = None
        if self._can_send and self.bound is not None and self.bound.state == "refused":
            self._price_now()

    def _to_price(self) -> str:
        """What would be sent; a command is not."""
        text = self.prompt.text.strip()
        if text.startswith("//"):
            return text[1:]
        return "" if text.startswith("/") else text

    async def _price(self) -> None:
        driver, text = self.driver, self._to_price()
        self._priced = text
        try:
            bound = await self._bound_of(text)
        except FAILURES:
            bound = None  # what is wrong is said of the driver, and when it is sent
        if (self.driver.kind, self.driver.id) == (driver.kind, driver.id):
            self._show_bound(bound)

    async def _bound_of(self, text: str) -> Bound | None:
        """None: there is nothing to say of it."""
        offer = self.driver.offer
        if self.chat is None and (not text or (offer is not None and is_free(offer))):
            return None
        # A node knows the driver of chats that are kept.
        chat = await self.keep_chat()
        bound = await self.node.bound(chat.id, text)
        if not self._shows(chat.id) or bound.state == "local":
            return None
        return bound

    def _show_bound(self, bound: Bound | None) -> None:
        self.bound = bound
        offer = self.driver.offer
        # What is said of the driver above the line is not said twice.
        free = bound is not None and bound.state == "free" and (offer is None or is_free(offer))
        gone = bound is not None and bound.state == "refused" and bool(trouble(self.driver))
        self.prompt.bound_line.show(None if free or gone else bound)
        if bound is not None and bound.state == "refused" and self._again_timer is None:
            self._again_timer = self.set_timer(AGAIN, self._ask_again)
        self._paint_status()

    async def refuses(self, text: str) -> bool:
        """Whether `text` cannot be sent, for a reason that was shown already, and is shown."""
        if self.bound is None or self.bound.state != "refused":
            return False
        bound = await self._bound_of(text)
        self._show_bound(bound)
        return bound is not None and bound.state == "refused"
