"""What a provider charges for its orders: receipts, one unsigned at a time, and what their users sign.

Functions on the ledger, each of them one transaction that may be repeated; who may buy is in intake.py.
"""

from __future__ import annotations

from typing import Final, get_args

from infraxa.app import proofs
from infraxa.net import codec, deals, ratings, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Signer
from infraxa.store import ledger, selling, tabs, trade
from infraxa.store.db import Connection
from infraxa.store.trade_records import Counts, OrderRow, ReceiptRow, Refused

_OUTCOMES: Final[tuple[deals.Outcome, ...]] = get_args(deals.Outcome)
DIFFERS: Final = "Its book has another balance under the same number, and both are signed."


def bill(conn: Connection, signer: Signer, account: bytes, order: bytes) -> wire.Billed:
    """What is charged for this order of this account; its receipt is issued if it is its turn."""
    found = selling.issue_receipt(conn, account, order, lambda row, *at: _receipt(signer, row, *at))
    if isinstance(found, ReceiptRow):
        return wire.Billed(
            "due" if found.countersign is None else "signed", codec.decode_signed(found.receipt)
        )
    match found.reason:
        case "running":
            return wire.Billed("running")
        case "unknown":
            return wire.Billed("unknown")
        case "out_of_step":
            return wire.Billed("tell")
        case _:
            return wire.Billed("queued")


def countersign(
    conn: Connection, signer: Signer, account: bytes, order: bytes, signed: Signed
) -> wire.Accepted | wire.Failure:
    """Keep what the account says to its receipt, and tell what is next. What is kept already stays.

    Raises ProtocolError for what the account did not sign.
    """
    kept = trade.get_receipt(conn, "provider", account, order)
    if kept is None:
        return wire.Failure("bad_request", field="order")
    receipt = codec.decode_signed(kept.receipt)
    said = deals.opened_countersign(signed, account)
    if said.receipt != deals.receipt_hash(receipt):
        return wire.Failure("bad_request", field="receipt")
    if said.charge > kept.charge:
        return wire.Failure("bad_request", field="charge", limit=kept.charge)
    facts: deals.Receipt = codec.decode(receipt.body, deals.Receipt)
    # What is disputed moves nothing, and nobody is rated for it.
    blank = ratings.blank(signer, account, ratings.day_of(facts.ended), said.charge, order)
    done = selling.accept_countersign(
        conn,
        account,
        order,
        countersign=codec.encode(signed),
        counted=Counts(said.n_prompt, min(facts.n_cached, said.n_prompt), said.n_out),
        accepted=said.charge,
        rating=codec.encode(blank),
    )
    if isinstance(done, Refused):
        return wire.Failure("bad_request", field="order")
    return wire.Accepted(
        done.tab_seq,
        facts.owed_before + (done.accepted or 0),
        _next(conn, signer, account),
        None if done.rating is None else codec.decode_signed(done.rating),
    )


def hear(conn: Connection, me: Signer, account: bytes, said: wire.TabPlease) -> bool:
    """After a restored backup: adopt what the account proves that both signed last; it may be nothing.
    Whether that changed anything. Raises ProtocolError for what they did not sign.
    """
    if not tabs.get_tab(conn, "provider", account).needs_sync:
        return False
    seq, amount = proofs.proven(said, account, me.id)
    result = tabs.adopt_state(conn, "provider", account, seq, amount, proof=codec.encode(said))
    if result == "differs":
        tabs.set_note(conn, "provider", account, DIFFERS)
    return True


def tab_state(conn: Connection, account: bytes, limit: int) -> wire.TabState:
    """What the book has of this account; `limit`: see `most`."""
    tab = tabs.get_tab(conn, "provider", account)
    last = proofs.last(conn, "provider", account)
    due = selling.due(conn, account).receipt
    return wire.TabState(
        tab.signed_seq,
        tab.owed,
        most(conn, account, limit),
        last.receipt,
        last.countersign,
        last.settlement,
        last.signature,
        tab.seq + 1,
        None if due is None else codec.decode_signed(due.receipt),
    )


def most(conn: Connection, account: bytes, limit: int) -> int:
    """µcr that this account may owe; `limit` holds for those without one of their own. What it disputed is
    taken off, else whoever disputes everything is served for ever."""
    tab = tabs.get_tab(conn, "provider", account)
    return max(0, (limit if tab.limit is None else tab.limit) - tab.disputed)


def standing(conn: Connection, account: bytes, limit: int) -> tuple[int, int]:
    """What it owes, unsigned charges and open holds included, and what it may; see `most`."""
    _, held = trade.tab_limit(conn, "provider", account, limit)
    return owed(conn, account) + held, most(conn, account, limit)


def owed(conn: Connection, account: bytes) -> int:
    """µcr that it owes by what it signed."""
    return ledger.owed(conn, "provider", account)


def _next(conn: Connection, signer: Signer, account: bytes) -> Signed | None:
    """The receipt that is to be signed now."""
    open_bills = selling.due(conn, account)
    if open_bills.receipt is not None:
        return codec.decode_signed(open_bills.receipt.receipt)
    for order in open_bills.waiting[:1]:
        return bill(conn, signer, account, order).receipt
    return None


def _receipt(signer: Signer, row: OrderRow, seq: int, owed_before: int) -> bytes:
    counts = row.billed or Counts()
    outcome: deals.Outcome = next((known for known in _OUTCOMES if known == row.outcome), "failed")
    return codec.encode(
        deals.sign(
            deals.Receipt(
                order=row.id,
                account=row.peer,
                model=row.model,
                request=bytes.fromhex(row.message_id or ""),
                quote=deals.quote_hash(codec.decode_signed(row.quote)) if row.quote else b"",
                price_in=row.price_in,
                price_out=row.price_out,
                price_cached=row.price_cached,
                n_prompt=counts.n_prompt,
                n_cached=counts.n_cached,
                n_out=counts.n_out,
                charge=row.charge or 0,
                outcome=outcome,
                started=row.claimed_at or row.opened_at,
                ended=row.ended_at or row.opened_at,
                seq=seq,
                owed_before=owed_before,
                transcript=codec.decode(row.transcript, deals.Transcript) if row.transcript else None,
            ),
            signer,
        )
    )
