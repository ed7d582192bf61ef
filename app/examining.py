"""One audit: a driver opens an answer, what it shows is checked, and computed again where the model is here.

What is checked without a model is in opened.py, how it is computed in replaying.py, the bounds of a verdict
are in engine/verdicts.py. When an answer is audited, and what follows, is decided in auditor.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from infraxa.app import ends, opened
from infraxa.app.errors import NodeError
from infraxa.app.opened import Lie, Shown
from infraxa.app.referees import Panel
from infraxa.app.replaying import Compared, NotCompared, Replaying
from infraxa.app.terms import backend_of, kv_type_of
from infraxa.app.transcripts import MAX_ASKED
from infraxa.app.verifying import Kept
from infraxa.app.votes import Vote, lie_of, ratio_of, state_of, unsure_of
from infraxa.engine.transcript import challenge
from infraxa.engine.verdicts import CONFIRM, FLOOR, LEAST_STEPS, Distance, Judged, judge, may_be_hardware
from infraxa.net import deals, wire
from infraxa.net.errors import NetError, ProtocolError

if TYPE_CHECKING:
    from infraxa.net.audits import Opening
    from infraxa.net.link import Link

CONNECT_S: Final = 30.0
AT_ONCE: Final = 4
"""Drivers that are being asked; what the person asked for does not wait for the others."""
AGAIN: Final = 3
"""How often it is asked for all steps after some."""
POOLED: Final = 16
"""Short answers that are judged together."""
MOST_POOLS: Final = 256
"""Of which the steps are remembered."""

MOST_TOLD: Final = 0.15
"""Logits, of the noise that a referee tells of a model where it is not known here: about twice that of the
built-in guide. What passes does so by the least that any of the referees told."""

_FOR_GOOD: Final = frozenset({"audit_refused", "unsupported", "not_allowed", "unknown"})
"""Refusals that stay as they are."""

_log = logging.getLogger(__name__)


class Silent(Exception):
    """The driver did not open the answer, however often it was asked."""


class _Gone(Exception):
    """The driver served the answer, and says that it cannot open it any more, as after a restart."""


class _TooLate(Exception):
    """The driver need not open the answer any more: it had to for so long, and so often."""


class _TooLong(Exception):
    """The driver opens no more than some steps of so long an answer."""


State = Literal["signed", "passed", "failed", "undetermined"]


class Found(NamedTuple):
    """What came of an audit; as store.records.Verdict."""

    state: State
    why: str = ""
    opened: int = 0
    ratio: float | None = None
    grey: bool = False
    """The first look at it was not clear."""
    by: Literal["", "own", "referee"] = ""


class Openings:
    """Of one answer, by its driver."""

    def __init__(self) -> None:
        self.asked = 0
        """How often the driver was asked, whatever came of it."""
        self.steps = 0
        """So many were opened last, and are what was signed; 0: none were yet."""

    @property
    def over(self) -> bool:
        """The driver need not open it again."""
        return self.asked >= MAX_ASKED


async def _nobody(found: Found | None) -> None:
    """Is told of it."""


class When(NamedTuple):
    """An audit is made."""

    until: float
    """Until then the driver can be asked, by the clock of the loop: later its silence says nothing."""
    openings: Openings
    """What its driver was asked before, to which this adds."""
    wanted: Callable[[], bool] = lambda: False
    """Whether the person asked for it by now: it is made at once, and the model may be loaded for it."""
    waits: Callable[[Found | None], Awaitable[None]] = _nobody
    """Told what was found without the model when that is waited for, and None when it is there."""


class _Pool(NamedTuple):
    """Which short answers are judged together: those that have the same noise."""

    driver: bytes
    model: bytes
    kv_type: str
    mu0: float
    same_backend: bool
    """Another kind of hardware is another noise."""


class Examining:
    """Of one node."""

    def __init__(
        self, order_link: Callable[[bytes], Awaitable[Link]], replaying: Replaying, pauses: tuple[float, ...]
    ) -> None:
        """`pauses`: seconds before each time that a driver is asked."""
        self._order_link = order_link
        self._replaying = replaying
        self._pauses = pauses
        self._pools: dict[_Pool, dict[bytes, tuple[Distance, ...]]] = {}
        """Then by order: the steps of short answers."""
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def examine(self, kept: Kept, receipt: deals.Receipt, when: When) -> Found:
        """Raises Lie, Silent, StoreError."""
        said = receipt.transcript
        assert said is not None
        lacks = self._replaying.lacks(kept.order.model)
        if lacks == "no_calibration" or (lacks and when.openings.steps):
            # Its driver opens it when that helps, and once where it never will, for what needs no noise.
            return Found("undetermined", lacks, when.openings.steps)
        shown = await self._first(kept, receipt, when)
        if isinstance(shown, Found):
            return shown
        grey = False
        try:
            waits = _telling(when, Found("signed", "not_loaded", len(shown.leaves)))
            first = await self._replaying.compare(kept, said, shown, wanted=when.wanted, waits=waits)
            if not first.same_prompt:
                if first.varying:
                    # Which some templates do with any prompt.
                    return Found("undetermined", "varying", len(shown.leaves), by="own")
                # Another version may put a prompt together otherwise.
                state: State = "failed" if first.same_version and first.same_backend else "undetermined"
                return Found(state, "other_prompt", len(shown.leaves), by="own")
            # Another version may write a token otherwise.
            wrong: State = "failed" if first.same_version else "undetermined"
            if not ends.same_text(kept, first.text):
                return Found(wrong, "other_text", len(shown.leaves), by="own")
            judged, last = self._judged(kept, said, first), first
            grey = judged.state in ("grey", "failed")
            if grey:
                waits = _telling(when, Found("signed", "not_loaded", len(shown.leaves), grey=True))
                # Nobody is condemned by one look; nor does it help to show no more after that.
                with contextlib.suppress(_TooLong, _TooLate, _Gone, Silent):
                    shown = await self._shown(kept, receipt, when, all_steps=True)
                last = await self._replaying.compare(kept, said, shown, wanted=when.wanted, waits=waits)
                judged = self._judged(kept, said, last)
            self._remember(kept, said, last, judged)
            found = _found(judged, last, shown, grey=grey)
            if found.state != "failed" and not _ends_truly(kept, receipt, shown, first):
                return found._replace(state=wrong, why="wrong_end")
            return found
        except NotCompared as error:
            if error.why in ("no_calibration", "no_noise"):
                return Found("undetermined", error.why, len(shown.leaves))
            return Found("signed", error.why, len(shown.leaves), grey=grey)

    async def refereed(
        self, kept: Kept, receipt: deals.Receipt, panel: Panel, when: When, own: Vote | None = None
    ) -> Found:
        """As `examine`, by referees in place of a model of this machine; `panel`: those that may be asked.
        `own`: what the model of this machine found before, where that was not clear; it counts as one of
        theirs. Raises NodeError too, for a cap."""
        said = receipt.transcript
        assert said is not None
        shown = await self._first(kept, receipt, when)
        if isinstance(shown, Found):
            return shown
        known = await self._replaying.known_noise(kept.order.model, backend_of(said.profile))
        votes = [] if own is None else [own]
        apart: list[Vote] = []
        """Of those whose hardware, or the driver's, may be why."""
        least = MOST_TOLD
        unsure = "no_referee"
        while (state := state_of(votes)) == "grey":
            compared = await panel.following(shown)
            if compared is None:
                unsure = "backend" if len(apart) >= CONFIRM else unsure
                found = _found_by(votes or apart, shown, "undetermined", unsure_of(votes) or unsure)
                if unsure != "no_referee" or votes != ([own] if own else []):
                    return found
                return found._replace(by="own" if own else "")
            mu0 = known
            if not known and compared.mu0:
                # The referee may say anything of it.
                mu0 = min(max(compared.mu0, FLOOR), MOST_TOLD)
                least = min(least, mu0)
            judged = judge(compared.steps, mu0 or 0.0)
            if judged.state == "passed" and not known and judge(compared.steps, least).state != "passed":
                judged = judged._replace(state="grey")
            lie = ""
            if not ends.same_text(kept, compared.text):
                lie = "other_text"
            elif judged.state == "passed" and not _ends_truly(kept, receipt, shown, compared):
                lie = "wrong_end"
            if lie and not compared.same_version:
                unsure = lie  # which may write a token otherwise
            elif lie:
                votes.append(Vote(judged._replace(state="failed"), lie))
            elif judged.state != "passed" and not mu0:
                # What is honest by the least noise that there can be is by any; nothing else is known by it.
                unsure = "no_noise"
            elif (
                judged.state == "failed" and not compared.same_backend and may_be_hardware(judged, mu0 or 0.0)
            ):
                apart.append(Vote(judged))
                unsure = "one_referee"
            else:
                votes.append(Vote(judged, "other_model" if judged.state == "failed" else ""))
            if judged.state != "passed" and len(shown.leaves) < said.steps <= wire.MAX_SCORES:
                with contextlib.suppress(_TooLong, _TooLate, _Gone, Silent):
                    shown = await self._shown(kept, receipt, when, all_steps=True)
        assert state == "passed" or state == "failed"
        agree = [vote for vote in votes if vote.judged.state == state]
        return _found_by(agree, shown, state, lie_of(agree))

    def _judged(self, kept: Kept, said: deals.Transcript, compared: Compared) -> Judged:
        """By its own steps; an answer of few, by those of others of this driver with it."""
        alone = judge(compared.steps, compared.mu0)
        if not _is_pooled(compared, alone):
            return alone
        return judge(
            [step for steps in self._pool(kept, said, compared).values() for step in steps], compared.mu0
        )

    def _remember(self, kept: Kept, said: deals.Transcript, compared: Compared, judged: Judged) -> None:
        """What was found of a short answer, for the next ones. What condemned this driver once does not do it
        again."""
        if not _is_pooled(compared, judge(compared.steps, compared.mu0)):
            return
        pool = self._pool(kept, said, compared)
        key = _pool_of(kept, said, compared)
        self._pools.pop(key, None)
        if judged.state == "failed" or (judged.state == "grey" and not compared.same_backend):
            return
        self._pools[key] = pool
        if len(self._pools) > MOST_POOLS:
            del self._pools[next(iter(self._pools))]

    def _pool(
        self, kept: Kept, said: deals.Transcript, compared: Compared
    ) -> dict[bytes, tuple[Distance, ...]]:
        """With this answer as the newest."""
        pool = dict(self._pools.get(_pool_of(kept, said, compared), {}))
        pool.pop(kept.order.id, None)
        pool[kept.order.id] = compared.steps
        if len(pool) > POOLED:
            del pool[next(iter(pool))]
        return pool

    async def _first(self, kept: Kept, receipt: deals.Receipt, when: When) -> Shown | Found:
        """What is shown at the first look, or what there is to say without it. Raises Lie, Silent."""
        try:
            return await self._shown(kept, receipt, when)
        except _TooLate:
            return Found("signed")
        except _Gone:
            return Found("undetermined", "gone")

    async def _shown(
        self, kept: Kept, receipt: deals.Receipt, when: When, *, all_steps: bool = False
    ) -> Shown:
        """What the driver opens, checked. Raises Lie, Silent, _Gone, _TooLate, _TooLong."""
        from infraxa.net.audits import OPENED

        said = receipt.transcript
        assert said is not None
        request = wire.AuditPlease(kept.order.id, kept.secret, all_steps)
        count = said.steps if all_steps else OPENED
        steps = challenge(kept.secret, said.root, kept.order.id, said.steps, count)
        pauses = self._pauses[:AGAIN] if all_steps else self._pauses
        opening = await self._ask(kept.provider, request, said.steps, pauses, when)
        try:
            shown = await asyncio.to_thread(opened.check, kept, receipt, opening, steps)
        except Lie as lie:
            lie.shown = len(steps)
            raise
        when.openings.steps = len(shown.leaves)
        return shown

    async def _ask(
        self, driver: bytes, request: wire.AuditPlease, steps: int, pauses: tuple[float, ...], when: When
    ) -> Opening:
        """Raises Silent, _Gone, _TooLate, _TooLong, and Lie for what is no opening."""
        from infraxa.net import audits
        from infraxa.net.stream import LinkClosed, StreamCancelled, StreamFailed

        clock = asyncio.get_running_loop().time
        for pause in pauses:
            if when.openings.over or clock() + pause > when.until:
                raise _TooLate
            await asyncio.sleep(pause)
            try:
                async with contextlib.nullcontext() if when.wanted() else self._turn:
                    if clock() > when.until:
                        raise _TooLate
                    async with asyncio.timeout(CONNECT_S):
                        link = await self._order_link(driver)
                    when.openings.asked += 1
                    return await audits.ask(link, request, steps)
            except ProtocolError as error:
                _log.debug("what a driver opened is nothing: %s", error.reason)
                raise Lie("bad_opening") from None
            except StreamFailed as error:
                _log.debug("a driver does not open an answer: %s", error.failure.code)
                if error.failure.code == "audit_refused" and error.failure.field == "all":
                    raise _TooLong from None
                if error.failure.code == "audit_refused" and error.failure.field == "gone":
                    raise _Gone from None
                if error.failure.code in _FOR_GOOD:
                    break
            except (NetError, NodeError, LinkClosed, StreamCancelled, TimeoutError):
                _log.debug("a driver that is to open an answer is not reached")
        if clock() > when.until:
            raise _TooLate
        raise Silent


