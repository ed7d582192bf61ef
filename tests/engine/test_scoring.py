"""What the loaded model computes for an answer that another made, beside the answers that it makes itself."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from infraxa.engine import checks, scoring
from infraxa.engine.aside import Aside
from infraxa.engine.embedding import Embedder
from infraxa.engine.frames import Calibrate, Score, ScoreMade
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.llama import Model
from infraxa.engine.logits import row_of_logits
from infraxa.engine.said import text_hash
from infraxa.engine.scoring import LOWEST, Means
from infraxa.engine.transcript import decode_leaf, quantised
from infraxa.engine.types import Budget, EngineError, LoadOptions, Request, Scored, ScoredRow, Verified
from infraxa.engine.verdicts import distance, judge
from infraxa.engine.work import Work

Ask = Callable[..., Request]
Open = Callable[..., Any]
ONE_THREAD = LoadOptions(threads=1)
PPM = (800_000, 0, 1_000_000, 0)
PLENTY = 1 << 40
MU0 = 0.096
"""The guide's noise."""


def verified(request: Request, order: int = 1) -> Request:
    return replace(request, verified=Verified(bytes([order] * 16), bytes(32), bytes(32), PPM))


class Judge:
    """A worker's insides: answers and scores of the guide."""

    def __init__(self, room: Any, free: int = PLENTY) -> None:
        batcher = room.batcher
        means = Means(batcher.model, batcher.read, 1, lambda kv_type: 1000, lambda: free)
        self.room = room
        self.batcher = batcher
        self.work = Work(batcher, Embedder(batcher.model, threads=1), means)

    def run(self, *asked: Score) -> list[Any]:
        for one in asked:
            self.work.score(one)
        made: list[Any] = []
        for _ in range(3000):
            self.work.step()
            made += self.made()
            if not self.work.busy:
                return made
        raise AssertionError("not done")

    def made(self) -> list[Any]:
        """What is done now."""
        made: list[Any] = list(self.work.take_made())
        return [one for one in made if one.error is not None or one.scored is not None]

    def scored(self, request: Request, answer: list[int], steps: list[int], *ids: bytes) -> Scored:
        (made,) = self.run(Score(1, request, tuple(answer), tuple(steps), ids))
        assert made.error is None, made.error
        scored: Scored = made.scored
        return scored


@pytest.fixture
def open_judge(open_room: Open) -> Iterator[Callable[..., Judge]]:
    judges: list[Judge] = []

    def open_(*, free: int = PLENTY) -> Judge:
        judges.append(Judge(open_room(slots=2), free))
        return judges[-1]

    yield open_
    for one in judges:
        one.work.close()


def packed(*ids: int) -> bytes:
    return struct.pack(f"<{len(ids)}I", *ids)


def rows_of(judge: Judge, tokens: list[int]) -> Any:
    """The logits after each token, one decoded at a time."""
    context, rows = judge.room.context, []
    for position, token in enumerate(tokens):
        context.token[0], context.pos[0], context.seq[0], context.output[0] = token, position, 0, 1
        context.decode(1)
        rows.append(np.array(row_of_logits(context, 0)))
    context.clear(0)
    return rows


def test_rows_are_those_of_the_steps_that_were_asked_for(open_judge: Open, ask: Ask) -> None:
    judge = open_judge()
    request = ask("what is a driver?")
    prompt = judge.batcher.read(request)
    answer = judge.batcher.model.tokenize("A driver is the one who answers.")
    plain = rows_of(judge, [*prompt, *answer])[len(prompt) - 1 :]
    steps = [0, 2, 3, len(answer) - 1]
    scored = judge.scored(request, answer, steps, *[packed(answer[s], 5, 1 << 31) for s in steps])
    assert scored.n_prompt == len(prompt) and scored.prompt_ids == packed(*prompt)
    assert len(scored.rows) == len(steps)
    for step, row in zip(steps, scored.rows, strict=True):
        ids, _ = quantised(plain[step])
        mine = np.frombuffer(row.ids, "<u4")
        assert mine[0] == ids[0] and len(set(mine) & set(ids)) > 58, "another step has other candidates"
        at = struct.unpack("<3i", row.at)
        assert at[0] / 4096 == pytest.approx(plain[step][answer[step]], abs=0.5)
        assert at[2] == LOWEST, "no token of this model"
        if answer[step] in mine:
            assert np.frombuffer(row.q, "<i4")[list(mine).index(answer[step])] == at[0]


