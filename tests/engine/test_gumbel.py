"""The draw of a token: the same numbers as a second implementation, the right frequencies, and no other token
passes for the drawn one."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infraxa.engine import gumbel
from infraxa.engine.gumbel import Draw, choose, draw_of, is_chosen, noise, seed_of
from infraxa.engine.transcript import quantised

VECTORS: Any = json.loads((Path(__file__).parent / "vectors" / "transcript.json").read_text())
DRAWS = [Draw(*one["draw"]) for one in VECTORS["draws"]]
SEED = bytes.fromhex(VECTORS["noise"]["seed"])

candidates = st.lists(
    st.tuples(st.integers(-(1 << 18), 1 << 18), st.integers(0, 1 << 17)), min_size=1, max_size=64
)
ppm = st.integers(0, 1_000_000)
draws = st.builds(draw_of, st.integers(0, 3_000_000), st.integers(0, 70), ppm, ppm)


def ordered(pairs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Ids and logits as a leaf has them."""
    by_id = {token: q for q, token in pairs}
    best = sorted((-q, token) for token, q in by_id.items())
    return [token for _, token in best], [-q for q, _ in best]


@pytest.mark.parametrize("row", VECTORS["rows"])
def test_the_tokens_are_those_of_the_second_implementation(row: Any) -> None:
    ids, q = quantised(np.frombuffer(base64.b64decode(row["logits"]), np.float32))
    assert (ids.tolist(), q.tolist()) == (row["ids"], row["q"])
    for draw, tokens, kept in zip(DRAWS, row["tokens"], row["kept"], strict=True):
        assert [choose(ids, q, draw, SEED, step) for step in range(6)] == tokens
        assert [choose(row["ids"], row["q"], draw, SEED, step) for step in range(6)] == tokens
        assert all(is_chosen(token, ids, q, draw, SEED, step) for step, token in enumerate(tokens))
        assert not draw.inv_t or gumbel._kept(row["q"], draw) == kept


def test_seeds_noise_and_draws_are_those_of_the_second_implementation() -> None:
    named = VECTORS["seed"]
    values = {name: bytes.fromhex(value) for name, value in named.items()}
    assert seed_of(values["order"], values["r_u"], values["r_p"], values["request_hash"]) == values["seed"]
    vector = VECTORS["noise"]
    assert noise(SEED, vector["step"], vector["ids"]) == vector["noise"]
    for one, draw in zip(VECTORS["draws"], DRAWS, strict=True):
        assert draw_of(*one["ppm"]) == draw


def test_settings_at_their_ends() -> None:
    assert draw_of(0, 40, 950_000, 50_000).inv_t == 0
    assert [draw_of(ppm, 0, 0, 0).inv_t for ppm in (8_388_608, 8_388_607)] == [7812, 7813], "7812.5 and more"
    assert draw_of(1_000_000, 0, 0, 0).top_k == draw_of(1_000_000, 65, 0, 0).top_k == 64
    likeliest, next_ = [9, 4], [8000, 7999]
    for only_one in (draw_of(1_000_000, 0, 0, 0), draw_of(1_000_000, 1, 1_000_000, 0)):
        assert {choose(likeliest, next_, only_one, SEED, step) for step in range(50)} == {9}
    # min-p of 1 leaves what is as likely as the likeliest.
    all_alike = draw_of(1_000_000, 0, 1_000_000, 1_000_000)
    assert {choose([9, 4, 2], [8000, 8000, 7000], all_alike, SEED, step) for step in range(50)} == {9, 4}


@given(st.integers(0, (1 << 22) - 1))
def test_the_exponential_in_integers_is_one(x: int) -> None:
    assert gumbel._exp(x) == pytest.approx(math.exp(-x / 65536) * (1 << 30), abs=20)


