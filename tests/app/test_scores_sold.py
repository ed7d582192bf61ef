"""A provider computes the steps of answers of others: what it is paid for, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infraxa.app import line, turns
from infraxa.engine.types import EngineError, Request, Scored, ScoredRow
from infraxa.net.orders import Claimed, Done, Placed
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, Progressed, Vector
from infraxa.net.records import DOES_SCORES
from infraxa.net.sale import Sale
from infraxa.net.scores import Scoring
from tests.app.selling import QUESTION, Shop
from tests.app.tills import Payer, engine_of, facts_of, payer, selling_at
from tests.net.nodes import until

ANSWER = tuple(range(100, 140))
STEPS = (0, 7, 39)
ASKED = Prompt(
    (Turn("user", QUESTION),),
    answer=struct.pack("<40I", *ANSWER),
    steps=STEPS,
    kv_type="q8_0",
    ends=("END",),
    chars=7,
)
N_PROMPT = 25
N_READ = N_PROMPT + STEPS[-1]
TEXT = b"t" * 32
ROW = ScoredRow(struct.pack("<2I", 5, 7), struct.pack("<2i", 9, -9))


class Asked:
    """Scores that the engine was asked for, and what comes of them."""

    def __init__(
        self, request: Request, answer: tuple[int, ...], steps: tuple[int, ...], more: dict[str, Any]
    ) -> None:
        self.request = request
        self.answer = answer
        self.steps = steps
        self.kv_type: str = more["kv_type"]
        self.chars: int = more["chars"]
        self.most: int = more["most"]
        self.progress: Callable[[float], None] = more["on_progress"]
        self.made: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()

    def make(self) -> None:
        """As the engine, which computes nothing that is not paid for."""
        budget = self.request.budget
        if budget is not None and (budget.tokens(N_PROMPT + self.steps[-1]) or 0) < 0:
            self.made.set_exception(EngineError("over_budget", "It costs more than it may."))
            return
        scored = Scored(N_PROMPT, bytes(4 * N_PROMPT), (ROW,) * len(self.steps), 39, TEXT)
        self.made.set_result(scored)


@asynccontextmanager
async def scoring(folder: Path, **settings: Any) -> AsyncIterator[tuple[Shop, Payer, list[Asked]]]:
    """A provider with an engine that scores when the test says so, and a user."""
    async with selling_at(folder, **settings) as (shop, _):
        asked: list[Asked] = []

        async def score(request: Request, answer: Any, steps: Any, **more: Any) -> Scored:
            assert request.messages[0].content == QUESTION
            asked.append(Asked(request, answer, steps, more))
            return await asked[-1].made

        engine_of(shop).score = score  # type: ignore[attr-defined]
        yield shop, await payer(shop), asked


async def begin(payer: Payer, asked: list[Asked], **order: Any) -> tuple[asyncio.Task[list[Item]], Asked]:
    """An order that the engine works on."""
    before = len(asked)
    bought = asyncio.ensure_future(payer.user.bought(prompt=ASKED, scores=len(STEPS), **order))
    await until(lambda: len(asked) > before or bought.done())
    if bought.done():
        await bought
    return bought, asked[-1]


async def test_scores_are_sold_by_what_is_read(tmp_path: Path) -> None:
    async with scoring(tmp_path) as (shop, user, asked):

        async def noise(*given: object) -> float:
            return 0.0776

        shop.provider.noise = noise
        order = await user.order()
        bought, score = await begin(user, asked, **order)
        assert (score.answer, score.steps, score.kv_type) == (ANSWER, STEPS, "q8_0")
        assert (score.request.sampling.stop, score.chars) == (("END",), 7)
        assert score.most == engine_of(shop).status.loaded.n_ctx  # type: ignore[union-attr]
        score.make()
        items = await bought
        claimed, told, *vectors, done = items
        assert isinstance(claimed, Claimed) and isinstance(told, Scoring) and isinstance(done, Done)
        assert (told.noise, told.end, told.text) == (77_600, 39, TEXT) and told.profile.split("/")[2] == "f16"
        assert vectors == [Vector(ROW.ids + ROW.q, n) for n in (N_READ, 0, 0)]
        assert (done.n_prompt, done.n_out) == (N_READ, 0)
        facts = facts_of(await user.receipt(order["id"]))
        assert (facts.outcome, facts.n_prompt, facts.n_out) == ("scored", N_READ, 0)
        assert facts.charge == -(-N_READ * facts.price_in // 1_000_000) and facts.transcript is None
        (served,) = shop.provider.served()
        assert (served.state, served.n_prompt) == ("done", N_READ)
        await shop.free()


async def test_a_slot_is_free_when_the_scores_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the user takes to read them."""
    read, score = asyncio.Event(), Sale.score

    async def blocked(sale: Sale, row: bytes, n_tokens: int) -> None:
        await read.wait()
        await score(sale, row, n_tokens)

    monkeypatch.setattr(Sale, "score", blocked)
    async with scoring(tmp_path, capacity=1) as (shop, user, asked):
        first, score_of_first = await begin(user, asked, **await user.order())
        score_of_first.make()
        await shop.state("answering")
        second, score_of_second = await begin(user, asked, **await user.order())
        assert not first.done()
        score_of_second.make()
        read.set()
        for bought in (first, second):
            assert isinstance((await bought)[-1], Done)
        await shop.free()


