"""One order at one driver: what comes of it is told as items, how it failed is put in words.

What is said on the wire is net/purchase.py's, who is asked buying.py's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from infraxa.app import order_words
from infraxa.app.answering import Item, Moved, Sent, Vectors, Waits
from infraxa.app.drivers import Drivers
from infraxa.app.locked import ANSWER_S, LEAVES_S
from infraxa.app.offers import OfferSeen
from infraxa.app.ordering import delta_of, prompt_tokens
from infraxa.app.spending import Ended, NotBought, Spending
from infraxa.app.tally import Part, Tally
from infraxa.app.verifying import CHECKPOINT_BYTES, ID_BYTES, OBJECT_BYTES, Kept, Secrets
from infraxa.engine.types import ErrorInfo, Progress
from infraxa.net import deals
from infraxa.net.errors import NetError
from infraxa.net.identity import id_text
from infraxa.net.names import clean_name
from infraxa.net.orders import MAX_OUT, Checkpoint, Claimed, Done, Piece, Placed, max_steps
from infraxa.net.patience import Patience, PatienceLimits
from infraxa.net.prompts import Prompt
from infraxa.net.routing import Blame, Outcome
from infraxa.net.scores import Scoring
from infraxa.net.status import NetworkStatus, SeenNode
from infraxa.net.wire import Order
from infraxa.store.db import now_ms
from infraxa.store.records import Reader

if TYPE_CHECKING:
    from infraxa.net import purchase
    from infraxa.net.link import Link
    from infraxa.net.purchase import OrderFailed, Purchase

CONNECT_S: Final = 30.0
"""For a session with a driver; the network has shorter limits of its own."""
PRICE_S: Final = 2 * ANSWER_S + LEAVES_S
"""For its turn at the driver, and the driver's price."""
QUIET_S: Final = 3.0
"""After so long without a word in mid-answer it is said what is waited for."""
READING_S: Final = 6.0
"""The same before, where a driver says every 5 s how it gets on."""

NO_PLACE: Final = frozenset({"busy", "rate_limited"})
"""Refusals before the prompt left, which say nothing against a driver."""
_OF_THE_ORDER: Final = frozenset({"too_large", "bad_request"})
"""What a driver may find out only when it has the prompt, through no fault of its own."""
_UNREACHED: Final = frozenset({"unreachable", "timeout", "refused"})
"""The driver, or the way to it, failed before there was a session."""


class Ordering(Protocol):
    """What is needed of the network."""

    @property
    def status(self) -> NetworkStatus: ...

    def nodes(self) -> list[SeenNode]: ...

    async def order_link(self, node: bytes) -> Link: ...

    def blame(self, node: bytes, link: Link | None) -> Blame: ...


class Setback(NamedTuple):
    """An order that did not end well."""

    code: str
    """Of the wire, or as order_words has them."""
    error: ErrorInfo
    retry_s: float = 0.0
    """What the driver asks for; 0 = nothing."""
    limit: int = 0
    """Tokens that it can hold; 0 = unknown."""
    stale: bool = False
    """It was on a session of an earlier order, which had ended before anything was lost with it."""
    no_token: bool = False
    """See purchase.OrderFailed."""


class Telling(NamedTuple):
    """Where the items go."""

    say: Callable[[Item], None]
    tell: Callable[[Item], Awaitable[None]]
    """Returns when the item after it is asked for."""


class Checked(NamedTuple):
    """How the answer can be checked afterwards."""

    why: str = ""
    """Why it cannot be: a code of store.records.Verdict.why."""
    secrets: Secrets | None = None
    """With which its driver is held to it; None: it commits to nothing."""


UNCHECKED: Final = Checked()
"""Nothing is asked for."""


