"""A hub on this machine: the pages of the real one that a pull asks for, with faults to order.

It runs on a thread of its own, so that commands in other processes and the loop of a test can ask it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LIMIT = 20.0
"""Seconds in which the server starts or ends."""


@dataclass
class Hub:
    """What the hub holds, how it fails, and what it was asked."""

    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by path, by repository."""
    tags: list[str] = field(default_factory=lambda: ["gguf", "license:apache-2.0"])
    hashes: dict[str, str | None] = field(default_factory=dict)
    """SHA-256 of paths of which it does not tell the truth; None: it tells nothing."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that it invents."""
    listing: tuple[int, dict[str, str]] = (200, {})
    """Status and headers of the description of a repository."""
    listing_body: bytes | None = None
    listing_faults: list[int] = field(default_factory=list)
    """Statuses of the next descriptions, before they go well."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers of the next requests for a file, before they go well."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers with a file is cut."""
    ends_early: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers ends as if that were all."""
    stalls_at: list[int] = field(default_factory=list)
    """After how many bytes nothing more comes, in the next answers."""
    slowly: tuple[int, float] | None = None
    """Bytes of a piece and seconds after it."""
    changed: dict[int, int] = field(default_factory=dict)
    """Bytes that arrive as others, by their place."""
    longer: bytes = b""
    """What comes after the end of a file."""
    ignores_range: bool = False
    shifts_range: int = 0
    compresses: bool = False
    moved_to: str = ""
    """Another hub that has the bytes of the files."""
    token: str = ""
    """The only one that is let in; empty: everybody is."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, range and authorization of each request."""

    def add(self, repo: str, **files: bytes) -> None:
        """`Q8_0=…` is the file `model-Q8_0.gguf`."""
        self.repos[repo] = {f"model-{name}.gguf": content for name, content in files.items()}

    def ranges(self) -> list[str]:
        """Which parts of files were asked for, in order."""
        return [asked for path, asked, _ in self.asked if "/resolve/" in path]

    async def describe(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        status, headers = self.listing
        if self.listing_faults:
            status = self.listing_faults.pop(0)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({}, status=401, headers={"X-Error-Code": "RepoNotFound"})
        if status != 200:
            return web.json_response({"error": "\x1b[31mboo"}, status=status, headers=headers)
        if self.listing_body is not None:
            return web.Response(body=self.listing_body, content_type="application/json", headers=headers)
        name = request.match_info["repo"]
        if name not in self.repos:
            return web.json_response({}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        siblings: list[dict[str, object]] = [{"rfilename": "README.md", "size": 12}]
        for path, content in self.repos[name].items():
            size = self.sizes.get(path, len(content))
            sibling: dict[str, object] = {"rfilename": path, "size": size, "blobId": "0" * 40}
            digest = self.hashes.get(path, hashlib.sha256(content).hexdigest())
            if digest is not None:
                sibling["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append(sibling)
        return web.json_response({"id": name, "sha": COMMIT, "siblings": siblings, "tags": self.tags})

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers)
        if self.moved_to:
            location = self.moved_to if "://" not in self.moved_to else self.moved_to + request.path
            return web.Response(status=302, headers={"Location": location})
        content = self.repos[request.match_info["repo"]][request.match_info["path"]]
        return await self._send(request, content)

    async def _send(self, request: web.Request, content: bytes) -> web.StreamResponse:
        start, stop, status = 0, len(content), 200
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if found and not self.ignores_range:
            start, status = int(found[1]), 206
            stop = min(stop, int(found[2] or stop) + 1)
            if start >= len(content):
                return web.Response(status=416)
            shown = start + self.shifts_range
            headers["Content-Range"] = f"bytes {shown}-{shown + stop - start - 1}/{len(content)}"
        body = bytearray(content[start:stop])
        for place, value in self.changed.items():
            if start <= place < stop:
                body[place - start] = value
        body += self.longer
        early = self.ends_early.pop(0) if self.ends_early else len(body)
        if self.compresses:
            headers["Content-Encoding"] = "br"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = min(early, len(body))
        await response.prepare(request)
        cut = self.cuts.pop(0) if self.cuts else None
        stall = self.stalls_at.pop(0) if self.stalls_at else None
        limits = [early, len(body), *(limit for limit in (cut, stall) if limit is not None)]
        sent = bytes(body[: min(limits)])
        with contextlib.suppress(ConnectionError):
            piece, pause = self.slowly or (1 << 16, 0.0)
            for at in range(0, len(sent), piece):
                await response.write(sent[at : at + piece])
                if pause:
                    await asyncio.sleep(pause)
            if stall is not None:
                await asyncio.sleep(LIMIT)
            if cut is not None and request.transport is not None:
                request.transport.close()
                return response
            await response.write_eof()
        return response

    def _note(self, request: web.Request) -> None:
        headers = request.headers
        self.asked.append((request.path, headers.get("Range", ""), headers.get("Authorization", "")))


@contextlib.contextmanager
def fake_hub(host: str = "127.0.0.1") -> Iterator[Hub]:
    """A hub that listens until the end of the block."""
    hub, loop, ready = Hub(), asyncio.new_event_loop(), threading.Event()
    done = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/api/models/{repo:[^/]+/[^/]+}", hub.describe)
        app.router.add_get("/{repo:[^/]+/[^/]+}/resolve/{commit}/{path:.+}", hub.resolve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, 0)
        await site.start()
        hub.url = f"http://{host}:{runner.addresses[0][1]}"
        ready.set()
        await done.wait()
        await runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}  # answers that stand still
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(serve())

    thread = threading.Thread(target=run, name="fake hub", daemon=True)
    thread.start()
    assert ready.wait(LIMIT)
    try:
        yield hub
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(LIMIT)
