"""What follows for a driver that was found out: it is remembered and not chosen any more, what proves it to
anybody takes the money back, and is told to others where that was agreed.

What is known of drivers is in audit_history.py, what a proof is in fraud.py; who is audited is decided in
auditor.py.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from infraxa.app import fraud
from infraxa.app.audit_history import AuditHistory
from infraxa.net import codec, deals
from infraxa.net.codec import Signed
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.identity import id_text
from infraxa.net.routing import Outcome
from infraxa.net.tasks import TaskGroup
from infraxa.store import buying, trade, verdicts
from infraxa.store.db import Store, now_ms
from infraxa.store.records import Verdict
from infraxa.store.verdicts import VerdictRow

if TYPE_CHECKING:
    from infraxa.app.fraud import Opened
    from infraxa.app.verifying import Kept
    from infraxa.net.link import Link
    from infraxa.store.trade_records import OrderRow

_log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What audits need of the rest of the node."""

    order_link: Callable[[bytes], Awaitable[Link]]
    observed: Callable[[bytes, bytes, Outcome], Awaitable[None]]
    """How a driver did with a model."""
    told: Callable[[str, str, Verdict], None]
    """What is known of an order of this message, in this chat."""
    publish: Callable[[bytes], object]
    """Tell others a proof. Raises ProtocolError."""
    changed: Callable[[], None]
    """Who may be chosen, or what is owed, is another one."""


class Convicting:
    """Of one node. `open` it once; `close` it before the store."""

    def __init__(self, node: Parts, history: AuditHistory) -> None:
        self._node = node
        self._history = history
        self._store: Store | None = None
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Remember what was found before. Raises StoreError."""
        self._store = store
        self._history.open(await store.run(verdicts.list_verdicts))

    async def close(self) -> None:
        self._store = None
        await self._tasks.cancel_all()

    async def keep(self, store: Store, row: VerdictRow, *, grey: bool = False) -> None:
        """Remember what came of an audit, first of all in memory: nothing is bought there meanwhile. Raises
        StoreError."""
        self._history.add(row, grey=grey)
        self._node.changed()
        await store.step(verdicts.keep, row)

    async def lied(
        self, store: Store, kept: Kept, receipt: Signed, verdict: Verdict, opened: Opened | None
    ) -> Verdict:
        """An audit found a lie; what is known of the order then. Raises StoreError."""
        proof = ""
        if opened is not None:
            try:
                proof = fraud.made(receipt, order=codec.encode(kept.order), opened=opened)
            except NetError as error:
                _log.warning("a lie has no proof: %s", error.message)
        told = replace(verdict, proof=bool(proof))
        await self._proven(store, VerdictRow(kept.provider, kept.order.model, now_ms(), told, proof))
        self._publish(proof, kept.order.mode)
        return told

    def twice(self, one: Signed, other: Signed) -> None:
        """A driver signed two receipts for one order of this node."""
        try:
            proof = fraud.made(one, other=other)
        except NetError as error:
            _log.debug("two receipts are no fraud: %s", error.message)
            return
        if self._store is not None:
            said: deals.Receipt = codec.decode(one.body, deals.Receipt)
            verdict = Verdict(said.order.hex(), id_text(one.signer), "failed", "two_receipts", proof=True)
            row = VerdictRow(one.signer, said.model, now_ms(), verdict, proof)
            self._tasks.spawn(self._twice(self._store, row), name="keep a proof of fraud")

    async def _twice(self, store: Store, row: VerdictRow) -> None:
        order = await self._proven(store, row)
        self._publish(row.proof, "" if order is None else order.mode)

    def convicted(self, provider: bytes, proof: bytes) -> None:
        """Somebody else proves that this provider lied; the proof was checked."""
        if self._store is not None and not self._history.is_guilty(provider):
            text = proof.decode("ascii")
            found = fraud.checked(text)
            verdict = Verdict(found.order.hex(), id_text(provider), "failed", found.kind, proof=True)
            row = VerdictRow(provider, found.model, now_ms(), verdict, text, told=True)
            self._tasks.spawn(self.keep(self._store, row), name="keep a proof of fraud")

    async def proof_of(self, order: str) -> str:
        """The file that proves what the driver of this order did; empty: there is none. Raises StoreError."""
        assert self._store is not None
        try:
            return await self._store.run(verdicts.proof_of, bytes.fromhex(order))
        except ValueError:
            return ""

    def _publish(self, proof: str, mode: str) -> None:
        """Tell others a proof, where the mode of its order says so."""
        if not proof or mode != "fraud_proof":
            return
        try:
            self._node.publish(proof.encode())
        except ProtocolError as error:
            _log.warning("a proof was not told to others: %s", error.reason)

    async def _proven(self, store: Store, row: VerdictRow) -> OrderRow | None:
        """A lie to this node; the order that it was told about. Raises StoreError."""
        await self.keep(store, row)
        order_id = bytes.fromhex(row.verdict.order)
        if row.proof:
            await store.step(buying.reverse, row.peer, order_id, row.proof.encode())
            self._node.changed()
        order = await store.run(trade.get_order, "user", row.peer, order_id)
        if order is not None and order.chat_id is not None and order.message_id is not None:
            self._node.told(order.chat_id, order.message_id, row.verdict)
        return order
