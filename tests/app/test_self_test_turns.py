"""When a self-test is made and whom it asks, among peers who do what a test says; and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.app import self_test, self_test_words
from infraxa.app.commands.journal import Journal
from infraxa.app.commands.network_seen import _of_test
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import ProviderChanged
from infraxa.app.self_test import Limits, SelfTests
from infraxa.app.serving import Missing, Mode, ProviderStatus, SelfTest, TrialResult
from infraxa.app.trying import EMPTY, RELAY_FAILED, TOO_DEAR
from infraxa.net import wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.link import LinkClosed, StreamFailed
from infraxa.net.status import PeerInfo
from infraxa.store.db import Store
from tests.net.nodes import until

MODEL = bytes(range(32))
NOW = 1_800_000_000_000
SOON = Limits(first=0.02, every=0.02, again=0.02, nobody=0.02, look=0.01)
ONE, TWO, THREE, FOUR = (bytes([number]) * 32 for number in range(1, 5))
SERVED = wire.Tried("", "direct", 20, 310, True, THREE)


class Peers:
    """The network; each peer says what is written here."""

    def __init__(self, **where: str) -> None:
        self.says: dict[bytes, wire.Tried | Exception] = {}
        self.asked: list[bytes] = []
        self.links: list[PeerInfo] = []
        self.open = asyncio.Event()
        self.open.set()

    def add(self, node: bytes, says: wire.Tried | Exception, address: str = "1.2.3.4") -> None:
        self.says[node] = says
        self.links.append(PeerInfo(node, "", address, "in", "peer", 0, None, 0, 0))

    def peers(self) -> list[PeerInfo]:
        return self.links

    async def ask_for_trial(self, node: bytes, model: bytes) -> wire.Tried:
        assert model == MODEL
        self.asked.append(node)
        await self.open.wait()
        said = self.says[node]
        if isinstance(said, Exception):
            raise said
        return said


class Serving:
    """Provider mode."""

    def __init__(self) -> None:
        self.mode: Mode = "serving"
        self.model_id: bytes | None = MODEL
        self.answered = {THREE}
        self.tests: list[bytes] = []
        self.told = 0

    async def has_answered(self, account: bytes) -> bool:
        return account in self.answered

    def was_test(self, account: bytes) -> None:
        self.tests.append(account)

    def tell_soon(self) -> None:
        self.told += 1


class Place:
    """All of it."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self.peers = Peers()
        self.serving = Serving()
        self.log: list[str] = []
        self.at_ms = NOW
        self.store = store
        self.tests = self.made(limits)

    def made(self, limits: Limits) -> SelfTests:
        tests = SelfTests(
            self.peers,
            self.serving,
            self.log.append,
            limits=limits,
            clock=lambda: self.at_ms,
            rng=random.Random(7),
        )
        tests.use(Settings())
        return tests


NEVER = Limits(first=1e6)


@contextlib.asynccontextmanager
async def place(folder: Path, limits: Limits = NEVER) -> AsyncIterator[Place]:
    async with await Store.open(folder) as store:
        it = Place(store, limits)
        await it.tests.open(store)
        try:
            yield it
        finally:
            await it.tests.close()


def failed(code: wire.ErrorCode, retry_after_ms: int = 0) -> StreamFailed:
    return StreamFailed(wire.Failure(code, retry_after_ms))


async def test_it_is_made_by_itself_while_somebody_is_served(tmp_path: Path) -> None:
    async with place(tmp_path, SOON) as it:
        it.serving.model_id = None
        it.peers.add(ONE, SERVED)
        await asyncio.sleep(0.1)
        assert not it.peers.asked
        it.serving.model_id = MODEL
        await until(lambda: len(it.peers.asked) >= 3)
        assert it.tests.status.last == TrialResult(NOW, ONE, "", "direct", 20, 310, True)
        assert it.serving.tests[0] == THREE and it.serving.told
        assert it.log[0] == (
            "Self-test: a peer bought an answer directly; connected in 20 ms, the first token after 310 ms."
        )
        for settings in (
            Settings(self_test=False),
            Settings(stranger_limit=0.0),
            Settings(strangers_daily=0),
        ):
            it.tests.use(settings)
            await asyncio.sleep(0.05)
            count = len(it.peers.asked)
            await asyncio.sleep(0.1)
            assert len(it.peers.asked) == count
            with pytest.raises(NodeError):
                await it.tests.test()
        it.tests.use(Settings(stranger_limit=0.0, base_price=0.0))
        count = len(it.peers.asked)
        await until(lambda: len(it.peers.asked) > count)


