"""An order in words: what is waited for, and how it ended when it did not end well, with the driver's name.

Only texts are here. Nothing that a driver wrote is part of one, but for the name that it claims, cleaned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from infraxa.app.errors import NodeError
from infraxa.engine.types import ErrorInfo
from infraxa.net.credits import shown as shown_amount
from infraxa.net.identity import short_id
from infraxa.net.names import clean_name
from infraxa.net.patience import Pace
from infraxa.net.routing import Blame
from infraxa.net.status import NetworkStatus
from infraxa.store.trade_records import RefusalReason

FOUND_HERE = frozenset({"silent", "stalled", "gone", "garbage"})
"""How an order ends that its driver did not end in good order."""
PROMPT_TOO_LONG = "prompt_too_long"
"""The code for a conversation that the model cannot hold, whoever says it."""

_AGAIN = "Try again{when}, or choose another driver."
_OTHER = "Choose another driver."


class _Words(NamedTuple):
    sentence: str
    remedy: str = _AGAIN


_ENDS: Mapping[str, _Words] = {
    # Said by the driver: the codes of the wire.
    "busy": _Words("{name} is busy with other answers."),
    "rate_limited": _Words("{name} takes no more requests from you for a while."),
    "model_gone": _Words(
        "{name} does not serve this model any more.", "Choose another of its models, or another driver."
    ),
    "too_large": _Words(
        "The conversation is longer than what {name} can hold{tokens}.",
        "Drop the oldest turns, start a new chat, or choose a driver with a larger context.",
    ),
    "not_allowed": _Words("{name} does not answer your requests.", _OTHER),
    "leaving": _Words("{name} has stopped serving.", _OTHER),
    "expired": _Words("{name} let the request go: it waited, or was sent, for too long.", _AGAIN),
    "cancelled": _Words("{name} ended the answer."),
    "unsupported": _Words("{name} cannot do what was asked: it runs another version of infraxa.", _OTHER),
    "bad_request": _Words(
        "{name} did not accept the request.", f"Put the chat's sampling back to its defaults. {_OTHER}"
    ),
    "internal": _Words("{name} met an error of its own."),
    "price_changed": _Words(
        "{name} asks another price now.", "Send it again to see which, or choose another driver."
    ),
    "tab_limit": _Words(
        "The next answer could exceed what {name} lets you owe{amount}.",
        "Serve it back and settle in Earnings, or by infraxa tabs settle; or choose another driver.",
    ),
    "receipt_due": _Words(
        "{name} waits for a receipt to be signed before it answers again.",
        "infraxa tabs says why it was not signed. Try again in a moment, or choose another driver.",
    ),
    "strangers_full": _Words("{name} has no more credit for strangers today.", _AGAIN),
    "audit_refused": _Words(
        "{name} does not show the steps of this answer.",
        f"A driver keeps them for an hour, and not after it stops. {_OTHER}",
    ),
    # Found here.
    "unreachable": _Words("{name} cannot be reached."),
    "timeout": _Words("{name} did not answer the call in time."),
    "refused": _Words("{name} refused the session."),
    "silent": _Words("{name} does not say anything."),
    "stalled": _Words("{name} does not get on with the answer."),
    "gone": _Words("The connection with {name} was lost."),
    "garbage": _Words("{name} sent something that is no answer.", _OTHER),
}

_TEXTS_TOO_LARGE = _Words(
    "The texts, or their vectors, are more than what {name} can hold{tokens}.",
    "Send fewer or shorter texts at a time, or choose another driver.",
)
"""Instead of `too_large`, where vectors were asked for."""

_SHOWN: Mapping[str, str] = {
    "silent": "{name} fell silent in mid-answer.",
    "stalled": "{name} fell silent in mid-answer.",
    "gone": "The connection with {name} was lost in mid-answer.",
    "internal": "{name} met an error of its own in mid-answer.",
    "leaving": "{name} stopped serving in mid-answer.",
    "garbage": "{name} sent something that is no answer, in mid-answer.",
}
"""Instead of those above, when some of the answer is there."""

_SLOW = "{name} gave {came}, which is too slow to wait for."
"""Instead of `stalled`, when tokens came."""

_BLAMED: Mapping[Blame, _Words] = {
    "own": _Words(
        "This machine's own network failed, and the connection with {name} with it.",
        "Check the network of this machine, then try again.",
    ),
    "relay": _Words("The node that relays to {name} failed.", "Try again: another way is looked for."),
}
"""Instead of those above, when the fault is not the driver's."""


def display_name(name: str, node: bytes) -> str:
    """What a driver is called in a sentence: the name that it claims, or the beginning of its id."""
    return clean_name(name) or short_id(node)


def known(code: str) -> bool:
    """Whether there are words for it."""
    return code in _ENDS


def label(text: str) -> str:
    """A model's name as its driver claims it, without what does not show."""
    return "".join(character for character in text if character.isprintable()).strip()


