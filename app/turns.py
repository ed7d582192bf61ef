"""One order's turn at the engine: the prompt goes in, the answer comes out, and the engine may be lost.

Before it has a slot it is in line.py; what becomes of it then, in the ledger too, is in sales.py.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from infraxa.app.counting import EMBED_TEXTS
from infraxa.app.line import ALIVE_S, Line
from infraxa.app.lost import EngineLost, Stuck, check, lost
from infraxa.app.ordering import logprobs_told, prompt_tokens, request_of
from infraxa.app.served import Records
from infraxa.app.taken import Taken
from infraxa.app.terms import Terms
from infraxa.app.throttle import Throttle, parts
from infraxa.app.unsent import Rest, Unsent, size_of
from infraxa.engine.host import Engine
from infraxa.engine.types import Budget, Delta, EngineError, Finished, Progress, Request, Usage
from infraxa.net import scores
from infraxa.net.prompts import Prompt
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

STUCK_S: Final = 60.0
"""An engine of which nothing comes for so long is lost for this order; its host gives up one that is stuck
(Limits.stuck) no later."""
EMBED_CHARS: Final = 8192
"""Of these texts, if they are several."""


class Turns:
    """Of one provider."""

    def __init__(
        self,
        records: Records,
        throttle: Throttle,
        line: Line,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever an order moves on."""
        self._records = records
        self._throttle = throttle
        self._line = line
        self._changed = changed
        self._unsent = Unsent(throttle, self._leave)
        self._tasks = TaskGroup()

    async def close(self) -> None:
        """Nothing is told any more."""
        await self._tasks.cancel_all()

    async def answer(self, run: Taken, sale: Sale, engine: Engine, request: Request) -> Finished:
        """Send what the engine says to this; its slot is another's when the engine has said all, though the
        user has not read it. Raises EngineLost, with the slot; EngineError; as Sale.piece."""
        row = run.row
        generation = run.generation = engine.generate(request, retry=False)
        stuck = Stuck(generation, STUCK_S)
        with self._unsent.of(run, sale) as rest:

            def look() -> None:
                """Whether it has; not if it is lost, and to be asked again with the same slot."""
                if (ended := generation.ended) is not None and lost(run, ended, stuck) is None:
                    rest.through(size_of(request, ended.usage.n_out - row.n_out))

            generation.when_ended(look)
            try:
                async for item in generation:
                    stuck.heard()
                    match item:
                        case Delta() if not stuck.over:
                            await self._said(run, sale, item, look)
                        case Progress() if not stuck.over:
                            row.prompt_read, row.n_prompt = item.done, item.total
                            await sale.progress(item.done, item.total)
                            self._changed()
                        case Finished():
                            check(run, item, stuck)
                            look()
                            self._ended(run, item.usage)
                            return item
                    stuck.waits()
            finally:
                stuck.stop()
                _stop_telling(run)
                generation.cancel()
        raise EngineError("closed", "The engine was closed.")

    async def embed(
        self, run: Taken, sale: Sale, engine: Engine, texts: tuple[str, ...], budget: Budget | None
    ) -> Finished:
        """Send the vectors of these texts, few at a time; else as `answer`."""
        with self._unsent.of(run, sale) as rest:
            return await self._embed(run, sale, engine, texts, budget, rest)

    async def _embed(
        self,
        run: Taken,
        sale: Sale,
        engine: Engine,
        texts: tuple[str, ...],
        budget: Budget | None,
        rest: Rest,
    ) -> Finished:
        row, began = run.row, time.monotonic()
        left = len(texts)
        for some in _groups(texts):
            try:
                embedded = await engine.embed(some)
            except EngineError as error:
                if row.state == "answering":
                    raise
                match error.code:
                    case "worker_died" | "timeout" as lost:
                        raise EngineLost(lost) from None
                raise
            n_tokens = row.prompt_read + sum(embedded.n_tokens)
            if budget is not None and (budget.tokens(n_tokens) or 0) < 0:
                raise EngineError("over_budget", "The texts cost more than was reserved for them.")
            if row.state != "answering":
                self._first_piece(run)
            row.prompt_read = row.n_prompt = n_tokens
            left -= len(some)
            if not left:
                rest.through(sum(map(len, embedded.vectors)))
            for vector, count in zip(embedded.vectors, embedded.n_tokens, strict=True):
                await self._throttle.allow(len(vector))
                await sale.vector(vector, count)
            self.count_bytes(run, sale)
            self._changed()
        run.usage = Usage(n_prompt=row.n_prompt, decode_ms=(time.monotonic() - began) * 1000)
        return Finished("stop", run.usage)

    async def score(
        self,
        run: Taken,
        sale: Sale,
        engine: Engine,
        prompt: Prompt,
        terms: Terms,
        budget: Budget | None,
        noise: float | None,
    ) -> Finished:
        """Send what the engine computes at the steps of the prompt's answer, and what it makes of its tokens;
        else as `answer`. `noise`: the honest one of the file here, if it is known."""
        row, began = run.row, time.monotonic()
        answer = struct.unpack(f"<{len(prompt.answer) // 4}I", prompt.answer)
        # How long the prompt is is known at the end: until then it is told of its share.
        row.n_prompt = prompt_tokens(prompt) + len(answer)

        def read(done: float) -> None:
            row.prompt_read = round(done * row.n_prompt)
            self._changed()

        request = request_of(sale.order, msgspec.structs.replace(prompt, stop=prompt.ends), 1, "", budget)
        try:
            scored = await engine.score(
                request,
                answer,
                prompt.steps,
                kv_type=prompt.kv_type,
                most=terms.context,
                chars=prompt.chars,
                on_progress=read,
            )
        except EngineError as error:
            match error.code:
                case "worker_died" | "timeout" as lost:
                    raise EngineLost(lost) from None
            raise
        n_tokens = scored.n_prompt + prompt.steps[-1]
        self._first_piece(run)
        row.prompt_read = row.n_prompt = n_tokens
        known = min(round((noise or 0) * 1e6), scores.MAX_NOISE)
        run.usage = Usage(n_prompt=n_tokens, decode_ms=(time.monotonic() - began) * 1000)
        rows = [scores.encode_row(one.ids, one.q) for one in scored.rows]
        with self._unsent.of(run, sale) as rest:
            rest.through(sum(map(len, rows)))
            await sale.scoring(scores.Scoring(terms.profile, known, scored.end, scored.text))
            for at, data in enumerate(rows):
                await self._throttle.allow(len(data))
                await sale.score(data, 0 if at else n_tokens)
        self.count_bytes(run, sale)
        return Finished("stop", run.usage)

    def end(self, run: Taken) -> None:
        """It is over, wherever it was; once."""
        _stop_telling(run)
        self._line.leave(run)

    def _leave(self, run: Taken) -> None:
        """The engine is through with it."""
        _stop_telling(run)
        if self._line.leave(run):
            self._line.admission.took(time.monotonic() - run.since)

    def _ended(self, run: Taken, usage: Usage) -> None:
        run.usage = usage
        run.row.n_prompt = run.row.prompt_read = usage.n_prompt
        self._records.timed(run.row, usage.first_token_ms, usage.tokens_per_second)

    async def _said(self, run: Taken, sale: Sale, delta: Delta, look: Callable[[], None]) -> None:
        """`look`: whether the engine is through, before anything of it is waited for."""
        row = run.row
        await self._commit(run, sale, delta)
        if delta.text or delta.token_ids:
            if not row.n_out:
                self._first_piece(run)
            look()
            await self._send(run, sale, delta)
            self._records.sent(row, len(delta.token_ids), time.monotonic())
        self.count_bytes(run, sale)
        self._changed()

    def count_bytes(self, run: Taken, sale: Sale) -> None:
        """What went out since it was counted last."""
        self._records.bytes_out += sale.bytes_out - run.bytes_counted
        run.bytes_counted = sale.bytes_out

    def tell_alive(self, run: Taken, sale: Sale) -> None:
        """From now on the user hears of its order, while the model is loaded, waited for, or reads."""
        run.alive = asyncio.get_running_loop().call_later(ALIVE_S, self._tell_alive_now, run, sale)

    def _tell_alive_now(self, run: Taken, sale: Sale) -> None:
        run.alive = self._tasks.spawn(self._tell_alive(run, sale), name=f"request {run.row.number} lives")

    async def _tell_alive(self, run: Taken, sale: Sale) -> None:
        from infraxa.net.sale import SaleEnded  # which the app draws its first frame without

        row = run.row
        try:
            if row.state == "waiting":
                await sale.placed(0)
            elif row.state == "reading":
                await sale.progress(row.prompt_read, row.n_prompt)
        except SaleEnded as ended:
            run.stop(ended)
        else:
            if not run.over:
                self.tell_alive(run, sale)

    def _first_piece(self, run: Taken) -> None:
        run.row.state = "answering"
        _stop_telling(run)

    async def _commit(self, run: Taken, sale: Sale, delta: Delta) -> None:
        """What is said of an answer that can be checked before what came of it is."""
        if run.written is None:
            return
        for steps, root in run.written.take(delta):
            if run.row.state != "answering":
                self._first_piece(run)
            await sale.checkpoint(steps, root)

    async def _send(self, run: Taken, sale: Sale, delta: Delta) -> None:
        draw = b"" if run.written is None else run.written.draw()
        if not self._throttle.limited:
            await sale.piece(delta.text, delta.token_ids, logprobs_told(delta), draw)
            return
        for part, size in parts(delta, self._throttle.part):
            await self._throttle.allow(size)
            await sale.piece(part.text, part.token_ids, logprobs_told(part), draw)
            draw = b""


def _groups(texts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Few enough that the user soon hears of each."""
    some: list[str] = []
    size = 0
    for text in texts:
        if some and (len(some) == EMBED_TEXTS or size + len(text) > EMBED_CHARS):
            yield tuple(some)
            some, size = [], 0
        some.append(text)
        size += len(text)
    yield tuple(some)


def _stop_telling(run: Taken) -> None:
    if run.alive is not None:
        run.alive.cancel()
