"""Where another driver goes on: a line in any block, at its place, live as after reading, never text."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.highlight import HighlightTheme
from textual.selection import SELECT_ALL

from infraxa.app.tui.widgets.blocks import Block
from infraxa.app.tui.widgets.document import Document
from infraxa.app.tui.widgets.markdown import MarkdownView
from infraxa.app.tui.widgets.marks import aligned

LABEL = "↪ cedar·9x4q2m1p goes on"
MARK = f" {LABEL}"


def lines(blocks: list[Block], width: int = 40) -> list[str]:
    """What is drawn, without the empty lines between blocks and the frame of code."""
    drawn: list[str] = []
    for block in blocks:
        for y in range(block.height(width)):
            prefix, line = block.line(width, y, HighlightTheme)
            drawn.append(f"{prefix.plain}{line.content.plain}".rstrip())
    return [line for line in drawn if line.strip() not in ("", "copy", "py" + " " * 30 + "copy")]


def marked(source: str, *places: int, width: int = 40) -> list[str]:
    document = Document(source)
    document.set_marks([(at, LABEL) for at in places])
    return lines(document.blocks, width)


CASES = {
    "a paragraph": ("One two three.", 8, ["One two", MARK, "three."]),
    "a word": ("One tomorrow.", 6, ["One to", MARK, "morrow."]),
    "between paragraphs": ("One.\n\nTwo.", 6, ["One.", MARK, "Two."]),
    "bold that was open": ("So **very good**.", 9, ["So very", MARK, "good."]),
    "a link that was open": ("See [here](http://a.b) now", 16, ["See here", MARK, "now"]),
    "a list": ("- one\n- two three\n- four", 11, [" • one", " • two", f"   {MARK}", "   three", " • four"]),
    "code": ("```\na = 1\nb = 2\n```\n", 11, [" a = 1", " b", MARK, "  = 2"]),
    "a line of code that ended": ("```\na = 1\nb = 2\n```", 10, [" a = 1", MARK, " b = 2"]),
    "code with tabs": ("```\n\tx = 1\n```", 6, ["     x", MARK, "  = 1"]),
    "a table": (
        "| a | b |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |\n", 34, ["a │ b", "──┼──", "1 │ 2", "3 │ 4", MARK]
    ),
    "rows that ended": (
        "| a | b |\n| - | - |\n| 1 | 2 |\n| 3 | 4 |\n", 30, ["a │ b", "──┼──", "1 │ 2", MARK, "3 │ 4"]
    ),
    "a quote": ("> one two", 5, ["▌ one", f"▌ {MARK}", "▌ two"]),
    "a heading": ("# One two", 5, ["One", MARK, "two"]),
    "after a rule": ("One\n\n---\n\nTwo", 10, ["One", "─" * 40, MARK, "Two"]),
    "a long line": ("word " * 12 + "end", 42, ["word word word word word word word word", "wo", MARK]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_stands_where_the_other_goes_on(name: str) -> None:
    source, at, expected = CASES[name]
    assert marked(source, at)[: len(expected)] == expected


def test_two_in_one_paragraph_and_code_in_one_block() -> None:
    assert marked("one two three", 4, 8) == ["one", MARK, "two", MARK, "three"]
    assert marked("```\none\ntwo\nthree\n```", 5, 14) == [" o", MARK, " ne", " two", " th", MARK, " ree"]


def test_a_fence_that_was_half_written_loses_no_text() -> None:
    source = "Now:\n\n```py\nx = 1\n```\n\nDone."
    for at in range(6, 12):
        drawn = marked(source, at)
        assert drawn.count(MARK) == 1
        assert [line for line in drawn if line != MARK] == lines(Document(source).blocks)


SHAPES = [
    "Hello **world** and `code`.\n\nTwo\n*soft* and\\\nhard.\n\n---\n\nSee https://x.y/z. End\n",
    "Intro:\n\n- a\n- b\n  - c\n\n  more of b\n- [g](h://x)\n\nafter\n",
    "- item\n\n  ```python\n  x = 1\n\n  y = 2\n  ```\n- next\n  ~~~\n  raw\n  ~~~\nend\n",
    "Before\n\n| a | b |\n|:--|--:|\n| 1 | **2** |\n| 3 | [x](h://a) |\n\nafter\n\n|z|\n|-|\n|q|\n",
    "> quote **b**\n> more\n>\n> > deeper\n> - l\n\nout\nlazy\n",
    "# H1\ntext\n## H2\n\nSetext\n===\n\nfoo\n---\nbar\n",
    "<div>\nhi <b>x</b>\n</div>\n\n[x]: http://ref.y\n\npara <br> [x] &amp; more\n",
    "```py\nif x:\n\treturn 1\n\n\ny = 2\n```\n",
]


@st.composite
def cut(draw: st.DrawFn) -> tuple[str, list[int], list[int]]:
    source = draw(st.sampled_from(SHAPES))
    places = draw(st.lists(st.integers(1, len(source) - 1), min_size=1, max_size=3, unique=True))
    pieces = draw(st.lists(st.integers(1, len(source) - 1), max_size=8, unique=True))
    return source, sorted(places), sorted({*places, *pieces, len(source)})


@given(cut(), st.sampled_from([6, 20, 80]))
@settings(max_examples=300, deadline=None)
def test_it_changes_no_text_and_streams_to_what_is_read(
    case: tuple[str, list[int], list[int]], width: int
) -> None:
    source, places, pieces = case
    streamed = Document()
    start = 0
    for end in pieces:
        streamed.append(source[start:end])
        if end in places:
            streamed.set_marks([*streamed.marks, (end, LABEL)])
        start = end
    streamed.finish()
    whole = Document(source)
    whole.set_marks([(at, LABEL) for at in places])
    assert lines(streamed.blocks, width) == lines(whole.blocks, width)

    def text(document: Document) -> str:
        drawn = [
            line.content.plain
            for block in document.blocks
            for y in range(block.height(width))
            for _, line in [block.line(width, y, HighlightTheme)]
            if not line.aside
        ]
        return "".join("".join(drawn).split())

    assert text(whole) == text(Document(source))


@given(st.text("ab*_`[( ", max_size=12), st.text("ab*_`[( ", max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_place_is_always_in_the_text(before: str, whole: str) -> None:
    assert 0 <= aligned(before, whole) <= len(whole)
    assert aligned(before, before + whole) == len(before)


class One(App[None]):
    def __init__(self, source: str, *places: int) -> None:
        super().__init__()
        self.view = MarkdownView(source)
        self.view.set_marks([(at, LABEL) for at in places])

    def compose(self) -> ComposeResult:
        yield self.view


async def test_it_is_seen_but_neither_selected_nor_copied() -> None:
    source = "One two three.\n\n```py\nx = 1\ny = 2\n```\n\n| a |\n| - |\n| b |\n| c |\n"
    app = One(source, 7, 31, 58)
    async with app.run_test(size=(60, 24)) as pilot:
        async with asyncio.timeout(20):
            while app.view.content_size.height < 10:
                await pilot.pause(0.01)
        drawn = [app.view.render_line(y).text for y in range(app.view.content_size.height)]
        assert sum(LABEL in line for line in drawn) == 3
        selected = app.view.get_selection(SELECT_ALL)
        plain = One(source)
        assert app.view.codes == plain.view.codes == ["x = 1\ny = 2"]
        assert app.view.source == source
        assert selected is not None and LABEL not in selected[0]
        assert "One two three." in selected[0] and "x = 1\n y = 2" in selected[0]
