"""The app's themes while it runs: the one it starts with, reading the files again, preview, choice."""

from __future__ import annotations

from pathlib import Path

from textual.app import App
from textual.command import CommandPalette
from textual.theme import BUILTIN_THEMES, Theme

from infraxa.app.tui import themes


class Themed(App[None]):
    """An app whose themes are files."""

    def __init__(self, wanted: str, folder: Path) -> None:
        """Begin with the theme `wanted`, or with the default one and a problem; `folder` is the person's."""
        super().__init__()
        self.theme_problems: set[str] = set()
        """One line each, of all that were found."""
        self._library = themes.Library(folder, self.get_css_variables())
        self._previewed_from: str | None = None
        theme = self._find(wanted)
        if theme is None and wanted not in self.available_themes:
            theme = self._find(themes.DEFAULT)
        if theme is not None:
            self.register_theme(theme)
        self.theme = theme.name if theme is not None else wanted

    def theme_chosen(self, name: str) -> None:
        """A theme was chosen, to be used from now on."""
        raise NotImplementedError

    def warn(self, text: str) -> None:
        """Show a line."""
        raise NotImplementedError

    def _find(self, name: str) -> Theme | None:
        try:
            theme = self._library.find(name)
        except themes.ThemeError as error:
            self.theme_problems.add(f"{error} The theme {themes.DEFAULT} is used.")
            return None
        if theme is None and name not in self.available_themes:
            self.theme_problems.add(
                f"There is no theme {name!r}; {themes.DEFAULT} is used. See the themes with /theme"
            )
        return theme

    def load_themes(self) -> None:
        """Read all theme files again: those that come with infraxa, and the person's own."""
        own, problems = self._library.load_own()
        current = self.current_theme
        for theme in [*self._library.load_shipped(), *own]:
            self.register_theme(theme)
        for problem in problems:
            if not any(known.startswith(problem) for known in self.theme_problems):
                self.theme_problems.add(problem)
                self.warn(problem)
        if self.current_theme != current:
            self.mutate_reactive(App.theme)

    def theme_names(self) -> list[str]:
        """All themes, those of infraxa first, then the person's, then Textual's."""
        shipped = themes.shipped_names()
        own = sorted(set(self.available_themes) - set(shipped) - set(BUILTIN_THEMES))
        return [*shipped, *own, *sorted(BUILTIN_THEMES)]

    def choose_theme(self, name: str) -> None:
        """Use a theme from now on."""
        if name not in self.available_themes:
            self.warn(f"There is no theme {name!r}. See the themes with /theme")
            return
        self._previewed_from = None
        self.theme = name
        self.theme_chosen(name)

    def theme_changed(self, name: str) -> None:
        """The theme to use is this one now; a preview goes on, and ends with it."""
        if name == (self._previewed_from or self.theme):
            return
        if name not in self.available_themes:
            self.load_themes()
        if name not in self.available_themes:
            return
        if self._previewed_from is not None:
            self._previewed_from = name
        else:
            self.theme = name

    def begin_preview(self) -> None:
        """Themes will be shown as they are highlighted; the present one comes back unless one is chosen."""
        self.load_themes()
        self._previewed_from = self.theme

    def on_command_palette_option_highlighted(self, event: CommandPalette.OptionHighlighted) -> None:
        """Show a theme while it is highlighted."""
        from infraxa.app.tui.palette import theme_of

        name = theme_of(event.highlighted_event.option) or self._previewed_from
        if name is not None and name in self.available_themes:
            self.theme = name

    def on_command_palette_closed(self, event: CommandPalette.Closed) -> None:
        """Back to the theme from before, unless something was chosen."""
        if not event.option_selected and self._previewed_from is not None:
            self.theme = self._previewed_from
        self._previewed_from = None
