"""What the network remembers between runs: own numbers and prekeys, other nodes, networks joined by invite.

Ids are the 32 bytes of a node key. What belongs to a node's own key is kept under it, so that a folder whose
identity is replaced does not mix two nodes. Secrets (prekeys, the keys of private networks) are protected by
the mode of the file (0600) and not otherwise.
"""

from __future__ import annotations

import sqlite3

import msgspec

from infraxa.store.db import Connection, transaction
from infraxa.store.records import BanRecord, NetworkRecord, NodeRecord, PrekeyRecord, StoreError
from infraxa.store.text import storable

NODES_KEPT = 2000
"""The nodes least recently in contact beyond this are forgotten; anchors are not."""
ADDRESSES_KEPT = 4
"""Addresses per node, newest first."""
NAMES_KEPT = 4
"""Names that one node can be the first to have had."""
BANS_KEPT = 2000
"""Those that end soonest beyond this are lifted."""
ANCHORS_KEPT = 8
PREKEYS_KEPT = 4
BOOTSTRAP_KEPT = 16
"""Nodes per joined network, the newest."""

_NODE = "id, name, addresses, last_contact_ms"


def last_seq(conn: Connection, node: bytes) -> int:
    """The highest number that was ever taken for a record of this own node; 0 = none."""
    row = conn.execute("SELECT seq FROM own_seq WHERE node = ?", (node,)).fetchone()
    return 0 if row is None else int(row[0])


def take_seq(conn: Connection, node: bytes, seq: int) -> None:
    """Take `seq` for a record of this own node, before it is signed: a program that is killed in between
    leaves a gap, never a number to be used twice.

    Raises StoreError `exists` when it was taken, or a higher one.
    """
    taken = conn.execute(
        "INSERT INTO own_seq (node, seq) VALUES (?, ?) "
        "ON CONFLICT (node) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq",
        (node, seq),
    )
    if taken.rowcount == 0:
        raise StoreError("exists", "This number was used for a record of this node before.")


def list_prekeys(conn: Connection, node: bytes) -> tuple[PrekeyRecord, ...]:
    """The prekeys of this own node, oldest first."""
    rows = conn.execute(
        "SELECT secret, public, made_ms, expires_ms FROM prekeys WHERE node = ? ORDER BY made_ms, public",
        (node,),
    )
    return tuple(PrekeyRecord(*row) for row in rows)


def set_prekeys(conn: Connection, node: bytes, prekeys: tuple[PrekeyRecord, ...]) -> None:
    """Keep these, at most PREKEYS_KEPT, and no others. The others are overwritten in the database file; a
    copy can stay in the write-ahead log until it is written over, and wherever the disk keeps old blocks."""
    (before,) = conn.execute("PRAGMA secure_delete").fetchone()
    conn.execute("PRAGMA secure_delete = ON")
    try:
        with transaction(conn):
            conn.execute("DELETE FROM prekeys WHERE node = ?", (node,))
            conn.executemany(
                "INSERT INTO prekeys (node, secret, public, made_ms, expires_ms) VALUES (?, ?, ?, ?, ?)",
                [(node, key.secret, key.public, key.made_ms, key.expires_ms) for key in _last(prekeys)],
            )
    finally:
        conn.execute(f"PRAGMA secure_delete = {before}")


def list_anchors(conn: Connection) -> tuple[bytes, ...]:
    """The nodes to link with first, in order."""
    return tuple(node for (node,) in conn.execute("SELECT node FROM anchors ORDER BY place"))


def set_anchors(conn: Connection, nodes: tuple[bytes, ...]) -> None:
    """Keep these, at most ANCHORS_KEPT, in their order, and no others."""
    kept = dict.fromkeys(nodes[:ANCHORS_KEPT])
    with transaction(conn):
        conn.execute("DELETE FROM anchors")
        conn.executemany("INSERT INTO anchors (place, node) VALUES (?, ?)", enumerate(kept))


def keep_node(conn: Connection, met: NodeRecord) -> NodeRecord:
    """Remember a node that was spoken to; gives what is now known of it.

    Its name stays as it was first seen; its addresses go before those that worked earlier.
    """
    with transaction(conn):
        known = _node(conn, met.id)
        if known is not None:
            met = NodeRecord(
                met.id,
                known.name,
                tuple(dict.fromkeys(met.addresses + known.addresses)),
                max(known.last_contact_ms, met.last_contact_ms),
            )
        met = msgspec.structs.replace(met, addresses=met.addresses[:ADDRESSES_KEPT])
        conn.execute(
            "INSERT INTO nodes (id, name, addresses, last_contact_ms) VALUES (?, ?, ?, ?) ON CONFLICT (id) "
            "DO UPDATE SET addresses = excluded.addresses, last_contact_ms = excluded.last_contact_ms",
            (met.id, storable(met.name), _text(met.addresses), met.last_contact_ms),
        )
        if known is None:
            conn.execute(
                "DELETE FROM nodes WHERE id IN (SELECT id FROM nodes "
                "WHERE id <> ? AND id NOT IN (SELECT node FROM anchors) "
                "ORDER BY last_contact_ms LIMIT max(0, (SELECT count(*) FROM nodes) - ?))",
                (met.id, NODES_KEPT),
            )
    return met


