"""What a person asked for in the conversation, as messages to the screen: the widgets only show and ask."""

from __future__ import annotations

from textual.message import Message


class CopyRequested(Message, namespace="conversation"):
    """Put `text` on the clipboard; `what` names it for the notice: `message` or `code`."""

    def __init__(self, text: str, what: str) -> None:
        super().__init__()
        self.text = text
        self.what = what


class _AboutMessage(Message):
    def __init__(self, message_id: str) -> None:
        super().__init__()
        self.message_id = message_id


class RegenerateRequested(_AboutMessage, namespace="conversation"):
    """Another answer to the same question; `message_id` is the answer's."""


class ContinueRequested(_AboutMessage, namespace="conversation"):
    """Go on where this answer ended."""


class ElsewhereRequested(_AboutMessage, namespace="conversation"):
    """Have another driver go on with this answer, whose driver failed."""


class AuditRequested(_AboutMessage, namespace="conversation"):
    """Find out whether the model that was sold gave this answer."""


class RateRequested(Message, namespace="conversation"):
    """Rate this answer with so many stars. `named`: others learn which node it was."""

    def __init__(self, message_id: str, stars: int, named: bool = False) -> None:
        super().__init__()
        self.message_id = message_id
        self.stars = stars
        self.named = named


class DropOldestRequested(_AboutMessage, namespace="conversation"):
    """Answer again without the oldest turns, which do not fit the context."""


class VersionRequested(_AboutMessage, namespace="conversation"):
    """Show the branch with this sibling."""


class EditRequested(Message, namespace="conversation"):
    """Edit this message of the person's; `text` is what it says now."""

    def __init__(self, message_id: str, text: str) -> None:
        super().__init__()
        self.message_id = message_id
        self.text = text


class StopRequested(Message, namespace="conversation"):
    """Stop the running answer."""


class PromptRequested(Message, namespace="conversation"):
    """The person went down past the last message: the prompt is next."""


class LinkClicked(Message, namespace="conversation"):
    """A link in an answer was clicked. Nothing was opened: answers come from strangers, so ask first."""

    def __init__(self, href: str) -> None:
        super().__init__()
        self.href = href
