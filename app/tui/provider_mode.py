"""Provider mode from anywhere in the app: one key turns it on and off, the notice comes before the first.

What the provider does is said by Node; here is only what a person asks of it, and when it is painted.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from textual.timer import Timer

from infraxa.app import serving_words as words
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, ProviderChanged
from infraxa.app.serving import ProviderStatus
from infraxa.app.tui.actions import BY_ID, key_label
from infraxa.app.tui.widgets.text import one_line

if TYPE_CHECKING:
    from infraxa.app.tui.app import InfraxaApp

CALM = 1.0
"""Seconds between two paintings of numbers that move by themselves."""


class ProviderMode:
    """Provider mode of the app's node."""

    def __init__(self, app: InfraxaApp) -> None:
        self._app = app
        self._asked = False
        """A change is on its way: the key, held down or pressed twice, asks for nothing more meanwhile."""
        self._painted: tuple[words.Role, float] = (words.Role(), 0.0)
        self._painting: Timer | None = None

    @property
    def status(self) -> ProviderStatus:
        """As Node says it; off while there is no node."""
        return self._app.node.provider if self._app.opened else ProviderStatus()

    @property
    def model(self) -> str:
        """What to call the model that is served, or would be."""
        settings = self._app.settings
        name = self.status.model or settings.provide_model or settings.model
        return one_line(words.model_name(name), 40)

    @property
    def role(self) -> words.Role:
        """What the status bar says of it."""
        return words.role(self.status, self.model)

    @property
    def cut_by_quitting(self) -> str:
        """Whose answers would be cut if the app ended now."""
        running = self.status.running
        key = key_label(BY_ID["provide.toggle"].key)
        return f"Others wait for {words.answers(running)}: {key} lets them finish first." if running else ""

    @property
    def help(self) -> str:
        """What the key would do now."""
        return words.toggling(self.status, self.model, words.base_price(self._app.settings))

    def hear(self, event: Event) -> None:
        """Have the status bar say it: at once when the mode is another one, numbers once a second."""
        if not isinstance(event, ProviderChanged):
            return
        role, (painted, at) = self.role, self._painted
        wait = at + CALM - monotonic()
        if role.style != painted.style or (role != painted and wait <= 0):
            self._paint()
        elif role != painted and self._painting is None:
            self._painting = self._app.set_timer(wait, self._paint)

    def _paint(self) -> None:
        if self._painting is not None:
            self._painting.stop()
            self._painting = None
        self._painted = (self.role, monotonic())
        self._app.chat_screen.role_changed()

    def toggle(self) -> None:
        """Turn it on; or off, when what runs may finish; or, once more, end that too."""
        if not self._asked:
            self._asked = True
            self._app.attempt(self._toggle(), group="provide")

    async def _toggle(self) -> None:
        try:
            node, status = self._app.node, self.status
            if status.mode == "off":
                await node.provide(True)
            else:
                await node.provide(False, now=status.mode == "draining")
        except NodeError as error:
            if error.code != "notice":
                raise
            self._show_notice()
        finally:
            self._asked = False

    def _show_notice(self) -> None:
        from infraxa.app.tui.screens.serving_notice import ServingNotice

        async def accept() -> None:
            await self._app.node.accept_serving()
            await self._app.node.provide(True)

        def answered(yes: bool | None) -> None:
            if yes:
                self._app.attempt(accept(), group="provide")

        self._app.push_screen(ServingNotice(self.model, words.capacity(self._app.settings)), answered)
