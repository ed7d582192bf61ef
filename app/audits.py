"""The audits of one node: their parts, made together, opened and closed in their order.

Which answers are audited is decided in auditor.py, how one is in examining.py, by whom in replaying.py and
referees.py; what follows is in convicting.py. What is sent only to be audited is in canaries.py, what front
ends are told in audit_values.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from infraxa.app import fraud
from infraxa.app.audit_values import AuditPlan
from infraxa.app.auditor import Auditor
from infraxa.app.buyer import Buyer
from infraxa.app.canaries import Canaries
from infraxa.app.config import Settings
from infraxa.app.convicting import Convicting, Parts
from infraxa.app.drivers import Drivers
from infraxa.app.errors import NodeError
from infraxa.app.models import Models
from infraxa.app.purse import Purse
from infraxa.app.referees import Referees
from infraxa.app.replaying import Replaying
from infraxa.store.db import Store
from infraxa.store.records import Reader, Verdict

if TYPE_CHECKING:
    from infraxa.app.network import NodeNetwork


class Audits:
    """Of one node. `open` it once; `close` it before the network, the models and the store."""

    def __init__(
        self,
        models: Models,
        network: NodeNetwork,
        drivers: Drivers,
        purse: Purse,
        buyer: Buyer,
        *,
        settings: Callable[[], Settings],
        scratch: Path,
        told: Callable[[str, str, Verdict], None],
        read_by: Callable[[str, str, Reader], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        """`scratch`: a folder for what is there for a while. `told`, `changed`: see convicting.Parts,
        `read_by`: see referees.Referees. The purse tells of answers that can be audited from now on."""
        self._network = network
        self._history = drivers.audit_history
        parts = Parts(network.order_link, drivers.observed, told, network.tell_proof, changed)
        self._replaying = Replaying(models, settings, scratch)
        self._convicting = Convicting(parts, drivers.audit_history)
        referees = Referees(network, drivers, purse, read_by)
        self._auditor = Auditor(
            parts, self._replaying, drivers.audit_history, self._convicting, referees=referees
        )
        self._canaries = Canaries(
            buyer,
            purse,
            drivers.audit_history,
            lambda: drivers.offers(network.nodes()),
            self._replaying.copy,
            referees.reachable,
        )
        self.noise = self._replaying.noise
        """See Replaying.noise."""
        self.step_aside = self._replaying.step_aside
        """See Replaying.step_aside."""
        purse.checks = self._auditor
        purse.paying.twice = self._convicting.twice

    async def open(self, store: Store) -> None:
        """Audit from now on, and judge the proofs that others tell. Raises StoreError."""
        await self._auditor.open(store)
        self._network.judge_proofs(fraud.guilty, self._convicting.convicted, self._history.told)

    async def close(self) -> None:
        """End those that are under way."""
        await self._canaries.close()
        await self._auditor.close()

    def use(self, settings: Settings) -> None:
        """Audit as these settings say."""
        self._auditor.automatic = settings.audit == "auto"
        self._canaries.use(settings)

    async def plan(self, chat_id: str, message_id: str) -> AuditPlan:
        """What an audit of this answer would be. Raises StoreError."""
        return await self._auditor.plan((chat_id, message_id))

    async def audit(self, chat_id: str, message_id: str, *, referee: bool) -> None:
        """Begin to audit it; see Auditor.audit."""
        await self._auditor.audit((chat_id, message_id), referee=referee)

    async def verdicts(self, orders: Iterable[str], seconds: float) -> list[Verdict]:
        """See Auditor.verdicts; orders by their numbers in hex."""
        return await self._auditor.verdicts(map(bytes.fromhex, orders), seconds)

    async def proof_of(self, order: str) -> str:
        """The file that proves what the driver of this order did, its number in hex. Raises NodeError
        `no_proof`, StoreError."""
        if not (proof := await self._convicting.proof_of(order)):
            raise NodeError(
                "no_proof",
                "There is no proof about this order.",
                "Only a lie that shows by itself has one: infraxa providers --json names its order.",
            )
        return proof
