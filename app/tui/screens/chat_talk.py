"""Talking in the chat view: sending, stopping, answering again, and what the messages themselves ask for."""

from __future__ import annotations

from textual import on

from infraxa.app.errors import NodeError
from infraxa.app.tui import actions
from infraxa.app.tui.screens.chat_price import Pricing
from infraxa.app.tui.widgets import requests
from infraxa.app.tui.widgets.bills import NAMED, can_rate, read_rating, stars_text
from infraxa.app.tui.widgets.facts import can_move
from infraxa.app.tui.widgets.prompt import Prompt
from infraxa.app.tui.widgets.welcome import Question
from infraxa.engine.types import EngineError
from infraxa.store.records import Message, StoreError


class Talk(Pricing):
    """The prompt and the conversation."""

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        self._text_at_delete = None
        if not self.app.opened:
            self._waiting = (event.text, event.editing)
            self._paint_status()
            return
        self.app.attempt(self._send(event.text, event.editing), group="send")

    @on(Question.Asked)
    def _asked(self, event: Question.Asked) -> None:
        event.stop()
        self.post_message(Prompt.Submitted(event.text, None))
        self.prompt.focus()

    async def _send(self, text: str, editing: str | None) -> None:
        try:
            if editing is not None:
                await self.node.edit(editing, text)
                return
            if await self.refuses(text):
                self.prompt.put_back(text)
                self.flash("not sent: the reason stands above what you typed")
                return
            chat = await self.keep_chat()
            await self.node.send(chat.id, text)
        except (NodeError, EngineError, StoreError):
            self.prompt.put_back(text, editing)
            raise

    @on(Prompt.CommandEntered)
    async def _command(self, event: Prompt.CommandEntered) -> None:
        action = actions.BY_SLASH.get(event.name)
        if action is not None:
            await self.app.action_perform(action.id, event.argument)

    def action_stop(self) -> None:
        if self.chat is not None:
            self.app.attempt(self.node.stop(self.chat.id))

    def _last(self, role: str) -> Message | None:
        return next((turn.message for turn in reversed(self.shown_turns) if turn.message.role == role), None)

    def action_regenerate(self) -> None:
        if (answer := self._last("assistant")) is not None:
            self.app.attempt(self.node.regenerate(answer.id), group="send")

    def action_continue(self) -> None:
        answer = self._last("assistant")
        if answer is not None and can_move(answer):
            self.go_elsewhere(answer)
        elif answer is not None:
            self.app.attempt(self.node.continue_answer(answer.id), group="send")

    def action_edit_last(self) -> None:
        if (said := self._last("user")) is not None:
            self.prompt.begin_edit(said.id, said.content)

    def action_copy_answer(self) -> None:
        if (answer := self._last("assistant")) is not None:
            self.app.copy(answer.content, "answer")

    async def copy_text(self, text: str, what: str) -> None:
        """Put `text` on the clipboard by whatever works, and say what did."""
        from infraxa.app.tui import clipboard

        copied = await clipboard.copy(text, self.app.copy_to_clipboard)
        self.flash(f"{what} copied ({copied.way}). {copied.note}".rstrip())

    @on(requests.CopyRequested)
    def _copy_requested(self, event: requests.CopyRequested) -> None:
        self.app.copy(event.text, event.what)

    @on(requests.RegenerateRequested)
    def _regenerate_requested(self, event: requests.RegenerateRequested) -> None:
        self.app.attempt(self.node.regenerate(event.message_id), group="send")

    @on(requests.RateRequested)
    def _rate_requested(self, event: requests.RateRequested) -> None:
        async def rate() -> None:
            await self.node.rate(event.message_id, event.stars, event.named)
            whose = "with the id of this node" if event.named else "without a name"
            self.flash(f"{stars_text(event.stars)} others are told in some minutes, {whose}")

        self.app.attempt(rate(), group="rate")

    def _to_rate(self) -> Message | None:
        """The answer that has the focus, or else the last one, when it can be rated."""
        answer = self._last("assistant")
        if self.query("Conversation") and (view := self.conversation.last_answer()) is not None:
            answer = view.message
        return answer if answer is not None and can_rate(answer) else None

    def action_rate(self, stars: str = "") -> None:
        """Rate an answer as `read_rating` reads it; ask how when that is not said."""
        from infraxa.app.tui.screens.dialogs import Ask

        answer = self._to_rate()
        if answer is None:
            self.flash("only an answer of a driver with a signed receipt can be rated, once")
        elif (rating := read_rating(stars)) is not None:
            self.post_message(requests.RateRequested(answer.id, *rating))
        else:

            def chosen(text: str | None) -> None:
                if text:
                    self.action_rate(text)

            ask = Ask(
                "Rate the answer",
                text="Others are told in some minutes, by a key that does not say which node you are. With a "
                f"word more (4 {NAMED}) it does: those who know you give it more weight.",
                placeholder="1 to 5 stars",
                accept="Rate",
                check=lambda text: (
                    "" if read_rating(text) else f"A rating is a number from 1 to 5, or that and {NAMED}."
                ),
            )
            self.app.push_screen(ask, chosen)

    @on(requests.DropOldestRequested)
    def _drop_oldest_requested(self, event: requests.DropOldestRequested) -> None:
        self.app.attempt(self.node.regenerate(event.message_id, drop_oldest=True), group="send")

    @on(requests.ContinueRequested)
    def _continue_requested(self, event: requests.ContinueRequested) -> None:
        self.app.attempt(self.node.continue_answer(event.message_id), group="send")

    @on(requests.VersionRequested)
    def _version_requested(self, event: requests.VersionRequested) -> None:
        self.app.attempt(self.node.select_version(event.message_id), group="send")

    @on(requests.EditRequested)
    def _edit_requested(self, event: requests.EditRequested) -> None:
        self.prompt.begin_edit(event.message_id, event.text)

    @on(requests.StopRequested)
    def _stop_requested(self) -> None:
        self.action_stop()

    @on(requests.PromptRequested)
    def _prompt_requested(self) -> None:
        self.prompt.focus()

    @on(requests.LinkClicked)
    def _link_clicked(self, event: requests.LinkClicked) -> None:
        from infraxa.app.tui.screens.dialogs import Link, may_open, safe_link

        href = safe_link(event.href)
        if not self.app.settings.confirm_links and may_open(href):
            self.app.open_url(href)
            return

        def chosen(what: str | None) -> None:
            if what == "open":
                self.app.open_url(href)
            elif what == "copy":
                self.app.copy(href, "link")

        self.app.push_screen(Link(href), chosen)
