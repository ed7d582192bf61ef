"""What goes wrong with the hub, in sentences with a remedy. None of the hub's own words is shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infraxa.app.errors import NodeError
from infraxa.app.hub_values import Access

if TYPE_CHECKING:
    import httpx2

MAX_WAIT = 60.0
"""Seconds that a hub which asks for patience is given before the next attempt."""

_RATE_LIMIT = re.compile(r";\s*t\s*=\s*(\d{1,9})")
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same may go well a moment later."""


class Again(Exception):
    """It did not work now; `error` is what to say when it never does."""

    def __init__(self, error: NodeError, wait_s: float = 0.0) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        """Seconds that the hub asks for."""


def check_status(response: httpx2.Response, access: Access, repo: str) -> None:
    status, host = response.status_code, host_of(access)
    if status in (200, 206):
        return
    wait = _wait(response.headers)
    match status:
        case 401 | 403 if response.headers.get("X-Error-Code") == "GatedRepo":
            raise NodeError(
                "gated",
                f"{repo} is open only to those who have accepted its author's terms.",
                f"Accept them at {access.endpoint}/{repo}, then set HF_TOKEN to a token of that account.",
            )
        case 401 | 403 if access.token:
            raise NodeError(
                "refused",
                f"{host} does not show {repo} to the owner of the token that is set ({status}).",
                f"Check the name, or set HF_TOKEN to one that may: {access.endpoint}/settings/tokens",
            )
        case 401 | 403:
            raise NodeError(
                "refused",
                f"{host} has no {repo}, or does not show it to everybody ({status}).",
                "Check the name; for what is private or gated, set HF_TOKEN to a token of your account.",
            )
        case 404 | 410:
            raise NodeError("no_repo", f"{host} has no {repo}, or not this file of it.", "Check the name.")
        case 429:
            when = f"Try again in {wait:.0f} s" if wait else "Try again later"
            raise Again(
                NodeError(
                    "rate_limited",
                    f"{host} was asked too often from this address.",
                    f"{when}; with HF_TOKEN set to a token of an account more is allowed.",
                ),
                min(wait, MAX_WAIT),
            )
        case 416:
            raise Again(strange(access, "it does not have the rest of the file"))
        case _ if status in _AGAIN:
            raise Again(
                NodeError("hub_failed", f"{host} cannot answer now ({status}).", "Try again later."),
                min(wait, MAX_WAIT),
            )
    raise strange(access, f"it answers with the status {status}")


def _wait(headers: httpx2.Headers) -> float:
    """Seconds that the hub asks for; 0 when it does not say."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", asked):
        return float(asked)
    found = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(found[1]) if found else 0.0


def host_of(access: Access) -> str:
    """The hub's name for people."""
    return urlsplit(access.endpoint).netloc.rpartition("@")[2]


def unreachable(access: Access, error: Exception) -> NodeError:
    import httpx2

    host = host_of(access)
    if isinstance(error, httpx2.ProxyError):
        return NodeError(
            "unreachable", f"The proxy does not lead to {host}.", "Check HTTPS_PROXY and ALL_PROXY."
        )
    if isinstance(error, httpx2.TimeoutException):
        return NodeError(
            "unreachable",
            f"{host} does not answer.",
            "Check the internet connection; HF_ENDPOINT names a mirror.",
        )
    if isinstance(error, httpx2.ConnectError):
        return NodeError(
            "unreachable",
            f"{host} cannot be reached: {_reason(error)}.",
            "Check the internet connection; HF_ENDPOINT names a mirror.",
        )
    if isinstance(error, httpx2.DecodingError):
        return strange(access, "its answer cannot be read")
    return NodeError("cut", f"The connection to {host} was cut.", "Try again.")


def _reason(error: BaseException) -> str:
    """Why no connection was made, in few words."""
    text = str(error).lower()
    if any(words in text for words in ("name or service", "nodename", "getaddrinfo", "name resolution")):
        return "its name is not known here"
    if "certificate" in text or "ssl" in text:
        return "its certificate is not trusted here"
    if "refused" in text or "all connection attempts failed" in text:
        return "nobody accepts the connection"
    return "there is no connection"


def strange(access: Access, what: str) -> NodeError:
    return NodeError(
        "strange_hub",
        f"{host_of(access)} does not behave like a hub: {what}.",
        "Check HF_ENDPOINT, and whether a network in between asks you to log in.",
    )


def offline() -> NodeError:
    return NodeError("offline", "HF_HUB_OFFLINE is set, so the hub is not asked.", "Unset it.")
