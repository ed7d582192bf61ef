"""Speaks with the hub, or a mirror of it: what a repository holds, and a file from a place on.

Addresses, tokens, time limits and the HTTP client are huggingface_hub's, so that its variables mean here what
they mean everywhere. Its own downloads cannot be cancelled, nor go on after the process was killed, so the
bytes are read here. Answers are read with a limit, and none of the hub's own words is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urljoin, urlsplit

import msgspec
from msgspec import Meta

from infraxa import __version__
from infraxa.app.errors import NodeError
from infraxa.app.hub_errors import Again, check_status, offline, strange, unreachable
from infraxa.app.hub_values import Access, HubFile

if TYPE_CHECKING:
    import httpx2

MAX_LISTING = 16 << 20
"""Bytes of the description of a repository."""
MAX_FILES = 10_000
MAX_REDIRECTS = 5
MAX_TEXT = 100
"""Characters kept of a licence."""
LISTING_ATTEMPTS = 3
LISTING_PAUSE = 1.0
TOKEN_LIMIT = 10.0
"""Seconds; a token that has run out is renewed over the network."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)")
_LICENSE = re.compile(r"[\w.+-]+", re.ASCII)


class Repo(msgspec.Struct, frozen=True):
    """What a repository holds."""

    name: str
    commit: str
    license: str
    files: tuple[HubFile, ...]


_Size = Annotated[int, Meta(ge=0, le=1 << 46)]
_Path = Annotated[str, Meta(max_length=1000)]


class _Lfs(msgspec.Struct):
    sha256: str = ""
    size: _Size = 0


class _Sibling(msgspec.Struct):
    rfilename: _Path
    size: _Size | None = None
    lfs: _Lfs | None = None


class _Described(msgspec.Struct):
    sha: str = ""
    siblings: list[_Sibling] = []
    tags: list[str] = []


async def access() -> Access:
    """How this process reaches the hub: by HF_ENDPOINT, HF_TOKEN and what else the library heeds.

    Raises NodeError `offline`, `bad_endpoint`, `bad_token`.
    """
    await asyncio.to_thread(_import)
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise offline()
    endpoint = constants.ENDPOINT
    _check_endpoint(endpoint)
    token = None
    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOKEN_LIMIT):
                token = await asyncio.to_thread(get_token)
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise NodeError(
            "bad_token", "The token for the hub that is set is none.", "Check HF_TOKEN, or unset it."
        )
    return Access(endpoint, token or "")


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise NodeError(
            "bad_endpoint",
            f"HF_ENDPOINT is {endpoint[:200]!r}, which is no address of a hub.",
            "Write it like https://huggingface.co, or unset it.",
        )


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    """The library's HTTP client, with its proxies and certificates. Raises NodeError `bad_proxy`."""
    await asyncio.to_thread(_import)
    from huggingface_hub import get_async_session

    try:
        # It reads all certificates of the system.
        made = await asyncio.to_thread(get_async_session)
    except (ValueError, ImportError, OSError) as error:
        raise NodeError(
            "bad_proxy",
            f"The hub cannot be reached through the proxy or with the certificates that are set: {error}.",
            "Check HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE.",
        ) from error
    async with made:
        yield made


async def describe(http: httpx2.AsyncClient, access: Access, repo: str) -> Repo:
    """What `repo` holds now. Raises NodeError."""
    url = f"{access.endpoint}/api/models/{quote(repo)}?blobs=true"
    attempt = 0
    while True:
        attempt += 1
        try:
            async with request(http, access, url, repo) as response:
                body = await _read(response, access)
            return _repo(repo, body, access)
        except Again as again:
            if attempt >= LISTING_ATTEMPTS:
                raise again.error from again.__cause__
            await asyncio.sleep(max(again.wait_s, LISTING_PAUSE * attempt))


async def _read(response: httpx2.Response, access: Access) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_LISTING:
            raise strange(access, f"its answer is longer than {MAX_LISTING >> 20} MB")
    return bytes(body)


