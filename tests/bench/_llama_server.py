"""llama.cpp's own server, of the source that comes with the bindings: built once, started and asked.

`LLAMA_SERVER` names a binary that is used instead. The build needs cmake and a C++ compiler, and takes from
ten minutes to an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.bench._sides import Asked, Got

BUILD = Path(__file__).parents[2] / "build" / "llama-server"
START_S = 120.0
ASK_S = 1800.0


def binary() -> Path:
    """The server, of the version of the installed bindings; builds it if it is not there."""
    if given := os.environ.get("LLAMA_SERVER"):
        return Path(given)
    wanted = version("llama-cpp-python")
    found = BUILD / wanted / "build" / "bin" / "llama-server"
    if not found.exists():
        print(f"  building llama-server of llama-cpp-python {wanted}: once, and slow", flush=True)
        _build(wanted)
    return found


def _build(wanted: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        # The build backend is asked for metadata only.
        subprocess.run([*pip, "--dest", folder, f"llama-cpp-python=={wanted}"], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        (source,) = Path(folder).glob("*/vendor/llama.cpp")
        home = BUILD / wanted
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        shutil.move(source, home / "source")
    off = ["LLAMA_CURL", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"]
    cmake = ["cmake", "-S", str(home / "source"), "-B", str(home / "build"), "-DGGML_NATIVE=ON"]
    cmake += ["-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in off)]
    subprocess.run(cmake, check=True, stdout=subprocess.DEVNULL)
    build = ["cmake", "--build", str(home / "build"), "--target", "llama-server", "--parallel"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


def _bindings_libraries() -> str:
    """Where the bindings have llama.cpp's libraries."""
    spec = find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "lib")


class LlamaServer:
    """One running server with one model."""

    name = "llama-server"

    def __init__(
        self, model: Path, *, slots: int, n_ctx: int, threads: int, flags: tuple[str, ...] = ()
    ) -> None:
        """`n_ctx`: of each slot."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._log = tempfile.TemporaryFile()
        # The same native code on both sides: what differs is who calls it.
        environment = os.environ | {"LD_LIBRARY_PATH": _bindings_libraries()}
        self._process = subprocess.Popen(
            [
                *(str(binary()), "--model", str(model), "--port", str(self._port), "--offline"),
                *("--parallel", str(slots), "--ctx-size", str(n_ctx * slots)),
                *("--threads", str(threads), "--no-webui", *flags),
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        self._http = aiohttp.ClientSession(
            f"http://127.0.0.1:{self._port}",
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=ASK_S),
        )
        limit = time.monotonic() + START_S
        while time.monotonic() < limit and self._process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with self._http.get("/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace")[-2000:]
        await self.close()
        raise RuntimeError(f"llama-server did not start:\n{said}")

    async def ask(self, asked: Asked, got: Got | None = None) -> Got:
        got = got or Got()
        async for chunk in self._stream(asked):
            got.came(len(chunk.get("tokens", ())))
            if chunk.get("stop"):
                got.n_cached = chunk["timings"]["cache_n"]
                got.n_prompt = chunk["timings"]["prompt_n"] + got.n_cached
        return got

    async def _stream(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        assert self._http is not None
        body = {
            "prompt": asked.prompt,
            "n_predict": asked.max_tokens,
            "stream": True,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": True,
            "return_tokens": True,
        }
        async with self._http.post("/completion", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def memory(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()