async def test_whoever_is_outside_is_asked_first_then_who_was_not_asked_for_longest(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        it.peers.add(ONE, SERVED, "192.168.1.7")
        it.peers.add(TWO, SERVED, "8.8.4.4")
        it.peers.add(FOUR, SERVED, "9.9.9.9")
        it.peers.links.append(PeerInfo(THREE, "", "5.5.5.5", "in", "order", 0, None, 0, 0))
        for _ in range(4):
            await it.tests.test()
        assert set(it.peers.asked[:2]) == {TWO, FOUR} and it.peers.asked[2:] == it.peers.asked[:2]


async def test_who_declines_is_passed_over_and_left_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        for node, says in ((ONE, failed("busy")), (TWO, failed("unsupported")), (FOUR, SERVED)):
            it.peers.add(node, says, "1.2.3.4" if node != FOUR else "10.0.0.1")
        assert (await it.tests.test()).last == TrialResult(NOW, FOUR, "", "direct", 20, 310, True)
        assert sorted(it.peers.asked) == [ONE, TWO, FOUR]
        it.peers.says[FOUR] = failed("rate_limited", 3_000_000)
        test = await it.tests.test()
        assert (test.missing, it.peers.asked[3:]) == ("declined", [FOUR])
        assert (await it.tests.test()).missing == "declined" and len(it.peers.asked) == 4
        later = {node: round(at - it.tests._asked[node]) for node, at in it.tests._not_before.items()}
        assert later == {ONE: self_test.LATER_S, TWO: self_test.UNKNOWN_S, FOUR: 3000}
        it.peers.links.clear()
        assert (await it.tests.test()).missing == "no_peer"


async def test_so_many_are_asked_and_no_more(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        for number in range(20):
            it.peers.add(bytes([100 + number]) * 32, failed("busy"))
        await it.tests.test()
        assert len(it.peers.asked) == self_test.MOST_ASKED


@pytest.mark.parametrize(
    "silence", [NetError("timeout", "late"), LinkClosed(None), ProtocolError("malformed")], ids=repr
)
async def test_silence_says_nothing(tmp_path: Path, silence: Exception) -> None:
    async with place(tmp_path) as it:
        for node in (ONE, TWO, FOUR):
            it.peers.add(node, silence)
        test = await it.tests.test()
        assert (test.last, test.missing) == (None, "silent")
        assert len(it.peers.asked) == self_test.MOST_SILENT
        assert self_test_words.verdict(test, NOW).state == "open" and it.log == []
        it.peers.says = dict.fromkeys(it.peers.says, SERVED)
        assert (await it.tests.test()).last is not None, "another one is asked then"


async def test_one_at_a_time(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        it.peers.add(ONE, SERVED)
        it.peers.open.clear()
        first, second = asyncio.ensure_future(it.tests.test()), asyncio.ensure_future(it.tests.test())
        await until(lambda: it.peers.asked)
        assert (wait := it.tests.status.wait) is not None and wait.limit_s == self_test.ANSWER_S
        it.peers.open.set()
        assert await first == await second and it.peers.asked == [ONE] and it.tests.status.wait is None


async def test_what_was_said_is_remembered_but_not_forever(tmp_path: Path) -> None:
    async with place(tmp_path) as it:
        it.peers.add(ONE, wire.Tried("unreachable"))
        it.peers.add(TWO, SERVED)
        for _ in range(20):
            await it.tests.test()
        kept = it.tests.status
        assert kept.last is not None and kept.other is not None and kept.last.peer != kept.other.peer
        assert len(it.tests._results) == self_test.KEPT
        # What was not served is asked anew soon; what was served a moment ago says enough.
        for says, asked_again in ((wire.Tried("unreachable"), True), (SERVED, False)):
            it.peers.says = dict.fromkeys(it.peers.says, says)
            await it.tests.test()
            before, later = it.tests.status, it.made(Limits(first=0.02, look=0.01))
            it.peers.asked.clear()
            await later.open(it.store)
            try:
                assert later.status == before
                if asked_again:
                    await until(lambda: it.peers.asked)
                else:
                    await asyncio.sleep(0.15)
                    assert not it.peers.asked
            finally:
                await later.close()


def seen(
    last: TrialResult | None = None,
    other: TrialResult | None = None,
    missing: Missing = "",
    state: str = "on",
) -> SelfTest:
    return SelfTest(state, last, other, missing)  # type: ignore[arg-type]


def ago(minutes: int, code: str = "", peer: bytes = ONE, *, signed: bool = True) -> TrialResult:
    return TrialResult(
        NOW - minutes * 60_000, peer, code, "" if code else "direct", 20, 310, signed and not code
    )


def test_the_verdict_follows_from_what_was_said() -> None:
    def state(test: SelfTest) -> str:
        return self_test_words.verdict(test, NOW).state

    assert state(seen(state="off")) == state(seen(ago(1, "unreachable"), state="strangers")) == "open"
    assert state(seen(ago(59))) == "ok" and state(seen(ago(59, signed=False))) == "doubt"
    assert state(seen(ago(59, "unreachable"))) == "failed"
    assert state(seen(ago(59, "unreachable"), ago(70, "timeout", TWO))) == "failed"
    assert state(seen(ago(59, "unreachable"), ago(70, peer=TWO))) == "doubt"
    assert state(seen(ago(59, "unreachable"), ago(300, peer=TWO))) == "failed", "that is too long ago"
    assert state(seen(ago(59, "busy"))) == state(seen(ago(59, TOO_DEAR))) == "open"
    assert state(seen(ago(300, "unreachable"))) == state(seen(ago(300))) == "open"
    assert [_of_test(seen(one)).state for one in (ago(0), ago(0, "busy"))] == ["ok", "ok"]
    old = self_test_words.verdict(seen(ago(300), missing="no_peer"), NOW)
    assert old.text == (
        "Not tested: no other node is linked that could buy an answer. The last time was 5 h ago."
    )


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=24), st.sampled_from(["", "no_peer", "declined", "silent"]), st.booleans())
def test_nothing_that_a_peer_wrote_is_said(code: str, missing: Missing, signed: bool) -> None:
    kept = self_test_words.known(code)
    assert kept in ("", "internal") or kept == code
    last = TrialResult(NOW - 1000, ONE, kept, "relay", 1, 2, signed)
    test = seen(last, None, missing)
    said = self_test_words.verdict(test, NOW)
    for text in (said.text, said.remedy, self_test_words.logged(last), self_test_words.brief(test, NOW)):
        assert text == "" or (text.isprintable() and "{" not in text and len(text) < 300)
    assert not said.remedy or said.state in ("failed", "doubt")


@pytest.mark.parametrize(
    "code", ["unreachable", RELAY_FAILED, "silent", "stalled", EMPTY, "gone", "internal"]
)
def test_a_failure_has_a_remedy_and_is_a_reason_for_not_earning(code: str) -> None:
    test = seen(ago(5, code))
    said = self_test_words.verdict(test, NOW)
    assert said.state == "failed" and said.remedy and "That was 5 min ago." in said.text
    missed = self_test_words.missed(test, NOW)
    assert missed is not None and missed.reason in ("unreachable", "failed")
    assert self_test_words.missed(seen(ago(5)), NOW) is None


def test_each_result_is_told_once() -> None:
    journal = Journal()

    def told(test: SelfTest) -> list[dict[str, object]]:
        entries = journal.take(ProviderChanged(ProviderStatus("serving", self_test=test)))
        return [entry.fields for entry in entries if entry.event == "self_test"]

    assert told(seen()) == []
    (first,) = told(seen(ago(5, "unreachable")))
    assert (first["served"], first["code"]) == (False, "unreachable")
    assert told(seen(ago(5, "unreachable"))) == []
    (second,) = told(seen(ago(0)))
    assert second["served"] is True and second["first_token_ms"] == 310
