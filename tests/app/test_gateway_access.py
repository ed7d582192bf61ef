"""Who gets nothing from the gateway: no key, a web page, another name, another content type."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from infraxa.app.errors import NodeError
from infraxa.app.gateway.access import Access, check_origin
from infraxa.app.gateway.errors import ApiError
from infraxa.app.gateway.key import FILE_NAME, kept_key
from tests.app.gateways import KEY, Opened, http, idle, opened

PAGE = "https://page.example"
BODY: Any = {"model": "guide", "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 4}
CHAT = "/v1/chat/completions"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path / "data", gateway_origins=f"http://localhost:3000, {PAGE}/") as one:
        yield one


async def error_of(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    body = await answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and KEY not in str(body)
    return answer.status, body["error"]["code"]


async def test_nothing_is_had_without_the_key(gateway: Opened) -> None:
    for key in (None, "", "ix-another-key-entirely", KEY[:-1], KEY + "x", KEY.upper(), "é"):
        async with http(gateway, key=key) as client:
            for method, path in (
                ("GET", "/v1/models"), ("GET", "/metrics"), ("POST", CHAT), ("POST", "/v1/embeddings"),
                ("GET", "/v1/models/guide"), ("POST", "/v1/completions"),
            ):  # fmt: skip
                async with client.request(method, path, json=BODY if method == "POST" else None) as answer:
                    assert await error_of(answer) == (401, "invalid_api_key")
            async with client.get("/health") as answer:
                assert answer.status == 200 and await answer.json() == {"status": "ok"}


async def test_a_key_twice_or_in_another_place_is_none(gateway: Opened) -> None:
    async with http(gateway, key=None) as client:
        headers = CIMultiDict([("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")])
        async with client.get("/v1/models", headers=headers) as answer:
            assert answer.status in (400, 401)
        for given in ({"X-Api-Key": KEY}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
            async with client.get("/v1/models", headers=given) as answer:
                assert answer.status == 401
        async with client.get("/v1/models", params={"key": KEY, "api_key": KEY}) as answer:
            assert answer.status == 401


async def test_a_web_page_gets_nothing_even_with_the_key(gateway: Opened) -> None:
    for origin in ("https://evil.example", "null", "", f"{PAGE}.evil", f"{PAGE}:444", "file://"):
        async with http(gateway) as client:
            for path in ("/health", "/v1/models", "/metrics"):
                async with client.get(path, headers={"Origin": origin}) as answer:
                    assert await error_of(answer) == (403, "foreign_origin")
                    assert "Access-Control-Allow-Origin" not in answer.headers
            async with client.post(CHAT, json=BODY, headers={"Origin": origin}) as answer:
                assert await error_of(answer) == (403, "foreign_origin")
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            async with client.options(CHAT, headers=asked) as answer:
                assert answer.status == 403 and "Access-Control-Allow-Origin" not in answer.headers


async def test_a_listed_page_may_ask_with_the_key(gateway: Opened) -> None:
    asked = {
        "Origin": PAGE, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }  # fmt: skip
    async with http(gateway, key=None) as browser:
        async with browser.options(CHAT, headers=asked) as answer:
            assert answer.status == 204 and answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
        async with browser.options(CHAT, headers={"Access-Control-Request-Method": "POST"}) as answer:
            assert answer.status == 405
        async with browser.post(CHAT, json=BODY, headers={"Origin": PAGE}) as answer:
            assert answer.status == 401 and answer.headers["Access-Control-Allow-Origin"] == PAGE
    async with http(gateway) as browser:
        async with browser.post(CHAT, json=BODY, headers={"Origin": PAGE}) as answer:
            assert answer.status == 200 and answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Vary"] == "Origin"


async def test_a_name_that_points_here_is_refused(gateway: Opened) -> None:
    names = "rebound.example", "rebound.example:{port}", "127.0.0.1.evil.example", "192.168.1.7:{port}", ""
    for host in names:
        port = gateway.url.rpartition(":")[2]
        async with http(gateway) as client:
            for path in ("/health", "/v1/models"):
                async with client.get(path, headers={"Host": host.format(port=port)}) as answer:
                    assert await error_of(answer) == (403, "foreign_host")
            for own in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
                async with client.get("/v1/models", headers={"Host": own}) as answer:
                    assert answer.status == 200


async def test_a_body_that_is_not_called_json_is_refused(gateway: Opened) -> None:
    for kind, encoding in (
        ("text/plain", None),
        ("application/x-www-form-urlencoded", None),
        ("multipart/form-data", None),
        ("application/json; charset=utf-16", None),
        ("", None),
        ("application/json", "gzip"),
    ):
        headers = {"Content-Type": kind} | ({"Content-Encoding": encoding} if encoding else {})
        async with http(gateway) as client:
            async with client.post(CHAT, data=json.dumps(BODY).encode(), headers=headers) as answer:
                assert await error_of(answer) == (415, "unsupported_media_type")
            right = {"Content-Type": "application/json; charset=UTF-8"}
            async with client.post(CHAT, data=json.dumps(BODY).encode(), headers=right) as answer:
                assert answer.status == 200


async def test_other_paths_and_methods_are_errors_of_the_same_shape(gateway: Opened) -> None:
    async with http(gateway) as client:
        for method, path, status in (
            ("GET", "/", 404), ("GET", CHAT, 405), ("POST", "/v1/models", 405), ("POST", "/v1/images", 404),
            ("DELETE", "/v1/models/guide", 404), ("PUT", "/health", 405),
            ("GET", "/v1/models/no%2Fsuch%20one%00", 404), ("GET", "/v1/models/%ff", 404),
        ):  # fmt: skip
            async with client.request(method, path, json={} if method == "POST" else None) as answer:
                assert (await error_of(answer))[0] == status, path


async def test_metrics_count_and_tell_nothing_else(gateway: Opened) -> None:
    await gateway.node.change_setting("cap_api", 0.5)
    async with http(gateway) as client:
        for _ in range(2):
            async with client.post(CHAT, json=BODY) as answer:
                assert answer.status == 200
        async with client.post(CHAT, json={}) as answer:
            assert answer.status == 400
        async with client.get("/metrics") as answer:
            text = await answer.text()
            assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    asked = 'infraxa_gateway_requests_total{endpoint="/v1/chat/completions",status="%d"}'
    assert f"{asked % 200} 2.0" in text and f"{asked % 400} 1.0" in text
    assert 'infraxa_gateway_tokens_total{direction="out"}' in text
    assert "infraxa_gateway_first_token_seconds_count 2.0" in text
    assert (
        'infraxa_engine_state{state="ready"} 1.0' in text and "infraxa_spent_today_microcredits 0.0" in text
    )
    assert "infraxa_gateway_cap_microcredits 500000.0" in text
    for name in ("spent_today", "held"):
        assert f"infraxa_gateway_{name}_microcredits 0.0" in text
    assert "infraxa_gateway_running 1.0" in text, "this one"
    assert "2+2" not in text and KEY not in text


async def test_nothing_of_a_prompt_is_logged(gateway: Opened, caplog: pytest.LogCaptureFixture) -> None:
    secret = "sesame-opens-the-cave"
    tool = {"type": "function", "function": {"name": secret, "parameters": {"type": secret}}}
    bodies = [
        BODY | {"messages": [{"role": "user", "content": secret}]},
        BODY | {"messages": [{"role": secret, "content": secret}]},
        BODY | {"model": secret},
        BODY | {"tools": [tool]},
    ]
    lines: list[str] = []
    gateway.node.subscribe(lambda event: lines.append(repr(event)))
    with caplog.at_level(logging.DEBUG):
        async with http(gateway) as client:
            for body in bodies:
                async with client.post(CHAT, json=body) as answer:
                    await answer.read()
    await idle(gateway.node)
    assert secret not in caplog.text and secret not in "\n".join(lines)
    assert KEY not in caplog.text and KEY not in "\n".join(lines)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    key = kept_key(tmp_path, {})
    path = tmp_path / FILE_NAME
    assert len(key) > 40 and kept_key(tmp_path, {}) == key and path.read_text() == f"{key}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert kept_key(tmp_path, {}) == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_key(tmp_path, {"INFRAXA_API_KEY": "one-of-my-own-keys"}) == "one-of-my-own-keys"
    assert os.listdir(tmp_path) == [FILE_NAME]
    for bad in ("short", "with a space in between", "x" * 600, "é" * 20, "tab\tin-the-middle-of"):
        with pytest.raises(NodeError) as caught:
            kept_key(tmp_path, {"INFRAXA_API_KEY": bad})
        assert caught.value.code == "bad_key" and bad not in caught.value.message
    path.write_text("")
    with pytest.raises(NodeError, match="is not a key"):
        kept_key(tmp_path, {})


def test_an_address_is_enough_where_all_addresses_are_listened_on() -> None:
    def headers(host: str) -> CIMultiDictProxy[str]:
        return CIMultiDictProxy(CIMultiDict({"Host": host}))

    everywhere = Access(KEY, "0.0.0.0", [])
    for host in ("192.168.1.7:8790", "[fd00::1]:8790", "127.0.0.1"):
        assert everywhere.check_page(headers(host)) == {}
    for host in ("rebound.example:8790", "1.2.3.4.evil.example", "0x7f.1"):
        with pytest.raises(ApiError):
            everywhere.check_page(headers(host))
    assert Access(KEY, "box.lan", []).check_page(headers("Box.lan.:8790")) == {}


@pytest.mark.parametrize("origin", ["*", "localhost", "https://", "https://a.example/path", "a b://c"])
def test_what_is_no_origin_is_said(origin: str) -> None:
    with pytest.raises(NodeError, match="no origin"):
        check_origin(origin)
