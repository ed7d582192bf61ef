"""Blocks fill lines of any width: nothing is wider or lost, and what was wrapped can be joined again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.content import Content
from textual.highlight import HighlightTheme

from infraxa.app.tui.widgets.blocks import MIN_TEXT_WIDTH, Block, Code, Line, Plain, Table, wrap
from infraxa.app.tui.widgets.reading import read


def lines_of(block: Block, width: int) -> list[str]:
    pairs = [block.line(width, y, HighlightTheme) for y in range(block.height(width))]
    return [prefix.plain + line.content.plain for prefix, line in pairs]


def joined(lines: list[Line]) -> str:
    return "".join(line.content.plain + line.join for line in lines).removesuffix("\n")


TEXT = st.text(alphabet=st.sampled_from("ab -,日本é\n"), max_size=200)


@given(TEXT, st.integers(2, 40))
def test_wrapped_lines_fit(text: str, width: int) -> None:
    assert all(cell_len(line.content.plain) <= width for line in wrap(Content(text), width))


@given(st.lists(st.sampled_from(["word", "日本語", "longer-word", "x"]), max_size=30), st.integers(2, 40))
def test_wrapped_lines_are_joined_to_the_text_they_came_from(words: list[str], width: int) -> None:
    text = " ".join(words)
    assert joined(wrap(Content(text), width)) == text


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5), st.integers(24, 90))
def test_tables_fit_and_keep_every_word(rows: list[tuple[str, str, str]], width: int) -> None:
    cells = [[Content(" ".join(cell.split())) for cell in row] for row in rows]
    block = Block(Table(cells[0], cells[1:], ["left", "right", "center"]))
    lines = lines_of(block, width)
    assert all(cell_len(line) <= width for line in lines)
    shown = "".join("".join(lines).split())
    for row in cells:
        for cell in row:
            assert all(letter in shown for letter in cell.plain.replace(" ", ""))


def test_the_widest_column_gives_way_first() -> None:
    table = Table([Content("a"), Content("b")], [[Content("w" * 100), Content("short")]], [])
    rows = lines_of(Block(table), 40)
    assert max(map(len, rows)) == 40
    assert sum("short" in row for row in rows) == 1


def test_numbers_stand_at_the_right() -> None:
    table = Table([Content("name"), Content("n")], [[Content("x"), Content("1")]], ["left", "right"])
    table.head = [Content("name"), Content("count")]
    assert lines_of(Block(table), 40)[-1] == "x    │     1"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_code_is_folded_and_whole(width: int) -> None:
    source = "def f(x):\n    return x + 1  # " + "a" * 100 + "\n\ttabbed\n日本語" * 20
    block = Block(Code(source, "python"))
    lines = [block.line(width, y, HighlightTheme)[1] for y in range(block.height(width))]
    assert all(cell_len(line.content.plain) <= width for line in lines)
    code = "".join(line.content.plain[1:] + line.join for line in lines[1:])
    assert code.removesuffix("\n") == source.expandtabs(4)


def test_code_has_colours_only_when_it_is_closed() -> None:
    def spans(code: Code) -> int:
        return len(code.line(40, 1, HighlightTheme).content.spans)

    assert spans(Code("import os", "python", open=True)) == 0
    assert spans(Code("import os", "python")) > 0
    assert spans(Code("import os", "")) == 0


@pytest.mark.parametrize("language", ["python", "no-such-language", "c++", "html", "diff", "console"])
def test_any_language_is_shown(language: str) -> None:
    block = Block(Code("a = '<b>'\r\n\x0c x", language))
    assert lines_of(block, 40)[0].split() == [language, "copy"]


def test_deep_prefixes_leave_room_for_the_text() -> None:
    blocks = read("> > > > - - - - - - a text that needs some room, even here")
    assert all(cell_len(line) <= 20 for line in lines_of(blocks[-1], 20))
    assert blocks[-1].height(20) <= -(-58 // (MIN_TEXT_WIDTH - 8))


@given(st.text(alphabet=st.sampled_from("ab \t日\n"), max_size=100), st.integers(2, 20))
def test_plain_text_is_folded_and_whole(text: str, width: int) -> None:
    plain = Plain(text)
    lines = [plain.line(width, y, HighlightTheme) for y in range(plain.height(width))]
    assert all(cell_len(line.content.plain) <= width for line in lines)
    assert joined(lines) == text.expandtabs(4).removesuffix("\n") or text.endswith("\n")
