"""What audits of answers found, and the honest noise of models by which they are judged.

Takes the connection first and is run by `Store.run`, as all of the store.
"""

from __future__ import annotations

from typing import Final

import msgspec

from infraxa.store.db import Connection, transaction
from infraxa.store.messages import encoded_facts, get_message
from infraxa.store.records import AnswerFacts, Verdict

VERDICTS_KEPT: Final = 10_000
"""Of own audits; of those that failed, all are."""
TOLD_KEPT: Final = 1000
"""Of those that others proved."""


class VerdictRow(msgspec.Struct, frozen=True):
    """What came of one audit, or what somebody else proved."""

    peer: bytes
    """The driver."""
    model: bytes
    """The model_id."""
    at_ms: int
    verdict: Verdict
    proof: str = ""
    """The file that proves a lie; empty: none does."""
    told: bool = False
    """Somebody else proved it; this node did not audit it."""


def keep(conn: Connection, row: VerdictRow) -> None:
    """Keep it in place of what is known of this order."""
    verdict = row.verdict
    state = _TOLD if row.told else verdict.state
    with transaction(conn):
        conn.execute(
            "INSERT INTO verdicts (order_id, peer, model, at_ms, state, verdict, proof) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (order_id, peer) DO UPDATE SET at_ms = excluded.at_ms, "
            "state = excluded.state, verdict = excluded.verdict, proof = excluded.proof",
            (
                bytes.fromhex(verdict.order), row.peer, row.model, row.at_ms, state,
                msgspec.json.encode(verdict), row.proof.encode() or None,
            ),
        )  # fmt: skip
        for which, most in (("NOT IN ('failed', 'told')", VERDICTS_KEPT), ("= 'told'", TOLD_KEPT)):
            conn.execute(
                f"DELETE FROM verdicts WHERE rowid IN (SELECT rowid FROM verdicts WHERE state {which} "
                "ORDER BY at_ms DESC LIMIT -1 OFFSET ?)",
                (most,),
            )


def list_verdicts(conn: Connection) -> list[VerdictRow]:
    """All of them, the oldest first."""
    rows = conn.execute(
        "SELECT peer, model, at_ms, verdict, proof, state FROM verdicts ORDER BY at_ms, rowid"
    )
    return [
        VerdictRow(
            peer,
            model,
            at_ms,
            msgspec.json.decode(verdict, type=Verdict),
            (proof or b"").decode(),
            state == _TOLD,
        )
        for peer, model, at_ms, verdict, proof, state in rows
    ]


def of_receipts(conn: Connection, first: int, last: int) -> dict[int, Verdict]:
    """What came of the audits of what was bought, by the places of the receipts from `first` to `last`."""
    # In this order: there are fewer receipts on a page than verdicts.
    rows = conn.execute(
        "SELECT r.order_n, v.verdict FROM receipts r CROSS JOIN orders o ON o.n = r.order_n "
        "CROSS JOIN verdicts v ON v.order_id = o.id AND v.peer = o.peer "
        "WHERE r.role = 'user' AND r.order_n BETWEEN ? AND ?",
        (first, last),
    )
    return {place: msgspec.json.decode(verdict, type=Verdict) for place, verdict in rows}


def proof_of(conn: Connection, order_id: bytes) -> str:
    """The file that proves what the driver of this order did; empty: there is none."""
    row = conn.execute(
        "SELECT proof FROM verdicts WHERE order_id = ? AND proof IS NOT NULL", (order_id,)
    ).fetchone()
    return "" if row is None else bytes(row[0]).decode()


def noise(conn: Connection, file: str, kind: str) -> float | None:
    """The honest noise of this model file on this kind of machine; None: it was not measured."""
    row = conn.execute("SELECT mu0 FROM noise WHERE file = ? AND kind = ?", (file, kind)).fetchone()
    return None if row is None else float(row[0])


def keep_noise(conn: Connection, file: str, kind: str, mu0: float) -> None:
    """`file`: the SHA-256 of the model, in hex."""
    conn.execute(
        "INSERT INTO noise (file, kind, mu0, at_ms) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (file, kind) DO UPDATE SET mu0 = excluded.mu0, at_ms = excluded.at_ms",
        (file, kind, mu0, conn.clock()),
    )


def keep_verdict(conn: Connection, message_id: str, verdict: Verdict) -> AnswerFacts:
    """Keep it with the message whose order it is about; the facts as they are then. Raises StoreError
    `not_found`."""
    with transaction(conn):
        facts = with_verdict(get_message(conn, message_id).facts or AnswerFacts(), verdict)
        conn.execute("UPDATE messages SET facts = ? WHERE id = ?", (encoded_facts(facts), message_id))
    return facts


def with_verdict(facts: AnswerFacts, verdict: Verdict) -> AnswerFacts:
    """The facts with this verdict in the place of an earlier one of its order: that it is signed says less
    than what an audit found."""
    verdicts = {known.order: known for known in facts.verdicts}
    known = verdicts.get(verdict.order)
    if known is None or verdict.state not in ("signed", "unverified") or known.state in _BEGUN:
        verdicts[verdict.order] = verdict
    return msgspec.structs.replace(facts, verdicts=tuple(verdicts.values()))


_TOLD: Final = "told"
"""In place of a state: somebody else proved it."""
_BEGUN: Final = ("signed", "unverified", "checking")
