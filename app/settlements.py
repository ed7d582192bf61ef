"""Settling what this node owes a driver otherwise than order by order: by what that driver owes it, else by
agreement between the two persons.

What the creditor does with such a proposal is in settling.py. A proposal is kept before it is sent, and sent
again as it was until it is answered: whatever ends in between, it happens on both sides once, or on none.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from infraxa.app import bookkeeping, trade
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.locked import ANSWER_S, Trading
from infraxa.app.paying import Paying
from infraxa.app.settling import Proof, let_know
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.credits import shown
from infraxa.net.errors import ProtocolError
from infraxa.net.tasks import TaskGroup
from infraxa.store import changes, state, tabs
from infraxa.store.db import Connection, Store, now_ms
from infraxa.store.trade_records import Refused

if TYPE_CHECKING:
    from infraxa.net.identity import Identity
    from infraxa.net.link import Link

SETTLED_S: Final = 10.0
"""For the receipts that are open with a driver, which come first."""
AGAIN_S: Final = 60.0
"""A proposal that waits for the other person is asked about again after so long."""
KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""A proposal that nobody answers is given up."""

_PROPOSED: Final = "settlement "
_DECLINED: Final = "proposal declined "
_log = logging.getLogger(__name__)


class Told(NamedTuple):
    """What became of a proposal of this node."""

    settling: trade.Settling
    note: str


class Settling(Trading, Protocol):
    """What is needed of the network."""

    @property
    def identity(self) -> Identity | None: ...


