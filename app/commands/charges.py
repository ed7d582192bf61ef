"""What an answer of `infraxa ask` cost: waits until both sides have signed it, and says it in words."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from infraxa.app.errors import FAILURES
from infraxa.app.events import Event, TradeChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.trade import ReceiptSeen
from infraxa.net.credits import shown
from infraxa.store.records import Bill

SIGNED_S: Final = 5.0
"""For both signatures, after the answer; what is not signed then is settled later."""
_LAST: Final = 20
"""Receipts among which those of an answer that has just ended are."""


async def settled(node: NodeFacade, bills: tuple[Bill, ...]) -> tuple[Bill, ...]:
    """The bills, once the receipts of all that can cost something are signed, or SIGNED_S have passed."""
    changed = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, TradeChanged):
            changed.set()

    end = node.subscribe(hear)
    try:
        async with asyncio.timeout(SIGNED_S):
            while True:
                changed.clear()
                if any(unsigned(bill) for bill in bills):
                    receipts = await node.list_receipts(role="user", count=_LAST)
                    signed = {one.order: one for one in receipts if one.state != "due"}
                    bills = tuple(_signed(bill, signed.get(bill.order)) for bill in bills)
                if not any(unsigned(bill) for bill in bills):
                    return bills
                await changed.wait()
    except (TimeoutError, *FAILURES):
        return bills  # the answer is whole; what it cost is told by its receipt
    finally:
        end()


def charged(bills: tuple[Bill, ...]) -> str:
    """What all of them cost; nothing when they cannot cost anything."""
    if not any(bill.hold for bill in bills):
        return ""
    if any(unsigned(bill) and not bill.charge for bill in bills):
        return "the charge is not known yet: infraxa receipts list shows it."
    said = f"charged {shown(sum(bill.charge for bill in bills))} credits"
    if disputed := sum(bill.disputed for bill in bills):
        said += f"; {shown(disputed)} more are disputed"
    if any(unsigned(bill) for bill in bills):
        return f"{said} as counted here; its receipt is not signed yet"
    return f"{said}, signed by both"


def unsigned(bill: Bill) -> bool:
    """It can cost something, and both sides have not signed yet."""
    return bill.hold > 0 and bill.state in ("open", "due")


def _signed(bill: Bill, receipt: ReceiptSeen | None) -> Bill:
    if receipt is None:
        return bill
    disputed = max(0, receipt.charge - receipt.accepted)
    return replace(
        bill,
        n_prompt=receipt.n_prompt,
        n_cached=receipt.n_cached,
        n_out=receipt.n_out,
        charge=receipt.accepted,
        disputed=disputed,
        state="disputed" if disputed else "signed",
    )
