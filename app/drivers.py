"""What this machine knows of drivers: it remembers how they did and what the person said of them, lists what
they offer, and finds or chooses one.

The rules are in net/routing.py, what is kept on disk in store/drivers.py. All that is asked here is answered
from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, cast

import msgspec

from infraxa.app import driver_words, reputations
from infraxa.app.audit_history import AuditHistory
from infraxa.app.errors import NodeError
from infraxa.app.offers import Mark, OfferSeen
from infraxa.net import routing
from infraxa.net.identity import display
from infraxa.net.records import DOES_ANSWERS, ModelOffer
from infraxa.net.reputation import Weighted
from infraxa.net.routing import Candidate, Evidence, Outcome, Wanted
from infraxa.net.status import SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.store import drivers
from infraxa.store.db import Store, now_ms
from infraxa.store.records import DriverRecord, StoreError

WRITE_S: Final = 5.0
"""What was seen is on disk so long after it, with all else that was seen meanwhile."""

_log = logging.getLogger(__name__)

_NO_EVIDENCE = Evidence()
_ANY = Wanted()
_ALL = b""
"""In place of a model_id: all models of a node together."""
_RANK = {"online": 0, "busy": 1, "offline": 2}


class Drivers:
    """The memory of one node. `open` it once, `close` it before the store."""

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        clock: Callable[[], int] = now_ms,
        rng: random.Random | None = None,
    ) -> None:
        """`on_change` is called when the evidence or a mark is another one. `clock`: milliseconds since the
        epoch."""
        self.fallback: frozenset[bytes] = frozenset()
        """The model_ids that nobody is chosen for who has another one: what every node has anyway."""
        self.reputations = reputations.Reputations()
        self.audit_history = AuditHistory()
        self._on_change = on_change
        self._clock = clock
        self._rng = rng or random.Random()
        self._store: Store | None = None
        self._evidence: dict[tuple[bytes, bytes], Evidence] = {}  # what changed last is the last
        self._marks: dict[bytes, Mark] = {}
        self._pending: Counter[bytes] = Counter()
        """Orders that a node has not answered yet."""
        self._unwritten: set[tuple[bytes, bytes]] = set()
        self._tasks = TaskGroup()
        self._writing: asyncio.Task[None] | None = None

    async def open(self, store: Store) -> None:
        """Remember what is in the store. Raises StoreError."""
        self._store = store
        for record in await store.run(drivers.list_drivers):
            try:
                evidence = msgspec.json.decode(record.evidence, type=Evidence)
            except msgspec.MsgspecError:
                continue  # of another version
            self._evidence[record.node, record.model] = evidence
        self._marks = cast(dict[bytes, Mark], await store.run(drivers.list_marks))

    async def close(self) -> None:
        """Write what is not written. What fails is logged."""
        await self._tasks.cancel_all()
        await self._write()
        self._store = None

    def offers(self, nodes: Iterable[SeenNode]) -> list[OfferSeen]:
        """One for each model of those that serve any: pinned ones first, blocked ones last, in between those
        that are online first, the `fallback` models after others, and what is expected to cost least,
        the time until it answered included."""
        now = self._clock()
        listed = [
            (*self._order(one, now), place, self._seen(one, said, now))
            for place, (one, said) in enumerate(self._rated_candidates(nodes))
        ]
        listed.sort()
        return [one[-1] for one in listed]

    async def mark(self, node: bytes, mark: Mark) -> None:
        """Remember what the person says of a provider. Raises StoreError, NodeError `closed`."""
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        await self._store.run(drivers.set_mark, node, mark)
        if mark:
            self._marks[node] = mark
        else:
            self._marks.pop(node, None)
        self._on_change()

    async def observed(self, node: bytes, model_id: bytes, outcome: Outcome) -> None:
        """Take down how a request to a driver ended. It never waits, and never fails."""
        for key in ((node, model_id), (node, _ALL)):
            before = self._evidence.pop(key, _NO_EVIDENCE)
            self._evidence[key] = routing.observed(before, outcome, self._clock())
            if len(self._evidence) > drivers.DRIVERS_KEPT:
                del self._evidence[next(iter(self._evidence))]
            self._unwritten.add(key)
        if self._store is not None and (self._writing is None or self._writing.done()):
            self._writing = self._tasks.spawn(self._write_soon(), name="remember drivers")
        self._on_change()

    def choose(
        self,
        nodes: Iterable[SeenNode],
        model_id: bytes | None = None,
        context: int = 1,
        exclude: Collection[bytes] = (),
        *,
        n_out: int = routing.N_OUT,
        max_price: int | None = None,
        does: int = DOES_ANSWERS,
    ) -> OfferSeen | None:
        """A driver for a prompt and an answer of `context` tokens together, of which the answer will have
        about `n_out`; None when nobody can be, see `nobody`. `exclude`: ids of nodes that are not to be
        asked. `max_price`: µcr per 1M tokens; None: any. `does`: see records.DOES_ANSWERS."""
        now = self._clock()
        n_prompt = max(context - n_out, 0) or routing.N_PROMPT
        wanted = Wanted(model_id, context, n_prompt, n_out, max_price, does, self.fallback)
        chosen = routing.choose(self._candidates(nodes), wanted, now, self._rng, exclude)
        if chosen is None:
            return None
        return self._seen(chosen, self.reputations.said(chosen.node.id), now)

    @contextlib.contextmanager
    def asked(self, node: bytes) -> Iterator[None]:
        """An order is under way at this node: others rather go elsewhere."""
        self._pending[node] += 1
        try:
            yield
        finally:
            self._pending[node] -= 1
            if not self._pending[node]:
                del self._pending[node]

    def room_in(
        self,
        nodes: Iterable[SeenNode],
        model_id: bytes | None = None,
        context: int = 1,
        exclude: Collection[bytes] = (),
        *,
        max_price: int | None = None,
        does: int = DOES_ANSWERS,
    ) -> float | None:
        """Seconds until one of those that are busy may have room, 0 when it did not say; None: none is."""
        now, wanted = self._clock(), Wanted(model_id, context, max_price=max_price, does=does)
        waits = []
        for one in self._candidates(nodes):
            why = None if one.node.id in exclude else routing.why_not(one, wanted, now)
            if why == "busy" or why == "asked_to_wait":
                waits.append(routing.waiting_ms(one.evidence, now) / 1000)
        return min(waits, default=None)

    def nobody(
        self,
        nodes: Iterable[SeenNode],
        model_id: bytes | None = None,
        context: int = 1,
        exclude: Collection[bytes] = (),
        *,
        max_price: int | None = None,
        does: int = DOES_ANSWERS,
    ) -> NodeError:
        """Why `choose` found nobody: `busy`, or `no_driver` with what is closest to a driver."""
        now = self._clock()
        wanted = Wanted(model_id, context, max_price=max_price, does=does)
        left = [one for one in self._candidates(nodes) if one.node.id not in exclude]
        why = Counter(routing.why_not(one, wanted, now) for one in left)
        return driver_words.nobody(why, context, max_price, tried=bool(exclude))

    def find(
        self,
        nodes: Iterable[SeenNode],
        driver: str,
        model: str | None = None,
        *,
        does: int = DOES_ANSWERS,
    ) -> OfferSeen:
        """What one node offers: that of `model` (a model_id in hex), or the first one in its card that `does`
        what is asked for.

        `driver` is its id, the beginning of it, or `name·id` as it is shown.

        Raises NodeError `no_driver`: nobody or several have this id, it is offline, offers nothing or not
        this model, or the person blocked it.
        """
        node = driver_words.named(list(nodes), driver)
        name = display(node.name, node.id)
        if self._marks.get(node.id) == "blocked":
            raise NodeError(
                "no_driver", f"You blocked {name}.", "Unblock it in the market, or choose another."
            )
        if node.status == "offline":
            raise NodeError("no_driver", f"{name} is offline.", "Choose another driver, or wait for it.")
        if not node.dialable:
            raise NodeError(
                "no_driver",
                f"{name} told no address by which it can be reached, and no relay.",
                "Wait a moment: one may be heard of. Else ask for an invite, infraxa join takes it.",
            )
        offered = list(self._candidates([node]))
        if not offered:
            raise NodeError("no_driver", f"{name} offers no model now.", "Choose another driver.")
        able = [one for one in offered if one.model.does & does]
        if not able:
            what = "answers" if does == DOES_ANSWERS else "makes embeddings"
            raise NodeError("no_driver", f"{name} has no model that {what}.", "Choose another driver.")
        for one in able:
            if model is None or one.model.model_id.hex() == model.lower():
                return self._seen(one, self.reputations.said(node.id), self._clock())
        raise NodeError(
            "no_driver",
            f"{name} does not offer this model any more.",
            "Choose another model, or another driver.",
        )

    def _candidates(self, nodes: Iterable[SeenNode]) -> Iterator[Candidate]:
        return (candidate for candidate, _ in self._rated_candidates(nodes))

    def _rated_candidates(self, nodes: Iterable[SeenNode]) -> Iterator[tuple[Candidate, list[Weighted]]]:
        """The models of the nodes, each with what others said of its node."""
        now = self._clock()
        for node in nodes:
            if not node.slots or not node.models:
                continue
            mark = self._marks.get(node.id)
            pinned, blocked, pending = mark == "pinned", mark == "blocked", self._pending[node.id]
            of_node = self._evidence.get((node.id, _ALL), _NO_EVIDENCE)
            said = self.reputations.said(node.id)
            opinion = reputations.opinion(said, now)
            prices = {price.model: (price.price_in, price.price_out) for price in node.prices}
            for place, model in enumerate(node.models):
                of_model = self._of_model(node, model)
                known = of_node is not _NO_EVIDENCE or of_model is not _NO_EVIDENCE
                evidence = routing.of_candidate(of_node, of_model) if known else _NO_EVIDENCE
                cost = prices.get(place) or (model.price_in, model.price_out)
                caught = self.audit_history.caught(node.id, model.model_id)
                yield (
                    Candidate(node, model, pinned, blocked, evidence, pending, *cost, opinion, caught),
                    said,
                )

    def _of_model(self, node: SeenNode, model: ModelOffer) -> Evidence:
        return self._evidence.get((node.id, model.model_id), _NO_EVIDENCE)

    def _seen(self, candidate: Candidate, said: list[Weighted], now: int) -> OfferSeen:
        """`said`: of its node, by others."""
        node, model = candidate.node, candidate.model
        evidence = self._of_model(node, model)
        audits = self.audit_history.seen(node.id, model.model_id)
        score = reputations.score(candidate, said, audits, now)
        return OfferSeen(
            node=node,
            model=model,
            price_in=candidate.price_in,
            price_out=candidate.price_out,
            mark="blocked" if candidate.blocked else "pinned" if candidate.pinned else "",
            answered=evidence.answered,
            failed=evidence.failed,
            success=routing.success(evidence),
            first_token_ms=evidence.first_token_ms,
            tokens_per_second=evidence.tokens_per_second,
            stars=score.stars,
            ratings=score.ratings,
            unweighted=score.unweighted,
            new=score.new,
            cooling_s=routing.cooling_ms(candidate.evidence, now) / 1000,
            audited=audits,
            caught=candidate.caught,
            proof=self.audit_history.proof(node.id),
            problem=_problem(candidate),
        )

    def _order(self, candidate: Candidate, now: int) -> tuple[bool, bool, int, bool, float, bytes]:
        node = candidate.node
        expected = routing.expected_cost(candidate, _ANY, now)
        fallback = candidate.model.model_id in self.fallback
        return candidate.blocked, not candidate.pinned, _RANK[node.status], fallback, expected, node.id

    async def _write_soon(self) -> None:
        await asyncio.sleep(WRITE_S)
        await self._write()

    async def _write(self) -> None:
        if self._store is None or not self._unwritten:
            return
        now = self._clock()
        keys, self._unwritten = self._unwritten, set()
        records = [
            DriverRecord(*key, now, msgspec.json.encode(self._evidence[key]))
            for key in self._evidence
            if key in keys
        ]
        try:
            await self._store.run(drivers.keep_drivers, records)
        except StoreError as error:
            self._unwritten |= keys
            _log.warning("what was seen of drivers is not kept: %s", error.message)
        except BaseException:
            self._unwritten |= keys
            raise


def _problem(candidate: Candidate) -> str:
    """Why it is not the driver, even if the person says so."""
    if candidate.blocked:
        return "You blocked this provider."
    if candidate.node.status == "offline":
        return "It is offline."
    return "" if candidate.node.dialable else "It told no address by which it can be reached, and no relay."
