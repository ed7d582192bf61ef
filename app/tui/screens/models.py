"""The models of this machine: choose the one that answers, add a GGUF file by its path, remove one.

Pulling one from the hub is a screen of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker

from infraxa.app.errors import NodeError
from infraxa.app.events import EngineChanged, Event, ModelsChanged
from infraxa.app.pulled_files import is_pulled
from infraxa.app.sizes import size_text
from infraxa.app.tui.screens.view import View
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.text import one_line
from infraxa.engine.types import EngineError
from infraxa.store.records import StoreError

if TYPE_CHECKING:
    from infraxa.app.choices import ModelEntry


def describe(entry: ModelEntry) -> str:
    """What is known of a model, in one line."""
    parts = [
        entry.architecture,
        entry.parameters,
        entry.quantization,
        size_text(entry.size) if entry.size else "",
        f"context {thousands(entry.context_length)}" if entry.context_length else "",
        entry.license,
    ]
    return one_line(" · ".join(part for part in parts if part), 200)


class ModelsScreen(View[None]):
    """The list, and below it where a file is added. One thing is done at a time, and can be cancelled."""

    HEADING = "Models on this machine"
    KEYS = "Enter uses it · p pulls one · a adds a file · Delete removes · Esc closes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", "Add", show=False),
        Binding("p", "app.pull_model", "Pull", show=False),
        Binding("delete,d", "remove", "Remove", show=False),
    ]
    DEFAULT_CSS = """
    ModelsScreen OptionList {
        height: 1fr; background: $surface; border: none; padding: 0; scrollbar-size-vertical: 1;
    }
    ModelsScreen #add { height: 1; margin-top: 1; }
    ModelsScreen #add Input { width: 1fr; background: $panel; border: none; height: 1; padding: 0 1; }
    ModelsScreen #add Button { margin-left: 2; }
    ModelsScreen #said { height: auto; max-height: 4; width: 1fr; margin-top: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[ModelEntry] = []
        self._work: Worker[None] | None = None
        self._doing = ""
        self._removed: ModelEntry | None = None

    def compose_body(self) -> ComposeResult:
        yield OptionList(markup=False, compact=True)
        with Horizontal(id="add"):
            yield Input(placeholder="Path of a GGUF file", compact=True)
            yield Button("Add", id="add-button", variant="primary", compact=True)
            yield Button("Pull from the hub…", id="pull-button", compact=True)
        yield Static("", id="said", markup=False)

    async def on_mount(self) -> None:
        self.app.told.subscribe(self, self._hear)
        self.query_one(OptionList).focus()
        self.app.attempt(self._list(), screen=self)

    async def _hear(self, event: Event) -> None:
        if isinstance(event, ModelsChanged):
            self.app.attempt(self._list(), screen=self)
        elif isinstance(event, EngineChanged) and self._doing and event.status.progress is not None:
            self._say(f"{self._doing} {event.status.progress:.0%} · Esc cancels")

    async def _list(self, highlight: str = "") -> None:
        """Show the models; the one named, or the same one as before, under the cursor."""
        entries = await self.app.node.list_models()
        current = self.app.node.current_model()
        before = self._chosen()
        self._entries = entries
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._row(entry, entry.name == current)) for entry in entries])
        names = [entry.name for entry in entries]
        wanted = highlight or (before.name if before is not None else current)
        options.highlighted = names.index(wanted) if wanted in names else 0

    def _row(self, entry: ModelEntry, is_current: bool) -> Content:
        mark = ("● ", "$text-success") if is_current else ("  ", "")
        name = (one_line(entry.label, 80), "bold")
        # The one in use is loaded, or will be; of the others it is said that they answer without a wait.
        state = "  in use" if is_current else "  loaded" if entry.loaded else ""
        first = Content.assemble(mark, name, (state, "$text-success"))
        second = Content.styled("  " + describe(entry), "$foreground 60%")
        lines = [first, second]
        if entry.problem:
            lines.append(Content.styled("  " + one_line(entry.problem, 200), "$text-error"))
        return Content("\n").join(lines)

    def _say(self, text: str, *, is_problem: bool = False) -> None:
        said = self.query_one("#said", Static)
        said.set_class(is_problem, "problem")
        said.update(one_line(text, 400))

    def _chosen(self) -> ModelEntry | None:
        index = self.query_one(OptionList).highlighted
        return self._entries[index] if index is not None and index < len(self._entries) else None

    def _start(self, doing: str, work: Awaitable[object]) -> None:
        """Do one thing, say how it goes, and what went wrong."""

        async def guarded() -> None:
            try:
                await work
            except (NodeError, EngineError, StoreError) as error:
                self._say(f"{error.message} {error.remedy}", is_problem=True)
            finally:
                self._doing = ""

        self._doing = doing
        self._say(f"{doing} · Esc cancels")
        self._work = self.run_worker(guarded, group="model", exclusive=True)

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        entry = self._chosen()
        if entry is None or self._doing:
            return
        if entry.problem:
            self._say(entry.problem, is_problem=True)
            return
        self._start(f"Loading {one_line(entry.label, 60)}", self._use(entry))

    async def _use(self, entry: ModelEntry) -> None:
        node = self.app.node
        before = node.current_model()
        try:
            await node.use_model(entry.name)
        except asyncio.CancelledError:
            # The engine is on its way to the other model: have it come back to the one in use.
            self.app.attempt(node.use_model(before), group="model back")
            raise
        await self._list()
        self.app.chat_screen.model_changed()
        self._say(f"{entry.label} answers from now on.")

    def action_add(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    @on(Button.Pressed, "#add-button")
    def _add_pressed(self) -> None:
        path = self.query_one(Input).value.strip()
        if not path:
            self._say("Type the path of a GGUF file.", is_problem=True)
            self.query_one(Input).focus()
        elif not self._doing:
            self._start("Reading the file", self._add(Path(path)))

    @on(Button.Pressed, "#pull-button")
    def _pull_pressed(self) -> None:
        self.app.action_pull_model()

    async def _add(self, path: Path) -> None:
        def progress(done: int, total: int) -> None:
            if self.is_mounted and self._doing:
                share = f" {done / total:.0%}" if total else ""
                self._say(f"Hashing the file{share} of {size_text(total)} · Esc cancels")

        entry = await self.app.node.add_model(path, on_progress=progress)
        self._doing = ""
        self.query_one(Input).value = ""
        await self._list(entry.name)
        self.query_one(OptionList).focus()
        is_current = self.app.node.current_model() == entry.name
        self._say(f"{entry.label} is added. {'It answers from now on.' if is_current else 'Enter uses it.'}")

    def action_remove(self) -> None:
        entry = self._chosen()
        if entry is None or self._doing:
            return
        if entry.builtin:
            self._say("The built-in guide cannot be removed.", is_problem=True)
            return
        from infraxa.app.tui.screens.dialogs import Confirm, Remove

        def remove(answer: bool | str | None) -> None:
            if answer:
                self._start("Removing", self._remove(entry, delete=answer == "delete"))

        heading = f"Remove {one_line(entry.label, 60)}?"
        if is_pulled(self.app.folders, Path(entry.path)):
            text = f"infraxa forgets it. It was pulled from the hub: {entry.path} ({size_text(entry.size)})"
            self.app.push_screen(Remove(heading, text), remove)
        else:
            text = f"infraxa forgets it. The file stays: {entry.path}"
            self.app.push_screen(Confirm(heading, text, "Remove"), remove)

    async def _remove(self, entry: ModelEntry, *, delete: bool) -> None:
        await self.app.node.remove_model(entry.name, delete=delete)
        await self._list()
        file = "is deleted, too" if delete else "is still there"
        self._say(f"{entry.label} is removed; its file {file}.")

    def action_close(self) -> None:
        """Cancel what is being done; with nothing to cancel, close."""
        if self._doing and self._work is not None:
            self._work.cancel()
            self._say("Cancelled.")
        else:
            self.dismiss(None)
