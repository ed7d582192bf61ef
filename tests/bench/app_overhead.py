"""What an answer costs on its whole way, worker → host → app → screen, next to a bare loop over llama.cpp.

The app runs in a real terminal, draws and stores; the bare loop has the machine to itself. The same model,
one thread, greedy choice, answers of one context's length. Rounds alternate; each line is the median of the
ratios.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from infraxa.engine.guide import GUIDE_PATH
from infraxa.store.records import AnswerFacts
from tests.bench.engine_overhead import BareLoop
from tests.e2e.terminal import Terminal
from tests.random_model import write_random_model

CONTEXT = 1024


def newest_facts(data: Path) -> AnswerFacts | None:
    """The facts of the newest answer, once it has ended."""
    with sqlite3.connect(f"file:{data / 'infraxa.db'}?mode=ro", uri=True) as conn:
        row = conn.execute(
            "SELECT state, facts FROM messages WHERE role = 'assistant' ORDER BY id DESC LIMIT 1"
        ).fetchone()
    if row is None or row[0] == "streaming":
        return None
    return msgspec.json.decode(row[1], type=AnswerFacts)


def ask(app: Terminal, data: Path, question: str) -> AnswerFacts:
    """A new chat with one question; what was measured of its answer."""
    before = newest_facts(data)
    app.press("ctrl+n")
    app.send(question)
    app.wait_for(question)
    app.press("enter")
    end = time.monotonic() + 120
    while time.monotonic() < end:
        app.read(0.1)
        facts = newest_facts(data)
        if facts is not None and facts != before:
            return facts
    raise AssertionError(f"no answer within 120 s:\n{app.text}")


def compare(name: str, path: Path, folder: Path, rounds: int) -> None:
    """One line for this model."""
    data = folder / f"data {name}"
    env = {
        **os.environ,
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "INFRAXA_DATA_DIR": str(data),
        "INFRAXA_MODEL": str(path),
        "INFRAXA_THREADS": "1",
        "INFRAXA_TEMPERATURE": "0",
    }
    app = Terminal([sys.executable, "-P", "-m", "infraxa"], env, size=(120, 36))
    bare = BareLoop(path, CONTEXT)
    ratios, ours, alone = [], [], []
    try:
        app.wait_for("ready", seconds=120)
        for number in range(rounds):
            question = f"{number}. go on for as long as you can"
            facts = ask(app, data, question)
            if facts.tokens_per_second is None or facts.n_out < 200:
                continue  # this one ended early
            start = time.perf_counter()
            (tokens,) = bare.answer([question], facts.n_out)
            rate = len(tokens) / (time.perf_counter() - start)
            ours.append(facts.tokens_per_second)
            alone.append(rate)
            ratios.append(facts.tokens_per_second / rate)
    finally:
        app.close()
        bare.close()
    print(
        f"through the app, {name}: {statistics.median(ratios):.3f} of the bare loop "
        f"({statistics.median(ours):.0f} of {statistics.median(alone):.0f} tokens/s, {len(ratios)} answers)",
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny, small = folder / "tiny.gguf", folder / "small.gguf"
        write_random_model(tiny, GUIDE_PATH, layers=8, dim=256)
        write_random_model(small, GUIDE_PATH, layers=12, dim=1024)
        compare("random 8x256 (5M)", tiny, folder, rounds=7)
        compare("random 12x1024 (130M)", small, folder, rounds=5)


if __name__ == "__main__":
    main()
