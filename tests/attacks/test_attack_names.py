"""Texts that a card claims, full of what a terminal obeys, hides or turns around; and names of others.

What is printed and drawn here is what `infraxa providers` and the Network view make of them.
"""

from __future__ import annotations

import io
import unicodedata

import msgspec
import pytest
from rich.console import Console
from textual.content import Content

from infraxa.app.commands import offer_rows, output
from infraxa.app.offers import OfferSeen
from infraxa.app.tui.widgets import network_rows, node_facts
from infraxa.app.tui.widgets.table import Cell, Row
from infraxa.app.tui.widgets.traffic import Traffic
from infraxa.net import identity, names, table
from infraxa.net.records import ModelOffer
from infraxa.net.status import NetworkStatus, PeerInfo, SeenNode
from infraxa.net.status import Refused as Refusal
from tests.attacks import report
from tests.attacks.crowd import Victim
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, a_card, a_state, node_id

HOSTILE = {
    "clears the screen": "\x1b[2J\x1b[Hgone",
    "sets the title": "\x1b]0;pwned\x07x",
    "writes the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "makes a link": "\x1b]8;;http://evil\x07x\x1b]8;;\x07",
    "C1 control": "\x9b31mred\x9d0;t\x9c",
    "a new line": "one\ntwo\rthree\vfour\x85five",
    "backspaces": "evil\b\b\b\bgood\x7f",
    "turned around": "\u202egnp.exe\u2066x\u2069",
    "marks of direction": "a\u200eb\u200fc\u061c",
    "nothing at all": "\u200b\u200c\u200d\u2060\ufeff",
    "letters without a shape": "\u3164\u115f\u2800",
    "piles of marks": "z" + "\u0301" * 30,
    "tags": "x\U000e0041\U000e0042",
    "markup": "[bold red]x[/]",
    "markup that breaks": "[/]]]\\[",
    "separators of lines": "a\u2028b\u2029c",
}
OBEYED = frozenset(
    chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
"""What terminals obey: controls, and what turns the text around."""

FIRST, IMPOSTOR = node_id(1), node_id(2)


def seen(claim: str, **changed: object) -> SeenNode:
    """A node that says `claim` wherever it may say something."""
    offer = ModelOffer(claim, claim, claim[:16], bytes(32), 4096, 512, 1, 1, backend=claim[:24])
    node = SeenNode(
        id=IMPOSTOR, name=claim[:32], status="online", age_s=1.0, addresses=(claim,), relays=(), slots=1,
        util=0, models=(offer,), prices=(), first_token_ms=0,
    )  # fmt: skip
    return msgspec.structs.replace(node, **changed)


def printed(claim: str) -> str:
    """What `infraxa providers` writes: the table, the lines of a pipe, and JSON."""
    node, other = seen(claim), seen(claim, same_name_as=FIRST)
    offers = [OfferSeen(one, one.models[0], 1, 1) for one in (node, other)]
    rows = offer_rows.rows_of(offers, [node, other])
    terminal = io.StringIO()
    shown = offer_rows.cells_of(rows)
    Console(file=terminal, force_terminal=True, no_color=True, width=240, color_system=None).print(
        output.table(shown.titles, shown.rows)
    )
    pipe = "".join(output._one_line(cell) for row in shown.rows for cell in row)
    told = msgspec.json.encode(rows).decode()
    return terminal.getvalue().replace("\n", "") + pipe + told


def cells(row: Row) -> tuple[Cell, ...]:
    return row.cells() if callable(row.cells) else row.cells


def drawn(claim: str) -> str:
    """The texts of the Network view."""
    node, other = seen(claim), seen(claim, same_name_as=FIRST, addresses=())
    peer = PeerInfo(
        id=IMPOSTOR, name=claim[:32], address=claim, direction="in", kind="peer", since_ms=0, rtt_ms=None,
        bytes_in=0, bytes_out=0,
    )  # fmt: skip
    refused = Refusal(0, "rate", None, claim)
    rows = network_rows.node_rows([node, other], 0.0)
    rows += network_rows.peer_rows([peer], 0) + network_rows.refused_rows([refused], 0)
    parts: list[object] = [cell for row in rows for cell in cells(row)]
    parts += [network_rows.in_full(thing) for thing in (node, other, peer, refused)]
    status = NetworkStatus(id=FIRST, name=claim, network=claim, reachability_reason=claim, listening=(claim,))
    parts += [node_facts.facts(status, node, Traffic(), 80)]
    shown = [part[0] if isinstance(part, tuple) else part for part in parts]
    return "".join(part.plain if isinstance(part, Content) else str(part) for part in shown).replace("\n", "")


def as_it_comes(claim: str, *limits: int) -> str:
    return claim


NAIVE = (
    (identity, "clean_name", as_it_comes),
    (offer_rows, "clean_name", as_it_comes),
    (offer_rows, "clean", as_it_comes),
    (output, "clean", as_it_comes),
    (network_rows, "one_line", as_it_comes),
    (node_facts, "one_line", as_it_comes),
)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_terminal_obeys_gets_to_none(what: str) -> None:
    claim = HOSTILE[what]
    if OBEYED & set(claim):
        with replaced(*NAIVE):
            assert OBEYED & set(drawn(claim))
    assert not OBEYED & set(drawn(claim))
    assert not OBEYED & set(printed(claim))


def test_all_that_a_terminal_obeys() -> None:
    """Every control character, alone and within a name."""
    found = 0
    for character in sorted(OBEYED):
        claim = f"a{character}b"
        with replaced(*NAIVE):
            found += character in drawn(claim)
        assert not OBEYED & set(drawn(claim)) and not OBEYED & set(printed(claim))
    assert found == len(OBEYED) - 1  # a new line is where it is drawn
    report.tell(
        f"names: {len(OBEYED)} characters that a terminal obeys",
        weakened=f"{found} drawn",
        ours="0 drawn, 0 printed",
    )


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_left_of_a_name_is_seen(what: str) -> None:
    """Nothing in a name that is shown is invisible, and the id stands beside it."""
    shown = names.clean_name(HOSTILE[what])
    assert len(shown) <= names.MAX_NAME
    assert all(unicodedata.category(character)[0] not in "CZ" or character == " " for character in shown)
    assert identity.short_id(IMPOSTOR) in identity.display(HOSTILE[what], IMPOSTOR)


LOOKS_LIKE_MAPLE = ("maple", "MAPLE", "ma\u200bple", "ｍａｐｌｅ", "maple\u202e", " maple ", "m\u00adaple")


def listed(name: str) -> tuple[list[SeenNode], Victim]:
    """A known node, then one that has its name, or one that looks the same."""
    victim = Victim(PEER)
    for node, claim in ((FIRST, "maple"), (IMPOSTOR, name)):
        card = a_card(node, START_MS, claim)
        victim.tell(PEER, (card, a_state(card, START_MS)))
    return [node for node in victim.gossip.nodes(victim.now) if node.id == IMPOSTOR], victim


def test_an_impostor_is_shown_as_one() -> None:
    with replaced((table, "name_key", lambda name: name)):
        weakened = sum(listed(name)[0][0].same_name_as is None for name in LOOKS_LIKE_MAPLE)
    assert weakened == len(LOOKS_LIKE_MAPLE) - 1
    for name in LOOKS_LIKE_MAPLE:
        (impostor,), _ = listed(name)
        assert impostor.same_name_as == FIRST
        (row,) = offer_rows.rows_of([], [impostor])
        assert f"same name as {identity.display(name, FIRST)}" in offer_rows.cells_of([row]).rows[0][0]
        (drawn_row,) = network_rows.node_rows([impostor], 0.0)
        cell = cells(drawn_row)[0]
        assert isinstance(cell, tuple) and cell[0].startswith("! ")
        assert identity.short_id(FIRST) in network_rows.in_full(impostor).plain
        assert identity.short_id(IMPOSTOR) in cell[0]
    report.tell(
        f"names: {len(LOOKS_LIKE_MAPLE)} that read as the name of a known node",
        weakened=f"{weakened} not told apart",
        ours="all marked as not the first",
    )


def test_whoever_was_spoken_to_keeps_its_name() -> None:
    """The first one goes away, an impostor comes, the first one comes back: the impostor is still marked."""
    _, victim = listed("other")
    victim.gossip.contacted(FIRST)
    victim.wait(500)
    assert FIRST not in victim.gossip.table.entries
    for node in (IMPOSTOR, FIRST):
        card = a_card(node, victim.now_ms, "maple")
        victim.tell(PEER, (card, a_state(card, victim.now_ms)))
    marked = {node.id: node.same_name_as for node in victim.gossip.nodes(victim.now)}
    assert marked == {FIRST: None, IMPOSTOR: FIRST}
