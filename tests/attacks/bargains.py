"""Messages about money, one of every type, for whatever feeds decoders with them."""

from __future__ import annotations

from typing import Final

import msgspec

from infraxa.net import deals, ratings, receipt_file, wire
from infraxa.net.codec import Signed
from infraxa.net.identity import Signer

PROVIDER, ACCOUNT = Signer(bytes([1]) * 32), Signer(bytes([2]) * 32)
ORDER: Final = bytes(16)
QUOTE: Final = deals.Quote(ORDER, ACCOUNT.id, bytes(32), 50_000, 200_000, 12_500, 512, 1_000, 31_000)
TRANSCRIPT: Final = deals.Transcript(
    "merkle", bytes(32), 31, bytes(32), bytes(32), bytes(32), bytes(32), "1.0 cpu f16"
)
RECEIPT: Final = deals.Receipt(
    ORDER, ACCOUNT.id, bytes(32), bytes(32), b"", 50_000, 200_000, 12_500, 40, 8, 30, 7, "stop", 1, 2, 3, 4,
    TRANSCRIPT,
)  # fmt: skip
SETTLEMENT: Final = deals.Settlement(ORDER, PROVIDER.id, ACCOUNT.id, 5, 6, 7, b"", "for maple syrup", 8)
LINKED: Final = deals.Linked(PROVIDER.id, ACCOUNT.id, bytes(32))


def countersign(receipt: Signed) -> deals.Countersign:
    return deals.Countersign(deals.receipt_hash(receipt), 40, 30, 7, True, 3)


def values() -> list[deals.Deal]:
    """What is signed."""
    return [QUOTE, RECEIPT, countersign(deals.sign(RECEIPT, PROVIDER)), SETTLEMENT, LINKED]


def messages() -> list[msgspec.Struct]:
    """Requests and answers."""
    quote, receipt = deals.sign(QUOTE, PROVIDER), deals.sign(RECEIPT, PROVIDER)
    agreed = deals.sign(countersign(receipt), ACCOUNT)
    settlement, linked = deals.sign(SETTLEMENT, ACCOUNT), deals.sign(LINKED, PROVIDER)
    cosigned = deals.cosigned(linked.body, ACCOUNT, deals.Linked)
    return [
        wire.QuotePlease(bytes(32)), wire.Quoted(quote, -5, 6, 3), wire.ReceiptPlease(ORDER),
        wire.Billed("due", receipt), wire.CountersignPlease(ORDER, agreed),
        wire.Accepted(3, 4, receipt, ratings.blank(PROVIDER, ACCOUNT.id, 20_000, 7, ORDER)),
        wire.TabPlease(), wire.TabState(3, 4, 5, receipt, agreed), wire.LinkPlease(linked, cosigned),
        wire.LinkedTo(linked, cosigned), wire.SettlePlease(settlement, settlement),
        wire.Settled("agreed", cosigned, cosigned), wire.VocabPlease(bytes(32)), TRANSCRIPT,
        wire.AuditPlease(ORDER, bytes(32), True),
    ]  # fmt: skip


def lines() -> list[str]:
    """Of a file of receipts."""
    quote = deals.sign(QUOTE, PROVIDER)
    bought = msgspec.structs.replace(RECEIPT, quote=deals.quote_hash(quote))
    receipt = deals.sign(bought, PROVIDER)
    agreed = deals.sign(countersign(receipt), ACCOUNT)
    return [receipt_file.written(receipt, agreed, quote), receipt_file.written(receipt, None, None)]
