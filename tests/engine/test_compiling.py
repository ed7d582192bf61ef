"""Who is compiled for, who waits, and who is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from infraxa.engine import compiling as module
from infraxa.engine.compiling import AT_ONCE, Compilers, Compiling
from infraxa.engine.types import EngineError

BOUND = 30.0


class Gate:
    """Work that takes until the test lets it end."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.compilers: Compilers[str] = Compilers()

    def ask(self, user: str) -> Compiling[str]:
        return self.compilers.begin(user, lambda until: str(self._open.wait(BOUND)))

    def open(self, *those: Compiling[str]) -> None:
        self._open.set()
        for one in those:
            assert one._thread is not None
            one._thread.join(BOUND)
        self.compilers.go_on()


@pytest.fixture
def gate() -> Iterator[Gate]:
    opened = Gate()
    yield opened
    opened.open()


@pytest.fixture
def give_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def at_once(*those: Compiling[str]) -> None:
        for one in those:
            monkeypatch.setattr(one, "_until", 0.0)

    return at_once


@pytest.fixture(autouse=True)
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPILE_SECONDS", 1000.0)


def refusal(one: Compiling[str]) -> str:
    assert one.over
    with pytest.raises(EngineError) as caught:
        one.result()
    assert caught.value.code == "bad_request"
    return caught.value.message


def test_one_of_a_user_at_a_time(gate: Gate) -> None:
    first, second, other = gate.ask("maple"), gate.ask("maple"), gate.ask("birch")
    assert (first.alive, second.alive, other.alive) == (True, False, True)
    assert not (first.over or second.over or other.over)
    gate.open(first)
    gate.compilers.wait(BOUND)
    assert first.result() == "True"
    assert second._thread is not None, "its turn came"
    gate.open(second)
    assert second.result() == "True"


def test_few_at_once_and_the_person_of_this_machine_before_all(gate: Gate) -> None:
    some = [gate.ask(f"user {i}") for i in range(AT_ONCE)]
    last, own = gate.ask("maple"), gate.ask("")
    assert all(one.alive for one in some)
    assert not last.alive and own.alive
    gate.open(*some)
    assert last._thread is not None


def test_what_was_given_up_costs_only_its_own_user(gate: Gate, give_up: Callable[..., None]) -> None:
    first, second = gate.ask("maple"), gate.ask("maple")
    give_up(first)
    gate.compilers.go_on()
    assert "too complicated" in refusal(first)
    assert "not done yet" in refusal(second)
    assert "not done yet" in refusal(gate.ask("maple"))
    other = gate.ask("birch")
    assert other.alive and not other.over
    gate.open(first, other)
    again = gate.ask("maple")
    gate.open(again)
    assert again.result() == other.result() == "True"


def test_when_all_places_are_lost_nobody_waits_for_ever(gate: Gate, give_up: Callable[..., None]) -> None:
    some = [gate.ask(f"user {i}") for i in range(AT_ONCE)]
    waits = gate.ask("maple")
    give_up(*some)
    gate.compilers.go_on()
    assert "not done yet" in refusal(waits)
    assert gate.ask("").alive


def test_who_is_cancelled_before_it_began_never_begins(gate: Gate) -> None:
    first, second = gate.ask("maple"), gate.ask("maple")
    gate.compilers.cancel(second)
    gate.open(first)
    assert second._thread is None


def test_what_goes_wrong_in_the_thread_is_told(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(until: float) -> str:
        raise RecursionError("secret")

    one = gate.compilers.begin("maple", fail)
    one.wait(BOUND)
    assert "malformed (RecursionError)" in refusal(one)

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert "no memory" in refusal(gate.ask("birch"))
