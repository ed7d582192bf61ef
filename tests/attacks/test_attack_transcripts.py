"""Providers that commit to something else than they computed, or open something else than they committed to.
Each is a real one, changed in one place, and its user audits the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app import convicting, opened, transcripts
from infraxa.app.transcripts import Written
from infraxa.engine import transcript
from infraxa.engine.transcript import LEAF_BYTES, Leaf, Tree
from infraxa.engine.types import FinishReason, Request, Sampling, Verified
from infraxa.net import audits, wire
from infraxa.net.customers import Customer
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.orders import CHECKPOINT
from infraxa.store import earnings, tabs
from tests.app.auditing import auditing, in_module
from tests.attacks import report
from tests.attacks.cheats import Spoken, ending, opening, rewriting
from tests.attacks.den import (
    HOT,
    NO_CHECKPOINTS,
    NO_END,
    NO_FILE,
    NO_LEAVES,
    NO_PATHS,
    NO_REASON,
    NO_RECEIPT,
    NO_ROOT,
    NO_TEXT,
    NO_TOKENS,
    NO_TRUE_END,
    SHORT,
    WARM,
    Attack,
    Cheat,
    Den,
    Part,
    came,
    carry_out,
    den,
)
from tests.attacks.target import replaced

COLD: Final = replace(WARM, temperature=0.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cheat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Den]:
    async with den(tmp_path_factory.mktemp("den")) as made:
        yield made


# What is committed to.


def leaves(cheat: Den, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Cheat:
    """It commits to others than those of its answer."""
    return rewriting(cheat, lambda request, one: one._replace(leaves=change(one.leaves)))


def zeros(cheat: Den) -> Cheat:
    """Bytes of nothing but zero, and in its receipt the tokens that were said."""
    said = dict[bytes, list[int]]()

    def change(request: Request, one: Spoken) -> Spoken:
        assert request.verified is not None
        said[request.verified.salt] = one.tokens
        return one._replace(leaves=(bytes(LEAF_BYTES),) * len(one.leaves))

    def output(salt: bytes, tokens: Any) -> bytes:
        return transcript.output_hash(salt, said[salt])

    return both(rewriting(cheat, change), replaced((transcripts, "output_hash", output)))


@contextmanager
def both(one: Cheat, other: Cheat) -> Iterator[None]:
    with one, other:
        yield


class NoTree(Tree):
    """Over nothing: its leaves can be made when they are asked for."""

    def append(self, leaf: bytes) -> None:
        super().append(bytes(LEAF_BYTES))


def doubled(step: int) -> Callable[[Den], Cheat]:
    """A leaf is there twice, and the tree has one more."""

    def change(all_: tuple[bytes, ...]) -> tuple[bytes, ...]:
        at = min(step, len(all_) - 1)
        return (*all_[:at], all_[at], *all_[at:])

    return lambda cheat: leaves(cheat, change)


def flagged(cheat: Den) -> Cheat:
    """It goes on after a token that ends the answer."""

    def change(all_: tuple[bytes, ...]) -> tuple[bytes, ...]:
        at = (len(all_) - 1) // 2
        return (*all_[:at], _with(all_[at], flags=transcript.EOS), *all_[at + 1 :])

    return leaves(cheat, change)


def _with(leaf: bytes, **changed: Any) -> bytes:
    return transcript.encode_leaf(transcript.decode_leaf(leaf)._replace(**changed))


def cut(cheat: Den) -> Cheat:
    """It ends before the end, without a reason."""

    def change(request: Request, one: Spoken) -> Spoken:
        last = _last(one)
        return one._replace(leaves=one.leaves[: last + 1]).of(one.ids[: last + 1])

    return rewriting(cheat, change)


def _last(one: Spoken) -> int:
    """A step before the last one."""
    return max(0, min(8, len(one.leaves) - 2))


def ended(flag: int, outcome: FinishReason) -> Callable[[Den], Cheat]:
    """It ends before the end, and gives this reason."""

    def change(request: Request, one: Spoken) -> Spoken:
        last = _last(one)
        cut = one._replace(leaves=(*one.leaves[:last], _with(one.leaves[last], flags=flag)))
        return cut.of(one.ids[: last + 1])._replace(finished=replace(one.finished, reason=outcome))

    return lambda cheat: rewriting(cheat, change)


def other_ids(cheat: Den) -> Cheat:
    """The tokens that come are not those that it commits to; one of these does not come at all."""

    def change(request: Request, one: Spoken) -> Spoken:
        return one.of([1999 - token % 1000 for token in one.tokens[:-1]])

    return rewriting(cheat, change)


def other_text(cheat: Den) -> Cheat:
    """Right tokens, and beside them something else to read."""

    def change(request: Request, one: Spoken) -> Spoken:
        return one._replace(text=one.text.replace("provider", "sponsor", 1) + " Buy soap.")

    return rewriting(cheat, change)


def left_out(cheat: Den) -> Cheat:
    """Words in the middle do not come."""

    def change(request: Request, one: Spoken) -> Spoken:
        return one.of([*one.ids[:3], *one.ids[6:]])

    return rewriting(cheat, change)


def cut_short(cheat: Den) -> Cheat:
    """Its last words do not come."""
    return rewriting(cheat, lambda request, one: one.of(one.ids[:-3]))


def rewritten(cheat: Den) -> Cheat:
    """A leaf is another one after the checkpoint of all that were before it."""
    honest = Written.end

    def end(self: Written, **given: Any) -> bytes | None:
        kept = self._leaves
        assert kept is not None
        made = [bytes(kept[at : at + LEAF_BYTES]) for at in range(0, len(kept), LEAF_BYTES)]
        if len(made) >= CHECKPOINT:
            leaf = transcript.decode_leaf(made[3])
            made[3] = transcript.encode_leaf(leaf._replace(q=(*leaf.q[:-1], leaf.q[-1] - 1)))
        self._leaves, self._tree = bytearray(b"".join(made)), Tree()
        for one in made:
            self._tree.append(one)
        return honest(self, **given)

    return replaced((Written, "end", end))


# What is opened.


def replayed(cheat: Den) -> Cheat:
    """What was opened of the first answer, of all after it too."""
    first: list[audits.Opening] = []

    def change(right: audits.Opening, request: wire.AuditPlease) -> audits.Opening:
        first.append(right)
        return first[0]

    return opening(cheat, change)


def forged(cheat: Den) -> Cheat:
    """Other logits than were committed to, with their paths."""

    def change(right: audits.Opening, request: wire.AuditPlease) -> audits.Opening:
        made = [transcript.decode_leaf(leaf) for leaf in right.leaves]
        lowered = [_lowered(leaf) for leaf in made]
        return replace(right, leaves=tuple(map(transcript.encode_leaf, lowered)))

    return opening(cheat, change)


def _lowered(leaf: Leaf) -> Leaf:
    """Its last candidate is a little less likely."""
    return leaf._replace(q=(*leaf.q[:-1], leaf.q[-1] - 1))


def other_steps(cheat: Den) -> Cheat:
    """All that it would rather show."""
    lies = leaves(
        cheat,
        lambda all_: tuple(
            transcript.encode_leaf(_worse(transcript.decode_leaf(leaf))) if step >= audits.OPENED else leaf
            for step, leaf in enumerate(all_)
        ),
    )

    async def audit(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        data = await cheat.real.shop.provider.till.transcripts.audit(customer, replace(request, all=True))
        assert isinstance(data, bytes)
        every = audits.decode(data)
        if len(every.leaves) <= audits.OPENED:
            return data
        tree, first = Tree(), audits.OPENED
        for leaf in every.leaves:
            tree.append(leaf)
        return audits.encode(
            audits.Opening(
                every.tokens,
                every.leaves[:first],
                tuple(b"".join(tree.path(step)) for step in range(first)),
                root=tree.root(),
            )
        )

    return both(lies, replaced((cheat.real.shop.customers, "auditor", audit)))


def _worse(leaf: Leaf) -> Leaf:
    """As of another model, with the same likeliest token."""
    return leaf._replace(q=(leaf.q[0], *(q - 2000 for q in leaf.q[1:])))


_ask, _check = audits.ask, opened.check


async def _ask_kindly(*given: Any) -> audits.Opening:
    try:
        return await _ask(*given)
    except ProtocolError:
        raise NetError("unreachable", "Nothing came.") from None


def _check_what_came(kept: Any, receipt: Any, opening: audits.Opening, steps: Any) -> opened.Shown:
    shown = [transcript.decode_leaf(leaf).step for leaf in opening.leaves]
    return _check(kept, receipt, opening, shown)


ANY_ANSWER: Final[Part] = (audits, "ask", _ask_kindly)
"""What is no opening is none."""
ANY_STEPS: Final[Part] = (opened, "check", _check_what_came)
BAD_OPENING: Final = ("failed", "bad_opening")
WRONG_LEAF: Final = ("failed", "wrong_leaf")
WRONG_END: Final = ("failed", "wrong_end")

ATTACKS: Final = (
    Attack("leaves all zero", zeros, WRONG_LEAF, (NO_LEAVES, NO_TOKENS, NO_END, NO_FILE), "wrong_leaf"),
    Attack(
        "a tree over nothing",
        lambda cheat: replaced((transcripts, "Tree", NoTree)),
        BAD_OPENING,
        (NO_PATHS,),
    ),
    Attack(
        "the last leaf twice",
        doubled(-1),
        WRONG_LEAF,
        (NO_LEAVES, NO_TOKENS, NO_END, NO_FILE),
        "wrong_leaf",
        sampling=SHORT,
    ),
    Attack(
        "a leaf in the middle twice",
        doubled(5),
        WRONG_LEAF,
        (NO_LEAVES, NO_TOKENS, NO_END, NO_FILE),
        "wrong_leaf",
    ),
    Attack("on after its end", flagged, WRONG_END, (NO_END,), "wrong_end", sampling=SHORT),
    Attack("an end without a reason", cut, WRONG_END, (NO_END,), "wrong_end", sampling=SHORT),
    Attack(
        "another end than its receipt says",
        ended(transcript.EOS, "length"),
        WRONG_END,
        (NO_END, NO_TRUE_END),
        "wrong_end",
        sampling=SHORT,
    ),
    Attack(
        "an end by a token that ends nothing",
        ended(transcript.EOS, "stop"),
        WRONG_END,
        (NO_TRUE_END,),
        sampling=SHORT,
    ),
    Attack(
        "an end for want of room that there is",
        ended(transcript.LENGTH, "length"),
        WRONG_END,
        (NO_REASON, NO_TRUE_END),
        sampling=SHORT,
    ),
    Attack(
        "an end by a string that nobody asked for",
        ended(transcript.STOP, "stop"),
        WRONG_END,
        (NO_REASON, NO_TRUE_END),
        sampling=SHORT,
    ),
    Attack(
        "an end by a string that is not there",
        ended(transcript.STOP, "stop"),
        WRONG_END,
        (NO_TRUE_END,),
        sampling=replace(SHORT, stop=("\x00",)),
    ),
    Attack("other tokens than it commits to", other_ids, BAD_OPENING, (NO_TOKENS, NO_TEXT)),
    Attack("another text than its tokens have", other_text, ("failed", "other_text"), (NO_TEXT,)),
    Attack("words left out", left_out, ("failed", "other_text"), (NO_TEXT,)),
    Attack("the last words left out", cut_short, ("failed", "other_text"), (NO_TEXT,)),
    Attack("changed after a checkpoint", rewritten, BAD_OPENING, (NO_CHECKPOINTS,), long=True),
    Attack(
        "an empty opening",
        lambda cheat: opening(cheat, lambda right, request: audits.Opening(b"", ())),
        BAD_OPENING,
        (ANY_ANSWER,),
    ),
    Attack(
        "an opening of another answer",
        replayed,
        BAD_OPENING,
        (NO_ROOT, NO_LEAVES, NO_TOKENS),
        sampling=COLD,
        honest=1,
    ),
    Attack("a forged opening", forged, BAD_OPENING, (NO_PATHS,)),
    # It ends by its length, so that nothing but the steps is wrong.
    Attack(
        "other steps than were asked for",
        other_steps,
        BAD_OPENING,
        (ANY_STEPS,),
        sampling=replace(COLD, max_tokens=32),
        longer_than=audits.OPENED,
    ),
)


@in_module
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_what_was_not_committed_to_as_it_was_computed(
    cheat: Den, tmp_path: Path, attack: Attack
) -> None:
    await carry_out(cheat, tmp_path, attack)


@in_module
@pytest.mark.parametrize(
    ("steps", "sampling"),
    [*((n, WARM) for n in (1, 7, 17, 33)), (67, HOT)],
)
async def test_an_honest_tree_of_any_size_passes(
    cheat: Den, tmp_path: Path, steps: int, sampling: Sampling
) -> None:
    async with auditing(cheat.real, tmp_path) as user:
        user.auditor.automatic = False
        while not user.verdicts or user.verdicts[-1].steps != steps:  # how long a hot one is, is chance
            before = len(user.verdicts)
            assert before < 40
            await user.answer(sampling=replace(sampling, max_tokens=steps))
            await user.signed(before)
        before = len(user.verdicts)
        await user.auditor.audit(user.place)
        verdict = await user.ended(before)
        assert verdict.state == "passed" or (verdict.why == "few" and steps < 16), verdict
        assert user.drivers.choose(user.nodes()) is not None and not user.published


def ground(cheat: Den) -> Cheat:
    """Its half of the draw is chosen after that of its user is known, and only its receipt says so."""
    half = bytes(32)
    honest = Written.begin

    def begin(self: Written, prompt: Any, profile: str) -> Verified:
        committed, self._draw = self._draw, half
        verified = honest(self, prompt, profile)
        self._draw = committed
        return verified

    said = ending(lambda it: replace(it, draw_p=half))
    return both(replaced((Written, "begin", begin)), said)


def nothing(cheat: Den) -> Cheat:
    zero = bytes(32)
    return ending(lambda it: replace(it, ctx0=zero, root=zero, output=zero))


@in_module
@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("another half of the draw", ground),
        ("the other half of the draw", lambda cheat: ending(lambda it: replace(it, draw_u=bytes(32)))),
        ("all zero", nothing),
    ],
)
async def test_a_receipt_of_something_else_is_not_signed(
    cheat: Den, tmp_path: Path, name: str, lie: Callable[[Den], Cheat]
) -> None:
    with lie(cheat), replaced(NO_RECEIPT):
        weak = await came(cheat, tmp_path / "weak", SHORT, until=["undetermined"])
    (ours := tmp_path / "ours").mkdir()
    with lie(cheat):
        async with auditing(cheat.real, ours) as user:
            await user.answer(sampling=SHORT)
            assert "transcript" in await user.note()
            assert not await user.store.run(earnings.list_receipts, "user") and not user.verdicts
            assert (await user.store.run(tabs.get_tab, "user", user.id)).owed == 0
    report.tell(f"inference: a receipt with {name}", weakened=f"signed, then {weak.said}", ours="not signed")


@in_module
async def test_whoever_refuses_to_open_is_asked_for_less(cheat: Den, tmp_path: Path) -> None:
    async def audit(customer: Customer, request: wire.AuditPlease) -> wire.Failure:
        return wire.Failure("audit_refused")

    async def observed(*given: object) -> None: ...

    refused = (cheat.real.shop.customers, "auditor", audit)
    with replaced(refused, (convicting.Parts, "observed", property(lambda self: observed))):
        weak = await came(cheat, tmp_path / "weak", WARM, tries=3)
    with replaced(refused):
        ours = await came(cheat, tmp_path / "ours", WARM, tries=3)
    assert ours.said == weak.said == ("undetermined", "silent") and not ours.kind and not ours.excluded
    assert weak.success is not None and ours.success is not None
    assert weak.success > 0.9 and ours.success < 0.7
    report.tell(
        "inference: refuses to open, 3 times",
        weakened=f"success {weak.success:.2f}",
        ours=f"silent, success {ours.success:.2f}",
    )