class Settlements:
    """Of one node, as a user. `open` it once; `close` it before the network and the store."""

    def __init__(
        self,
        network: Settling,
        paying: Paying,
        changed: Callable[[], None],
        served_back: Callable[[bytes, int], None] = lambda account, amount: None,
    ) -> None:
        """`changed`: told when tabs are others. `served_back`: told of an account here that owes so many µcr
        less, as this node owes its node less."""
        self._network = network
        self._paying = paying
        self._changed = changed
        self._served_back = served_back
        self._store: Store | None = None
        self._turn = asyncio.Lock()
        self._tasks = TaskGroup()

    def open(self, store: Store) -> None:
        self._store = store
        self._tasks.repeat(self._ask_again, name="settlements that wait", pause_s=AGAIN_S)

    async def close(self) -> None:
        await self._tasks.cancel_all()

    async def settle(self, provider: bytes, amount: int | None, note: str) -> str:
        """Owe `provider` less: first by what it owes this node, if both say who they are; what is left is
        proposed to its person. `amount`: µcr, None = all that is owed. Returns what happened, one sentence.

        That this node says to the driver which account is its own is what the person asks for by this.
        Raises NodeError, NetError, StoreError.
        """
        async with self._turn:
            return await self._said(provider, amount, note)

    async def _said(self, provider: bytes, amount: int | None, note: str) -> str:
        store = self._opened
        if amount is not None and amount <= 0:
            raise NodeError("bad_amount", "Only more than nothing can be settled.", "Give an amount.")
        link = await self._network.order_link(provider)
        if not await self._paying.settled(provider, SETTLED_S):
            raise NodeError(
                "receipt_due", "An order with this driver is not settled yet.", "Try again when it is."
            )
        if (kept := await store.run(_kept, provider)) is not None:
            before: deals.Settlement = codec.decode(kept.settlement.body, deals.Settlement)
            if (said := await self._send(link, provider, kept)) is not None:
                another = amount not in (None, before.amount) or note not in ("", before.note)
                if another and await store.run(_kept, provider) is not None:
                    said += " Nothing else can be proposed before that is answered."
                return said
        await store.run(let_know, provider)
        await self._link(link, provider)
        tab = await store.run(tabs.get_tab, "user", provider)
        wanted = tab.owed - tab.reversed if amount is None else min(amount, tab.owed)
        if wanted <= 0:
            raise NodeError("nothing_owed", "Nothing is owed on this tab.")
        proposal = await self._proposal(link, provider, wanted, note)
        await store.run(_keep, provider, proposal)
        self._changed()
        return await self._send(link, provider, proposal) or _refused()

    async def _link(self, link: Link, provider: bytes) -> None:
        """Say who this node is, and hear which account here is the driver's, if it says so."""
        me = self._me
        account = self._network.account(provider)
        mine = deals.sign(deals.Linked(me.id, account.id, provider), me)
        both = wire.LinkPlease(mine, deals.cosigned(mine.body, account, deals.Linked))
        told = await link.ask(both, wire.LinkedTo, ANSWER_S)
        if told.linked is None or told.signature is None:
            return
        said = deals.opened_linked(told.linked, provider)
        if (said.node, said.provider) != (provider, me.id):
            raise ProtocolError("not_asked", "a link of others")
        if not codec.verify("link", Signed(told.linked.body, said.account, told.signature)):
            raise ProtocolError("bad_signature", "link")
        await self._opened.run(tabs.link_node, said.account, provider)

    async def _proposal(self, link: Link, provider: bytes, wanted: int, note: str) -> wire.SettlePlease:
        me, account = self._me, self._network.account(provider)
        told, _ = await bookkeeping.tell(self._opened, link, account.id, provider)
        mine = await self._opened.run(tabs.get_tab, "user", provider)
        if told.owed != mine.owed:
            raise NodeError(
                "books_differ",
                f"Its book says {shown(told.owed)} credits, this one {shown(mine.owed)}.",
                "Nothing is settled before both are the same: infraxa tabs show tells more.",
            )
        if told.due is not None:
            raise NodeError(
                "receipt_due", "An order with this driver is not settled yet.", "Try again when it is."
            )
        seq = told.next or told.seq + 1
        if seq < mine.seq:
            raise NodeError("books_differ", "Its numbers go back.", "Nothing is settled on such a tab.")
        number, other = os.urandom(16), os.urandom(16)
        theirs = next(
            (tab for tab in await self._opened.run(tabs.list_tabs, "provider") if tab.node == provider), None
        )
        netted: Signed | None = None
        if theirs is not None and theirs.owed > 0:
            wanted = min(wanted, theirs.owed)
            half = deals.Settlement(
                other, me.id, theirs.peer, wanted, theirs.seq + 1, theirs.owed, number, "", now_ms()
            )
            netted = deals.sign(half, me)
        settlement = deals.Settlement(
            number,
            provider,
            account.id,
            wanted,
            seq,
            told.owed,
            other if netted is not None else b"",
            note[:128],
            now_ms(),
        )
        return wire.SettlePlease(deals.sign(settlement, account), netted)

    async def _send(self, link: Link, provider: bytes, proposal: wire.SettlePlease) -> str | None:
        """Send it (again); None when the other side refused it for good."""
        answer = await link.ask(proposal, wire.Settled, ANSWER_S)
        said: deals.Settlement = codec.decode(proposal.settlement.body, deals.Settlement)
        if answer.state == "waiting":
            return (
                f"Proposed: {shown(said.amount)} credits. It counts when the person of the driver has agreed."
            )
        if answer.state == "refused":
            await self._opened.run(_forget, provider, said.amount if answer.declined else 0)
            self._changed()
            if answer.declined:
                raise NodeError(
                    "declined",
                    declined_words(said.amount),
                    "Ask why, then propose what you two agree on.",
                )
            return None
        self._check(provider, proposal, answer)
        less = await self._opened.run(_post, provider, said, proposal, answer)
        if less is not None:
            self._served_back(less.account, less.amount)
        # After that: else what ends in between is settled there and not here.
        await self._opened.run(_forget, provider)
        self._changed()
        how = "by what it owes this node" if proposal.netted is not None else "as agreed"
        return f"Settled {how}: {shown(said.amount)} credits."

    def _check(self, provider: bytes, proposal: wire.SettlePlease, answer: wire.Settled) -> None:
        """Raises ProtocolError unless the other side signed all of it."""
        signed = [(proposal.settlement.body, provider, answer.signature)]
        if proposal.netted is not None:
            other: deals.Settlement = codec.decode(proposal.netted.body, deals.Settlement)
            signed.append((proposal.netted.body, other.account, answer.netted_signature))
        for body, signer, signature in signed:
            if signature is None or not codec.verify("settle", Signed(body, signer, signature)):
                raise ProtocolError("bad_signature", "settle")

    async def told(self) -> dict[bytes, Told]:
        """By driver: what became of the last proposal, where it is not settled. Raises StoreError."""
        return await self._opened.run(_told)

    async def _ask_again(self) -> None:
        """About proposals that wait for the other person, or whose answer did not come."""
        await asyncio.sleep(AGAIN_S)
        for provider, made_ms in await self._opened.run(_waiting):
            if now_ms() - made_ms > KEPT_MS:
                await self._opened.run(_forget, provider)
                continue
            try:
                async with self._turn:
                    kept = await self._opened.run(_kept, provider)
                    if kept is not None:
                        await self._send(await self._network.order_link(provider), provider, kept)
            except FAILURES as error:
                _log.debug("a settlement is asked about later: %s", error.code)
            except Exception as error:  # of the link: it is closed, or the other side broke the protocol
                _log.info("a settlement is asked about later: %s", type(error).__name__)

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        return self._store

    @property
    def _me(self) -> Identity:
        if self._network.identity is None:
            raise NodeError("offline", "This node has not been online yet.", "Turn the setting online on.")
        return self._network.identity


