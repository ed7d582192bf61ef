"""What a headless node tells of money: its price when it moved, what became of receipts, each once."""

from __future__ import annotations

from typing import Any

import msgspec

from infraxa.app.commands.journal import LATE_MS, Entry, Journal
from infraxa.app.events import ProviderChanged
from infraxa.app.serving import ProviderStatus
from infraxa.app.trade import ReceiptSeen
from infraxa.net.identity import id_text

SERVING = ProviderStatus("serving", model="guide", quantization="Q8_0", capacity=2)
DUE = ReceiptSeen(
    1, "provider", "ab" * 16, id_text(bytes(32)), "", "guide", 1000, 5, 0, 4, 50_000, 200_000, 20, 0, "due",
    "stop",
)  # fmt: skip


def told(journal: Journal, price_out: int, **changed: Any) -> list[Entry]:
    status = msgspec.structs.replace(SERVING, price_in=price_out // 4, price_out=price_out, **changed)
    return list(journal.take(ProviderChanged(status)))


def test_the_price_is_told_when_it_has_moved_by_a_tenth() -> None:
    journal = Journal()
    serving, price = told(journal, 200_000)
    assert serving.text == "serving guide (Q8_0) to others, 2 at a time, 0.20 credits per 1M tokens"
    assert (price.event, price.text, price.fields) == (
        "price",
        "",
        {"price_in": 50_000, "price_out": 200_000},
    )
    assert told(journal, 210_000) == told(journal, 219_999) == told(journal, 181_000) == []
    (price,) = told(journal, 220_000)
    assert price.fields["price_out"] == 220_000 and "0.22 credits" in price.text
    assert told(journal, 210_000) == []
    assert [entry.event for entry in told(journal, 210_000, mode="paused")] == ["provider"]
    assert [entry.event for entry in told(journal, 210_000)] == ["provider", "price"]


def test_a_free_provider_is_called_free() -> None:
    (serving, price) = told(Journal(), 0)
    assert serving.text.endswith("2 at a time, free") and price.fields["price_out"] == 0


def test_each_receipt_is_told_when_it_is_signed() -> None:
    journal = Journal()
    signed = msgspec.structs.replace(DUE, accepted=20, state="signed")
    old = msgspec.structs.replace(signed, order="cd" * 16)
    assert list(journal.receipts([old], 1000)) == []
    assert list(journal.receipts([DUE, old], 1000 + LATE_MS - 1)) == []
    (entry,) = journal.receipts([signed, old], 1000 + LATE_MS)
    assert (entry.event, entry.text) == ("receipt", "")
    assert entry.fields["order"] == DUE.order and entry.fields["state"] == "signed"
    assert (entry.fields["charge"], entry.fields["accepted"]) == (20, 20)
    assert list(journal.receipts([signed, old], 10**9)) == []


def test_a_receipt_that_nobody_signs_is_told_once_and_again_when_it_is_signed() -> None:
    journal = Journal()
    assert list(journal.receipts([], 1000)) == []
    (late,) = journal.receipts([DUE], 1000 + LATE_MS)
    assert late.fields["state"] == "unsigned" and "has not countersigned" in late.text
    assert "0.00002 credits" in late.text
    assert list(journal.receipts([DUE], 1001 + LATE_MS)) == []
    disputed = msgspec.structs.replace(DUE, accepted=15, state="disputed")
    (entry,) = journal.receipts([disputed], 2000 + LATE_MS)
    assert entry.fields["accepted"] == 15 and "disputes 0.000005 of 0.00002" in entry.text


def test_what_nobody_signed_before_the_start_is_told() -> None:
    (late,) = Journal().receipts([DUE], 1000 + LATE_MS)
    assert late.fields["state"] == "unsigned"
