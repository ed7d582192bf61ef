"""What the network room can fail with: what a person is told, and what a peer did wrong.

The two are kept apart: a `NetError` has a sentence and a remedy; a `ProtocolError` never reaches a screen as
text, it is counted by its reason.
"""

from __future__ import annotations

from typing import Literal, get_args

Refusal = Literal[
    "malformed",  # does not decode, or breaks the framing
    "too_large",  # beyond a limit of wire.py
    "bad_signature",
    "tampered",  # a frame that does not open: changed, reordered, doubled or from another session
    "truncated",  # the carrier ended without an authenticated end
    "replayed",  # a first message that was seen before
    "clock",  # times that are too far apart
    "prekey",  # a prekey that is not, or no longer, ours
    "mac",  # a first message not made for our prekey
    "proof_of_work",  # asked for and missing or wrong
    "version",  # another major version
    "network",  # another network
    "rate",  # more of something than its limit in this time
    "full",  # no room for another connection, circuit, stream
    "address",  # an address that may not be announced or dialled
    "equivocation",  # two records with one number
    "stale",  # an old record, or one from the future
    "not_asked",  # an answer without a question, a record about somebody else
    "not_allowed",  # a request before `auth`, or by somebody who may not
    "flow",  # more bytes than the credit, or a stream that is not open
    "origin",  # an upgrade made by a web page
    "silent",  # nothing came within the bound
]
"""Why something of a peer was refused; the Network view counts by these."""

REFUSALS: tuple[Refusal, ...] = get_args(Refusal)


class NetError(Exception):
    """The network could not do what a person asked.

    Codes: `unreachable` `refused` `busy` `cancelled` `closed` `port_taken` `no_interface` `bad_invite`
    `expired` `bad_address` `bad_key` `locked_key` `not_written` `clock` `timeout` `unknown_node`
    `port_mapping` `bad_amount` `bad_backup`, and those a peer sends (wire.ERROR_CODES).
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


class ProtocolError(Exception):
    """A peer broke the protocol. `reason` is counted; `detail` is for the log only and holds nothing that
    the peer wrote."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Refusal = reason
        self.detail = detail