def ended(
    code: str,
    name: str,
    *,
    blame: Blame = "peer",
    shown: bool = False,
    retry_after_s: float = 0.0,
    limit: int = 0,
    need: int = 0,
    texts: bool = False,
    pace: Pace | None = None,
) -> ErrorInfo:
    """Why there is no (more) answer of the driver called `name`, and what helps.

    `code`: of the wire, or found here; an unknown one is `internal`. `shown`: some of the answer is there.
    `retry_after_s`: what the driver asks for; 0 = nothing. `limit`: tokens that it can hold, or µcr that
    may be owed; 0 = unknown.
    `need`: tokens of the conversation, about; said where it is more than the limit, as only the driver can
    count them. `texts`: their vectors were asked for. `pace`: at which it came, where that was too slow.
    """
    if code not in _ENDS:
        code = "internal"
    words = _BLAMED.get(blame) or (_TEXTS_TOO_LARGE if texts and code == "too_large" else _ENDS[code])
    sentence = words.sentence
    if shown and blame == "peer":
        sentence = _SHOWN.get(code, sentence)
    if pace is not None and blame == "peer":
        sentence = _SLOW
    when = f" in {seconds(retry_after_s)}" if retry_after_s > 0 else ""
    tokens = f", {limit:,} tokens" if limit > 0 else ""
    amount = f", {shown_amount(limit)} credits" if limit > 0 else ""
    if 0 < limit < need:
        tokens = f": it is about {need:,} tokens, where {limit:,} fit"
    came = "" if pace is None else _came(pace)
    return ErrorInfo(
        PROMPT_TOO_LONG if code == "too_large" else code,
        sentence.format(name=name, tokens=tokens, amount=amount, came=came),
        words.remedy.format(when=when),
    )


def _came(pace: Pace) -> str:
    return f"{pace.tokens} token{'' if pace.tokens == 1 else 's'} in {seconds(pace.seconds)}"


def no_room(name: str, owed: int, limit: int) -> ErrorInfo:
    """A message may cost more than the driver lets this node owe, µcr."""
    full = ended("tab_limit", name, limit=limit)
    if owed:
        return full
    return ErrorInfo(
        full.code,
        full.message,
        "Nothing is owed to it: a new chat needs less, if any does. Or choose another driver.",
    )


def offline(status: NetworkStatus) -> NodeError:
    """Nobody can be asked, and why."""
    if status.notices:
        return NodeError("offline", status.notices[0].message, status.notices[0].remedy)
    return NodeError(
        "offline",
        "This node is offline, so no driver can be reached.",
        "Turn the setting online on, or let this machine answer.",
    )


def cap_reached(reason: RefusalReason, limit: int, used: int, least: int) -> NodeError:
    """A cap of the person's own leaves less than the `least` that a message needs; amounts in µcr."""
    most, spent = shown_amount(limit), shown_amount(used)
    match reason:
        case "request_cap":
            code, setting = "cap_request", "cap_request"
            message = f"This message needs at least {shown_amount(least)} credits, and one may cost {most}."
        case "chat_cap":
            code, setting = "cap_chat", "cap_chat"
            message = f"Of the {most} credits that a chat may cost, this one has used {spent}."
        case "day_cap":
            code, setting = "cap_day", "cap_day"
            message = f"Of the {most} credits for a day, {spent} are spent or reserved today."
        case "calls_cap":
            code, setting = "cap_api", "cap_api"
            message = f"Of the {most} credits a day for calls of programs, {spent} are spent or reserved."
        case "canaries_cap":
            code, setting = "canaries_cap", "cap_day"
            message = f"Of the {most} credits a day for canaries, {spent} are spent or reserved."
        case _:
            code, setting = "tab_limit", ""
            message = f"You owe this driver {spent} credits, where you set {most} as the limit."
    more = f"infraxa config set {setting}" if setting else "infraxa tabs"
    return NodeError(code, message, f"Allow more with {more}, or choose a cheaper driver.")


def dearer(name: str, price: int, seen: int) -> ErrorInfo:
    """A driver asks more than the person has seen; µcr per 1M tokens."""
    now, before = shown_amount(price), shown_amount(seen)
    return ErrorInfo(
        "price_changed",
        f"{name} asks {now} credits per million tokens now, instead of {before}.",
        "Send it again to accept that, or choose another driver.",
    )


def too_dear(name: str, price: int, most: int) -> ErrorInfo:
    """A driver asks more than is allowed for an order; µcr per 1M tokens."""
    now, allowed = shown_amount(price), shown_amount(most)
    return ErrorInfo(
        "too_dear",
        f"{name} asks {now} credits per million tokens now, where you allow {allowed}.",
        "Allow more (infraxa config set max_price, ask --max-price, or X-Infraxa-Max-Price of a call), or "
        "choose another driver.",
    )


def seconds(value: float) -> str:
    """A short wait: `3 s`, `2 min`."""
    whole = max(1, round(value))
    return f"{whole} s" if whole < 120 else f"{round(whole / 60)} min"


# What is waited for: each continues "waiting for …".

A_DRIVER = "a driver"
A_PLACE = "a driver that has room: all are busy"


def connecting(name: str) -> str:
    return f"the connection with {name}"


def pricing(name: str) -> str:
    return f"{name} to lock its price"


def answering(name: str) -> str:
    """For a first word."""
    return f"{name} to answer"


def in_line(name: str, before: int, *, again: bool) -> str:
    """`again`: it had a place, and what was done there is lost."""
    place = "next in line" if before == 0 else f"{before} before you"
    if again:
        return f"{name} to begin again, {place}"
    return f"a place at {name}, {place}"


def uploading(name: str) -> str:
    return f"{name} to take the prompt"


def reading(name: str) -> str:
    return f"{name} to read the prompt"


def more(name: str) -> str:
    return f"more from {name}"


def busy(name: str, retry_after_s: float) -> str:
    return f"{name}, which is busy; asked again in {seconds(retry_after_s)}"
