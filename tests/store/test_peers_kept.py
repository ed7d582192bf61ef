"""What the network remembers: numbers never used twice, prekeys gone when replaced, nodes within bounds."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infraxa.store import peers
from infraxa.store.db import Connection, connect
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.peers import (
    ban_node,
    claim_name,
    get_network,
    join_network,
    keep_node,
    last_seq,
    leave_network,
    list_anchors,
    list_bans,
    list_names,
    list_nodes,
    list_prekeys,
    set_anchors,
    set_prekeys,
    take_seq,
)
from infraxa.store.records import BanRecord, NetworkRecord, NodeRecord, PrekeyRecord, StoreError

ME, OTHER = b"m" * 32, b"o" * 32
NOW = 1_700_000_000_000
"""About what the clock of `conn` says."""


def node(number: int) -> bytes:
    return number.to_bytes(32, "big")


def met(number: int, *addresses: str, at: int = NOW, name: str = "maple") -> NodeRecord:
    return NodeRecord(node(number), name, addresses, at)


def test_a_number_is_taken_once_and_only_upwards(conn: Connection) -> None:
    assert last_seq(conn, ME) == 0
    take_seq(conn, ME, NOW)
    take_seq(conn, ME, 2**63 - 1)
    for taken in (2**63 - 1, NOW, NOW + 1, 1):
        with pytest.raises(StoreError) as caught:
            take_seq(conn, ME, taken)
        assert caught.value.code == "exists"
    assert last_seq(conn, ME) == 2**63 - 1
    assert last_seq(conn, OTHER) == 0  # another identity in this folder begins by itself
    take_seq(conn, OTHER, 1)
    assert last_seq(conn, OTHER) == 1


PUBLISHER = """
import asyncio, sys
from pathlib import Path
from infraxa.store.db import Store
from infraxa.store.peers import last_seq, take_seq

async def publish(folder, node):
    async with await Store.open(folder) as store:
        seq = await store.run(last_seq, node)
        while True:
            seq += 1
            await store.run(take_seq, node, seq)
            print(seq, flush=True)

asyncio.run(publish(Path(sys.argv[1]), b"m" * 32))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in another way")
def test_killed_at_any_moment_no_number_is_published_twice(tmp_path: Path) -> None:
    chance = random.Random(5)
    connect(tmp_path).close()
    published: list[int] = []
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", PUBLISHER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(chance.randrange(1, 60))]
        time.sleep(chance.random() / 1000)
        child.kill()
        child.wait(30)
        told.append(child.stdout.read())
        child.stdout.close()
        published += [int(line) for line in "".join(told).splitlines(keepends=True) if line.endswith("\n")]
    assert len(published) > 20
    assert published == sorted(set(published))
    conn = connect(tmp_path)
    assert last_seq(conn, ME) >= published[-1]
    conn.close()


def prekey(number: int) -> PrekeyRecord:
    return PrekeyRecord(random.Random(number).randbytes(32), node(number), NOW + number, NOW + number + 9)


def test_prekeys_are_replaced_as_a_whole(conn: Connection) -> None:
    set_prekeys(conn, ME, (prekey(2), prekey(1)))
    set_prekeys(conn, OTHER, (prekey(3),))
    assert list_prekeys(conn, ME) == (prekey(1), prekey(2))
    set_prekeys(conn, ME, (prekey(2),))
    assert list_prekeys(conn, ME) == (prekey(2),)
    assert list_prekeys(conn, OTHER) == (prekey(3),)
    set_prekeys(conn, ME, tuple(map(prekey, range(20))))
    assert list_prekeys(conn, ME) == tuple(map(prekey, range(16, 20)))


def test_a_prekey_that_is_gone_is_not_in_the_file_any_more(tmp_path: Path) -> None:
    def in_the_file(number: int) -> bool:
        return prekey(number).secret in (tmp_path / DATABASE_NAME).read_bytes()

    conn = connect(tmp_path)
    set_prekeys(conn, ME, (prekey(1), prekey(2), prekey(3)))
    conn.close()
    assert in_the_file(1) and in_the_file(2) and in_the_file(3)
    conn = connect(tmp_path)
    conn.execute("BEGIN IMMEDIATE")  # as in Store.run
    set_prekeys(conn, ME, (prekey(3),))
    conn.execute("COMMIT")
    conn.close()
    assert not in_the_file(1) and not in_the_file(2)
    assert in_the_file(3)


def test_anchors_keep_their_order(conn: Connection) -> None:
    assert list_anchors(conn) == ()
    set_anchors(conn, (node(9), node(1), node(9)))
    assert list_anchors(conn) == (node(9), node(1))
    set_anchors(conn, tuple(map(node, range(20))))
    assert list_anchors(conn) == tuple(map(node, range(peers.ANCHORS_KEPT)))
    set_anchors(conn, ())
    assert list_anchors(conn) == ()


