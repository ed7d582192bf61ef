"""Serves the orders of other nodes: each waits for a slot, is answered by the engine, and ends, once.

How an order is spoken of on the wire is in net/sale.py, how it waits in line.py, its turn at the engine in
turns.py, when this machine serves at all in provider.py. No prompt and no answer leaves these modules but to
the engine and to the user; errors of the engine, which may quote a prompt, are replaced by other sentences.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from infraxa.app.admission import Admission
from infraxa.app.choices import ModelEntry
from infraxa.app.errors import NodeError
from infraxa.app.line import Line, within
from infraxa.app.lost import EngineLost
from infraxa.app.models import Models
from infraxa.app.ordering import request_of
from infraxa.app.served import Records, Row
from infraxa.app.serving import ServedState
from infraxa.app.sold import FREE_OUT, Sold
from infraxa.app.taken import ENDED, LEFT, OUTCOMES, Taken
from infraxa.app.terms import (
    Refusal,
    Terms,
    Why,
    backend_of,
    check_order,
    check_prompt,
    done_of,
    max_out,
    refusal_of,
    terms_of,
)
from infraxa.app.throttle import Throttle
from infraxa.app.till import Till
from infraxa.app.turns import Turns
from infraxa.engine.types import EngineError, Finished
from infraxa.net import prompts, wire
from infraxa.net.deals import Outcome
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import StoreError

if TYPE_CHECKING:
    from infraxa.net.sale import Sale

_log = logging.getLogger(__name__)

USAGE_S: Final = 2.0
"""For the counts of a generation that was cancelled."""

Noise = Callable[[ModelEntry, bytes, str], Awaitable[float | None]]
"""The honest noise, in logits, of a file with this model_id on this backend; None: it is not known (yet)."""


async def no_noise(entry: ModelEntry, model_id: bytes, backend: str) -> float | None:
    """It is not known."""
    return None


_DEFECT: Final = "infraxa met a defect of its own: see the log."
_LOST: Final = {
    "worker_died": "The engine was restarted, so it begins again.",
    "timeout": "The engine was silent for too long, so it begins again.",
}
"""By the code of an EngineLost."""
_CAUSE: Final = {"worker_died": "its process ended", "timeout": "it was silent for too long"}
"""Likewise."""
_COMING: Final = frozenset({"starting", "loading", "restarting"})
"""States of an engine that will have the model, in a context of which the size is not known yet."""


class Sales:
    """The orders that wait and are answered."""

    def __init__(
        self,
        models: Models,
        records: Records,
        till: Till,
        *,
        changed: Callable[[], None],
        ended: Callable[[Row], None],
        again: Callable[[Row], None] = lambda row: None,
        now_ms: Callable[[], int],
        noise: Noise = no_noise,
    ) -> None:
        """`changed` is called whenever an order moves on, `ended` with each that is over, `again` with each
        that begins anew."""
        self.terms: Terms | None = None
        self.shut: Why | None = lambda: Refusal("leaving", "Provider mode is off.")
        """Why orders that come now are refused; None: they are taken, and there are terms."""
        self.blocked: frozenset[bytes] = frozenset()
        """Users that are not served."""
        self._noise = noise
        self.throttle = Throttle()
        self._models = models
        self._records = records
        self._till = till
        self._changed = changed
        self._ended = ended
        self._again = again
        self._now_ms = now_ms
        self._line = Line(changed)
        self._turns = Turns(records, self.throttle, self._line, changed)
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
            run.sent(sale.n_sent)
            self._over(run, *ENDED[ended.reason])
        except asyncio.CancelledError:
            outcome = OUTCOMES[sale.ended] if sale.ended else "failed"
            run.sent(sale.n_sent)
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
            self._turns.count_bytes(run, sale)
            del self._runs[row.number]
            if not self._runs:
                self._empty.set()
            self._changed()

    @property
    def empty(self) -> bool:
        """No order is here."""
        return not self._runs

    @property
    def admission(self) -> Admission:
        """Slots and places."""
        return self._line.admission

    def advance(self) -> None:
        """There may be slots for those that wait."""
        self._line.advance()

    def send_away(self, why: Why) -> None:
        """End all that wait."""
        for run in self._line.waiting():
            run.stop(why())

    def end(self, why: Why, chosen: Callable[[Row], bool] = lambda row: True) -> None:
        """End those that are chosen."""
        for run in self._runs.values():
            if chosen(run.row):
                run.stop(why())

    async def close(self) -> None:
        """Nothing runs any more, when no order is here."""
        await self._turns.close()
        await self._tasks.cancel_all()

    async def ended(self, seconds: float) -> bool:
        """Whether none is left after so many seconds; returns as soon as that is so."""
        await within(seconds, self._empty)
        return self.empty

    async def _sell(self, run: Taken, sale: Sale) -> None:
        if self.shut is not None:
            raise self.shut()
        terms = self.terms
        assert terms is not None
        if sale.account in self.blocked:
            raise Refusal("not_allowed", "You have blocked this user.")
        check_order(sale.order, terms)
        if self.admission.full:
            raise self._line.no_room()
        sold = run.sold = await self._till.admit(sale, terms)
        run.max_out = max_out(sale.order, terms)
        if sold.free_use:
            run.max_out = min(run.max_out, FREE_OUT)
        await self._line.wait(run, sale, patient=not sold.free_use)
        try:
            finished = await self._serve_in_turn(run, sale, terms, sold)
        except NodeError:
            raise Refusal(
                "busy", "You are using another model.", retry_after_ms=self.admission.retry_after_ms()
            ) from None
        except EngineError as error:
            raise refusal_of(error.info, self._as_loaded(terms), self.terms) from None
        if finished.error is not None:
            raise refusal_of(finished.error, self._as_loaded(terms), self.terms)
        if finished.reason != "stop" and finished.reason != "length":
            raise Refusal("leaving", "The engine was closed.", fault=True)
        # Before it is told, so that the receipt can be had when it is.
        await self._till.end(sold, run.end_of(_outcome(sale.order, finished.reason)))
        await sale.done(done_of(finished, run.row.n_out, run.steps, run.since - run.arrived))
        self._over(run, "done", "")

    async def _serve_in_turn(self, run: Taken, sale: Sale, terms: Terms, sold: Sold) -> Finished:
        """It has a slot; when the engine is lost before anything was sent it waits for another one, once.
        Raises Refusal, NodeError, EngineError."""
        prompt: prompts.Prompt | None = None
        while True:
            self._turns.tell_alive(run, sale)
            try:
                async with self._models.held(terms.entry, terms.settings, guest=True) as engine:
                    loaded = self._as_loaded(terms)
                    prompt = await self._claim(run, sale, loaded, sold, prompt)
                    if engine.status.state in _COMING or self._as_loaded(terms) != loaded:
                        # It was restarted meanwhile, and may have less room than the user was told of.
                        raise EngineLost("worker_died")
                    if prompt.steps:
                        noise = await self._known_noise(loaded)
                        return await self._turns.score(run, sale, engine, prompt, loaded, sold.budget, noise)
                    if prompt.texts:
                        return await self._turns.embed(run, sale, engine, prompt.texts, sold.budget)
                    request = request_of(sale.order, prompt, run.max_out, sale.account.hex(), sold.budget)
                    if run.written is not None:
                        verified = run.written.begin(prompt, loaded.profile)
                        request = msgspec.structs.replace(request, verified=verified)
                    return await self._turns.answer(run, sale, engine, request)
            except EngineLost as lost:
                await self._begin_again(run, sale, terms, sold, lost)

    async def _known_noise(self, terms: Terms) -> float | None:
        try:
            return await self._noise(terms.entry, terms.model_id, backend_of(terms.profile))
        except StoreError as error:
            _log.warning("the noise of a model is not known: %s", error.code)
            return None

    async def _begin_again(self, run: Taken, sale: Sale, terms: Terms, sold: Sold, lost: EngineLost) -> None:
        if run.again:
            raise Refusal("internal", f"The engine failed twice, at last as {_CAUSE[lost.code]}.", fault=True)
        failed = Refusal("internal", f"The engine failed: {_CAUSE[lost.code]}.", fault=True)
        if self._models.status_of(terms.entry).state == "failed" or self._is_in_the_way(sold):
            raise failed
        run.begin_again(_LOST[lost.code])
        await self._till.requeue(sold)
        if self._is_in_the_way(sold):  # of somebody who came meanwhile
            raise failed
        self._again(run.row)
        await self._line.wait_again(run, sale)

    def _is_in_the_way(self, sold: Sold) -> bool:
        """What is free of charge takes no place in line from anybody who pays."""
        return sold.free_use and bool(self.admission.waiting)

    def _as_loaded(self, terms: Terms) -> Terms:
        loaded = self._models.status_of(terms.entry).loaded
        return terms if loaded is None else terms_of(terms.entry, terms.settings, terms.model_id, loaded)

    async def _claim(
        self, run: Taken, sale: Sale, terms: Terms, sold: Sold, prompt: prompts.Prompt | None
    ) -> prompts.Prompt:
        # While it is written down, and nothing of a place is to be said any more.
        run.row.state = "sending"
        self._changed()
        await self._till.claim(sold)
        if sale.order.mode != "none" and run.written is None:
            run.written = self._till.transcripts.write(sale.account, sale.order)
        commit = b"" if run.written is None else run.written.commit
        if prompt is None:
            prompt = await sale.claim(terms.context, run.max_out, commit)
            if run.written is not None:
                check_prompt(prompt)
        else:
            await sale.claim_again(terms.context, run.max_out, commit)
        await self._till.process(sold)
        run.row.state = "reading"
        self._changed()
        return prompt

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
        """Of each order that waits or has a slot: tokens that it may have, and that it got."""
        return [(run.max_out, run.row.n_out) for run in self._line.here]

    def _over(self, run: Taken, state: ServedState, reason: str, code: str = "") -> None:
        run.over = True
        if run.sold is not None and run.sold.end is not None:
            run.row.charge = run.sold.charge
        self._turns.end(run)
        self._records.end(run.row, state, code, reason, self._now_ms())
        self._ended(run.row)


def _outcome(order: wire.Order, reason: Literal["stop", "length"]) -> Outcome:
    if order.scores:
        return "scored"
    return "embedded" if order.texts else reason


async def _fail(sale: Sale, refusal: Refusal) -> None:
    await sale.fail(
        refusal.code, retry_after_ms=refusal.retry_after_ms, limit=refusal.limit, field=refusal.field
    )
