"""Themes as TOML files: those that come with infraxa and the person's own, read into Textual's themes.

A file names its theme, its colours and, if it likes, Textual's style variables. A bad one is one clear line
and changes nothing. Files are read again only when someone looks at the list of themes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from textual.color import Color, ColorParseError
from textual.theme import Theme

import infraxa

SHIPPED = Path(infraxa.__file__).parent / "themes"
DEFAULT = "infraxa-dark"
MAX_FILE = 64 * 1024
"""Bytes; a theme is far smaller."""

_STYLES = {"none", "not", "bold", "dim", "italic", "underline", "reverse", "strike"}
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]


class ThemeError(Exception):
    """A theme file that cannot be used; the text is one line for a person."""


class Colors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The colours of a theme; what is left out is derived from the others."""

    primary: str
    secondary: str | None = None
    accent: str | None = None
    foreground: str | None = None
    background: str | None = None
    surface: str | None = None
    panel: str | None = None
    boost: str | None = None
    success: str | None = None
    warning: str | None = None
    error: str | None = None


class ThemeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a theme file holds."""

    name: _Name
    colors: Colors
    dark: bool = True
    variables: dict[str, str] = {}


def read(path: Path, *, known_variables: Iterable[str]) -> Theme:
    """The theme of a file. Raises ThemeError."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise ThemeError(f"{path} is not used: it is larger than {MAX_FILE // 1024} KiB.")
        text = path.read_text("utf-8")
        file = msgspec.convert(tomllib.loads(text), ThemeFile)
    except OSError as error:
        raise ThemeError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ThemeError(f"{path} is not used: {error}.") from error
    for name, value in msgspec.structs.asdict(file.colors).items():
        if value is not None:
            _check_color(path, name, value)
    known = set(known_variables)
    for name, value in file.variables.items():
        if name not in known:
            raise ThemeError(f"{path} is not used: there is no variable {name!r}.")
        if "style" not in name.split("-"):
            _check_color(path, name, value)
        elif not set(value.split()) <= _STYLES:
            raise ThemeError(f"{path} is not used: {value!r} is not a text style (for {name}).")
    return Theme(file.name, dark=file.dark, variables=file.variables, **msgspec.structs.asdict(file.colors))


def _check_color(path: Path, name: str, value: str) -> None:
    # A colour may be followed by how opaque it is: `#112233 40%`.
    color, _, opacity = value.strip().partition(" ")
    try:
        Color.parse(color)
        if opacity and not (opacity.endswith("%") and float(opacity[:-1]) >= 0):
            raise ValueError
    except (ColorParseError, ValueError):
        raise ThemeError(f"{path} is not used: {value!r} is not a colour (for {name}).") from None


def shipped_names() -> list[str]:
    """The themes that come with infraxa, the default first."""
    return sorted((path.stem for path in SHIPPED.glob("*.toml")), key=lambda name: (name != DEFAULT, name))


class Library:
    """The themes that there are: shipped ones are read one by one when needed, the person's all at once."""

    def __init__(self, folder: Path, known_variables: Iterable[str]) -> None:
        """`folder` holds the person's own files; it need not exist."""
        self._folder = folder
        self._known = tuple(known_variables)

    def find(self, name: str) -> Theme | None:
        """One theme by its name, the person's own before a shipped one. Raises ThemeError for a bad file."""
        own = self._folder / f"{Path(name).name}.toml"
        if own.is_file():
            theme = read(own, known_variables=self._known)
            if theme.name == name:
                return theme
        if name in shipped_names():
            return read(SHIPPED / f"{name}.toml", known_variables=self._known)
        return next((theme for theme in self.load_own()[0] if theme.name == name), None)

    def load_own(self) -> tuple[list[Theme], list[str]]:
        """The person's themes, and one line for each file that is none."""
        themes: list[Theme] = []
        problems: list[str] = []
        for path in sorted(self._folder.glob("*.toml")):
            try:
                themes.append(read(path, known_variables=self._known))
            except ThemeError as error:
                problems.append(str(error))
        return themes, problems

    def load_shipped(self) -> list[Theme]:
        """All themes that come with infraxa."""
        return [read(SHIPPED / f"{name}.toml", known_variables=self._known) for name in shipped_names()]
