"""The engine as the app uses it: load, stream, cancel, count, close, and what a person does wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Limits
from infraxa.engine.llama import Model
from infraxa.engine.types import (
    ChatMessage,
    Delta,
    EngineError,
    Finished,
    Loaded,
    LoadOptions,
    Request,
    Sampling,
)

Ask = Callable[..., Request]
Alive = Callable[[int], bool]
OpenEngine = Callable[..., Any]
BOUND = 20.0


async def test_an_answer_streams_with_counts_and_times(
    open_engine: OpenEngine, ask: Ask, alive: Alive
) -> None:
    engine = open_engine()
    loaded = await engine.load(GUIDE_PATH, LoadOptions(n_ctx=512, slots=3, threads=1))
    assert (loaded.n_ctx, loaded.n_ctx_train, loaded.slots, loaded.threads) == (512, 1024, 3, 1)
    assert loaded.gpu_layers == 0 and loaded.path == str(GUIDE_PATH) and alive(loaded.pid)
    states = [s.state for s in engine.told]
    assert list(dict.fromkeys(states)) == ["starting", "loading", "ready"]
    progress = [s.progress for s in engine.told if s.state == "loading"]
    assert progress == sorted(progress) and progress[-1] == 1.0

    async with asyncio.timeout(BOUND):
        events = [event async for event in engine.generate(ask("what is 12+5?"))]
    deltas = [e for e in events if isinstance(e, Delta)]
    finished = events[-1]
    assert isinstance(finished, Finished) and finished.reason == "stop"
    assert sum(isinstance(e, Finished) for e in events) == 1
    assert "17" in "".join(d.text for d in deltas)
    assert sum(len(d.token_ids) for d in deltas) == finished.usage.n_out
    assert finished.usage.first_token_ms is not None
    assert engine.status.running == 0
    assert any(s.running == 1 for s in engine.told)
    assert any("llama.cpp" in line for line in engine.log)


async def test_eight_at_once_give_what_they_give_alone(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    await engine.load_guide()
    questions = [f"what is {n}+{n}?" for n in range(4)] + [
        "hi",
        "what is infraxa?",
        "who made you?",
        "what is a tab?",
    ]
    async with asyncio.timeout(BOUND):
        together = await asyncio.gather(*(engine.generate(ask(q)).collect() for q in questions))
        alone = [await engine.generate(ask(q)).collect() for q in questions]
    assert [text for text, _ in together] == [text for text, _ in alone]


async def test_answers_wait_for_the_model(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    loading = asyncio.ensure_future(engine.load_guide())
    await asyncio.sleep(0)
    generation = engine.generate(ask("what is 12+5?"))
    cancelled = engine.generate(ask("hi"))
    assert engine.status.waiting == 2
    cancelled.cancel()
    assert engine.status.waiting == 1
    async with asyncio.timeout(BOUND):
        assert (await cancelled.collect())[1].reason == "cancelled"
        text, finished = await generation.collect()
        await loading
    assert "17" in text and finished.reason == "stop"


async def test_without_a_model_or_after_the_end_the_reason_is_said(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    _, finished = await engine.generate(ask("hi")).collect()
    assert finished.reason == "failed" and finished.error.code == "closed"
    with pytest.raises(EngineError, match="No model is ready"):
        await engine.count_tokens([ChatMessage("user", "hi")])
    await engine.close()
    _, finished = await engine.generate(ask("hi")).collect()
    assert finished.error.message == "The engine is closed."
    with pytest.raises(EngineError, match="closed"):
        await engine.load_guide()
    assert engine.status.state == "off"


def damaged(folder: Path, kind: str) -> Path:
    path = folder / "model.gguf"
    data = GUIDE_PATH.read_bytes()
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("# not a model\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "truncated header":
        path.write_bytes(data[:3000])
    elif kind == "strange":
        path.write_bytes(data.replace(b"llama", b"zzama", 1))
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("missing", "not_found"),
        ("folder", "not_found"),
        ("text", "not_gguf"),
        ("empty", "not_gguf"),
        ("truncated", "truncated"),
        ("truncated header", "truncated"),
        ("strange", "unsupported"),
    ],
)
async def test_a_file_that_is_no_model_is_one_clear_error(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, kind: str, code: str
) -> None:
    engine = open_engine()
    async with asyncio.timeout(BOUND):
        with pytest.raises(EngineError) as caught:
            await engine.load_guide(damaged(tmp_path, kind))
        assert caught.value.code == code
        assert caught.value.remedy and "\n" not in caught.value.message
        assert engine.status.state == "failed" and engine.status.error == caught.value.info
        _, finished = await engine.generate(ask("hi")).collect()
        assert finished.error == caught.value.info
        # A wrong file is no reason not to load a right one.
        await engine.load_guide()
    assert engine.status.state == "ready"


async def test_another_model_replaces_the_worker(
    open_engine: OpenEngine, endless: Request, alive: Alive
) -> None:
    engine = open_engine()
    first = await engine.load_guide()
    generation = engine.generate(endless)
    async with asyncio.timeout(BOUND):
        second = await engine.load_guide()
        _, finished = await generation.collect()
    assert finished.reason == "failed" and finished.error.code == "closed"
    assert first != second
    assert not alive(first)


async def test_a_second_load_overtakes_the_first(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    first = asyncio.ensure_future(engine.load_guide())
    await engine.until(lambda status: status.state == "loading")
    async with asyncio.timeout(BOUND):
        second = await engine.load_guide()
        with pytest.raises(EngineError, match="Another model was loaded"):
            await first
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text
    assert engine.status.state == "ready" and engine.status.loaded.pid == second


async def test_of_many_loads_only_the_last_goes_on(
    open_engine: OpenEngine, ask: Ask, endless: Request, tmp_path: Path
) -> None:
    """Wherever the others are: nothing done yet, the old worker being ended, a new one starting."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    engine = open_engine()
    await engine.load_guide()
    running = engine.generate(endless)
    files = [tmp_path / f"{i}.gguf" for i in range(9)]
    for file in files:
        file.symlink_to(GUIDE_PATH)
    loads, answers = [], []
    async with asyncio.timeout(BOUND):
        for i, file in enumerate(files):
            loads.append(asyncio.ensure_future(engine.load(file, LoadOptions(threads=1))))
            await asyncio.sleep(0)
            answers.append(engine.generate(ask("what is 12+5?")))
            await asyncio.sleep(0.02 * i)
        results = await asyncio.gather(*loads, return_exceptions=True)
        ends = [await answer.collect() for answer in (running, *answers)]
    # A quick machine may have loaded one before the next came.
    went_on = [i for i, result in enumerate(results) if isinstance(result, Loaded)]
    overtaken = [i for i in range(9) if i not in went_on]
    assert went_on[-1] == 8 and len(overtaken) >= 4
    assert all(getattr(results[i], "code", "") == "closed" for i in overtaken)
    assert engine.status.loaded.path == str(files[-1])
    assert not any(s.state == "failed" for s in engine.told)
    assert {s.loaded.path for s in engine.told if s.loaded} == {
        str(GUIDE_PATH),
        *(str(files[i]) for i in went_on),
    }
    running_end, *answer_ends = [finished for _, finished in ends]
    assert running_end.error.code == "closed"
    assert all(answer_ends[i].error.code == "closed" for i in overtaken)
    assert "17" in ends[-1][0]
    gc.collect()
    assert not unhandled


