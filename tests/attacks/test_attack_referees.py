"""Providers whose user has not the model's file, and has the answer judged by others that have it: what these
find of a text and of an end that no model made, and whom of many nodes a user asks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app import owners, referees
from infraxa.app.owners import Lot, Owner
from infraxa.engine import transcript
from infraxa.engine.types import FinishReason, Request, Sampling
from infraxa.net import purchase
from infraxa.net.status import SeenNode
from infraxa.store.records import Verdict
from tests.app.auditing import ASKED, MU0, Real, auditing, in_module, real_provider
from tests.attacks import report
from tests.attacks.cheats import Spoken, committed, rewriting
from tests.attacks.den import NO_REASON, NO_TEXT, NO_TRUE_END, Den, Part
from tests.attacks.target import replaced

COLD: Final = Sampling(temperature=0.0, max_tokens=40)


class Court(NamedTuple):
    den: Den
    """With the driver."""
    others: tuple[Real, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def court(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Court]:
    folder = tmp_path_factory.mktemp
    async with (
        real_provider(folder("a")) as a,
        real_provider(folder("b")) as b,
        real_provider(folder("c")) as c,
    ):
        yield Court(Den(a, folder("den")), (b, c))


Change = Callable[[Spoken], Spoken]


def soap(one: Spoken) -> Spoken:
    """Right tokens, and beside them something else to read."""
    return one._replace(text=one.text + " Buy soap.")


def words_left_out(one: Spoken) -> Spoken:
    return one.of([*one.ids[:3], *one.ids[6:]])


def ended(flag: int, outcome: FinishReason) -> Change:
    """It ends after 20 tokens, and gives this reason."""

    def change(one: Spoken) -> Spoken:
        last = transcript.decode_leaf(one.leaves[19])._replace(flags=flag)
        cut = one._replace(leaves=(*one.leaves[:19], transcript.encode_leaf(last))).of(one.ids[:20])
        return cut._replace(finished=replace(one.finished, reason=outcome))

    return change


async def judged(court: Court, folder: Path, lie: Change, stop: tuple[str, ...] = ()) -> Verdict:
    """What comes of an audit that the person has agreed to."""
    async with auditing(court.den.real, folder, noise=MU0, referees=court.others) as user:
        user.auditor.automatic = False
        with rewriting(court.den, lambda request, one: lie(one)):
            await user.answer(said=ASKED, sampling=replace(COLD, stop=stop))
            await user.signed()
        before = len(user.verdicts)
        await user.auditor.audit(user.place, referee=True)
        return await user.ended(before)


ATTACKS: Final[tuple[tuple[str, Change, str, tuple[Part, ...], tuple[str, ...]], ...]] = (
    ("another text than its tokens have", soap, "other_text", (NO_TEXT,), ()),
    ("words left out", words_left_out, "other_text", (NO_TEXT,), ()),
    ("an end by a token that ends nothing", ended(transcript.EOS, "stop"), "wrong_end", (NO_TRUE_END,), ()),
    (
        "an end by a string that is not there",
        ended(transcript.STOP, "stop"),
        "wrong_end",
        (NO_TRUE_END,),
        ("never said",),
    ),
    (
        "an end for want of room that there is",
        ended(transcript.LENGTH, "length"),
        "wrong_end",
        (NO_REASON, NO_TRUE_END),
        (),
    ),
)


@in_module
@pytest.mark.parametrize(("name", "lie", "why", "weaker", "stop"), ATTACKS, ids=[one[0] for one in ATTACKS])
async def test_what_no_model_made_is_found_without_its_file(
    court: Court,
    tmp_path: Path,
    name: str,
    lie: Change,
    why: str,
    weaker: tuple[Part, ...],
    stop: tuple[str, ...],
) -> None:
    with replaced(*weaker):
        weak = await judged(court, tmp_path / "weak", lie, stop)
    assert (weak.state, weak.by) == ("passed", "referee")
    ours = await judged(court, tmp_path / "ours", lie, stop)
    assert (ours.state, ours.why, ours.proof) == ("failed", why, False)
    report.tell(f"referees: {name}", weakened=weak.state, ours=f"{why}, for this user")


NO_TOKEN: Final = 1 << 30
AT: Final = 5


def no_token(request: Request, one: Spoken) -> Spoken:
    """At one step its leaves say that a token was sampled that no model has; nothing came of it."""
    leaves = [transcript.decode_leaf(leaf) for leaf in one.leaves]
    leaves[AT] = leaves[AT]._replace(token=NO_TOKEN, ids=(NO_TOKEN, *leaves[AT].ids[1:]))
    rows = [(leaf.ids, leaf.q) for leaf in leaves]
    without = one.of([*one.ids[:AT], *one.ids[AT + 1 :]])
    return committed(request, without, one.ctx0, [leaf.token for leaf in leaves], rows)


async def judged_by(court: Court, folder: Path, others: tuple[Real, ...]) -> Verdict:
    """What these find of such an answer; without any, the user's own file, whose noise is known."""
    async with auditing(court.den.real, folder, noise=0 if others else MU0, referees=others) as user:
        user.auditor.automatic = False
        with rewriting(court.den, no_token):
            await user.answer(said=ASKED, sampling=COLD)
            await user.signed()
        before = len(user.verdicts)
        await user.auditor.audit(user.place, referee=bool(others))
        return await user.ended(before)


