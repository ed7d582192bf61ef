"""What the orders of an answer cost, as its facts have it. The money itself is in the ledger.

Takes the connection first and is run by `Store.run`, as all of the store.
"""

from __future__ import annotations

import msgspec

from infraxa.store.db import Connection, transaction
from infraxa.store.messages import encoded_facts, get_message
from infraxa.store.records import AnswerFacts, Bill

_STEPS = {"open": 0, "due": 1, "unclaimed": 2, "released": 3, "signed": 4, "disputed": 4}
"""How far a bill is: it goes no step back."""


def keep_bill(conn: Connection, message_id: str, bill: Bill) -> AnswerFacts:
    """Keep what an order of a message costs; the facts as they are then. Raises StoreError `not_found`."""
    with transaction(conn):
        facts = with_bill(get_message(conn, message_id).facts or AnswerFacts(), bill)
        conn.execute("UPDATE messages SET facts = ? WHERE id = ?", (encoded_facts(facts), message_id))
    return facts


def keep_stars(conn: Connection, message_id: str, stars: int) -> AnswerFacts:
    """Keep what the person gave an answer; the facts as they are then. Raises StoreError `not_found`."""
    with transaction(conn):
        facts = get_message(conn, message_id).facts or AnswerFacts()
        facts = msgspec.structs.replace(facts, stars=stars)
        conn.execute("UPDATE messages SET facts = ? WHERE id = ?", (encoded_facts(facts), message_id))
    return facts


def with_bill(facts: AnswerFacts, bill: Bill) -> AnswerFacts:
    """The facts with this bill in the place of an earlier one of its order; they may come in any order."""
    bills = {known.order: known for known in facts.bills}
    if bill.order not in bills or _STEPS[bill.state] >= _STEPS[bills[bill.order].state]:
        if bill.counted is None and bill.order in bills:
            bill = msgspec.structs.replace(bill, counted=bills[bill.order].counted)
        bills[bill.order] = bill
    return msgspec.structs.replace(facts, bills=tuple(bills.values()))
