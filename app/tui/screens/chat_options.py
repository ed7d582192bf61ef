"""What a person sets for one chat: driver, model, what the model is told first, how a token is chosen."""

from __future__ import annotations

import json
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Button, Input, Select, Static, TextArea

from infraxa.app.config import ANY, LOCAL, Settings
from infraxa.app.tui.screens.view import View
from infraxa.app.tui.widgets.driver import CHOSEN_BY_INFRAXA, THIS_MACHINE, find_driver, model_name
from infraxa.app.tui.widgets.text import one_line
from infraxa.engine.types import Sampling
from infraxa.net.identity import display, id_text
from infraxa.store.records import ChatOptions

if TYPE_CHECKING:
    from infraxa.app.choices import ModelEntry
    from infraxa.app.offers import OfferSeen

Driven = tuple[str, str | None]
"""A driver, and a model_id in hex or None for any."""


class Field(msgspec.Struct, frozen=True):
    """A number of the sampling: its limits, and what it does."""

    name: str
    kind: type[int] | type[float]
    least: float
    most: float
    help: str


FIELDS = (
    Field("temperature", float, 0, 5, "randomness; 0 picks the likeliest token every time"),
    Field("top_k", int, 0, 1_000_000, "only the k likeliest tokens; 0 = all"),
    Field("top_p", float, 0, 1, "only the likeliest that together reach this share; 1 = all"),
    Field("min_p", float, 0, 1, "only tokens this likely, relative to the likeliest"),
    Field("repeat_penalty", float, 0.01, 10, "above 1, repeating becomes less likely; 1 = off"),
    Field("seed", int, 0, 2**32 - 1, "the same draw each time; empty = another one"),
    Field("max_tokens", int, 1, 1_000_000, "end the answer after so many; empty = no limit"),
)


def parse_number(field: Field, text: str) -> float | int | None:
    """The number that was typed; None when nothing was. Raises ValueError with a sentence."""
    text = text.strip()
    if not text:
        return None
    try:
        value = field.kind(text)
    except ValueError:
        kind = "a whole number" if field.kind is int else "a number"
        raise ValueError(f"{field.name} must be {kind}.") from None
    if not field.least <= value <= field.most:
        raise ValueError(f"{field.name} must be from {field.least:g} to {field.most:g}.")
    return value


def default_of(field: Field, entry: ModelEntry | None, settings: Settings) -> str:
    """What is used when nothing is set for the chat."""
    setting = getattr(settings, field.name, None)
    if setting is None and entry is not None:
        setting = entry.info.sampling.get(field.name)
    if setting is None:
        setting = getattr(Sampling(), field.name)
    return "none" if setting is None else f"{setting:g}"