@pytest.mark.parametrize("ticks", [1, 2, 3, 5, 8, 20])
async def test_a_load_that_is_cancelled_while_it_starts_leaves_nothing(
    open_engine: OpenEngine, ask: Ask, ticks: int
) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    engine = open_engine()
    task = asyncio.ensure_future(engine.load_guide())
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.wait([task])
        assert engine.status.state == "failed"
        pid = await engine.load_guide()
        # What is left of the first one ends by now: after its pipes, at the latest.
        await asyncio.sleep(1.2)
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text and engine.status.loaded.pid == pid
    assert not unhandled


async def test_a_load_that_is_cancelled_once_more_while_its_process_is_ended_leaves_nothing(
    open_engine: OpenEngine, alive: Alive
) -> None:
    engine = open_engine(Limits(close=BOUND))
    task = asyncio.ensure_future(engine.load_guide())
    await engine.until(lambda status: status.state == "loading")
    worker = engine._worker
    os.kill(worker.pid, signal.SIGSTOP)  # it does not hear that it shall end
    async with asyncio.timeout(BOUND / 2):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert engine._worker is None and not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and worker.gone
        while alive(worker.pid):  # noqa: ASYNC110 - the end of a process tells nobody here
            await asyncio.sleep(0.01)


async def test_a_load_that_is_cancelled_while_it_waits_for_another_is_not_still_loading(
    open_engine: OpenEngine,
) -> None:
    engine = open_engine()
    first = asyncio.ensure_future(engine.load_guide())
    await engine.until(lambda status: status.state == "loading")
    second = asyncio.ensure_future(engine.load_guide())
    await asyncio.sleep(0)
    second.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.wait([first, second])
    assert engine.status.state == "failed"
    assert engine.status.error.message == "Loading was cancelled."


