"""Markdown that streams becomes the blocks of Markdown read at once, whatever the pieces, at bounded cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token
from textual.content import Content
from textual.highlight import HighlightTheme

from infraxa.app.tui.widgets.blocks import Block, Code, Plain, Prose, Table
from infraxa.app.tui.widgets.document import Document
from infraxa.app.tui.widgets.reading import MAX_DOCUMENT, MAX_INLINE, parser, read, read_plain

SHAPES = {
    "prose": "Hello **world** and `code`.\n\nTwo\n*soft* and\\\nhard.\n\n---\n\nSee https://x.y/z. End\n",
    "nested lists": "Intro:\n\n- a\n- b\n  - c\n  - d\n    - e\n- f\n\n  more of f\n- g\n\nafter\n",
    "ordered lists": "1. one\n2. two\n   goes on\n3. three\n   1. sub\n   2. s2\n4. z\n\nt\n\n7. x\n8. y\n",
    "from zero": "0. zero\n1. one\n\n1) other\n2) list\n",
    "loose list": "- a\n\n- b\n\n  second\n\n- c\n\n\n* other\n* list\n",
    "fences in lists": "- item\n\n  ```python\n  x = 1\n\n  y = 2\n  ```\n- next\n  ~~~\n  raw\n  ~~~\nend\n",
    "tables": "Before\n\n| a | b |\n|:--|--:|\n| 1 | **2** |\n| 3 | [x](h://a) |\n\nafter\n\n|z|\n|-|\n|q|\n",
    "table at the end": "x\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
    "quotes": "> quote **b**\n> more\n>\n> > deeper\n> - l\n> - m\n\nout\nlazy\n> q2\nlazy2\n",
    "headings": "# H1\ntext\n## H2\n\nSetext\n===\n\nfoo\n---\nbar\n### H3 `c`\n",
    "html": "<div>\nhi <b>x</b>\n</div>\n\npara <br> x <i>y</i>\n<!-- c -->\n",
    "links": "[a](http://b.c 'q') <http://auto.l> ![img](http://i.j/k.png) and http://bare.x/a_b, ok\n",
    "open fence": "text\n\n```py\ndef f():\n    return 1\n\n\nx = 2",
    "fences": "```\na\n```\nb\n````md\n```\nc\n```\n````\n   ```js\n   l;\n     y\n   ```\nend\n```x```y\n",
    "changes of mind": "para\n***bold*** more\npara\n```inline``` text\n- a\n-b lazy\n- c\n\npara\n1.5 is\n",
    "indented code": "para\n\n    code here\n    more\n\n      and\n\nend\n",
    "several lists": "* [ ] todo\n* [x] done\n+ plus\n",
}
SHAPES["everything"] = "\n".join(SHAPES[name] for name in SHAPES if name != "open fence")


def describe(blocks: list[Block]) -> list[object]:
    """Blocks as values that a failing test can show."""
    described: list[object] = []
    for block in blocks:
        body = block.body
        shown: object
        match body:
            case Prose():
                shown = (body.content.plain, body.fill, sorted(map(repr, body.content.spans)))
            case Code():
                shown = (body.code, body.language)
            case Table():
                rows = [[cell.plain for cell in row] for row in [list(body.head), *body.rows]]
                shown = (rows, list(body.aligns))
            case Plain():
                shown = body.text
            case _:
                shown = None
        gap = None if block.gap is None else block.gap.plain
        described.append((type(body).__name__, block.first.plain, block.rest.plain, gap, shown))
    return described


def stream(text: str, size: int) -> Document:
    document = Document()
    for start in range(0, len(text), size):
        document.append(text[start : start + size])
    return document


@pytest.mark.parametrize("size", [1, 4, 37])
@pytest.mark.parametrize("shape", SHAPES)
def test_streamed_text_looks_like_text_read_at_once(shape: str, size: int) -> None:
    text = SHAPES[shape]
    document = stream(text, size)
    assert describe(document.blocks) == describe(read(text))


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"everything"}))
def test_each_moment_of_a_stream_looks_like_the_text_so_far(shape: str) -> None:
    text = SHAPES[shape]
    document = Document()
    for end, character in enumerate(text, 1):
        document.append(character)
        assert describe(document.blocks) == describe(read(text[:end])), repr(text[:end])


PIECES = st.sampled_from(
    [
        *(
            "a",
            "word ",
            "**",
            "*",
            "`",
            "```",
            "```py\n",
            "~~~",
            "\n",
            "\n\n",
            "- ",
            "1. ",
            "7) ",
            "  ",
            "    ",
        ),
        *("> ", "#", "## ", "|", "|-|-|\n", "| a | b |\n", "---\n", "===\n", "[", "](x)", "<b>", "\\", "!["),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40))
def test_a_finished_stream_is_what_reading_at_once_gives(pieces: list[str]) -> None:
    document = Document()
    for piece in pieces:
        document.append(piece)
    document.finish()
    assert describe(document.blocks) == describe(read("".join(pieces)))


def test_a_link_whose_address_comes_at_the_end_is_a_link_when_finished() -> None:
    document = stream("see [it] there\n\nmore\n\n[it]: http://x.y\n", 4)
    document.finish()
    body = document.blocks[0].body
    assert isinstance(body, Prose)
    assert any(span.style == ".link" for span in body.content.spans)


@pytest.mark.parametrize(
    ("opening", "item"),
    [("", "paragraph\n\n"), ("", "- item\n"), ("```py\n", "x = 1\n"), ("|a|b|\n|-|-|\n", "|1|2|\n")],
)
def test_an_append_reads_only_what_is_open(opening: str, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document()
    document.append(opening + item * 200)
    before = list(document.blocks)
    lengths: list[int] = []
    parse = parser().parse

    def counting(text: str, env: dict[str, Any]) -> list[Token]:
        lengths.append(len(text))
        return parse(text, env)

    monkeypatch.setattr(parser(), "parse", counting)
    document.append(item)
    assert lengths and max(lengths) <= len(opening) + 3 * len(item)
    kept = len(before) - 2
    assert all(old is new for old, new in zip(before[:kept], document.blocks[:kept], strict=True))


def test_code_is_open_until_its_closing_line() -> None:
    document = stream("```py\nx = 1\n", 3)
    assert [block.body.open for block in document.blocks if isinstance(block.body, Code)] == [True]
    document.append("```\n")
    assert [block.body.open for block in document.blocks if isinstance(block.body, Code)] == [False]


HOSTILE = {
    "one line of a megabyte": "x" * 1_000_000,
    "words without an end": "word " * 60_000,
    "quotes in quotes": ">" * 10_000 + " end",
    "lists in lists": "- " * 10_000 + "end",
    "lists by indentation": "".join(" " * (2 * depth) + f"- level {depth}\n" for depth in range(200)) + "end",
    "brackets": "[" * 20_000 + "end",
    "stars": "*a **" * 5_000 + "end",
    "references": "[a]: b\n" * 5_000 + "\nend",
    "columns": "|" + "a|" * 500 + "\n|" + "-|" * 500 + "\n|" + "b|" * 500 + "\n\nend",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("width", [1, 20, 80])
def test_hostile_text_is_shown_to_its_end(kind: str, width: int) -> None:
    text = HOSTILE[kind]
    document = stream(text, max(1, len(text) // 7))
    document.finish()
    last = document.blocks[-1]
    height = last.height(width)
    tail = "".join(
        last.line(width, y, HighlightTheme)[1].content.plain for y in range(max(0, height - 20), height)
    )
    assert tail.replace(" ", "").endswith(text[-3:].strip() or "rd")


def test_five_thousand_items_are_items() -> None:
    document = stream("".join(f"- item {n}\n" for n in range(5000)), 500)
    assert len(document.blocks) == 5000


def test_nothing_is_lost_to_the_limit_of_nesting() -> None:
    text = ">" * 40 + " deep"
    (block,) = read(text)
    assert isinstance(block.body, Plain)
    assert block.body.text == text


def test_long_texts_are_plain() -> None:
    assert isinstance(read("a" * (MAX_INLINE + 1))[0].body, Plain)
    assert isinstance(read("a *b*\n\n" * (MAX_DOCUMENT // 6))[0].body, Plain)


def test_a_long_paragraph_is_markdown_again_after_its_end() -> None:
    document = stream("word " * 3000 + "\n\n**bold**", 100)
    body = document.blocks[-1].body
    assert isinstance(body, Prose)
    assert [span.style for span in body.content.spans] == [".strong"]


def test_markup_in_answers_is_text() -> None:
    (block,) = read("[red]x[/red] and [@click=app.quit]y[/]")
    assert isinstance(block.body, Prose)
    assert block.body.content.plain == "[red]x[/red] and [@click=app.quit]y[/]"
    assert not block.body.content.spans


def test_what_a_person_writes_is_not_markdown() -> None:
    (block,) = read_plain("# no *heading*\n\n- no list")
    assert isinstance(block.body, Prose)
    assert block.body.content.is_same(Content("# no *heading*\n\n- no list"))
