"""The self-test in words: what a peer says of the answer that it was asked to buy here, and what helps.

Only texts are here. Nothing that a peer wrote is part of one.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from infraxa.app import order_words
from infraxa.app.network_words import span
from infraxa.app.serving import SelfTest, TrialResult
from infraxa.app.trade import Missed

STALE_MS: Final = 3 * 3_600_000
"""What was said longer ago says nothing of now."""
FAULT: Final = "internal"
"""The code for any that is not known here."""

_NOT_TRIED: Final = {
    "busy": "all its places were taken",
    "rate_limited": "all its places were taken",
    "too_dear": "an answer costs more than a test may",
    "price_changed": "the price had just changed",
    "strangers_full": "what strangers may owe together was used up for the day",
    "tab_limit": "an answer costs more than a stranger may owe",
    "model_gone": "another model had just been loaded",
    "leaving": "it was being turned off",
}
"""That somebody was not served for these is no fault: by the code."""
_UNREACHED: Final = ("unreachable", "timeout", "refused", "relay_failed")
_OF_WAY: Final = {
    "": "",
    "direct": " directly",
    "relay": " through a relay",
    "local": " within the local network",
}
_FAILED: Final = {
    "unreachable": "A peer could not reach this node.",
    "timeout": "A peer could not reach this node: its call was not answered in time.",
    "refused": "A peer could not get a session with this node.",
    "relay_failed": "A peer could not reach this node: the relay that hands it on did not answer.",
    "silent": "A peer reached this node, which then said nothing.",
    "stalled": "A peer had its order taken, and then waited for the answer in vain.",
    "not_allowed": "A peer's order was refused: this node said that it does not serve that account.",
    "unsupported": "A peer's order was refused: the two run versions of infraxa that do not fit.",
    "empty": "A peer was given an answer without a word.",
}
_WAY_IN: Final = "Open the TCP port listen_port in the firewall and the router, or turn port_mapping on."
_LOG: Final = "The log says why. infraxa doctor --self-test tries it again."
_SLOW: Final = "This machine may have too much to do: lower capacity, or serve a smaller model."


class Verdict(NamedTuple):
    state: Literal["ok", "open", "doubt", "failed"]
    """`open`: nobody can say it now. `doubt`: peers say different things, or something is odd."""
    text: str
    """A sentence or two."""
    remedy: str = ""


def known(code: str) -> str:
    """The code of a peer as it is understood here."""
    return code if not code or code in _NOT_TRIED or code in _FAILED or order_words.known(code) else FAULT


def verdict(test: SelfTest, now_ms: int) -> Verdict:
    """What the self-test says by now; `now_ms`: since the epoch."""
    if test.state == "off":
        return Verdict("open", "Not tested: provider mode or the setting self_test is off.")
    if test.state == "strangers":
        return Verdict("open", "Not tested: by the settings no stranger is served.")
    last = test.last
    if last is None or now_ms - last.at_ms > STALE_MS:
        before = "" if last is None else f" The last time was {_ago(last, now_ms)}."
        return Verdict("open", f"{_nobody(test)}{before}")
    when = _ago(last, now_ms)
    if not last.code:
        text = f"A peer bought an answer {when},{_OF_WAY[last.way]}; {_times(last)}."
        if not last.signed:
            return Verdict(
                "doubt",
                f"{text} It could not sign the receipt, without which nothing is earned.",
                "infraxa doctor checks the ledger, too; the log may say more.",
            )
        return Verdict("ok", text)
    if last.code in _NOT_TRIED:
        return Verdict("open", f"Not tested: {_NOT_TRIED[last.code]} when a peer asked {when}.")
    text = f"{_failed(last)} That was {when}."
    other = test.other
    if other is not None and not other.code and now_ms - other.at_ms <= STALE_MS:
        return Verdict("doubt", f"{text} Another one was served {_ago(other, now_ms)}.", _remedy(last))
    return Verdict("failed", text, _remedy(last))


def missed(test: SelfTest, now_ms: int) -> Missed | None:
    """That nobody can be served, if that is what it says."""
    said, last = verdict(test, now_ms), test.last
    if said.state != "failed" or last is None:
        return None
    reason: Literal["unreachable", "failed"] = "unreachable" if last.code in _UNREACHED else "failed"
    return Missed(last.at_ms, reason, said.text, said.remedy)


def brief(test: SelfTest, now_ms: int) -> str:
    """`served 12 min ago`: the same in a few words."""
    if test.wait is not None:
        return "a peer is buying"
    last = test.last
    if test.state == "off":
        return "off"
    if test.state == "strangers":
        return "no stranger is served"
    if last is None:
        return {
            "": "soon",
            "no_peer": "no peer",
            "declined": "no peer has time",
            "silent": "no peer answers",
        }[test.missing]
    if not last.code:
        said = "served" if last.signed else "no receipt"
    else:
        said = "not tried" if last.code in _NOT_TRIED else "NOT served"
    return f"{said} {_ago(last, now_ms)}"


def logged(result: TrialResult) -> str:
    """A result that has just come, as a sentence."""
    if not result.code:
        receipt = "" if result.signed else " It could not sign the receipt."
        return f"Self-test: a peer bought an answer{_OF_WAY[result.way]}; {_times(result)}.{receipt}"
    if result.code in _NOT_TRIED:
        return f"Self-test: {_NOT_TRIED[result.code]}, so a peer could not buy an answer."
    return f"Self-test: {_failed(result)} {_remedy(result)}"


def _failed(result: TrialResult) -> str:
    if (sentence := _FAILED.get(result.code)) is not None:
        return sentence
    said = order_words.ended(result.code, "this node", shown=result.first_token_ms > 0).message
    return f"A peer was not served: {said[:1].lower()}{said[1:]}"


def _remedy(result: TrialResult) -> str:
    if result.code in _UNREACHED:
        return _WAY_IN
    return _SLOW if result.code in ("silent", "stalled") else _LOG


def _times(result: TrialResult) -> str:
    return f"connected in {result.connect_ms} ms, the first token after {result.first_token_ms} ms"


def _ago(result: TrialResult, now_ms: int) -> str:
    return f"{span((now_ms - result.at_ms) / 1000)} ago"


def _nobody(test: SelfTest) -> str:
    match test.missing:
        case "no_peer":
            return "Not tested: no other node is linked that could buy an answer."
        case "declined":
            return "Not tested: no peer could buy an answer now; it is tried again."
        case "silent":
            return "Not tested: the peers that were asked to buy an answer did not answer."
        case _:
            return "Not tested yet: a peer is asked some minutes after serving began."
