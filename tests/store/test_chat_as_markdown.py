"""A chat as Markdown, read back by a CommonMark parser: what belongs to which turn is never in doubt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from infraxa.store.markdown import to_markdown
from infraxa.store.records import (
    AnswerFacts,
    Chat,
    ChatOptions,
    DriverPart,
    Message,
    MessageRole,
    MessageState,
    Reader,
    Turn,
)

PARSER = MarkdownIt("commonmark").enable("table")


def turn(
    text: str,
    role: MessageRole = "assistant",
    state: MessageState = "complete",
    facts: AnswerFacts | None = None,
    error: str = "",
) -> Turn:
    return Turn(Message("m", "c", None, role, text, state, 0, facts, error), ("m",))


def chat(title: str = "A chat", system: str | None = None) -> Chat:
    return Chat("c", title, 0, 0, None, ChatOptions(system=system))


def tokens(document: str) -> list[Token]:
    return PARSER.parse(document)


def headings(document: str) -> list[tuple[str, str]]:
    """The headings of levels 1 and 2 that are not within anything else."""
    found = tokens(document)
    return [
        (token.tag, found[at + 1].content)
        for at, token in enumerate(found)
        if token.type == "heading_open" and token.level == 0 and token.tag in {"h1", "h2"}
    ]


def test_the_whole_document() -> None:
    facts = AnswerFacts("guide", "stop", 9, 0, 412, 1250.0, 12_000.0, 33.81)
    turns = [
        turn("What is a driver?", "user"),
        Turn(
            Message("b", "c", "m", "assistant", "The provider you chose.\n", "complete", 0, facts), ("a", "b")
        ),
        turn("Thanks", "user"),
        turn("", state="failed", error="The model ended. Try again."),
    ]
    assert (
        to_markdown(chat("On *drivers*", "Be brief."), turns)
        == r"""# On \*drivers\*

## System

Be brief.

## User

What is a driver?

## Assistant

The provider you chose.

*guide · 1.25 s to first token · 33.8 tok/s · 412 tokens · readable by this machine only · version 2 of 2*

## User

Thanks

## Assistant

*failed: The model ended. Try again.*
"""
    )


def test_a_chat_without_anything() -> None:
    assert to_markdown(chat(""), []) == "# Untitled chat\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain *text*\n\n- a\n- b", None),
        ("### Third\n#### Fourth", None),
        ("```py\n# not a heading\nprint('`')\n```", None),
        ("    # code by indentation", None),
        ("a `# b` c", None),
        ("# Top\n## Below\ntext", "### Top\n#### Below\ntext"),
        ("## Only", "### Only"),
        ("Title\nin two lines\n===\ntext", "### Title in two lines\ntext"),
        ("# One\n##### Five\n###### Six", "### One\n###### Five\n###### Six"),
        ("```\n# code\n```\n# Real ##", "```\n# code\n```\n### Real ##"),
        ("#", "###"),
        ("- # in a list", None),
        ("```py\ncut off", "```py\ncut off\n```"),
        ("~~~~\n```\n~~~", "~~~~\n```\n~~~\n~~~~"),
        ("# Top\n````\ncut off\n```", "### Top\n````\ncut off\n```\n````"),
        ("<!-- left open", "\\<!-- left open"),
        ("<script>\n# Top", "\\<script>\n### Top"),
        ("<div>\n\ntext", None),
        ("1. ```\n   in a list", None),
    ],
)
def test_what_a_turn_says(text: str, expected: str | None) -> None:
    document = to_markdown(chat(), [turn(text), turn("next", "user")])
    assert document == f"# A chat\n\n## Assistant\n\n{expected or text}\n\n## User\n\nnext\n"


MARKS = (
    "``` ~~~ ```` ```py # #\ta ##\tUser === --- - 1. > <!-- --> <script> <pre> <? <![CDATA[ <!X </div> <div> "
    "` |a|b| |-|-| [a]: x *** * _ &lt; \\"
)
SPACES = ["\n", "\n\n", " ", "    ", "\t", "\r", "\0", "\u2028", "\x0c", "a\n===\n", "b\n---\n"]
FRAGMENTS = st.sampled_from([*MARKS.split(" "), *SPACES])
HOSTILE = st.lists(FRAGMENTS, max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.booleans(), HOSTILE), max_size=4), HOSTILE)
def test_turns_stay_apart_whatever_they_say(said: list[tuple[bool, str]], title: str) -> None:
    turns = [turn(text, "user" if person else "assistant") for person, text in said]
    document = to_markdown(chat("T" + title), turns)
    names = [("h2", "User" if person else "Assistant") for person, _ in said]
    assert headings(document)[1:] == names
    assert headings(document)[0][0] == "h1"


def test_it_says_who_answered_and_who_could_read() -> None:
    maple, cedar = "7k2m" * 13, "9x4q" * 13
    parts = (DriverPart(maple, "maple", "Qwen3 8B"), DriverPart(cedar, "", "Qwen3 8B", 12), DriverPart(at=40))
    readers = (Reader(maple, "maple"), Reader("4b8a" * 13, "elm"), Reader(cedar), Reader(maple, "maple"))
    facts = AnswerFacts("guide", drivers=parts, readers=readers)
    assert to_markdown(chat(), [turn("Yes.", facts=facts)]).splitlines()[-1] == (
        f"*answered by maple ({maple}) (Qwen3 8B), then {cedar} (Qwen3 8B), then this machine"
        f" · readable by maple ({maple}), elm ({'4b8a' * 13}), {cedar} only*"
    )


@settings(max_examples=100, deadline=None)
@given(HOSTILE)
def test_names_and_errors_stay_in_their_line(text: str) -> None:
    part, reader = DriverPart("7k2m", text, text), Reader("7k2m", text)
    facts = AnswerFacts(model=text, drivers=(part,), readers=(reader,))
    document = to_markdown(chat(), [turn("a", state="failed", error=text, facts=facts), turn("b", "user")])
    assert headings(document) == [("h1", "A chat"), ("h2", "Assistant"), ("h2", "User")]
    paragraphs = [token.content for token in tokens(document) if token.type == "inline"]
    assert len(paragraphs) == 6


@given(st.lists(st.text("ab#`\n~ ", max_size=30), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_code_is_kept_to_the_letter(codes: list[str]) -> None:
    text = "# Answer\n\n" + "\n\n".join(
        f"~~~~~~~~~~py\n{code.replace('~', '')}\n~~~~~~~~~~" for code in codes
    )
    before = [token.content for token in tokens(text) if token.type == "fence"]
    after = [token.content for token in tokens(to_markdown(chat(), [turn(text)])) if token.type == "fence"]
    assert len(before) == len(codes)
    assert after == before


def test_a_text_with_too_much_left_open_is_quoted() -> None:
    document = to_markdown(chat(), [turn("<!--\n" * 1000), turn("next", "user")])
    assert headings(document) == [("h1", "A chat"), ("h2", "Assistant"), ("h2", "User")]
    assert "\n> <!--\n" in document
