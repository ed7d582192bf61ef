"""Proofs that a driver lied: every lie has one, no change of one holds, and no honest answer has any."""

from __future__ import annotations

import base64
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.app import fraud
from infraxa.app.fraud import Fraud, Opened, checked, guilty, made
from infraxa.engine import gumbel, transcript
from infraxa.engine.transcript import Leaf, Tree, encode_leaf
from infraxa.net import codec, deals, wire
from infraxa.net.errors import NetError, ProtocolError
from tests.app.lies import (
    ACCOUNT,
    DRIVER,
    ENDLESS,
    FORGER,
    LIAR,
    ORDER,
    OTHER_DRIVER,
    SECOND,
    STARTED,
    Ran,
    run,
)

WRONG_TOKEN = made(LIAR.receipt, order=LIAR.order, opened=LIAR.opened(17))
WRONG_LEAF = made(FORGER.receipt, opened=FORGER.opened(5))
WRONG_END = made(ENDLESS.receipt, order=ENDLESS.order, opened=ENDLESS.opened(11))
TWO_RECEIPTS = made(LIAR.receipt, other=SECOND)
PROOFS = [WRONG_TOKEN, WRONG_LEAF, WRONG_END, TWO_RECEIPTS]
KINDS = ["wrong_token", "wrong_leaf", "wrong_end", "two_receipts"]


def proves_nothing(ran: Ran, step: int) -> str:
    """Why the opened step is no fraud."""
    with pytest.raises(NetError) as failed:
        made(ran.receipt, order=ran.order, opened=ran.opened(step))
    assert failed.value.code == "bad_proof"
    return failed.value.message


def test_a_token_that_the_committed_logits_do_not_choose() -> None:
    assert checked(WRONG_TOKEN) == Fraud(
        "wrong_token", DRIVER.id, ACCOUNT.id, ORDER.id, ORDER.model, STARTED + 2_000, 17, 7
    )
    assert "Token 18 " in fraud.told(checked(WRONG_TOKEN))
    assert "the right one" in proves_nothing(LIAR, 16)


def test_what_is_no_leaf_of_this_answer() -> None:
    assert checked(WRONG_LEAF)[:2] == ("wrong_leaf", DRIVER.id) and checked(WRONG_LEAF).step == 5
    honest, other = run(), run(order=replace(ORDER, id=b"\x01" * 16))
    for step, leaf in ((3, honest.leaves[4]), (3, other.leaves[3]), (3, b"x"), (3, honest.leaves[3][:-1])):
        cheat = run(leaves={step: leaf})
        assert checked(made(cheat.receipt, order=cheat.order, opened=cheat.opened(step))).kind == "wrong_leaf"


EOS, STOP, LENGTH = transcript.EOS, transcript.STOP, transcript.LENGTH


def test_an_end_that_is_none() -> None:
    assert checked(WRONG_END)[:2] == ("wrong_end", DRIVER.id) and checked(WRONG_END).step == 11
    assert "token 12." in fraud.told(checked(WRONG_END)) and "request" not in json.loads(WRONG_END)
    for outcome, flag in (("stop", 0), ("stop", LENGTH), ("length", 0), ("length", EOS), ("length", STOP)):
        cheat = run(flags={19: flag}, outcome=outcome)
        assert checked(made(cheat.receipt, order=cheat.order, opened=cheat.opened(19))).kind == "wrong_end"
    for outcome in ("stop", "length", "cancelled", "failed"):
        cheat = run(flags={3: LENGTH}, outcome=outcome)
        assert checked(made(cheat.receipt, order=cheat.order, opened=cheat.opened(3))).kind == "wrong_end"


def test_whoever_cancels_or_fails_may_end_anywhere() -> None:
    for outcome, flags in (
        ("stop", (EOS, STOP)),
        ("length", (LENGTH,)),
        ("cancelled", (0, EOS, STOP, LENGTH)),
        ("failed", (0, EOS, STOP, LENGTH)),
    ):
        for flag in flags:
            assert "the right one" in proves_nothing(run(flags={19: flag}, outcome=outcome), 19)


def test_two_receipts_for_one_answer_in_either_order() -> None:
    assert checked(TWO_RECEIPTS)[:2] == ("two_receipts", DRIVER.id) and checked(TWO_RECEIPTS).step is None
    assert made(SECOND, other=LIAR.receipt) == TWO_RECEIPTS


def test_a_proof_is_small_and_holds_no_message() -> None:
    ran = run(200_000 // 100, tokens={1_999: 60})
    text = made(ran.receipt, order=ran.order, opened=ran.opened(1_999))
    assert len(text) < 3_000 < wire.MAX_PROOF and text.isascii() and "\n" not in text
    assert set(json.loads(text)) == {
        "infraxa_proof", "kind", "provider", "order", "model", "receipt", "step", "leaf", "path", "root",
        "request",
    }  # fmt: skip


# No change holds.


@pytest.mark.parametrize("text", PROOFS, ids=KINDS)
def test_no_byte_can_be_another_one(text: str) -> None:
    rng = random.Random(7)
    for at, char in enumerate(text):
        other = chr((ord(char) + rng.randrange(1, 95) - 32) % 95 + 32)
        if other != char:
            with pytest.raises(NetError):
                checked(text[:at] + other + text[at + 1 :])


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PROOFS), st.integers(0, 3_000), st.integers(0, 40), st.text(max_size=6))
def test_nothing_can_be_left_out_or_put_in(text: str, at: int, left_out: int, put_in: str) -> None:
    changed = text[:at] + put_in + text[at + left_out :]
    if changed != text:
        with pytest.raises(NetError):
            checked(changed)


