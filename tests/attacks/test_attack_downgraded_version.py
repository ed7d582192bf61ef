"""A man in the middle rewrites the version of a hello: nobody is brought to speak an older protocol."""

from __future__ import annotations

from collections.abc import Iterable

from infraxa.net import door
from infraxa.net.errors import NetError
from infraxa.net.hello import Hello, _mac, read_hello, reject
from tests.attacks import report
from tests.attacks.attacker import NETWORK, now_ms
from tests.attacks.middle import middle
from tests.attacks.target import replaced, target

OLDER = 0


def rewritten(frame: bytes, version: int) -> bytes:
    """A hello of another version. Its mac keeps nobody from that who knows the network's name."""
    changed = frame[:3] + bytes((version,)) + frame[4:]
    return changed[:20] + _mac(NETWORK, changed) + changed[36:]


def of_any_version(frame: bytes, network: bytes) -> Hello:
    return read_hello(rewritten(frame, 1), network)


def lowered(frame: bytes, outward: bool) -> Iterable[bytes]:
    return (rewritten(frame, OLDER) if outward and frame.startswith(b"ix\x01") else frame,)


async def brought_down() -> tuple[bool, dict[str, int]]:
    """Whether two nodes have a session although one of them was told of an older version."""
    async with target("asks") as node, target("answers") as other:
        async with middle(other.address, lowered) as between:
            node.knows(other.id, between.address)
            try:
                await node.network.link_to(other.id)
            except NetError as error:
                assert error.code == "refused" and "version" in error.message
                return False, dict(other.refused)
            return True, dict(other.refused)


async def test_a_hello_of_an_older_version() -> None:
    with replaced((door, "read_hello", of_any_version)):
        assert await brought_down() == (True, {})
    stands, counted = await brought_down()
    assert not stands and counted == {"version": 1}
    report.tell(
        "downgrade: the version of a hello is rewritten",
        weakened="a session of the older version",
        ours="refused, version",
        cost="four bytes compared",
    )


async def test_who_is_told_of_another_version_does_not_try_it() -> None:
    """That refusal is in clear, so anybody on the way can say it."""

    def refuses(frame: bytes, outward: bool) -> Iterable[bytes]:
        return (frame if outward else reject("version", now_ms()),)

    async with target("asks") as node, target("answers") as other:
        async with middle(other.address, refuses) as between:
            node.knows(other.id, between.address)
            try:
                await node.network.link_to(other.id)
            except NetError as error:
                assert "version" in error.message
            hellos = [frame for frame in between.seen if frame.startswith(b"ix\x01")]
            assert len(hellos) == 1 and hellos[0][3] == 1
            assert not other.links
