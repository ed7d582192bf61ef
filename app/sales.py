"""Serves the orders of other nodes: each waits for a slot, is answered by the engine, and ends, once.

How an order is spoken of on the wire is in net/sale.py, who is next in admission.py, when this machine serves
at all in provider.py. No prompt and no answer leaves this module but to the engine and to the user; errors of
the engine, which may quote a prompt, are replaced by sentences of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

from infraxa.app.admission import Admission
from infraxa.app.errors import NodeError
from infraxa.app.models import Models
from infraxa.app.ordering import request_of
from infraxa.app.served import Records, Row
from infraxa.app.serving import ServedState
from infraxa.app.sold import FREE_OUT, Sold
from infraxa.app.taken import ENDED, LEFT, OUTCOMES, Taken
from infraxa.app.terms import Refusal, Terms, Why, done_of, max_out, refusal_of
from infraxa.app.throttle import Throttle, parts
from infraxa.app.till import Till
from infraxa.engine.host import Engine
from infraxa.engine.types import Delta, EngineError, Finished, Progress, Request
from infraxa.net import orders
from infraxa.net.addresses import LOCAL
from infraxa.net.deals import Outcome
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

_log = logging.getLogger(__name__)

ALIVE_S: Final = 5.0
"""At least so often the user is told something while there is nothing to send."""
CALM_S: Final = 0.25
"""At most so often it is told of another place in line."""

USAGE_S: Final = 2.0
"""For the counts of a generation that was cancelled."""
TOKEN_BYTES: Final = 32
"""Of a prompt, for each token of the context: several times what a token of any language has."""
SPARE_BYTES: Final = 4096
"""Of a prompt besides its text."""

_DEFECT: Final = "infraxa met a defect of its own: see the log."


class Sales:
    """The orders that wait and are answered."""

    def __init__(
        self,
        models: Models,
        engine: Engine,
        records: Records,
        till: Till,
        *,
        changed: Callable[[], None],
        ended: Callable[[Row], None],
        now_ms: Callable[[], int],
    ) -> None:
        """`changed` is called whenever an order moves on, `ended` with each that is over."""
        self.admission = Admission(1)
        self.terms: Terms | None = None
        self.shut: Why | None = lambda: Refusal("leaving", "Provider mode is off.")
        """Why orders that come now are refused; None: they are taken, and there are terms."""
        self.blocked: frozenset[bytes] = frozenset()
        """Users that are not served."""
        self.throttle = Throttle()
        self._models = models
        self._engine = engine
        self._records = records
        self._till = till
        self._changed = changed
        self._ended = ended
        self._now_ms = now_ms
        self._runs: dict[int, Taken] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks = TaskGroup()

    async def serve(self, sale: Sale) -> None:
        """Serve one order to its end. Raises nothing but CancelledError, when it is cancelled itself."""
        from infraxa.net.sale import SaleEnded  # which the app draws its first frame without

        where = "relay" if sale.relayed else sale.group
        row = self._records.begin(sale.account, where, self._now_ms())
        run = self._runs[row.number] = Taken(row, time.monotonic(), asyncio.timeout(None))
        self._empty.clear()
        self._changed()
        outcome: Outcome = "failed"
        try:
            try:
                async with run.scope:
                    await self._sell(run, sale)
            except TimeoutError:
                if run.stopped is None:
                    raise
                raise run.stopped from None
        except Refusal as refusal:
            outcome = "failed"
            failed = refusal.fault or row.state == "answering"
            self._till.refused(sale.account, refusal)
            self._over(run, "failed" if failed else "refused", refusal.reason, refusal.code)
            await _fail(sale, refusal)
        except SaleEnded as ended:
            outcome = OUTCOMES[ended.reason]
            self._over(run, *ENDED[ended.reason])
        except asyncio.CancelledError:
            outcome = OUTCOMES[sale.ended] if sale.ended else "failed"
            self._over(run, *(ENDED[sale.ended] if sale.ended else LEFT))
            raise
        except Exception as error:
            # Its text is not logged: it may quote what was said.
            at = traceback.extract_tb(error.__traceback__)[-1]
            _log.error(
                "request %d: %s in %s, line %s", row.number, type(error).__name__, at.filename, at.lineno
            )
            self._over(run, "failed", _DEFECT)
            await _fail(sale, Refusal("internal", _DEFECT))
        finally:
            run.gone = sale.ended == "gone"
            if run.sold is not None:
                self._settle(run, run.sold, outcome)
            self._count_bytes(run, sale)
            del self._runs[row.number]
            if not self._runs:
                self._empty.set()
            self._changed()

    @property
    def empty(self) -> bool:
        """No order is here."""
        return not self._runs

    def send_away(self, why: Why) -> None:
        """End all that wait."""
        for number in self.admission.line():
            self._runs[number].stop(why())

    def end(self, why: Why, chosen: Callable[[Row], bool] = lambda row: True) -> None:
        """End those that are chosen."""
        for run in self._runs.values():
            if chosen(run.row):
                run.stop(why())

    async def close(self) -> None:
        """Nothing runs any more, when no order is here."""
        await self._tasks.cancel_all()

    async def ended(self, seconds: float) -> bool:
        """Whether none is left after so many seconds; returns as soon as that is so."""
        await _within(seconds, self._empty)
        return self.empty

    def advance(self) -> None:
        """Give free slots to those whose turn it is, and tell the others their new places."""
        now = time.monotonic()
        for number in self.admission.admit():
            run = self._runs[number]
            run.since = now
            run.row.place = 0
            run.turn.set()
            run.news.set()
        for place, number in enumerate(self.admission.line()):
            run = self._runs[number]
            if run.row.place != place:
                run.row.place = place
                run.news.set()
        self._changed()

    async def _sell(self, run: Taken, sale: Sale) -> None:
        if self.shut is not None:
            raise self.shut()
        terms = self.terms
        assert terms is not None
        if sale.account in self.blocked:
            raise Refusal("not_allowed", "You have blocked this user.")
        if sale.order.model != terms.model_id:
            raise Refusal("model_gone", "It asked for a model that is not served.")
        if not sale.order.repeat_penalty:
            raise Refusal("bad_request", "It asked for what cannot be generated.", field="repeat_penalty")
        if sale.order.prompt_bytes > terms.context * TOKEN_BYTES + SPARE_BYTES:
            # It need not be sent, and nobody else has to wait while it is cut into tokens.
            raise Refusal("too_large", "Its prompt was longer than the context.", limit=terms.context)
        if self.admission.full:
            raise self._no_room()
        sold = run.sold = await self._till.admit(sale, terms)
        run.max_out = max_out(sale.order, terms)
        if sold.free_use:
            run.max_out = min(run.max_out, FREE_OUT)
        await self._wait_in_line(run, sale, sold)
        self._tell_alive_later(run, sale)
        try:
            async with self._models.held(terms.entry, terms.settings, guest=True):
                if (loaded := self._engine.status.loaded) is not None:
                    terms = terms._replace(context=loaded.n_ctx)
                prompt = await self._claim(run, sale, terms, sold)
                request = request_of(sale.order, prompt, run.max_out, sale.account.hex(), sold.budget)
                finished = await self._answer(run, sale, request)
        except NodeError:
            raise Refusal(
                "busy", "You are using another model.", retry_after_ms=self.admission.retry_after_ms()
            ) from None
        except EngineError as error:
            raise refusal_of(error.info, terms, self.terms) from None
        if finished.error is not None:
            raise refusal_of(finished.error, terms, self.terms)
        if finished.reason not in ("stop", "length"):
            raise Refusal("leaving", "The engine was closed.", fault=True)
        # Before it is told, so that the receipt can be had when it is.
        await self._till.end(sold, run.end_of(finished.reason))
        await sale.done(done_of(finished, run.row.n_out, run.since - run.arrived))
        self._over(run, "done", "")

    def _no_room(self) -> Refusal:
        return Refusal("busy", "There was no room.", retry_after_ms=self.admission.retry_after_ms())

    async def _wait_in_line(self, run: Taken, sale: Sale, sold: Sold) -> None:
        """Returns when it has a slot."""
        row, admission = run.row, self.admission
        lane: Hashable = sale.group
        if sale.group == LOCAL and not sale.relayed:
            lane = (LOCAL, sale.account)
        if not admission.arrive(row.number, lane, sale.account, run.arrived):
            raise self._no_room()
        deadline = admission.deadline(row.number)
        self.advance()
        if sold.free_use and not run.turn.is_set():
            raise self._no_room()  # it takes nothing that anybody pays for
        while not run.turn.is_set():
            if time.monotonic() >= deadline:
                raise Refusal("expired", "It waited too long.", retry_after_ms=admission.retry_after_ms())
            run.news.clear()
            await sale.placed(row.place)
            await _within(CALM_S, run.turn)
            if not run.turn.is_set():
                await _within(min(ALIVE_S - CALM_S, deadline - time.monotonic()), run.news)

    async def _claim(self, run: Taken, sale: Sale, terms: Terms, sold: Sold) -> orders.Prompt:
        run.row.state = "sending"
        self._changed()
        await self._till.claim(sold)
        prompt = await sale.claim(terms.context, run.max_out)
        await self._till.process(sold)
        run.row.state = "reading"
        self._changed()
        return prompt

    async def _answer(self, run: Taken, sale: Sale, request: Request) -> Finished:
        row = run.row
        generation = run.generation = self._engine.generate(request)
        try:
            async for item in generation:
                match item:
                    case Delta():
                        if not row.n_out:
                            self._first_piece(run)
                        if generation.complete:
                            # Whoever waits need not wait until the user has read the rest.
                            self._release(run)
                        await self._send(sale, item)
                        self._records.sent(row, len(item.token_ids), time.monotonic())
                        self._count_bytes(run, sale)
                        self._changed()
                    case Progress():
                        row.prompt_read, row.n_prompt = item.done, item.total
                        await sale.progress(item.done, item.total)
                        self._changed()
                    case Finished():
                        usage = run.usage = item.usage
                        row.n_prompt = row.prompt_read = usage.n_prompt
                        self._records.timed(row, usage.first_token_ms, usage.tokens_per_second)
                        self.admission.took(time.monotonic() - run.since)
                        return item
        finally:
            generation.cancel()
            self._release(run)
        raise EngineError("closed", "The engine was closed.")

    def _first_piece(self, run: Taken) -> None:
        run.row.state = "answering"
        if run.alive is not None:
            run.alive.cancel()

    async def _send(self, sale: Sale, delta: Delta) -> None:
        if not self.throttle.limited:
            await sale.piece(delta.text, delta.token_ids)
            return
        for text, ids, size in parts(delta, self.throttle.part):
            await self.throttle.allow(size)
            await sale.piece(text, ids)

    def _count_bytes(self, run: Taken, sale: Sale) -> None:
        self._records.bytes_out += sale.bytes_out - run.bytes_counted
        run.bytes_counted = sale.bytes_out

    def _tell_alive_later(self, run: Taken, sale: Sale) -> None:
        run.alive = asyncio.get_running_loop().call_later(ALIVE_S, self._tell_alive_now, run, sale)

    def _tell_alive_now(self, run: Taken, sale: Sale) -> None:
        run.alive = self._tasks.spawn(self._tell_alive(run, sale), name=f"request {run.row.number} lives")

    async def _tell_alive(self, run: Taken, sale: Sale) -> None:
        """The user hears of its order while the model is loaded, waited for, or reads."""
        from infraxa.net.sale import SaleEnded

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
                self._tell_alive_later(run, sale)

    def _release(self, run: Taken) -> None:
        """Its slot, or its place in line, is another's now; once."""
        if run.alive is not None:
            run.alive.cancel()
        if self.admission.leave(run.row.number):
            self.advance()

    def _settle(self, run: Taken, sold: Sold, outcome: Outcome) -> None:
        """It is charged for what was delivered, whatever its end was; nothing happens when it is already."""
        if sold.end is None and sold.claimed and run.generation is not None and run.usage is None:
            self._tasks.spawn(self._settle_later(run, sold, outcome), name="the end of an order")
        elif sold.end is None:
            self._till.end_soon(sold, run.end_of(outcome))

    async def _settle_later(self, run: Taken, sold: Sold, outcome: Outcome) -> None:
        """Its generation was cancelled, and says at its end how long the prompt was."""
        assert run.generation is not None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(USAGE_S):
                    async for item in run.generation:
                        if isinstance(item, Finished):
                            run.usage = item.usage
                            break
        finally:
            self._till.end_soon(sold, run.end_of(outcome))

    def work(self) -> list[tuple[int, int]]:
        """Of each order that is here: tokens that it may have, and that it got."""
        return [(run.max_out, run.row.n_out) for run in self._runs.values()]

    def _over(self, run: Taken, state: ServedState, reason: str, code: str = "") -> None:
        run.over = True
        if run.sold is not None and run.sold.end is not None:
            run.row.charge = run.sold.charge
        self._release(run)
        self._records.end(run.row, state, code, reason, self._now_ms())
        self._ended(run.row)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Returns when the event has happened, or after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _fail(sale: Sale, refusal: Refusal) -> None:
    await sale.fail(
        refusal.code, retry_after_ms=refusal.retry_after_ms, limit=refusal.limit, field=refusal.field
    )
