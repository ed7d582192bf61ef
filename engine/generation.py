"""One answer as its consumer sees it: an async iterator that never raises, remembers little and can be
cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable

from infraxa.engine.frames import Emitted
from infraxa.engine.types import (
    Delta,
    ErrorInfo,
    Finished,
    FinishReason,
    Progress,
    Request,
    TokenLogprob,
    Usage,
)


class Answer:
    """The engine's side of a generation: what has come and was not taken yet.

    What a slow consumer has not taken is joined, so it holds one answer at most, whose length the context
    bounds.
    """

    def __init__(self, answer_id: int, request: Request, *, last_try: bool) -> None:
        self.id = answer_id
        self.request = request
        self.sent = False
        """A worker has it."""
        self.sent_at = 0.0
        self.last_try = last_try
        """It ends with its worker."""
        self.cancelling = False
        self.finished: Finished | None = None
        self.on_finish: Callable[[], object] | None = None
        """Called once, when it ends."""
        self.timer: asyncio.TimerHandle | None = None
        """Bounds what is being waited for."""
        self._changed = asyncio.Event()
        self._parts: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._leaves: list[bytes] = []
        self._ctx0 = b""
        self._committed = False
        self._progress: Progress | None = None
        self._n_prompt = 0
        self._n_out = 0
        self._received = time.perf_counter()
        self._first = 0.0
        self._last = 0.0

    @property
    def started(self) -> bool:
        """Something was generated that a consumer may have shown, or told."""
        return self._n_out > 0 or self._committed

    def read(self, progress: Progress) -> None:
        self._progress = progress
        self._n_prompt = progress.total
        self._changed.set()

    def add(self, emitted: Emitted) -> None:
        self._last = time.perf_counter()
        if not self._n_out:
            self._first = self._last
        self._n_out += len(emitted.token_ids)
        self._progress = None
        if emitted.text:
            self._parts.append(emitted.text)
        self._ids.extend(emitted.token_ids)
        self._logprobs.extend(emitted.logprobs)
        self._leaves.extend(emitted.leaves)
        if emitted.ctx0:
            self._ctx0, self._committed = emitted.ctx0, True
        self._changed.set()

    def finish(self, finished: Finished) -> None:
        """Does nothing the second time."""
        if self.finished is None:
            self.stop_timer()
            self.finished = finished
            self._changed.set()
            on_finish, self.on_finish = self.on_finish, None
            if on_finish is not None:
                on_finish()

    def end(self, reason: FinishReason, error: ErrorInfo | None = None) -> None:
        """Finishes with the host's own counts: no worker will send any."""
        usage = Usage(
            n_prompt=self._n_prompt,
            n_out=self._n_out,
            first_token_ms=(self._first - self._received) * 1000 if self._n_out else None,
            decode_ms=(self._last - self._first) * 1000,
        )
        self.finish(Finished(reason, usage, error))

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    async def next(self) -> Progress | Delta | Finished:
        """What has come since the last call; waits for it. After the end, Finished again and again."""
        while True:
            if self._ids or self._parts or self._leaves or self._ctx0:
                delta = Delta(
                    "".join(self._parts),
                    tuple(self._ids),
                    tuple(self._logprobs),
                    tuple(self._leaves),
                    self._ctx0,
                )
                self._parts.clear()
                self._ids.clear()
                self._logprobs.clear()
                self._leaves.clear()
                self._ctx0 = b""
                return delta
            if self._progress is not None:
                progress, self._progress = self._progress, None
                return progress
            if self.finished is not None:
                return self.finished
            self._changed.clear()
            await self._changed.wait()


class Generation(AsyncIterator[Progress | Delta | Finished]):
    """Progress, then Delta, then one Finished. Errors come as `Finished("failed")`.

    When its consumer is cancelled or lets go of it, the generation is cancelled too.
    """

    def __init__(self, answer: Answer, cancel: Callable[[Answer], None]) -> None:
        self._answer = answer
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._over = False

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Progress | Delta | Finished:
        if self._over:
            raise StopAsyncIteration
        try:
            event = await self._answer.next()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._over = isinstance(event, Finished)
        return event

    @property
    def ended(self) -> Finished | None:
        """The end, as soon as the engine has nothing more to do for it; what came may not have been taken
        yet."""
        return self._answer.finished

    def when_ended(self, call: Callable[[], None]) -> None:
        """`call` is called soon after the engine has nothing more to do for it, whether or not what came is
        taken; of several the last one."""
        if self._answer.finished is None:
            self._answer.on_finish = functools.partial(self._loop.call_soon, call)
        else:
            self._loop.call_soon(call)

    def cancel(self) -> None:
        """Ends the generation at the worker's next step. What was generated until then still comes, then
        `Finished("cancelled")` with the usage. Does nothing the second time or after the end."""
        if self._answer.finished is None:
            self._cancel(self._answer)

    async def collect(self) -> tuple[str, Finished]:
        """The whole text and the end."""
        parts: list[str] = []
        async for event in self:
            if isinstance(event, Delta):
                parts.append(event.text)
            elif isinstance(event, Finished):
                return "".join(parts), event
        raise RuntimeError("this generation was read to its end before")

    def __del__(self) -> None:
        answer = self._answer
        if answer.finished is None:
            # May run in any thread, and after the loop.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel, answer)
