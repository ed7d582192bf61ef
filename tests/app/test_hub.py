"""What a hub says of a repository, and how each thing that can go wrong with it is said."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infraxa.app import hub
from infraxa.app.errors import NodeError
from infraxa.app.hub_values import Access
from tests.app.fake_hub import COMMIT, Hub, fake_hub

REPO = "somebody/guide-GGUF"
LIMIT = 30.0


@pytest.fixture
def there() -> Iterator[Hub]:
    with fake_hub() as it:
        it.add(REPO, Q8_0=b"GGUF", F16=b"GGUF more")
        yield it


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LISTING_PAUSE", 0.01)


async def describe(there: Hub, repo: str = REPO, *, token: str = "") -> hub.Repo:
    async with asyncio.timeout(LIMIT), hub.client() as http:
        return await hub.describe(http, Access(there.url, token), repo)


async def fails(there: Hub, code: str, *, token: str = "") -> NodeError:
    with pytest.raises(NodeError) as caught:
        await describe(there, token=token)
    error = caught.value
    assert (error.code, "\x1b" in error.message, "hf_" in error.message) == (code, False, False), error
    assert error.message.count(". ") <= 1 and error.remedy.endswith(("token", ".", "tokens"))
    return error


async def test_a_repository(there: Hub) -> None:
    repo = await describe(there)
    assert (repo.name, repo.commit, repo.license) == (REPO, COMMIT, "apache-2.0")
    files = {file.path: file for file in repo.files}
    assert set(files) == {"README.md", "model-Q8_0.gguf", "model-F16.gguf"}
    assert files["model-F16.gguf"].size == 9 and len(files["model-F16.gguf"].sha256) == 64
    assert files["README.md"].sha256 == ""


@pytest.mark.parametrize(
    ("status", "headers", "code", "words"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "refused", "HF_TOKEN"),
        (403, {"X-Error-Code": "GatedRepo"}, "gated", f"/{REPO}, then set HF_TOKEN"),
        (403, {}, "refused", "HF_TOKEN"),
        (404, {}, "no_repo", "Check the name."),
        (500, {}, "hub_failed", "Try again later."),
        (503, {}, "hub_failed", "Try again later."),
        (204, {}, "strange_hub", "HF_ENDPOINT"),
    ],
)
async def test_what_goes_wrong_is_one_sentence_with_a_remedy(
    there: Hub, status: int, headers: dict[str, str], code: str, words: str
) -> None:
    there.listing = (status, headers)
    assert words in (await fails(there, code)).remedy
    assert len(there.asked) == (hub.LISTING_ATTEMPTS if status >= 500 else 1)


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1'}])
async def test_asked_too_often(there: Hub, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("infraxa.app.hub.asyncio.sleep", sleep)
    there.listing = (429, headers)
    error = await fails(there, "rate_limited")
    assert "Try again in 1 s" in error.remedy and "HF_TOKEN" in error.remedy
    assert pauses == [1.0, 1.0]


async def test_a_hub_in_trouble_is_asked_again(there: Hub) -> None:
    there.listing_faults = [503, 500]
    assert (await describe(there)).commit == COMMIT


async def test_a_token_opens_what_is_private_and_a_wrong_one_is_said(there: Hub) -> None:
    there.token = "hf_right"
    assert (await describe(there, token="hf_right")).commit == COMMIT
    assert "HF_TOKEN" in (await fails(there, "refused", token="hf_wrong")).remedy


async def test_nobody_listens(there: Hub) -> None:
    with fake_hub() as gone:
        pass
    error = await fails(gone, "unreachable")
    assert "nobody accepts the connection" in error.message and "HF_ENDPOINT" in error.remedy


async def test_a_name_that_is_not_known() -> None:
    there = Hub(url="http://no-such-host.invalid")
    assert (await fails(there, "unreachable")).message.startswith("no-such-host.invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Log in</html>",
        b"[]",
        b"[" * 100_000,
        b'{"sha": "../..", "siblings": []}',
        b'{"sha": 7}',
        b'{"siblings": {}}',
        json.dumps({"sha": COMMIT, "siblings": [{"rfilename": 3}]}).encode(),
        json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1 << 70}]}).encode(),
        b"\xff\xfe",
    ],
)
async def test_an_answer_that_is_none(there: Hub, body: bytes) -> None:
    there.listing_body = body
    await fails(there, "strange_hub")


async def test_an_answer_that_is_not_compressed_as_it_says(there: Hub) -> None:
    there.listing, there.listing_body = (200, {"Content-Encoding": "gzip"}), b"no gzip"
    await fails(there, "strange_hub")


async def test_answers_are_bounded(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = [{"rfilename": f"{number}.gguf"} for number in range(hub.MAX_FILES + 1)]
    there.listing_body = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
    await fails(there, "too_many")
    monkeypatch.setattr(hub, "MAX_LISTING", 100_000)
    await fails(there, "strange_hub")


KEYS = st.sampled_from(["sha", "siblings", "rfilename", "size", "lfs", "sha256", "tags", "x"])
PLAIN = st.none() | st.text() | st.integers() | st.just(COMMIT)
ANSWERS = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=12
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=ANSWERS)
def test_any_answer_is_a_repository_or_a_sentence(body: object) -> None:
    try:
        repo = hub._repo(REPO, json.dumps(body).encode(), Access())
    except NodeError as error:
        assert error.message and error.remedy
    else:
        assert len(repo.commit) >= 40


async def test_a_licence_is_a_word_or_nothing(there: Hub) -> None:
    there.tags = ["license:\x1b[31mred"]
    assert (await describe(there)).license == ""


@pytest.mark.parametrize("endpoint", ["", "foo", "ftp://x", "http://", "http://[x", "http://x:99999"])
async def test_an_endpoint_that_is_none(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(NodeError, match="HF_ENDPOINT"):
        await hub.access()


async def test_the_variables_of_the_library_are_heeded(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", there.url)
    monkeypatch.setenv("HF_TOKEN", "hf_of_mine")
    access = await hub.access()
    assert access == Access(there.url, "hf_of_mine") and "hf_of_mine" not in repr(access)
    for token in ("hf_ü", "hf_a b", "hf_\x07"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(NodeError, match="token") as caught:
            await hub.access()
        assert token not in caught.value.message and "HF_TOKEN" in caught.value.remedy
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert (await hub.access()).token == ""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NodeError, match="HF_HUB_OFFLINE"):
        await hub.access()
    assert (await fails(there, "offline")).remedy == "Unset it."


async def test_a_proxy_that_cannot_be_used_is_said(there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "what://ever")
    assert "HTTPS_PROXY" in (await fails(there, "bad_proxy")).remedy


async def test_no_token_is_logged(there: Hub, caplog: pytest.LogCaptureFixture) -> None:
    there.token = "hf_right"
    with caplog.at_level(logging.DEBUG):
        await describe(there, token="hf_right")
    assert "hf_right" not in caplog.text