@in_module
async def test_a_token_of_no_model_keeps_no_referee_from_saying_so(court: Court, tmp_path: Path) -> None:
    with replaced((purchase, "NO_TOKEN", "never said")):
        weak = await judged_by(court, tmp_path / "weak", court.others)
    assert (weak.state, weak.why) == ("undetermined", "no_referee")
    ours = await judged_by(court, tmp_path / "ours", court.others)
    assert (ours.state, ours.why, ours.by, ours.proof) == ("failed", "other_model", "referee", False)
    one = await judged_by(court, tmp_path / "one", court.others[:1])
    assert (one.state, one.why) == ("undetermined", "one_referee")
    own = await judged_by(court, tmp_path / "own", ())
    assert (own.state, own.why, own.by) == ("failed", "other_model", "own")
    report.tell("referees: a token that no model has", weakened=weak.why, ours=f"{ours.why}, for this user")


# Whom a user asks.

CROWD: Final = 60
HONEST: Final = 3


def seen(number: int, *addresses: str, near: bool = False) -> SeenNode:
    return SeenNode(bytes([number]), "node", "online", 1.0, addresses, (), 1, 0, (), (), 0, near=near)


def honest() -> list[SeenNode]:
    return [seen(100 + number, f"ws://9.{number}.9.9:7741") for number in range(HONEST)]


def chosen_first(nodes: list[SeenNode], driver: SeenNode, among: set[bytes]) -> float:
    """In which part of draws the first one that is asked is among these."""
    known, others = owners.owners([driver, *nodes]), [node.id for node in nodes]
    draws, hits = report.scale(400, 4000), 0
    for number in range(draws):
        secret = random.Random(number).randbytes(32)

        def lot(what: bytes, secret: bytes = secret) -> bytes:
            return referees._lot(secret, bytes(32), what)

        found = owners.drawn(others, {driver.id}, known, lot)
        hits += bool(found) and found[0] in among
    return hits / draws


def by_node_alone(nodes: Any, avoided: Any, known: dict[bytes, Owner], lot: Lot) -> list[bytes]:
    return sorted(set(nodes) - set(avoided), key=lot)


def test_a_crowd_in_one_network_is_asked_no_sooner_than_one_node() -> None:
    crowd = [seen(number, f"ws://8.8.8.{number}:7741") for number in range(1, CROWD)]
    # Some of them say that they are elsewhere, too.
    crowd += [
        seen(number, f"ws://8.8.8.{number}:7741", f"ws://9.{number % HONEST}.9.1:7741")
        for number in range(60, 90)
    ]
    mine, driver = {node.id for node in crowd}, replace(seen(200, "ws://7.7.7.7:7741"), found_in="7.7.0.0/16")
    with replaced((owners, "drawn", by_node_alone)):
        weak = chosen_first(crowd + honest(), driver, mine)
    ours = chosen_first(crowd + honest(), driver, mine)
    assert weak > 0.9 and ours < 0.35
    report.tell(
        f"referees: {len(crowd)} nodes of one network, {HONEST} of others",
        weakened=f"the first in {weak:.0%} of audits",
        ours=f"in {ours:.0%}",
    )


def test_whoever_says_that_it_is_near_is_not() -> None:
    driver = seen(200, "ws://192.168.1.2:7741", near=True)
    crowd = [seen(number, f"ws://192.168.1.{number}:7741") for number in range(3, 3 + CROWD)]
    here = [seen(100 + number, f"ws://192.168.1.{100 + number}:7741", near=True) for number in range(HONEST)]
    mine = {node.id for node in crowd}
    weak = chosen_first([replace(node, near=True) for node in crowd] + here, driver, mine)
    ours = chosen_first(crowd + here, driver, mine)
    assert weak > 0.9 and ours == 0
    report.tell(
        f"referees: {CROWD} strangers whose cards name addresses of this private network",
        weakened=f"the first in {weak:.0%} of audits",
        ours="never asked",
    )
