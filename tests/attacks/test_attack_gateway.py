"""A web page asks the gateway of the machine that its reader sits at, and spends nothing.

A page can reach loopback: by a form or a `fetch` of plain text, which browsers send unasked; by a name of
its own that it makes point to 127.0.0.1; by a preflight that somebody answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDictProxy

from infraxa.app.gateway import server
from infraxa.app.gateway.access import Access
from tests.app.gateways import Opened, http, opened
from tests.attacks import report
from tests.attacks.target import replaced

CHAT = "/v1/chat/completions"
PAGE = "https://page.example"
BODY = json.dumps(
    {"model": "guide", "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 4}
)
TRIES: dict[str, tuple[str, dict[str, str]]] = {
    "plain text": ("POST", {"Origin": PAGE, "Content-Type": "text/plain"}),
    "a sandboxed form": ("POST", {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"}),
    "a preflight": (
        "OPTIONS",
        {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    ),
    "a name that points here": ("POST", {"Host": "page.example", "Content-Type": "application/json"}),
}


class Hospitable(Access):
    """Trusts whatever reaches loopback, as much that listens there does."""

    def check_page(self, headers: CIMultiDictProxy[str]) -> dict[str, str]:
        return {"Access-Control-Allow-Origin": headers.get("Origin", "*")}

    def check_key(self, headers: CIMultiDictProxy[str]) -> None:
        return


def anything(headers: CIMultiDictProxy[str]) -> None:
    """Any body will do."""


async def tried(gateway: Opened, method: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The status, and the body when it is an answer."""
    async with http(gateway, key=None) as browser:
        data = BODY if method == "POST" else None
        async with browser.request(method, CHAT, data=data, headers=headers) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers or answer.status < 300
            return answer.status, json.loads(await answer.read() or b"{}")


@pytest.mark.parametrize("way", list(TRIES))
async def test_a_page_asks_the_gateway(tmp_path: Path, way: str) -> None:
    method, headers = TRIES[way]
    with replaced((server, "Access", Hospitable), (server, "check_json", anything)):
        async with opened(tmp_path / "weak") as weak:
            status, body = await tried(weak, method, headers)
            assert status < 300 and (method == "OPTIONS" or body["choices"])
    async with opened(tmp_path / "ours") as ours:
        status, body = await tried(ours, method, headers)
        assert status == 403 and body["error"]["code"] in ("foreign_origin", "foreign_host")
        assert ours.node.engine.state == "off", "nothing was begun for it"
    report.tell(f"web page: the gateway, by {way}", weakened="answered", ours=f"403, {body['error']['code']}")
