"""By whom a request may be answered: the `X-Infraxa-…` headers, read into a Policy."""

from __future__ import annotations

from typing import Final

from multidict import CIMultiDictProxy

from infraxa.app.calls import Policy
from infraxa.app.gateway.errors import bad_request
from infraxa.net.credits import read_credits
from infraxa.net.errors import NetError

PREFIX: Final = "x-infraxa-"
MAX_VALUE: Final = 128
"""Characters of a header's value."""
_KNOWN: Final = ("where", "driver", "max-price", "audited")


def read_policy(headers: CIMultiDictProxy[str]) -> Policy:
    """Raises ApiError 400 for a header that is no policy, twice there, or has a value that is not allowed: a
    limit that was misspelt must not be ignored."""
    given: dict[str, str] = {}
    for name, value in headers.items():
        short = name.casefold().removeprefix(PREFIX)
        if not name.casefold().startswith(PREFIX):
            continue
        if short not in _KNOWN:
            known = ", ".join(f"{PREFIX}{one}" for one in _KNOWN)
            raise bad_request(f"There is no such header; there are {known}.", f"{PREFIX}{short}"[:MAX_VALUE])
        if short in given or not 0 < len(value.strip()) <= MAX_VALUE:
            raise _bad(short, f"one value of 1 to {MAX_VALUE} characters")
        given[short] = value.strip()
    where = given.get("where", "auto")
    if where not in ("auto", "local", "market"):
        raise _bad("where", "auto, local or market")
    if given.get("audited", "only") != "only":
        raise _bad("audited", "only")
    return Policy(
        where=where,  # type: ignore[arg-type] # one of the three
        driver=given.get("driver"),
        max_price=_price(given["max-price"]) if "max-price" in given else None,
        audited="audited" in given,
    )


def _price(text: str) -> int:
    """µcr per 1M tokens."""
    try:
        price = read_credits(text)
    except NetError:
        price = -1
    if price < 0:
        raise _bad("max-price", "credits per million tokens of the answer, such as 0.25")
    return price


def _bad(name: str, allowed: str) -> Exception:
    return bad_request(f"{PREFIX}{name} must be {allowed}.", PREFIX + name, "bad_policy")
