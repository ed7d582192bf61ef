"""Changing what is offered and its limits from the Provide view: each setting where it stands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from infraxa.app import config
from infraxa.app.config import AUTOMATIC
from infraxa.app.tui.screens import settings
from infraxa.app.tui.screens.dialogs import Ask, Dialog
from infraxa.app.tui.screens.models import describe
from infraxa.app.tui.widgets.text import one_line

if TYPE_CHECKING:
    from infraxa.app.choices import ModelEntry
    from infraxa.app.tui.app import InfraxaApp

TITLES = {
    "capacity": "Answers at the same time",
    "upload_limit": "Upload limit",
    "memory_limit": "Memory limit",
    "provide_hours": "Hours",
    "base_price": "Base price",
    "price_floor": "Lowest price",
    "price_ceiling": "Highest price",
    "stranger_limit": "What a stranger may owe",
    "strangers_daily": "What all strangers may run up in a day",
    "free_daily": "Free requests",
}


class PickModel(Dialog[str]):
    """Which model is served: one of this machine, or that of the chats, whichever it is."""

    DEFAULT_CSS = """
    PickModel OptionList {
        height: auto; max-height: 12; background: $surface; border: none; padding: 0; margin-bottom: 1;
    }
    PickModel .keys { width: 1fr; height: 1; color: $text-muted; }
    """

    def __init__(self, models: list[ModelEntry], current: str | None) -> None:
        super().__init__()
        self._models, self._current = models, current

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("Model that is served", classes="heading", markup=False)
            yield OptionList(*self._options(), markup=False, compact=True)
            yield Static(
                "Others are told that there is no room while you chat with another model, if memory does not "
                "hold both.",
                classes="said",
                markup=False,
            )
            yield Static("Enter chooses · Esc cancels", classes="keys", markup=False)

    def _options(self) -> list[Option]:
        same = _option("That of the chats", "whichever it is", is_current=self._current is None)
        return [
            Option(same, id=AUTOMATIC),
            *(
                Option(
                    _option(
                        one_line(model.label, 60),
                        one_line(model.problem, 60) or describe(model),
                        is_current=model.name == self._current,
                    ),
                    disabled=bool(model.problem),
                )
                for model in self._models
            ),
        ]

    def on_mount(self) -> None:
        names = [None, *(model.name for model in self._models)]
        options = self.query_one(OptionList)
        options.highlighted = names.index(self._current) if self._current in names else 0
        options.focus()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        at = event.option_index
        self.dismiss(self._models[at - 1].name if at else AUTOMATIC)


def _option(name: str, more: str, *, is_current: bool) -> Content:
    mark = ("● ", "$text-success") if is_current else ("  ", "")
    return Content.assemble(mark, (name, "bold"), "\n", (f"  {more}", "$foreground 60%"))


async def change(app: InfraxaApp, name: str, done: Callable[[str, object], None]) -> None:
    """Have the person give the setting another value; `done` is called with its name and the value that it
    had, when it is saved."""
    before = getattr(app.settings, name)

    async def save(value: object) -> None:
        await app.node.change_setting(name, value)
        app.setting_changed(name)
        done(name, before)

    def answered(text: str | None) -> None:
        if text is not None and text != settings.shown(before):
            app.attempt(save(text), group=f"save {name}")

    if settings.is_switch(name):
        await save(not before)
    elif name == "provide_model":
        app.push_screen(PickModel(await app.node.list_models(), before), answered)
    else:
        later = f" It takes effect {config.LATER[name]}." if name in config.LATER else ""
        help_text = config.help_text(name)
        app.push_screen(
            Ask(
                TITLES[name],
                settings.shown(before),
                text=f"{help_text[0].upper()}{help_text[1:]}.{later}",
                placeholder=AUTOMATIC,
                accept="Save",
                check=partial(settings.problem, name),
            ),
            answered,
        )
