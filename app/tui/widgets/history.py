"""The prompts sent before, gone through with up and down; what was being typed is not lost."""

from __future__ import annotations

from collections.abc import Sequence


class PromptHistory:
    """A place in the list of earlier prompts. The place after the last one is the draft."""

    def __init__(self) -> None:
        self._entries: list[str] = []
        self._place = 0
        self._draft = ""

    def load(self, entries: Sequence[str]) -> None:
        """Earlier prompts, oldest first; equal neighbours count once."""
        self._entries = []
        for entry in entries:
            if entry and entry not in self._entries[-1:]:
                self._entries.append(entry)
        self.leave()

    def add(self, entry: str) -> None:
        """A prompt that was sent just now."""
        if entry and (not self._entries or self._entries[-1] != entry):
            self._entries.append(entry)
        self.leave()

    def leave(self) -> None:
        """What is typed from now on is the draft again."""
        self._place = len(self._entries)
        self._draft = ""

    def older(self, shown: str) -> str | None:
        """The prompt before the one that is `shown`; None at the oldest."""
        if self._place == 0:
            return None
        if self._place == len(self._entries):
            self._draft = shown
        self._place -= 1
        return self._entries[self._place]

    def newer(self) -> str | None:
        """The prompt after the one that is shown, at last the draft; None when that is shown."""
        if self._place >= len(self._entries):
            return None
        self._place += 1
        return self._draft if self._place == len(self._entries) else self._entries[self._place]
