"""What a person is told before strangers use this machine's model for the first time."""

from __future__ import annotations


def points(capacity: int, stop: str, limits: str = "set in the Provide view") -> tuple[tuple[str, str], ...]:
    """What to know, each with what it means.

    `capacity`: answers at the same time; `stop`: what stops it; `limits`: how those are set, after "are".
    """
    return (
        (
            "You can read their prompts.",
            "They reach this machine's model in the clear, and users trust you: do not keep, pass on or "
            "misuse what they say. infraxa writes none of it down.",
        ),
        (
            "It happens in your name.",
            "Users see this node's name, id and IP address, and the answers come from them.",
        ),
        (
            "It costs you.",
            f"Processor, memory, electricity and line, for up to {capacity} "
            f"answer{'s' * (capacity != 1)} at a time; limits are {limits}. "
            "Credits are promises, not money.",
        ),
        (
            "You decide.",
            f"{stop} stops it at any time. You can end a request and block a user, whom you know by a key "
            "made for this node alone, an address range, and what it asks.",
        ),
        (
            "The law where you are applies.",
            "You may have to answer for what is made and sent here, and for others' data. In doubt, ask "
            "somebody who knows, or do not serve strangers.",
        ),
    )