@settings(deadline=None, max_examples=200)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_garbage_is_refused_in_one_sentence(garbage: str) -> None:
    for text in (
        garbage,
        '{"infraxa_proof":' + garbage,
        '{"infraxa_proof":1,"kind":"wrong_token",' + garbage,
    ):
        with pytest.raises(NetError) as failed:
            checked(text)
        assert failed.value.code in ("bad_proof", "newer") and "\n" not in failed.value.message


def test_the_same_in_other_words_is_refused() -> None:
    for text in PROOFS:
        said = json.loads(text)
        swapped = {**said, "receipt": said.get("other", ""), "other": said["receipt"]}
        for other in (
            json.dumps(said),
            f" {text}",
            f"{text}\n",
            json.dumps({**said, "more": 1}, separators=(",", ":")),
            json.dumps(dict(reversed(said.items())), separators=(",", ":")),
            json.dumps(swapped, separators=(",", ":")),
        ):
            with pytest.raises(NetError):
                checked(other)


def test_parts_of_two_proofs_make_none() -> None:
    other = run(tokens={17: 62}, seed=2)
    spare = json.loads(made(other.receipt, order=other.order, opened=other.opened(17)))
    for name in ("receipt", "leaf", "path", "root"):
        mixed = {**json.loads(WRONG_TOKEN), name: spare[name]}
        with pytest.raises(NetError):
            checked(json.dumps(mixed, separators=(",", ":")))


def called(kind: str, ran: Ran, step: int) -> str:
    """A file that says this of an opened step, whether it is so or not."""
    said, opened = json.loads(WRONG_LEAF), ran.opened(step)
    for name, data in (
        ("receipt", codec.encode(ran.receipt)), ("leaf", opened.leaf), ("path", b"".join(opened.path)),
        ("root", opened.root), ("request", ran.order),
    ):  # fmt: skip
        said[name] = base64.b64encode(data).decode()
    if kind != "wrong_token":
        del said["request"]
    return json.dumps({**said, "kind": kind, "step": step}, separators=(",", ":"))


def test_a_lie_is_called_what_it_is() -> None:
    assert called("wrong_token", LIAR, 17) == WRONG_TOKEN and called("wrong_leaf", FORGER, 5) == WRONG_LEAF
    assert called("wrong_end", ENDLESS, 11) == WRONG_END
    for text, why in (
        (called("wrong_leaf", LIAR, 17), "is a leaf of this answer"),
        (called("wrong_leaf", run(), 17), "is a leaf of this answer"),
        (called("wrong_token", run(), 17), "the right one"),
        (called("wrong_token", FORGER, 5), "no sampling"),
        (called("wrong_end", run(), 19), "may end there"),
        (called("wrong_end", run(), 3), "may end there"),
        (called("wrong_end", FORGER, 5), "may end there"),
        (called("wrong_leaf", ENDLESS, 11), "is a leaf of this answer"),
    ):
        with pytest.raises(NetError, match=why):
            checked(text)


def test_one_that_is_too_long_is_not_read() -> None:
    cheat = run(leaves={3: bytes(wire.MAX_PROOF)})
    with pytest.raises(NetError, match="too long"):
        made(cheat.receipt, opened=cheat.opened(3))


# What is gossiped.


def test_who_is_guilty() -> None:
    assert [guilty(text.encode()) for text in PROOFS] == [DRIVER.id] * len(PROOFS)
    assert guilty(WRONG_TOKEN.encode()[:-1]) is None and guilty(b"\xff") is None and guilty(b"") is None
    for newer in ('{"infraxa_proof":2,', '{"infraxa_proof":1,'):
        text = WRONG_TOKEN.replace('{"infraxa_proof":1,', newer).replace("wrong_token", "wrong_mood")
        with pytest.raises(ProtocolError) as failed:
            guilty(text.encode())
        assert failed.value.reason == "version"


# No honest answer has one.

