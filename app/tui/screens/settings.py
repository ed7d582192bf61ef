"""The settings, drawn from the fields of `Settings`: a switch, a choice or a text each."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Select, Static, Switch

from infraxa.app import config
from infraxa.app.config import AUTOMATIC, Settings
from infraxa.app.tui.screens.view import View
from infraxa.app.tui.widgets.text import one_line


def choices(name: str) -> tuple[str, ...] | None:
    """The values of a setting that has a fixed set of them."""
    kind = _kind(name)
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else None


def is_switch(name: str) -> bool:
    """Whether it is on or off."""
    return _kind(name) is bool


@cache
def _kind(name: str) -> Any:
    """The plain type of a setting, without None and limits."""
    annotation = typing.get_type_hints(Settings, include_extras=True)[name]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def shown(value: object) -> str:
    """A value as it is written."""
    if isinstance(value, float) and "e" in str(value):
        return f"{value:.6f}".rstrip("0")  # nobody writes 1e-05
    return AUTOMATIC if value is None else str(value)


def problem(name: str, text: str) -> str:
    """Why `text` is no value of a setting, or ""."""
    try:
        config.parse(name, text, "")
    except config.BadSettings:
        return f"It must be {config.allowed(name)}."
    return ""


class SettingsScreen(View[None]):
    """Every setting. A text is checked as it is typed, and saved with Enter or when it is left."""

    HEADING = "Settings"
    KEYS = "Tab, shift+Tab move · Space switches · Enter saves · Esc closes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]
    DEFAULT_CSS = """
    SettingsScreen #settings { height: 1fr; scrollbar-size-vertical: 1; }
    SettingsScreen .setting { height: auto; width: 1fr; margin-bottom: 1; }
    SettingsScreen .row { height: auto; width: 1fr; }
    SettingsScreen .name { width: 16; text-style: bold; }
    SettingsScreen .help { width: 1fr; height: auto; color: $text-muted; padding-left: 2; }
    SettingsScreen .fault { width: 1fr; height: auto; color: $text-error; padding-left: 16; display: none; }
    SettingsScreen .fault.-shown { display: block; }
    SettingsScreen Input { width: 28; height: 1; border: none; background: $panel; padding: 0 1; }
    SettingsScreen Input.-bad { color: $text-error; }
    SettingsScreen Switch { height: 1; border: none; padding: 0; background: $surface; width: 28; }
    SettingsScreen Select { width: 28; height: 1; }
    SettingsScreen.-narrow .row, SettingsScreen.-too-narrow .row { layout: vertical; }
    SettingsScreen.-narrow .help { padding-left: 0; }
    SettingsScreen.-narrow .fault { padding-left: 0; }
    """

    def compose_body(self) -> ComposeResult:
        with VerticalScroll(id="settings", can_focus=False):
            for name in config.names():
                later = f" ({config.LATER[name]})" if name in config.LATER else ""
                with Vertical(classes="setting"):
                    with Horizontal(classes="row"):
                        yield Static(name.replace("_", " "), classes="name", markup=False)
                        yield self._control(name)
                        yield Static(config.help_text(name) + later, classes="help", markup=False)
                    yield Static("", classes="fault", id=f"fault-{name}", markup=False)

    def _control(self, name: str) -> Widget:
        value = getattr(self.app.settings, name)
        if is_switch(name):
            return Switch(bool(value), animate=False, id=f"set-{name}")
        options = choices(name)
        if name == "theme":
            options = tuple(self.app.theme_names())
        if options is not None:
            chosen = value if value in options else Select.NULL
            return Select(
                [(option, option) for option in options], value=chosen, id=f"set-{name}", compact=True
            )
        return Input(shown(value), placeholder=AUTOMATIC, id=f"set-{name}", compact=True)

    @on(Switch.Changed)
    def _switched(self, event: Switch.Changed) -> None:
        self._save(_name_of(event.switch), event.value)

    @on(Select.Changed)
    def _selected(self, event: Select.Changed) -> None:
        if event.value is not Select.NULL and event.value != getattr(
            self.app.settings, _name_of(event.select)
        ):
            self._save(_name_of(event.select), event.value)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._fault(_name_of(event.input), problem(_name_of(event.input), event.value))

    @on(Input.Submitted)
    @on(Input.Blurred)
    def _left(self, event: Input.Submitted | Input.Blurred) -> None:
        name = _name_of(event.input)
        if not problem(name, event.value) and event.value.strip() != shown(getattr(self.app.settings, name)):
            self._save(name, event.value.strip())

    def _fault(self, name: str, fault: str) -> None:
        said = self.query_one(f"#fault-{name}", Static)
        said.update(one_line(fault))
        said.set_class(bool(fault), "-shown")
        self.query_one(f"#set-{name}").set_class(bool(fault), "-bad")

    def _save(self, name: str, value: object) -> None:
        async def save() -> None:
            if name == "model":
                await self.app.node.use_model(str(value))
            else:
                await self.app.node.change_setting(name, value)
            self.app.setting_changed(name)

        if value == getattr(self.app.settings, name):
            return
        if name == "theme":
            self.app.choose_theme(str(value))
        else:
            self.app.attempt(save(), group=f"save {name}")


def _name_of(widget: Widget) -> str:
    return (widget.id or "").removeprefix("set-")
