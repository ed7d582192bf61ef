"""A real provider of which an attack changes one part, the users who audit what it sells, and what they find.

How an answer is made to lie is in cheats.py.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from infraxa.app import counting, ends, examining, fraud, opened, replaying
from infraxa.app.audit_history import AuditHistory
from infraxa.engine import gumbel, transcript
from infraxa.engine.host import Engine
from infraxa.engine.transcript import Leaf
from infraxa.engine.types import ChatMessage, LoadOptions, Sampling
from infraxa.engine.verdicts import Judged
from infraxa.net import customers
from infraxa.store import earnings
from infraxa.store.records import Verdict
from tests.app.auditing import ASKED, Audits, Real, auditing, real_provider
from tests.attacks import report
from tests.attacks.questions import question
from tests.attacks.target import replaced
from tests.bench._study_models import GUIDE, Models, Shape
from tests.bench.audit_study import rate

Cheat = AbstractContextManager[None]
Part = tuple[object, str, object]
"""Something weaker, as target.replaced takes it."""

LENGTH: Final = 48
"""Tokens of an answer, where the model does not end it."""
WARM: Final = Sampling(temperature=0.8, max_tokens=LENGTH)
HOT: Final = Sampling(temperature=5.0, top_k=20, top_p=1.0, min_p=0.0, max_tokens=LENGTH)
"""Every draw matters."""
SHORT: Final = replace(WARM, max_tokens=11)
"""All steps of it are opened at once."""
FEW_AT_MOST: Final = 6
"""Answers that are too short to be judged alone."""
RANDOM: Final = Shape("random 3M", 4, 256, 768)
"""It can be had in F16, and never ends an answer."""
USERS: Final = 3
"""Who ask at the same time: as many as the provider has slots."""
COPIED: Final = 20
"""Questions whose answers are copied."""


class Den:
    """A provider, honest until it is changed, and the cheap models beside it."""

    def __init__(self, real: Real, folder: Path, shape: Shape = GUIDE) -> None:
        self.real = real
        self.cheap = Engine(on_status=lambda status: None)
        self._models = Models(shape, folder)

    async def load(self, kind: str) -> None:
        """A cheap model, of a kind as _study_models.py has them."""
        await self.cheap.load(self._models.of(kind), LoadOptions(slots=1, threads=1, n_ctx=1024))


@asynccontextmanager
async def den(folder: Path, shape: Shape = GUIDE, kind: str = "Q8_0") -> AsyncIterator[Den]:
    """What it sells is of this shape and file type. Its provider opens as many answers as are asked for: all
    users here are of one network."""
    file = Models(shape, folder).of(kind) if shape.layers else None
    wide = [(customers, name, 1e9) for name in ("AUDITS_S", "AUDITS_BURST")]
    with replaced(*wide):
        async with real_provider(folder, file) as real:
            made = Den(real, folder, shape)
            try:
                yield made
            finally:
                await made.cheap.close()


class Came(NamedTuple):
    """What came of an answer that was sold."""

    verdict: Verdict
    kind: str
    """Of the proof that anybody can check; empty: there is none."""
    reversed: bool
    """All that was paid for it came back."""
    excluded: bool
    """Nothing is bought there any more."""
    told: bool
    """The proof went to others."""
    success: float | None
    """Of the driver, as it is seen now."""
    judged: int
    """Answers, with it."""

    @property
    def said(self) -> tuple[str, str]:
        return self.verdict.state, self.verdict.why


async def came(
    den: Den,
    folder: Path,
    sampling: Sampling,
    *,
    tries: int = 1,
    until: Sequence[str] = (),
    long: bool = False,
    said: tuple[ChatMessage, ...] = ASKED,
) -> Came:
    """What a new user finds out about a driver by `tries` answers, or fewer when one of them is in a state of
    `until`; those too short to be judged do not count. `long`: of one with a checkpoint."""
    os.mkdir(folder)
    judged = 0
    async with auditing(den.real, folder) as user:
        for _ in range(tries + FEW_AT_MOST):
            verdict = await (user.verdict_of_long(said) if long else user.verdict(said, sampling))
            judged += verdict.why != "few"
            if verdict.state in until or judged >= tries:
                break
        return await _known(user, verdict, judged)


async def _known(user: Audits, verdict: Verdict, judged: int) -> Came:
    kind = ""
    if proof := await user.convicting.proof_of(verdict.order):
        found = fraud.checked(proof)
        assert (found.provider, found.order.hex()) == (user.id, verdict.order)
        assert fraud.guilty(proof.encode()) == user.id
        kind = found.kind
    assert bool(kind) == verdict.proof
    rows = await user.store.run(earnings.list_receipts, "user")
    (order,) = [row[1] for row in rows if row[1].id.hex() == verdict.order]
    (offer,) = user.drivers.offers(user.nodes())
    excluded = user.drivers.choose(user.nodes()) is None
    back = order.reversed == (order.accepted or 0) > 0
    assert back or not order.reversed
    return Came(verdict, kind, back, excluded, bool(user.published), offer.success, judged)


class Attack(NamedTuple):
    """What a driver does, and what its user then says."""

    name: str
    cheat: Callable[[Den], Cheat]
    ours: tuple[str, str]
    """State and reason of the verdict."""
    weaker: tuple[Part, ...]
    """A user like this says nothing against it."""
    proof: str = ""
    """What kind of one anybody can check."""
    kind: str = ""
    """Of the cheap model."""
    sampling: Sampling = WARM
    tries: int = 1
    """Answers of which one is caught for sure."""
    honest: int = 0
    """Answers before."""
    long: bool = False
    """Its answer has a checkpoint."""
    longer_than: int = 0
    """Steps: other answers are honest."""
    least: float = 1.0
    """So many are found out of the answers that can be judged."""


async def carry_out(den: Den, folder: Path, attack: Attack) -> None:
    """Against a user that lacks the check, and against ours; in a full run against many answers of ours."""
    if attack.kind:
        await den.load(attack.kind)
    sampling, long, tries = attack.sampling, attack.long, attack.tries + attack.honest
    with attack.cheat(den), replaced(*attack.weaker):
        enough = ["undetermined"] if sampling.max_tokens == SHORT.max_tokens else []
        weak = await came(den, folder / "weak", sampling, tries=min(2, tries), until=enough, long=long)
    assert weak.verdict.state in ("passed", "signed", "undetermined"), weak
    assert not weak.excluded and not weak.reversed
    with attack.cheat(den):
        ours = await came(den, folder / "ours", sampling, tries=tries, until=["failed"], long=long)
    assert (*ours.said, ours.kind) == (*attack.ours, attack.proof)
    assert ours.reversed == ours.told == bool(attack.proof) and ours.excluded
    many = [ours.verdict]
    if report.FULL:
        many = await judged(den, folder / "many", attack, report.ANSWERS)
        assert sum(one.state == "failed" for one in many) >= attack.least * len(many), found(many)
    report.tell(
        f"inference: {attack.name}",
        weakened=weak.verdict.why or weak.verdict.state,
        ours=f"{ours.verdict.why}, {'proven' if attack.proof else 'for this user'}",
        cost=found(many),
    )


def found(verdicts: Sequence[Verdict]) -> str:
    """In how many answers a lie was found, and what was said of the others."""
    caught = sum(one.state == "failed" for one in verdicts)
    others = Counter(one.why or one.state for one in verdicts if one.state != "failed")
    rest = "".join(f", {why} {n}" for why, n in sorted(others.items()))
    return f"found in {rate(caught, len(verdicts))} answers{rest}"


async def judged(
    den: Den,
    folder: Path,
    attack: Attack,
    least: int,
    said: Callable[[int], tuple[ChatMessage, ...]] = question,
) -> list[Verdict]:
    """What is said of at least so many answers that are long enough: each to a question of its own, or a copy
    of an answer to the same. Users ask one after another, and audit all."""
    os.mkdir(folder)
    made, numbers = list[Verdict](), iter(range(2 * least))

    async def ask(user: Audits, number: int) -> Verdict:
        asked = said(number % COPIED if attack.honest else number)
        return await (user.verdict_of_long(asked) if attack.long else user.verdict(asked, attack.sampling))

    async def go_on(user: Audits) -> None:
        for number in numbers:
            verdict = await ask(user, number)
            assert verdict.state != "failed" or (verdict.state, verdict.why) == attack.ours, verdict
            assert verdict.proof == (verdict.state == "failed" and bool(attack.proof))
            if verdict.why != "few" and verdict.steps > attack.longer_than:
                made.append(verdict)
            if len(made) >= least:
                return

    async with AsyncExitStack() as stack:
        stack.enter_context(replaced((AuditHistory, "rate", lambda *given, **more: 1.0)))
        stack.enter_context(attack.cheat(den))
        users = []
        for number in range(USERS):
            (own := folder / str(number)).mkdir()
            users.append(await stack.enter_async_context(auditing(den.real, own)))
        for number in range(COPIED * attack.honest):
            await ask(users[0], number)
        await asyncio.gather(*map(go_on, users))
    assert len(made) >= least, "most of the answers were too short"
    return made


class _Anything:
    """Equal to all."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