async def test_a_model_whose_template_cannot_be_used_is_not_loaded(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path
) -> None:
    data = GUIDE_PATH.read_bytes()
    with Model.load(GUIDE_PATH) as model:
        source = (model.chat_template or "").encode()
    path = tmp_path / "model.gguf"
    path.write_bytes(data.replace(source, b"{{ dict(a=1,a=2) }}".ljust(len(source))))
    engine = open_engine()
    async with asyncio.timeout(BOUND):
        with pytest.raises(EngineError, match="template cannot format") as caught:
            await engine.load_guide(path)
        assert caught.value.code == "no_template" and caught.value.remedy == "Choose another model."
        assert engine.status.state == "failed"
        await engine.load_guide()
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text


async def test_cancel_keeps_the_text_and_gives_the_usage(open_engine: OpenEngine, endless: Request) -> None:
    engine = open_engine()
    await engine.load_guide()
    generation = engine.generate(endless)
    n_ids = 0
    async with asyncio.timeout(BOUND):
        async for event in generation:
            if isinstance(event, Delta):
                n_ids += len(event.token_ids)
                generation.cancel()
                generation.cancel()
            elif isinstance(event, Finished):
                assert event.reason == "cancelled"
                assert event.usage.n_out == n_ids > 0
                assert event.usage.n_prompt > 0
    assert n_ids < 900
    generation.cancel()


async def test_a_cancelled_or_forgotten_consumer_cancels_its_answer(
    open_engine: OpenEngine, ask: Ask, endless: Request
) -> None:
    engine = open_engine()
    await engine.load(GUIDE_PATH, LoadOptions(slots=1, threads=1))
    task = asyncio.ensure_future(engine.generate(endless).collect())
    await engine.until(lambda status: status.running == 1)
    task.cancel()
    await asyncio.wait([task], timeout=BOUND)
    forgotten = engine.generate(endless)
    del forgotten
    gc.collect()
    async with asyncio.timeout(BOUND):
        text, finished = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text
    # With one slot: the others had to leave before, and did not use up their contexts.
    assert finished.usage.queued_ms < 1000 * BOUND
    assert engine.status.running == engine.status.waiting == 0


async def test_random_traffic_adds_up(open_engine: OpenEngine) -> None:
    """Sixty requests of all kinds at once, some cancelled, some given up by their consumer."""
    engine = open_engine()
    await engine.load(GUIDE_PATH, LoadOptions(n_ctx=256, slots=4, threads=1))
    random = Random(1)
    reasons = set()

    async def one() -> None:
        text = " ".join(
            random.choice(["what", "is", "a", "driver", "12+5"]) for _ in range(random.choice([1, 9, 300]))
        )
        sampling = Sampling(
            temperature=random.choice([0.0, 3.0]),
            max_tokens=random.choice([None, 1, 20]),
            stop=random.choice([(), ("e",)]),
        )
        messages = (ChatMessage("user", text),)
        generation = engine.generate(Request(messages, sampling, user=random.choice("abc")))
        patience = random.choice([0, 1, 3, 1000])
        n_ids = 0
        async for event in generation:
            patience -= 1
            if patience == 0:
                generation.cancel()
            if isinstance(event, Delta):
                n_ids += len(event.token_ids)
            elif isinstance(event, Finished):
                assert event.usage.n_out == n_ids
                reasons.add(event.reason)

    async with asyncio.timeout(BOUND):
        tasks = [asyncio.ensure_future(one()) for _ in range(60)]
        for task in tasks[::7]:
            await asyncio.sleep(0.01)
            task.cancel()
        await asyncio.wait(tasks)
    assert not [error for task in tasks if not task.cancelled() and (error := task.exception())]
    assert reasons == {"stop", "length", "cancelled", "failed"}
    await engine.until(lambda status: status.running == status.waiting == 0)


