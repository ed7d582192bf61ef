"""Rows of links on which nobody said which node they are."""

from __future__ import annotations

import pytest
from msgspec import structs

from infraxa.app.tui.widgets.network_rows import in_full, peer_rows
from infraxa.net.identity import id_text, short_id
from infraxa.net.status import PeerInfo

NODE, ACCOUNT = bytes(range(32)), bytes(range(1, 33))
PEER = PeerInfo(NODE, "birch", "192.0.2.7", "out", "peer", 1000, 3.0, 10, 20, session=b"1")
SELLING = PeerInfo(b"", "", "192.0.2.9", "in", "order", 1000, None, 1, 2, account=ACCOUNT, session=b"2")
BUYING = structs.replace(PEER, kind="order", account=ACCOUNT, session=b"3")
STRANGER = structs.replace(SELLING, kind="stranger", account=b"", session=b"4")


@pytest.mark.parametrize(
    ("peer", "who", "first", "second"),
    [
        (PEER, f"birch·{short_id(NODE)}", id_text(NODE), "192.0.2.7 · protocol 1"),
        (BUYING, f"birch·{short_id(NODE)}", id_text(NODE), "a session for orders"),
        (SELLING, f"account·{short_id(ACCOUNT)}", f"account {id_text(ACCOUNT)}", "a session for orders"),
        (STRANGER, "stranger", "A stranger", "nobody said who dials"),
        (
            structs.replace(STRANGER, id=NODE, direction="out"),
            short_id(NODE),
            id_text(NODE),
            "not told who dials",
        ),
    ],
)
def test_a_link_shows_what_is_known_of_its_other_side(
    peer: PeerInfo, who: str, first: str, second: str
) -> None:
    (row,) = peer_rows([peer], 2000)
    assert not callable(row.cells) and row.cells[0] == who
    above, below = in_full(peer).plain.split("\n")
    assert above == first and second in below


def test_every_session_is_a_row_and_a_new_link_with_a_peer_is_the_same_one() -> None:
    others = [structs.replace(one, session=one.session + b"+") for one in (BUYING, SELLING, STRANGER)]
    rows = peer_rows([PEER, BUYING, SELLING, STRANGER, *others], 2000)
    assert len({row.key for row in rows}) == 7
    again = peer_rows([structs.replace(PEER, session=b"other", since_ms=5)], 2000)
    assert again[0].key == rows[0].key
