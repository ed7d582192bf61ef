"""How many questions at once ten providers on this machine take: how fast, and what gives way.

Five users ask, in this process; each provider is a process with a model of its own, over loopback.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.crowd import Crowd, ask_all

PROVIDERS, USERS = 10, 5
LOADS = (100, 300, 1000, 3000, 6000)


async def bench() -> None:
    with tempfile.TemporaryDirectory() as folder:
        crowd = Crowd(Path(folder))
        try:
            await crowd.start(PROVIDERS)
            async with crowd.users(USERS, failover="auto") as users:
                await ask_all(users, PROVIDERS)
                for load in LOADS:
                    began = time.perf_counter()
                    asked = await ask_all(users, load)
                    took = time.perf_counter() - began
                    ends = Counter(one.code or one.finish for one in asked)
                    firsts = sorted(one.first_s for one in asked if one.first_s is not None)
                    mixed = sum(one.mixed_up for one in asked)
                    p99 = firsts[int(len(firsts) * 0.99)] if firsts else float("nan")
                    print(
                        f"{load} at once: {ends['stop'] / load:.1%} answered in {took:.1f} s "
                        f"({ends['stop'] / took:.0f}/s), {mixed} mixed up; first token p50 "
                        f"{statistics.median(firsts):.2f} s, p99 {p99:.2f} s; {dict(ends)}",
                        flush=True,
                    )
        finally:
            crowd.close()


def main() -> None:
    asyncio.run(bench())


if __name__ == "__main__":
    main()