def _any_leaf(kept: Any, receipt: Any, shown: fraud.Opened, n: int) -> Leaf:
    try:
        return transcript.decode_leaf(shown.leaf)
    except ValueError:
        rest = tuple(range(transcript.TOP))
        return Leaf(bytes(16), shown.step, bytes(32), 0, 0, rest, (0,) * transcript.TOP, bytes(16))


_scored = replaying.Replaying._scored


async def _any_prompt(*given: Any) -> replaying.Compared:
    return (await _scored(*given))._replace(same_prompt=True)


async def _no_file(self: object, model_id: bytes) -> None:
    return None


def _nothing(*given: object) -> None: ...


NO_LOGITS: Final[Part] = (examining, "judge", lambda steps, mu0: Judged("passed", 1.0, "ratio", 1.0))
NO_PROMPT: Final[Part] = (replaying.Replaying, "_scored", _any_prompt)
NO_DRAW: Final[Part] = (gumbel, "is_chosen", lambda *given: True)
NO_ROOT: Final[Part] = (opened, "committed", lambda *given: _Anything())
NO_PATHS: Final[Part] = (transcript, "verify_path", lambda *given: True)
NO_LEAVES: Final[Part] = (opened, "_leaf", _any_leaf)
NO_TOKENS: Final[Part] = (opened, "_check_tokens", _nothing)
NO_CHECKPOINTS: Final[Part] = (opened, "_check_checkpoints", _nothing)
NO_END: Final[Part] = (opened, "_check_end", _nothing)
NO_RECEIPT: Final[Part] = (counting, "fits", lambda *given: True)
NO_TEXT: Final[Part] = (ends, "same_text", lambda *given: True)
NO_REASON: Final[Part] = (ends, "is_allowed", lambda *given: True)
NO_TRUE_END: Final[Part] = (ends, "is_true", lambda *given: True)
NO_FILE: Final[Part] = (replaying.Replaying, "copy", _no_file)
