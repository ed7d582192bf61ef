"""What the conversation costs: an answer streaming, keys typed meanwhile, a long chat opened, an idle screen.

Each figure comes from a real app on a pseudo terminal, in a process of its own. CPU is that of the event
loop's thread. Run: `python -m tests.bench.streaming`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from textual import events
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Markdown

from infraxa.app.tui.widgets.conversation import Conversation
from infraxa.app.tui.widgets.prompt import Prompt
from infraxa.store.records import AnswerFacts, Message, Turn

SIZE = (120, 36)
TOKENS = 4000
TOKENS_PER_SECOND = 200
NAIVE_TOKENS = 500
CHARACTERS_PER_TOKEN = 4
MESSAGES = 200
KEY_SECONDS = 0.1
IDLE_SECONDS = 4.0
TIMEOUT = 180.0

SECTION = """\
## Step {n}: what to look at

Every step has a **reason**, and `code` that shows it; see [the manual](https://example.org/{n}). The text
goes on for a while, as explanations do, so that a paragraph takes several lines on the screen and has to be
wrapped.

- the first point of step {n}, with *emphasis*
- the second one, which is longer than the line and is wrapped with an indent
  - a detail of it
  - another detail, `with_code({n})`
- the last point

```python
def step_{n}(values: list[int]) -> int:
    \"\"\"Adds what is even.\"\"\"
    total = 0
    for value in values:
        if value % 2 == 0:  # even
            total += value
    return total
```

| case | before | after | remark |
|:-----|-------:|------:|--------|
| small | 12 | {n} | nothing to see |
| large | 4711 | 815 | **much** better |
| huge | 1000000 | 42 | see `step_{n}` |

1. run it
2. compare the numbers
3. write down what you found

"""


def answer(characters: int) -> str:
    """A Markdown answer of so many characters: prose, lists, code and tables in turn."""
    text = ""
    number = 0
    while len(text) < characters:
        number += 1
        text += SECTION.format(n=number)
    return text[:characters]


def tokens(text: str) -> list[str]:
    """The text in pieces as small as tokens."""
    return [text[i : i + CHARACTERS_PER_TOKEN] for i in range(0, len(text), CHARACTERS_PER_TOKEN)]


def message(number: int, role: str, text: str, state: str = "complete") -> Message:
    facts = AnswerFacts(model="guide", finish="stop", n_out=300, first_token_ms=120, tokens_per_second=800.0)
    return Message(
        id=f"message-{number:05}",
        chat_id="chat",
        parent_id=None,
        role="user" if role == "user" else "assistant",
        content=text,
        state="streaming" if state == "streaming" else "complete",
        created_at=0,
        facts=facts if role == "assistant" and state == "complete" else None,
    )


def chat(count: int) -> list[Turn]:
    """A chat of so many messages, answers of 1 to 2 kB."""
    turns = []
    for number in range(count):
        if number % 2 == 0:
            each = message(number, "user", f"Question {number}: how is this done, and what does it cost?")
        else:
            each = message(number, "assistant", answer(1000 + number * 37 % 1000))
        turns.append(Turn(each, (each.id,)))
    return turns


class Bench(App[dict[str, float]]):
    """Runs one measurement and exits with its figures."""

    CSS = "Markdown { height: auto; }"

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.latencies: list[float] = []
        self._measurement: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        if self.what in ("stream", "open", "idle"):
            yield Conversation()
            yield Prompt()
        elif self.what == "naive":
            yield VerticalScroll()

    def on_ready(self) -> None:
        self.run_worker(self._measure(), exit_on_error=True)

    async def on_event(self, event: events.Event) -> None:
        await super().on_event(event)
        if isinstance(event, events.Key):
            self.screen.call_after_refresh(lambda: self.latencies.append(time.monotonic() - event.time))

    async def _measure(self) -> None:
        await asyncio.sleep(0.5)  # the first paint and its garbage are not what is measured
        self.exit(await getattr(self, f"measure_{self.what}")())

    async def _painted(self) -> None:
        done = asyncio.Event()
        self.screen.call_after_refresh(done.set)
        await asyncio.wait_for(done.wait(), 30)

    async def measure_stream(self) -> dict[str, float]:
        conversation = self.query_one(Conversation)
        self.query_one(Prompt).focus()
        await conversation.show(chat(20))
        await self._painted()
        self.latencies.clear()
        running = message(900, "assistant", "", "streaming")
        conversation.start_answer(running)
        await self._painted()
        text = answer(TOKENS * CHARACTERS_PER_TOKEN)
        pieces = tokens(text)
        started, cpu = time.monotonic(), time.thread_time()
        for index, piece in enumerate(pieces):
            conversation.grow(running.id, piece)
            await asyncio.sleep(max(0.0, started + (index + 1) / TOKENS_PER_SECOND - time.monotonic()))
        wall, cpu = time.monotonic() - started, time.thread_time() - cpu
        latencies = sorted(self.latencies)
        before = time.thread_time()
        await conversation.finish(message(900, "assistant", text))
        await self._painted()
        return {
            "share": cpu / wall,
            "seconds": wall,
            "cpu_per_token_ms": cpu / len(pieces) * 1000,
            "flushes_per_second": conversation.views[-1].flushes / wall,  # type: ignore[union-attr] # an answer
            "keys": len(latencies),
            "key_p50_ms": statistics.median(latencies) * 1000,
            "key_p95_ms": latencies[int(len(latencies) * 0.95)] * 1000,
            "finish_ms": (time.thread_time() - before) * 1000,
        }

    async def measure_naive(self) -> dict[str, float]:
        markdown = Markdown()
        scroll = self.query_one(VerticalScroll)
        await scroll.mount(markdown)
        scroll.anchor()
        pieces = tokens(answer(NAIVE_TOKENS * CHARACTERS_PER_TOKEN))
        cpu = time.thread_time()
        for piece in pieces:
            await markdown.append(piece)
            await self._painted()
        return {"cpu_per_token_ms": (time.thread_time() - cpu) / len(pieces) * 1000}

    async def measure_open(self) -> dict[str, float]:
        conversation = self.query_one(Conversation)
        turns = chat(MESSAGES)
        started, cpu = time.monotonic(), time.thread_time()
        await conversation.show(turns)
        await self._painted()
        return {"cpu_ms": (time.thread_time() - cpu) * 1000, "wall_ms": (time.monotonic() - started) * 1000}

    async def measure_idle(self) -> dict[str, float]:
        self.query_one(Prompt).focus()
        await self.query_one(Conversation).show(chat(20))
        return await self.measure_empty()

    async def measure_empty(self) -> dict[str, float]:
        await asyncio.sleep(1)
        started, cpu = time.monotonic(), time.thread_time()
        await asyncio.sleep(IDLE_SECONDS)
        return {"share": (time.thread_time() - cpu) / (time.monotonic() - started)}


def measure(what: str, *, keys: bool = False) -> dict[str, float]:
    """One measurement in its own process on a pseudo terminal; with `keys`, someone types."""
    main_end, terminal = pty.openpty()
    columns, rows = SIZE
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.streaming", "--child", what, str(result)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL": ""},
            start_new_session=True,
        )
        os.close(terminal)
        ended = threading.Event()

        def drain() -> None:
            try:
                while os.read(main_end, 65536):
                    pass
            except OSError:
                return

        def type_keys() -> None:
            while not ended.wait(KEY_SECONDS):
                os.write(main_end, b"a")

        threads = [threading.Thread(target=drain, daemon=True)]
        if keys:
            threads.append(threading.Thread(target=type_keys, daemon=True))
        for thread in threads:
            thread.start()
        try:
            process.wait(TIMEOUT)
        finally:
            ended.set()
            process.kill()
            process.wait()
        for thread in threads[1:]:
            thread.join()
        os.close(main_end)
        figures: dict[str, float] = json.loads(result.read_text())
        return figures


def main() -> None:
    """Measure all, print one line for each."""
    naive = measure("naive")["cpu_per_token_ms"]
    stream = measure("stream", keys=True)
    opened = measure("open")
    empty, idle = measure("empty")["share"], measure("idle")["share"]
    ours = stream["cpu_per_token_ms"]
    print(
        f"streaming {TOKENS} tokens at {TOKENS_PER_SECOND}/s: {stream['share']:.1%} of a core (target 25 %), "
        f"{stream['flushes_per_second']:.1f} paints/s, {ours:.2f} ms CPU per token; "
        f"Markdown.append per token: {naive:.2f} ms ({naive / ours:.0f} x) over its first {NAIVE_TOKENS}"
    )
    print(
        f"key press to paint meanwhile: p50 {stream['key_p50_ms']:.1f} ms, p95 {stream['key_p95_ms']:.1f} ms "
        f"(target 40), {stream['keys']:.0f} keys; end of the answer {stream['finish_ms']:.0f} ms CPU"
    )
    print(
        f"opening a chat of {MESSAGES} messages: {opened['cpu_ms']:.0f} ms CPU (target 400), "
        f"{opened['wall_ms']:.0f} ms"
    )
    print(f"idle: {idle:.2%} of a core with a conversation and a cursor, {empty:.2%} with an empty app")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        figures = Bench(sys.argv[2]).run()
        Path(sys.argv[3]).write_text(json.dumps(figures))
    else:
        main()