ppm = st.integers(0, 1_000_000)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32), st.integers(0, 5_000_000), st.integers(0, 2**31 - 1), ppm, ppm, st.integers(1, 9)
)
def test_an_honest_answer_has_no_proof(
    seed: int, temperature: int, top_k: int, top_p: int, min_p: int, steps: int
) -> None:
    order = replace(ORDER, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    honest = run(steps, order=order, seed=seed)
    for step in range(steps):
        assert "the right one" in proves_nothing(honest, step)
        with pytest.raises(NetError):
            made(honest.receipt, order=honest.order, opened=honest.opened(step)._replace(step=step + 1))


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_what_another_machines_logarithm_would_choose_has_none(seed: int) -> None:
    rng = random.Random(seed)
    ids, first = rng.sample(range(1_000), transcript.TOP), rng.randint(-9_000, 9_000)
    q = [first] * transcript.TOP
    ids.sort()
    order = replace(ORDER, top_p=1_000_000, min_p=0, top_k=64)
    encoded = codec.encode(order)
    request = deals.request_hash(encoded)
    draw = gumbel.draw_of(order.temperature, order.top_k, order.top_p, order.min_p)
    sampling = gumbel.seed_of(order.id, b"\1" * 32, b"\2" * 32, request)
    best = gumbel.choose(ids, q, draw, sampling, 0)
    # The logits are such that the second is as good as the first, but for a unit of the noise.
    noise = dict(zip(ids, gumbel.noise(sampling, 0, ids), strict=True))
    second = max((token for token in ids if token != best), key=noise.__getitem__)
    behind = (noise[best] - noise[second] - 1) * 4096 // draw.inv_t + 1
    pairs = sorted((-(first + behind * (token == second)), token) for token in ids)
    tokens, logits = tuple(token for _, token in pairs), tuple(-value for value, _ in pairs)
    for token in (best, second):
        if gumbel.is_chosen(token, tokens, logits, draw, sampling, 0):
            leaf = encode_leaf(Leaf(order.id, 0, bytes(32), token, EOS, tokens, logits, bytes(16)))
            ran = run(1, order=order, leaves={0: leaf})
            assert "the right one" in proves_nothing(ran, 0)


def test_a_user_cannot_make_one_of_what_it_asked_otherwise() -> None:
    honest = run()
    colder = codec.encode(replace(ORDER, temperature=1))
    with pytest.raises(NetError, match="another order"):
        made(honest.receipt, order=colder, opened=honest.opened(3))
    with pytest.raises(NetError, match="another order"):
        made(honest.receipt, opened=honest.opened(3))
    misnamed = codec.encode(replace(ORDER, id=b"\x05" * 16, temperature=1))
    unlike = deals.sign(replace(honest.said, request=deals.request_hash(misnamed)), DRIVER)
    with pytest.raises(NetError, match="another order"):
        made(unlike, order=misnamed, opened=honest.opened(3))
    forged = LIAR.opened(17)
    for opened in (
        forged,
        forged._replace(root=honest.tree.root()),
        forged._replace(path=honest.tree.path(17)),
    ):
        with pytest.raises(NetError, match="not what was signed"):
            made(honest.receipt, order=honest.order, opened=opened)
    with pytest.raises(NetError, match="nothing was opened"):
        made(honest.receipt)


def test_a_shorter_tree_or_another_number_of_steps_is_not_what_was_signed() -> None:
    honest = run(3)
    tree = Tree()
    for leaf in honest.leaves[:2]:
        tree.append(leaf)
    for opened in (
        Opened(honest.leaves[2], 3, honest.tree.path(2), honest.tree.root()),
        Opened(honest.leaves[1], 1, tree.path(1), tree.root()),
        Opened(honest.leaves[2], -1, honest.tree.path(2), honest.tree.root()),
        Opened(honest.leaves[2], 2, [*honest.tree.path(2), b"x"], honest.tree.root()),
    ):
        with pytest.raises(NetError):
            made(honest.receipt, order=honest.order, opened=opened)


def test_without_a_transcript_there_is_nothing_to_prove() -> None:
    none = run(order=replace(ORDER, mode="none"), tokens={4: 63})
    assert "no sampling was committed" in proves_nothing(none, 4)
    assert "no transcript" in proves_nothing(run(tokens={4: 63}, transcript=None), 4)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"seq": 8, "owed_before": 99},  # the tab moved on, after a backup
        {"charge": 0, "transcript": None, "outcome": "failed", "n_out": 0},  # it was cut off by an end
        {"started": STARTED + 1, "charge": 9},  # the number was used again
        {"order": b"\x02" * 16, "charge": 9},
        {"account": bytes(32), "charge": 9},
    ],
    ids=["same", "renumbered", "failed", "again", "order", "account"],
)
def test_what_an_honest_driver_may_sign_twice_is_no_fraud(changed: dict[str, object]) -> None:
    with pytest.raises(NetError) as failed:
        made(LIAR.receipt, other=deals.sign(replace(LIAR.said, **changed), DRIVER))
    assert failed.value.code == "bad_proof"


def test_a_receipt_of_another_driver_says_nothing_of_this_one() -> None:
    with pytest.raises(NetError, match="signature"):
        made(LIAR.receipt, other=deals.sign(replace(LIAR.said, charge=9), OTHER_DRIVER))
    with pytest.raises(NetError, match="signature"):
        made(replace(LIAR.receipt, signer=OTHER_DRIVER.id), order=LIAR.order, opened=LIAR.opened(17))