async def test_how_far_it_is_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "ALIVE_S", 0.01)
    monkeypatch.setattr(turns, "ALIVE_S", 0.01)
    async with scoring(tmp_path) as (_, user, asked):
        items: list[Item] = []

        def shares() -> set[float]:
            return {i.done / i.total for i in items if isinstance(i, Progressed) and i.done}

        async def follow() -> None:
            fields = await user.order()
            async with user.user.buy(prompt=ASKED, scores=len(STEPS), **fields) as purchase:
                async for item in purchase:
                    items.append(item)

        task = asyncio.ensure_future(follow())
        await until(lambda: asked)
        asked[0].progress(0.25)
        await until(shares)
        asked[0].progress(0.75)
        await until(lambda: len(shares()) == 2)
        assert sorted(shares()) == pytest.approx([0.25, 0.75], abs=0.02)
        asked[0].make()
        await task


@pytest.mark.parametrize("code", ["no_memory", "prompt_too_long", "bad_request", "no_token"])
async def test_what_cannot_be_scored_is_refused(tmp_path: Path, code: str) -> None:
    async with scoring(tmp_path) as (shop, user, asked):
        refused = asyncio.ensure_future(
            user.user.refused(prompt=ASKED, scores=len(STEPS), **await user.order())
        )
        await until(lambda: asked)
        asked[0].made.set_exception(EngineError(code, "It holds the words of somebody."))
        expected = {"no_memory": "internal", "prompt_too_long": "too_large"}
        failed = await refused
        assert failed.code == expected.get(code, "bad_request") and failed.no_token == (code == "no_token")
        assert not any("words" in text for text in shop.log)
        await shop.free()


async def test_more_than_was_reserved_is_not_given(tmp_path: Path) -> None:
    async with scoring(tmp_path) as (_, user, asked):
        refused = asyncio.ensure_future(
            user.user.refused(prompt=ASKED, scores=len(STEPS), **await user.order(hold=1))
        )
        await until(lambda: asked)
        asked[0].make()
        failed = await refused
        assert (failed.code, failed.shown) == ("bad_request", False)


async def test_a_user_that_leaves_is_computed_nothing_for(tmp_path: Path) -> None:
    async with scoring(tmp_path) as (shop, user, asked):
        order = await user.order()
        bought, score = await begin(user, asked, **order)
        bought.cancel()
        await until(score.made.cancelled)
        await shop.state("cancelled")
        facts = facts_of(await user.receipt(order["id"]))
        assert (facts.outcome, facts.n_prompt) == ("cancelled", 0)
        await shop.free()


async def test_an_engine_that_is_lost_begins_again_once(tmp_path: Path) -> None:
    async with scoring(tmp_path) as (shop, user, asked):
        bought, score = await begin(user, asked, **await user.order())
        score.made.set_exception(EngineError("worker_died", "It died."))
        await until(lambda: len(asked) == 2)
        asked[1].make()
        items = await bought
        assert [type(item) for item in items[:3]] == [Claimed, Placed, Claimed]
        assert isinstance(items[-1], Done)
        refused = asyncio.ensure_future(
            user.user.refused(prompt=ASKED, scores=len(STEPS), **await user.order())
        )
        for number in (3, 4):
            await until(lambda number=number: len(asked) == number)  # type: ignore[misc]
            asked[-1].made.set_exception(EngineError("worker_died", "It died."))
        assert (await refused).code == "internal"
        await shop.free()


async def test_who_does_not_score_says_so(tmp_path: Path) -> None:
    async with scoring(tmp_path, kv_type="q4_0") as (shop, user, asked):
        (offer,) = shop.offers[-1].models  # type: ignore[union-attr]
        assert not offer.does & DOES_SCORES
        failed = await user.user.refused(prompt=ASKED, scores=len(STEPS), **await user.order())
        assert (failed.code, failed.sent) == ("unsupported", False) and not asked
    async with scoring(tmp_path / "other") as (shop, user, _):
        (offer,) = shop.offers[-1].models  # type: ignore[union-attr]
        assert offer.does & DOES_SCORES


async def test_another_prompt_than_was_announced(tmp_path: Path) -> None:
    async with scoring(tmp_path) as (_, user, asked):
        failed = await user.user.refused(prompt=ASKED, scores=2, **await user.order())
        assert failed.sent and not asked
    async with scoring(tmp_path / "none") as (_, user, asked):
        failed = await user.user.refused(prompt=ASKED, **await user.order())
        assert failed.sent and not asked