def _telling(when: When, found: Found) -> Callable[[bool], Awaitable[None]]:
    """For Replaying.compare: what was found so far."""
    return lambda begins: when.waits(found if begins else None)


def _is_pooled(compared: Compared, alone: Judged) -> bool:
    """What fails by itself is no one else's."""
    return len(compared.steps) < LEAST_STEPS and alone.state != "failed"


def _pool_of(kept: Kept, said: deals.Transcript, compared: Compared) -> _Pool:
    kv_type = kv_type_of(said.profile)
    return _Pool(kept.provider, kept.order.model, kv_type, compared.mu0, compared.same_backend)


def _found(judged: Judged, compared: Compared, shown: Shown, *, grey: bool = False) -> Found:
    ratio = judged.ratio if math.isfinite(judged.ratio) else None

    def found(state: Literal["passed", "failed", "undetermined"], why: str = "") -> Found:
        return Found(state, why, len(shown.leaves), ratio, grey, "own")

    match judged.state:
        case "passed":
            return found("passed")
        case "failed" | "grey" if not compared.same_backend and may_be_hardware(judged, compared.mu0):
            return found("undetermined", "backend")
        case "failed":
            return found("failed", "other_model")
        case "grey":
            return found("undetermined", "near")
        case "undetermined":
            return found("undetermined", "few")


def _ends_truly(kept: Kept, receipt: deals.Receipt, shown: Shown, compared: Compared) -> bool:
    return ends.is_true(kept, receipt, shown.leaves[-1], compared.end, compared.n_prompt)


def _found_by(votes: Sequence[Vote], shown: Shown, state: State, why: str) -> Found:
    """By these referees."""
    clear = all(vote.judged.state == "passed" for vote in votes)
    return Found(state, why, len(shown.leaves), ratio_of(votes), not clear, "referee")
