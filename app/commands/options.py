"""The options that several commands share, and what completes their values.

Those of settings are texts: infraxa.app.config knows what they may be, and says so.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infraxa.app.folders import Folders


def complete_models(incomplete: str) -> list[str]:
    """The names of the models that the data folder of the environment has."""
    from infraxa.app.commands.models import read_records
    from infraxa.app.config import GUIDE
    from infraxa.app.folders import Folders
    from infraxa.store.records import StoreError

    names = [GUIDE]
    with contextlib.suppress(StoreError, OSError):  # the command itself says what is wrong with the store
        names += [record.name for record in read_records(Folders.find(None, os.environ))]
    return [name for name in names if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    from infraxa.app import config

    return [name for name in config.names() if name.startswith(incomplete)]


def complete_peers(incomplete: str) -> list[str]:
    """Ids of those with whom the data folder of the environment has a tab."""
    from infraxa.app.commands.books import known_peers

    return _known(known_peers, incomplete)


def complete_orders(incomplete: str) -> list[str]:
    """Numbers of the newest orders that have a receipt."""
    from infraxa.app.commands.books import known_orders

    return _known(known_orders, incomplete)


def _known(look: Callable[[Folders], list[str]], incomplete: str) -> list[str]:
    from infraxa.app.folders import Folders
    from infraxa.store.records import StoreError

    texts: list[str] = []
    with contextlib.suppress(StoreError, OSError):  # the command itself says what is wrong with the store
        texts = look(Folders.find(None, os.environ))
    return [text for text in texts if text.startswith(incomplete)]


class By(enum.Enum):
    """What a row of the earnings is of."""

    day = "day"
    model = "model"
    peer = "peer"


class Role(enum.Enum):
    """Of this node in a trade."""

    user = "user"
    provider = "provider"


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        file_okay=False,
        help="Keep everything in this folder: chats, settings, logs. INFRAXA_DATA_DIR does the same.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelName = Annotated[str, typer.Argument(help="The model's name.", autocompletion=complete_models)]

Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The model that answers: its name, or a GGUF file.",
        autocompletion=complete_models,
    ),
]
Threads = Annotated[str | None, typer.Option(metavar="N", help="Processor threads of the model.")]
Context = Annotated[str | None, typer.Option(metavar="TOKENS", help="Tokens of context per chat.")]
Slots = Annotated[
    str | None, typer.Option(metavar="N", help="How many answers are generated at the same time.")
]
GpuLayers = Annotated[str | None, typer.Option(metavar="N", help="Layers of the model on the GPU.")]
ModelsLoaded = Annotated[
    str | None, typer.Option(metavar="N", help="Models loaded at the same time at most.")
]
KvType = Annotated[
    str | None, typer.Option(metavar="TYPE", help="How chats are kept in memory: f16, q8_0 or q4_0.")
]
FlashAttention = Annotated[
    str | None, typer.Option(metavar="HOW", help="The fused kernel of attention: auto, on or off.")
]
UnifiedKv = Annotated[
    bool | None, typer.Option("--unified-kv/--no-unified-kv", help="One memory for all chats.")
]
Temperature = Annotated[str | None, typer.Option(metavar="T", help="Randomness of answers; 0 = none.")]
Theme = Annotated[str | None, typer.Option(metavar="NAME", help="Colours of the app.")]
SendKey = Annotated[str | None, typer.Option(metavar="KEY", help="The key that sends: enter or ctrl+enter.")]
Mouse = Annotated[bool | None, typer.Option("--mouse/--no-mouse", help="Use the mouse in the app.")]
ReducedMotion = Annotated[
    bool | None, typer.Option("--reduced-motion/--no-reduced-motion", help="No animations in the app.")
]
ConfirmLinks = Annotated[
    bool | None,
    typer.Option("--confirm-links/--no-confirm-links", help="Ask before a link of an answer is opened."),
]
Online = Annotated[
    bool | None, typer.Option("--online/--offline", help="Find other nodes, or be this machine alone.")
]
Announce = Annotated[
    bool | None, typer.Option("--announce/--no-announce", help="Let other nodes learn of this one.")
]
NodeName = Annotated[str | None, typer.Option(metavar="NAME", help="What others call this node.")]
Network = Annotated[str | None, typer.Option(metavar="NAME", help="The network it is part of.")]
ListenPort = Annotated[
    str | None, typer.Option(metavar="PORT", help="Where other nodes reach this one; 0 = any free port.")
]
Bootstrap = Annotated[
    str | None, typer.Option(metavar="HOST:PORT,…", help="Nodes to ask first, with commas between them.")
]
PortMapping = Annotated[
    bool | None, typer.Option("--port-mapping/--no-port-mapping", help="Ask the router to let others in.")
]
Relay = Annotated[
    bool | None, typer.Option("--relay/--no-relay", help="Hand sealed traffic on for nodes behind a router.")
]
ListenHosts = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS,…", help="Where other nodes reach this one; otherwise everywhere."),
]
Mdns = Annotated[bool | None, typer.Option("--mdns/--no-mdns", help="Find nodes on the local network.")]
Driver = Annotated[
    str | None,
    typer.Option(metavar="WHO", help="Who answers: local, auto (infraxa chooses), or the id of a node."),
]
Failover = Annotated[
    str | None, typer.Option(metavar="HOW", help="When a driver fails: ask, auto (another goes on) or off.")
]
Provide = Annotated[
    bool | None, typer.Option("--provide/--no-provide", help="Serve this machine's model to other nodes.")
]
ProvideModel = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model that is served.", autocompletion=complete_models),
]
Capacity = Annotated[str | None, typer.Option(metavar="N", help="Answers for others at the same time.")]
ProvideHours = Annotated[
    str | None, typer.Option(metavar="HH:MM-HH:MM", help="Serve only at these hours, local time.")
]
PauseOnBattery = Annotated[
    bool | None,
    typer.Option("--pause-on-battery/--serve-on-battery", help="Serve nobody while on the battery."),
]
UploadLimit = Annotated[
    str | None, typer.Option(metavar="KB", help="kB per second of answers for others, all together.")
]
MemoryLimit = Annotated[
    str | None, typer.Option(metavar="MB", help="What the model and its contexts may take.")
]
CapRequest = Annotated[str | None, typer.Option(metavar="CREDITS", help="What one message may cost at most.")]
CapChat = Annotated[str | None, typer.Option(metavar="CREDITS", help="What one chat may cost.")]
CapDay = Annotated[str | None, typer.Option(metavar="CREDITS", help="What may be spent in a day.")]
CapApi = Annotated[
    str | None, typer.Option(metavar="CREDITS", help="What programs may spend in a day through the gateway.")
]
MaxPrice = Annotated[
    str | None,
    typer.Option(metavar="CREDITS", help="The most that 1M tokens of an answer may cost."),
]
BasePrice = Annotated[
    str | None,
    typer.Option(metavar="CREDITS", help="Asked for 1M tokens of an answer at no load; 0 = free."),
]
PriceFloor = Annotated[
    str | None, typer.Option(metavar="CREDITS", help="Never ask for less for 1M tokens of an answer.")
]
PriceCeiling = Annotated[
    str | None, typer.Option(metavar="CREDITS", help="Never ask for more for 1M tokens of an answer.")
]
StrangerLimit = Annotated[
    str | None, typer.Option(metavar="CREDITS", help="What a user without a limit of its own may owe.")
]
StrangersDaily = Annotated[
    str | None, typer.Option(metavar="CREDITS", help="What all such users together may run up in a day.")
]
FreeDaily = Annotated[str | None, typer.Option(metavar="N", help="Free requests a day per user and address.")]
PauseWhenBusy = Annotated[
    bool | None,
    typer.Option(
        "--pause-when-busy/--serve-when-busy", help="Serve nobody while other programs use the processors."
    ),
]
SelfTest = Annotated[
    bool | None,
    typer.Option("--self-test/--no-self-test", help="Have a peer buy a tiny answer here each hour."),
]
TestOthers = Annotated[
    bool | None,
    typer.Option("--test-others/--no-test-others", help="Buy tiny answers of peers that ask for it."),
]
Verify = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="What drivers sign: fraud_proof (a proven lie is told to others), merkle (it stays here), "
        "none (nothing can be audited).",
    ),
]
Audit = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Audit answers: auto (now and then, and canaries) or off (only when you ask)."
    ),
]
Canaries = Annotated[
    bool | None,
    typer.Option(
        "--canaries/--no-canaries",
        help="Made-up questions to drivers whose model is not here, judged by other providers: "
        "at most 3 % of cap_day; only with audit = auto.",
    ),
]
Gateway = Annotated[
    bool | None, typer.Option("--gateway/--no-gateway", help="An OpenAI-compatible API on this machine.")
]
GatewayPort = Annotated[str | None, typer.Option(metavar="PORT", help="Where the gateway listens.")]
GatewayHost = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where the gateway listens: 127.0.0.1 or ::1; other addresses by infraxa gateway --host.",
    ),
]
GatewayOrigins = Annotated[
    str | None, typer.Option(metavar="ORIGIN,…", help="Web pages that may use the gateway.")
]
Peer = Annotated[
    str,
    typer.Argument(
        metavar="PEER",
        help="A node or account: its id, or how that begins.",
        autocompletion=complete_peers,
    ),
]
Order = Annotated[
    str,
    typer.Argument(
        metavar="ORDER",
        help="The number of an order, or how that begins.",
        autocompletion=complete_orders,
    ),
]
Proof = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="What receipts export or receipts proof wrote; - for standard input."
    ),
]
