"""Transcripts: the bytes of the format, Certificate Transparency's own proofs, and nothing else passes for an
opening."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.engine.transcript import (
    LEAF_BYTES,
    Leaf,
    Tree,
    challenge,
    committed,
    ctx0,
    ctx_next,
    decode_leaf,
    encode_leaf,
    leaf_tag,
    output_hash,
    quantised,
    verify_consistency,
    verify_path,
)
from infraxa.engine.types import EngineError

VECTORS: Any = json.loads((Path(__file__).parent / "vectors" / "transcript.json").read_text())

# The leaves, roots and proofs of Certificate Transparency's own tests.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_PATHS: dict[tuple[int, int], list[str]] = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CT_CONSISTENCY: dict[tuple[int, int], list[str]] = {
    (1, 1): [],
    (1, 8): CT_PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}

sizes = st.integers(1, 80) | st.sampled_from([127, 128, 129, 255, 300])
salts = st.binary(min_size=32, max_size=32)


def leaf_of(i: int) -> bytes:
    return struct.pack("<I", i) * 3


def grown(n: int, leaf: Callable[[int], bytes] = leaf_of) -> Tree:
    tree = Tree()
    for i in range(n):
        tree.append(leaf(i))
    return tree


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\1" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


def a_leaf(**changed: Any) -> Leaf:
    q = tuple(range(6400, 0, -100))
    leaf = Leaf(b"o" * 16, 5, b"c" * 32, 12, 0, tuple(range(10, 74)), q, b"t" * 16)
    return leaf._replace(**changed)


def test_the_published_roots_and_proofs_come_out() -> None:
    tree = Tree()
    assert tree.root() == sha256().digest()
    for n, leaf in enumerate(CT_LEAVES, 1):
        tree.append(leaf)
        assert tree.n == n and tree.root().hex() == CT_ROOTS[n - 1]
    for (step, n), expected in CT_PATHS.items():
        path = tree.path(step, n)
        assert [node.hex() for node in path] == expected
        assert verify_path(CT_LEAVES[step], step, n, path, bytes.fromhex(CT_ROOTS[n - 1]))
    for (m, n), expected in CT_CONSISTENCY.items():
        proof = tree.consistency(m, n)
        assert [node.hex() for node in proof] == expected
        root_m, root_n = (bytes.fromhex(CT_ROOTS[size - 1]) for size in (m, n))
        assert verify_consistency(m, n, root_m, root_n, proof)


@pytest.mark.parametrize("one", VECTORS["trees"], ids=lambda one: one["n"])
def test_trees_are_those_of_the_second_implementation(one: Any) -> None:
    tree = grown(one["n"])
    assert tree.root().hex() == one["root"]
    assert committed(one["n"], tree.root()).hex() == one["committed"]
    assert [node.hex() for node in tree.path(one["step"])] == one["path"]


@given(sizes, st.data())
def test_any_step_of_any_answer_can_be_opened(n: int, data: st.DataObject) -> None:
    tree = grown(n)
    m = data.draw(st.integers(1, n))
    assert tree.root(m) == by_definition([leaf_of(i) for i in range(m)])
    step = data.draw(st.integers(0, m - 1))
    path = tree.path(step, m)
    assert verify_path(leaf_of(step), step, m, path, tree.root(m))
    assert len(path) <= (m - 1).bit_length()


@given(sizes, st.data())
def test_nothing_else_passes_for_an_opening(n: int, data: st.DataObject) -> None:
    tree = grown(n)
    step = data.draw(st.integers(0, n - 1))
    root, path = tree.root(), tree.path(step)
    other = data.draw(st.integers(-2, n + 2).filter(lambda i: i != step))
    assert not verify_path(leaf_of(step), other, n, path, root), "another step"
    assert not verify_path(leaf_of(n + 1), step, n, path, root), "another leaf"
    assert not verify_path(leaf_of(step), step, n, path, sha256(root).digest()), "another root"
    assert not verify_path(leaf_of(step), step, n, [*path, root], root), "more than the path"
    assert not verify_path(leaf_of(step), step, 2 * n, path, root), "less than the path"
    if path:
        i = data.draw(st.integers(0, len(path) - 1))
        assert not verify_path(leaf_of(step), step, n, path[:i] + path[i + 1 :], root)
        assert not verify_path(leaf_of(step), step, n, [*path[:i], b"x" * 32, *path[i + 1 :]], root)
        assert not verify_path(leaf_of(step), step, n, [*path[:i], path[i] + b"x", *path[i + 1 :]], root)
    # A node is no leaf: its bytes begin otherwise.
    if n == 2:
        nodes = b"".join(sha256(b"\0" + leaf_of(i)).digest() for i in range(2))
        assert not verify_path(nodes, 0, 1, [], root)


@given(sizes, st.data())
def test_the_length_is_committed_where_a_path_alone_would_fit_another(n: int, data: st.DataObject) -> None:
    root = grown(n).root()
    other = data.draw(st.integers(0, 400).filter(lambda i: i != n))
    assert committed(n, root) != committed(other, root)


@given(sizes, st.data())
def test_what_was_said_stays_said(n: int, data: st.DataObject) -> None:
    tree = grown(n)
    m = data.draw(st.integers(1, n))
    root_m, root_n, proof = tree.root(m), tree.root(), tree.consistency(m)
    assert verify_consistency(m, n, root_m, root_n, proof)
    changed = data.draw(st.integers(0, m - 1))
    rewritten = grown(n, lambda i: b"other" if i == changed else leaf_of(i))
    assert not verify_consistency(m, n, root_m, rewritten.root(), rewritten.consistency(m))
    assert not verify_consistency(m, n, root_m, rewritten.root(), proof)
    assert not verify_consistency(m, n, rewritten.root(m), root_n, proof)
    assert not verify_consistency(m, n, root_m, root_n, [*proof, root_m])
    assert not verify_consistency(0, n, sha256().digest(), root_n, [])
    assert not verify_consistency(n + 1, n, root_m, root_n, proof)
    assert not verify_consistency(m, 2 * n, root_m, root_n, proof)
    if proof:
        assert not verify_consistency(m, n, root_m, root_n, proof[:-1])
        assert not verify_consistency(m, n, root_m, root_n, [proof[0] + b"x", *proof[1:]])


def test_there_is_no_proof_of_what_is_not_there() -> None:
    tree = grown(5)
    for asked in (lambda: tree.path(5), lambda: tree.path(-1), lambda: tree.path(3, 3), lambda: tree.root(6)):
        with pytest.raises(IndexError):
            asked()
    for m, n in ((0, 5), (4, 3), (3, 6)):
        with pytest.raises(IndexError):
            tree.consistency(m, n)


@pytest.mark.parametrize("one", VECTORS["challenges"], ids=lambda one: f"{one['k']} of {one['n']}")
def test_challenges_are_the_last_step_and_those_of_the_second_implementation(one: Any) -> None:
    """Which draws them all, without the last one as given."""
    secret, root, order = (bytes.fromhex(one[name]) for name in ("secret", "root", "order"))
    n, k = one["n"], one["k"]

    def drawn(found: set[int]) -> list[int]:
        counter = 0
        while len(found) < min(n, k):
            said = b"infraxa/audit/1" + secret + root + order + counter.to_bytes(4, "little")
            value = int.from_bytes(sha256(said).digest()[:8], "big")
            if value < 2**64 - 2**64 % n:
                found |= {value % n}
            counter += 1
        return sorted(found)

    assert drawn(set()) == one["steps"]
    assert challenge(secret, root, order, n, k) == drawn({n - 1} if min(n, k) else set())


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2000), st.integers(0, 64))
def test_a_challenge_is_of_different_steps_in_order(secret: bytes, n: int, k: int) -> None:
    steps = challenge(secret, bytes(32), bytes(16), n, k)
    assert steps == sorted(set(steps)) and len(steps) == min(n, k)
    assert all(0 <= step < n for step in steps)
    assert not steps or steps[-1] == n - 1, "how it ended is always seen"


def test_each_secret_asks_for_others() -> None:
    asked = {tuple(challenge(bytes([i]) * 32, bytes(32), bytes(16), 1000, 4)) for i in range(50)}
    assert len(asked) == 50


def test_a_leaf_is_that_of_the_second_implementation() -> None:
    one = VECTORS["leaf"]
    salt, order = bytes.fromhex(one["salt"]), bytes.fromhex(one["order"])
    first = ctx0(salt, one["prompt"])
    assert first.hex() == one["ctx0"]
    ctx = ctx_next(first, 9)
    assert ctx.hex() == one["after_9"]
    row = VECTORS["rows"][one["row"]]
    leaf = Leaf(
        order,
        one["step"],
        ctx,
        one["token"],
        one["flags"],
        tuple(row["ids"]),
        tuple(row["q"]),
        leaf_tag(salt, one["step"]),
    )
    assert encode_leaf(leaf).hex() == one["leaf"]
    assert decode_leaf(encode_leaf(leaf)) == leaf
    assert len(encode_leaf(leaf)) == LEAF_BYTES == 591


@pytest.mark.parametrize(
    "changed",
    [
        {"flags": 3},
        {"flags": 8},
        {"ids": (10, 10, *range(12, 74))},
        {"q": (100, 200, *range(6200, 0, -100))},
        {"q": (6400, 6400, *range(6200, 0, -100)), "ids": (11, 10, *range(12, 74))},
        {"q": (*range(6400, 100, -100), -(1 << 31))},
    ],
)
def test_what_no_honest_driver_commits_to_is_no_leaf(changed: dict[str, Any]) -> None:
    assert decode_leaf(encode_leaf(a_leaf())) == a_leaf()
    with pytest.raises(ValueError):
        decode_leaf(encode_leaf(a_leaf(**changed)))


@pytest.mark.parametrize(
    "changed",
    [
        {"order": b"o" * 15},
        {"ctx": b"c" * 33},
        {"tag": b""},
        {"ids": (1,)},
        {"ids": (), "q": ()},
        {"token": -1},
        {"step": 1 << 32},
        {"flags": 256},
    ],
)
def test_what_does_not_fit_is_not_written(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        encode_leaf(a_leaf(**changed))


@given(st.integers(0, LEAF_BYTES - 1), st.integers(1, 255))
def test_every_byte_of_a_leaf_says_something(place: int, by: int) -> None:
    data = bytearray(encode_leaf(a_leaf()))
    data[place] ^= by
    try:
        leaf = decode_leaf(bytes(data))
    except ValueError:
        return
    assert leaf != a_leaf() and encode_leaf(leaf) == data


@given(st.binary(max_size=700))
def test_any_bytes_are_no_leaf(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_leaf(data)


@given(salts, salts, st.lists(st.integers(0, (1 << 32) - 1), max_size=20))
def test_what_is_hashed_depends_on_the_salt_and_on_every_token(
    salt: bytes, other: bytes, tokens: list[int]
) -> None:
    for hashed in (output_hash, ctx0):
        assert hashed(salt, tokens) != hashed(salt, [*tokens, 0])
        assert (hashed(salt, tokens) == hashed(other, tokens)) == (salt == other)
        if tokens:
            assert hashed(salt, [tokens[0] ^ 1, *tokens[1:]]) != hashed(salt, tokens)
    assert (
        output_hash(salt, tokens)
        == sha256(b"infraxa/output/1" + salt + b"".join(t.to_bytes(4, "little") for t in tokens)).digest()
    )


def likeliest(row: Any) -> tuple[list[int], list[int]]:
    """By sorting all of them."""
    most = (1 << 31) - 1
    q = [max(-most, min(most, round(float(x) * 4096))) for x in row]
    best = sorted(range(len(q)), key=lambda i: (-q[i], i))[:64]
    return best, [q[i] for i in best]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([1, 63, 64, 65, 500, 8192, 8193, 10_000, 10_241, 20_000]),
    st.sampled_from([1e-5, 1e-3, 0.3, 3.0, 1e3, 1e5, 1e6]),
    st.integers(0, 1 << 32),
)
def test_the_likeliest_are_found_in_order(n: int, spread: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    row = (random.standard_normal(n) * spread).astype(np.float32)
    if seed % 2:  # many equal ones
        row = np.round(row * (4 / spread)).astype(np.float32) / np.float32(4096)
    if seed % 3 == 0:  # the likeliest together, at the end
        row = np.sort(row)
    ids, q = quantised(row)
    assert (ids.tolist(), q.tolist()) == likeliest(row)
    assert (ids.dtype.name, q.dtype.name) == ("uint32", "int32")


@pytest.mark.parametrize("n", [100, 10_000])
def test_all_equal_logits_go_by_their_ids(n: int) -> None:
    for value in (0.0, -1e30, 1e30, 2.5):
        ids, _ = quantised(np.full(n, value, np.float32))
        assert ids.tolist() == list(range(64))
    # What is less than an integer can be is equal, too.
    ids, q = quantised(np.linspace(-2e6, -1e6, n, dtype=np.float32))
    assert ids.tolist() == list(range(64)) and set(q.tolist()) == {-(1 << 31) + 1}


@pytest.mark.parametrize("n", [64, 10_000])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_no_answer(n: int, bad: float) -> None:
    row = np.linspace(-9, 9, n, dtype=np.float32)
    for place in (0, n // 2, n - 1):
        spoilt = row.copy()
        spoilt[place] = bad
        with pytest.raises(EngineError, match="finite") as caught:
            quantised(spoilt)
        assert caught.value.code == "compute_failed"
    for many in (n // 2, n):
        row[:many] = bad
        with pytest.raises(EngineError):
            quantised(row)