def test_an_honest_answer_passes_and_another_prompt_fails(open_judge: Open, ask: Ask) -> None:
    checker = open_judge()
    request = verified(ask("what is infraxa?", "It is a market.", "what is a receipt?", max_tokens=60))
    leaves: list[bytes] = []
    checker.batcher.submit(1, request)
    while checker.batcher.busy:
        checker.batcher.step()
        for emitted in checker.room.take().emitted:
            leaves += emitted.leaves
    opened = [decode_leaf(leaf) for leaf in leaves]
    answer = [leaf.token for leaf in opened]
    assert len(opened) >= 16
    ids = [packed(*leaf.ids) for leaf in opened]

    def verdict(asked: Request) -> str:
        scored = checker.scored(asked, answer, list(range(len(answer))), *ids)
        far = [distance(x.ids, x.q, x.token, row) for x, row in zip(opened, scored.rows, strict=True)]
        return judge(far, MU0).state

    assert verdict(request) == "passed"
    assert verdict(ask("what is infraxa?", "It is a market.", "what is a tab?")) == "failed"


def test_it_is_told_what_the_tokens_say_and_where_they_end_it(
    open_judge: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = open_judge()
    monkeypatch.setattr(scoring, "PIECE", 16)
    ways: dict[str, dict[str, Any]] = {"eos": {}, "stop": {"stop": ("drive",)}, "length": {"max_tokens": 9}}
    for number, (way, sampling) in enumerate(ways.items(), 1):
        request = verified(ask("what is a driver?", **sampling), number)
        text = judge.room.answer(number, request)
        answer = [decode_leaf(leaf).token for leaf in judge.room.leaves[number]]
        last = len(answer) - 1
        scored = judge.scored(request, answer, [0, last])
        assert scored.text == text_hash(text) and text
        assert scored.end == (-1 if way == "length" else last)
        # Whichever steps are asked for; and where it says less, or more.
        assert judge.scored(request, answer, [0]).text == scored.text
        assert judge.scored(request, answer[:-1], [0]).end == -1
        more = judge.scored(request, [*answer, answer[0]], [0, last + 1])
        assert more.end == scored.end and (way == "stop") == (more.text == scored.text)
        (made,) = judge.run(Score(7, request, tuple(answer), (last,), chars=5))
        assert made.scored.text == text_hash(text[:5])


def values_of(row: ScoredRow) -> dict[int, int]:
    """The candidates of a row with their values, the likeliest first."""
    count = len(row.ids) // 4
    return dict(zip(struct.unpack(f"<{count}I", row.ids), struct.unpack(f"<{count}i", row.q), strict=True))


def test_pieces_and_room_for_logits_change_nothing_but_the_noise(
    open_judge: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = open_judge()
    request = ask("what is a driver? " * 20)
    answer = judge.batcher.model.tokenize("A driver is the one who answers. " * 10)
    steps = list(range(0, len(answer), 2))
    whole = judge.scored(request, answer, steps)
    monkeypatch.setattr(scoring, "PIECE", 40)
    monkeypatch.setattr(scoring, "LOGITS", 4 * 8 * judge.batcher.model.n_vocab)
    cut = judge.scored(request, answer, steps)
    assert judge.work.step_number > len(steps) // 8, "in many pieces"
    assert len(cut.rows) == len(whole.rows) == len(steps)
    for a, b in zip(cut.rows, whole.rows, strict=True):
        here, there = values_of(a), values_of(b)
        best = next(iter(there))  # where two are as likely, the noise decides which of them is the first
        assert here[best] == pytest.approx(there[best], abs=2000)
        assert max(here.values()) == pytest.approx(max(there.values()), abs=2000)


def test_running_answers_go_on_and_are_the_same(open_judge: Open, ask: Ask) -> None:
    judge = open_judge()
    request = ask("what is infraxa?", max_tokens=40)
    alone = judge.room.answer(9, request)
    long = ask("tell me about rain " * 60)
    judge.batcher.submit(1, request)
    for _ in range(3):
        judge.batcher.step()
    judge.work.score(Score(2, long, tuple(range(5, 205)), (199,)))
    began, seen = judge.work.step_number, 0
    while judge.batcher.busy:
        judge.work.step()
        judge.room.take()
        seen += not judge.made()
    assert judge.room.text[1] == alone
    assert seen and judge.work.step_number > began
    while judge.work.busy:
        judge.work.step()
    (made,) = judge.made()
    assert len(made.scored.rows) == 1


def test_who_is_cancelled_takes_no_more_time_and_memory(
    open_judge: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = open_judge()
    opened: list[Any] = []
    open_ = Means.open

    def watched(means: Means, *args: Any, **kwargs: Any) -> Any:
        opened.append(open_(means, *args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(Means, "open", watched)
    monkeypatch.setattr(scoring, "PIECE", 16)
    request = ask("rain " * 200)
    for number in (1, 2):
        judge.work.score(Score(number, request, (5, 6), (1,)))
    judge.work.step()
    assert opened[0].handle
    judge.work.cancel(1)
    with pytest.raises(ValueError, match="closed"):
        _ = opened[0].handle
    (made,) = judge.run()
    assert made.id == 2 and len(opened) == 2
    with pytest.raises(ValueError, match="closed"):
        _ = opened[1].handle


def test_a_piece_that_is_being_computed_is_let_go_of_at_once(open_judge: Open, ask: Ask) -> None:
    judge = open_judge()
    judge.work.score(Score(1, ask("rain " * 400), (5, 6), (1,)))
    judge.work.score(Score(2, ask("rain"), (5,), (0,)))
    aside: Aside[Any] = judge.work._aside
    decode = aside.decode

    def cancelled(context: Any, rows: int) -> None:
        judge.work.interrupt(7)
        aside._context = context
        judge.work.interrupt(1)  # as the thread does that reads the host's messages
        decode(context, rows)

    aside.decode = cancelled  # type: ignore[method-assign]
    judge.work.step()
    aside.decode = decode  # type: ignore[method-assign]
    judge.work.cancel(1)
    (made,) = judge.run()
    assert made.id == 2 and made.error is None


@pytest.mark.parametrize(
    ("answer", "steps", "ids"),
    [
        ([], [0], []),
        ([1, 2], [], []),
        ([1, 2], [2], []),
        ([1, 2], [-1], []),
        ([1, 2], [1, 0], []),
        ([1, 2], [0, 0], []),
        ([1, 2], [0, 1], [b""]),
        ([1, 2], [0], [b"abc"]),
        ([1, 2], [0], [bytes(260)]),
        ([1] * (checks.MAX_ANSWER + 1), [0], []),
        ([1] * 9000, list(range(9000)), []),
    ],
)
async def test_what_means_nothing_is_refused_before_it_is_sent(
    open_engine: Open, ask: Ask, answer: list[int], steps: list[int], ids: list[bytes]
) -> None:
    with pytest.raises(EngineError) as caught:
        await open_engine().score(ask("hi"), answer, steps, ids)
    assert caught.value.code == "bad_request"


def test_a_score_goes_before_the_noise_of_a_model(open_judge: Open, ask: Ask) -> None:
    judge = open_judge()
    judge.work.calibrate(Calibrate(1))
    for _ in range(3):
        judge.work.step()
    judge.work.score(Score(2, ask("hi"), (5,), (0,)))
    made: list[Any] = []
    while not any(isinstance(one, ScoreMade) and one.scored for one in made):
        judge.work.step()
        made += judge.work.take_made()
        assert len(made) < 50, "that is the noise"
    judge.work.cancel(1)
    assert not judge.work.busy


def test_what_cannot_be_scored_says_why_and_the_next_is_scored(open_judge: Open, ask: Ask) -> None:
    judge = open_judge()
    n_vocab = judge.batcher.model.n_vocab
    made = judge.run(
        Score(1, Request(prompt=""), (5,), (0,)),
        Score(2, ask("hi"), (5,) * 2000, (1999,)),
        Score(3, ask("hi"), (n_vocab - 1, 5), (1,)),
    )
    assert [one.id for one in made] == [1, 2, 3]
    assert [one.error and one.error.code for one in made] == ["bad_request", "prompt_too_long", None]


def test_a_token_that_the_model_does_not_have_is_found_before_anything_is_read(
    open_judge: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = open_judge()
    n_vocab = judge.batcher.model.n_vocab
    read = list[Request]()
    monkeypatch.setattr(judge.work, "_means", judge.work._means._replace(read=read.append))
    # Wherever it is, also where nothing stands on it.
    answers = [(n_vocab, 5), (2**32 - 1, 5), (5, n_vocab), (5,) * 2000 + (1 << 31,)]
    made = judge.run(*(Score(number, ask("hi"), answer, (0,)) for number, answer in enumerate(answers)))
    assert [one.error and one.error.code for one in made] == ["no_token"] * 4 and not read


def test_a_prompt_of_what_are_no_tokens_is_refused(
    open_judge: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = open_judge()
    wrong = [judge.batcher.model.n_vocab]
    monkeypatch.setattr(judge.work, "_means", judge.work._means._replace(read=lambda request: wrong))
    (made,) = judge.run(Score(1, ask("hi"), (5,), (0,)))
    assert made.error.code == "bad_request"


def test_where_there_is_no_memory_nothing_is_opened(open_judge: Open, ask: Ask) -> None:
    (made,) = open_judge(free=scoring.KEPT_FREE + 10_000).run(Score(1, ask("hi"), (5,), (0,)))
    assert made.error.code == "no_memory"


def test_logits_that_are_no_numbers_fail(open_judge: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: Any, row: int) -> Any:
        logits = np.array(row_of_logits(context, row))
        logits[7] = np.nan
        return logits

    monkeypatch.setattr("infraxa.engine.logits.row_of_logits", broken)
    (made,) = open_judge().run(Score(1, ask("hi"), (5,), (0,)))
    assert made.error.code == "compute_failed"


def test_a_model_that_does_not_chat_scores_nothing(guide: Model, ask: Ask) -> None:
    work = Work(None, Embedder(guide, threads=1))
    work.score(Score(1, ask("hi"), (5,), (0,)))
    assert work.urgent and not work.busy
    (made,) = work.take_made()
    assert isinstance(made, ScoreMade) and made.error is not None and made.error.code == "unsupported"


async def test_the_engine_scores_beside_its_answers(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    with pytest.raises(EngineError) as caught:
        await engine.score(ask("hi"), [5], [0])
    assert caught.value.code == "closed"
    await engine.load(GUIDE_PATH, ONE_THREAD)
    request = ask("what is infraxa?", max_tokens=40)
    generation = engine.generate(request)
    scored = await engine.score(request, [5, 6, 7], [0, 2], [packed(5), packed(7)])
    assert [len(row.at) for row in scored.rows] == [4, 4]
    again = await engine.score(request, [5, 6, 7], [0, 2], [packed(5), packed(7)], kv_type="q8_0")
    assert again.prompt_ids == scored.prompt_ids and len(again.rows) == 2
    assert (await generation.collect())[1].error is None
    with pytest.raises(EngineError, match="tokens that this model does not have") as caught:
        await engine.score(request, [1 << 30, 5], [1])
    assert caught.value.code == "no_token"


async def test_it_is_told_how_far_a_score_is_and_no_more_is_read_than_is_allowed(
    open_engine: Open, ask: Ask
) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    request, told = ask("rain " * 400), list[float]()
    n_prompt = (await engine.score(request, [5, 6], [1], on_progress=told.append)).n_prompt
    assert told == sorted(told) and 0 < told[0] < told[-1] <= 1
    await engine.score(request, [5, 6], [1], most=n_prompt + 1)
    with pytest.raises(EngineError) as caught:
        await engine.score(request, [5, 6], [1], most=n_prompt)
    assert caught.value.code == "prompt_too_long"
    n_tokens = n_prompt + 1
    paid = Budget(n_tokens * 1000, 1_000_000_000, 0)
    await engine.score(replace(request, budget=paid), [5, 6], [1])
    told.clear()
    with pytest.raises(EngineError) as caught:
        less = replace(paid, most=paid.most - 1)
        await engine.score(replace(request, budget=less), [5, 6], [1], on_progress=told.append)
    assert caught.value.code == "over_budget" and not told, "nothing was read"


async def test_a_score_that_nobody_waits_for_is_not_made(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    request = ask("rain " * 300)
    waiting = [asyncio.ensure_future(engine.score(request, [5] * 400, [399])) for _ in range(200)]
    await asyncio.sleep(0.05)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        await engine.score(ask("hi"), [5], [0])


async def test_a_worker_that_dies_ends_the_score(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    request = ask("rain " * 300)
    waiting = [asyncio.ensure_future(engine.score(request, [5] * 400, [399])) for _ in range(50)]
    await asyncio.sleep(0.05)
    engine._kill("the test wanted it")
    for caught in await asyncio.gather(*waiting[10:], return_exceptions=True):
        assert isinstance(caught, EngineError) and caught.code == "worker_died"
