"""Where the person types: several lines, sent by one key, with the history of prompts and slash commands.

Nothing is counted, looked up or saved on a key press. What is sent leaves as a message to the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time
from typing import ClassVar, cast

import msgspec
from textual import on
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Key, Paste
from textual.geometry import Size
from textual.keys import Keys
from textual.message import Message
from textual.widgets import OptionList, Static, TextArea
from textual.widgets.option_list import Option

from infraxa.app.tui.widgets.bound_line import BoundLine
from infraxa.app.tui.widgets.history import PromptHistory
from infraxa.app.tui.widgets.text import clean

MAX_LINES = 10
MIN_LINES = 3
SHARE_OF_SCREEN = 5
"""The prompt takes at most one part in so many of the screen's height, but may always have MIN_LINES."""
MAX_PASTE = 200_000
"""Characters: more is hardly a prompt, and wrapping it would stop the screen for seconds."""
NEWLINE_KEYS = frozenset({"ctrl+j", "alt+enter", "shift+enter"})


def teach_alt_enter() -> None:
    """Make alt+enter begin a new line in terminals without the kitty protocol.

    They send ESC CR for it, in which Textual sees enter alone: it would send. The table is Textual's own
    list of such sequences; ctrl+j is the key that means a new line everywhere.
    """
    cast(dict[str, object], ANSI_SEQUENCES_KEYS)["\x1b\r"] = (Keys.ControlJ,)


class SlashCommand(msgspec.Struct, frozen=True):
    """A command that can be typed after `/`."""

    name: str
    help: str
    """One line."""
    argument: str = ""
    """What may follow the name; empty = nothing."""


