"""Who is to answer a conversation, and how: what the person chose, and what is left to infraxa."""

from __future__ import annotations

from typing import Literal, NamedTuple

from infraxa.app.config import ANY
from infraxa.app.errors import NodeError
from infraxa.engine.types import Sampling

Failover = Literal["ask", "auto", "off"]


class Wanted(NamedTuple):
    """Who is to answer, and how."""

    driver: str
    """`auto`, or the id of a node as people write it."""
    sampling: Sampling = Sampling()
    driver_model: str | None = None
    """A model_id in hex; None: any."""
    failover: Failover = "ask"
    max_price: int | None = None
    """µcr per 1M tokens, of the answer and of the prompt, of drivers that infraxa chooses; None: any."""
    capped: bool = False
    """`max_price` holds for a driver that the person chose, too."""
    goes_on: bool = True
    """Another driver may go on with an answer that has begun."""

    @property
    def may_move(self) -> bool:
        """Another driver goes on without a question."""
        return self.failover == "auto" or (self.failover == "ask" and self.driver == ANY)

    @property
    def model_id(self) -> bytes | None:
        """Raises NodeError `no_model`."""
        try:
            return None if self.driver_model is None else bytes.fromhex(self.driver_model)
        except ValueError:
            raise NodeError(
                "no_model", "This is not the id of a model.", "infraxa providers shows the models there are."
            ) from None
