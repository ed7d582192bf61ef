"""The line of facts under an answer, in words: what was measured, and how it ended."""

from __future__ import annotations

from infraxa.store.records import AnswerFacts, Message

BUILT_IN_MODEL = "guide"
BUILT_IN_LABEL = "built-in guide (tiny)"
READABLE_BY = "readable by this machine only"


def model_label(name: str) -> str:
    """What a model is called on screens."""
    return BUILT_IN_LABEL if name in (BUILT_IN_MODEL, "") else name


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


def facts_line(facts: AnswerFacts) -> str:
    """`0.12 s to first token · 812 tok/s · 45 tokens · …`; only what was measured."""
    parts: list[str] = []
    if facts.first_token_ms is not None:
        parts.append(f"{short_time(facts.first_token_ms)} to first token")
    if facts.tokens_per_second is not None:
        rate = facts.tokens_per_second
        parts.append(f"{rate:.0f} tok/s" if rate >= 100 else f"{rate:.1f} tok/s")
    if facts.n_out:
        parts.append(f"{facts.n_out} token{'s' if facts.n_out != 1 else ''}")
    if facts.n_prompt:
        prompt = f"prompt {facts.n_prompt}"
        parts.append(f"{prompt}, {facts.n_cached} cached" if facts.n_cached else prompt)
    if facts.dropped_turns:
        parts.append(
            f"without the oldest {facts.dropped_turns} turn{'s' if facts.dropped_turns != 1 else ''}"
        )
    return " · ".join(parts)


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
