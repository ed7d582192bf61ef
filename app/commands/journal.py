"""What a headless node tells whoever reads its output: an entry for each thing that happened, its prices and
charges among them.

Events in, entries out; nothing is printed here. An entry is a sentence for people and fields for programs,
and holds nothing of a prompt or an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from infraxa.app.errors import sentence
from infraxa.app.events import EngineChanged, Event, LogLine, NetworkChanged, ProviderChanged
from infraxa.app.network_words import REACHABLE
from infraxa.app.serving import ProviderStatus, SelfTest, Served
from infraxa.app.trade import ReceiptSeen
from infraxa.engine.types import EngineStatus, ErrorInfo
from infraxa.net.credits import shown
from infraxa.net.identity import display, id_text, parse_id, short_id
from infraxa.net.status import NetworkStatus

JSON_VERSION = 1
"""Of the entries; fields are only added."""
STEP = 10
"""A price is told again when it has moved by a tenth."""
LATE_MS = 10_000
"""A receipt that is not countersigned after so long is told of; then its user is not served either."""


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened."""

    event: str
    text: str
    """For people; empty when they are told of it by another entry."""
    fields: dict[str, Any]


class Journal:
    """Remembers what was said, so that only news is told."""

    def __init__(self) -> None:
        self._network = NetworkStatus()
        self._provider = ProviderStatus()
        self._engine = EngineStatus()
        self._price: tuple[int, int] | None = None
        """That was told last: prices move all the time."""
        self._ended: set[int] = set()
        """Numbers of requests whose end was told, as far as they are still listed."""
        self._receipts: dict[str, str] = {}
        """By order: the state that was told, of the receipts that were listed last."""
        self._begun = False
        """The receipts of before are known."""

    def take(self, event: Event) -> Iterator[Entry]:
        """What `event` has of news."""
        match event:
            case NetworkChanged(status=status):
                before, self._network = self._network, status
                yield from _network(before, status)
            case ProviderChanged(status=status):
                was, self._provider = self._provider, status
                yield from _provider(was, status)
                yield from _tested(was.self_test, status.self_test)
                yield from self._priced(status)
            case EngineChanged(status=status):
                old, self._engine = self._engine, status
                yield from _engine(old, status)
            case LogLine(source="infraxa", text=text):
                yield Entry("log", text, {"text": text})
            case _:
                return

    def requests(self, served: Sequence[Served]) -> Iterator[Entry]:
        """The requests that have ended since the last time, oldest first."""
        told, self._ended = self._ended, {one.number for one in served if one.ended_ms}
        for one in sorted(served, key=lambda one: one.number):
            if one.number in self._ended and one.number not in told:
                yield _request(one)

    def receipts(self, newest: Sequence[ReceiptSeen], now_ms: int) -> Iterator[Entry]:
        """What became of those that this node sold, oldest first: signed, disputed, or still not signed."""
        before, self._receipts = self._receipts, {}
        for one in reversed(newest):
            late = one.state == "due" and now_ms - one.at_ms >= LATE_MS
            state = "unsigned" if late else one.state
            self._receipts[one.order] = state
            if (self._begun or state == "unsigned") and state != "due" and before.get(one.order) != state:
                yield _receipt(one, state)
        self._begun = True

    def _priced(self, status: ProviderStatus) -> Iterator[Entry]:
        if status.mode != "serving":
            self._price = None
            return
        now, told = (status.price_in, status.price_out), self._price
        if told is not None and abs(now[1] - told[1]) * STEP < max(told[1], 1):
            return
        self._price = now
        # The first one is part of what is said of serving.
        text = "" if told is None else f"the price is now: {_asked(status)}"
        yield Entry("price", text, {"price_in": now[0], "price_out": now[1]})


def _asked(status: ProviderStatus) -> str:
    """`free`, or the price of an answer."""
    return f"{shown(status.price_out)} credits per 1M tokens" if status.price_out else "free"