class PromptArea(TextArea):
    """The text itself. Keys that mean something to the prompt are taken before the text gets them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("alt+a,ctrl+shift+a", "select_all", "Select all", show=False),  # F7 is taken
    ]

    def __init__(self, prompt: Prompt) -> None:
        super().__init__(
            soft_wrap=True,
            compact=True,
            highlight_cursor_line=False,
            placeholder="Ask anything · / for commands",
        )
        self._prompt = prompt

    async def _on_key(self, event: Key) -> None:
        if self._prompt.take_key(event.key):
            event.stop()
            event.prevent_default()

    async def _on_paste(self, event: Paste) -> None:
        event.stop()
        event.prevent_default()
        self._prompt.paste(event.text)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        most = min(MAX_LINES, max(MIN_LINES, viewport.height // SHARE_OF_SCREEN))
        return min(most, super().get_content_height(container, viewport, width))

    @property
    def on_first_row(self) -> bool:
        """Whether the cursor is on the first row, wrapped ones counted."""
        return self.navigator.is_first_wrapped_line(self.cursor_location)

    @property
    def on_last_row(self) -> bool:
        return self.navigator.is_last_wrapped_line(self.cursor_location)

    def put(self, text: str) -> None:
        """Put `text` in the place of what is selected."""
        result = self.replace(text, *self.selection, maintain_selection_offset=False)
        self.move_cursor(result.end_location)


class Prompt(Vertical):
    """The prompt: the text, above it the notice of editing and the list of commands."""

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        width: 1fr;
        & > PromptArea {
            height: auto;
            width: 1fr;
            padding: 0 1;
            background: $surface;
            border-left: outer $foreground 20% !important;
            scrollbar-size-vertical: 1;
            &:focus { border-left: outer $primary !important; }
        }
        & > .where {
            display: none;
            height: 1;
            padding: 0 1;
            background: $surface;
            border-left: outer $foreground 20%;
            text-wrap: nowrap;
            text-overflow: ellipsis;
        }
        &:focus-within > .where, &:focus-within > BoundLine { border-left: outer $primary; }
        &.-where > .where { display: block; }
        & > .notice {
            display: none;
            height: 1;
            padding: 0 1;
            color: $text-warning;
            background: $warning 10%;
        }
        & > OptionList {
            display: none;
            height: auto;
            max-height: 8;
            width: 1fr;
            border: none;
            padding: 0 1;
            background: $panel;
            scrollbar-size-vertical: 1;
        }
        &.-editing > .notice { display: block; }
        &.-completing > OptionList { display: block; }
    }
    """

    class Submitted(Message):
        """Send `text`; `editing` is the id of the message that it replaces, if any."""

        def __init__(self, text: str, editing: str | None) -> None:
            super().__init__()
            self.text = text
            self.editing = editing

    class CommandEntered(Message):
        """A slash command was entered."""

        def __init__(self, name: str, argument: str) -> None:
            super().__init__()
            self.name = name
            self.argument = argument

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
        send_key: str = "enter",
        time_of_day: Callable[[], float] = time,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.send_key = send_key
        """The key that sends. When it is not `enter`, enter begins a new line."""
        self._area = PromptArea(self)
        self.bound_line = BoundLine(time_of_day=time_of_day)
        """What sending it can cost."""
        self._commands: tuple[SlashCommand, ...] = ()
        self._history = PromptHistory()
        self._shown: list[SlashCommand] = []
        self._dismissed: str | None = None
        """The text for which the list of commands was closed."""
        self._editing: str | None = None
        self._kept = ""
        """What was being typed when editing began."""

    def compose(self) -> ComposeResult:
        yield Static("editing an earlier message · Esc cancels", markup=False, classes="notice")
        commands = OptionList(markup=False)
        commands.can_focus = False
        yield commands
        yield Static("", markup=False, classes="where")
        yield self.bound_line
        yield self._area

    def on_mount(self) -> None:
        teach_alt_enter()

    @property
    def text(self) -> str:
        """What is typed."""
        return self._area.text

    @text.setter
    def text(self, text: str) -> None:
        self._area.text = clean(text)[:MAX_PASTE]
        self._area.move_cursor(self._area.document.end)
        self._history.leave()

    @property
    def area(self) -> TextArea:
        """The widget that has the focus when the prompt has it."""
        return self._area

    @property
    def editing(self) -> str | None:
        """The id of the message that is being edited."""
        return self._editing

    def focus(self, scroll_visible: bool = True) -> Prompt:
        self._area.focus(scroll_visible)
        return self

    def set_commands(self, commands: Sequence[SlashCommand]) -> None:
        """The commands that can be typed now."""
        self._commands = tuple(commands)
        self._complete()

    def set_history(self, prompts: Sequence[str]) -> None:
        """Earlier prompts, newest last."""
        self._history.load(prompts)

    @property
    def has_where(self) -> bool:
        """It is said where what is typed goes."""
        return self.has_class("-where")

    def set_where(self, where: Content, *, leaves: bool) -> None:
        """Say above the text where it goes when it is sent; `leaves`: out of this machine."""
        self.query_one(".where", Static).update(where)
        self.set_class(leaves, "-leaves")
        self.add_class("-where")

    def begin_edit(self, message_id: str, text: str) -> None:
        """Edit a message that was sent; what was being typed comes back afterwards."""
        if self._editing is None:
            self._kept = self.text
        self._editing = message_id
        self.add_class("-editing")
        self.text = text
        self.focus()

    def cancel(self) -> bool:
        """Close the list of commands, or end editing; False when there was nothing to cancel."""
        if self._shown:
            self._dismissed = self.text
            self._complete()
            return True
        if self._editing is not None:
            self._end_edit()
            return True
        return False

    def _end_edit(self) -> None:
        self._editing = None
        self.remove_class("-editing")
        self.text = self._kept
        self._kept = ""

    def put_back(self, text: str, editing: str | None = None) -> None:
        """Give back what was submitted and could not be sent, unless something else is typed already."""
        if self.text:
            return
        if editing is not None:
            self.begin_edit(editing, text)
        else:
            self.text = text

    def take_key(self, key: str) -> bool:
        """What a key means to the prompt; False leaves it to the text and to those around it."""
        area = self._area
        if key == "escape":
            return self.cancel()
        if self._shown and key in ("up", "down", "tab", "enter"):
            # The text tells of its change by a message, which a fast typist's next key overtakes.
            self._complete()
            if self._shown:
                return self._choose(key)
        if key == self.send_key:
            self.submit()
            return True
        if key in NEWLINE_KEYS or key == "enter":
            area.put("\n")
            return True
        if key == "up" and area.on_first_row:
            return self._recall(self._history.older(self.text), at_start=True)
        if key == "down" and area.on_last_row:
            return self._recall(self._history.newer(), at_start=False)
        return False

    def _recall(self, text: str | None, *, at_start: bool) -> bool:
        if text is None:
            return False
        self._area.text = clean(text)[:MAX_PASTE]
        self._area.move_cursor((0, 0) if at_start else self._area.document.end)
        self._dismissed = self._area.text
        return True

    def paste(self, text: str) -> None:
        """Pasted text goes in as it is; it never sends, whatever keys it contains."""
        room = max(0, MAX_PASTE - len(self._area.text))
        text = clean(text[: MAX_PASTE * 2])
        if len(text) > room:
            text = text[:room]
            self.notify(
                f"Only {MAX_PASTE:,} characters fit into a prompt: the end of what you pasted was left out.",
                severity="warning",
                markup=False,
            )
        self._area.put(text)

    def submit(self) -> None:
        """Send what is typed: a command, or a message."""
        text = self.text.strip()
        if not text:
            return
        if text.startswith("/") and not text.startswith("//"):
            self._enter_command(text)
            return
        self._history.add(text)
        editing = self._editing
        if editing is not None:
            self._end_edit()
        else:
            self.text = ""
        self.post_message(self.Submitted(text[1:] if text.startswith("//") else text, editing))

    def _enter_command(self, text: str) -> None:
        name, *rest = text[1:].split(None, 1) if len(text) > 1 else [""]
        command = next((command for command in self._commands if command.name == name), None)
        if command is None:
            self.notify(
                f"There is no command /{name[:40]}. Type / to see them all; // sends a slash.",
                severity="warning",
                markup=False,
            )
            return
        self._history.add(text)
        self.text = ""
        self.post_message(self.CommandEntered(name, rest[0].strip() if rest else ""))

    @on(TextArea.Changed)
    def _changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._complete()

    def _complete(self) -> None:
        """Show the commands that begin with what is typed after `/`."""
        if not self.is_mounted:
            return
        shown: list[SlashCommand] = []
        document = self._area.document
        first = document.get_line(0) if document.line_count == 1 else ""
        if first != self._dismissed:
            self._dismissed = None
            name = first[1:]
            if first.startswith("/") and not name.startswith("/") and not any(c.isspace() for c in name):
                shown = [command for command in self._commands if command.name.startswith(name)]
        self.set_class(bool(shown), "-completing")
        if shown == self._shown:
            return
        self._shown = shown
        options = self.query_one(OptionList)
        options.clear_options()
        width = max((len(_signature(command)) for command in shown), default=0) + 2
        for command in shown:
            signature = Content.styled(_signature(command).ljust(width), "$text-primary")
            options.add_option(Option(signature + Content.styled(command.help, "$foreground 60%")))
        if shown:
            options.highlighted = 0

    def _choose(self, key: str) -> bool:
        options = self.query_one(OptionList)
        if key in ("up", "down"):
            step = 1 if key == "down" else -1
            options.highlighted = ((options.highlighted or 0) + step) % len(self._shown)
            return True
        self._accept(options.highlighted or 0, enter=key == "enter")
        return True

    def _accept(self, index: int, *, enter: bool) -> None:
        command = self._shown[index]
        if enter and (not command.argument or self.text == f"/{command.name}"):
            self._enter_command(f"/{command.name}")
            return
        self._area.text = f"/{command.name} "
        self._area.move_cursor(self._area.document.end)

    @on(OptionList.OptionSelected)
    def _option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._accept(event.option_index, enter=True)
        self.focus()


def _signature(command: SlashCommand) -> str:
    return f"/{command.name} {command.argument}".rstrip()
