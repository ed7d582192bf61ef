"""Has a peer buy a tiny answer here now and then, to know whether strangers are served.

Nobody can see from inside whether others get in: the peer dials, pays and reads as anybody would (trying.py).
What it says is kept as what it says: that it was served is believed only where the books have such an answer,
that it was not is asked of another peer soon. In words it is in self_test_words.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from infraxa.app import self_test_words
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.serving import Missing, Mode, SelfTest, TrialResult
from infraxa.net import addresses
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.identity import short_id
from infraxa.net.status import PeerInfo, Waiting
from infraxa.net.tasks import TaskGroup
from infraxa.store import state
from infraxa.store.db import Store, now_ms
from infraxa.store.records import StoreError

if TYPE_CHECKING:
    from infraxa.net.wire import Tried

KEPT: Final = 8
"""Results that are remembered."""
RESULTS: Final = "self_tests"
ANSWER_S: Final = 60.0
"""A peer is waited for so long, as net.trials does, which the app draws its first frame without."""
MOST_ASKED: Final = 6
"""Peers, for one test: those that do it for nobody, or not now, are many."""
MOST_SILENT: Final = 2
"""Of them, such as do not answer, which takes ANSWER_S each."""
LATER_S: Final = 300.0
"""A peer that does not say when it may be asked again is left alone for so long; one that knows nothing of
this, for:"""
UNKNOWN_S: Final = 6 * 3600.0
FRESH_S: Final = 3000.0
"""What was said before a restart is asked again no sooner."""

_log = logging.getLogger(__name__)


class Limits(msgspec.Struct, frozen=True):
    """Seconds."""

    first: float = 120.0
    """After serving began: others have to hear of the offer."""
    every: float = 3600.0
    again: float = 600.0
    """After one that was not served."""
    nobody: float = 300.0
    """After nobody could be asked."""
    look: float = 10.0
    """Between two looks whether anything is served."""


class _Results(msgspec.Struct, frozen=True):
    """As they are remembered."""

    newest_first: tuple[TrialResult, ...]


class Asking(Protocol):
    """What is needed of the network."""

    def peers(self) -> list[PeerInfo]: ...

    async def ask_for_trial(self, node: bytes, model: bytes) -> Tried: ...


class Serving(Protocol):
    """What is needed of provider mode."""

    @property
    def mode(self) -> Mode: ...

    @property
    def model_id(self) -> bytes | None: ...

    async def has_answered(self, account: bytes) -> bool: ...

    def was_test(self, account: bytes) -> None: ...

    def tell_soon(self) -> None: ...


class SelfTests:
    """Of one node. `open` it once, `close` it before the network."""

    def __init__(
        self,
        network: Asking,
        provider: Serving,
        log: Callable[[str], None],
        *,
        limits: Limits | None = None,
        clock: Callable[[], int] = now_ms,
        rng: random.Random | None = None,
    ) -> None:
        """`log`: told each result as a sentence. `clock`: milliseconds since the epoch."""
        self._network = network
        self._provider = provider
        self._say = log
        self._limits = limits or Limits()
        self._clock = clock
        self._rng = rng or random.Random()
        self._settings = Settings(self_test=False)
        self._store: Store | None = None
        self._results: tuple[TrialResult, ...] = ()
        """The newest first."""
        self._seen = SelfTest("off")
        self._due: float | None = None
        """When the next one is due, monotonic seconds; None: nobody is served."""
        self._asked: dict[bytes, float] = {}
        """When a peer was asked last."""
        self._not_before: dict[bytes, float] = {}
        """When it may be asked again."""
        self._turn_taken = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Remember what was said before, and go on. Raises StoreError."""
        self._store = store
        kept = await store.run(state.get_value, RESULTS, _Results)
        self._results = kept.newest_first[:KEPT] if kept is not None else ()
        self._tasks.repeat(self._turn, name="self-test", pause_s=self._limits.look)

    def use(self, settings: Settings) -> None:
        """Test as these settings say."""
        self._settings = settings
        self._wake.set()

    async def close(self) -> None:
        """A peer that is buying is told that nobody waits for it any more."""
        await self._tasks.cancel_all()
        self._store = None

    @property
    def status(self) -> SelfTest:
        """As it is now."""
        last = self._results[0] if self._results else None
        other = next((one for one in self._results if last is not None and one.peer != last.peer), None)
        return msgspec.structs.replace(self._seen, state=self._state(), last=last, other=other)

    async def test(self) -> SelfTest:
        """Do it now, or wait for the one that is under way; what came of it. Bounded, by ANSWER_S for each of
        MOST_SILENT above all. Raises NodeError `not_served`."""
        model = self._provider.model_id
        if self._state() != "on" or model is None:
            raise NodeError(
                "not_served",
                "There is nothing to test: strangers are not served now.",
                "It takes provider mode, the setting self_test, and credit for strangers.",
            )
        if self._turn_taken.locked():
            async with self._turn_taken:
                return self.status
        await self._test(model)
        return self.status

    def _state(self) -> Literal["off", "strangers", "on"]:
        settings = self._settings
        if not settings.self_test or self._provider.mode in ("off", "draining"):
            return "off"
        if settings.base_price and not (settings.stranger_limit and settings.strangers_daily):
            return "strangers"
        return "on"

    async def _turn(self) -> None:
        self._wake.clear()
        model, now = self._provider.model_id, time.monotonic()
        if model is None or self._state() != "on":
            self._due = None
        elif self._due is None:
            self._due = now + max(self._limits.first, self._fresh_s())
        elif now >= self._due and model is not None:
            await self._test(model)
            return
        wait = self._limits.look if self._due is None else min(self._limits.look, max(0.0, self._due - now))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()

    def _fresh_s(self) -> float:
        """Seconds for which the last answer that was bought still says something."""
        if not self._results or self._results[0].code:
            return 0.0
        return min(self._limits.every, FRESH_S - (self._clock() - self._results[0].at_ms) / 1000)

    async def _test(self, model: bytes) -> None:
        """Ask peers until one has bought, or could not."""
        async with self._turn_taken:
            silent = 0
            found = False
            try:
                for node in self._candidates()[:MOST_ASKED]:
                    said = await self._ask(node, model)
                    if found := isinstance(said, TrialResult):
                        await self._keep(said)
                        break
                    silent += said == "silent"
                    if silent == MOST_SILENT:
                        break
            finally:
                self._seen = SelfTest("off")
                if not found:
                    nobody: Missing = "declined" if self._not_before else "no_peer"
                    self._seen = SelfTest("off", missing="silent" if silent else nobody)
                self._due = time.monotonic() + self._pause() * self._rng.uniform(0.9, 1.1)
                self._provider.tell_soon()

    def _pause(self) -> float:
        """Seconds until the next one."""
        if self._seen.missing:
            return self._limits.nobody
        return self._limits.again if self._results[0].code else self._limits.every

    def _candidates(self) -> list[bytes]:
        """The peers that may be asked now. First those outside of this local network, as they take the way
        that others take; then whoever was not asked for longest."""
        peers = {peer.id: peer.address for peer in self._network.peers() if peer.kind == "peer"}
        self._asked = {node: at for node, at in self._asked.items() if node in peers}
        self._not_before = {node: at for node, at in self._not_before.items() if node in peers}
        now = time.monotonic()
        free = [node for node in peers if self._not_before.get(node, now) <= now]
        self._rng.shuffle(free)
        near = {node for node in free if addresses.group(peers[node]) == addresses.LOCAL}
        return sorted(free, key=lambda node: (node in near, self._asked.get(node, float("-inf"))))

    async def _ask(self, node: bytes, model: bytes) -> TrialResult | Literal["declined", "silent"]:
        # Here, because it imports what the app's first frame need not wait for.
        from infraxa.net.stream import LinkClosed, StreamCancelled, StreamFailed

        wait = Waiting("a peer to buy an answer here", self._clock(), ANSWER_S)
        self._seen = msgspec.structs.replace(self._seen, wait=wait)
        self._provider.tell_soon()
        self._asked[node] = time.monotonic()
        self._leave_alone(node, LATER_S)
        try:
            said = await self._network.ask_for_trial(node, model)
        except StreamFailed as error:
            failure = error.failure
            known = failure.code != "unsupported"
            self._leave_alone(node, (failure.retry_after_ms / 1000 or LATER_S) if known else UNKNOWN_S)
            return "declined"
        except (NetError, NodeError) as error:
            return "silent" if error.code == "timeout" else "declined"
        except (ProtocolError, LinkClosed, StreamCancelled):
            return "silent"
        self._provider.was_test(said.account)
        if not said.code and not await self._has_answered(said.account):
            _log.warning(
                "%s says that it was served here, where the books have no such answer", short_id(node)
            )
            self._leave_alone(node, UNKNOWN_S)
            return "declined"
        self._not_before.pop(node, None)  # it says itself when it is too soon
        code = self_test_words.known(said.code)
        signed = said.signed and not code
        return TrialResult(self._clock(), node, code, said.way, said.connect_ms, said.first_token_ms, signed)

    async def _has_answered(self, account: bytes) -> bool:
        try:
            return await self._provider.has_answered(account)
        except StoreError as error:
            _log.warning("whether a peer was served cannot be looked up: %s", error.message)
            return False

    def _leave_alone(self, node: bytes, seconds: float) -> None:
        self._not_before[node] = time.monotonic() + min(seconds, UNKNOWN_S)

    async def _keep(self, result: TrialResult) -> None:
        self._results = (result, *self._results)[:KEPT]
        self._say(self_test_words.logged(result))
        if self._store is not None:
            try:
                await self._store.run(state.set_value, RESULTS, _Results(self._results))
            except StoreError as error:
                _log.warning("what came of the self-test is not kept: %s", error.message)
