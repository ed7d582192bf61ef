"""What strangers may cost: rates, load, proof of work, and the memory of first messages."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import guard
from infraxa.net.guard import (
    EPOCH_SECONDS,
    MAX_BITS,
    MIN_BITS,
    Challenges,
    Load,
    Puzzle,
    Rates,
    Seen,
    solve,
)


def test_each_source_has_its_own_burst_and_rate() -> None:
    rates = Rates(100)
    assert [rates.allow("a", 5, 20, 10.0) for _ in range(21)] == [True] * 20 + [False]
    assert rates.allow("b", 5, 20, 10.0)
    assert not rates.allow("a", 5, 20, 10.1)
    assert [rates.allow("a", 5, 20, 11.0) for _ in range(6)] == [True] * 5 + [False]
    assert [rates.allow("a", 5, 20, 1e6) for _ in range(21)] == [True] * 20 + [False]


def test_the_sources_kept_are_bounded_and_the_busy_ones_stay() -> None:
    rates = Rates(10)
    for _ in range(20):
        rates.allow("flooder", 5, 20, 0.0)
    for number in range(1000):
        assert rates.allow(f"passer-by {number}", 5, 20, 0.0)
        assert not rates.allow("flooder", 5, 20, 0.0)
        assert len(rates._buckets) <= 10
    assert [rates.allow("newcomer", 5, 20, 0.0) for _ in range(21)] == [True] * 20 + [False]


def bits_at(per_second: float, seconds: float = 20.0) -> int:
    load = Load(200.0)
    count = int(per_second * seconds)
    return [load.bits(1000.0 + number / per_second) for number in range(count)][-1]


def test_work_is_asked_for_beyond_the_free_rate_and_rises_with_the_load() -> None:
    assert bits_at(1.0) == bits_at(150.0) == 0
    assert bits_at(250.0) == MIN_BITS == 16
    assert bits_at(500.0) == 17
    assert bits_at(1000.0) == 18
    assert bits_at(100_000.0, 1.0) == MAX_BITS == 20


def test_no_work_is_asked_for_when_the_flood_has_passed() -> None:
    load = Load(200.0)
    assert [load.bits(0.001 * number) for number in range(5000)][-1] > 0
    assert load.bits(30.0) == 0


@given(st.lists(st.floats(-1e9, 1e9), max_size=50))
def test_a_clock_that_jumps_does_not_break_the_load(times: list[float]) -> None:
    load = Load(200.0)
    for now in times:
        assert load.bits(now) in range(MAX_BITS + 1)


def test_a_solution_has_the_zero_bits() -> None:
    for bits in (1, 8, 12):
        nonce = solve(Puzzle(b"prefix", bits))
        assert nonce is not None and len(nonce) == 8
        found = hashlib.blake2b(b"prefix" + nonce, digest_size=8).digest()
        assert int.from_bytes(found, "big") < 2 ** (64 - bits)


def test_solving_stops_when_told_and_after_a_bounded_number_of_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def never(data: bytes) -> int:
        tried.append(data)
        return 0

    monkeypatch.setattr(guard, "_zero_bits", never)
    assert solve(Puzzle(b"x", 10)) is None
    assert len(set(tried)) == len(tried) == 2**14
    tried.clear()
    asked = iter([False, False, True])
    assert solve(Puzzle(b"x", 20), lambda: next(asked)) is None
    assert len(tried) == 2 * 4096


ID, KEY = b"prekeyid", b"e" * 32


def solution(challenges: Challenges, source: str, now: float, bits: int = MIN_BITS) -> bytes:
    nonce = solve(Puzzle(challenges.challenge(source, ID, now) + KEY, bits))
    assert nonce is not None
    return nonce


def test_a_solution_is_good_for_one_source_prekey_hello_and_time() -> None:
    challenges = Challenges(random.Random(1).randbytes)
    nonce = solution(challenges, "a", 1000.0)

    def solved(
        source: str = "a",
        prekey: bytes = ID,
        key: bytes = KEY,
        with_nonce: bytes = nonce,
        now: float = 1000.0,
        door: Challenges = challenges,
    ) -> bool:
        return door.solved(source, prekey, key, with_nonce, MIN_BITS, now)

    assert solved() and solved(now=1000.0 + EPOCH_SECONDS)
    assert not solved(source="b")
    assert not solved(prekey=b"PREKEYID")
    assert not solved(key=b"f" * 32)
    assert not solved(with_nonce=bytes(8))
    assert not solved(now=1000.0 + 2 * EPOCH_SECONDS) and not solved(now=1000.0 - EPOCH_SECONDS)
    assert not solved(door=Challenges(random.Random(2).randbytes))


def test_a_solution_survives_a_load_that_grows_by_one_step() -> None:
    challenges = Challenges(random.Random(1).randbytes)
    two_steps = []
    for number in range(8):
        now = number * EPOCH_SECONDS * 2
        nonce = solution(challenges, "a", now)
        assert challenges.solved("a", ID, KEY, nonce, MIN_BITS, now)
        assert challenges.solved("a", ID, KEY, nonce, MIN_BITS + 1, now)
        two_steps.append(challenges.solved("a", ID, KEY, nonce, MIN_BITS + 3, now))
    assert not all(two_steps)  # some have more zero bits by chance


def test_fifteen_bits_are_never_enough() -> None:
    challenges = Challenges(random.Random(1).randbytes)
    weak = 0
    for number in range(8):
        key = bytes((number,)) * 32
        nonce = solve(Puzzle(challenges.challenge("a", ID, 0.0) + key, 10))
        assert nonce is not None
        weak += challenges.solved("a", ID, key, nonce, MIN_BITS, 0.0)
    assert weak == 0


def test_a_key_is_kept_for_its_time_and_not_longer() -> None:
    seen = Seen(10, 240.0)
    assert seen.add(b"a", 0.0)
    assert seen.add(b"b", 100.0)
    assert b"a" in seen and b"b" in seen and b"c" not in seen
    seen.add(b"c", 239.9)
    assert b"a" in seen
    seen.add(b"d", 240.0)
    assert b"a" not in seen and b"b" in seen and len(seen) == 3


def test_a_full_memory_lets_nothing_in_and_forgets_nothing_early() -> None:
    seen = Seen(100, 240.0)
    for number in range(100):
        assert seen.add(number.to_bytes(2, "big"), number / 10)
    assert not seen.add(b"new", 239.0)
    assert b"new" not in seen and len(seen) == 100
    assert all(number.to_bytes(2, "big") in seen for number in range(100))
    assert seen.add(b"new", 240.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 50)), max_size=80))
def test_the_memory_is_that_of_a_plain_list(steps: list[tuple[int, float]]) -> None:
    seen, plain, now = Seen(20, 60.0), dict[bytes, float](), 0.0
    for key_number, passed in steps:
        now += passed
        key = bytes((key_number,))
        if key in seen:
            assert key in plain
            continue
        plain = {kept: then for kept, then in plain.items() if now - then < 60.0}
        assert seen.add(key, now) == (len(plain) < 20)
        if len(plain) < 20:
            plain[key] = now
        assert len(seen) == len(plain) and all(kept in seen for kept in plain)
