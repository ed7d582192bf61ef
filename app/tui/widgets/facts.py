"""The line of facts under an answer, in words: what was measured, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from rich.cells import cell_len

from infraxa.app.tui.widgets.bills import cost_text, state_text, tokens_text
from infraxa.app.tui.widgets.driver import THIS_MACHINE, named
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.verdicts import verdict_text
from infraxa.store.records import AnswerFacts, DriverPart, Message

BUILT_IN_MODEL = "guide"
BUILT_IN_LABEL = "built-in guide (tiny)"
READABLE_BY = "readable by this machine only"
LONG_CONNECT_MS = 200.0
"""A connection that took longer is worth a word."""
LONG_LINE_MS = 500.0
"""So is a longer wait in line."""

_WITHOUT_DRIVER = frozenset({"no_driver", "offline", "unreachable", "timeout", "refused", "expired"})
"""Errors of an answer with whose driver there was no session at all."""
BLAMES = {
    "own": "this machine's own network failed",
    "relay": "the relay in between failed",
    "peer": "the driver failed",
}
"""Whose fault it was, for each `AnswerFacts.blame`."""


def model_label(name: str) -> str:
    """What a model is called on screens: a file that was not added is called by its own name."""
    if name in (BUILT_IN_MODEL, ""):
        return BUILT_IN_LABEL
    return os.path.basename(name).removesuffix(".gguf") if os.sep in name else name


def ending(message: Message) -> str:
    """How the answer ended, when not by itself."""
    if message.state == "stopped":
        return "stopped by you"
    if message.state == "interrupted":
        return "interrupted: infraxa ended in the middle of it"
    if message.state == "failed":
        blame = message.facts.blame if message.facts is not None else ""
        return BLAMES[blame] if blame else "failed"
    if message.facts is not None and message.facts.finish == "length":
        return "cut at the limit of tokens"
    return ""


def driver_name(part: DriverPart) -> str:
    """Who wrote a part of an answer: `maple·7k2m9x4q`, or this machine."""
    return named(part.name, part.id) if part.id else THIS_MACHINE


def who_answered(facts: AnswerFacts, label: Callable[[str], str] = model_label) -> str:
    """Who gave the answer, and its model: `maple·7k2m9x4q · Qwen3 8B`; this machine's model by its label.

    Empty while no driver has said anything.
    """
    if not any(part.id for part in facts.drivers):
        return one_line(label(facts.model), 60) if facts.model else ""
    said: list[str] = []
    for part in facts.drivers:
        model = one_line(part.model, 48) if part.id else one_line(label(part.model or facts.model), 48)
        text = f"{driver_name(part)} · {model}" if model else driver_name(part)
        if not said or said[-1] != text:
            said.append(text)
    return ", then ".join(said)


def readers(facts: AnswerFacts | None) -> str:
    """Every other node that was sent the prompt; empty: none was."""
    if facts is None:
        return ""
    return ", ".join(dict.fromkeys(named(reader.name, reader.id) for reader in facts.readers))


def moved_lines(facts: AnswerFacts | None) -> list[str]:
    """Who went on in whose place, and why: a sentence for each time."""
    if facts is None:
        return []
    return [
        f"↪ {driver_name(part)} went on: {one_line(part.reason, 300)}"
        for part in facts.drivers
        if part.reason
    ]


def moved_label(part: DriverPart) -> str:
    """What stands in an answer where another driver goes on."""
    return f"↪ {driver_name(part)} goes on"


def with_part(parts: Iterable[DriverPart], part: DriverPart) -> list[DriverPart]:
    """Who wrote an answer, when `part` is told of: who had begun at the same place wrote nothing."""
    return [*(one for one in parts if one.at < part.at), part]


def moved_places(parts: Iterable[DriverPart]) -> list[DriverPart]:
    """Those that went on with the text of another."""
    return [part for part in parts if part.at]


def facts_lines(facts: AnswerFacts | None) -> list[list[str]]:
    """What was measured, what it cost, whether it was audited, who can read the answer: `0.12 s to first
    token`, `812 tok/s`, …

    The first is complete; those after it say less and less, for where there is less room. Who can read it is
    said whole in all of them.
    """
    first: list[str] = []
    always: list[str] = []
    prompt: list[str] = []
    money: list[str] = []
    if facts is not None:
        if facts.first_token_ms is not None:
            first.append(f"{short_time(facts.first_token_ms)} to first token")
        if facts.tokens_per_second is not None:
            always.append(speed(facts.tokens_per_second))
        if tokens := tokens_text(facts):
            always.append(tokens)
        money = _outcome(facts)
        if facts.n_prompt:
            cached = f", {facts.n_cached} cached" if facts.n_cached else ""
            prompt.append(f"prompt {facts.n_prompt}{cached}")
        if facts.dropped_turns:
            turns = "turn" if facts.dropped_turns == 1 else "turns"
            always.append(f"without the oldest {facts.dropped_turns} {turns}")
        if facts.wait_ms is not None and facts.wait_ms >= LONG_LINE_MS:
            first.insert(0, f"{short_time(facts.wait_ms)} in line")
        if facts.connect_ms is not None and facts.connect_ms >= LONG_CONNECT_MS:
            first.insert(0, f"connected in {short_time(facts.connect_ms)}")
    others = readers(facts)
    readable = f"readable by {others} only" if others else READABLE_BY
    return [
        [*first, *always, *prompt, *money, readable],
        [*first, *always, *money, readable],
        [*always, *money, readable],
        [*always[-1:], *money, readable],
        [*money, readable],
        [readable],
    ]


def _outcome(facts: AnswerFacts) -> list[str]:
    """What it cost, and what came of it since: never left out."""
    return [word for word in (cost_text(facts), state_text(facts), verdict_text(facts)) if word]


def facts_rows(facts: AnswerFacts | None, width: int, before: int = 0) -> list[list[str]]:
    """The facts in at most `width` cells, after `before` cells of something else: what there is room for in
    one row; what it cost, what came of its audit and who can read it in two rows where one is too short."""
    lines = facts_lines(facts)
    money = _outcome(facts) if facts is not None else []
    for line in lines:
        if set(money) <= set(line) and before + _cells(line) <= width:
            return [line]
    if not money:
        return [lines[-1]]
    fitting = (line[:-1] for line in lines if len(line) > 1 and before + _cells(line[:-1]) <= width)
    return [next(fitting, money), lines[-1]]


def _cells(line: list[str]) -> int:
    return sum(cell_len(fact) for fact in line) + 3 * (len(line) - 1)


def speed(rate: float) -> str:
    """Tokens per second, as three digits: `812 tok/s`, `33.8 tok/s`."""
    return f"{rate:.0f} tok/s" if rate >= 100 else f"{rate:.1f} tok/s"


def short_time(milliseconds: float) -> str:
    """`4 ms` or `1.25 s`: three digits at most."""
    return f"{milliseconds:.0f} ms" if milliseconds < 99.5 else f"{milliseconds / 1000:.2f} s"


def can_continue(message: Message) -> bool:
    """Whether the answer can go on where it ended."""
    if message.role != "assistant" or message.state == "streaming" or not message.content:
        return False
    cut = message.facts is not None and message.facts.finish == "length"
    return message.state in ("stopped", "failed", "interrupted") or cut


def can_move(message: Message) -> bool:
    """Whether another driver can be asked to go on, as the one that was asked failed."""
    facts = message.facts
    if message.role != "assistant" or message.state != "failed" or facts is None:
        return False
    away = facts.readers or facts.blame or any(part.id for part in facts.drivers)
    return bool(away) or facts.error_code in _WITHOUT_DRIVER


def too_long(message: Message) -> bool:
    """Whether it failed because the conversation does not fit the model's context."""
    return message.facts is not None and message.facts.error_code == "prompt_too_long"
