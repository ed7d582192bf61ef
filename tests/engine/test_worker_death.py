"""The worker dies in every way there is, and so does its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Limits
from infraxa.engine.process import WorkerProcess, import_place
from infraxa.engine.types import Delta, EngineError, Finished, LoadOptions, Request
from infraxa.engine.watch import Watch

Ask = Callable[..., Request]
Alive = Callable[[int], bool]
OpenEngine = Callable[..., Any]
BOUND = 30.0
QUICK = Limits(backoff_first=0.02, silence=5.0)


def wait_gone(pid: int, alive: Alive) -> bool:
    for _ in range(int(BOUND * 50)):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


async def ready_again(engine: Any, old_pid: int) -> int:
    status = await engine.until(lambda status: status.loaded is not None and status.loaded.pid != old_pid)
    pid: int = status.loaded.pid
    return pid


async def test_killed_in_mid_answer(
    open_engine: OpenEngine, ask: Ask, endless: Request, alive: Alive
) -> None:
    engine = open_engine(QUICK)
    pid = await engine.load_guide()
    text, end = "", None
    async with asyncio.timeout(BOUND):
        async for event in engine.generate(endless):
            if isinstance(event, Delta):
                text += event.text
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
            elif isinstance(event, Finished):
                end = event
    assert text, "what came before stays"
    assert end is not None and end.reason == "failed" and end.error is not None
    assert end.error.code == "worker_died"
    assert end.error.message == "The model's process ended (killed by signal 9 (SIGKILL))."
    assert "memory" in end.error.remedy
    assert end.usage.n_out > 0
    assert engine.status.state == "restarting"
    assert engine.status.error == end.error
    assert engine.status.retry_at is not None

    new_pid = await ready_again(engine, pid)
    assert new_pid != pid and not alive(pid)
    async with asyncio.timeout(BOUND):
        text, end = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text and end.reason == "stop"
    assert any("killed by signal 9" in line for line in engine.log)


async def test_killed_before_anything_was_shown_is_asked_again(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine(QUICK)
    pid = await engine.load_guide()
    os.kill(pid, signal.SIGSTOP)
    generation = engine.generate(ask("what is 12+5?"))
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(BOUND):
        text, finished = await generation.collect()
    assert "17" in text and finished.reason == "stop"


async def test_it_is_asked_again_only_once(open_engine: OpenEngine, endless: Request) -> None:
    engine = open_engine(QUICK)
    pid = await engine.load_guide()
    os.kill(pid, signal.SIGSTOP)
    generation = engine.generate(endless)
    os.kill(pid, signal.SIGKILL)
    # The second worker is stopped before it can answer, and killed as well.
    await engine.until(lambda status: status.state == "loading")
    second = engine._worker.pid
    send = WorkerProcess.send

    def send_and_die(worker: WorkerProcess, message: Any) -> None:
        if type(message).__name__ == "Generate":
            os.kill(second, signal.SIGKILL)
        else:
            send(worker, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerProcess, "send", send_and_die)
        async with asyncio.timeout(BOUND):
            text, finished = await generation.collect()
    assert not text
    assert finished.reason == "failed" and finished.error.code == "worker_died"


async def test_who_does_not_want_that_is_not_asked_again(open_engine: OpenEngine, ask: Ask) -> None:
    engine = open_engine(QUICK)
    pid = await engine.load_guide()
    os.kill(pid, signal.SIGSTOP)
    generation = engine.generate(ask("what is 12+5?"), retry=False)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(BOUND):
        text, finished = await generation.collect()
    assert not text and finished.reason == "failed" and finished.error.code == "worker_died"
    assert engine.status.state == "restarting", "who asks again now waits for the next one"
    async with asyncio.timeout(BOUND):
        text, finished = await engine.generate(ask("what is 12+5?"), retry=False).collect()
    assert "17" in text


HANGS = """
    import pathlib, sys, time
    if "-m" in sys.orig_argv:
        from infraxa.engine.batching import Batcher
        step = Batcher.step
        def hang(self):
            if self.busy and pathlib.Path({mark!r}).exists():
                time.sleep(3600)
            step(self)
        Batcher.step = hang
