"""UPnP: asking a router to let others in at a port, as most home routers understand it.

Search, descriptions and calls are async-upnp-client's. Here is what it leaves to its user: which answer to
believe, and how much of it to read. Anybody on the local network can answer a search, so a description is
read only from the host that answered, never through a redirect, and no more than MAX_BODY of it.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from infraxa.net import addresses
from infraxa.net.errors import NetError
from infraxa.net.natpmp import Mapped

if TYPE_CHECKING:
    from async_upnp_client.client import UpnpRequester, UpnpService
    from async_upnp_client.utils import CaseInsensitiveDict

_log = logging.getLogger(__name__)

SSDP: Final = ("239.255.255.250", 1900)
SEARCH_S: Final = 3.0
CALL_S: Final = 5.0
MAX_BODY: Final = 256 * 1024
"""Bytes of a description or an answer."""

_GATEWAY: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_SERVICES: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
_IN_USE: Final = 718
_ONLY_PERMANENT: Final = 725


class Upnp:
    """A router found by UPnP. Made by `find`."""

    name = "UPnP"

    def __init__(self, service: UpnpService, host: str) -> None:
        self._service = service
        self._host = host
        self._outside = 0

    async def map(self, port: int, outside: int, lease_s: int) -> Mapped:
        """Map TCP port `outside` to `port` here, or renew. Takes 3 · CALL_S at most. Raises NetError
        `port_mapping`; when `outside` is somebody else's, NetError `port_taken`."""
        from async_upnp_client.exceptions import UpnpActionError

        answer = await self._call("GetExternalIPAddress")
        try:
            ip = IPv4Address(answer["NewExternalIPAddress"])
        except (KeyError, ValueError):
            raise NetError("port_mapping", "The router does not say its address outside.") from None
        wanted = {
            "NewRemoteHost": "",
            "NewExternalPort": outside,
            "NewProtocol": "TCP",
            "NewInternalPort": port,
            "NewInternalClient": self._host,
            "NewEnabled": True,
            "NewPortMappingDescription": "infraxa",
        }
        try:
            await self._call("AddPortMapping", **wanted, NewLeaseDuration=lease_s)
        except NetError as error:
            code = error.__cause__.error_code if isinstance(error.__cause__, UpnpActionError) else None
            if code == _IN_USE:
                raise NetError("port_taken", "The router maps this port to another machine.") from None
            if code != _ONLY_PERMANENT:
                raise
            # Kept until it is taken away: `unmap`, and the next `map`, which writes over it.
            await self._call("AddPortMapping", **wanted, NewLeaseDuration=0)
        self._outside = outside
        return Mapped(ip, outside, lease_s)

    async def unmap(self) -> None:
        """End the mapping. Takes CALL_S at most. Raises NetError `port_mapping`."""
        await self._call(
            "DeletePortMapping", NewRemoteHost="", NewExternalPort=self._outside, NewProtocol="TCP"
        )

    async def _call(self, action: str, **values: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_S):
                return await self._service.action(action).async_call(**values)
        except Exception as error:  # as for a description
            raise NetError("port_mapping", f"The router refused UPnP's {action}.") from error


async def find(host: str, ssdp: tuple[str, int] = SSDP) -> Upnp | None:
    """The router that answers a search made from `host` (this machine's IPv4 address), or None. Takes
    SEARCH_S at most."""
    # 0.1 s of CPU, for those alone who want a port mapped.
    await asyncio.to_thread(importlib.import_module, "async_upnp_client.client_factory")
    from async_upnp_client.client_factory import UpnpFactory
    from async_upnp_client.search import SsdpSearchListener

    found: asyncio.Queue[str] = asyncio.Queue(8)

    def answered(headers: CaseInsensitiveDict) -> None:
        location = _location(str(headers.get("location", "")), str(headers.get("_host", "")))
        if location and not found.full():
            found.put_nowait(location)

    listener = SsdpSearchListener(
        callback=answered, source=(host, 0), target=ssdp, timeout=1, search_target=_GATEWAY
    )
    try:
        async with asyncio.timeout(SEARCH_S):
            await listener.async_start()
            listener.async_search()
            while True:
                location = await found.get()
                try:
                    device = await UpnpFactory(_requester(), non_strict=True).async_create_device(location)
                except Exception as error:  # who knows what a hostile description does to its parser
                    _log.info("UPnP: a description is no good: %s", type(error).__name__)
                    continue
                for service in device.all_services:
                    if service.service_type in _SERVICES and service.has_action("AddPortMapping"):
                        return Upnp(service, host)
    except (TimeoutError, OSError):
        return None
    finally:
        listener.async_stop()


def _location(text: str, sender: str) -> str:
    """`text` when it leads to the machine that sent it, in a private network; else nothing. Written anew
    from its parts, so that nobody reads another host in it."""
    try:
        parts = urlsplit(text)
        ip = addresses.read_ip(parts.hostname or "")
        port = parts.port or 80
        if parts.scheme != "http" or ip != addresses.read_ip(sender) or not addresses.is_local(ip):
            return ""
    except ValueError:
        return ""
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    return urlunsplit(("http", f"{host}:{port}", parts.path, parts.query, ""))


def _requester() -> UpnpRequester:
    import aiohttp
    from async_upnp_client.client import UpnpRequester
    from async_upnp_client.const import HttpRequest, HttpResponse
    from async_upnp_client.exceptions import UpnpConnectionError

    class Requester(UpnpRequester):
        async def async_http_request(self, http_request: HttpRequest) -> HttpResponse:
            timeout = aiohttp.ClientTimeout(total=CALL_S)
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout) as session,
                    session.request(
                        http_request.method,
                        http_request.url,
                        headers=http_request.headers,
                        data=http_request.body,
                        allow_redirects=False,
                    ) as response,
                ):
                    body = b""
                    async for part in response.content.iter_chunked(16 * 1024):
                        body += part
                        if len(body) > MAX_BODY:
                            raise UpnpConnectionError("too large")
                    return HttpResponse(response.status, response.headers, body.decode(errors="replace"))
            except (aiohttp.ClientError, TimeoutError) as error:
                raise UpnpConnectionError(type(error).__name__) from None

    return Requester()
