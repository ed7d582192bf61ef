"""The log: what llama.cpp prints and what infraxa says, newest last, with a filter."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Log

from infraxa.app.events import Event, LogLine
from infraxa.app.tui.log_book import KEPT
from infraxa.app.tui.screens.view import View


class LogScreen(View[None]):
    """The lines that are kept in memory. Nothing in them is markup."""

    HEADING = "Log"
    KEYS = "type to filter · F3 copies what is shown · Esc closes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f3", "copy_lines", "Copy", show=False),
        Binding("up", "scroll_log(-1)", show=False),
        Binding("down", "scroll_log(1)", show=False),
        Binding("pageup", "scroll_log(-10)", show=False),
        Binding("pagedown", "scroll_log(10)", show=False),
    ]
    DEFAULT_CSS = """
    LogScreen > #view { width: 140; }
    LogScreen Input { margin-bottom: 1; background: $panel; border: none; height: 1; padding: 0 1; }
    LogScreen Log { height: 1fr; background: $surface; scrollbar-size: 1 1; }
    """

    def compose_body(self) -> ComposeResult:
        yield Input(placeholder="Filter", compact=True)
        yield Log(max_lines=KEPT)

    def on_mount(self) -> None:
        self._fill("")
        self.app.told.subscribe(self, self._hear)

    def _lines(self, words: str) -> list[str]:
        return [
            entry.line
            for entry in self.app.log_book.entries
            if not words or words.lower() in entry.line.lower()
        ]

    def _fill(self, words: str) -> None:
        log = self.query_one(Log)
        log.clear()
        log.write_lines(self._lines(words))

    def _hear(self, event: Event) -> None:
        if isinstance(event, LogLine):
            words = self.query_one(Input).value.strip().lower()
            if not words or words in event.text.lower():
                self.query_one(Log).write_line(event.text)

    @on(Input.Changed)
    def _filtered(self, event: Input.Changed) -> None:
        self._fill(event.value.strip())

    def action_scroll_log(self, lines: int) -> None:
        self.query_one(Log).scroll_relative(y=lines, animate=False)

    def action_copy_lines(self) -> None:
        lines = self._lines(self.query_one(Input).value.strip())
        self.app.copy("\n".join(lines), f"{len(lines)} lines")
