"""What a person's request can fail with, above the rooms' own errors."""

from __future__ import annotations


class NodeError(Exception):
    """Node could not do what was asked.

    Codes: `busy` `no_model` `not_found` `bad_setting` `closed`.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