"""


async def test_a_worker_that_does_not_let_go_of_what_is_cancelled_is_replaced(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: Alive
) -> None:
    """It beats, so it is not stopped; but its step does not end."""
    mark = tmp_path / "mark"
    mark.touch()
    sabotage(monkeypatch, tmp_path, HANGS.format(mark=str(mark)))
    engine = open_engine(Limits(silence=5.0, stuck=1.0, cancel=0.3, backoff_first=0.02))
    pid = (await engine.load(GUIDE_PATH, LoadOptions(threads=1, slots=2))).pid
    generation = engine.generate(ask("hi"))
    async with asyncio.timeout(BOUND):
        early = engine.generate(ask("hi"))
        early.cancel()
        assert (await early.collect())[1].reason == "cancelled"
        assert alive(pid), "no step has taken too long yet"
        for _ in range(int(BOUND * 10)):
            if engine._watch.still >= 2.0:
                break
            await asyncio.sleep(0.1)
        late = engine.generate(ask("hi"))
        late.cancel()
        assert (await late.collect())[1].reason == "cancelled"
        assert alive(pid), "it came later, so that is no wonder"
        mark.unlink()
        generation.cancel()
        _, finished = await generation.collect()
        assert finished.reason == "cancelled" and not alive(pid)
        assert engine.status.state == "restarting"
        assert "was not to be interrupted and was stopped" in engine.status.error.message
        text, finished = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text and finished.reason == "stop"


async def test_a_cancelled_answer_of_a_dead_worker_is_cancelled(
    open_engine: OpenEngine, endless: Request
) -> None:
    engine = open_engine(QUICK)
    pid = await engine.load_guide()
    os.kill(pid, signal.SIGSTOP)
    generation = engine.generate(endless)
    generation.cancel()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(BOUND):
        _, finished = await generation.collect()
    assert finished.reason == "cancelled"


async def test_a_cancel_that_nobody_confirms_ends_all_the_same(
    open_engine: OpenEngine, endless: Request
) -> None:
    engine = open_engine(Limits(cancel=0.1, close=0.1))
    pid = await engine.load_guide()
    generation = engine.generate(endless)
    async with asyncio.timeout(BOUND):
        first = await anext(generation)
        assert isinstance(first, Delta)
        os.kill(pid, signal.SIGSTOP)
        generation.cancel()
        _, finished = await generation.collect()
    assert finished.reason == "cancelled"
    assert finished.usage.n_out >= len(first.token_ids)


async def test_a_stopped_worker_is_noticed_and_replaced(
    open_engine: OpenEngine, ask: Ask, endless: Request, alive: Alive
) -> None:
    engine = open_engine(QUICK)
    pid = await engine.load_guide()
    generation = engine.generate(endless)
    async with asyncio.timeout(BOUND):
        await anext(generation)
        os.kill(pid, signal.SIGSTOP)
        counting = asyncio.ensure_future(engine.count_tokens(ask("hi").messages))
        _, finished = await generation.collect()
        with pytest.raises(EngineError, match="said nothing") as caught:
            await counting
    assert finished.reason == "failed"
    assert finished.error.message == "The model's process ended (it said nothing for 5 s and was stopped)."
    assert caught.value.code == "worker_died"
    assert not alive(pid)
    await ready_again(engine, pid)


async def test_a_stopped_worker_can_be_closed(open_engine: OpenEngine, alive: Alive) -> None:
    engine = open_engine(Limits(close=0.1))
    pid = await engine.load_guide()
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(BOUND):
        await engine.close()
    assert not alive(pid)


async def test_waits_grow_and_a_file_that_is_gone_ends_them(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GUIDE_PATH.read_bytes())
    engine = open_engine(Limits(backoff_first=0.1, backoff_last=0.3))
    pid = await engine.load_guide(path)
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        pid = await ready_again(engine, pid)
    assert [round(wait, 1) for wait in engine.waits] == [0.1, 0.2, 0.3]
    path.unlink()
    os.kill(pid, signal.SIGKILL)
    await engine.until(lambda status: status.state == "restarting")
    async with asyncio.timeout(BOUND):
        _, finished = await engine.generate(ask("hi")).collect()
    assert finished.error.code == "not_found"
    assert engine.status.state == "failed"


def sabotage(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Runs code in each worker before anything else."""
    (folder / "sitecustomize.py").write_text(textwrap.dedent(code))
    paths = [str(folder), import_place() or "", os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p))


