"""Prekeys: a new one every day, the old private half for ten minutes more, then gone."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.net.hello import PREKEY_KEPT_MS, PREKEY_MS, Prekey, Prekeys, prekey_id
from infraxa.net.noise import KeyPair

DAY = 24 * 3600 * 1000
MINUTE = 60 * 1000
START = 1_800_000_000_000


def new(stored: tuple[Prekey, ...] = ()) -> Prekeys:
    return Prekeys(stored, os.urandom)


def found(prekeys: Prekeys, prekey: Prekey, now_ms: int) -> bool:
    return prekeys.find(prekey_id(prekey.public), now_ms) == prekey


def test_the_first_one_is_made_on_demand() -> None:
    prekeys = new()
    with pytest.raises(LookupError):
        prekeys.current(START)
    assert prekeys.rotate(START)
    first = prekeys.current(START)
    assert first == prekeys.stored[-1]
    assert KeyPair.of(first.secret).public == first.public
    assert (first.made_ms, first.expires_ms) == (START, START + DAY + 10 * MINUTE)
    assert (PREKEY_MS, PREKEY_KEPT_MS) == (DAY, 10 * MINUTE)


def test_a_day_and_ten_minutes() -> None:
    prekeys = new()
    prekeys.rotate(START)
    first = prekeys.current(START)
    assert not prekeys.rotate(START + DAY - 1)
    assert prekeys.rotate(START + DAY)
    second = prekeys.current(START + DAY)
    assert second != first
    end = START + DAY + 10 * MINUTE
    assert found(prekeys, first, end - 1) and found(prekeys, second, end - 1)
    assert not found(prekeys, first, end)
    assert first in prekeys.stored
    assert not prekeys.rotate(end)
    assert prekeys.stored == (second,)  # erased
    assert prekeys.find(bytes(8), end) is None


def test_a_restart_goes_on_with_what_was_stored() -> None:
    prekeys = new()
    prekeys.rotate(START)
    again = new(prekeys.stored)
    assert not again.rotate(START + DAY // 2)
    assert again.current(START + DAY // 2) == prekeys.current(START)


def test_after_a_long_sleep_nothing_old_is_valid() -> None:
    prekeys = new()
    prekeys.rotate(START)
    first = prekeys.current(START)
    with pytest.raises(LookupError):
        prekeys.current(START + 2 * DAY)
    assert not found(prekeys, first, START + 2 * DAY)
    assert prekeys.rotate(START + 2 * DAY)
    assert first not in prekeys.stored


def test_one_that_was_made_while_the_clock_was_ahead_does_not_live_longer() -> None:
    prekeys = new()
    prekeys.rotate(START + 30 * DAY)
    future = prekeys.current(START + 30 * DAY)
    assert prekeys.rotate(START)  # the clock is right again
    assert prekeys.current(START).made_ms == START
    kept = [prekey for prekey in prekeys.stored if prekey.public == future.public]
    assert [prekey.expires_ms for prekey in kept] == [START + 10 * MINUTE]
    assert not prekeys.rotate(START + 11 * MINUTE)
    assert future.public not in {prekey.public for prekey in prekeys.stored}


def test_a_clock_that_is_set_back_a_little_changes_nothing() -> None:
    prekeys = new()
    prekeys.rotate(START)
    assert not prekeys.rotate(START - MINUTE)


def test_the_private_half_is_not_shown() -> None:
    prekeys = new()
    prekeys.rotate(START)
    shown = repr(prekeys.current(START)) + repr(prekeys.stored)
    assert prekey_id(prekeys.stored[0].public).hex() in shown
    assert repr(prekeys.stored[0].secret) not in shown and prekeys.stored[0].secret.hex() not in shown


@given(st.lists(st.integers(-3 * DAY, 3 * DAY), max_size=30), st.integers(0, 2**32))
def test_with_any_clock_one_is_valid_and_none_for_longer_than_it_may(jumps: list[int], seed: int) -> None:
    prekeys = Prekeys((), random.Random(seed).randbytes)
    now = START
    for jump in jumps:
        now += jump
        prekeys.rotate(now)
        current = prekeys.current(now)
        assert found(prekeys, current, now)
        for prekey in prekeys.stored:
            assert now < prekey.expires_ms <= now + DAY + 12 * MINUTE
        assert not prekeys.rotate(now)
