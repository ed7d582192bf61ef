"""A receipt as screens and commands are told of it: what was charged, what of that is agreed, and what an
audit of the answer found.
"""

from __future__ import annotations

from typing import Literal

from infraxa.app.trade import Audited, ReceiptSeen
from infraxa.app.verdict_words import brief
from infraxa.net.identity import id_text
from infraxa.net.names import clean_name
from infraxa.store.records import Verdict
from infraxa.store.trade_records import Counts, OrderRow, ReceiptRow


def receipt_seen(
    place: int, order: OrderRow, row: ReceiptRow, name: str, audit: Verdict | None
) -> ReceiptSeen:
    """`name`: of the peer, as it claims; `audit`: what came of one, if there was any."""
    counts, user = order.billed or Counts(), order.counted
    verdict = _verdict(order, audit)
    return ReceiptSeen(
        place=place,
        role=row.role,
        order=row.order_id.hex(),
        peer=id_text(row.peer),
        name=clean_name(name),
        model=order.model_name,
        at_ms=row.issued_at,
        n_prompt=counts.n_prompt,
        n_cached=counts.n_cached,
        n_out=counts.n_out,
        price_in=order.price_in,
        price_out=order.price_out,
        charge=row.charge,
        accepted=row.accepted or 0,
        state=_state(order, row),
        outcome=order.outcome,
        counted=(user.n_prompt, user.n_cached, user.n_out) if user is not None else None,
        canary=order.canary,
        verdict=verdict,
        why=brief(audit.why) if audit is not None and verdict in ("failed", "undetermined") else "",
        proven=audit is not None and audit.proof,
    )


def _verdict(order: OrderRow, audit: Verdict | None) -> Audited:
    if order.role == "provider" or order.outcome == "scored":
        return ""
    if audit is not None and audit.state != "checking":
        return audit.state
    return "unverified" if order.mode == "none" else "signed"


def _state(order: OrderRow, row: ReceiptRow) -> Literal["due", "signed", "disputed", "reversed"]:
    if order.reversed:
        return "reversed"
    if row.accepted is None:
        return "due"
    return "disputed" if row.disputed else "signed"
