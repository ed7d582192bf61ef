"""A node whose provider does what the test says, and what it looks like in several situations."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import ProviderChanged, ServedChanged
from infraxa.app.folders import Folders
from infraxa.app.serving import (
    BlockedUser,
    Mode,
    ProviderStatus,
    SelfTest,
    Served,
    ServedState,
    TrialResult,
)
from infraxa.net.status import NetworkStatus, Waiting
from tests.app.still import DAY, HOUR, MINUTE, NOW, ONLINE, StillNode, an_id

OFF = ProviderStatus()
_MODEL = ProviderStatus(
    model="guide", quantization="Q8_0", context=4096, capacity=7, room=14, since_ms=NOW - 3 * HOUR
)


def now_in(mode: Mode, **more: object) -> ProviderStatus:
    """Provider mode of the guide, 3 h after it was turned on."""
    return msgspec.structs.replace(_MODEL, mode=mode, **more)


STARTING = now_in("starting", since_ms=NOW - 2400, wait=Waiting("loading guide", NOW - 2400, 120.0))
QUIET = now_in(
    "serving", since_ms=NOW - 2 * MINUTE, price_in=50_000, price_out=200_000, self_test=SelfTest("on")
)
SERVING = now_in(
    "serving",
    running=4,
    waiting=2,
    users=5,
    answered=1412,
    failed=3,
    cancelled=11,
    refused={"busy": 18, "too_large": 2, "not_allowed": 1, "of_a_newer_one\x1b[2J": 1},
    tokens=481_204,
    bytes_out=2_012_000,
    tokens_per_second=132.4,
    first_token_ms=184,
    price_in=72_600,
    price_out=290_400,
    self_test=SelfTest("on", TrialResult(NOW - 12 * MINUTE, an_id("oak"), "", "direct", 41, 310, True)),
)
ON_BATTERY = now_in("paused", reason="This machine runs on its battery.")
CLOSED = now_in("paused", reason="It serves only at 22:00-07:00, as set.")
DRAINING = msgspec.structs.replace(
    SERVING, mode="draining", running=2, waiting=0, wait=Waiting("answers to end", NOW - 12_000, 120.0)
)
FAILED = now_in(
    "failed", reason="The model cannot be loaded: it needs 812 MB, and the limit is 400 MB.",
    remedy="Raise the memory limit, or serve a smaller model.", capacity=0, context=0,
)  # fmt: skip


def request(number: int, who: str, where: str, state: ServedState, age_ms: int, **more: object) -> Served:
    """A request of the user that is called so in tests."""
    return msgspec.structs.replace(Served(number, an_id(who), where, state, NOW - age_ms), **more)


_BEGUN = {"n_prompt": 812, "prompt_read": 812}
REQUESTS = [
    request(1434, "ines", "203.0.113.0/24", "waiting", 800, place=1),
    request(1433, "noah", "relay", "waiting", 2_100),
    request(1432, "mila", "192.168.178.0/24", "sending", 90),
    request(1431, "noah", "relay", "reading", 3_400, n_prompt=4000, prompt_read=1200),
    request(
        1430, "ada", "2001:db8:77::/56", "answering", 9_000, n_out=1_204, first_token_ms=184.0,
        tokens_per_second=33.8, **_BEGUN,
    ),
    request(
        1429, "lin", "198.51.100.0/24", "answering", 31_000, n_out=88, first_token_ms=2_140.0,
        tokens_per_second=4.1, **_BEGUN,
    ),
    request(
        1428, "ada", "2001:db8:77::/56", "done", 61_000, ended_ms=NOW - 3_000, n_out=412,
        first_token_ms=171.0, tokens_per_second=36.2, **_BEGUN,
    ),
    request(
        1427, "eve", "198.51.100.0/24", "refused", 2 * MINUTE, ended_ms=NOW - 2 * MINUTE,
        reason="Its prompt of 9,204 tokens is longer than the context of 4,096.",
    ),
    request(
        1426, "lin", "198.51.100.0/24", "cancelled", 4 * MINUTE, ended_ms=NOW - 3 * MINUTE, n_out=12,
        first_token_ms=201.0, tokens_per_second=30.0, reason="Its user stopped it.", **_BEGUN,
    ),
    request(
        1425, "ines", "203.0.113.0/24", "failed", 9 * MINUTE, ended_ms=NOW - 8 * MINUTE, n_out=230,
        first_token_ms=190.0, tokens_per_second=31.0, reason="The model's process ended in the middle of it.",
        **_BEGUN,
    ),
]  # fmt: skip
ENDED = [one for one in REQUESTS if one.ended_ms]
BLOCKED = [
    BlockedUser(an_id("mallory"), NOW - 3 * DAY, "blocked in the Provide view"),
    BlockedUser(an_id("trudy"), NOW - 40 * MINUTE),
]


class ProvidingNode(StillNode):
    """Its provider is as it was told to be, and notes what it is asked for."""

    said = OFF
    served: Sequence[Served] = ()
    blocked: Sequence[BlockedUser] = ()
    accepted = True
    """The notice has been seen."""

    @property
    def provider(self) -> ProviderStatus:
        return self.said

    def __init__(self, settings: Settings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.asked: list[tuple[object, ...]] = []
        """What was asked of the provider, first to last."""

    async def provide(self, on: bool, *, now: bool = False, keep: bool = True) -> None:
        self.asked.append(("provide", on, now))
        if on and not self.accepted:
            raise NodeError("notice", "Serving strangers has not been agreed to.", "Turn it on in the app.")
        running = sum(not one.ended_ms for one in self.served)
        if on:
            self.become_provider(QUIET)
        elif running and not now:
            self.become_provider(DRAINING, self.served)
        else:
            self.become_provider(OFF, [one for one in self.served if one.ended_ms])

    async def accept_serving(self) -> bool:
        self.asked.append(("accept",))
        self.accepted = True
        return True

    async def list_served(self) -> list[Served]:
        return list(self.served)

    async def end_served(self, number: int) -> None:
        self.asked.append(("end", number))
        self.become_provider(
            self.said,
            [
                msgspec.structs.replace(one, state="failed", ended_ms=NOW, reason="It was ended here.")
                if one.number == number
                else one
                for one in self.served
            ],
        )

    async def block_user(self, user: bytes, blocked: bool) -> None:
        self.asked.append(("block", user, blocked))
        others = [one for one in self.blocked if one.user != user]
        self.blocked = [*others, BlockedUser(user, NOW)] if blocked else others

    async def list_blocked_users(self) -> list[BlockedUser]:
        return list(self.blocked)

    def become_provider(
        self,
        status: ProviderStatus,
        served: Sequence[Served] = (),
        *,
        blocked: Sequence[BlockedUser] | None = None,
        network: NetworkStatus = ONLINE,
    ) -> None:
        """The provider is another one from now on, and says so."""
        self.said, self.served, self.net = status, list(served), network
        if blocked is not None:
            self.blocked = list(blocked)
        self._emit(ProviderChanged(status))
        self._emit(ServedChanged())
