"""What an answer cost, in words: the cost and the state of its receipts in the line of facts, each order in
full below it, and the stars that it was given.

Charges are those of the bills; what is disputed never counts as charged.
"""

from __future__ import annotations

from typing import Final

from textual.content import Content

from infraxa.app.tui.widgets.driver import named
from infraxa.app.tui.widgets.figures import price, thousands
from infraxa.net.credits import shown
from infraxa.store.records import AnswerFacts, Bill, Message

MOST_STARS: Final = 5
NAMED: Final = "named"
"""The word after the stars of a rating that says which node gave it."""

_WORDS: Final = {
    "disputed": "disputed",
    "unclaimed": "unclaimed",
    "open": "receipt due",
    "due": "receipt due",
    "signed": "signed ✓",
    "released": "nothing owed",
}
"""The states of bills, the one that matters most first."""
STYLES: Final = {
    "disputed": "$text-warning",
    "unclaimed": "$text-warning",
    "signed ✓": "$text-success",
}
"""Those of these words that are not as quiet as the other facts."""
_QUIET = "$foreground 60%"


def cost_text(facts: AnswerFacts) -> str:
    """`0.00008 cr`, over all its orders; `free`; empty when no order was made for it."""
    if not facts.bills:
        return ""
    charged = sum(bill.charge for bill in facts.bills)
    if charged or any(bill.price_in or bill.price_out for bill in facts.bills):
        return f"{shown(charged)} cr"
    return "free"


def state_text(facts: AnswerFacts) -> str:
    """The state of its receipts: that of the one that matters most."""
    states = {bill.state for bill in facts.bills}
    return next((word for state, word in _WORDS.items() if state in states), "")


def counted_here(facts: AnswerFacts) -> int | None:
    """Tokens of the answer as counted here; None: not all of its parts could be."""
    counts = [bill.counted for bill in facts.bills if bill.n_out or bill.counted]
    if not counts or any(count is None for count in counts):
        return None
    return sum(count for count in counts if count is not None)


def tokens_text(facts: AnswerFacts) -> str:
    """`412 tokens (counted here: 412)`; what is not known is left out."""
    if not facts.n_out:
        return ""
    counted = counted_here(facts)
    here = f" (counted here: {thousands(counted)})" if counted is not None else ""
    return f"{facts.n_out} token{'s' if facts.n_out != 1 else ''}{here}"


def bill_lines(facts: AnswerFacts | None) -> list[Content]:
    """Each of its orders in full."""
    if facts is None:
        return []
    names = {part.id: part.name for part in facts.drivers}
    names |= {reader.id: reader.name for reader in facts.readers}
    return [_bill(bill, names.get(bill.driver, "")) for bill in facts.bills]


def _bill(bill: Bill, name: str) -> Content:
    cached = f" ({thousands(bill.n_cached)} cached)" if bill.n_cached else ""
    here = f", counted here: {thousands(bill.counted)}" if bill.counted is not None else ", not counted here"
    parts = [named(name, bill.driver), f"order {bill.order[:8]}"]
    if bill.price_in or bill.price_out:
        parts += [
            f"{price(bill.price_in)} in, {price(bill.price_out)} out per 1M",
            f"held {shown(bill.hold)} cr",
        ]
    if bill.n_prompt or bill.n_out:
        parts += [f"prompt {thousands(bill.n_prompt)}{cached}", f"{thousands(bill.n_out)} tokens{here}"]
    parts.append(f"{shown(bill.charge)} cr")
    word = _WORDS.get(bill.state, bill.state)
    if bill.disputed:
        word += f": it wants {shown(bill.disputed)} cr more"
    said = Content.styled(" · ".join(parts) + " · ", _QUIET)
    return said + Content.styled(word, STYLES.get(_WORDS.get(bill.state, ""), _QUIET))


def can_rate(message: Message) -> bool:
    """Whether both sides signed for this answer of a driver, and it was not rated yet."""
    facts = message.facts
    return (
        message.role == "assistant"
        and message.state != "streaming"
        and facts is not None
        and not facts.stars
        and any(bill.state in ("signed", "disputed") for bill in facts.bills)
    )


def read_rating(text: str) -> tuple[int, bool] | None:
    """The stars that a person wrote, and whether others learn which node it is: `4`, `4 named`. None: it is
    no rating."""
    stars, *rest = text.split() or [""]
    if stars not in map(str, range(1, MOST_STARS + 1)) or rest not in ([], [NAMED]):
        return None
    return int(stars), bool(rest)


def stars_text(stars: float) -> str:
    """`★★★★☆`."""
    full = max(0, min(MOST_STARS, round(stars)))
    return "★" * full + "☆" * (MOST_STARS - full)
