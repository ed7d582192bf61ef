"""What drivers are asked to commit to, and which receipts do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.app import verifying
from infraxa.app.verifying import Asked, Kept
from infraxa.engine.transcript import output_hash
from infraxa.net import codec, deals, orders, wire
from infraxa.net.prompts import Format, Prompt, Tool, Turn, encode_prompt
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE
from tests.app.lies import run

ORDER = wire.Order(bytes(16), bytes(32), 1)
PROMPT = Prompt((Turn("user", "?"),))
BOTH = MODE_MERKLE | MODE_FRAUD_PROOF
TOOL = Tool("look")
DRAW = bytes([2]) * 32
KEPT = Kept(
    provider=bytes(32),
    order=replace(ORDER, mode="merkle"),
    prompt=replace(PROMPT, salt=bytes([1]) * 32, draw=bytes([3]) * 32),
    secret=bytes(32),
    commit=codec.digest("draw", DRAW),
    draw=DRAW,
    checkpoints=(),
    ids=(5, 6, 7),
    steps=3,
    most=400,
    size=1,
    finish="stop",
)
SAID = deals.Transcript(
    "merkle", bytes(32), 3, bytes(32), output_hash(KEPT.prompt.salt, KEPT.ids), KEPT.prompt.draw, DRAW
)
RECEIPT = replace(run().said, outcome="stop", transcript=SAID)


@pytest.mark.parametrize(
    ("setting", "modes", "asked"),
    [
        ("fraud_proof", BOTH, Asked("fraud_proof")),
        ("fraud_proof", MODE_MERKLE, Asked("merkle")),
        ("fraud_proof", 0, Asked("none", "not_offered")),
        ("merkle", BOTH, Asked("merkle")),
        ("merkle", MODE_FRAUD_PROOF, Asked("none", "not_offered")),
        ("none", BOTH, Asked("none", "own_setting")),
    ],
)
def test_what_is_wanted_and_offered_is_asked_for(setting: wire.Mode, modes: int, asked: Asked) -> None:
    assert verifying.asked(setting, modes, ORDER, PROMPT) == asked


@pytest.mark.parametrize(
    ("order", "prompt", "can"),
    [
        ({}, {}, True),
        ({"repeat_penalty": 1_100_000}, {}, False),
        ({"presence_penalty": 1}, {}, False),
        ({"frequency_penalty": -1}, {}, False),
        ({"texts": 1}, {}, False),
        ({"seed": 1}, {}, False),
        ({"seed": 1, "temperature": 0}, {}, True),
        ({"logprobs": 5}, {}, True),
        ({}, {"format": Format("json_object")}, False),
        ({}, {"tools": (TOOL,)}, True),
        ({}, {"tools": (TOOL,), "tool_choice": "required"}, False),
        ({}, {"tools": (TOOL,), "tool_choice": "look"}, False),
    ],
)
def test_what_cannot_be_verified_is_not_asked_for(
    order: dict[str, Any], prompt: dict[str, Any], can: bool
) -> None:
    found = verifying.asked("merkle", BOTH, replace(ORDER, **order), replace(PROMPT, **prompt))
    assert found == (Asked("merkle") if can else Asked("none", "sampling"))


def test_an_order_commits_to_its_prompt_and_its_secret() -> None:
    made = iter([bytes([n]) * 32 for n in (7, 8, 9)])
    secrets = verifying.drawn(lambda size: next(made))
    prompt = verifying.salted(PROMPT, secrets)
    encoded = encode_prompt(prompt)
    order = verifying.committing(replace(ORDER, prompt_bytes=len(encoded)), "merkle", secrets, encoded)
    orders.check_order(order)
    assert order.prompt_hash == codec.digest("prompt", encoded)
    assert order.audit == codec.digest("audit", secrets.audit)
    assert len({secrets.audit, prompt.salt, prompt.draw}) == 3


CUT = replace(KEPT, steps=0, finish="")
"""Of an answer whose end did not come."""


def fits(
    kept: Kept = KEPT, said: deals.Transcript | None = SAID, outcome: Any = "stop", charge: int = 1
) -> bool:
    receipt = replace(RECEIPT, transcript=said, outcome=outcome, charge=charge)
    return verifying.fits(kept, receipt, output_hash)


def test_a_receipt_that_commits_to_what_came_fits() -> None:
    assert fits()
    # Something that is no token of the answer ended it.
    assert fits(replace(KEPT, steps=4), replace(SAID, steps=4, output=bytes(32)))


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "fraud_proof"},
        {"mode": "none"},
        {"steps": 2},
        {"steps": 4},
        {"output": bytes(32)},
        {"draw_u": bytes(32)},
        {"draw_p": bytes(32)},
    ],
)
def test_one_that_commits_to_something_else_does_not(change: dict[str, Any]) -> None:
    assert not fits(said=replace(SAID, **change))


def test_nothing_has_to_be_committed_to_where_nothing_came_to_an_end() -> None:
    nothing = replace(CUT, ids=(), draw=b"")
    for outcome in ("failed", "cancelled"):
        assert fits(nothing, None, outcome)
        # A driver that was restarted does not know what it had sent, and asks for nothing.
        assert fits(KEPT, None, outcome, charge=0) and fits(CUT, None, outcome, charge=0)
    assert not fits(said=None) and not fits(said=None, outcome="length", charge=0)


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
@pytest.mark.parametrize(
    "kept",
    [
        KEPT,
        CUT,
        replace(CUT, ids=(), text="?"),
        replace(CUT, ids=(), checkpoints=(orders.Checkpoint(64, bytes(32), bytes(64)),)),
        replace(KEPT, ids=(), steps=0),
    ],
    ids=["whole", "tokens", "text", "checkpoint", "end"],
)
def test_who_is_paid_for_what_came_commits_to_it(kept: Kept, outcome: str) -> None:
    assert not fits(kept, None, outcome)


@pytest.mark.parametrize("outcome", ["length", "failed", "cancelled"])
def test_an_answer_ends_as_its_driver_said(outcome: str) -> None:
    assert not fits(outcome=outcome) and not fits(outcome=outcome, charge=0)
    if outcome != "length":
        assert fits(CUT, outcome=outcome)


@given(st.integers(0, 200), st.integers(0, 3), st.integers(0, 300))
def test_what_was_stopped_covers_at_least_what_came(ids: int, checkpoints: int, steps: int) -> None:
    point = orders.Checkpoint(64, bytes(32), bytes(64))
    kept = replace(CUT, ids=tuple(range(ids)), checkpoints=(point,) * checkpoints)
    covers = steps >= max(ids, 64 * checkpoints)
    assert fits(kept, replace(SAID, steps=steps), "cancelled") == covers


def test_there_are_no_more_steps_than_there_can_be() -> None:
    assert fits(CUT, replace(SAID, steps=KEPT.most), "cancelled")
    assert not fits(CUT, replace(SAID, steps=KEPT.most + 1), "cancelled")


def test_what_was_said_is_not_shown() -> None:
    kept = replace(KEPT, prompt=Prompt((Turn("user", "a secret"),)))
    assert "secret" not in repr(kept) and "5, 6" not in repr(kept)