def test_a_node_keeps_its_first_name_and_the_addresses_that_worked(conn: Connection) -> None:
    first = keep_node(conn, met(1, "a", "b", at=5))
    assert first == met(1, "a", "b", at=5)
    again = keep_node(conn, met(1, "c", "a", at=7, name="other"))
    assert again == met(1, "c", "a", "b", at=7)
    assert keep_node(conn, met(1, at=6)) == again
    assert keep_node(conn, met(1, "d", "e", at=7)) == met(1, "d", "e", "c", "a", at=7)
    keep_node(conn, met(2, at=9, name="\udcff"))
    assert list_nodes(conn) == [met(2, at=9, name="\ufffd"), met(1, "d", "e", "c", "a", at=7)]


def test_the_nodes_longest_out_of_contact_are_forgotten(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peers.NODES_KEPT == 2000
    monkeypatch.setattr(peers, "NODES_KEPT", 3)
    set_anchors(conn, (node(1),))
    for number in (1, 2, 3):
        keep_node(conn, met(number, at=number))
        assert claim_name(conn, node(number), f"n{number}") == node(number)
    keep_node(conn, met(2, at=10))
    keep_node(conn, met(4, at=4))
    assert [known.id for known in list_nodes(conn)] == [node(2), node(4), node(1)]  # 1 is an anchor
    assert list_names(conn) == {"n1": node(1), "n2": node(2)}
    keep_node(conn, met(5, at=2))  # a new one is not the first to go
    assert [known.id for known in list_nodes(conn)] == [node(2), node(5), node(1)]


def test_the_whole_bound_of_nodes_holds(conn: Connection) -> None:
    conn.execute("BEGIN")
    for number in range(peers.NODES_KEPT + 50):
        keep_node(conn, met(number, at=number))
    conn.execute("COMMIT")
    known = list_nodes(conn)
    assert len(known) == peers.NODES_KEPT
    assert known[-1].id == node(50)


def test_a_name_is_whose_it_was_first(conn: Connection) -> None:
    keep_node(conn, met(1))
    keep_node(conn, met(2))
    assert claim_name(conn, node(3), "maple") == node(3)  # not a known node: nothing is kept
    assert list_names(conn) == {}
    assert claim_name(conn, node(1), "maple") == node(1)
    for _ in range(2):
        assert claim_name(conn, node(2), "maple") == node(1)
        assert claim_name(conn, node(1), "maple") == node(1)
    assert list_names(conn) == {"maple": node(1)}
    for number in range(10):
        claim_name(conn, node(2), f"name {number}")
    assert len(list_names(conn)) == 1 + peers.NAMES_KEPT


def test_bans_end_and_are_bounded(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    ban_node(conn, BanRecord(node(1), NOW + 10_000, "tampered"))
    ban_node(conn, BanRecord(node(1), NOW + 5_000, "rate"))
    ban_node(conn, BanRecord(node(2), NOW - 1, "rate"))
    assert list_bans(conn) == [BanRecord(node(1), NOW + 10_000, "tampered")]
    ban_node(conn, BanRecord(node(1), NOW + 20_000, "equivocation"))
    assert list_bans(conn) == [BanRecord(node(1), NOW + 20_000, "equivocation")]
    monkeypatch.setattr(peers, "BANS_KEPT", 2)
    ban_node(conn, BanRecord(node(3), NOW + 30_000, "rate"))
    ban_node(conn, BanRecord(node(4), NOW + 40_000, "rate"))
    assert [ban.node for ban in list_bans(conn)] == [node(3), node(4)]
    conn.clock = lambda: NOW + 35_000
    assert [ban.node for ban in list_bans(conn)] == [node(4)]
    ban_node(conn, BanRecord(node(4), NOW + 40_001, "rate"))
    assert conn.execute("SELECT count(*) FROM bans").fetchone()[0] == 1


def test_networks_joined_by_invite(conn: Connection) -> None:
    assert get_network(conn, "home") is None
    join_network(conn, "home", b"k" * 32, node(1), ("a", "b"))
    join_network(conn, "public", None, node(9), ())
    join_network(conn, "home", b"K" * 32, node(2), ("c",))
    join_network(conn, "home", b"K" * 32, node(1), ("d",) * 9)
    assert get_network(conn, "home") == NetworkRecord(
        "home", b"K" * 32, ((node(1), ("d",) * peers.ADDRESSES_KEPT), (node(2), ("c",)))
    )
    assert get_network(conn, "public") == NetworkRecord("public", None, ((node(9), ()),))
    for number in range(100, 140):
        join_network(conn, "home", None, node(number), ())
    home = get_network(conn, "home")
    assert home is not None and home.psk is None
    assert [found for found, _ in home.nodes] == [
        node(number) for number in range(139, 139 - peers.BOOTSTRAP_KEPT, -1)
    ]
    leave_network(conn, "home")
    assert get_network(conn, "home") is None
    assert conn.execute("SELECT count(*) FROM bootstrap").fetchone()[0] == 1
