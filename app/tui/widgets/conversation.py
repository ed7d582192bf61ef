"""The messages of a chat, one under the other: which of them are mounted, following new text, going from one
to another.

The newest PAGE turns are mounted first, older ones when the person scrolls up to them. What the messages ask
for (copy, regenerate, …) goes on to the screen as the messages of `requests.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import ClassVar, TypeVar, cast

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Click
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from infraxa.app.answering import Waits
from infraxa.app.tui.widgets import requests
from infraxa.app.tui.widgets.facts import model_label
from infraxa.app.tui.widgets.markdown import MarkdownView
from infraxa.app.tui.widgets.message import AnswerView, UserMessage
from infraxa.store.records import AnswerFacts, DriverPart, Message, Turn

PAGE = 20
"""Turns mounted at a time."""
KEEP = 3 * PAGE
"""Turns that stay mounted when the person is back at the end: each one mounted costs every frame a little."""
NEAR_TOP = 3
"""Lines from the top at which older turns are mounted."""
STEP = 3
"""Lines that up and down move in a message taller than the window."""

View = UserMessage | AnswerView
T = TypeVar("T")


class NewTextBelow(Static):
    """A line at the bottom while text grows out of sight."""

    DEFAULT_CSS = """
    NewTextBelow {
        dock: bottom;
        height: 1;
        width: 1fr;
        display: none;
        content-align: center middle;
        background: $surface;
        color: $text-accent;
        &.-shown { display: block; }
    }
    """

    def __init__(self) -> None:
        super().__init__("↓ new text below", markup=False)

    def on_click(self, event: Click) -> None:
        event.stop()
        if isinstance(self.parent, Conversation):
            self.parent.follow()


class Conversation(VerticalScroll, can_focus=False):
    """Shows the turns of one branch."""

    BLANK = True  # nothing of its own is painted: a frame costs its lines once less

    CopyRequested = requests.CopyRequested
    RegenerateRequested = requests.RegenerateRequested
    RateRequested = requests.RateRequested
    EditRequested = requests.EditRequested
    ContinueRequested = requests.ContinueRequested
    ElsewhereRequested = requests.ElsewhereRequested
    DropOldestRequested = requests.DropOldestRequested
    VersionRequested = requests.VersionRequested
    StopRequested = requests.StopRequested
    PromptRequested = requests.PromptRequested
    LinkClicked = requests.LinkClicked

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Previous message", show=False, id="conversation.previous"),
        Binding("down,j", "move(1)", "Next message", show=False, id="conversation.next"),
        Binding("home", "first", "First message", show=False, id="conversation.first"),
        Binding("end", "follow", "Newest text", show=False, id="conversation.follow"),
    ]
    DEFAULT_CSS = """
    Conversation {
        padding: 1 1 0 1;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
    }
    """

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
        clock: Callable[[], float] = monotonic,
        label: Callable[[str], str] = model_label,
    ) -> None:
        """`label` gives the name to show for a model's name."""
        super().__init__(id=id, classes=classes)
        self._clock = clock
        self._label = label
        self._turns: list[Turn] = []
        self._start = 0
        """Index of the first turn that is mounted."""
        self._views: dict[str, View] = {}
        self._lock = asyncio.Lock()

    def compose(self) -> ComposeResult:
        yield NewTextBelow()

    def on_mount(self) -> None:
        self.anchor()
        self.app.screen_change_signal.subscribe(self, self._screen_changed)

    def set_reactive(self, reactive: Reactive[T], value: T) -> None:
        # The compositor keeps an anchored widget at the end of its content, also when that is shorter than
        # the window: it would hang at the bottom, and all of it move up with each line that is added.
        if reactive is Widget.scroll_y or reactive is Widget.scroll_target_y:
            value = cast(T, max(0.0, cast(float, value)))
        super().set_reactive(reactive, value)

    @property
    def turns(self) -> Sequence[Turn]:
        """The whole branch, the part that is not mounted included."""
        return self._turns

    @property
    def views(self) -> list[View]:
        """The mounted messages, oldest first."""
        return [self._views[turn.message.id] for turn in self._turns[self._start :]]

    @property
    def is_following(self) -> bool:
        """Whether the newest text is in view."""
        return self.max_scroll_y - self.scroll_y <= 1

    async def show(self, turns: Sequence[Turn], *, streaming: Mapping[str, str] | None = None) -> None:
        """Show this branch. `streaming`: the text so far of answers that are running, by message id.

        Messages that are shown already stay; a branch that shares none of its mounted turns starts at its
        end.
        """
        streaming = {} if streaming is None else streaming  # it may know texts, and not how many
        async with self._lock:
            shared = 0
            for old, new in zip(self._turns, turns, strict=False):
                if old.message.id != new.message.id:
                    break
                shared += 1
            if shared <= self._start or len(turns) - shared > PAGE:
                shared = 0
            fresh = shared == 0
            kept = [] if fresh else list(turns[self._start : shared])
            staying = {turn.message.id for turn in kept}
            stale = [view for key, view in self._views.items() if key not in staying]
            self._views = {key: self._views[key] for key in staying}
            start = max(0, len(turns) - PAGE) if fresh else self._start
            self._turns = list(turns)
            self._start = start
            added = [self._make(turn, streaming) for turn in turns[max(start, shared) :]]
            with self.app.batch_update():
                if stale:
                    await self.remove_children(stale)
                for turn in kept:
                    await self._views[turn.message.id].show_turn(turn)
                self._mark_newest()
                if added:
                    await self.mount_all(added)
                if fresh:
                    self.anchor()

    def _make(self, turn: Turn, streaming: Mapping[str, str]) -> View:
        view: View
        if turn.message.role == "user":
            view = UserMessage(turn)
        else:
            view = AnswerView(turn, is_visible=self._is_seen, clock=self._clock, label=self._label)
            if turn.message.state == "streaming" and (text := streaming.get(turn.message.id)):
                view.feed(text)
        self._views[turn.message.id] = view
        return view

    def _mark_newest(self) -> None:
        for view in self.views:
            view.newest = view is self.views[-1]
            view.refresh_words()

    def start_answer(self, message: Message) -> None:
        """A new answer is running. If the branch was shown with it already, nothing changes."""
        if message.id in self._views:
            return
        turn = Turn(message, (message.id,))
        self._turns.append(turn)
        view = self._make(turn, {})
        self._mark_newest()
        self.mount(view)

    def _answer(self, message_id: str) -> AnswerView | None:
        view = self._views.get(message_id)
        return view if isinstance(view, AnswerView) else None

    def set_progress(self, message_id: str, done: int, total: int) -> None:
        """The model has read `done` of `total` tokens of the prompt."""
        if view := self._answer(message_id):
            view.set_progress(done, total)

    def set_waiting(self, message_id: str, what: str) -> None:
        """Say what the answer waits for, such as `waiting for the model to load 40 %`."""
        if view := self._answer(message_id):
            view.wait_for(what)

    def set_driver_wait(self, message_id: str, waits: Waits, passed: float) -> None:
        """Say what a driver is waited for, since `passed` seconds."""
        if view := self._answer(message_id):
            view.wait_until(waits, passed)

    def move(self, message_id: str, part: DriverPart) -> None:
        """Who writes the answer from a place on."""
        if view := self._answer(message_id):
            view.move(part)

    def grow(self, message_id: str, text: str) -> None:
        """More text of a running answer. Only takes note: it is shown at the pace of the screen."""
        if view := self._answer(message_id):
            view.feed(text)

    async def finish(self, message: Message) -> None:
        """The answer ended, and this is what is stored of it."""
        for index, turn in enumerate(self._turns):
            if turn.message.id == message.id:
                siblings = turn.sibling_ids
                self._turns[index] = Turn(message, siblings)
        if view := self._answer(message.id):
            await view.end(message)

    def show_facts(self, message_id: str, facts: AnswerFacts) -> None:
        """More is known of an answer that has ended."""
        for index, turn in enumerate(self._turns):
            if turn.message.id == message_id:
                known = msgspec.structs.replace(turn.message, facts=facts)
                self._turns[index] = Turn(known, turn.sibling_ids)
        if view := self._answer(message_id):
            view.show_facts(facts)

    def _is_seen(self) -> bool:
        """Whether a frame drawn now would be seen; a dialog over the screen leaves it in sight."""
        return self.is_attached and (self.app.screen is self.screen or self.app.screen.is_modal)

    def _screen_changed(self, screen: Screen[object]) -> None:
        if self._is_seen():
            for view in self._views.values():
                if isinstance(view, AnswerView):
                    view.resume()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self.is_following:
            self.query_one(NewTextBelow).remove_class("-shown")
        elif new_value < old_value and new_value <= NEAR_TOP and self._start > 0:
            self.call_later(self._mount_older)

    async def _mount_older(self) -> None:
        """Mount the page before the first turn, leaving what is seen where it is."""
        async with self._lock:
            if self._start == 0 or self.scroll_y > NEAR_TOP:
                return
            first = self.views[0]
            start = max(0, self._start - PAGE)
            added = [self._make(turn, {}) for turn in self._turns[start : self._start]]
            self._start = start
            place = self.scroll_y
            below_top = first.virtual_region.y - place
            with self.app.batch_update():
                await self.mount_all(added, before=first)

            def stay() -> None:
                if self.scroll_y == place:  # else the person has moved on meanwhile
                    self.scroll_to(y=first.virtual_region.y - below_top, animate=False, immediate=True)

            self.call_after_refresh(stay)

    async def _unmount_oldest(self) -> None:
        """At the end again: leave only the newest turns mounted."""
        async with self._lock:
            start = len(self._turns) - KEEP
            if start <= self._start or not self.is_following:
                return
            stale = [self._views.pop(turn.message.id) for turn in self._turns[self._start : start]]
            self._start = start
            await self.remove_children(stale)

    def follow(self) -> None:
        """Go to the newest text and stay there while it grows."""
        self.anchor()
        self.query_one(NewTextBelow).remove_class("-shown")
        self.call_later(self._unmount_oldest)

    def action_follow(self) -> None:
        self.follow()

    @property
    def focused(self) -> View | None:
        """The message that has the focus."""
        focused = self.screen.focused
        return focused if isinstance(focused, UserMessage | AnswerView) and focused in self.children else None

    def focus_last(self) -> bool:
        """Give the newest message the focus; False when there is none."""
        views = self.views
        if views:
            views[-1].focus(scroll_visible=False)
        return bool(views)

    def action_move(self, step: int) -> None:
        """To the message above or below; within one that is taller than the window, some lines on."""
        views = self.views
        focused = self.focused
        if focused is None:
            self.focus_last()
            return
        window = self.scrollable_content_region
        region = focused.region
        if step > 0 and region.bottom > window.bottom:
            self.scroll_relative(y=STEP, animate=False)
        elif step < 0 and region.y < window.y:
            self.scroll_relative(y=-STEP, animate=False)
        else:
            index = views.index(focused) + step
            if index >= len(views):
                self.post_message(requests.PromptRequested())
            elif index >= 0:
                self._focus(views[index], from_below=step < 0)

    def _focus(self, view: View, *, from_below: bool) -> None:
        """Focus `view` and bring it into view: its end when coming from below, if it is taller than the
        window.
        """
        view.focus(scroll_visible=False)
        window = self.scrollable_content_region.height
        region = view.virtual_region
        if region.height > window and from_below:
            self.scroll_to(y=region.bottom - window, animate=False)
        else:
            self.scroll_to_widget(view, animate=False, top=region.height > window)

    def action_first(self) -> None:
        """To the oldest message that is mounted; the ones before it come by going on up."""
        if views := self.views:
            views[0].focus()
            self.scroll_home(animate=False)

    def last_code(self) -> str | None:
        """The code block to copy: the last one of the focused answer, or of the newest that has one."""
        focused = self.focused
        for view in [focused] if isinstance(focused, AnswerView) else reversed(self.views):
            if isinstance(view, AnswerView) and (codes := view.codes):
                return codes[-1]
        return None

    def last_answer(self) -> AnswerView | None:
        """The focused answer, or the newest one."""
        if isinstance(self.focused, AnswerView):
            return self.focused
        answers = [view for view in self.views if isinstance(view, AnswerView)]
        return answers[-1] if answers else None

    @on(AnswerView.Grew)
    def _grew(self, event: AnswerView.Grew) -> None:
        event.stop()
        self.query_one(NewTextBelow).set_class(not self.is_following, "-shown")

    @on(MarkdownView.LinkClicked)
    def _link_clicked(self, event: MarkdownView.LinkClicked) -> None:
        event.stop()
        self.post_message(requests.LinkClicked(event.href))

    @on(MarkdownView.CodeCopied)
    def _code_copied(self, event: MarkdownView.CodeCopied) -> None:
        event.stop()
        self.post_message(requests.CopyRequested(event.code, "code"))
