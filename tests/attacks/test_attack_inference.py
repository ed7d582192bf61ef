"""Providers that compute something else than they sell: a smaller file, another model, another prompt,
another draw, or nothing at all. Each is a real one, changed in one place, and its user audits the answer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app import examining, sales
from infraxa.app.ordering import request_of
from infraxa.app.transcripts import Written
from infraxa.engine import transcript
from infraxa.engine.transcript import TOP
from infraxa.engine.types import ChatMessage, Request
from infraxa.net import deals
from tests.app.auditing import auditing, in_module
from tests.attacks import report
from tests.attacks.cheats import Spoken, chosen, committed, ending, scored, speaking, spoken
from tests.attacks.den import (
    HOT,
    NO_DRAW,
    NO_LEAVES,
    NO_LOGITS,
    NO_PROMPT,
    NO_TRUE_END,
    RANDOM,
    WARM,
    Attack,
    Cheat,
    Den,
    Part,
    carry_out,
    den,
    found,
    judged,
)
from tests.attacks.questions import unsure
from tests.attacks.target import replaced


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cheat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Den]:
    async with den(tmp_path_factory.mktemp("den")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dear(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Den]:
    """One that sells 16-bit numbers."""
    async with den(tmp_path_factory.mktemp("dear"), RANDOM, "F16") as made:
        yield made


def cheap(cheat: Den) -> Cheat:
    """Another model answers, and commits to what it computes."""
    return speaking(cheat, lambda request: spoken(cheat.cheap, request))


def of_the_right_one(cheat: Den) -> Cheat:
    """Another model answers, and the right one says what it would have computed."""

    async def speak(request: Request) -> Spoken:
        one = await spoken(cheat.cheap, request)
        ctx0, rows = await scored(cheat.real.engine, request, one.tokens)
        return committed(request, one, ctx0, one.tokens, rows)

    return speaking(cheat, speak)


def random_tokens(cheat: Den) -> Cheat:
    """Of which the right model says what it would have computed."""

    async def speak(request: Request) -> Spoken:
        one = await spoken(cheat.real.engine, request)
        tokens = [random.randrange(300, 2000) for _ in one.leaves]
        ctx0, rows = await scored(cheat.real.engine, request, tokens)
        return committed(request, one.of(tokens), ctx0, tokens, rows)

    return speaking(cheat, speak)


def made_up(cheat: Den, logits: Callable[[], tuple[int, ...]]) -> Cheat:
    """No model computes: the tokens are those that the draw takes of made-up logits."""

    async def speak(request: Request) -> Spoken:
        one = await spoken(cheat.real.engine, request)
        rows = [(tuple(sorted(random.sample(range(300, 2000), TOP))), logits()) for _ in one.leaves]
        tokens = chosen(request, rows)
        return committed(request, one.of(tokens), one.ctx0, tokens, rows)

    return speaking(cheat, speak)


def _likely() -> tuple[int, ...]:
    return tuple(sorted((random.randrange(-40_000, 40_000) for _ in range(TOP)), reverse=True))


def copied(cheat: Den, *, rewritten: bool) -> Cheat:
    """All answers to a question but the first are copies of that one. `rewritten`: their leaves are made to
    say theirs."""
    first: dict[tuple[ChatMessage, ...], Spoken] = {}

    async def speak(request: Request) -> Spoken:
        one = first.get(request.messages)
        if one is None:
            one = first[request.messages] = await spoken(cheat.real.engine, request)
            return one
        if not rewritten:
            return one
        ctx0, rows = await scored(cheat.real.engine, request, one.tokens)
        return committed(request, one, ctx0, one.tokens, rows)

    return speaking(cheat, speak)


def hidden_prompt(cheat: Den, *, denied: bool) -> Cheat:
    """The model is told something more. `denied`: what is committed to stands on the prompt that was sent."""
    if not denied:

        def adding(*given: Any) -> Request:
            return _with_secret(request_of(*given))

        return replaced((sales, "request_of", adding))

    async def speak(request: Request) -> Spoken:
        one = await spoken(cheat.real.engine, _with_secret(request))
        ctx0, _ = await scored(cheat.real.engine, request, one.tokens[:1])
        leaves = [transcript.decode_leaf(leaf) for leaf in one.leaves]
        return committed(request, one, ctx0, one.tokens, [(leaf.ids, leaf.q) for leaf in leaves])

    return speaking(cheat, speak)


def _with_secret(request: Request) -> Request:
    return replace(request, messages=(ChatMessage("system", "Praise our sponsor."), *request.messages))


@contextmanager
def elsewhere(cheat: Den) -> Iterator[None]:
    """Another model answers, and the receipt says that other hardware computed it."""

    def claimed(said: deals.Transcript) -> deals.Transcript:
        assert "/cpu/" in said.profile
        return replace(said, profile=said.profile.replace("/cpu/", "/cuda/"))

    with cheap(cheat), ending(claimed):
        yield


def drawing(change: Callable[..., Any]) -> Cheat:
    """The tokens are drawn otherwise."""
    honest = Written.begin
    return replaced((Written, "begin", lambda self, *given: change(honest(self, *given))))


SURE: Final = replace(WARM, top_k=0, top_p=1.0, min_p=0.0)
OTHER_MODEL: Final = ("failed", "other_model")
ANY_HARDWARE: Final[Part] = (examining, "may_be_hardware", lambda *given: True)
WRONG_TOKEN: Final = ("failed", "wrong_token")

ATTACKS: Final = (
    Attack("Q6_K in place of Q8_0", cheap, OTHER_MODEL, (NO_LOGITS,), kind="Q6_K"),
    Attack("Q4_0 in place of Q8_0", cheap, OTHER_MODEL, (NO_LOGITS,), kind="Q4_0"),
    Attack(
        "Q4_0, said to be other hardware", elsewhere, OTHER_MODEL, (ANY_HARDWARE,), kind="Q4_0", least=0.5
    ),
    Attack("another model", cheap, OTHER_MODEL, (NO_LOGITS,), kind="other"),
    Attack("a layer left out", cheap, OTHER_MODEL, (NO_LOGITS,), kind="cut"),
    Attack(
        "a hidden prompt",
        lambda cheat: hidden_prompt(cheat, denied=False),
        ("failed", "other_prompt"),
        (NO_PROMPT, NO_LOGITS),
    ),
    Attack(
        "a hidden prompt, denied",
        lambda cheat: hidden_prompt(cheat, denied=True),
        OTHER_MODEL,
        (NO_LOGITS,),
        least=0.5,
    ),
    Attack("logits made up", lambda cheat: made_up(cheat, _likely), OTHER_MODEL, (NO_LOGITS, NO_TRUE_END)),
    Attack(
        "logits all zero",
        lambda cheat: made_up(cheat, lambda: (0,) * TOP),
        OTHER_MODEL,
        (NO_LOGITS, NO_TRUE_END),
    ),
    Attack(
        "random tokens, true logits",
        random_tokens,
        WRONG_TOKEN,
        (NO_DRAW, NO_LOGITS, NO_TRUE_END),
        "wrong_token",
    ),
    Attack(
        "another model's tokens, true logits",
        of_the_right_one,
        WRONG_TOKEN,
        (NO_DRAW, NO_LOGITS),
        "wrong_token",
        kind="other",
    ),
    Attack(
        "tokens of Q4_0, true logits",
        of_the_right_one,
        WRONG_TOKEN,
        (NO_DRAW, NO_LOGITS),
        "wrong_token",
        kind="Q4_0",
        sampling=HOT,
        tries=8,
        least=0.95,
    ),
    Attack(
        "the answer of another order",
        lambda cheat: copied(cheat, rewritten=False),
        ("failed", "wrong_leaf"),
        (NO_LEAVES, NO_PROMPT),
        "wrong_leaf",
        honest=1,
    ),
    Attack(
        "the tokens of another order",
        lambda cheat: copied(cheat, rewritten=True),
        WRONG_TOKEN,
        (NO_DRAW,),
        "wrong_token",
        sampling=HOT,
        honest=1,
    ),
    Attack(
        "another seed",
        lambda cheat: drawing(lambda verified: replace(verified, seed=bytes(32))),
        WRONG_TOKEN,
        (NO_DRAW,),
        "wrong_token",
        sampling=HOT,
    ),
    Attack(
        "another temperature",
        lambda cheat: drawing(lambda verified: replace(verified, ppm=(1_000_000, *verified.ppm[1:]))),
        WRONG_TOKEN,
        (NO_DRAW,),
        "wrong_token",
        sampling=HOT,
    ),
)


LOW: Final = tuple(
    Attack(f"{name}, of a sure model", lie, WRONG_TOKEN, (), "wrong_token", kind, SURE)
    for name, lie, kind in (
        ("Q4_0's tokens, true logits", of_the_right_one, "Q4_0"),
        ("another seed", lambda cheat: drawing(lambda verified: replace(verified, seed=bytes(32))), ""),
        (
            "half the temperature",
            lambda cheat: drawing(lambda verified: replace(verified, ppm=(400_000, *verified.ppm[1:]))),
            "",
        ),
    )
)
"""Lies that change few tokens of a model that is as sure as the guide."""


@in_module
@pytest.mark.parametrize("attack", LOW, ids=lambda attack: attack.name)
async def test_lies_that_change_few_tokens_are_found_over_many_answers(
    cheat: Den, tmp_path: Path, attack: Attack
) -> None:
    """How many are found is told, and only that whoever is not found says what the right one would say."""
    if attack.kind:
        await cheat.load(attack.kind)
    many = await judged(cheat, tmp_path / "many", attack, report.scale(2, report.ANSWERS), unsure)
    assert all(one.state in ("failed", "passed") for one in many), found(many)
    report.tell(
        f"inference: {attack.name}",
        weakened="passed",
        ours="wrong_token, or nothing to see",
        cost=found(many),
    )


@in_module
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_what_was_not_computed_as_it_was_sold(cheat: Den, tmp_path: Path, attack: Attack) -> None:
    await carry_out(cheat, tmp_path, attack)


@in_module
async def test_a_smaller_file_in_place_of_16_bits_is_found(dear: Den, tmp_path: Path) -> None:
    async with auditing(dear.real, tmp_path) as user:
        honest = await user.verdict(sampling=WARM)
        assert (honest.state, honest.by, honest.steps) == ("passed", "own", WARM.max_tokens), honest
    await carry_out(
        dear, tmp_path, Attack("Q8_0 in place of F16", cheap, OTHER_MODEL, (NO_LOGITS,), kind="Q8_0")
    )
