"""How tests have canaries sent: one after each answer, without waiting for it."""

from __future__ import annotations

import pytest

from infraxa.app import canary_rules
from infraxa.app.canary_rules import Habits
from infraxa.app.canary_texts import Author


def soon(monkeypatch: pytest.MonkeyPatch, asks: str = "") -> None:
    """`asks`: what they ask, with two question marks and more."""
    monkeypatch.setattr(canary_rules, "AFTER", 1000.0)  # however many turns they have
    monkeypatch.setattr(canary_rules, "typing_s", lambda rng, chars: 0.01)
    monkeypatch.setattr(canary_rules, "looks_s", lambda rng: 0.01)
    monkeypatch.setattr(Habits, "delay_s", lambda self, rng: 0.05)
    if asks:
        number = iter(range(2, 1000))
        monkeypatch.setattr(Author, "question", lambda self, persona, chars: asks + "?" * next(number))