def _repo(name: str, body: bytes, access: Access) -> Repo:
    try:
        described = msgspec.json.decode(body, type=_Described)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise strange(access, "its answer is no description of a repository") from None
    if len(described.siblings) > MAX_FILES:
        raise NodeError(
            "too_many", f"{name} has more than {MAX_FILES} files.", "Pull from another repository."
        )
    if not _COMMIT.fullmatch(described.sha):
        raise strange(access, "it does not say which version of the repository it has")
    licenses = [tag.partition(":")[2] for tag in described.tags if tag.startswith("license:")]
    license_ = licenses[0][:MAX_TEXT] if licenses and _LICENSE.fullmatch(licenses[0]) else ""
    return Repo(name, described.sha, license_, tuple(map(_file, described.siblings)))


def _file(sibling: _Sibling) -> HubFile:
    lfs = sibling.lfs or _Lfs()
    digest = lfs.sha256.lower()
    size = lfs.size or sibling.size or 0
    return HubFile(sibling.rfilename, size, digest if _SHA256.fullmatch(digest) else "")


@contextlib.asynccontextmanager
async def read_from(
    http: httpx2.AsyncClient, access: Access, repo: str, commit: str, file: HubFile, start: int, end: int
) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """The bytes of a file from `start` to `end`: the place at which they really begin, which is 0 when the
    hub ignores what was asked for, and the bytes. Raises Again and NodeError, also while they are read."""
    url = f"{access.endpoint}/{quote(repo)}/resolve/{quote(commit)}/{quote(file.path)}"
    async with request(http, access, url, repo, {"Range": f"bytes={start}-{end - 1}"}) as response:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise strange(access, "it compresses the file although it was asked not to")
        yield _begins_at(response, start, access), _bytes(response, access)


def _begins_at(response: httpx2.Response, start: int, access: Access) -> int:
    if response.status_code != 206:
        return 0
    found = re.fullmatch(
        r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    if found is None or int(found[1]) != start:
        raise strange(access, "it sends another part of the file than it was asked for")
    return start


async def _bytes(response: httpx2.Response, access: Access) -> AsyncIterator[bytes]:
    import httpx2

    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise Again(unreachable(access, error)) from error


@contextlib.asynccontextmanager
async def request(
    http: httpx2.AsyncClient, access: Access, url: str, repo: str, more: Mapping[str, str] | None = None
) -> AsyncIterator[httpx2.Response]:
    """A good answer to a GET of `url`, its body not yet read. Redirects are followed; the token goes to no
    other host than the hub's. Raises Again and NodeError."""
    import httpx2
    from huggingface_hub import constants

    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    headers = {"User-Agent": f"infraxa/{__version__}", "Accept-Encoding": "identity", **(more or {})}
    for _ in range(MAX_REDIRECTS + 1):
        own = {"Authorization": f"Bearer {access.token}"} if access.token and _is_hub(url, access) else {}
        try:
            async with contextlib.AsyncExitStack() as stack:
                response = await stack.enter_async_context(
                    http.stream(
                        "GET", url, headers={**headers, **own}, timeout=seconds, follow_redirects=False
                    )
                )
                if not response.has_redirect_location:
                    check_status(response, access, repo)
                    yield response
                    return
                url = _next(url, response.headers["Location"], access)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Again(unreachable(access, error)) from error
        except (httpx2.InvalidURL, UnicodeError):
            raise strange(access, "it redirects to what is no address") from None
        except OSError as error:
            if type(error).__name__ == "OfflineModeIsEnabled":
                raise offline() from None
            raise
    raise strange(access, f"it redirects more than {MAX_REDIRECTS} times")


def _next(url: str, location: str, access: Access) -> str:
    try:
        found = urljoin(url, location)
        scheme, before = urlsplit(found).scheme, urlsplit(url).scheme
    except ValueError:
        raise strange(access, "it redirects to what is no address") from None
    if scheme not in ("http", "https") or (before == "https" and scheme == "http"):
        raise strange(access, "it redirects to an address that is not safe")
    return found


def _is_hub(url: str, access: Access) -> bool:
    """Whether the token may be sent there."""
    from huggingface_hub import constants

    asked, endpoint = urlsplit(url), urlsplit(access.endpoint)
    if (asked.scheme, asked.netloc) == (endpoint.scheme, endpoint.netloc):
        return True
    return asked.scheme == "https" and asked.netloc.lower() in constants.HF_URL_HOSTS


def _import() -> None:
    """huggingface_hub, which reads the environment then. It takes long."""
    from huggingface_hub import constants, get_async_session, get_token  # noqa: F401
