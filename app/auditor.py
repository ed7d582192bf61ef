"""Audits of the answers that drivers sold to this node: what is kept for them, which are made, what follows.

An audit is decided on only after the driver has signed the receipt. How one is made is in examining.py, what
follows from it in convicting.py, what is known of a driver by all of its audits in audit_history.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Literal

from msgspec.structs import replace

from infraxa.app.audit_history import AuditHistory
from infraxa.app.audit_values import AuditPlan, Place
from infraxa.app.auditable import Answer, drivers_of
from infraxa.app.convicting import Convicting, Parts
from infraxa.app.ends import WHOLE
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.examining import Examining, Found, Silent, When
from infraxa.app.opened import Lie
from infraxa.app.referees import Panel, Referees
from infraxa.app.replaying import Replaying
from infraxa.app.verifying import Kept
from infraxa.app.votes import Vote
from infraxa.engine.verdicts import LEAST_STEPS, Judged
from infraxa.net import codec, deals
from infraxa.net.codec import Signed
from infraxa.net.identity import id_text
from infraxa.net.routing import Outcome
from infraxa.net.tasks import TaskGroup
from infraxa.store import trade
from infraxa.store.db import Store, now_ms
from infraxa.store.records import StoreError, Verdict
from infraxa.store.trade_records import OrderRow
from infraxa.store.verdicts import VerdictRow

KEPT_S: Final = 3600.0
"""So long a driver has to be able to open an answer."""
KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of all answers that can be audited; the oldest go first."""
WAITING: Final = 32
"""Audits that nobody asked for: with so many under way no other one begins."""
PAUSES: Final = (0.0, 1.0, 10.0, 60.0, 600.0, 1200.0)
"""Seconds before each time that a driver is asked to open an answer; then it is left undetermined."""

State = Literal["unverified", "signed", "checking", "passed", "failed", "undetermined"]
_DONE: Final = ("passed", "failed")
_UNKNOWN: Final = ("no_calibration", "no_noise")
"""Why an answer waits for the noise of its model to be measured."""

_CHECKING: Final = AuditPlan("checking", "It is being audited.")

_log = logging.getLogger(__name__)


