"""What a person's request can fail with, above the rooms' own errors."""

from __future__ import annotations

from infraxa.engine.types import EngineError, ErrorInfo
from infraxa.net.errors import NetError
from infraxa.store.records import StoreError


class NodeError(Exception):
    """Node could not do what was asked.

    Codes: `busy` `no_model` `not_found` `not_last` `bad_name` `bad_setting` `bad_folder` `not_written` `io`
    `closed` `no_driver`.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


FAILURES = (NodeError, EngineError, NetError, StoreError)
"""All that a person can be told of: each has a code, a message and a remedy."""


def sentence(error: NodeError | EngineError | NetError | StoreError | ErrorInfo) -> str:
    """What went wrong and what helps, in one line."""
    return f"{error.message} {error.remedy}".strip()