class ChatOptionsScreen(View[ChatOptions]):
    """Answers with the options, or None when nothing is to change."""

    HEADING = "Options of this chat"
    KEYS = "empty = the default · ctrl+s saves · Esc leaves without saving"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "save", "Save", show=False, priority=True)]
    DEFAULT_CSS = """
    ChatOptionsScreen #options { height: 1fr; scrollbar-size-vertical: 1; }
    ChatOptionsScreen .row { height: 1; width: 1fr; }
    ChatOptionsScreen .tall { height: auto; margin-bottom: 1; }
    ChatOptionsScreen .name { width: 18; text-style: bold; }
    ChatOptionsScreen .help {
        width: 1fr; color: $text-muted; padding-left: 2; text-wrap: nowrap; text-overflow: ellipsis;
    }
    ChatOptionsScreen Input { width: 20; height: 1; border: none; background: $panel; padding: 0 1; }
    ChatOptionsScreen Input.wide { width: 1fr; }
    ChatOptionsScreen TextArea { width: 1fr; height: 5; background: $panel; border: none; padding: 0 1; }
    ChatOptionsScreen Select { width: 40; height: 1; }
    ChatOptionsScreen #fault { height: auto; width: 1fr; color: $text-error; }
    ChatOptionsScreen .buttons { height: 1; width: 1fr; align-horizontal: right; margin-top: 1; }
    ChatOptionsScreen .buttons Button { margin-left: 2; }
    ChatOptionsScreen.-narrow .help { display: none; }
    """

    def __init__(self, options: ChatOptions, models: Sequence[ModelEntry], settings: Settings) -> None:
        super().__init__()
        self._options = options
        self._models = models
        self._settings = settings

    def compose_body(self) -> ComposeResult:
        options = self._options
        entry = self._entry(options.model)
        with VerticalScroll(id="options", can_focus=False):
            with Horizontal(classes="row"):
                yield Static("driver", classes="name")
                yield Select(
                    self._drivers(None),
                    prompt="default",
                    value=Select.NULL if options.driver is None else (options.driver, options.driver_model),
                    id="driver",
                    compact=True,
                )
            with Horizontal(classes="row tall"):
                yield Static("model", classes="name")
                known = [(one_line(model.label, 60), model.name) for model in self._models]
                if options.model is not None and options.model not in {name for _, name in known}:
                    known.append((f"{one_line(options.model, 50)} (missing)", options.model))
                yield Select(
                    known,
                    prompt="default",
                    value=options.model if options.model is not None else Select.NULL,
                    id="model",
                    compact=True,
                )
            with Horizontal(classes="row tall"):
                yield Static("system prompt", classes="name")
                yield TextArea(options.system or "", id="system", compact=True, tab_behavior="focus")
            for field in FIELDS:
                value = getattr(options, field.name)
                with Horizontal(classes="row"):
                    yield Static(field.name.replace("_", " "), classes="name")
                    yield Input(
                        "" if value is None else f"{value:g}" if isinstance(value, float) else str(value),
                        placeholder=default_of(field, entry, self._settings),
                        id=field.name,
                        compact=True,
                    )
                    yield Static(field.help, classes="help", markup=False)
            with Horizontal(classes="row"):
                yield Static("stop", classes="name")
                yield Input(
                    " ".join(_quoted(text) for text in options.stop or ()),
                    placeholder="texts that end the answer, in double quotes",
                    id="stop",
                    classes="wide",
                    compact=True,
                )
        yield Static("", id="fault", markup=False)
        with Horizontal(classes="buttons"):
            yield Button("Save", id="save", variant="primary", compact=True)
            yield Button("Defaults", id="defaults", compact=True)

    def on_mount(self) -> None:
        self.query_one("#system", TextArea).focus()
        if self.app.node.network.activity not in ("off", "closing"):
            self.app.attempt(self._list_drivers(), screen=self)

    async def _list_drivers(self) -> None:
        """Offer the providers too; what is chosen stays."""
        offers = await self.app.node.list_offers()
        select = self.query_one("#driver", Select)
        chosen = select.value
        drivers = self._drivers(offers)
        select.set_options(drivers)
        if chosen in [value for _, value in drivers]:
            select.value = chosen

    def _drivers(self, offers: Sequence[OfferSeen] | None) -> list[tuple[str, Driven]]:
        """Who can be chosen: always whoever is chosen now."""
        listed: list[tuple[str, Driven]] = [(THIS_MACHINE, (LOCAL, None)), (CHOSEN_BY_INFRAXA, (ANY, None))]
        for offer in offers or ():
            name = f"{display(offer.node.name, offer.node.id)} · {one_line(offer.model.name, 40)}"
            listed.append((name, (id_text(offer.node.id), offer.model.model_id.hex())))
        driver, model = self._options.driver, self._options.driver_model
        if driver is not None and (driver, model) not in [value for _, value in listed]:
            known = find_driver(driver, model, offers, {})
            name = " · ".join(part for part in (known.name, model_name(known)) if part)
            listed.append((name, (driver, model)))
        return listed

    def _entry(self, name: str | None) -> ModelEntry | None:
        name = name or self._settings.model
        return next((model for model in self._models if model.name == name), None)

    def _read(self) -> ChatOptions:
        """The options as they stand in the fields. Raises ValueError with a sentence."""
        values: dict[str, Any] = {
            field.name: parse_number(field, self.query_one(f"#{field.name}", Input).value) for field in FIELDS
        }
        model = self.query_one("#model", Select).value
        driver = self.query_one("#driver", Select).value
        chosen = (None, None) if driver is Select.NULL else typing.cast(Driven, driver)
        system = self.query_one("#system", TextArea).text
        return ChatOptions(
            model=None if model is Select.NULL else typing.cast(str, model),
            driver=chosen[0],
            driver_model=chosen[1],
            system=system if system.strip() else None,
            stop=parse_stop(self.query_one("#stop", Input).value),
            **values,
        )

    @on(Input.Changed)
    def _check(self) -> None:
        try:
            self._read()
        except ValueError as error:
            self.query_one("#fault", Static).update(str(error))
        else:
            self.query_one("#fault", Static).update("")

    @on(Input.Submitted)
    @on(Button.Pressed, "#save")
    def _save_pressed(self) -> None:
        self.action_save()

    def action_save(self) -> None:
        """Answer with the options, if they are right."""
        try:
            self.dismiss(self._read())
        except ValueError as error:
            self.query_one("#fault", Static).update(str(error))

    @on(Button.Pressed, "#defaults")
    def _defaults(self) -> None:
        self.query_one("#driver", Select).clear()
        self.query_one("#model", Select).clear()
        self.query_one("#system", TextArea).text = ""
        for box in self.query(Input):
            box.value = ""


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def parse_stop(text: str) -> tuple[str, ...] | None:
    """The texts in double quotes, with JSON's escapes (`"\\n"`). Raises ValueError with a sentence."""
    texts: list[str] = []
    rest = text.strip()
    decode = json.JSONDecoder().raw_decode
    while rest:
        try:
            value, end = decode(rest)
        except ValueError:
            raise ValueError('stop must be texts in double quotes, such as "END" "\\n\\n".') from None
        if not isinstance(value, str) or not value:
            raise ValueError('stop must be texts in double quotes, such as "END" "\\n\\n".')
        texts.append(value)
        rest = rest[end:].lstrip(" ,")
    return tuple(texts) or None