@given(candidates, draws)
def test_top_k_min_p_and_top_p_leave_what_they_say(pairs: list[tuple[int, int]], draw: Draw) -> None:
    _, q = ordered(pairs)
    n = gumbel._kept(q, draw)
    assert 1 <= n <= min(len(q), draw.top_k)
    if not draw.inv_t:
        return
    weights = [math.exp((v - q[0]) / 4096 * draw.inv_t / 65536) for v in q[: draw.top_k]]
    least = math.exp(-draw.min_p / 65536) if draw.min_p else 0.0
    slack = 1e-3
    if draw.min_p:
        assert all(w > least * (1 - slack) for w in weights[:n])
        weights = [w for w in weights if w > least * (1 + slack)] or weights[:1]
    if draw.top_p < 1 << 30:
        before, top_p = sum(weights[: n - 1]), draw.top_p / (1 << 30)
        assert n == 1 or before <= top_p * sum(weights) * (1 + slack) + slack


def test_tokens_are_as_frequent_as_they_are_likely() -> None:
    ids, q, draw = [3, 1, 7, 0], [8192, 4096, 0, -4096], draw_of(1_000_000, 0, 1_000_000, 0)
    drawn = 20_000
    counts = Counter(choose(ids, q, draw, SEED, step) for step in range(drawn))
    total = sum(math.exp(v / 4096) for v in q)
    for token, v in zip(ids, q, strict=True):
        assert counts[token] / drawn == pytest.approx(math.exp(v / 4096) / total, abs=0.012)


@given(candidates, draws, st.binary(min_size=32, max_size=32), st.integers(0, (1 << 32) - 1))
def test_only_the_chosen_one_passes(pairs: list[tuple[int, int]], draw: Draw, seed: bytes, step: int) -> None:
    ids, q = ordered(pairs)
    token = choose(ids, q, draw, seed, step)
    assert is_chosen(token, ids, q, draw, seed, step)
    passing = [one for one in ids if is_chosen(one, ids, q, draw, seed, step)]
    if len(passing) > 1:
        g = dict(zip(ids, noise(seed, step, ids), strict=True))
        score = {one: v * draw.inv_t + (g[one] << 12) for one, v in zip(ids, q, strict=True)}
        assert max(score[token] - score[one] for one in passing) <= gumbel.TOLERANCE
    assert not is_chosen(max(ids) + 1, ids, q, draw, seed, step)


def test_another_seed_step_or_temperature_draws_others() -> None:
    ids, q = list(range(64)), sorted(range(0, 6400, 100), reverse=True)
    draw = draw_of(800_000, 0, 1_000_000, 0)
    right = [choose(ids, q, draw, SEED, step) for step in range(200)]
    other = bytes(32)
    colder = draw_of(400_000, 0, 1_000_000, 0)
    assert sum(is_chosen(t, ids, q, draw, other, s) for s, t in enumerate(right)) < 40
    assert sum(is_chosen(t, ids, q, draw, SEED, s + 1) for s, t in enumerate(right)) < 40
    assert sum(is_chosen(t, ids, q, colder, SEED, s) for s, t in enumerate(right)) < 190


def test_what_logarithms_differ_by_is_tolerated_and_no_more() -> None:
    ids, draw = [5, 6], draw_of(1_000_000, 0, 1_000_000, 0)
    a, b = noise(SEED, 0, ids)
    # In units of 2^-12 times 2^-16: the second is level with the first.
    level = Draw(1, 64, 0, 1 << 30)
    gap = (a - b) << 12
    assert draw.inv_t == 65536
    q = [0, gap] if gap <= 0 else [gap, 0]
    tokens = [5, 6] if gap <= 0 else [6, 5]
    assert is_chosen(5, tokens, q, level, SEED, 0) and is_chosen(6, tokens, q, level, SEED, 0)
    assert choose(tokens, q, level, SEED, 0) == 5, "the lowest of what is level"
    least = tokens[1]
    q[1] -= gumbel.TOLERANCE
    assert is_chosen(least, tokens, q, level, SEED, 0)
    q[1] -= 1
    assert not is_chosen(least, tokens, q, level, SEED, 0)