async def test_what_native_code_prints_lands_in_the_log(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = """
        import ctypes, os, threading, time
        def shout():
            # Native prints, as soon as descriptor 1 is no longer the pipe.
            while os.readlink("/proc/self/fd/1") != os.readlink("/proc/self/fd/2"):
                time.sleep(0.001)
            libc = ctypes.CDLL(None)
            while True:
                libc.printf(b"NOISE on one %s\\n", b"x" * 3000)
                libc.fflush(None)
                os.write(2, b"NOISE on two \\xff\\x1b[31m without end")
                time.sleep(0.002)
        threading.Thread(target=shout, daemon=True).start()
    """
    sabotage(monkeypatch, tmp_path, noise)
    engine = open_engine()
    async with asyncio.timeout(BOUND):
        await engine.load_guide()
        answers = await asyncio.gather(*(engine.generate(ask("what is 12+5?")).collect() for _ in range(4)))
    assert all("17" in text and finished.reason == "stop" for text, finished in answers)
    assert any("NOISE on one" in line for line in engine.log)
    assert any("NOISE on two" in line for line in engine.log)
    assert max(map(len, engine.log)) <= 2000


async def test_a_crash_while_loading_gets_a_second_attempt(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "crashed"
    sabotage(
        monkeypatch,
        tmp_path,
        f"""
        import os, pathlib
        if not pathlib.Path({str(mark)!r}).exists():
            pathlib.Path({str(mark)!r}).touch()
            os.abort()
        """,
    )
    engine = open_engine()
    async with asyncio.timeout(BOUND):
        await engine.load_guide()
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text
    assert mark.exists()


async def test_a_file_that_crashes_it_every_time_is_given_up(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, tmp_path, "import os\nos.abort()")
    engine = open_engine()
    async with asyncio.timeout(BOUND):
        waiting = asyncio.ensure_future(engine.load_guide())
        await asyncio.sleep(0)
        generation = engine.generate(ask("hi"))
        with pytest.raises(EngineError, match=r"killed by signal 6 \(SIGABRT\)") as caught:
            await waiting
        _, finished = await generation.collect()
    assert caught.value.code == "worker_died"
    assert engine.status.state == "failed"
    assert finished.error == caught.value.info


async def test_a_broken_installation_of_llama_cpp_is_said(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    async with asyncio.timeout(BOUND):
        with pytest.raises(EngineError, match=r"llama\.cpp itself cannot be loaded") as caught:
            await open_engine().load_guide()
    assert caught.value.code == "load_failed"


PARENT = """
    import asyncio, sys
    from infraxa.engine.guide import GUIDE_PATH
    from infraxa.engine.host import Engine
    from infraxa.engine.types import ChatMessage, LoadOptions, Request, Sampling

    async def main():
        engine = Engine()
        loaded = await engine.load(GUIDE_PATH, LoadOptions(threads=1))
        hot = Sampling(temperature=50.0, top_k=0, top_p=1.0, min_p=0.0)
        while True:
            async for event in engine.generate(Request((ChatMessage("user", "hi"),), hot)):
                print(loaded.pid, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_killed_parent_takes_its_worker_along(stopped: bool, alive: Alive) -> None:
    place = import_place()
    environment = dict(os.environ) | ({"PYTHONPATH": place} if place else {})
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        if stopped:
            os.kill(pid, signal.SIGSTOP)
    finally:
        parent.kill()
        parent.communicate(timeout=BOUND)
    assert wait_gone(pid, alive)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_ends_the_host_in_order_leaves_the_worker_alone(
    open_engine: OpenEngine, ask: Ask, number: int
) -> None:
    engine = open_engine()
    pid = await engine.load_guide()
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, number)
    async with asyncio.timeout(BOUND):
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
    assert "17" in text
    assert engine.status.loaded.pid == pid


class Watched:
    """A watch over a worker that exists only in the numbers it tells."""

    def __init__(self, *, silence: float, step: float) -> None:
        self.deaths: list[str] = []
        self.working = True
        self.watch = Watch(silence=silence, step=step, working=lambda: self.working, dead=self.deaths.append)

    async def beat(self, seconds: float, steps: bool) -> None:
        end = time.monotonic() + seconds
        step = 0
        while time.monotonic() < end and not self.deaths:
            self.watch.heard()
            step += steps
            self.watch.stepped(step)
            await asyncio.sleep(0.002)


async def test_a_heartbeat_does_not_hide_a_step_that_hangs() -> None:
    watched = Watched(silence=0.3, step=0.5)
    watched.watch.start()
    await watched.beat(BOUND, steps=False)
    assert watched.deaths == ["one step took more than 0.5 s"]


async def test_steps_and_beats_keep_it_alive() -> None:
    watched = Watched(silence=0.3, step=0.5)
    watched.watch.start()
    await watched.beat(1.2, steps=True)
    assert not watched.deaths
    watched.watch.stop()


async def test_a_loop_that_stood_still_does_not_blame_the_worker() -> None:
    watched = Watched(silence=0.3, step=0.5)
    watched.watch.start()
    time.sleep(1.0)  # noqa: ASYNC251 # the loop itself stands still
    await watched.beat(0.1, steps=True)
    assert not watched.deaths
    watched.watch.stop()


async def test_nobody_looks_at_a_worker_without_work() -> None:
    watched = Watched(silence=0.05, step=0.05)
    watched.working = False
    watched.watch.start()
    await asyncio.sleep(0.3)
    assert not watched.deaths


async def test_a_model_that_is_the_death_of_each_worker_is_given_up(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends as soon as it has to do anything, until somebody removes the reason."""
    mark = tmp_path / "crash"
    mark.touch()
    sabotage(
        monkeypatch,
        tmp_path,
        f"""
        import os, pathlib, sys
        if "-m" in sys.orig_argv:
            from infraxa.engine.batching import Batcher
            submit = Batcher.submit
            def crash(*args):
                if pathlib.Path({str(mark)!r}).exists():
                    os.abort()
                return submit(*args)
            Batcher.submit = crash
        """,
    )
    engine = open_engine(Limits(backoff_first=0.01, backoff_last=0.02, deaths=3))
    await engine.load_guide()
    async with asyncio.timeout(BOUND):
        pending = [asyncio.ensure_future(engine.generate(ask("hi")).collect())]
        while engine.status.state != "failed":
            # Somebody asks again and again, so that each worker has something to die of.
            pending.append(asyncio.ensure_future(engine.generate(ask("hi")).collect()))
            await asyncio.sleep(0.1)
        ends = [finished for _, finished in await asyncio.gather(*pending)]
        assert {finished.reason for finished in ends} == {"failed"}
        _, late = await engine.generate(ask("hi")).collect()
    assert engine.status.error.code == "worker_died"
    assert "SIGABRT" in engine.status.error.message and "3 in a row" in engine.status.error.message
    assert "another model" in engine.status.error.remedy
    assert late.error == engine.status.error == ends[-1].error
    assert len([s for s in engine.told if s.state == "ready" and s.running == 0]) >= 3

    mark.unlink()
    async with asyncio.timeout(BOUND):
        pid = await engine.load_guide()
        text, _ = await engine.generate(ask("what is 12+5?")).collect()
        assert "17" in text
        # The count begins afresh.
        for _ in range(2):
            os.kill(pid, signal.SIGKILL)
            pid = await ready_again(engine, pid)


async def test_one_request_that_nobody_expected_does_not_end_the_others(
    open_engine: OpenEngine, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(
        monkeypatch,
        tmp_path,
        """
        import sys
        if "-m" in sys.orig_argv:
            from infraxa.engine.template import ChatTemplate
            render = ChatTemplate.render
            def poisoned(self, messages, tools=()):
                return {}[messages[0].content] if "poison" in messages[0].content else render(self, messages)
            ChatTemplate.render = poisoned
        """,
    )
    engine = open_engine()
    pid = await engine.load_guide()
    async with asyncio.timeout(BOUND):
        (_, bad), (text, _) = await asyncio.gather(
            engine.generate(ask("poison")).collect(), engine.generate(ask("what is 12+5?")).collect()
        )
        with pytest.raises(EngineError, match="KeyError") as caught:
            await engine.count_tokens(ask("poison").messages)
    assert bad.reason == "failed" and bad.error == caught.value.info
    assert "17" in text
    assert engine.status.loaded.pid == pid


async def test_threads_are_counted_once(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash the machine may look busier than it is."""
    sabotage(
        monkeypatch,
        tmp_path,
        f"""
        import pathlib, sys
        if "-m" in sys.orig_argv:
            from infraxa.engine import sizing
            mark = pathlib.Path({str(tmp_path / "mark")!r})
            sizing.free_cores = lambda *args: 1 if mark.exists() else (mark.touch(), 2)[1]
        """,
    )
    engine = open_engine(QUICK)
    async with asyncio.timeout(BOUND):
        loaded = await engine.load(GUIDE_PATH, LoadOptions(slots=1, n_ctx=256))
        os.kill(loaded.pid, signal.SIGKILL)
        await ready_again(engine, loaded.pid)
    assert loaded.threads == engine.status.loaded.threads == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told")
async def test_the_worker_is_what_memory_exhaustion_ends(open_engine: OpenEngine) -> None:
    pid = await open_engine().load_guide()
    with open(f"/proc/{pid}/oom_score_adj") as file:  # noqa: ASYNC230 # no disk behind it
        assert int(file.read()) >= 500
