from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import natpmp, portmap, upnp
from infraxa.net.errors import NetError
from infraxa.net.natpmp import Mapped, NatPmp
from infraxa.net.portmap import PortMap, Router, default_gateway

BOUND = 20.0
OUTSIDE = IPv4Address("11.22.33.44")


class Gateway(asyncio.DatagramProtocol):
    """A router that speaks NAT-PMP, on loopback."""

    def __init__(self) -> None:
        self.mapped: dict[int, int] = {}
        self.requests: list[bytes] = []
        self.ip = OUTSIDE
        self.result = 0
        self.deaf = 0
        """Packets that are lost."""
        self.lies_first: list[bytes] = []
        self._news = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    async def asked(self, times: int) -> None:
        while len(self.requests) < times:
            self._news.clear()
            await self._news.wait()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.requests.append(data)
        self._news.set()
        if self.deaf:
            self.deaf -= 1
            return
        for lie in self.lies_first:
            self.transport.sendto(lie, addr)
        head = struct.pack("!BBHI", 0, data[1] | 128, self.result, 1000)
        if data[1] == 0:
            self.transport.sendto(head + self.ip.packed, addr)
            return
        _, inside, outside, lease = struct.unpack("!HHHI", data[2:])
        if lease:
            outside = self.mapped.setdefault(inside, outside)
        else:
            self.mapped.pop(inside, None)
        self.transport.sendto(head + struct.pack("!HHI", inside, outside, lease), addr)


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[tuple[Gateway, NatPmp]]:
    made = Gateway()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
    try:
        yield made, NatPmp("127.0.0.1", transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


async def test_nat_pmp_maps_and_unmaps() -> None:
    async with gateway() as (router, client):
        assert await client.map(7741, 7741, 3600) == Mapped(OUTSIDE, 7741, 3600)
        # RFC 6886, 3.2 and 3.3.
        assert router.requests == [b"\0\0", bytes.fromhex("0002 0000 1e3d 1e3d 00000e10")]
        assert router.mapped == {7741: 7741}
        await client.unmap()
        assert router.requests[-1] == bytes.fromhex("0002 0000 1e3d 0000 00000000")
        assert router.mapped == {}


async def test_a_lost_packet_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natpmp, "FIRST_WAIT_S", 0.01)
    async with gateway() as (router, client):
        router.deaf = 2
        assert (await client.map(7741, 7741, 3600)).port == 7741


async def test_what_is_no_answer_is_passed_over() -> None:
    async with gateway() as (router, client):
        router.lies_first = [
            b"",
            b"\0",
            os.urandom(2),
            b"\0\x81" + bytes(20),
            b"\0\x82\0\0" + bytes(4) + struct.pack("!HHI", 22, 22, 9),
        ]
        assert await client.map(7741, 7741, 3600) == Mapped(OUTSIDE, 7741, 3600)


async def test_a_refusal_is_said() -> None:
    async with gateway() as (router, client):
        router.result = 2
        with pytest.raises(NetError, match="switched off") as caught:
            await client.map(7741, 7741, 3600)
        assert caught.value.code == "port_mapping"


async def test_a_silent_router_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natpmp, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(natpmp, "TOTAL_S", 0.1)
    async with gateway() as (router, client):
        router.deaf = 10**6
        with pytest.raises(NetError, match="does not answer"):
            await client.map(7741, 7741, 3600)
        assert 2 < len(router.requests) < 12
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NetError, match="does not answer"):
        await NatPmp("127.0.0.1", port).map(7741, 7741, 3600)


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_no_packet_does_harm(packet: bytes) -> None:
    for read in (natpmp.read_address, lambda data: natpmp.read_mapping(data, 7741)):
        with contextlib.suppress(NetError):
            read(packet)


class Kept:
    """A PortMap and what it said."""

    def __init__(self, *routers: Router) -> None:
        self.hosts: list[str] = []
        self._routers = routers
        self._news = asyncio.Event()
        self.map = PortMap(7741, on_change=self._news.set, rng=random.Random(1), find=self._find)

    async def _find(self, host: str) -> AsyncGenerator[Router, None]:
        self.hosts.append(host)
        for router in self._routers:
            yield router

    async def news(self) -> None:
        await asyncio.wait_for(self._news.wait(), BOUND)
        self._news.clear()