def declined_words(amount: int) -> str:
    """What is said of a proposal of so many µcr."""
    return f"The other person declined to settle {shown(amount)} credits."


def _refused() -> str:
    raise NodeError(
        "refused",
        "The driver did not accept it: its tab has changed, or it does not know this node's.",
        "Try again; what it owes you counts when its person has settled with you as well.",
    )


def _keep(conn: Connection, provider: bytes, proposal: wire.SettlePlease) -> None:
    said: deals.Settlement = codec.decode(proposal.settlement.body, deals.Settlement)
    tabs.promise(conn, provider, said.seq)
    state.set_value(conn, _DECLINED + provider.hex(), None)
    state.set_value(conn, _PROPOSED + provider.hex(), [now_ms(), codec.encode(proposal).hex()])


def _kept(conn: Connection, provider: bytes) -> wire.SettlePlease | None:
    kept = state.get_value(conn, _PROPOSED + provider.hex(), tuple[int, str])
    if kept is None:
        return None
    proposal: wire.SettlePlease = codec.decode(bytes.fromhex(kept[1]), wire.SettlePlease)
    return proposal


def _forget(conn: Connection, provider: bytes, declined: int = 0) -> None:
    """The last proposal is over. `declined`: µcr that the other person did not agree to."""
    state.set_value(conn, _PROPOSED + provider.hex(), None)
    state.set_value(conn, _DECLINED + provider.hex(), declined or None)


def _told(conn: Connection) -> dict[bytes, Told]:
    found: dict[bytes, Told] = {}
    for name, amount in state.list_values(conn, _DECLINED, int):
        found[bytes.fromhex(name.removeprefix(_DECLINED))] = Told("declined", declined_words(amount))
    for provider, _ in _waiting(conn):
        if (kept := _kept(conn, provider)) is not None and kept.netted is None:
            said: deals.Settlement = codec.decode(kept.settlement.body, deals.Settlement)
            if said.seq > tabs.get_tab(conn, "user", provider).signed_seq:  # else it is void
                text = f"You proposed to settle {shown(said.amount)} credits: not answered yet."
                found[provider] = Told("proposed", text)
    return found


def _waiting(conn: Connection) -> list[tuple[bytes, int]]:
    """The drivers with a proposal that is not answered, and when it was made."""
    return [
        (bytes.fromhex(name.removeprefix(_PROPOSED)), value[0])
        for name, value in state.list_values(conn, _PROPOSED, tuple[int, str])
    ]


def _post(
    conn: Connection,
    provider: bytes,
    said: deals.Settlement,
    proposal: wire.SettlePlease,
    answer: wire.Settled,
) -> deals.Settlement | None:
    """Write what both have signed, once. Gives the half by which an account owes this node less since this
    very call."""
    assert answer.signature is not None
    proof = codec.encode(
        Proof(proposal.settlement, answer.signature, proposal.netted, answer.netted_signature)
    )
    # An answer that did not come may have been told since, as the last change of the tab.
    known = changes.adopted(conn, "user", provider, said.seq)
    told: wire.TabPlease | None = codec.decode(known, wire.TabPlease) if known else None
    done = told is not None and told.settlement == proposal.settlement
    refused: Refused | None = None
    less: deals.Settlement | None = None
    if proposal.netted is None:
        if not done:
            refused = tabs.settle(
                conn, said.id.hex(), "user", provider, said.amount, said.note, proof, seq=said.seq
            )
    else:
        other: deals.Settlement = codec.decode(proposal.netted.body, deals.Settlement)
        if tabs.get_tab(conn, "provider", other.account).seq < other.seq:
            less = other  # else it was posted before
        # Of a pair, one half is not of that tab.
        if done:
            refused = tabs.settle(
                conn, other.id.hex(), "provider", other.account, other.amount, "", proof, seq=other.seq
            )
        else:
            refused = tabs.net_tabs(
                conn,
                said.id.hex(),
                other.account,
                provider,
                said.amount,
                "",
                proof,
                account_seq=other.seq,
                provider_seq=said.seq,
            )
    if refused is not None:
        tabs.set_note(
            conn,
            "user",
            provider,
            f"{shown(said.amount)} credits were settled there and not here ({refused.reason}).",
        )
        return None
    return less
