"""The asyncio side of the engine: keeps one worker process with one model alive, and hands answers out.

Everything here runs in the event loop. It imports neither llama.cpp nor anything else that is heavy.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from infraxa.engine import frames
from infraxa.engine.checks import check_answer, check_texts
from infraxa.engine.generation import Answer, Generation
from infraxa.engine.process import WorkerProcess
from infraxa.engine.types import (
    ChatMessage,
    Embedded,
    EngineError,
    EngineStatus,
    ErrorInfo,
    KvType,
    Loaded,
    LoadOptions,
    Progress,
    Request,
    Scored,
)
from infraxa.engine.wanted import Calibration, Score, Vectors, Wanted, settle
from infraxa.engine.watch import Watch

T = TypeVar("T")
EngineState = Literal["off", "starting", "loading", "ready", "restarting", "failed"]


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
    stuck: float = 60.0
    """A worker that has been in one step for so long and does not let go of a generation in it that was
    cancelled is dead. One that is only slow lets go of it in mid-step."""
    close: float = 1.5
    """Each of: end by request, by force."""
    backoff_first: float = 0.2
    backoff_last: float = 30.0
    healthy: float = 60.0
    """The wait before a restart grows until a worker has lived so long."""
    deaths: int = 5
    """After so many workers in a row that did not live so long, no other is started."""


_CRASHES = frozenset({"worker_died", "timeout"})
"""Errors of loading that another attempt may not meet; all others are the file's or the machine's."""


class Engine:
    """One model at a time. All methods belong to one event loop.

    A worker that dies, or is stuck and is killed for it, is restarted, waiting twice as long before each
    attempt, until a model has been the death of several in a row. Answers that had shown something end as
    `failed`; the others are asked again, once, unless who asked wants to decide that.
    """

    def __init__(
        self,
        *,
        on_status: Callable[[EngineStatus], None] = lambda status: None,
        on_log: Callable[[str], None] = lambda line: None,
        limits: Limits | None = None,
    ) -> None:
        """`on_status` gets each new value of `status`, `on_log` each line of llama.cpp's log; both in the
        loop."""
        self.status = EngineStatus()
        """What the engine is doing; replaced, never changed."""
        self._on_status = on_status
        self._on_log = on_log
        self._limits = limits = limits or Limits()
        self._ids = itertools.count(1)
        self._answers: dict[int, Answer] = {}
        """Those that are not finished."""
        self._counts: dict[int, asyncio.Future[int]] = {}
        self._wanted: dict[int, Wanted[Any]] = {}
        self._worker: WorkerProcess | None = None
        self._watch = Watch(
            silence=limits.silence, step=limits.step, working=self._worker_has_work, dead=self._kill
        )
        self._killed_because = ""
        self._opening: asyncio.Future[Loaded] | None = None
        self._load_lock = asyncio.Lock()
        self._loads = 0
        """How many were asked for; only the last is wanted."""
        self._path = Path()
        self._options = LoadOptions()
        self._restart: asyncio.Task[None] | None = None
        self._backoff = limits.backoff_first
        self._ready_since = 0.0
        self._deaths = 0
        """Of workers, in a row."""
        self._closed = False

    async def load(self, path: Path, options: LoadOptions | None = None) -> Loaded:
        """Opens a model, in place of the one before. Answers that were asked for before end with `closed`.

        Raises EngineError, and `status` is `failed` then; a load that another one overtakes raises `closed`.
        A worker that crashes while loading gets a second attempt.
        """
        self._loads = number = self._loads + 1
        settle(self._opening, None, _replaced().info)
        for answer in list(self._answers.values()):
            self._finish(answer, _replaced())
        try:
            async with self._load_lock:
                self._check_wanted(number)
                self._path, self._options = path, options or LoadOptions()
                self._backoff = self._limits.backoff_first
                self._deaths = 0
                self._set_state("starting")
                await self._stop_restart()
                await self._end_process()
                try:
                    loaded = await self._open(number)
                except EngineError as error:
                    if error.code != "worker_died":
                        raise
                    self._on_log(f"host: {error.message}")
                    loaded = await self._open(number)
                # Measured once: after a crash, less may look free than there is.
                self._options = msgspec.structs.replace(self._options, threads=loaded.threads)
                return loaded
        except EngineError as error:
            if number == self._loads:
                self._fail(error)
            raise
        except asyncio.CancelledError:
            if number == self._loads:
                self._fail(EngineError("closed", "Loading was cancelled.", "Load a model."))
            raise

    def _check_wanted(self, number: int) -> None:
        if self._closed:
            raise _closed()
        if number != self._loads:
            raise _replaced()

    async def _open(self, number: int) -> Loaded:
        """Starts a worker for the load of that number and waits until its model is ready. Raises EngineError;
        no worker is left then."""
        self._check_wanted(number)
        self._set_state("starting")
        opening: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._opening = opening
        self._killed_because = ""
        try:
            self._worker = worker = await self._start_process()
            self._check_wanted(number)
            if worker.gone:
                raise self._death(worker)
            worker.send(frames.Load(str(self._path), self._options))
            self._set_state("loading", progress=0.0)
            self._watch.start()
            async with asyncio.timeout(self._limits.load):
                loaded = await opening
            self._check_wanted(number)
            if self._worker is not worker:
                raise self._death(worker)
        except BaseException as error:
            await self._end_process()
            if isinstance(error, frames.FrameError):
                raise EngineError(
                    "bad_request", f"These options mean nothing: {error}.", "Correct them."
                ) from None
            if isinstance(error, TimeoutError):
                raise EngineError(
                    "timeout",
                    f"{self._path.name} was not loaded within {self._limits.load:g} seconds.",
                    "Check the disk, or choose a smaller model.",
                ) from None
            raise
        finally:
            self._opening = None
            if opening.done() and not opening.cancelled():
                # Nobody waits for it who was told by other ways: that is no mistake.
                opening.exception()
        self._ready_since = time.monotonic()
        self._set_state("ready", loaded=loaded)
        for answer in list(self._answers.values()):
            self._send(answer)
        return loaded

    async def _start_process(self) -> WorkerProcess:
        try:
            return await WorkerProcess.start(self._receive, self._on_log, self._exited)
        except OSError as error:
            raise EngineError(
                "worker_died",
                f"The model's process cannot be started: {error.strerror or error}.",
                "Close other programs, then try again.",
            ) from None

    def generate(self, request: Request, *, retry: bool = True) -> Generation:
        """Starts an answer. While a model loads or restarts it waits; what goes wrong comes as its end.

        `retry`: when its worker dies before its first token, it is asked again, once; else it ends then, as
        `worker_died`.
        """
        answer = Answer(next(self._ids), request, last_try=not retry)
        generation = Generation(answer, self._cancel)
        state = self.status.state
        if self._closed:
            answer.end("failed", _closed().info)
        elif state == "failed":
            answer.end("failed", self.status.error)
        elif state == "off":
            answer.end("failed", ErrorInfo("closed", "No model is loaded.", "Load a model first."))
        else:
            self._answers[answer.id] = answer
            if state == "ready":
                self._send(answer)
            else:
                self._wait_for_ready(answer)
        return generation

    def _send(self, answer: Answer) -> None:
        assert self._worker is not None
        answer.stop_timer()
        try:
            self._worker.send(frames.Generate(answer.id, answer.request))
        except frames.FrameError as error:
            self._finish(
                answer, EngineError("bad_request", f"This cannot be sent: {error}.", "Change the text.")
            )
            return
        if not self._worker_has_work():
            self._watch.progressed()  # nothing was to be done before
        answer.sent, answer.sent_at = True, time.monotonic()
        self._watch.start()

    def _wait_for_ready(self, answer: Answer) -> None:
        seconds = self._limits.ready
        error = EngineError(
            "timeout", f"The model was not ready within {seconds:g} seconds.", "Try again later."
        )
        answer.timer = asyncio.get_running_loop().call_later(seconds, self._finish, answer, error)
        self._show_waiting()

    def _finish(self, answer: Answer, error: EngineError | None = None) -> None:
        """Ends an answer of which the worker will tell nothing more: `failed`, or `cancelled` without an
        error."""
        self._answers.pop(answer.id, None)
        answer.end("failed" if error else "cancelled", error.info if error else None)
        self._show_waiting()

    def _cancel(self, answer: Answer) -> None:
        if answer.id not in self._answers or answer.cancelling:
            return
        if not answer.sent or self._worker is None:
            self._finish(answer)
            return
        answer.cancelling = True
        self._worker.send(frames.Cancel(answer.id))
        answer.timer = asyncio.get_running_loop().call_later(self._limits.cancel, self._not_let_go, answer)

    def _not_let_go(self, answer: Answer) -> None:
        """Its worker says nothing to its being cancelled."""
        if not self._is_stuck_with(answer):
            self._finish(answer)
            return
        # It ends with the worker: who asks for the same again has another one.
        self._kill(f"it did nothing for {self._limits.stuck:g} s and was not to be interrupted")
        answer.timer = asyncio.get_running_loop().call_later(self._limits.cancel, self._finish, answer)

    def _is_stuck_with(self, answer: Answer) -> bool:
        """Whether the worker has been in the same step for too long, and this answer with it: one that waits
        for the others, or came later, cannot be let go of before the end of a step."""
        loaded, sent = self.status.loaded, sum(other.sent for other in self._answers.values())
        if self._worker is None or loaded is None or sent > loaded.slots:
            return False
        return self._limits.stuck <= self._watch.still <= time.monotonic() - answer.sent_at

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the prompt that these messages make with the loaded model. Raises EngineError."""
        if self.status.state != "ready" or self._worker is None:
            raise EngineError("closed", "No model is ready to count tokens.", "Wait until it is loaded.")
        count_id = next(self._ids)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._counts[count_id] = future
        try:
            self._worker.send(frames.Count(count_id, tuple(messages)))
            # The watch ends a worker that never answers, and with it this wait.
            self._watch.start()
            return await future
        except frames.FrameError as error:
            raise EngineError(
                "bad_request", f"This cannot be counted: {error}.", "Change the text."
            ) from None
        finally:
            del self._counts[count_id]

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """What each of the texts means. Raises EngineError. Ends with its caller."""
        check_texts(texts)
        return await self._want(Vectors(len(texts)), lambda number: frames.Embed(number, tuple(texts)))

    async def score(
        self,
        request: Request,
        answer: Sequence[int],
        steps: Sequence[int],
        ids: Sequence[bytes] = (),
        *,
        kv_type: KvType = "f16",
        most: int = 0,
        chars: int = 0,
        on_progress: Callable[[float], None] = lambda done: None,
    ) -> Scored:
        """What the loaded model computes at some steps of an answer that somebody else made, and what all its
        tokens say, with the stop strings of the request.

        `answer`: the tokens as they were sampled, the one that ended the turn too; `steps`: rising indices of
        them; `ids`: for each step, up to 64 tokens (little-endian uint32) whose logits are wanted besides the
        likeliest; one that the model does not have gets the lowest. `most`: tokens that the prompt and the
        answer may have, 0: as many as the model was trained for. `chars`: so many characters of the text
        are hashed, from its beginning on; 0: all of it. `on_progress` gets 0 to 1. Raises EngineError. Ends
        with its caller.
        """
        check_answer(answer, steps, ids)

        def make(number: int) -> frames.Score:
            said, wanted = tuple(answer), tuple(steps)
            return frames.Score(number, request, said, wanted, tuple(ids), kv_type, most, chars)

        return await self._want(Score(on_progress), make)

    async def calibrate(
        self, on_progress: Callable[[float], None] = lambda done: None, *, scratch: Path | None = None
    ) -> float:
        """The honest noise of the loaded model on this machine, in logits (see calibration.py): what two ways
        of computing the same answers differ by. `on_progress` gets 0 to 1.

        `scratch`: a folder of the caller's that a copy of the weights may be written to, where memory and
        disk have room; the caller removes it. Answers go before it. Raises EngineError. Ends with its caller.
        """
        folder = "" if scratch is None else str(scratch)
        return await self._want(Calibration(on_progress), lambda number: frames.Calibrate(number, folder))

    async def _want(self, wanted: Wanted[T], make: Callable[[int], frames.ToWorker]) -> T:
        worker, number = self._worker, next(self._ids)
        if self.status.state != "ready" or worker is None:
            raise EngineError("closed", "No model is ready to compute this.", "Wait until it is loaded.")
        self._wanted[number] = wanted
        try:
            worker.send(make(number))
            self._watch.start()
            return await wanted.done
        except frames.FrameError as error:
            raise EngineError(
                "bad_request", f"This cannot be computed: {error}.", "Change the text."
            ) from None
        finally:
            if not wanted.done.done() or wanted.done.cancelled():
                worker.send(frames.Cancel(number))
            del self._wanted[number]

    def _receive(self, message: frames.ToHost) -> None:
        self._watch.heard()
        if isinstance(message, frames.Steps):
            self._stepped(message)
        elif isinstance(message, frames.Beat):
            if message.waiting:
                self._watch.progressed()
            self._watch.stepped(message.step)
        elif isinstance(message, frames.Counted):
            self._watch.progressed()
            settle(self._counts.get(message.id), message.n_tokens, message.error)
        elif isinstance(message, frames.Embedding | frames.ScoreMade | frames.Calibrating):
            self._watch.progressed()
            if wanted := self._wanted.get(message.id):
                wanted.add(message)
        elif isinstance(message, frames.Loading):
            self._watch.progressed()
            self._set_state("loading", progress=message.progress)
        elif isinstance(message, frames.Ready):
            settle(self._opening, message.loaded)
        else:
            settle(self._opening, None, message.error)

    def _stepped(self, message: frames.Steps) -> None:
        self._watch.progressed()
        answers = self._answers
        for reading in message.reading:
            if answer := answers.get(reading.id):
                answer.read(Progress(reading.done, reading.total))
        for emitted in message.emitted:
            if answer := answers.get(emitted.id):
                answer.add(emitted)
        for ended in message.ended:
            if answer := answers.pop(ended.id, None):
                answer.finish(ended.finished)
        if message.running != self.status.running or message.waiting != self.status.waiting:
            self._set_status(
                msgspec.structs.replace(self.status, running=message.running, waiting=message.waiting)
            )

    def _set_state(
        self,
        state: EngineState,
        *,
        progress: float | None = None,
        loaded: Loaded | None = None,
        error: ErrorInfo | None = None,
        retry_at: float | None = None,
    ) -> None:
        path = "" if state == "off" else str(self._path)
        waiting = sum(not answer.sent for answer in self._answers.values())
        self._set_status(
            EngineStatus(state, path, progress, loaded, error, waiting=waiting, retry_at=retry_at)
        )

    def _set_status(self, status: EngineStatus) -> None:
        self.status = status
        self._on_status(status)

    def _show_waiting(self) -> None:
        """While there is no worker to say it."""
        waiting = sum(not answer.sent for answer in self._answers.values())
        if self.status.state in ("starting", "loading", "restarting") and waiting != self.status.waiting:
            self._set_status(msgspec.structs.replace(self.status, waiting=waiting))

    def _worker_has_work(self) -> bool:
        if self._worker is None:
            return False
        asked = self._counts or self._wanted or any(a.sent for a in self._answers.values())
        return bool(self._opening or asked)

    def _kill(self, because: str) -> None:
        if self._worker is not None:
            self._killed_because = because
            self._worker.kill()

    def _exited(self, worker: WorkerProcess) -> None:
        """The worker is gone, and nobody here asked for it."""
        if worker is not self._worker:
            # It was given up while it started.
            return
        self._worker = None
        error = self._death(worker)
        for answer in [a for a in self._answers.values() if a.sent]:
            if answer.cancelling:
                self._finish(answer)
            elif answer.started or answer.last_try:
                self._finish(answer, error)
            else:
                answer.sent = False
                answer.last_try = True
                self._wait_for_ready(answer)
        for future in self._counts.values():
            settle(future, 0, error.info)
        for wanted in self._wanted.values():
            wanted.fail(error.info)
        if self._opening is not None:
            settle(self._opening, None, error.info)
        else:
            self._on_log(f"host: {error.message}")
            if time.monotonic() - self._ready_since > self._limits.healthy:
                self._backoff = self._limits.backoff_first
                self._deaths = 0
            if self._goes_on_after(error):
                self._restart = asyncio.get_running_loop().create_task(self._restart_worker())

    def _death(self, worker: WorkerProcess) -> EngineError:
        cause = worker.cause_of_death()
        remedy = "The log view shows its last words; if it happens again, choose another model."
        if self._killed_because:
            cause = f"{self._killed_because} and was stopped"
            remedy = "If it happens again, choose a smaller model or context."
        elif worker.lost_its_file:
            cause = f"{self._path.name} was overwritten or cut off while it was in use, or its disk failed"
            remedy = "Put the whole file back; a new one is best moved to the place of the old one."
        elif worker.killed:
            remedy = "The machine may have run out of memory: choose a smaller model or context."
        return EngineError("worker_died", f"The model's process ended ({cause}).", remedy)

    def _goes_on_after(self, error: EngineError) -> bool:
        """Whether another worker shall be started after such an end; tells what comes."""
        self._deaths += 1
        if self._deaths < self._limits.deaths:
            self._set_state("restarting", error=error.info, retry_at=time.monotonic() + self._backoff)
            return True
        self._fail(
            EngineError(
                error.code,
                f"{error.message.rstrip('.')}, the last of {self._deaths} in a row.",
                "Choose another model; the log view shows its last words.",
            )
        )
        return False

    async def _restart_worker(self) -> None:
        """Tries until the model is ready again or its file turns out to be the reason."""
        while True:
            await asyncio.sleep(self._backoff)
            self._backoff = min(self._backoff * 2, self._limits.backoff_last)
            try:
                await self._open(self._loads)
            except EngineError as error:
                self._on_log(f"host: {error.message}")
                if error.code not in _CRASHES:
                    self._fail(error)
                elif self._goes_on_after(error):
                    continue
            self._restart = None
            return

    async def _stop_restart(self) -> None:
        task, self._restart = self._restart, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _fail(self, error: EngineError) -> None:
        if not self._closed:
            self._set_state("failed", error=error.info)
        for answer in list(self._answers.values()):
            self._finish(answer, error)

    async def _end_process(self) -> None:
        worker, self._worker = self._worker, None
        self._watch.stop()
        for future in self._counts.values():
            settle(future, 0, _replaced().info)
        for wanted in self._wanted.values():
            wanted.fail(_replaced().info)
        if worker is not None:
            await worker.stop(self._limits.close)

    async def close(self) -> None:
        """Ends everything, within a few seconds and for good. Answers that still run end as `cancelled`."""
        self._closed = True
        for answer in list(self._answers.values()):
            self._finish(answer)
        settle(self._opening, None, _closed().info)
        await self._stop_restart()
        async with self._load_lock:
            await self._end_process()
        self._set_state("off")


def _replaced() -> EngineError:
    return EngineError("closed", "Another model was loaded before this was complete.", "Ask again.")


def _closed() -> EngineError:
    return EngineError("closed", "The engine is closed.", "Start infraxa again.")