class Auditor:
    """Of one node. `open` it once; `close` it before the network, the models and the store."""

    def __init__(
        self,
        node: Parts,
        replaying: Replaying,
        history: AuditHistory,
        convicting: Convicting,
        *,
        rng: random.Random | None = None,
        pauses: tuple[float, ...] = PAUSES,
        referees: Referees | None = None,
    ) -> None:
        """Without `referees` nobody else is asked."""
        self.automatic = True
        """Answers are audited by themselves, as often as their drivers' records ask for."""
        self._node = node
        self._replaying = replaying
        replaying.measured = self._measured
        self._history = history
        self._convicting = convicting
        self._referees = referees
        self._examining = Examining(node.order_link, replaying, pauses)
        self._rng = rng or random.SystemRandom()
        self._store: Store | None = None
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        """By order, the oldest first."""
        self._bytes = 0
        self._under_way = 0
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Audit from now on. Raises StoreError."""
        self._store = store
        self._replaying.open(store)
        await self._convicting.open(store)

    async def close(self) -> None:
        """End the audits that are under way: what they were about is signed, and not audited."""
        for answer in self._answers.values():
            if answer.busy and answer.openings.asked > 1 and not answer.openings.steps:
                kept = answer.kept  # it would have been silent in the end
                await self._node.observed(kept.provider, kept.order.model, Outcome("failed"))
        self._store = None
        await self._tasks.cancel_all()
        await self._replaying.close()
        await self._convicting.close()
        for order_id in list(self._answers):
            self._drop(order_id)

    def keep(self, kept: Kept, place: Place | None) -> None:
        """See verifying.Checks, as the next two."""
        order_id = kept.order.id
        self._drop(order_id)
        expires = asyncio.get_running_loop().call_later(KEPT_S, self._drop, order_id)
        self._answers[order_id] = Answer(kept, place, expires)
        self._bytes += kept.size
        while self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._answers)))

    def _drop(self, order_id: bytes) -> None:
        if (answer := self._answers.pop(order_id, None)) is not None:
            answer.expires.cancel()
            self._bytes -= answer.kept.size

    def unverified(self, provider: bytes, order: bytes, place: Place | None, why: str) -> None:
        self._tell(place, Verdict(order.hex(), id_text(provider), "unverified", why))

    def signed(self, order: OrderRow) -> None:
        if order.mode == "none" or self._store is None:
            return
        answer = self._answers.get(order.id)
        if answer is None:  # of an earlier run, or too long ago
            if order.chat_id is not None and order.message_id is not None:
                verdict = Verdict(order.id.hex(), id_text(order.peer), "signed")
                self._tell((order.chat_id, order.message_id), verdict)
        elif not answer.considered and order.bill in ("signed", "closed"):
            # Also where the driver does not say that it knows: else it would never be audited.
            answer.considered, answer.canary = True, order.canary
            self._tasks.spawn(self._consider(answer, self._store), name="consider an audit")

    async def verdicts(self, orders: Iterable[bytes], seconds: float) -> list[Verdict]:
        """What is known of these answers, as soon as none of them is being audited, or after so many
        seconds. Nothing of those that cannot be audited."""
        answers = [one for order in orders if (one := self._answers.get(order)) is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for answer in answers:
                    await answer.quiet.wait()
        return [
            self._verdict(answer, "checking") if answer.state == "checking" else answer.verdict
            for answer in answers
            if answer.verdict is not None
        ]

    async def plan(self, place: Place) -> AuditPlan:
        """What an audit of the answer at that place would be. Raises StoreError."""
        here = [answer for answer in self._answers.values() if answer.place == place]
        answers = [answer for answer in here if answer.receipt]
        if not answers and any(not answer.considered for answer in here):
            reason = "The receipt of this answer is not signed by both sides yet."
            return AuditPlan("none", reason, "Ask again in a moment.")
        if not answers:
            return AuditPlan(
                "none",
                "What is needed to audit this answer is not kept any more.",
                "Answers can be audited within an hour, and while infraxa stays open.",
            )
        if any(answer.busy and not answer.waits for answer in answers):
            return _CHECKING
        left = [answer for answer in answers if answer.state not in _DONE]
        if not left:
            return AuditPlan("done", "It was audited.")
        left = [answer for answer in left if not answer.openings.over]
        if not left:
            return AuditPlan(
                "none",
                "Its driver was asked to show its steps as often as a driver has to.",
                "The next answer can be audited.",
            )
        entry = await self._replaying.copy(left[0].kept.order.model)
        waits = any(answer.busy for answer in answers)
        if entry is None:
            return _CHECKING if waits else self._by_referees(left, drivers_of(answers))
        if all(answer.near for answer in left) and not waits:
            plan = self._by_referees(left, drivers_of(answers))
            if plan.state == "referee":
                return replace(plan, reason="What this machine computed is too close to call.")
        if not self._replaying.can_load(entry):
            return AuditPlan(
                "none", f"{entry.label} has no room in memory beside the other models.", "Unload one first."
            )
        return AuditPlan("own", f"{entry.label} on this machine computes it again. Nobody else sees it.")

    def _by_referees(self, left: list[Answer], avoided: frozenset[bytes]) -> AuditPlan:
        """Where the model's file is not here."""
        why = "The file of this model is not on this machine, and it takes the model to audit an answer."
        remedy = "infraxa models pull brings it; then ask again, and audit that answer."
        long = [one for one in left if one.steps >= LEAST_STEPS]
        if self._referees is None:
            return AuditPlan("none", why, remedy)
        if not long:
            return AuditPlan("none", f"Answers of less than {LEAST_STEPS} tokens are too short for referees.")
        found, most = list[int](), 0
        for one in long:
            assert one.receipt is not None
            offers = self._referees.available(one.kept, one.receipt, avoided)
            found.append(len(offers))
            most += self._referees.cost(one.kept, one.receipt, offers).most
        if not min(found):
            return AuditPlan("none", f"{why} No other provider that is online has it, either.", remedy)
        return AuditPlan("referee", "This machine does not have the model's file.", "", min(found), most)

    async def audit(self, place: Place, *, referee: bool = False) -> None:
        """Begin to audit the answer at that place, whose `plan` is `own`; or `referee`, where the person has
        agreed that one reads it. Raises NodeError `not_audited`, and for a cap; StoreError."""
        plan = await self.plan(place)
        by_referee = referee and plan.state == "referee"
        store = self._store
        if (plan.state != "own" and not by_referee) or store is None:
            raise NodeError("not_audited", plan.reason, plan.remedy)
        here = [answer for answer in self._answers.values() if answer.place == place and answer.receipt]
        left = [answer for answer in here if answer.state not in _DONE and not answer.openings.over]
        avoided = drivers_of(here)
        if any(answer.busy and (by_referee or not answer.waits) for answer in here):
            raise NodeError("not_audited", _CHECKING.reason)
        if not by_referee:
            for answer in left:
                self._begin(answer, store, asked=True)
            return
        left = [answer for answer in left if answer.steps >= LEAST_STEPS]
        for answer in left:
            answer.busy = True  # whoever asks meanwhile does not pay for another one
        try:
            panels = [(one, await self._panel(one, avoided, place)) for one in left]
        finally:
            for answer in left:
                answer.busy = False
        for answer, panel in panels:
            self._begin(answer, store, asked=True, panel=panel)

    async def _panel(self, answer: Answer, avoided: frozenset[bytes], place: Place) -> Panel:
        """Raises NodeError when not even one referee can be paid; StoreError."""
        assert self._referees is not None and answer.receipt is not None
        offers = self._referees.available(answer.kept, answer.receipt, avoided)
        cost = self._referees.cost(answer.kept, answer.receipt, offers)
        await self._referees.check_caps(place[0], cost.least)
        return self._referees.panel(answer.kept, answer.receipt, offers, place)

    async def _consider(self, answer: Answer, store: Store) -> None:
        """Its receipt is signed by both."""
        kept = answer.kept
        try:
            row = await store.run(trade.get_receipt, "user", kept.provider, kept.order.id)
            compared = await self._replaying.is_loaded(kept.order.model)
        except StoreError as error:
            _log.warning("an answer is not audited: %s", error.message)
            row, compared = None, False
        if row is not None:
            self._decide(answer, store, codec.decode_signed(row.receipt), compared=compared)
        if not answer.busy:
            answer.quiet.set()
        by_referees = answer.canary and answer.busy
        if answer.receipt and self._referees is not None and not compared and not by_referees:
            await self._referees.look(kept.order.model, kept.provider)

    def _decide(self, answer: Answer, store: Store, signed: Signed, *, compared: bool) -> None:
        """Whether it is audited. `compared`: with the model, which is loaded."""
        kept = answer.kept
        receipt: deals.Receipt = codec.decode(signed.body, deals.Receipt)
        said = receipt.transcript
        if said is None or not said.steps:
            return
        answer.signed, answer.receipt = signed, receipt
        self._judged(answer, self._verdict(answer, "signed"))
        if not self.automatic:
            return
        if answer.canary and (panel := self._of_canary(kept, receipt)) is not None:
            self._begin(answer, store, panel=panel)
            return
        rate = self._history.rate(kept.provider, kept.order.model, compared=compared)
        if self._under_way < WAITING and self._rng.random() < rate:
            self._begin(answer, store)

    def _of_canary(self, kept: Kept, receipt: deals.Receipt) -> Panel | None:
        """Who judges it; None: nobody can."""
        said = receipt.transcript
        whole = receipt.outcome in WHOLE and said is not None and said.steps >= LEAST_STEPS
        if self._referees is None or not whole or self._under_way >= WAITING:
            return None
        offers = self._referees.available(kept, receipt, {kept.provider})
        return self._referees.panel(kept, receipt, offers, None) if offers else None

    def _measured(self, model: bytes, known: bool) -> None:
        """The noise of this model is `known` now: what waited for that is audited; or it was not found, and
        is done without for what was not opened yet."""
        for answer in self._answers.values():
            verdict = answer.verdict
            if answer.kept.order.model != model or verdict is None or verdict.why not in _UNKNOWN:
                continue
            if self._store is not None and (known or not answer.openings.steps):
                self._begin(answer, self._store, asked=answer.wanted)
            elif verdict.why != "no_noise" and self._store is not None:
                self._judged(answer, replace(verdict, why="no_noise"))

    def _begin(
        self, answer: Answer, store: Store, *, asked: bool = False, panel: Panel | None = None
    ) -> None:
        answer.wanted = asked or (answer.busy and answer.wanted)
        if answer.busy or answer.state in _DONE:
            return
        answer.busy = True
        answer.quiet.clear()
        self._under_way += 1
        self._judged(answer, self._verdict(answer, "checking"))
        self._tasks.spawn(self._audit(answer, store, panel), name="audit an answer")

    async def _audit(self, answer: Answer, store: Store, panel: Panel | None) -> None:
        asked = answer.wanted
        try:
            await self._examine(answer, store, panel)
        except FAILURES as error:
            _log.warning("an audit was not finished: %s", error.code)
        finally:
            answer.busy = answer.waits = False
            self._under_way -= 1
            if answer.state == "checking" and self._store is not None:
                self._judged(answer, self._verdict(answer, "signed"))
        why = "" if answer.verdict is None else answer.verdict.why
        measured = why == "no_calibration" and not self._replaying.measures(answer.kept.order.model)
        late = why == "not_loaded" and answer.wanted and not asked  # it was just being given up
        if self._store is not None and (measured or late):
            self._begin(answer, store, asked=answer.wanted)
        else:
            answer.quiet.set()

    async def _examine(self, answer: Answer, store: Store, panel: Panel | None) -> None:
        assert answer.receipt is not None
        kept = answer.kept
        waits = functools.partial(self._waits, answer, store)
        when = When(answer.until, answer.openings, lambda: answer.wanted, waits)
        try:
            if panel is None:
                found = await self._examining.examine(kept, answer.receipt, when)
            else:
                found = await self._examining.refereed(kept, answer.receipt, panel, when, answer.near)
        except Silent:
            await self._node.observed(kept.provider, kept.order.model, Outcome("failed"))
            found = Found("undetermined", "silent")
        except Lie as lie:
            assert answer.signed is not None
            verdict = self._verdict(answer, "failed", lie.why, Found("failed", opened=lie.shown))
            try:
                answer.verdict = await self._convicting.lied(store, kept, answer.signed, verdict, lie.opened)
            except StoreError as error:
                _log.warning("a lie is not on disk: %s", error.message)
                self._judged(answer, verdict)
            return
        await self._came(answer, store, found)
        if panel is None and found.why == "near":
            answer.near = Vote(Judged("grey", found.ratio or 0.0, "ratio", found.ratio or 0.0, found.opened))
            if self._referees is not None:
                look = self._referees.look(kept.order.model, kept.provider)
                self._tasks.spawn(look, name="look for referees")

    async def _waits(self, answer: Answer, store: Store, found: Found | None) -> None:
        """For its model to be loaded, with what was found without; None: it is."""
        answer.waits = found is not None
        if found is None:
            answer.quiet.clear()
            self._judged(answer, self._verdict(answer, "checking"))
        else:
            await self._came(answer, store, found)
            answer.quiet.set()

    async def _came(self, answer: Answer, store: Store, found: Found) -> None:
        kept = answer.kept
        verdict = self._verdict(answer, found.state, found.why, found)
        # What was opened without the model counts, too, but not in place of more.
        if found.state != "signed" or (found.opened and not answer.counted):
            answer.counted = found.state != "signed"
            row = VerdictRow(kept.provider, kept.order.model, now_ms(), verdict)
            try:
                await self._convicting.keep(store, row, grey=found.grey)
            except StoreError as error:  # it holds for this run
                _log.warning("what an audit found is not on disk: %s", error.message)
        self._judged(answer, verdict)

    def _verdict(self, answer: Answer, state: State, why: str = "", found: Found | None = None) -> Verdict:
        return Verdict(
            order=answer.kept.order.id.hex(),
            driver=id_text(answer.kept.provider),
            state=state,
            why=why,
            by="" if found is None else found.by,
            opened=answer.openings.steps if found is None else found.opened,
            steps=answer.steps,
            ratio=None if found is None else found.ratio,
        )

    def _judged(self, answer: Answer, verdict: Verdict) -> None:
        answer.verdict = verdict
        self._tell(answer.place, verdict)

    def _tell(self, place: Place | None, verdict: Verdict) -> None:
        if place is not None:
            self._node.told(*place, verdict)