def list_nodes(conn: Connection) -> list[NodeRecord]:
    """The nodes that were spoken to, the last contact first."""
    rows = conn.execute(f"SELECT {_NODE} FROM nodes ORDER BY last_contact_ms DESC, id")
    return [_node_of(row) for row in rows]


def claim_name(conn: Connection, node: bytes, name: str) -> bytes:
    """Whose name this was first: another node's id, or `node`, of which this is kept if it is a known one.

    `name` is in the form in which names are compared.
    """
    name = storable(name)
    with transaction(conn):
        row = conn.execute("SELECT node FROM names WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return bytes(row[0])
        conn.execute(
            "INSERT INTO names (name, node) SELECT ?, id FROM nodes WHERE id = ? "
            "AND (SELECT count(*) FROM names WHERE node = id) < ?",
            (name, node, NAMES_KEPT),
        )
    return node


def list_names(conn: Connection) -> dict[str, bytes]:
    """Whose each name was first."""
    return dict(conn.execute("SELECT name, node FROM names").fetchall())


def ban_node(conn: Connection, ban: BanRecord) -> None:
    """Have nothing to do with a node until `ban.until_ms`; a ban that ends later stays."""
    with transaction(conn):
        conn.execute(
            "INSERT INTO bans (node, until_ms, reason) VALUES (?, ?, ?) ON CONFLICT (node) DO UPDATE "
            "SET until_ms = excluded.until_ms, reason = excluded.reason WHERE excluded.until_ms > until_ms",
            (ban.node, ban.until_ms, storable(ban.reason)),
        )
        conn.execute("DELETE FROM bans WHERE until_ms <= ?", (conn.clock(),))
        conn.execute(
            "DELETE FROM bans WHERE node IN (SELECT node FROM bans "
            "ORDER BY until_ms LIMIT max(0, (SELECT count(*) FROM bans) - ?))",
            (BANS_KEPT,),
        )


def list_bans(conn: Connection) -> list[BanRecord]:
    """The bans in force, the one that ends first, first."""
    rows = conn.execute(
        "SELECT node, until_ms, reason FROM bans WHERE until_ms > ? ORDER BY until_ms, node", (conn.clock(),)
    )
    return [BanRecord(*row) for row in rows]


def join_network(
    conn: Connection, name: str, psk: bytes | None, node: bytes, addresses: tuple[str, ...]
) -> None:
    """Remember what an invite said: a network, its key when it is private, and a node of it with addresses.

    A later invite to the same network brings its key up to date and adds its node.
    """
    with transaction(conn):
        conn.execute(
            "INSERT INTO networks (name, psk) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET psk = excluded.psk",
            (name, psk),
        )
        conn.execute("DELETE FROM bootstrap WHERE network = ? AND node = ?", (name, node))
        conn.execute(
            "INSERT INTO bootstrap (network, node, addresses) VALUES (?, ?, ?)",
            (name, node, _text(addresses[:ADDRESSES_KEPT])),
        )
        conn.execute(
            "DELETE FROM bootstrap WHERE network = ? AND n NOT IN "
            "(SELECT n FROM bootstrap WHERE network = ? ORDER BY n DESC LIMIT ?)",
            (name, name, BOOTSTRAP_KEPT),
        )


def get_network(conn: Connection, name: str) -> NetworkRecord | None:
    """What invites said of this network, the newest node first; None when there was none."""
    row = conn.execute("SELECT psk FROM networks WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    nodes = conn.execute("SELECT node, addresses FROM bootstrap WHERE network = ? ORDER BY n DESC", (name,))
    return NetworkRecord(name, row[0], tuple((node, _addresses(text)) for node, text in nodes))


def leave_network(conn: Connection, name: str) -> None:
    """Forget what invites said of this network."""
    conn.execute("DELETE FROM networks WHERE name = ?", (name,))


def _node(conn: sqlite3.Connection, node: bytes) -> NodeRecord | None:
    row = conn.execute(f"SELECT {_NODE} FROM nodes WHERE id = ?", (node,)).fetchone()
    return None if row is None else _node_of(row)


def _node_of(row: tuple[bytes, str, str, int]) -> NodeRecord:
    node, name, addresses, last_contact_ms = row
    return NodeRecord(node, name, _addresses(addresses), last_contact_ms)


def _last(prekeys: tuple[PrekeyRecord, ...]) -> list[PrekeyRecord]:
    return sorted(prekeys, key=lambda key: key.made_ms)[-PREKEYS_KEPT:]


def _text(addresses: tuple[str, ...]) -> str:
    return msgspec.json.encode(addresses).decode()


def _addresses(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