def _network(before: NetworkStatus, now: NetworkStatus) -> Iterator[Entry]:
    if now.listening and now.listening != before.listening:
        name, where = display(now.name, now.id), ", ".join(now.listening)
        yield Entry(
            "listening",
            f"{name} listens on {where}, in the network {now.network}",
            {"id": id_text(now.id), "name": now.name, "network": now.network, "addresses": now.listening},
        )
    if now.reachability != before.reachability and now.reachability != "unknown":
        yield Entry(
            "reachability",
            f"reached {REACHABLE[now.reachability].label}. {now.reachability_reason}".rstrip(),
            {"reachability": now.reachability, "reason": now.reachability_reason},
        )
    if now.peers != before.peers:
        nodes = "node" if now.peers == 1 else "nodes"
        yield Entry("peers", f"linked with {now.peers} {nodes}", {"peers": now.peers, "known": now.known})
    known = {notice.code for notice in before.notices}
    for notice in now.notices:
        if notice.code not in known:
            yield Entry(
                "notice",
                f"{notice.message} {notice.remedy}".rstrip(),
                {"code": notice.code, "message": notice.message, "remedy": notice.remedy},
            )
    if now.activity == "off" and before.activity not in ("off", "starting"):
        yield Entry("offline", "told the others that this node leaves", {})


def _provider(before: ProviderStatus, now: ProviderStatus) -> Iterator[Entry]:
    if (before.mode, before.reason, before.model) == (now.mode, now.reason, now.model):
        return
    text = ""
    if now.mode == "serving":
        text = f"serving {now.model} ({now.quantization}) to others, {now.capacity} at a time, {_asked(now)}"
    yield Entry(
        "provider",
        text,
        {
            "mode": now.mode,
            "reason": now.reason,
            "remedy": now.remedy,
            "model": now.model,
            "quantization": now.quantization,
            "context": now.context,
            "capacity": now.capacity,
            "running": now.running,
            "waiting": now.waiting,
        },
    )


def _tested(before: SelfTest, now: SelfTest) -> Iterator[Entry]:
    if (one := now.last) is None or one == before.last:
        return
    fields = {
        "served": not one.code,
        "code": one.code,
        "peer": short_id(one.peer),
        "way": one.way,
        "connect_ms": one.connect_ms,
        "first_token_ms": one.first_token_ms,
        "signed": one.signed,
        "tested": one.at_ms,
    }
    yield Entry("self_test", "", fields)


def _engine(before: EngineStatus, now: EngineStatus) -> Iterator[Entry]:
    if now.state == before.state or now.state not in ("ready", "restarting", "failed"):
        return
    loaded, error = now.loaded, now.error or ErrorInfo("", "")
    text = {
        "ready": f"the model is loaded: {loaded.n_ctx} tokens of context, {loaded.slots} slots"
        if loaded
        else "",
        "restarting": f"the model's process ended and is started again. {sentence(error)}".rstrip(),
        "failed": sentence(error),
    }[now.state]
    yield Entry("engine", text, {"state": now.state, "error": error.code, "message": error.message})


def _request(one: Served) -> Entry:
    return Entry(
        "request",
        "",
        {
            "number": one.number,
            "user": short_id(one.user),
            "state": one.state,
            "reason": one.reason,
            "since": one.since_ms,
            "ended": one.ended_ms,
            "n_prompt": one.n_prompt,
            "n_out": one.n_out,
            "first_token_ms": one.first_token_ms and round(one.first_token_ms, 1),
            "tokens_per_second": one.tokens_per_second and round(one.tokens_per_second, 1),
            "charge": one.charge,
        },
    )


def _receipt(one: ReceiptSeen, state: str) -> Entry:
    """What both sides signed, in words only where it is not as it should be."""
    user = short_id(parse_id(one.peer))
    text = {
        "unsigned": f"{user} has not countersigned its receipt over {shown(one.charge)} credits, "
        "and is not served before it does",
        "disputed": f"{user} disputes {shown(one.charge - one.accepted)} of {shown(one.charge)} credits",
    }.get(state, "")
    return Entry(
        "receipt",
        text,
        {
            "order": one.order,
            "user": user,
            "state": state,
            "n_prompt": one.n_prompt,
            "n_cached": one.n_cached,
            "n_out": one.n_out,
            "charge": one.charge,
            "accepted": one.accepted,
        },
    )
