"""The noise of the guide on this machine: measured, told while it is, ended at once, and never taken from
runs that are the same."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infraxa.engine import calibration
from infraxa.engine.aside import Aside
from infraxa.engine.bindings import api
from infraxa.engine.calibration import calibrate
from infraxa.engine.dequantised import Copy
from infraxa.engine.frames import Calibrate, Calibrating
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.scoring import Means
from infraxa.engine.types import EngineError, LoadOptions, Request

Ask = Callable[..., Request]
Open = Callable[..., Any]
ONE_THREAD = LoadOptions(threads=1)
PLENTY = 1 << 40


@pytest.fixture
def means(open_room: Open) -> Means:
    batcher = open_room(slots=1).batcher
    return Means(batcher.model, batcher.read, 1, lambda kv_type: 1000, lambda: PLENTY)


def run(means: Means, scratch: str = "", beside: Callable[[int], bool] = lambda step: False) -> list[Any]:
    aside: Aside[Any] = Aside()
    aside.submit(
        1,
        calibrate(aside, means, Calibrate(1, scratch)),
        lambda error: Calibrating(1, error=error),
        lambda done: Calibrating(1, done),
    )
    made = []
    for step in range(20_000):
        if (one := aside.step(beside=beside(step))) is not None:
            made.append(one)
        if not aside.busy:
            return made
    raise AssertionError("not done")


async def test_the_engine_measures_what_two_right_ways_differ_by(open_engine: Open, tmp_path: Path) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    told: list[float] = []
    mu0 = await engine.calibrate(told.append, scratch=tmp_path)
    assert 0.004 <= mu0 < 0.2
    assert told == sorted(told) and told[0] < 0.1 and told[-1] > 0.9
    assert not os.listdir(tmp_path), "the copy of the weights is removed"


async def test_a_calibration_that_nobody_waits_for_ends(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, ONE_THREAD)
    began = asyncio.Event()
    waiting = asyncio.ensure_future(engine.calibrate(lambda done: began.set()))
    async with asyncio.timeout(20):
        await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(20):
        assert (await engine.generate(ask("hi")).collect())[1].error is None
        await engine.score(ask("hi"), [5], [0])


def test_answers_go_before_it(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "QUESTIONS", calibration.QUESTIONS[:1])
    monkeypatch.setattr(calibration, "TOKENS", 16)
    decoded: list[int] = []
    decode = Aside.decode

    def watched(aside: Aside[Any], context: Any, rows: int) -> None:
        assert not aside.beside
        decoded.append(rows)
        decode(aside, context, rows)

    monkeypatch.setattr(Aside, "decode", watched)
    made = run(means, beside=lambda step: 5 < step < 500)
    assert made[-1].mu0 >= 0.004 and max(decoded) >= 128


def test_runs_that_are_the_same_measure_nothing(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "QUESTIONS", calibration.QUESTIONS[:1])
    monkeypatch.setattr(calibration, "TOKENS", 16)
    monkeypatch.setattr(calibration, "_mean_distance", lambda one, other: 0.0)
    assert run(means)[-1].error.code == "unsupported"


def test_a_model_with_a_short_context_cannot_be_measured(
    means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(means.model, "n_ctx_train", 150)
    error = run(means)[-1].error
    assert error.code == "unsupported" and "150 tokens" in error.message


def test_prompts_are_long_and_none_is_like_another(means: Means) -> None:
    prompts = [calibration._prompt(means, i) for i in range(len(calibration.QUESTIONS))]
    assert len(prompts) == 16 and all(128 <= len(one) < 256 for one in prompts)
    assert len({tuple(one[40:]) for one in prompts}) == 16
    silent = means._replace(read=lambda request: [1, 2, 3])
    with pytest.raises(EngineError) as caught:
        calibration._prompt(silent, 0)
    assert caught.value.code == "unsupported"


def test_a_copy_is_made_only_where_there_is_room(means: Means, tmp_path: Path) -> None:
    size = 2 * means.model.size_bytes
    assert Copy.fits(means.model, tmp_path, 10 * size)
    assert not Copy.fits(means.model, tmp_path, size)
    assert not Copy.fits(means.model, tmp_path / "missing", 10 * size)


def test_a_copy_that_nobody_wants_any_more_is_removed(
    means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    quantize = api.llama_model_quantize

    def slow(*arguments: Any) -> int:
        code: int = quantize(*arguments)
        assert given_up.wait(30) and list(tmp_path.iterdir())
        return code

    monkeypatch.setattr(api, "llama_model_quantize", slow)
    copy = Copy(means.model, tmp_path)
    assert not copy.wait(0)
    copy.close()
    given_up.set()
    assert copy.wait(30)
    assert not list(tmp_path.iterdir())
