"""What the Markdown widget paints: the same streamed and at once; it can be selected and clicked."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Offset, Size
from textual.selection import SELECT_ALL, Selection

from infraxa.app.tui.widgets.markdown import MarkdownView

TEXT = """\
# Title

Some **bold** text with `code`, a [link](https://example.org/a?b='c') and https://bare.example.

- one
- two
  1. three
  2. four

> quoted text that is long enough to be wrapped, so that the bar stands before each of its lines

| a | b |
|---|--:|
| 1 | *2* |

```python
def f(x: int) -> int:
    return x + 1
```
"""


class Viewer(App[None]):
    def __init__(self, view: MarkdownView) -> None:
        super().__init__()
        self.view = view
        self.links: list[str] = []
        self.copied: list[str] = []

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self.view

    def on_markdown_view_link_clicked(self, event: MarkdownView.LinkClicked) -> None:
        self.links.append(event.href)

    def on_markdown_view_code_copied(self, event: MarkdownView.CodeCopied) -> None:
        self.copied.append(event.code)


def painted(view: MarkdownView) -> list[list[Segment]]:
    """All lines of the widget with their styles, as the compositor gets them."""
    return [list(view.render_line(y)) for y in range(view.content_size.height)]


def texts(view: MarkdownView) -> list[str]:
    return [view.render_line(y).text.rstrip() for y in range(view.content_size.height)]


def styles(view: MarkdownView) -> set[str]:
    """The colours of the first line of code."""
    return {str(each.style.color) for each in view.render_line(1) if each.style and each.text.strip()}


@pytest.mark.parametrize("size", [1, 5, 60])
async def test_streamed_and_finished_is_painted_as_at_once(size: int) -> None:
    at_once = Viewer(MarkdownView(TEXT))
    async with at_once.run_test(size=(60, 40)) as pilot:
        await pilot.pause()
        expected = painted(at_once.view)
    streamed = Viewer(MarkdownView())
    async with streamed.run_test(size=(60, 40)) as pilot:
        for start in range(0, len(TEXT), size):
            streamed.view.append(TEXT[start : start + size])
            if start % (7 * size) == 0:
                await pilot.pause()
        await streamed.view.finish()
        await pilot.pause()
        assert painted(streamed.view) == expected


async def test_what_is_on_the_screen_follows_what_is_appended() -> None:
    app = Viewer(MarkdownView())
    async with app.run_test(size=(60, 20)) as pilot:
        app.view.append("Hel")
        await pilot.pause()
        assert texts(app.view) == ["Hel"]
        app.view.append("lo\n\n- item")
        await pilot.pause()
        assert texts(app.view) == ["Hello", "", " • item"]
        app.view.replace("Other")
        await pilot.pause()
        assert texts(app.view) == ["Other"]


async def test_another_width_wraps_anew() -> None:
    app = Viewer(MarkdownView("word " * 30))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        before = app.view.content_size.height
        await pilot.resize_terminal(30, 20)
        await pilot.pause()
        assert app.view.content_size.height > before
        assert all(len(line) <= 30 for line in texts(app.view))


async def test_another_theme_paints_other_colours() -> None:
    app = Viewer(MarkdownView(TEXT))
    async with app.run_test(size=(60, 40)) as pilot:
        await pilot.pause()
        before = painted(app.view)
        app.theme = "textual-light"
        await pilot.pause()
        assert painted(app.view) != before


async def test_a_link_is_told_and_not_opened() -> None:
    app = Viewer(MarkdownView("[click me](https://example.org/a?b='c'&d=(e))"))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        await pilot.click(MarkdownView, offset=(3, 0))
        await pilot.pause()
        assert app.links == ["https://example.org/a?b='c'&d=(e)"]


@pytest.mark.parametrize("href", ["x');app.quit('", "a\\'b", "%27)%3Bapp.exit(%27", "&#39;);app.exit(&#39;"])
async def test_a_hostile_link_is_only_a_link(href: str) -> None:
    app = Viewer(MarkdownView(f"[click me](<{href}>)"))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        await pilot.click(MarkdownView, offset=(3, 0))
        await pilot.pause()
        assert len(app.links) == 1
        assert app.is_running


async def test_the_word_copy_copies_its_own_block() -> None:
    app = Viewer(MarkdownView("```py\none\n```\n\ntext\n\n```py\ntwo\n\tindented\n```\n"))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        second = [y for y, line in enumerate(texts(app.view)) if line.endswith("copy")][1]
        await pilot.click(MarkdownView, offset=(app.view.content_size.width - 3, second))
        await pilot.pause()
        assert app.copied == ["two\n\tindented"]
        assert app.view.codes == ["one", "two\n\tindented"]


async def test_selected_text_is_as_it_was_written() -> None:
    app = Viewer(MarkdownView("alpha beta gamma delta epsilon zeta eta theta iota\n\n- item one\n- item two"))
    async with app.run_test(size=(24, 20)) as pilot:
        await pilot.pause()
        assert len(texts(app.view)) > 5
        everything = app.view.get_selection(SELECT_ALL)
        assert everything is not None
        sentence, _, items = everything[0].partition("\n\n")
        assert sentence == "alpha beta gamma delta epsilon zeta eta theta iota"
        assert items == " • item one\n • item two"
        part = app.view.get_selection(Selection(Offset(6, 0), Offset(5, 1)))
        assert part is not None
        assert part[0] == "beta gamma delta epsil"


async def test_dragging_the_mouse_selects() -> None:
    app = Viewer(MarkdownView("alpha beta gamma"))
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        await pilot.mouse_down(MarkdownView, offset=(6, 0))
        await pilot.hover(MarkdownView, offset=(10, 0))
        await pilot.mouse_up(MarkdownView, offset=(10, 0))
        await pilot.pause()
        assert (app.screen.get_selected_text() or "").strip() == "beta"


async def test_code_gets_its_colours_when_it_is_closed() -> None:
    app = Viewer(MarkdownView())
    async with app.run_test(size=(60, 20)) as pilot:
        app.view.append("```python\nimport os  # comment\n")
        await pilot.pause()
        assert len(styles(app.view)) == 1
        app.view.append("```\n")
        await pilot.pause()
        assert len(styles(app.view)) > 1


async def test_an_open_code_block_gets_its_colours_when_the_answer_ends() -> None:
    app = Viewer(MarkdownView())
    async with app.run_test(size=(60, 20)) as pilot:
        app.view.append("```python\nimport os  # comment")
        await pilot.pause()
        assert len(styles(app.view)) == 1
        await app.view.finish()
        await pilot.pause()
        assert len(styles(app.view)) > 1


async def test_its_height_is_that_of_the_width_it_has_whatever_else_was_measured() -> None:
    app = Viewer(MarkdownView())
    async with app.run_test(size=(60, 20)) as pilot:
        view = app.view
        view.append("A text of some words, " * 4)
        view.set_foot(Content("below it"))
        await pilot.pause()
        # As when it is tried whether a scroll bar is needed.
        assert view.get_content_height(Size(600, 20), Size(600, 20), 600) < view.content_size.height
        view.append("and more words that take another line, since they are many, and these are some more")
        await pilot.pause()
        assert texts(view)[-1] == "below it" and "these are some more" in " ".join(texts(view))