async def test_a_port_is_kept_mapped_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portmap, "MIN_RENEW_S", 0.01)
    monkeypatch.setattr(portmap, "LEASE_S", 1)
    async with gateway() as (router, client):
        kept = Kept(client)
        kept.map.start("127.0.0.1")
        try:
            await kept.news()
            assert kept.map.address == "ws://11.22.33.44:7741"
            assert kept.map.notice is None
            await asyncio.wait_for(router.asked(len(router.requests) + 2), BOUND)
        finally:
            await kept.map.close()
        assert router.mapped == {}
        assert kept.map.address == ""
        await kept.map.close()


async def test_the_next_router_is_asked_when_one_fails() -> None:
    async with gateway() as (broken, first), gateway() as (_, second):
        broken.result = 5
        kept = Kept(first, second)
        kept.map.start("127.0.0.1")
        try:
            await kept.news()
            assert kept.map.address == "ws://11.22.33.44:7741"
        finally:
            await kept.map.close()


async def test_a_lost_mapping_is_said_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portmap, "MIN_RENEW_S", 0.01)
    monkeypatch.setattr(portmap, "LEASE_S", 0)
    monkeypatch.setattr(portmap, "RETRY_S", 0.01)
    async with gateway() as (router, client):
        kept = Kept(client)
        kept.map.start("127.0.0.1")
        try:
            await kept.news()
            router.result = 3
            await kept.news()
            assert kept.map.address == ""
            assert kept.map.notice is not None
            assert "not connected" in kept.map.notice.message
            assert "7741" in kept.map.notice.remedy
            router.result = 0
            await kept.news()
            assert kept.map.address == "ws://11.22.33.44:7741"
            assert kept.map.notice is None
        finally:
            await kept.map.close()


@pytest.mark.parametrize("ip", ["100.64.0.9", "10.0.0.1", "169.254.169.254", "0.0.0.0"])
async def test_a_router_behind_a_router_is_no_help(ip: str) -> None:
    async with gateway() as (router, client):
        router.ip = IPv4Address(ip)
        kept = Kept(client)
        kept.map.start("127.0.0.1")
        try:
            await kept.news()
            assert kept.map.address == ""
            assert kept.map.notice is not None and "behind another one" in kept.map.notice.message
            assert router.mapped == {}
        finally:
            await kept.map.close()


async def test_without_a_router_it_says_so() -> None:
    kept = Kept()
    kept.map.start("127.0.0.1")
    try:
        await kept.news()
        assert kept.map.notice is not None and "none answers" in kept.map.notice.message
    finally:
        await kept.map.close()


def test_the_gateway_of_linux(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("reads a file of Linux")
    table = tmp_path / "route"
    number = f"{int.from_bytes(IPv4Address('192.168.1.1').packed, sys.byteorder):08X}"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\n"
        "eth0\t0001A8C0\t00000000\t0001\n"
        "wg0\t00000000\t00000000\t0001\n"
        f"eth0\t00000000\t{number}\t0003\n"
    )
    assert default_gateway("192.168.1.20", table) == "192.168.1.1"
    assert default_gateway("192.168.1.20", tmp_path / "none") == ""


