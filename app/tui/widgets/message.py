"""One message of a conversation: the person's own, and an answer with what is known of it.

A message shows a turn and asks for things by `requests.py`. When an answer starts, grows and ends is told
from outside; what is waited for is counted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import ClassVar

import msgspec
from textual.binding import Binding, BindingType
from textual.content import Content, Span
from textual.message import Message as TextualMessage
from textual.style import Style
from textual.timer import Timer

from infraxa.app.answering import Waits
from infraxa.app.tui.widgets import requests
from infraxa.app.tui.widgets.bills import MOST_STARS, STYLES, bill_lines, can_rate, stars_text
from infraxa.app.tui.widgets.facts import (
    can_continue,
    can_move,
    driver_name,
    ending,
    facts_lines,
    facts_rows,
    model_label,
    moved_label,
    moved_lines,
    moved_places,
    too_long,
    who_answered,
    with_part,
)
from infraxa.app.tui.widgets.markdown import MarkdownView
from infraxa.app.tui.widgets.streaming import Flusher
from infraxa.app.tui.widgets.text import Cleaner, clean, one_line
from infraxa.app.tui.widgets.verdicts import can_audit, verdict_lines, verdict_style, verdict_text
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import AnswerFacts, DriverPart, Message, Turn

SPINNER = "·∙•∙"
SPINNER_SECONDS = 0.25
FIRST_WAIT = "waiting for the model"
"""What is said until something is told."""
CLICK_SECONDS = 0.3
PAINT_TIMEOUT = 1.0
"""Seconds to wait for a paint; a widget that was just removed is never painted."""

# Shares of the text's colour: `$text-muted` is a contrast to a background, which a span of text does not
# know.
MUTED = "$foreground 60%"
FAINT = "$foreground 30%"

WORDS = {
    "copy": "copy",
    "copy_code": "copy code",
    "regenerate": "regenerate",
    "edit": "edit",
    "continue": "continue",
    "elsewhere": "continue elsewhere",
    "audit": "audit",
    "drop_oldest": "drop the oldest turns and answer again",
    "stop": "stop",
}
"""Actions as the clickable words that stand under a message."""


def word(text: str, action: str, style: str = MUTED) -> Content:
    """`text` as a word that runs `action` of the message when clicked."""
    click = Style.from_meta({"@click": action})
    return Content(text, [Span(0, len(text), f"{style} underline"), Span(0, len(text), click)])


class MessageView(MarkdownView, can_focus=True):
    """What the two kinds of message share: focus, keys, versions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", id="message.copy"),
        Binding("Y,shift+y", "copy_code", "Copy code", id="message.copy_code"),
        Binding("r", "regenerate", "Regenerate", id="message.regenerate"),
        Binding("e", "edit", "Edit", id="message.edit"),
        Binding("c", "continue", "Continue", id="message.continue"),
        Binding("c", "elsewhere", "Continue elsewhere", id="message.elsewhere"),
        Binding("d", "drop_oldest", "Drop oldest turns", id="message.drop_oldest"),
        Binding("v", "audit", "Audit", id="message.audit"),
        *(
            Binding(str(stars), f"rate({stars})", f"Rate {stars}", show=False, id=f"message.rate_{stars}")
            for stars in range(1, MOST_STARS + 1)
        ),
        Binding("left,h", "version(-1)", "Previous version", id="message.previous_version", show=False),
        Binding("right,l", "version(1)", "Next version", id="message.next_version", show=False),
    ]
    DEFAULT_CSS = """
    MessageView {
        max-width: 120;  /* longer lines are hard to read */
        margin: 0 0 1 0;
        padding: 0 1;
        border-left: blank;
        &:focus { border-left: outer $accent; }
    }
    """

    def __init__(self, turn: Turn, text: str, *, plain: bool = False) -> None:
        super().__init__(text, plain=plain)
        self.turn = turn
        self.newest = False

    @property
    def message(self) -> Message:
        return self.turn.message

    def applicable(self) -> list[str]:
        """The actions that make sense for this message now, in the order they are offered."""
        return ["copy"]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "version":
            return len(self.turn.sibling_ids) > 1
        if action == "rate":
            return can_rate(self.message)
        if action in WORDS:
            return action in self.applicable()
        return super().check_action(action, parameters)

    def _versions(self) -> Content:
        """`‹ 2/3 ›`, clickable, when there is more than one version."""
        count = len(self.turn.sibling_ids)
        if count < 2:
            return Content("")
        index = self.turn.index
        return Content("   ").append(
            Content("").join(
                [
                    word("‹", "version(-1)") if index > 1 else Content.styled("‹", FAINT),
                    Content.styled(f" {index}/{count} ", MUTED),
                    word("›", "version(1)") if index < count else Content.styled("›", FAINT),
                ]
            )
        )

    def _offers(self) -> Content:
        """The applicable actions as clickable words."""
        return Content.styled(" · ", FAINT).join(
            [word(self._word(action), action) for action in self.applicable()]
        )

    def _word(self, action: str) -> str:
        """What an action is called under this message."""
        return WORDS[action]

    def refresh_words(self) -> None:
        """Show what is known and offered now."""
        raise NotImplementedError

    def on_resize(self) -> None:
        self.refresh_words()

    def watch_has_focus(self, value: bool) -> None:
        super().watch_has_focus(value)
        if value and self.region.contains_point(self.app.mouse_position):
            # Maybe it is pressed on: what is clicked must be in its place when the button comes up.
            self.set_timer(CLICK_SECONDS, self.refresh_words)
        else:
            self.refresh_words()

    def action_copy(self) -> None:
        self.post_message(requests.CopyRequested(self.message.content or self.source, "message"))

    def action_version(self, step: int) -> None:
        index = self.turn.index - 1 + step
        if 0 <= index < len(self.turn.sibling_ids):
            self.post_message(requests.VersionRequested(self.turn.sibling_ids[index]))


