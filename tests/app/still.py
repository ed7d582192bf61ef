"""A node whose engine and network stand still, and what its network looks like in several situations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from infraxa.app.config import Settings
from infraxa.app.events import NetworkChanged, NodesChanged, OffersChanged, PeersChanged
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.offers import Mark, OfferSeen
from infraxa.app.trade import Bound, PricePoint
from infraxa.engine.types import EngineStatus
from infraxa.net.errors import NetError
from infraxa.net.records import ModelOffer
from infraxa.net.status import (
    Interface,
    NetworkStatus,
    Notice,
    PeerInfo,
    Refused,
    SeenNode,
    Waiting,
)

NOW = 1_790_000_000_000
"""Milliseconds since the epoch: the time of day in tests."""
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def an_id(name: str) -> bytes:
    """The id of the node that is called so in tests."""
    return hashlib.sha256(name.encode()).digest()


ME = an_id("me")
INVITE = "ix12sr" + "4d7k2m9x4qb83vwz0tnh6yp1cje5fgra" * 4 + "7k2m9x"

INTERFACES = (
    Interface("eth0", ("192.168.178.20", "2001:db8:1c::20"), True, "the default route"),
    Interface("docker0", ("172.17.0.1",), False, "docker"),
    Interface("wg0", ("10.8.0.2",), False, "a VPN"),
    Interface("wlan0", (), False, "down"),
)
ALONE = NetworkStatus(
    activity="alone",
    id=ME,
    name="maple",
    listening=("ws://192.168.178.20:7741",),
    interfaces=INTERFACES[:1],
    mdns="searching",
    waiting=Waiting("looking for peers", NOW - 3_400, 10),
)
ONLINE = NetworkStatus(
    activity="online",
    id=ME,
    name="maple",
    listening=("ws://192.168.178.20:7741", "ws://[2001:db8:1c::20]:7741"),
    reachability="reachable",
    reachability_reason="two peers in other networks dialled back",
    interfaces=INTERFACES,
    mdns="heard",
    peers=6,
    known=41,
    clock_skew_ms=120,
    bytes_in=4_812_000,
    bytes_out=1_204_000,
    gossip_in=12_418,
    gossip_new=3_911,
    relaying=2,
)
_PEERS = (
    ("birch", "out", "ws://192.168.178.31:7741", 0.7, 3 * HOUR, 1_810_000, 402_000),
    ("juniper", "in", "ws://203.0.113.24:50122", 23.0, 47 * MINUTE, 620_000, 288_000),
    ("ostrich farm in the north", "out", "ws://[2001:db8:77:4::9]:7741", 41.4, 12 * MINUTE, 93_000, 41_000),
    ("quartz", "out", "ws://198.51.100.7:7741", 118.0, 6 * MINUTE, 51_200, 9_800),
    ("ソメイヨシノ", "out", "relay:" + "7k2m9x4q" * 6 + "7k2m", 187.2, 40_000, 22_000, 7_100),
    ("[b]slate[/b]\x1b[31m", "in", "ws://203.0.113.80:61777", None, 2_000, 410, 0),
)
PEERS = [
    PeerInfo(an_id(name), name, address, direction, "peer", NOW - age, rtt, came, went)  # type: ignore[arg-type] # the directions are right
    for name, direction, address, rtt, age, came, went in _PEERS
]


def seen(name: str, age_s: float, address: str = "", via: str = "gossip", **more: object) -> SeenNode:
    """A node that was heard of."""
    node = SeenNode(
        an_id(name), name, "online", age_s, (address,) if address else (), (), 2, 0, (), (), 120,
    )  # fmt: skip
    return msgspec.structs.replace(node, via=via, **more)


NODES = [
    *(
        seen(name, 1.0 + 4 * at, address, "lan" if at == 0 else "gossip", rtt_ms=rtt)
        for at, (name, _, address, rtt, *_) in enumerate(_PEERS)
    ),
    seen("birch", 9.0, "ws://192.0.2.66:7741", id=an_id("another birch"), same_name_as=an_id("birch")),
    seen("elm", 14.0, "ws://192.0.2.10:7741", status="busy"),
    seen("fjord", 61.0, "", status="offline"),
    seen("granite", 33.0, "", relays=(an_id("quartz"),)),
    *(seen(f"node-{at}", 30.0 + at, f"ws://198.51.100.{at + 20}:7741") for at in range(31)),
]
REFUSED = [
    Refused(NOW - 4_000, "rate", an_id("juniper"), "ws://203.0.113.24:50122"),
    Refused(NOW - 31_000, "bad_signature", an_id("quartz"), "ws://198.51.100.7:7741"),
    Refused(NOW - 31_000, "bad_signature", an_id("quartz"), "ws://198.51.100.7:7741"),
    Refused(NOW - 2 * MINUTE, "mac", None, "ws://192.0.2.199:40112"),
    Refused(NOW - 3 * HOUR, "origin", None, "ws://127.0.0.1:55310"),
]
TROUBLED = msgspec.structs.replace(
    ONLINE,
    reachability="unreachable",
    reachability_reason="no peer could dial back",
    clock_skew_ms=-94_000,
    refused={"rate": 812, "bad_signature": 2, "mac": 1, "origin": 1},
    notices=(
        Notice("clock", "The clock of this machine is 94 s ahead of the peers'.", "Set it, or turn NTP on."),
        Notice("newer", "Two peers speak a newer protocol.", "Update infraxa."),
    ),
)


def offered(
    name: str,
    model: str,
    quantization: str,
    context: int = 32768,
    *,
    speed: float = 0.0,
    arch: str = "qwen3",
    backend: str = "cuda",
    cost: tuple[int, int] = (0, 0),
    node: SeenNode | None = None,
    **more: Any,
) -> OfferSeen:
    """A model of a node, and what was seen of it."""
    kind = ModelOffer(
        model, arch, quantization, an_id(model + quantization), context, context // 4, *cost, 0, backend,
        int(speed * 1000),
    )  # fmt: skip
    return OfferSeen(node or seen(name, 3.0, slots=8), kind, *cost, **more)


def _provider(name: str, age_s: float, address: str, via: str = "gossip", **more: object) -> SeenNode:
    return seen(name, age_s, address, via, **{"slots": 8, "first_token_ms": 180, **more})


_BIRCH = _provider("birch", 1.4, "ws://192.168.178.31:7741", "lan", rtt_ms=0.7, slots=2, util=128)
_JUNIPER = _provider("juniper", 4.0, "ws://203.0.113.24:50122", rtt_ms=23.0, util=96, first_token_ms=240)
_OSTRICH = _provider("ostrich farm in the north", 9.0, "ws://[2001:db8:77:4::9]:7741", rtt_ms=41.4, slots=16)
_GRANITE = _provider("granite", 33.0, "", relays=(an_id("quartz"),), slots=1, first_token_ms=0)
OFFERS = [
    offered(
        "birch", "Qwen3-4B-Instruct-2507", "Q4_K_M", 262144, speed=45, node=_BIRCH, backend="metal",
        answered=41, failed=1, success=0.981, first_token_ms=212.0, tokens_per_second=33.8, mark="pinned",
    ),
    offered(
        "birch", "gemma-3-12b-it", "Q4_0", 131072, speed=18, node=_BIRCH, arch="gemma3", backend="metal",
        mark="pinned",
    ),
    offered(
        "juniper", "Qwen3-30B-A3B", "Q5_K_M", 40960, speed=70, node=_JUNIPER, arch="qwen3moe",
        answered=12, success=1.0, first_token_ms=260.0, tokens_per_second=61.2,
    ),
    offered("juniper", "gpt-oss-20b", "MXFP4", 131072, speed=95, node=_JUNIPER, arch="gpt-oss"),
    *(
        offered(
            f"node-{at}", ("Qwen3-8B", "gemma-3-4b-it", "SmolLM3-3B")[at % 3], "Q4_K_M",
            speed=12.5 + at * 3.25,
            node=_provider(f"node-{at}", 20.0 + at, f"ws://198.51.100.{at + 20}:7741", util=at * 11),
        )
        for at in reversed(range(18))
    ),
    offered(
        "ソメイヨシノ", "桜-7B-日本語", "Q6_K", speed=31, arch="llama",
        node=_provider("ソメイヨシノ", 22.0, "ws://203.0.113.80:7741", rtt_ms=187.2, slots=2),
    ),
    offered(
        "slate", "[b]free[/b]\x1b[31m GPT\u202e-9", "Q2_K", 8192, arch="llama", backend="cpu",
        node=_provider("[b]slate[/b]\x1b[31m", 61.0, "ws://203.0.113.81:7741", first_token_ms=4200),
    ),
    offered("granite", "Phi-4-mini", "Q8_0", 131072, arch="phi3", backend="cpu", node=_GRANITE),
    offered(
        "birch", "Qwen3-4B-Instruct-2507", "Q4_K_M", 262144, speed=400, arch="qwen3",
        node=_provider(
            "birch", 9.0, "ws://192.0.2.66:7741", id=an_id("another birch"), same_name_as=an_id("birch")
        ),
    ),
    offered(
        "ostrich", "Llama-3.3-70B-Instruct", "Q8_0", 131072, speed=28.5, node=_OSTRICH, arch="llama",
        answered=3, failed=2, success=0.62, first_token_ms=1420.0, tokens_per_second=11.9, cooling_s=42.0,
    ),
    offered(
        "quartz", "Mistral-Small-3.2-24B-Instruct", "IQ4_XS", speed=24, arch="llama", backend="vulkan",
        node=_provider(
            "quartz", 12.0, "ws://198.51.100.7:7741", rtt_ms=118.0, status="busy", util=255, slots=4
        ),
    ),
    offered(
        "fjord", "Qwen3-8B", "Q4_K_M", speed=52, answered=88, failed=4, success=0.95, first_token_ms=310.0,
        tokens_per_second=47.5, node=_provider("fjord", 190.0, "ws://192.0.2.20:7741", status="offline"),
        problem="It is offline.",
    ),
    offered(
        "elm", "DeepSeek-R1-Distill-14B", "Q4_K_M", 131072, arch="qwen2", mark="blocked",
        problem="You blocked this provider.",
        node=_provider("elm", 14.0, "ws://192.0.2.10:7741", rtt_ms=64.0),
    ),
]  # fmt: skip
"""A market with some of everything, the best first."""


class StillNode(Node):
    """The real node and store; engine and network are not started and do not change by themselves."""

    status = EngineStatus()
    net = ONLINE
    shown: tuple[list[PeerInfo], list[SeenNode], list[Refused]] = (PEERS, NODES, [])
    offers: Sequence[OfferSeen] = OFFERS
    watched: tuple[bytes, ...] = ()
    bounds = Bound("free")
    """What every next message can cost."""
    histories: Mapping[bytes, Sequence[PricePoint]] = {}
    """By provider, whatever the model."""

    def __init__(self, settings: Settings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.rated: list[tuple[str, int, bool]] = []

    async def _load_at_start(self) -> None:
        return

    @property
    def engine(self) -> EngineStatus:
        return self.status

    @property
    def network(self) -> NetworkStatus:
        return self.net

    async def start(self) -> None:
        await super().start()
        self._emit(NetworkChanged(self.net))

    async def list_peers(self) -> list[PeerInfo]:
        return self.shown[0]

    async def list_nodes(self) -> list[SeenNode]:
        return self.shown[1]

    async def list_refused(self) -> list[Refused]:
        return self.shown[2]

    async def list_offers(self) -> list[OfferSeen]:
        return [*self.offers]

    async def mark_provider(self, node: bytes, mark: Mark) -> None:
        self.become_market(
            [
                msgspec.structs.replace(offer, mark=mark) if offer.node.id == node else offer
                for offer in self.offers
            ]
        )

    async def bound(self, chat_id: str, text: str) -> Bound:
        return self.bounds

    async def rate(self, message_id: str, stars: int, named: bool = False) -> None:
        self.rated.append((message_id, stars, named))

    async def price_history(self, node: bytes, model_id: bytes) -> list[PricePoint]:
        return list(self.histories.get(node, ()))

    async def watch_nodes(self, nodes: tuple[bytes, ...]) -> None:
        self.watched = nodes

    async def invite(self, hours: int = 168) -> str:
        return INVITE

    async def join(self, invite: str) -> SeenNode:
        raise NetError(
            "bad_invite",
            "This invite is cut off: 12 characters missing.",
            "Copy the whole text, from ix1 to its end.",
        )

    def become_market(self, offers: Sequence[OfferSeen]) -> None:
        """These are the offers from now on, and it says so."""
        self.offers = offers
        self._emit(OffersChanged())

    def become(
        self,
        net: NetworkStatus,
        peers: Sequence[PeerInfo] = (),
        nodes: Sequence[SeenNode] = (),
        refused: Sequence[Refused] = (),
    ) -> None:
        """The network is another one from now on, and says so."""
        self.net, self.shown = net, (list(peers), list(nodes), list(refused))
        for event in (NetworkChanged(net), PeersChanged(), NodesChanged()):
            self._emit(event)