DEVICE = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<friendlyName>{name}</friendlyName><UDN>uuid:1</UDN><deviceList>
<device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><UDN>uuid:2</UDN><deviceList>
<device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><UDN>uuid:3</UDN>
<serviceList><service><serviceType>{service}</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><SCPDURL>/scpd.xml</SCPDURL>
<controlURL>{control}</controlURL><eventSubURL>/event</eventSubURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>"""
ARGUMENTS = {
    "AddPortMapping": "NewRemoteHost NewExternalPort NewProtocol NewInternalPort NewInternalClient "
    "NewEnabled NewPortMappingDescription NewLeaseDuration",
    "DeletePortMapping": "NewRemoteHost NewExternalPort NewProtocol",
    "GetExternalIPAddress": "",
}
TYPES = {
    "NewExternalPort": "ui2",
    "NewInternalPort": "ui2",
    "NewLeaseDuration": "ui4",
    "NewEnabled": "boolean",
}


def scpd() -> str:
    actions, variables = "", ""
    for action, names in ARGUMENTS.items():
        arguments = [(name, "in") for name in names.split()]
        if action == "GetExternalIPAddress":
            arguments.append(("NewExternalIPAddress", "out"))
        listed = "".join(
            f"<argument><name>{name}</name><direction>{way}</direction>"
            f"<relatedStateVariable>{action}_{name}</relatedStateVariable></argument>"
            for name, way in arguments
        )
        actions += f"<action><name>{action}</name><argumentList>{listed}</argumentList></action>"
        for name, _ in arguments:
            variables += (
                f'<stateVariable sendEvents="no"><name>{action}_{name}</name>'
                f"<dataType>{TYPES.get(name, 'string')}</dataType></stateVariable>"
            )
    return (
        '<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major>'
        f"<minor>0</minor></specVersion><actionList>{actions}</actionList>"
        f"<serviceStateTable>{variables}</serviceStateTable></scpd>"
    )


class InternetGateway(asyncio.DatagramProtocol):
    """A router that speaks UPnP, on loopback."""

    service = "urn:schemas-upnp-org:service:WANIPConnection:1"

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.taken: set[str] = set()
        self.only_permanent = False
        self.location = ""
        self.control = "/control"
        self.name = "router"
        self.redirect = ""
        self.description: str | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert data.startswith(b"M-SEARCH")
        answer = (
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nEXT:\r\n"
            f"LOCATION: {self.location}\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
            "USN: uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
        )
        self.transport.sendto(answer.encode(), addr)

    async def device(self, request: web.Request) -> web.Response:
        if self.redirect:
            raise web.HTTPFound(self.redirect)
        text = DEVICE.format(service=self.service, control=self.control, name=self.name)
        if self.description is not None:
            text = self.description
        return web.Response(text=text, content_type="text/xml")

    async def describe(self, request: web.Request) -> web.Response:
        return web.Response(text=scpd(), content_type="text/xml")

    async def act(self, request: web.Request) -> web.Response:
        from xml.etree import ElementTree

        action = request.headers["SOAPAction"].strip('"').partition("#")[2]
        body = ElementTree.fromstring(await request.text())
        call = body[0][0]
        values = {child.tag: child.text or "" for child in call}
        self.calls.append((action, values))
        error = 0
        if action == "AddPortMapping" and values["NewExternalPort"] in self.taken:
            error = 718
        if action == "AddPortMapping" and self.only_permanent and values["NewLeaseDuration"] != "0":
            error = 725
        if error:
            inside = (
                "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
                '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
                f"<errorCode>{error}</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"
            )
        else:
            out = "<NewExternalIPAddress>11.22.33.44</NewExternalIPAddress>" * (
                action == "GetExternalIPAddress"
            )
            inside = f'<u:{action}Response xmlns:u="{self.service}">{out}</u:{action}Response>'
        text = (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
            f's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{inside}</s:Body></s:Envelope>'
        )
        return web.Response(text=text, content_type="text/xml", status=500 if error else 200)


@contextlib.asynccontextmanager
async def internet_gateway() -> AsyncIterator[tuple[InternetGateway, tuple[str, int]]]:
    made = InternetGateway()
    app = web.Application()
    app.router.add_get("/device.xml", made.device)
    app.router.add_get("/scpd.xml", made.describe)
    app.router.add_post("/control", made.act)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.location = f"http://127.0.0.1:{runner.addresses[0][1]}/device.xml"
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
    try:
        yield made, transport.get_extra_info("sockname")
    finally:
        transport.close()
        await runner.cleanup()


async def test_upnp_maps_and_unmaps() -> None:
    async with internet_gateway() as (gateway, ssdp):
        router = await upnp.find("127.0.0.1", ssdp)
        assert router is not None
        assert await router.map(7741, 7741, 3600) == Mapped(OUTSIDE, 7741, 3600)
        assert gateway.calls[-1] == (
            "AddPortMapping",
            {
                "NewRemoteHost": "",
                "NewExternalPort": "7741",
                "NewProtocol": "TCP",
                "NewInternalPort": "7741",
                "NewInternalClient": "127.0.0.1",
                "NewEnabled": "1",
                "NewPortMappingDescription": "infraxa",
                "NewLeaseDuration": "3600",
            },
        )
        await router.unmap()
        assert gateway.calls[-1] == (
            "DeletePortMapping",
            {"NewRemoteHost": "", "NewExternalPort": "7741", "NewProtocol": "TCP"},
        )


async def test_upnp_takes_another_port_when_one_is_taken() -> None:
    async with internet_gateway() as (gateway, ssdp):
        gateway.taken = {"7741"}
        router = await upnp.find("127.0.0.1", ssdp)
        assert router is not None
        kept = Kept(router)
        kept.map.start("127.0.0.1")
        try:
            await kept.news()
            assert kept.map.address.startswith("ws://11.22.33.44:")
            assert not kept.map.address.endswith(":7741")
        finally:
            await kept.map.close()
        assert gateway.calls[-1][0] == "DeletePortMapping"
        assert kept.map.address == ""


async def test_upnp_of_routers_that_know_no_lease() -> None:
    async with internet_gateway() as (gateway, ssdp):
        gateway.only_permanent = True
        router = await upnp.find("127.0.0.1", ssdp)
        assert router is not None
        assert (await router.map(7741, 7741, 3600)).lease_s == 3600
        assert gateway.calls[-1][1]["NewLeaseDuration"] == "0"


@pytest.mark.parametrize(
    ("location", "read"),
    [
        ("http://192.168.1.1:5000/device.xml", "http://192.168.1.1:5000/device.xml"),
        ("http://192.168.1.1/a?b#c", "http://192.168.1.1:80/a?b"),
        ("http://[::ffff:192.168.1.1]/", "http://192.168.1.1:80/"),
        ("http://192.168.1.2:5000/device.xml", ""),  # another machine than the one that answers
        ("http://127.0.0.1:5000/device.xml", ""),
        ("http://169.254.169.254/latest", ""),
        ("http://192.168.1.1@192.168.1.2/", ""),
        ("http://evil\\@192.168.1.1/", "http://192.168.1.1:80/"),
        ("http://3232235777/device.xml", ""),
        ("http://router.local/device.xml", ""),
        ("https://192.168.1.1/device.xml", ""),
        ("file:///etc/passwd", ""),
        ("http://192.168.1.1:99999/", ""),
        ("http://[::1", ""),
        ("", ""),
    ],
)
def test_a_description_is_read_from_who_answers(location: str, read: str) -> None:
    assert upnp._location(location, "192.168.1.1") == read
    assert upnp._location("http://8.8.8.8/device.xml", "8.8.8.8") == ""


async def test_who_sends_elsewhere_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "SEARCH_S", 0.3)
    async with internet_gateway() as (gateway, ssdp):
        gateway.location = gateway.location.replace("127.0.0.1", "localhost")
        assert await upnp.find("127.0.0.1", ssdp) is None


@pytest.mark.parametrize("what", ["control", "redirect", "size", "service", "silent"])
async def test_a_hostile_router_is_none(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "SEARCH_S", 0.5)
    async with internet_gateway() as (gateway, ssdp), internet_gateway() as (other, _):
        match what:
            case "control":
                gateway.control = "http://169.254.169.254/latest"
            case "redirect":
                gateway.redirect = other.location
            case "size":
                gateway.name = "x" * (upnp.MAX_BODY + 1)
            case "service":
                gateway.service = "urn:schemas-upnp-org:service:Other:1"
            case _:
                ssdp = ("127.0.0.1", 9)
        assert await upnp.find("127.0.0.1", ssdp) is None
        assert gateway.calls == []


@pytest.mark.parametrize(
    "description",
    [
        "",
        "no XML",
        "<root/>",
        '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><root>&d;</root>',
        '<root xmlns="urn:schemas-upnp-org:device-1-0"><device><iconList><icon><width>wide</width></icon>'
        "</iconList></device></root>",
        '<root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service/></serviceList>'
        "</device></root>",
        DEVICE.format(service=InternetGateway.service, control="http://[::1", name="x"),
    ],
)
async def test_a_description_that_is_no_good_is_passed_over(
    description: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upnp, "SEARCH_S", 0.3)
    async with internet_gateway() as (gateway, ssdp):
        gateway.description = description
        assert await upnp.find("127.0.0.1", ssdp) is None


async def test_a_call_that_is_refused_is_said() -> None:
    async with internet_gateway() as (_, ssdp):
        router = await upnp.find("127.0.0.1", ssdp)
        assert router is not None
    with pytest.raises(NetError) as caught:
        await router.map(7741, 7741, 3600)
    assert caught.value.code == "port_mapping"


def test_importing_it_does_not_import_upnp() -> None:
    script = "import sys, infraxa.net.portmap; assert not {'async_upnp_client', 'aiohttp'} & set(sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=env)
