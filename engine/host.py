"""The asyncio side of the engine: keeps one worker process with one model alive, and hands answers out.

Everything here runs in the event loop. It imports neither llama.cpp nor anything else that is heavy.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from infraxa.engine import frames
from infraxa.engine.generation import Answer, Generation
from infraxa.engine.process import WorkerProcess
from infraxa.engine.types import (
    ChatMessage,
    EngineError,
    EngineStatus,
    ErrorInfo,
    Loaded,
    LoadOptions,
    Progress,
    Request,
)


class Limits(msgspec.Struct, frozen=True):
    """How long things may take, in seconds."""

    silence: float = 20.0
    """A working worker that says nothing for so long is dead; it sends a life sign every second."""
    step: float = 900.0
    """One step of decoding. The slowest machine reads its 512 rows in less."""
    load: float = 1800.0
    ready: float = 1800.0
    """A generation waits so long for a model that is loading or restarting."""
    cancel: float = 5.0
    """A cancelled generation waits so long for its final counts."""
    close: float = 1.5
    """Each of: end by request, by SIGTERM, by SIGKILL."""
    backoff_first: float = 0.2
    backoff_last: float = 30.0
    healthy: float = 60.0
    """A worker that lived so long was no failed attempt."""


_CRASHES = frozenset({"worker_died", "timeout"})
"""Errors of loading that another attempt may not meet; all others are the file's or the machine's."""


class Engine:
    """One model at a time. All methods belong to the loop in which `load` was first awaited."""

    def __init__(
        self,
        *,
        on_status: Callable[[EngineStatus], None] = lambda status: None,
        on_log: Callable[[str], None] = lambda line: None,
        limits: Limits | None = None,
    ) -> None:
        self.status = EngineStatus()
        """What the engine is doing; replaced, never changed."""
        self._on_status = on_status
        self._on_log = on_log
        self._limits = limits = limits or Limits()
        self._ids = itertools.count(1)
        self._answers: dict[int, Answer] = {}
        self._counts: dict[int, asyncio.Future[int]] = {}
        self._worker: WorkerProcess | None = None
        self._opening: asyncio.Future[Loaded] | None = None
        self._path = Path()
        self._options = LoadOptions()
        self._load_lock = asyncio.Lock()
        self._restart: asyncio.Task[None] | None = None
        self._backoff = limits.backoff_first
        self._ready_since = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._silent_ticks = 0
        self._still_ticks = 0
        self._step = -1
        self._killed_because = ""
        self._closed = False

    # Loading

    async def load(self, path: Path, options: LoadOptions | None = None) -> Loaded:
        """Opens a model, in place of the one before. Running generations of that one end with `closed`.

        Raises EngineError, and `status` is `failed` then. A worker that crashes while loading gets a second
        attempt.
        """
        async with self._load_lock:
            if self._closed:
                raise _closed()
            await self._stop_restart()
            await self._stop_worker(
                EngineError(
                    "closed", "Another model was loaded before this answer was complete.", "Ask again."
                )
            )
            self._path, self._options = path, options or LoadOptions()
            self._backoff = self._limits.backoff_first
            try:
                try:
                    return await self._open()
                except EngineError as error:
                    if error.code != "worker_died" or self._closed:
                        raise
                    return await self._open()
            except EngineError as error:
                self._fail(error)
                raise
            except asyncio.CancelledError:
                await self._stop_worker(EngineError("closed", "Loading was cancelled.", "Load a model."))
                self._set_status(EngineStatus())
                self._end_waiting(EngineError("closed", "Loading was cancelled.", "Load a model."))
                raise

    async def _open(self) -> Loaded:
        """Starts a worker and waits until its model is ready. Raises EngineError; no worker is left then."""
        self._set_status(EngineStatus("starting", str(self._path)))
        opening: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._opening = opening
        self._killed_because = ""
        try:
            try:
                worker = await WorkerProcess.start(self._receive, self._on_log, self._exited)
            except OSError as error:
                raise EngineError(
                    "worker_died",
                    f"The model's process cannot be started: {error.strerror or error}.",
                    "Close other programs, then try again.",
                ) from None
            self._worker = worker
            worker.send(frames.Load(str(self._path), self._options))
            self._set_status(EngineStatus("loading", str(self._path), progress=0.0))
            self._keep_watch()
            try:
                loaded = await asyncio.wait_for(opening, self._limits.load)
            except TimeoutError:
                raise EngineError(
                    "timeout",
                    f"{self._path.name} was not loaded within {self._limits.load:.0f} seconds.",
                    "Check the disk, or choose a smaller model.",
                ) from None
        except BaseException:
            await self._end_process()
            raise
        finally:
            self._opening = None
        self._ready_since = time.monotonic()
        self._set_status(EngineStatus("ready", str(self._path), loaded=loaded))
        for answer in list(self._answers.values()):
            self._send(answer)
        return loaded

    def _fail(self, error: EngineError) -> None:
        self._set_status(EngineStatus("failed", str(self._path), error=error.info))
        self._end_waiting(error)

    # Generating

    def generate(self, request: Request) -> Generation:
        """Starts an answer. While a model loads or restarts it waits; everything that goes wrong comes as its
        end."""
        answer = Answer(next(self._ids), request)
        state = self.status.state
        if self._closed:
            answer.end("failed", _closed().info)
        elif state == "failed" and self.status.error is not None:
            answer.end("failed", self.status.error)
        elif state == "off":
            answer.end("failed", ErrorInfo("closed", "No model is loaded.", "Load a model first."))
        else:
            self._answers[answer.id] = answer
            if state == "ready":
                self._send(answer)
            else:
                self._wait_for_ready(answer)
        return Generation(answer, self._cancel)

    def _send(self, answer: Answer) -> None:
        assert self._worker is not None
        try:
            self._worker.send(frames.Generate(answer.id, answer.request))
        except frames.FrameError as error:
            self._drop(answer, ErrorInfo("bad_request", f"This cannot be sent: {error}.", "Change the text."))
            return
        answer.stop_timer()
        answer.sent = True
        self._keep_watch()

    def _wait_for_ready(self, answer: Answer) -> None:
        seconds = self._limits.ready
        error = ErrorInfo(
            "timeout", f"The model was not ready within {seconds:.0f} seconds.", "Try again later."
        )
        loop = asyncio.get_running_loop()
        answer.timer = loop.call_later(seconds, self._drop, answer, error)
        self._count_waiting()

    def _drop(self, answer: Answer, error: ErrorInfo) -> None:
        self._answers.pop(answer.id, None)
        answer.end("failed", error)

    def _cancel(self, answer: Answer) -> None:
        if answer.finished is not None or answer.id not in self._answers:
            return
        if not answer.sent or self._worker is None:
            del self._answers[answer.id]
            answer.end("cancelled")
            self._count_waiting()
        elif not answer.cancelling:
            answer.cancelling = True
            self._worker.send(frames.Cancel(answer.id))
            loop = asyncio.get_running_loop()
            answer.timer = loop.call_later(self._limits.cancel, self._give_up, answer)

    def _give_up(self, answer: Answer) -> None:
        self._answers.pop(answer.id, None)
        answer.end("cancelled")

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the prompt that these messages make with the loaded model. Raises EngineError."""
        if self.status.state != "ready" or self._worker is None:
            raise EngineError("closed", "No model is ready to count tokens.", "Wait until it is loaded.")
        count_id = next(self._ids)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._counts[count_id] = future
        try:
            self._worker.send(frames.Count(count_id, tuple(messages)))
            self._keep_watch()
            # The watch ends a worker that never answers, and with it this wait.
            return await future
        except frames.FrameError as error:
            raise EngineError(
                "bad_request", f"This cannot be counted: {error}.", "Change the text."
            ) from None
        finally:
            self._counts.pop(count_id, None)

    # What the worker says

    def _receive(self, message: frames.ToHost) -> None:
        self._silent_ticks = 0
        if isinstance(message, frames.Steps):
            self._stepped(message)
        elif isinstance(message, frames.Beat):
            if message.step != self._step:
                self._step = message.step
                self._still_ticks = 0
        elif isinstance(message, frames.Counted):
            future = self._counts.get(message.id)
            if future is not None and not future.done():
                if message.error is None:
                    future.set_result(message.n_tokens)
                else:
                    e = message.error
                    future.set_exception(EngineError(e.code, e.message, e.remedy))
        elif isinstance(message, frames.Loading):
            self._set_status(msgspec.structs.replace(self.status, progress=message.progress))
        elif self._opening is not None and not self._opening.done():
            if isinstance(message, frames.Ready):
                self._opening.set_result(message.loaded)
            else:
                e = message.error
                self._opening.set_exception(EngineError(e.code, e.message, e.remedy))

    def _stepped(self, message: frames.Steps) -> None:
        self._step = message.step
        self._still_ticks = 0
        answers = self._answers
        for reading in message.reading:
            if answer := answers.get(reading.id):
                answer.read(Progress(reading.done, reading.total))
        for emitted in message.emitted:
            if answer := answers.get(emitted.id):
                answer.add(emitted.text, emitted.token_ids)
        for ended in message.ended:
            if answer := answers.pop(ended.id, None):
                answer.finish(ended.finished)
        if message.running != self.status.running or message.waiting != self.status.waiting:
            self._set_status(
                msgspec.structs.replace(self.status, running=message.running, waiting=message.waiting)
            )

    def _set_status(self, status: EngineStatus) -> None:
        self.status = status
        self._on_status(status)

    def _count_waiting(self) -> None:
        if self.status.state != "ready":
            waiting = len(self._answers)
            if waiting != self.status.waiting:
                self._set_status(msgspec.structs.replace(self.status, waiting=waiting))

    # Death

    def _keep_watch(self) -> None:
        """Begins to look every now and then whether the worker still lives, as long as it has something to
        do."""
        if self._watch is None:
            self._silent_ticks = self._still_ticks = 0
            self._next_look()

    def _next_look(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(self._limits.silence / 10, self._look)

    def _look(self) -> None:
        # Counts looks, not time: when this loop was the one that stood still, messages are waiting to be
        # read.
        self._watch = None
        working = self._opening is not None or self._counts or any(a.sent for a in self._answers.values())
        if self._worker is None or not working:
            return
        self._silent_ticks += 1
        self._still_ticks += self._opening is None
        tick = self._limits.silence / 10
        if self._silent_ticks > 10:
            self._kill(f"it said nothing for {self._limits.silence:g} s")
        elif self._still_ticks * tick > self._limits.step:
            self._kill(f"one step took more than {self._limits.step:g} s")
        self._next_look()

    def _kill(self, because: str) -> None:
        if self._worker is not None and not self._killed_because:
            self._killed_because = because
            self._worker.kill()

    def _exited(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        error = self._death(worker)
        self._on_log(f"host: {error.message}")
        self._lose_running(error)
        if self._opening is not None:
            if not self._opening.done():
                self._opening.set_exception(error)
        elif not self._closed and self._restart is None:
            if time.monotonic() - self._ready_since > self._limits.healthy:
                self._backoff = self._limits.backoff_first
            self._schedule_restart(error)

    def _death(self, worker: WorkerProcess) -> EngineError:
        cause = worker.cause_of_death()
        if self._killed_because:
            cause = f"{self._killed_because} and was stopped"
            remedy = "If it happens again, choose a smaller model or context."
        elif worker.returncode == -9:
            remedy = "The machine may have run out of memory: choose a smaller model or context."
        else:
            remedy = "The log view shows its last words; if it happens again, choose another model."
        return EngineError("worker_died", f"The model's process ended ({cause}).", remedy)

    def _lose_running(self, error: EngineError) -> None:
        for answer in list(self._answers.values()):
            if not answer.sent:
                continue
            if answer.cancelling:
                del self._answers[answer.id]
                answer.end("cancelled")
            elif answer.started or answer.retried:
                del self._answers[answer.id]
                answer.end("failed", error.info)
            else:
                answer.sent = False
                answer.retried = True
                self._wait_for_ready(answer)
        for future in self._counts.values():
            if not future.done():
                future.set_exception(error)

    def _end_waiting(self, error: EngineError) -> None:
        for answer in self._answers.values():
            answer.end("failed", error.info)
        self._answers.clear()

    def _schedule_restart(self, error: EngineError) -> None:
        self._set_status(
            EngineStatus(
                "restarting",
                str(self._path),
                error=error.info,
                waiting=len(self._answers),
                retry_at=time.monotonic() + self._backoff,
            )
        )
        self._restart = asyncio.get_running_loop().create_task(self._restart_worker(), name="engine restart")

    async def _restart_worker(self) -> None:
        """Tries until the model is ready again or the file turns out to be the reason."""
        while True:
            await asyncio.sleep(self._backoff)
            self._backoff = min(self._backoff * 2, self._limits.backoff_last)
            try:
                await self._open()
            except EngineError as error:
                if error.code not in _CRASHES:
                    self._restart = None
                    self._fail(error)
                    return
                self._on_log(f"host: {error.message}")
                self._set_status(
                    EngineStatus(
                        "restarting",
                        str(self._path),
                        error=error.info,
                        waiting=len(self._answers),
                        retry_at=time.monotonic() + self._backoff,
                    )
                )
            else:
                self._restart = None
                return

    async def _stop_restart(self) -> None:
        task, self._restart = self._restart, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _stop_worker(self, error: EngineError) -> None:
        """Ends the worker and the generations that it has."""
        for answer in [a for a in self._answers.values() if a.sent]:
            del self._answers[answer.id]
            answer.end("failed", error.info)
        await self._end_process()

    async def _end_process(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        for future in self._counts.values():
            if not future.done():
                future.set_exception(_closed())
        await worker.stop(self._limits.close)

    async def close(self) -> None:
        """Ends everything, within a few seconds. Generations that still run end as `cancelled`."""
        self._closed = True
        await self._stop_restart()
        for answer in self._answers.values():
            answer.end("cancelled")
        self._answers.clear()
        if self._opening is not None and not self._opening.done():
            self._opening.set_exception(_closed())
        await self._end_process()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._set_status(EngineStatus())


def _closed() -> EngineError:
    return EngineError("closed", "The engine is closed.", "Start infraxa again.")
