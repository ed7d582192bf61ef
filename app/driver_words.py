"""Which node a person means, and why nobody can be the driver: in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from infraxa.app.errors import NodeError
from infraxa.net.credits import shown
from infraxa.net.identity import ID_LENGTH, display, id_text
from infraxa.net.names import name_key
from infraxa.net.routing import Reason
from infraxa.net.status import SeenNode

MIN_PREFIX: Final = 4
"""Characters of an id that tell a node from the others when a person types them."""
NAMED: Final = 4
"""Nodes that one sentence names."""

_ALIKE = str.maketrans("ilo", "110")
"""Letters that an id does not have, for those that they look like."""


def named(nodes: Sequence[SeenNode], text: str) -> SeenNode:
    """The node with this id, or the only one whose id begins with it. Raises NodeError `no_driver`."""
    prefix = text.strip().rpartition("·")[2].lower().translate(_ALIKE)
    found = [node for node in nodes if len(prefix) >= MIN_PREFIX and id_text(node.id).startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        raise NodeError(
            "no_driver",
            f"Several nodes have an id that begins so: {_names(found)}.",
            "Give more of the id.",
        )
    key = name_key(text)
    if alike := [node for node in nodes if key and name_key(node.name) == key]:
        raise NodeError(
            "no_driver",
            "A node is chosen by its id, since anybody can take any name.",
            f"With this name there is {_names(alike)}.",
        )
    whole = len(prefix) == ID_LENGTH
    raise NodeError(
        "no_driver",
        "The driver is not on the network now."
        if whole
        else "No node on the network has an id that begins so.",
        "infraxa providers shows who is there.",
    )


def _names(nodes: Sequence[SeenNode]) -> str:
    named = ", ".join(display(node.name, node.id) for node in nodes[:NAMED])
    return named if len(nodes) <= NAMED else f"{named} and {len(nodes) - NAMED} more"


def nobody(why: Counter[Reason | None], context: int, max_price: int | None, *, tried: bool) -> NodeError:
    """By how many candidates could not be chosen for which reason."""

    def error(message: str, remedy: str) -> NodeError:
        return NodeError("no_driver", message, remedy)

    if why["busy"] or why["asked_to_wait"]:
        return NodeError("busy", "Every provider that could answer is busy.", "Try again in a moment.")
    if why["too_dear"] and max_price is not None:
        return error(
            f"Every provider that could answer asks more than {shown(max_price)} credits per million tokens.",
            "Allow a higher price, or wait: prices fall when fewer ask.",
        )
    if why["too_small"]:
        return error(
            f"No provider has room for {context} tokens.", "Shorten the chat, or leave its oldest turns out."
        )
    if why["other_model"]:
        return error("No provider offers this model now.", "Choose another one in the market.")
    if tried:
        return error("There is no other provider to ask.", "Try again, or use this machine.")
    if why["no_way"]:
        return error("No way to the providers that are there is known.", "Try again in a moment.")
    if why["caught"] and not why["offline"]:
        return error(
            "Every provider that is there failed an audit, or is proven to have cheated.",
            "The market says why. Wait for another, or use this machine.",
        )
    if why["offline"] or why["blocked"] or why["caught"]:
        return error(
            "All known providers are offline or blocked by you.", "Wait for one, or use this machine."
        )
    return error("Nobody on the network offers a model now.", "infraxa providers shows who is there.")
