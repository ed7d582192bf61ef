"""What Node tells whoever subscribed: facts, in the past tense, as frozen values.

The terminal app and the commands show these; nothing polls.
"""

from __future__ import annotations

import msgspec

from infraxa.app.answering import Waits
from infraxa.app.config import Settings
from infraxa.app.gateway.values import GatewayStatus
from infraxa.app.serving import ProviderStatus
from infraxa.engine.types import EngineStatus
from infraxa.net.status import NetworkStatus
from infraxa.store.records import AnswerFacts, DriverPart, Message


class EngineChanged(msgspec.Struct, frozen=True, tag=True):
    """The engine's status is another one."""

    status: EngineStatus


class ChatsChanged(msgspec.Struct, frozen=True, tag=True):
    """A chat was made, renamed, deleted, restored, or moved in the list."""


class BranchChanged(msgspec.Struct, frozen=True, tag=True):
    """Another branch of this chat is the one to show: messages were added or another version was chosen."""

    chat_id: str


class AnswerStarted(msgspec.Struct, frozen=True, tag=True):
    """An answer has been asked for. `message` is the empty answer, already stored and part of the branch."""

    chat_id: str
    message: Message


class PromptRead(msgspec.Struct, frozen=True, tag=True):
    """The model has read `done` of `total` prompt tokens; nothing was generated yet."""

    chat_id: str
    message_id: str
    done: int
    total: int


class AnswerWaits(msgspec.Struct, frozen=True, tag=True):
    """Nothing of the answer comes because of this."""

    chat_id: str
    message_id: str
    waits: Waits


class AnswerMoved(msgspec.Struct, frozen=True, tag=True):
    """Another driver writes the answer from here on; `part.at` counts in the whole text of the message."""

    chat_id: str
    message_id: str
    part: DriverPart


class AnswerGrew(msgspec.Struct, frozen=True, tag=True):
    """More text. `n_out` tokens so far."""

    chat_id: str
    message_id: str
    text: str
    n_out: int


class AnswerEnded(msgspec.Struct, frozen=True, tag=True):
    """The answer as stored: whole, stopped or failed."""

    chat_id: str
    message: Message


class ModelsChanged(msgspec.Struct, frozen=True, tag=True):
    """A model was added or removed."""


class SettingsChanged(msgspec.Struct, frozen=True, tag=True):
    """A setting was changed: `name`; empty for somebody who is told of all of them."""

    settings: Settings
    name: str = ""


class NetworkChanged(msgspec.Struct, frozen=True, tag=True):
    """The network's status is another one."""

    status: NetworkStatus


class PeersChanged(msgspec.Struct, frozen=True, tag=True):
    """A link was made or ended, or what is known of one is newer."""


class NodesChanged(msgspec.Struct, frozen=True, tag=True):
    """A node came, went, or told news of itself."""


class ProviderChanged(msgspec.Struct, frozen=True, tag=True):
    """Provider mode is in another state, or its counters moved on; at most a few times a second."""

    status: ProviderStatus


class GatewayChanged(msgspec.Struct, frozen=True, tag=True):
    """The gateway was opened or closed, or could not be opened."""

    status: GatewayStatus


class ServedChanged(msgspec.Struct, frozen=True, tag=True):
    """The list of requests of other nodes is another one; at most a few times a second."""


class OffersChanged(msgspec.Struct, frozen=True, tag=True):
    """What this machine knows of providers changed: what it measured, pins, blocks."""


class TradeChanged(msgspec.Struct, frozen=True, tag=True):
    """Tabs, receipts, sums or missed chances are others; at most a few times a second."""


class FactsChanged(msgspec.Struct, frozen=True, tag=True):
    """More is known of an answer that has ended: it was paid for, or rated."""

    chat_id: str
    message_id: str
    facts: AnswerFacts


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A line for the log view. `source` is `engine` (native output of llama.cpp) or `infraxa`."""

    source: str
    text: str


Event = (
    EngineChanged
    | ChatsChanged
    | BranchChanged
    | AnswerStarted
    | PromptRead
    | AnswerGrew
    | AnswerEnded
    | ModelsChanged
    | SettingsChanged
    | NetworkChanged
    | PeersChanged
    | NodesChanged
    | AnswerWaits
    | AnswerMoved
    | ProviderChanged
    | GatewayChanged
    | ServedChanged
    | OffersChanged
    | TradeChanged
    | FactsChanged
    | LogLine
)