class UserMessage(MessageView):
    """What the person wrote, exactly as written."""

    DEFAULT_CSS = """
    UserMessage {
        background: $boost;
        border-left: outer $primary;
        &:focus { border-left: thick $accent; }
    }
    """

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn, clean(turn.message.content), plain=True)
        self.refresh_words()

    def applicable(self) -> list[str]:
        return ["copy", "edit"]

    def refresh_words(self) -> None:
        head = Content.styled("You", "$text-primary bold") + self._versions()
        if self.has_focus:
            head = head + Content("   ") + self._offers()
        self.set_head(head)

    async def show_turn(self, turn: Turn) -> None:
        """The same message, perhaps with other siblings."""
        self.turn = turn
        self.refresh_words()

    def action_edit(self) -> None:
        self.post_message(requests.EditRequested(self.message.id, self.message.content))


class AnswerView(MessageView):
    """An answer: who gave it, its Markdown, and the line of facts once it ended."""

    class Grew(TextualMessage):
        """More of the answer was painted."""

    def __init__(
        self,
        turn: Turn,
        *,
        is_visible: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = monotonic,
        label: Callable[[str], str] = model_label,
    ) -> None:
        super().__init__(turn, "" if turn.message.state == "streaming" else clean(turn.message.content))
        self._clock = clock
        self._label = label
        self._clean = Cleaner()
        self._flusher = Flusher(self._grow, is_visible=is_visible)
        self._tasks = TaskGroup()
        self._showing: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._asked_at = clock()
        self._ticks = 0
        self._waiting_for = FIRST_WAIT
        self._limit: float | None = None
        """Seconds after which what is waited for is given up."""
        self._idle = True
        """Nothing comes, and it is said why."""
        self._parts: list[DriverPart] = list(turn.message.facts.drivers) if turn.message.facts else []
        """Who writes, as far as it was told."""
        self._at = len(turn.message.content) if turn.message.state != "streaming" else 0
        """Characters of the answer that are shown, as they came."""
        self._mark()
        self._calm = False
        self.refresh_words()

    @property
    def is_streaming(self) -> bool:
        return self.message.state == "streaming"

    @property
    def flushes(self) -> int:
        """How many times text that grew was painted."""
        return self._flusher.flushes

    def on_mount(self) -> None:
        self._calm = self.app.animation_level == "none"
        if self.is_streaming:
            self._start()

    async def on_unmount(self) -> None:
        await self._tasks.cancel_all()

    def _start(self) -> None:
        if self._showing is not None:
            return
        self._asked_at = self._clock()
        self._showing = self._tasks.spawn(self._flusher.run(), name=f"show {self.message.id}")
        self._count()

    def _count(self) -> None:
        """Count the seconds of a wait."""
        if self._timer is None and self._showing is not None:
            self._timer = self.set_interval(1.0 if self._calm else SPINNER_SECONDS, self._tick)

    def _tick(self) -> None:
        if not self._idle and self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._ticks += 1
        self.refresh_words()

    def feed(self, text: str) -> None:
        """More text of the running answer; returns at once."""
        self._flusher.feed(text)

    def resume(self) -> None:
        """The screen is seen again: show what came meanwhile."""
        self._flusher.resume()

    def wait_for(self, what: str) -> None:
        """Say what the answer waits for."""
        self._waiting_for = what
        self.refresh_words()

    def wait_until(self, waits: Waits, passed: float) -> None:
        """Say what its driver is waited for, since `passed` seconds, and for how long at most."""
        self._waiting_for, self._limit = f"waiting for {one_line(waits.what, 100)}", waits.limit_s
        self._asked_at = self._clock() - passed
        self._idle = True
        self._count()
        self.refresh_words()

    def set_progress(self, done: int, total: int) -> None:
        """The model has read so much of the prompt."""
        self._limit, self._idle = None, True
        self._count()
        reader = driver_name(self._parts[-1]) if self._parts and self._parts[-1].id else ""
        self.wait_for(
            f"{reader} reads the prompt {done}/{total}" if reader else f"reading the prompt {done}/{total}"
        )

    def move(self, part: DriverPart) -> None:
        """Who writes from a place on, which was not reached yet or is the end of what was fed."""
        self._parts = with_part(self._parts, part)
        self.refresh_words()

    def _mark(self) -> None:
        """Show in the text where another driver went on."""
        content = self.message.content
        places = [part for part in moved_places(self._parts) if part.at < len(content)]
        if places or self.document.marks:
            self.set_marks([(len(clean(content[: part.at])), moved_label(part)) for part in places])

    def _append(self, text: str) -> None:
        """More text, cut where another driver goes on, so that the mark comes between."""
        for part in moved_places(self._parts):
            ahead = part.at - self._at
            if 0 <= ahead < len(text):
                self.append(self._clean(text[:ahead]))
                self._at, text = part.at, text[ahead:]
                self.set_marks([*self.document.marks, (len(self.source), moved_label(part))])
        self._at += len(text)
        self.append(self._clean(text))

    async def _grow(self, text: str) -> None:
        was_idle = self._idle
        self._idle, self._limit = False, None
        self._append(text)
        if was_idle:
            self.refresh_words()
        painted = asyncio.Event()
        self.call_after_refresh(painted.set)
        try:
            await asyncio.wait_for(painted.wait(), PAINT_TIMEOUT)
        except TimeoutError:
            self.refresh(layout=True)  # what asked for this paint was lost, or the machine is very busy
        self.post_message(self.Grew())

    async def show_turn(self, turn: Turn) -> None:
        """What the store says of this answer now."""
        was_streaming = self.is_streaming
        self.turn = turn
        if self.is_streaming:
            if not was_streaming:
                self._waiting_for = FIRST_WAIT
            self._start()
        elif was_streaming or self.source != clean(turn.message.content):
            await self._end()
        self.refresh_words()

    async def end(self, message: Message) -> None:
        """The answer as it ended: all its text at once, code in colours, the facts."""
        siblings = self.turn.sibling_ids
        await self.show_turn(Turn(message, siblings if message.id in siblings else (message.id,)))

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._flusher.close()
        if self._showing is not None:
            # Not awaited itself: removed meanwhile, it is cancelled, and whoever ends the answer must not be.
            await asyncio.wait([self._showing])
            self._showing = None
        text = clean(self.message.content)
        if self.source != text:
            self.replace(text)
        else:
            await super().finish()
        self._at, self._idle, self._limit = len(self.message.content), True, None
        if self.message.facts is not None and self.message.facts.drivers:
            self._parts = list(self.message.facts.drivers)
        self._mark()

    def applicable(self) -> list[str]:
        message = self.message
        if self.is_streaming:
            return ["stop"]
        actions = ["copy"] if message.content else []
        if self.has_focus and message.content and self.codes:
            actions.append("copy_code")
        if can_move(message):
            actions.append("elsewhere")
        elif can_continue(message):
            actions.append("continue")
        actions.append("regenerate")
        if too_long(message):
            actions.append("drop_oldest")
        if can_audit(message):
            actions.append("audit")
        return actions

    def _word(self, action: str) -> str:
        if action == "elsewhere" and not self.message.content:
            return "send elsewhere"
        return super()._word(action)

    def refresh_words(self) -> None:
        facts = self.message.facts
        if self.is_streaming and self._parts:
            facts = msgspec.structs.replace(facts or AnswerFacts(), drivers=tuple(self._parts))
        label = who_answered(facts, self._label) if facts is not None else ""
        who = Content.styled(label, "$text-secondary bold")
        self.set_head(who + self._versions())
        self.set_foot(self._waiting() if self.is_streaming else self._ended())

    def _waiting(self) -> Content:
        sign = "…" if self._calm or not self._idle else SPINNER[self._ticks % len(SPINNER)]
        parts = [f"{sign} {self._waiting_for}" if self._idle else f"{sign} answering"]
        seconds = int(self._clock() - self._asked_at)
        if self._idle and (seconds or self._limit is not None):
            parts.append(f"{seconds} s" if self._limit is None else f"{seconds} s of {self._limit:.0f} s")
        said = Content.styled(" · ".join(parts) + "   ", MUTED)
        return said + word(f"{WORDS['stop']} (Esc)", "stop")

    def _ended(self) -> Content:
        message = self.message
        lines = [Content.styled(moved, MUTED) for moved in moved_lines(message.facts)]
        if message.error:
            error = one_line(message.error, 600)
            lines.append(Content.styled(error, "$text-error"))
        width = self.content_size.width
        end = ending(message)
        style = "$text-error" if message.state == "failed" else "$text-warning"
        said = Content.styled(end, style) if end else Content("")
        before = said.cell_length + 3 if end else 0
        styles = STYLES
        if message.facts is not None and (verdict := verdict_text(message.facts)):
            styles = {**STYLES, verdict: verdict_style(message.facts)}
        # All of it under the message that is looked at.
        facts = facts_lines(message.facts)[:1] if self.has_focus else facts_rows(message.facts, width, before)
        for at, row in enumerate(facts):
            words = [Content.styled(fact, styles.get(fact, MUTED)) for fact in row]
            line = Content.styled(" · ", FAINT).join([said, *words] if end and not at else words)
            if at < len(facts) - 1:
                lines.append(line)
        stars = self._stars()
        if self.has_focus or self.newest:
            offers = self._offers() + (Content("   ") + stars if stars else Content(""))
            fits = line.cell_length + offers.cell_length + 3 <= width
            line = line + Content("   " if fits else "\n") + offers
        elif stars:
            line = line + Content.styled(" · ", FAINT) + stars
        lines.append(line)
        if self.has_focus:
            lines += bill_lines(message.facts) + verdict_lines(message.facts)
        return Content("\n").join(lines)

    def _stars(self) -> Content:
        """Those that the answer was given; where it can be rated, each of them can be clicked."""
        if self.message.facts is not None and (given := self.message.facts.stars):
            return Content.styled(stars_text(given), "$text-accent")
        if not can_rate(self.message) or not (self.has_focus or self.newest):
            return Content("")
        return Content("").join(
            Content(star, [Span(0, 1, MUTED), Span(0, 1, Style.from_meta({"@click": f"rate({at})"}))])
            for at, star in enumerate(stars_text(0), 1)
        )

    def action_rate(self, stars: int) -> None:
        self.post_message(requests.RateRequested(self.message.id, stars))

    def show_facts(self, facts: AnswerFacts) -> None:
        """More is known of it since it ended: its text stays as it is."""
        self.turn = Turn(msgspec.structs.replace(self.message, facts=facts), self.turn.sibling_ids)
        self.refresh_words()

    def action_copy_code(self) -> None:
        if codes := self.codes:
            self.post_message(requests.CopyRequested(codes[-1], "code"))

    def action_regenerate(self) -> None:
        self.post_message(requests.RegenerateRequested(self.message.id))

    def action_continue(self) -> None:
        self.post_message(requests.ContinueRequested(self.message.id))

    def action_elsewhere(self) -> None:
        self.post_message(requests.ElsewhereRequested(self.message.id))

    def action_audit(self) -> None:
        self.post_message(requests.AuditRequested(self.message.id))

    def action_drop_oldest(self) -> None:
        self.post_message(requests.DropOldestRequested(self.message.id))

    def action_stop(self) -> None:
        self.post_message(requests.StopRequested())
