"""What audits of answers found, and a node that is asked for them."""

from __future__ import annotations

from msgspec.structs import replace

from infraxa.app.audit_values import AuditPlan, AuditsSeen
from infraxa.app.config import Settings
from infraxa.app.folders import Folders
from infraxa.net.identity import id_text
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE
from infraxa.store.records import AnswerFacts, Verdict
from tests.app.offered import CEDAR, MAPLE
from tests.app.priced import BILL, OF_TWO, PRICED, SIGNED, PricedNode

OWN = AuditPlan("own")
REFEREE = AuditPlan("referee", "This machine does not have the model's file.", referees=5, most=120)
NONE = AuditPlan(
    "none", "No other provider has this file.", "Pull the model, and this machine audits the answer."
)
VERDICT = Verdict(BILL.order, id_text(MAPLE.id), "signed", steps=413)
PASSED = replace(VERDICT, state="passed", by="own", opened=16, ratio=0.92)
RUNNING = replace(VERDICT, state="checking")
CAUGHT = replace(VERDICT, state="failed", why="wrong_token", opened=16, proof=True)
JUDGED = replace(CAUGHT, why="other_model", by="own", ratio=2.6, proof=False)
SILENT = replace(VERDICT, state="undetermined", why="silent")
UNVERIFIED = replace(VERDICT, state="unverified", why="sampling", steps=0)
EVERY_MODE = MODE_MERKLE | MODE_FRAUD_PROOF
COMMITTING = [
    replace(offer, model=replace(offer.model, modes=EVERY_MODE)) if offer.node.id == MAPLE.id else offer
    for offer in PRICED
]
"""Maple signs what it computes."""
PROVEN = "It is proven: it drew a token otherwise than it had signed."
FAILED = "It failed an audit: its numbers were not those of the model that it sold."
PROOF = "ef56" * 8
"""The order that is proven."""


def audited(*verdicts: Verdict) -> AnswerFacts:
    """A paid answer of maple, and what came of its audit."""
    return replace(SIGNED, verdicts=verdicts)


OF_TWO_AUDITED = replace(
    OF_TWO, verdicts=(PASSED, replace(JUDGED, order="ef56" * 8, driver=id_text(CEDAR.id)))
)


class AuditedNode(PricedNode):
    """It says of an audit what it was told to, and notes which were asked for."""

    offers = COMMITTING
    plan = OWN

    def __init__(self, settings: Settings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.audited: list[tuple[str, bool]] = []
        """Messages, and whether a referee may see them."""

    async def audit_plan(self, chat_id: str, message_id: str) -> AuditPlan:
        return self.plan

    async def audit_answer(self, chat_id: str, message_id: str, *, referee: bool = False) -> None:
        self.audited.append((message_id, referee))


def seen(passed: int, failed: int = 0, undetermined: int = 0) -> AuditsSeen:
    return AuditsSeen(passed, failed, undetermined, last_ms=1_790_000_000_000)
