"""A node whose engine and network stand still, and what its network looks like in several situations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from infraxa.app.events import NetworkChanged, NodesChanged, PeersChanged
from infraxa.app.node import Node
from infraxa.engine.types import EngineStatus
from infraxa.net.errors import NetError
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


class StillNode(Node):
    """The real node and store; engine and network are not started and do not change by themselves."""

    status = EngineStatus()
    net = ONLINE
    shown: tuple[list[PeerInfo], list[SeenNode], list[Refused]] = (PEERS, NODES, [])

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

    async def invite(self, hours: int = 168) -> str:
        return INVITE

    async def join(self, invite: str) -> SeenNode:
        raise NetError(
            "bad_invite",
            "This invite is cut off: 12 characters missing.",
            "Copy the whole text, from ix1 to its end.",
        )

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
