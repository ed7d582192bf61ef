"""What the gateway costs: an answer through it next to the same facade call, and many clients at a time.

The node and its gateway are in this process, the clients in another one. Answers of the guide, one engine
thread, greedy choice. Calls alternate, and each line is the median of the ratios; CPU is that of this process
(the engine has its own). Run: `python -m tests.bench.gateway`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from infraxa.app.calls import Call
from infraxa.app.node import Node
from infraxa.engine.types import ChatMessage, Finished, Request, Sampling
from tests.app.gateways import KEY, Opened, opened

TOKENS = 32
PAIRS = 40
IDLE = 1000
ACTIVE = 100
QUESTION = "What is a driver?"
TIMEOUT_S = 300.0
BODY = {
    "model": "guide", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0,
    "max_tokens": TOKENS,
}  # fmt: skip


async def call(node: Node) -> int:
    """One answer by the facade; its tokens."""
    sampling = Sampling(temperature=0, max_tokens=TOKENS)
    stream = node.call(Call("guide", Request((ChatMessage("user", QUESTION),), sampling)))
    n_out = 0
    try:
        async for event in stream:
            if isinstance(event, Finished):
                n_out = event.usage.n_out
    finally:
        await stream.aclose()
    return n_out


class Clients:
    """The other process; each order to it is a line, and so is what came of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, url: str) -> Clients:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.bench.gateway", url,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip

    async def do(self, what: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        async with asyncio.timeout(TIMEOUT_S):
            return json.loads(await self._process.stdout.readline())

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def measured(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Seconds, and seconds of this process's CPU."""
    cpu, began = time.process_time(), time.perf_counter()
    await work()
    return time.perf_counter() - began, time.process_time() - cpu


async def compare(gateway: Opened, clients: Clients) -> None:
    """The gateway next to the facade: whole answers, and streams."""
    for name in ("whole", "stream"):
        for _ in range(3):
            assert await call(gateway.node) and not (await clients.do(name))["errors"]
        pairs = []
        for _ in range(PAIRS):
            facade = await measured(lambda: call(gateway.node))
            through = await measured(lambda name=name: clients.do(name))  # type: ignore[misc]
            pairs.append((facade, through))
        seconds = [through[0] / facade[0] for facade, through in pairs]
        more_ms = [(through[0] - facade[0]) * 1000 for facade, through in pairs]
        cpu = sum(through[1] for _, through in pairs) / sum(facade[1] for facade, _ in pairs)
        cpu_ms = sum(through[1] - facade[1] for facade, through in pairs) / PAIRS * 1000
        print(
            f"{name}: {TOKENS} tokens through the gateway take {statistics.median(seconds):.2f} × the facade "
            f"call (+{statistics.median(more_ms):.1f} ms), CPU {cpu:.2f} × (+{cpu_ms:.1f} ms)"
        )


async def crowd(clients: Clients) -> None:
    """Many at a time."""
    alone = [await clients.do("whole") for _ in range(9)]
    idle = await clients.do(f"idle {IDLE}")
    beside = [await clients.do("whole") for _ in range(9)]
    active = await clients.do(f"active {ACTIVE}")
    still = await clients.do("used")
    assert not (idle["errors"] or active["errors"] or still["errors"]), (idle, active, still)
    ratio = statistics.median(one["seconds"] for one in beside) / statistics.median(
        one["seconds"] for one in alone
    )
    print(
        f"{idle['done']} idle connections and {active['done']} active streams: 0 errors; "
        f"{active['tokens'] / active['seconds']:.0f} tokens/s; afterwards all {still['done']} idle ones are "
        f"answered; a lone answer beside them takes {ratio:.2f} ×"
    )


async def client(url: str) -> None:
    """What the other process does."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {KEY}"}
    host, _, port = url.removeprefix("http://").rpartition(":")
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout, headers=headers) as session:

        async def ask(*, stream: bool) -> int:
            async with session.post("/v1/chat/completions", json=BODY | {"stream": stream}) as answer:
                assert answer.status == 200, answer.status
                text = await answer.text()
                assert not stream or text.endswith("data: [DONE]\n\n")
            return text.count("data: ") if stream else json.loads(text)["usage"]["completion_tokens"]

        async def connect() -> int:
            idle.append(await asyncio.open_connection(host, int(port)))
            return 0

        async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await reader.readline()
            return 0

        def work(what: str) -> list[Awaitable[int]]:
            match what.split():
                case ["whole"]:
                    return [ask(stream=False)]
                case ["stream"]:
                    return [ask(stream=True)]
                case ["idle", count]:
                    return [connect() for _ in range(int(count))]
                case ["active", count]:
                    return [ask(stream=True) for _ in range(int(count))]
                case _:
                    return [use(*one) for one in idle]

        while what := await asyncio.to_thread(sys.stdin.readline):
            began = time.perf_counter()
            done = await asyncio.gather(*work(what), return_exceptions=True)
            errors = [repr(one) for one in done if isinstance(one, BaseException)]
            tokens = sum(one for one in done if isinstance(one, int))
            seconds = time.perf_counter() - began
            told = {
                "done": len(done), "errors": len(errors), "first": errors[:1], "tokens": tokens,
                "seconds": seconds,
            }  # fmt: skip
            print(json.dumps(told), flush=True)
        for _, writer in idle:
            writer.close()


async def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder) / "data", slots=16) as gateway:
            clients = await Clients.start(gateway.url)
            try:
                await compare(gateway, clients)
                await crowd(clients)
            finally:
                await clients.end()


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import resource

        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(4096, most)), most))
        asyncio.run(client(sys.argv[1]))
    else:
        main()
