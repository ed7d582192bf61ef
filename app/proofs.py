"""The last change of a tab, as this side can prove it to the other: a receipt that both signed, or a
settlement. What is made of it is in bookkeeping.py for the user, in bills.py for the provider.
"""

from __future__ import annotations

from infraxa.app.settling import Proof
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.errors import ProtocolError
from infraxa.store.changes import last_change
from infraxa.store.db import Connection
from infraxa.store.trade_records import Role


def last(conn: Connection, role: Role, peer: bytes) -> wire.TabPlease:
    """What proves the tab as it is here; empty when nothing was ever signed."""
    found = last_change(conn, role, peer)
    if found is None or not found.proof:
        return wire.TabPlease()
    if found.kind == "receipt":
        return wire.TabPlease(codec.decode_signed(found.proof), codec.decode_signed(found.countersign))
    if found.kind == "adopted":
        told: wire.TabPlease = codec.decode(found.proof, wire.TabPlease)
        return told
    kept: Proof = codec.decode(found.proof, Proof)
    # A netted pair has one half for each tab.
    for settlement, signature in ((kept.settlement, kept.signature), (kept.netted, kept.netted_signature)):
        if settlement is not None and signature is not None:
            said: deals.Settlement = codec.decode(settlement.body, deals.Settlement)
            if peer == (said.provider if role == "user" else said.account):
                return wire.TabPlease(settlement=settlement, signature=signature)
    return wire.TabPlease()


def proven(said: wire.TabPlease | wire.TabState, account: bytes, provider: bytes) -> tuple[int, int]:
    """The number and the balance that both have signed; zeros when nothing is told.

    Raises ProtocolError for what they did not.
    """
    if said.settlement is not None and said.signature is not None:
        return _settled(said.settlement, said.signature, account, provider)
    if said.receipt is None or said.countersign is None:
        return 0, 0
    receipt = deals.opened_receipt(said.receipt, provider)
    countersign = deals.opened_countersign(said.countersign, account)
    if countersign.receipt != deals.receipt_hash(said.receipt) or receipt.account != account:
        raise ProtocolError("not_asked", "a receipt of others")
    if countersign.charge > receipt.charge:
        raise ProtocolError("malformed", "more than was asked")
    return receipt.seq, receipt.owed_before + countersign.charge


def _settled(signed: Signed, signature: codec.Signature, account: bytes, provider: bytes) -> tuple[int, int]:
    """Each half of a netted pair is proposed by the other side: who signed first does not matter."""
    if signed.signer not in (account, provider):
        raise ProtocolError("not_asked", "a settlement of others")
    other = provider if signed.signer == account else account
    said = deals.opened_settlement(signed, signed.signer)
    if (said.account, said.provider) != (account, provider):
        raise ProtocolError("not_asked", "a settlement of others")
    if not codec.verify("settle", Signed(signed.body, other, signature)):
        raise ProtocolError("bad_signature", "settlement")
    return said.seq, said.owed_before - said.amount
