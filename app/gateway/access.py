"""Who may ask the gateway for anything: whoever has its key, and no web page that the person did not list.

A page in a browser on this machine can reach loopback. It cannot read the key, leave its `Origin` out, or set
a JSON content type without a question first (a preflight, which only listed origins pass); and a name that it
makes point to 127.0.0.1 is seen in `Host`. Pure: headers in, a refusal out.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

from multidict import CIMultiDictProxy

from infraxa.app.errors import NodeError
from infraxa.app.gateway.errors import ApiError

EXPOSED_HEADERS: Final = "x-infraxa-driver, x-infraxa-cost, x-request-id, retry-after"
PREFLIGHT_S: Final = 600
"""A browser need not ask again for so long."""
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


class Access:
    """The rules of one open gateway."""

    def __init__(self, key: str, host: str, origins: Sequence[str]) -> None:
        """`host`: where it listens, as it was given. `origins`: web pages that may ask with the key."""
        self._key = key.encode()
        self._hosts = _LOOPBACK_NAMES | {host.casefold()}
        self._any_address = host in _WILDCARDS
        self._origins = frozenset(map(_plain_origin, origins))

    def check_page(self, headers: CIMultiDictProxy[str]) -> dict[str, str]:
        """Refuses what a web page may have made; returns the headers that a listed one needs to read the
        answer. Raises ApiError 403."""
        hosts = headers.getall("Host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise ApiError(
                403,
                "This name is not one of the gateway's. Use the address that it listens on.",
                code="foreign_host",
            )
        origins = headers.getall("Origin", [])
        if not origins:
            return {}
        if len(origins) != 1 or origins[0].casefold() not in self._origins:
            raise ApiError(
                403,
                "Web pages may use the gateway only when their origin is listed in gateway_origins.",
                code="foreign_origin",
            )
        return {
            "Access-Control-Allow-Origin": origins[0],
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            "Vary": "Origin",
        }

    def check_key(self, headers: CIMultiDictProxy[str]) -> None:
        """Raises ApiError 401."""
        given = [one.partition(" ") for one in headers.getall("Authorization", [])]
        right = [
            hmac.compare_digest(key.strip().encode("utf-8", "replace"), self._key)
            for scheme, _, key in given
            if scheme.casefold() == "bearer"
        ]
        if right != [True]:
            raise ApiError(
                401,
                "The gateway's key is missing or wrong: send Authorization: Bearer KEY. "
                "The command infraxa gateway key prints it.",
                code="invalid_api_key",
            )

    def _is_ours(self, host: str) -> bool:
        name = _host_name(host)
        return name in self._hosts or (self._any_address and _is_address(name))


def preflight(headers: CIMultiDictProxy[str], allowed: Mapping[str, str]) -> dict[str, str]:
    """The answer's headers to a browser that asks before it sends what a page wants; `allowed`: what
    `check_page` gave. Raises ApiError 405 when nobody asks that."""
    if not allowed or "Access-Control-Request-Method" not in headers:
        raise ApiError(405, "OPTIONS is for web pages that are listed.", code="method_not_allowed")
    more = {
        **allowed,
        "Access-Control-Allow-Methods": "GET, POST",
        # The star does not include the first.
        "Access-Control-Allow-Headers": "authorization, *",
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
    if headers.get("Access-Control-Request-Private-Network") == "true":
        more["Access-Control-Allow-Private-Network"] = "true"
    return more


def check_json(headers: CIMultiDictProxy[str]) -> None:
    """A body is JSON in UTF-8, as it is. Raises ApiError 415."""
    kind, _, more = headers.get("Content-Type", "").partition(";")
    charset = more.strip().casefold().removeprefix("charset=").strip('"')
    if kind.strip().casefold() != "application/json" or charset not in ("", "utf-8"):
        raise ApiError(415, "The content type must be application/json.", code="unsupported_media_type")
    if headers.get("Content-Encoding", "identity").casefold() != "identity":
        raise ApiError(415, "The body must not be compressed.", code="unsupported_media_type")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(origin: str) -> str:
    """One of the setting `gateway_origins`. Raises NodeError `bad_setting`."""
    plain = _plain_origin(origin)
    scheme, _, rest = plain.partition("://")
    if not scheme.isascii() or not scheme.replace("-", "").isalnum() or not rest or set("/?#@*, ") & {*rest}:
        raise NodeError(
            "bad_setting",
            "gateway_origins holds what is no origin of a web page.",
            "An origin is like http://localhost:3000 or https://example.com, with commas between several.",
        )
    return plain


def _plain_origin(origin: str) -> str:
    return origin.strip().rstrip("/").casefold()


def _host_name(host: str) -> str:
    """`[::1]:8790` → `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].casefold()
    return host.partition(":")[0].rstrip(".").casefold()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
