"""How a tab at this provider is reduced otherwise than by receipts: persons agree, or both tabs are netted.

Whose account is whose node is said by both keys (deals.Linked). Functions on the ledger; each may be repeated
and happens once.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from msgspec import Struct

from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signature, Signed
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Identity, Signer
from infraxa.store import state, tabs
from infraxa.store.db import Connection
from infraxa.store.trade_records import TabRow

_LINKED: Final = "linked "
_DECLINED: Final = "declined "


def let_know(conn: Connection, node: bytes) -> None:
    """The person agrees that this node learns which account is its own there."""
    state.set_value(conn, _LINKED + node.hex(), True)


def may_know(conn: Connection, node: bytes) -> bool:
    """Whether the person agreed to that: without it any provider could find out who its users are."""
    return state.get_value(conn, _LINKED + node.hex(), bool) is True


class Done(NamedTuple):
    """What came of a settlement."""

    answer: wire.Settled
    posted: bool = False
    """By this very call: the account owes less than before it."""


class Proof(Struct, array_like=True, frozen=True):
    """What is kept of a settlement: what both sides signed."""

    settlement: Signed
    signature: Signature
    netted: Signed | None = None
    netted_signature: Signature | None = None


def link(conn: Connection, me: Identity, account: bytes, request: wire.LinkPlease) -> wire.LinkedTo:
    """The account says which node it is: remember it, and say the same of this node, if it buys there.

    Raises ProtocolError for what not both keys signed.
    """
    node = request.linked.signer
    said = deals.opened_linked(request.linked, node)
    if (said.node, said.account, said.provider) != (node, account, me.id):
        raise ProtocolError("not_asked", "a link of others")
    if not codec.verify("link", Signed(request.linked.body, account, request.signature)):
        raise ProtocolError("bad_signature", "link")
    if not tabs.get_tab(conn, "provider", account).signed_seq:
        return wire.LinkedTo()  # there is nothing to net, and nothing is kept of whoever comes along
    tabs.link_node(conn, account, node)
    if tabs.get_tab(conn, "user", node).signed_seq == 0 or not may_know(conn, node):
        return wire.LinkedTo()  # it need not know which account this node has there
    own = me.account_key(node)
    mine = deals.sign(deals.Linked(me.id, own.id, node), me)
    return wire.LinkedTo(mine, deals.cosigned(mine.body, own, deals.Linked))


def opened(me: Signer, account: bytes, signed: Signed) -> deals.Settlement:
    """What the account proposes. Raises ProtocolError."""
    said = deals.opened_settlement(signed, account)
    if (said.provider, said.account) != (me.id, account):
        raise ProtocolError("not_asked", "a settlement of others")
    return said


def is_new(conn: Connection, said: deals.Settlement) -> Literal["new", "old", "stale"]:
    """Whether the proposal is about the tab as it is now (`new`), about an earlier state of it (`old`: it may
    have been settled), or about none that was (`stale`)."""
    tab = tabs.get_tab(conn, "provider", said.account)
    if said.seq <= tab.seq:
        return "old"
    return "new" if fits(tab, said) else "stale"


def fits(tab: TabRow, said: deals.Settlement) -> bool:
    """The proposal is about the tab as it is."""
    return (said.seq, said.owed_before) == (tab.seq + 1, tab.owed) and said.amount <= tab.owed


def agree(conn: Connection, me: Signer, signed: Signed) -> Done:
    """The person agrees: it is posted, once. Refused when it was declined, or the tab has changed since."""
    said: deals.Settlement = codec.decode(signed.body, deals.Settlement)
    if is_declined(conn, said):
        return Done(wire.Settled("refused", declined=True))
    if (standing := is_new(conn, said)) == "stale":
        return Done(wire.Settled("refused"))
    signature = deals.cosigned(signed.body, me, deals.Settlement)
    proof = codec.encode(Proof(signed, signature))
    refused = tabs.settle(
        conn, said.id.hex(), "provider", said.account, said.amount, said.note, proof, seq=said.seq
    )
    if refused is not None:
        return Done(wire.Settled("refused"))
    return Done(wire.Settled("agreed", signature), posted=standing == "new")


def decline(conn: Connection, said: deals.Settlement) -> bool:
    """The person does not agree: remembered of the last one of each account. False, and nothing is changed,
    when the tab is another one since: it may have been agreed to."""
    if is_new(conn, said) != "new":
        return False
    state.set_value(conn, _DECLINED + said.account.hex(), said.id.hex())
    return True


def is_declined(conn: Connection, said: deals.Settlement) -> bool:
    """Whether the person has declined this one."""
    return state.get_value(conn, _DECLINED + said.account.hex(), str) == said.id.hex()


def net(conn: Connection, me: Identity, said: deals.Settlement, request: wire.SettlePlease) -> Done:
    """What the account owes this node, and what this node owes the node behind the account, shrink by the
    same: both or none. Nobody need be asked, since what remains is the same for both.

    Raises ProtocolError for a second settlement that is not the first one's other half.
    """
    assert request.netted is not None
    node = tabs.get_tab(conn, "provider", said.account).node
    other = request.netted.signer
    theirs = deals.opened_settlement(request.netted, other)
    if theirs.provider != other:
        raise ProtocolError("not_asked", "a settlement of others")
    if (theirs.against, said.against, theirs.amount) != (said.id, theirs.id, said.amount):
        raise ProtocolError("malformed", "halves that do not fit")
    # Before its account is looked at: else a provider could try which of its users this node is.
    if other != node or not may_know(conn, other):
        return Done(wire.Settled("refused"))
    own = me.account_key(other)
    if theirs.account != own.id:
        raise ProtocolError("not_asked", "a settlement of others")
    if (standing := is_new(conn, said)) != "old":
        mine = tabs.get_tab(conn, "user", other)
        fits = (theirs.seq > mine.signed_seq, theirs.owed_before == mine.owed, said.amount <= mine.owed)
        if standing == "stale" or not all(fits):
            return Done(wire.Settled("refused"))
    signature = deals.cosigned(request.settlement.body, me, deals.Settlement)
    other_signature = deals.cosigned(request.netted.body, own, deals.Settlement)
    refused = tabs.net_tabs(
        conn,
        said.id.hex(),
        said.account,
        other,
        said.amount,
        "",
        codec.encode(Proof(request.settlement, signature, request.netted, other_signature)),
        account_seq=said.seq,
        provider_seq=theirs.seq,
    )
    if refused is not None:
        return Done(wire.Settled("refused"))
    return Done(wire.Settled("agreed", signature, other_signature), posted=standing == "new")
