"""Parts of a view under their headings; where there is little room one is open and the others are folded."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import Vertical
from textual.content import Content
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Static


def share(room: int, wants: Sequence[int]) -> list[int]:
    """Lines for each of several parts that want so many of `room`: nobody gets more than it wants, and who
    must do with less gets as much as the others that do."""
    given = [0] * len(wants)
    for place, at in enumerate(sorted(range(len(wants)), key=lambda at: wants[at])):
        given[at] = min(wants[at], room // (len(wants) - place))
        room -= given[at]
    return given


def say(where: Static, what: Content, *, layout: bool = False) -> None:
    """Show `what`, unless it is shown already. `layout`: its height depends on it."""
    said = where.content
    if not isinstance(said, Content) or not said.is_same(what):
        where.update(what, layout=layout)


class Section(Vertical):
    """A part of a view under its heading, which says how much is in it. A click on the heading does the
    screen's action `open`."""

    DEFAULT_CSS = """
    Section { height: 1; width: 1fr; }
    Section.-open { height: 1fr; }
    Section > .part-heading {
        height: 1; width: 1fr;
        link-style: none; link-color: $foreground; link-background: transparent;
        link-style-hover: none; link-color-hover: $text-primary; link-background-hover: transparent;
    }
    Section.-open > .part-heading { link-color: $text-primary; }
    """

    def __init__(self, part: str, title: str, *body: Widget) -> None:
        """`part` is its id; what can have the focus in it has the class `part-body`."""
        super().__init__(Static("", classes="part-heading", markup=False), *body, id=part, classes="part")
        self._part, self._title = part, title

    @property
    def body(self) -> Widget:
        """What can have the focus in it."""
        return self.query_one(".part-body")

    def paint_heading(self, aside: str | Content, *, folded: bool) -> None:
        """`aside`: what follows the name, as part of the link or in its own colours; `folded`: only one of
        the parts is seen."""
        mark = ("▾ " if self.has_class("-open") else "▸ ") if folded else ""
        click = Style.from_meta({"@click": f"screen.open({self._part!r})"})
        heading = Content.assemble(mark, (self._title, "bold"))
        if isinstance(aside, str):
            heading += Content.styled(f"  {aside}" if aside else "", "$foreground 60%")
            say(self.query_one(".part-heading", Static), heading.stylize(click))
        else:
            say(self.query_one(".part-heading", Static), heading.stylize(click) + "  " + aside)

    def wanted_lines(self, width: int) -> int:
        """Lines for all that is in it, in a width of so many cells."""
        return sum(
            child.get_content_height(self.screen.size, self.screen.size, width)
            for child in self.children
            if child.display
        )