class Attempt:
    """`run` it once."""

    def __init__(
        self,
        network: Ordering,
        drivers: Drivers,
        limits: PatienceLimits,
        telling: Telling,
        tally: Tally,
        offer: OfferSeen,
        moved: Moved,
        spending: Spending | None,
        checked: Checked = UNCHECKED,
    ) -> None:
        """`moved` is told when the first of its text comes. `spending`: None: nothing of money is asked."""
        self.texts: list[str] = []
        """What has come of the answer."""
        self.in_line: Callable[[], None] = lambda: None
        """Told that it waits for others at its driver."""
        self.scoring: Scoring | None = None
        """How the scores are computed that came."""
        self._network = network
        self._drivers = drivers
        self._limits = limits
        self._telling = telling
        self._tally = tally
        self._offer = offer
        self._node = offer.node.id
        self._name = order_words.display_name(offer.node.name, offer.node.id)
        self._moved = moved
        self._spending = spending
        self._checked = checked
        self._before = 0
        self._claimed: Claimed | None = None
        self._draw = b""
        self._checkpoints: list[Checkpoint] = []
        self._ids: list[int] = []
        self._vectors: list[purchase.Vector] = []

    async def run(self, order: Order, prompt: Prompt) -> Done | Setback:
        """Raises NodeError: this node is `offline`, or its person spends no more; StoreError."""
        began = self._tally.now()
        try:
            link = await self._connect()
        except NetError as error:
            return await self._unreached(error)
        if fresh := link.since >= began:
            self._tally.connected(self._tally.now() - began)
        # Here, because it imports what the app's first frame need not wait for.
        from infraxa.net.purchase import OrderFailed, Purchase

        part = self._tally.order()
        first, speed = self._offer.node.first_token_ms / 1000, self._offer.model.speed / 1000
        patience = Patience(self._limits, link.clock.monotonic(), first_token=first, speed=speed)
        outcome, ended = Outcome("cancelled"), Ended("cancelled")
        bought: Purchase | None = None
        try:
            if self._spending is not None:
                self._telling.say(Waits(order_words.pricing(self._name), now_ms(), PRICE_S))
                order = await self._spending.begin(link, self._offer, order, prompt)
                part.leaves()
                patience = Patience(self._limits, link.clock.monotonic(), first_token=first, speed=speed)
            async with Purchase(link, order, prompt, patience) as bought:
                done = await self._follow(bought, patience, part, order.id)
            # A driver that ends at once and says nothing must not look like the best of all.
            outcome = Outcome("answered" if any(self.texts) or self._vectors else "cancelled")
            ended = Ended(_outcome(order, done), done=done)
            return done
        except NotBought as error:
            return Setback(error.info.code, error.info)
        except OrderFailed as error:
            ended = Ended("failed")
            if bought is not None and error.at == "driver" and not self._claimed:
                bought = None  # it was refused
            if not error.sent and await self._again(error.code, order.id, fresh=fresh):
                return Setback(error.code, order_words.ended(error.code, self._name), stale=True)
            has_prompt = error.sent and patience.until().wait != "upload"
            setback, outcome = self._failed(error, link, prompt, has_prompt=has_prompt)
            return setback
        finally:
            part.over()
            if self._spending is not None:
                self._spending.ended(order.id, self._as_known(ended, bought, prompt, part))
            await self._observed(
                msgspec.structs.replace(
                    outcome, first_token_ms=part.first_token_ms, tokens_per_second=part.tokens_per_second
                )
            )

    async def _again(self, code: str, order_id: bytes, *, fresh: bool) -> bool:
        """Whether the order can be made again, for which only this side's session or quote was too old."""
        if code == "gone" or (code == "expired" and not fresh):
            return not fresh
        return self._spending is not None and await self._spending.mended(code, self._node, order_id)

    def _as_known(self, ended: Ended, bought: Purchase | None, prompt: Prompt, part: Part) -> Ended:
        if bought is None:
            return ended
        return ended._replace(
            taken=True,
            sent=bought.sent,
            ids=self._ids,
            vectors=[vector.n_tokens for vector in self._vectors],
            text="".join(self.texts),
            tokens_per_second=part.tokens_per_second,
            why=self._checked.why,
            kept=self._kept(bought.order, prompt, ended.done),
        )

    def _kept(self, order: Order, prompt: Prompt, done: Done | None) -> Kept | None:
        """By what it can be checked, when its driver has committed to something."""
        secrets, claimed = self._checked.secrets, self._claimed
        if secrets is None or claimed is None:
            return None
        text = "".join(self.texts)
        return Kept(
            provider=self._node,
            order=order,
            prompt=prompt,
            secret=secrets.audit,
            commit=claimed.commit,
            draw=self._draw,
            checkpoints=tuple(self._checkpoints),
            ids=tuple(self._ids),
            steps=0 if done is None else done.steps,
            most=max_steps(claimed),
            size=order.prompt_bytes
            + ID_BYTES * len(self._ids)
            + CHECKPOINT_BYTES * len(self._checkpoints)
            + sys.getsizeof(text)
            + OBJECT_BYTES,
            finish="" if done is None else done.finish,
            text=text,
            context=claimed.context,
            max_out=claimed.max_out,
        )

    async def _connect(self) -> Link:
        self._telling.say(Waits(order_words.connecting(self._name), now_ms(), CONNECT_S))
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._network.order_link(self._node)
        except TimeoutError:
            raise NetError("timeout", "The node did not answer.") from None

    async def _follow(self, bought: Purchase, patience: Patience, part: Part, order_id: bytes) -> Done:
        """Tell what comes, until it is whole. Raises OrderFailed."""
        from infraxa.net.purchase import Progressed, Vector

        self._waits(patience)
        while True:
            item = await self._next(bought, patience)
            if self._spending is not None:
                self._spending.arrived(order_id)
            match item:
                case Piece() as piece:
                    first = part.first_at is None
                    part.piece(len(piece.ids))
                    self.texts.append(piece.text)
                    self._ids.extend(piece.ids)
                    self._draw = self._draw or piece.draw
                    if first:
                        await self._telling.tell(self._moved)
                    await self._telling.tell(delta_of(piece))
                case Placed() as placed:
                    part.placed()
                    self._before = placed.before
                    self.in_line()
                    self._waits(patience)
                case Claimed() as claimed:
                    part.claimed()
                    again, self._claimed = self._claimed is not None, claimed
                    self._check_room(bought, claimed)
                    if not again:
                        name = clean_name(self._offer.node.name)
                        await self._telling.tell(Sent(Reader(id_text(self._node), name)))
                    reading = order_words.reading(self._name)
                    self._telling.say(Waits(reading, now_ms(), self._limits.advance))
                case Checkpoint() as checkpoint:
                    self._checkpoints.append(checkpoint)
                case Vector() as vector:
                    self._vectors.append(vector)
                case Scoring() as scoring:
                    self.scoring = scoring
                case Progressed() as progressed:
                    self._telling.say(Progress(progressed.done, progressed.total))
                case Done() as done:
                    self._tally.done(done)
                    if self._vectors:
                        await self._telling.tell(self._moved)
                        await self._telling.tell(_vectors(self._vectors))
                    return done

    def _check_room(self, bought: Purchase, claimed: Claimed) -> None:
        """Before the prompt leaves. Raises OrderFailed for less room than was quoted: an answer that is to be
        checked could end in it wherever its driver likes."""
        from infraxa.net.purchase import OrderFailed

        if self._checked.secrets is None or self._spending is None:
            return
        order, quoted = bought.order, min(self._spending.quoted_out, MAX_OUT)
        if claimed.context < quoted or claimed.max_out < min(quoted, order.max_tokens or quoted):
            raise OrderFailed("garbage", at="driver", sent=bought.sent, shown=bought.shown)

    async def _next(self, bought: Purchase, patience: Patience) -> purchase.Item:
        quiet = QUIET_S if patience.until().wait == "words" else READING_S
        reminder = asyncio.get_running_loop().call_later(quiet, self._waits, patience)
        try:
            return await anext(bought)
        finally:
            reminder.cancel()

    def _waits(self, patience: Patience) -> None:
        wait, since, deadline = patience.until()
        name = self._name
        match wait:
            case "answer":
                what = order_words.answering(name)
            case "line":
                what = order_words.in_line(name, self._before, again=self._claimed is not None)
            case "upload":
                what = order_words.uploading(name)
            case "reading":
                what = order_words.reading(name)
            case "words":
                what = order_words.more(name)
        since_ms = now_ms() - round((self._tally.now() - since) * 1000)
        self._telling.say(Waits(what, since_ms, deadline - since))

    async def _unreached(self, error: NetError) -> Setback:
        """There was no session."""
        if error.code == "busy":
            await self._observed(Outcome("refused", code="busy"))
        elif error.code in _UNREACHED:
            self._tally.blame = blame = self._network.blame(self._node, None)
            await self._observed(Outcome("failed", blame))
            return Setback(error.code, order_words.ended(error.code, self._name, blame=blame))
        if not order_words.known(error.code):
            # Of this machine, its clock or its settings, rather than of the driver.
            return Setback(error.code, ErrorInfo(error.code, error.message, error.remedy))
        return Setback(error.code, order_words.ended(error.code, self._name))

    def _failed(
        self, error: OrderFailed, link: Link, prompt: Prompt, *, has_prompt: bool
    ) -> tuple[Setback, Outcome]:
        blame: Blame = "peer"
        retry_s = error.retry_after_ms / 1000
        # Who has taken (some of) the prompt had a place.
        code = "internal" if error.sent and error.code in NO_PLACE else error.code
        if error.at == "driver" and code not in order_words.FOUND_HERE:
            if has_prompt and code not in _OF_THE_ORDER:
                # Whatever it calls that: else prompts could be gathered without ever being answered.
                outcome = Outcome("failed")
            else:
                outcome = Outcome("refused", code=code, retry_after_ms=error.retry_after_ms)
        elif error.at == "link" and error.code != "gone":
            # This side has asked it for too much at a time, or for too long.
            outcome = Outcome("cancelled")
        else:
            if error.code != "garbage":
                blame = self._network.blame(self._node, link)
            self._tally.blame = blame
            outcome = Outcome("failed", blame)
        words = order_words.ended(
            code,
            self._name,
            blame=blame,
            shown=error.shown,
            retry_after_s=retry_s,
            limit=error.limit,
            need=prompt_tokens(prompt),
            texts=bool(prompt.texts),
            pace=error.pace,
        )
        return Setback(code, words, retry_s, error.limit, no_token=error.no_token), outcome

    async def _observed(self, outcome: Outcome) -> None:
        await self._drivers.observed(self._node, self._offer.model.model_id, outcome)


def _outcome(order: Order, done: Done) -> deals.Outcome:
    if order.scores:
        return "scored"
    return "embedded" if order.texts else done.finish


def _vectors(came: list[purchase.Vector]) -> Vectors:
    return Vectors(tuple(one.data for one in came), tuple(one.n_tokens for one in came))