async def test_what_a_slow_consumer_missed_comes_in_one_piece(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    await engine.load_guide()
    quick = await engine.generate(ask("what is infraxa?")).collect()
    slow = engine.generate(ask("what is infraxa?"))
    await engine.until(lambda status: status.running == 1)
    await engine.until(lambda status: status.running == 0)
    async with asyncio.timeout(BOUND):
        events = [event async for event in slow]
    assert [type(e) for e in events] == [Delta, Finished]
    assert isinstance(events[0], Delta) and events[0].text == quick[0]


async def test_progress_of_a_long_prompt_is_told(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    await engine.load_guide()
    async with asyncio.timeout(BOUND):
        events = [e async for e in engine.generate(ask("and again " * 400, max_tokens=1))]
    finished = events[-1]
    assert isinstance(finished, Finished)
    first = events[0]
    assert type(first).__name__ == "Progress" or finished.usage.n_prompt < 504
    assert finished.usage.n_prompt > 504, "longer than one step reads"


async def test_tokens_of_a_conversation_are_counted_as_they_will_be_read(
    open_engine: OpenEngine, ask: Ask
) -> None:
    engine = open_engine()
    await engine.load_guide()
    request = ask("what is 12+5?", "17.", "and now?")
    async with asyncio.timeout(BOUND):
        count = await engine.count_tokens(request.messages)
        _, finished = await engine.generate(request).collect()
        longer = await engine.count_tokens([ChatMessage("user", "word " * 3000)])
    assert count == finished.usage.n_prompt
    assert longer > 3000, "longer than the context, and counted all the same"


async def test_a_prompt_that_is_too_long_fails_with_both_numbers(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine()
    await engine.load_guide()
    async with asyncio.timeout(BOUND):
        _, finished = await engine.generate(ask("word " * 3000)).collect()
        count = await engine.count_tokens([ChatMessage("user", "word " * 3000)])
    assert finished.error.code == "prompt_too_long"
    assert str(count) in finished.error.message and "1024" in finished.error.message


@pytest.mark.parametrize(
    "request_",
    [
        Request((ChatMessage("user", "\ud800"),)),
        Request((ChatMessage("critic", "hi"),)),  # type: ignore[arg-type] # as an unchecked caller may
        Request((ChatMessage("user", "hi"),), Sampling(seed=2**80)),
        Request((ChatMessage("user", "hi"),), Sampling(top_k="all")),  # type: ignore[arg-type] # the same
    ],
)
async def test_what_cannot_be_sent_is_refused_and_hurts_nobody(
    open_engine: OpenEngine, ask: Ask, request_: Request
) -> None:
    engine = open_engine()
    pid = await engine.load_guide()
    async with asyncio.timeout(BOUND):
        _, finished = await engine.generate(request_).collect()
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
    assert finished.reason == "failed" and finished.error.code == "bad_request"
    assert "17" in text
    assert engine.status.loaded.pid == pid


async def test_what_cannot_be_counted_is_refused(open_engine: OpenEngine) -> None:
    engine = open_engine()
    await engine.load_guide()
    with pytest.raises(EngineError, match="cannot be counted"):
        await engine.count_tokens([ChatMessage("user", "\ud800")])


@pytest.mark.parametrize("options", [LoadOptions(n_ctx=0), LoadOptions(n_ctx=2**80)])
async def test_options_that_mean_nothing_are_refused(open_engine: OpenEngine, options: LoadOptions) -> None:
    engine = open_engine()
    async with asyncio.timeout(BOUND):
        with pytest.raises(EngineError) as caught:
            await engine.load(GUIDE_PATH, options)
    assert caught.value.code == "bad_request"
    assert engine.status.state == "failed"


async def test_close_ends_answers_and_the_process(
    open_engine: OpenEngine, endless: Request, alive: Alive
) -> None:
    engine = open_engine()
    pid = await engine.load_guide()
    generation = engine.generate(endless)
    async with asyncio.timeout(BOUND):
        await anext(generation)
        await engine.close()
        await engine.close()
        _, finished = await generation.collect()
    assert finished.reason == "cancelled"
    assert not alive(pid)


async def test_closing_while_loading(open_engine: OpenEngine) -> None:
    engine = open_engine()
    loading = asyncio.ensure_future(engine.load_guide())
    await engine.until(lambda status: status.state == "loading")
    async with asyncio.timeout(BOUND):
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await loading


async def test_loading_is_bounded(open_engine: OpenEngine) -> None:
    engine = open_engine(Limits(load=0.01))
    async with asyncio.timeout(BOUND):
        with pytest.raises(EngineError, match="not loaded within") as caught:
            await engine.load_guide()
    assert caught.value.code == "timeout"
    assert engine.status.state == "failed"


def test_the_host_stays_small() -> None:
    """What the parent process imports for the engine; llama.cpp and its like belong to the worker."""
    code = "import sys, infraxa.engine.host; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"llama_cpp", "numpy", "jinja2", "gguf", "psutil", "ctypes", "infraxa.engine.llama"}


@pytest.mark.parametrize("inherited", [True, False])
async def test_the_worker_finds_the_package_from_anywhere(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inherited: bool
) -> None:
    # A module of the same name in the current folder must not be taken for it.
    (tmp_path / "infraxa.py").write_text("raise SystemExit('wrong')")
    (tmp_path / "msgspec.py").write_text("raise SystemExit('wrong')")
    monkeypatch.chdir(tmp_path)
    if not inherited:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    await open_engine().load_guide()
    assert os.getcwd() == str(tmp_path)
