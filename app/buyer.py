"""The user's role: has drivers on the network answer.

How one answer goes on, over one driver or several, is in buying.py; which drivers there are in drivers.py;
what is stored in answers.py.
"""

from __future__ import annotations

from infraxa.app import choices
from infraxa.app.attempt import Ordering
from infraxa.app.buying import Buying, Wanted
from infraxa.app.config import LOCAL, Settings
from infraxa.app.drivers import Drivers
from infraxa.app.purse import Purse
from infraxa.engine.types import ChatMessage
from infraxa.net.patience import PatienceLimits
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import ChatOptions


def wanted(options: ChatOptions, settings: Settings) -> Wanted | None:
    """Which driver answers in a chat, and how; None: this machine does."""
    driver = options.driver or settings.driver
    if driver == LOCAL:
        return None
    sampling = choices.resolve_sampling(options, settings)
    return Wanted(driver, sampling, options.driver_model, settings.failover)


class Buyer:
    """Of one node. `close` it before the network and the drivers' memory."""

    def __init__(
        self,
        network: Ordering,
        drivers: Drivers,
        *,
        limits: PatienceLimits | None = None,
        purse: Purse | None = None,
    ) -> None:
        """Without a `purse` nothing is bought that has a price."""
        self._network = network
        self._drivers = drivers
        self._limits = limits or PatienceLimits()
        self._purse = purse
        self._tasks = TaskGroup()

    def generate(
        self,
        said: tuple[ChatMessage, ...],
        wanted: Wanted,
        *,
        drop_oldest: bool = False,
        chat_id: str | None = None,
        message_id: str | None = None,
    ) -> Buying:
        """An answer to `said`, a Source. When the last message is an assistant's, its text is continued.

        `drop_oldest` leaves out as many of the oldest turns as the driver's context asks for. `chat_id`,
        `message_id`: of the answer, when it is kept: what it costs is told of it also after its end.
        """
        buying = Buying(
            self._network, self._drivers, self._limits, self._tasks, said, wanted, drop_oldest=drop_oldest
        )
        if self._purse is not None:
            buying.spending = self._purse.spending(buying.billed, chat_id, message_id)
        return buying

    async def close(self) -> None:
        """End the answers that are under way."""
        await self._tasks.cancel_all()
