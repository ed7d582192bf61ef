"""Themes: the files that come with infraxa, a person's own, and what happens with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from infraxa.app.config import Settings
from infraxa.app.tui import themes
from infraxa.app.tui.themes import Library, ThemeError, read, shipped_names
from tests.app.shell import SETTINGS, shell

VARIABLES = set(BUILTIN_THEMES["textual-dark"].to_color_system().generate())
GOOD = 'name = "mine"\n[colors]\nprimary = "#ff8800"\nbackground = "#001122"\n'


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_theme_can_be_read_in_every_place(name: str) -> None:
    theme = read(themes.SHIPPED / f"{name}.toml", known_variables=VARIABLES)
    assert theme.name == name
    colors = {**theme.to_color_system().generate(), **theme.variables}
    for text, ground in (
        ("foreground", "background"), ("foreground", "surface"), ("foreground", "panel"),
        ("block-cursor-foreground", "block-cursor-background"), ("text-error", "surface"),
        ("primary", "surface"),
    ):  # fmt: skip
        contrast = ratio(Color.parse(colors[text]), Color.parse(colors[ground]))
        assert contrast >= 4.0, (text, ground)


def ratio(one: Color, other: Color) -> float:
    """The contrast of WCAG 2."""

    def luminance(color: Color) -> float:
        parts = [
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_there_are_dark_light_and_high_contrast_themes() -> None:
    assert shipped_names()[0] == themes.DEFAULT
    assert {"infraxa-dark", "infraxa-light", "infraxa-contrast"} <= set(shipped_names())
    assert len(shipped_names()) >= 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not toml at all [", "is not used"),
        ('name = "x"\n', "colors"),
        ('name = "x"\n[colors]\nprimary = "no colour"\n', "'no colour' is not a colour"),
        ('name = "a b"\n[colors]\nprimary = "red"\n', "name"),
        ('name = "x"\nshadow = 1\n[colors]\nprimary = "red"\n', "shadow"),
        ('name = "x"\n[colors]\nprimary = "red"\n[variables]\nnothing = "red"\n', "no variable 'nothing'"),
        ('name = "x"\n[colors]\nprimary = "red"\n[variables]\nborder = "red; } * {"\n', "not a colour"),
        ('name = "x"\n[colors]\nprimary = "red"\n[variables]\nlink-style = "blinking"\n', "not a text style"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_with_its_name(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, "bad.toml", text)
    with pytest.raises(ThemeError) as caught:
        read(path, known_variables=VARIABLES)
    line = str(caught.value)
    assert str(path) in line and reason in line and "\n" not in line.strip()


def test_a_file_of_the_persons_goes_before_a_shipped_one(tmp_path: Path) -> None:
    library = Library(tmp_path, VARIABLES)
    write(tmp_path, "infraxa-dark.toml", GOOD.replace("mine", "infraxa-dark"))
    theme = library.find("infraxa-dark")
    assert theme is not None and theme.primary == "#ff8800"
    write(tmp_path, "another-name.toml", GOOD)
    assert library.find("mine") is not None
    assert library.find("nobody") is None
    assert library.find("../../etc/passwd") is None


async def test_a_bad_theme_gives_one_line_and_the_default(tmp_path: Path) -> None:
    write(tmp_path / "themes", "mine.toml", "[colors")
    async with shell(tmp_path, settings=Settings(online=False, threads=1, theme="mine")) as it:
        assert it.app.theme == themes.DEFAULT
        assert any("mine.toml" in text for text in it.toasts)
        assert any("mine.toml" in entry.text for entry in it.app.log_book.entries)


async def test_the_palette_shows_a_theme_while_it_is_highlighted(tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.pilot.press("ctrl+p")
        await it.type("theme: infraxa-light")
        await it.until(lambda: it.app.theme == "infraxa-light", "the preview")
        await it.pilot.press("escape")
        await it.until(lambda: it.app.theme == "infraxa-dark", "the theme from before")
        await it.pilot.press("ctrl+p")
        await it.type("theme: infraxa-light")
        await it.until(lambda: it.app.theme == "infraxa-light", "the preview")
        await it.pilot.press("enter")
        await it.until(lambda: it.app.settings.theme == "infraxa-light", "the setting")
        assert it.app.theme == "infraxa-light"


async def test_a_theme_is_read_again_when_the_list_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "themes", "mine.toml", GOOD)
    async with shell(tmp_path, settings=Settings(online=False, threads=1, theme="mine")) as it:
        assert it.app.theme == "mine"
        write(tmp_path / "themes", "mine.toml", GOOD.replace("#001122", "#330000"))
        await it.pilot.press("f9")
        await it.pilot.pause()
        assert it.app.current_theme.background == "#330000"
        assert it.app.theme_variables["background"] != "#001122"


async def test_slash_theme_takes_a_name(tmp_path: Path) -> None:
    async with shell(tmp_path, settings=SETTINGS) as it:
        await it.opened()
        await it.app.action_perform("app.theme", "infraxa-dusk")
        await it.until(lambda: it.app.settings.theme == "infraxa-dusk", "the setting")
        await it.app.action_perform("app.theme", "no-such-theme")
        await it.until(lambda: any("no-such-theme" in text for text in it.toasts), "the line")
        assert it.app.theme == "infraxa-dusk"
