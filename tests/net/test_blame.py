"""Whose fault a silence is."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from infraxa.net.blame import DIALLED_S, QUIET_S, Blame, blame

Relay = Literal["none", "alive", "dead"]
RELAYS: tuple[Relay, ...] = ("none", "alive", "dead")
silences = st.floats(0, 10_000)


def judged(
    silent_s: float | None = 15.0,
    *others: float,
    networked: bool = True,
    relay: Relay = "none",
) -> Blame:
    return blame(networked=networked, silent_s=silent_s, others_silent_s=others, relay=relay)


def test_a_node_that_alone_is_silent_is_to_blame() -> None:
    assert judged(15.0, 1.0, 4.0) == "peer"
    assert judged(15.0, 1.0, 300.0) == "peer", "one that is heard is enough"
    assert judged(None, 0.3) == "peer"


def test_without_another_link_nobody_can_tell_so_it_is_the_node() -> None:
    assert judged(15.0) == judged(None) == "peer"


def test_when_all_are_silent_for_as_long_it_is_this_machine() -> None:
    assert judged(15.0, 14.0, 17.0) == "own"
    assert judged(15.0, 15.0 - QUIET_S + 0.1) == "own", "a ping may have been due a moment later"
    assert judged(None, DIALLED_S, 60.0) == "own"


def test_a_link_that_closes_at_once_is_no_silence() -> None:
    assert judged(0.1, 3.0, 5.0) == "peer"
    assert judged(0.1, QUIET_S + 1) == "own"


def test_without_a_network_it_is_this_machine_whatever_else() -> None:
    for relay in RELAYS:
        assert judged(0.0, 0.0, networked=False, relay=relay) == "own"


def test_a_relay_that_is_gone_is_to_blame_before_who_is_behind_it() -> None:
    assert judged(15.0, 1.0, relay="dead") == "relay"
    assert judged(15.0, relay="dead") == judged(None, relay="dead") == "relay"
    assert judged(15.0, 1.0, relay="alive") == "peer"
    assert judged(15.0, 15.0, relay="dead") == "own"


@given(st.none() | silences, st.lists(silences, max_size=5), st.sampled_from(RELAYS), silences)
def test_one_more_that_is_heard_now_clears_this_machine(
    silent_s: float | None, others: list[float], relay: Relay, more: float
) -> None:
    now = min(more, QUIET_S)
    assert judged(silent_s, *others, now, relay=relay) != "own"


@given(silences, st.lists(silences, min_size=1, max_size=5), st.sampled_from(RELAYS))
def test_a_node_silent_for_longer_than_all_others_is_never_excused_by_them(
    silent_s: float, others: list[float], relay: Relay
) -> None:
    if silent_s > max(others) + QUIET_S:
        assert judged(silent_s, *others, relay=relay) == ("relay" if relay == "dead" else "peer")
