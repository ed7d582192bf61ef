"""Buys a tiny answer from a peer that asked for it, as a stranger would, and says what came of it.

An account that is made for one trial keeps the peer from learning by which one it knows this node's person,
and this person from owing anything: quote, hold, receipt and countersign are all real, in a book of its own
that is gone afterwards. Nor does a trial count as evidence, since the peer chooses when it is one. How often
somebody is tried is decided in net/trials.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from infraxa.app import order_words
from infraxa.app.answering import Item, Moved, Sent
from infraxa.app.attempt import Attempt, Setback, Telling
from infraxa.app.config import Settings
from infraxa.app.counting import prompt_most
from infraxa.app.drivers import Drivers
from infraxa.app.errors import NodeError
from infraxa.app.offers import OfferSeen
from infraxa.app.ordering import order_of, prompt_of
from infraxa.app.purse import STEP, Purse
from infraxa.app.tally import Tally
from infraxa.engine.types import ChatMessage, Request, Sampling
from infraxa.net import addresses, market, wire
from infraxa.net.credits import CREDIT
from infraxa.net.errors import NetError
from infraxa.net.identity import Signer, id_text
from infraxa.net.market import Rates
from infraxa.net.orders import Done
from infraxa.net.patience import PatienceLimits
from infraxa.net.prompts import Prompt, encode_prompt
from infraxa.net.records import DOES_ANSWERS
from infraxa.net.routing import Blame
from infraxa.net.status import NetworkStatus, SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.store.db import Store
from infraxa.store.records import Bill, DriverPart, StoreError

if TYPE_CHECKING:
    from infraxa.net.link import Link

PROMPT: Final = "Hello!"
MAX_OUT: Final = 16
"""Tokens of the answer."""
MOST: Final = 20
"""µcr that it may cost."""
BUY_S: Final = 45.0
SIGN_S: Final = 5.0
"""For the receipt after it; both together are less than net.trials.TRIAL_S."""
PATIENCE: Final = PatienceLimits(line=20.0, upload=10.0, taken=10.0, advance=30.0, reading=30.0)

TOO_DEAR: Final = "too_dear"
"""The code for a price at which not even one token is had for MOST."""
RELAY_FAILED: Final = "relay_failed"
EMPTY: Final = "empty"
"""The code for an answer without a word."""

_log = logging.getLogger(__name__)


class TrialNetwork(Protocol):
    """What is needed of the network."""

    @property
    def status(self) -> NetworkStatus: ...

    def nodes(self) -> list[SeenNode]: ...

    async def trial_link(self, node: bytes, account: Signer) -> Link: ...

    def blame(self, node: bytes, link: Link | None) -> Blame: ...


class Trials:
    """Of one node. `close` it before the network."""

    def __init__(self, network: TrialNetwork) -> None:
        self._network = network
        self._tasks = TaskGroup()

    async def run(self, node: bytes, request: wire.TryPlease) -> wire.Tried | wire.Failure:
        """Buy from `node`, which wants to know whether that works. Bounded by whoever calls it."""
        # In a task of its own, so that what it has open is closed in order whoever does not wait any more.
        task = self._tasks.spawn(self._try(node, request.model), name="try a node")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def close(self) -> None:
        """End the one that is under way."""
        await self._tasks.cancel_all()

    async def _try(self, node: bytes, model: bytes) -> wire.Tried | wire.Failure:
        seen = [one for one in self._network.nodes() if one.id == node]
        drivers = Drivers(lambda: None)
        offers = [offer for offer in drivers.offers(seen) if offer.model.model_id == model]
        if not offers:
            return wire.Failure("model_gone")  # as far as this node has heard
        try:
            with tempfile.TemporaryDirectory(prefix="infraxa-trial-", ignore_cleanup_errors=True) as folder:
                store = await Store.open(Path(folder))
                try:
                    return await _Trial(self._network, drivers, offers[0], store).run()
                finally:
                    await store.close()
        except (StoreError, OSError) as error:
            _log.warning("a node was not tried: %s", error)
            return wire.Failure("internal")


class _Stranger:
    """The network, as an account has it that has one session and no other."""

    def __init__(self, network: TrialNetwork) -> None:
        self.signer = Signer(os.urandom(32))
        self.link: Link | None = None
        self._network = network

    @property
    def status(self) -> NetworkStatus:
        return self._network.status

    def nodes(self) -> list[SeenNode]:
        return self._network.nodes()

    def account(self, provider: bytes) -> Signer:
        return self.signer

    def blame(self, node: bytes, link: Link | None) -> Blame:
        return self._network.blame(node, link)

    async def order_link(self, node: bytes) -> Link:
        if self.link is None:
            self.link = await self._network.trial_link(node, self.signer)
        if self.link.closed:
            raise NetError("refused", "The session of a trial is over.", "Try the node again later.")
        return self.link


class _Trial:
    """One purchase. `run` it once."""

    def __init__(self, network: TrialNetwork, drivers: Drivers, offer: OfferSeen, store: Store) -> None:
        self._stranger = _Stranger(network)
        self._drivers = drivers
        self._offer = offer
        self._store = store
        self._purse = Purse(self._stranger, lambda: None)
        most = MOST / CREDIT
        self._purse.use(Settings(cap_request=most, cap_chat=most, cap_day=most))
        self._spending = self._purse.spending(self._billed)
        # A price that rises while it is asked for would be told again and again.
        self._spending.unseen = True
        self._tally = Tally(time.monotonic)
        self._claimed = False
        """It had a place, and wants the prompt."""
        self._signed = asyncio.Event()

    async def run(self) -> wire.Tried | wire.Failure:
        """Raises StoreError."""
        await self._purse.open(self._store)
        try:
            try:
                async with asyncio.timeout(BUY_S):
                    code = await self._buy()
            except TimeoutError:
                code = self._overdue()
            if code == "":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_S):
                        await self._signed.wait()
        finally:
            await self._purse.close()
            if self._stranger.link is not None:
                await self._stranger.link.close()
        return wire.Failure("unreachable") if code is None else self._tried(code)

    async def _buy(self) -> str | None:
        """The code for why there is no answer, empty when there is one; None: whom it was to be bought from
        has no part in it. Raises StoreError."""
        offer = self._offer
        # The locked rates may be above those that were heard of by so much.
        price_in, price_out = (price + price // STEP for price in (offer.price_in, offer.price_out))
        left = market.affordable(MOST, prompt_most([PROMPT]), 0, Rates(price_in, price_out, price_in))
        if left < 1:
            return TOO_DEAR
        try:
            ended = await self._order(min(MAX_OUT, left))
            if isinstance(ended, Setback) and ended.code == "price_changed":
                # It was heard of as free; the next order asks for the price.
                ended = await self._order(min(MAX_OUT, left))
        except NodeError as error:
            return TOO_DEAR if error.code.startswith("cap_") else None
        if not isinstance(ended, Setback):
            return "" if ended.n_out or not self._offer.model.does & DOES_ANSWERS else EMPTY
        if self._tally.blame == "own" or not order_words.known(ended.code):
            return None
        if self._tally.blame == "relay":
            return RELAY_FAILED
        return self._overdue() if ended.code in ("silent", "stalled", "expired") else ended.code

    async def _order(self, n_out: int) -> Setback | Done:
        """Raises NodeError: this node is offline, or a cap is too low; StoreError."""
        request = Request((ChatMessage("user", PROMPT),), Sampling(temperature=0.0))
        answers = bool(self._offer.model.does & DOES_ANSWERS)
        prompt = prompt_of(request) if answers else Prompt(texts=(PROMPT,))
        model, size = self._offer.model.model_id, len(encode_prompt(prompt))
        attempt = Attempt(
            self._stranger,
            self._drivers,
            PATIENCE,
            Telling(lambda item: None, self._told),
            self._tally,
            self._offer,
            Moved(DriverPart(id_text(self._offer.node.id), "", "", 0, "")),
            self._spending,
        )
        order = order_of(os.urandom(16), model, size, request, n_out)
        return await attempt.run(msgspec.structs.replace(order, texts=len(prompt.texts)), prompt)

    async def _told(self, item: Item) -> None:
        self._claimed = self._claimed or isinstance(item, Sent)

    def _billed(self, bills: tuple[Bill, ...]) -> None:
        if any(bill.state == "signed" for bill in bills):
            self._signed.set()

    def _overdue(self) -> str:
        """The code for what did not come in time."""
        if self._claimed:
            return "stalled"
        if self._tally.times().wait_ms is not None:
            return "busy"
        return "timeout" if self._stranger.link is None else "silent"

    def _tried(self, code: str) -> wire.Tried:
        # Here, because it imports what the app's first frame need not wait for.
        from infraxa.net.relay import is_relayed

        link = self._stranger.link
        if link is None:
            return wire.Tried(code)
        near = addresses.group(link.remote) == addresses.LOCAL
        connect, first = self._tally.times().connect_ms, self._tally.usage().first_token_ms
        return wire.Tried(
            code,
            "relay" if is_relayed(link) else "local" if near else "direct",
            min(round(connect or 0), wire.MAX_WAIT_MS),
            min(round(first or 0), wire.MAX_WAIT_MS),
            self._signed.is_set(),
            self._stranger.signer.id,
        )
