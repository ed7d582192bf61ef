"""The line of facts under an answer, in words: what was measured, and how it ended."""

from __future__ import annotations

import os

from infraxa.store.records import AnswerFacts, Message

BUILT_IN_MODEL = "guide"
BUILT_IN_LABEL = "built-in guide (tiny)"
READABLE_BY = "readable by this machine only"
READABLE_BY_SHORT = "this machine only"


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
        return "failed"
    if message.facts is not None and message.facts.finish == "length":
        return "cut at the limit of tokens"
    return ""


def facts_lines(facts: AnswerFacts | None) -> list[list[str]]:
    """What was measured, and who can read the answer, in words: `0.12 s to first token`, `812 tok/s`, …

    The first is complete; those after it say less and less, for where there is less room.
    """
    first: list[str] = []
    always: list[str] = []
    prompt: list[str] = []
    if facts is not None:
        if facts.first_token_ms is not None:
            first.append(f"{short_time(facts.first_token_ms)} to first token")
        if facts.tokens_per_second is not None:
            always.append(speed(facts.tokens_per_second))
        if facts.n_out:
            always.append(f"{facts.n_out} token{'s' if facts.n_out != 1 else ''}")
        if facts.n_prompt:
            cached = f", {facts.n_cached} cached" if facts.n_cached else ""
            prompt.append(f"prompt {facts.n_prompt}{cached}")
        if facts.dropped_turns:
            turns = "turn" if facts.dropped_turns == 1 else "turns"
            always.append(f"without the oldest {facts.dropped_turns} {turns}")
    return [
        [*first, *always, *prompt, READABLE_BY],
        [*first, *always, *prompt, READABLE_BY_SHORT],
        [*first, *always, READABLE_BY_SHORT],
        [*always, READABLE_BY_SHORT],
        [*always[-1:], READABLE_BY_SHORT],
    ]


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


def too_long(message: Message) -> bool:
    """Whether it failed because the conversation does not fit the model's context."""
    return message.facts is not None and message.facts.error_code == "prompt_too_long"
