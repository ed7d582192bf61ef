"""A program that is killed while it writes an answer loses at most its last tick."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infraxa.store.chats import create_chat
from infraxa.store.db import connect
from infraxa.store.messages import get_message, mark_interrupted, shown_branch
from infraxa.store.search import search

TICKS_PER_ANSWER = 40

WRITER = """
import asyncio, sys
from pathlib import Path
from infraxa.store.db import Store
from infraxa.store.messages import add_message, append_text, finish_message

async def write(folder, chat, ticks):
    async with await Store.open(folder) as store:
        while True:
            answer = (await store.run(add_message, chat, None, "assistant", "", "streaming")).id
            print(answer, 0, flush=True)
            for tick in range(1, ticks + 1):
                await store.run(append_text, answer, f"<tick {tick} of {answer}>")
                print(answer, tick, flush=True)
            await store.run(finish_message, answer, "complete")
            print(answer, "end", flush=True)

asyncio.run(write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""


def text_of(answer: str, ticks: int) -> str:
    return "".join(f"<tick {tick} of {answer}>" for tick in range(1, ticks + 1))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in another way")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(20)
    conn = connect(tmp_path)
    chat = create_chat(conn).id
    conn.close()
    moments = set()
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(tmp_path), chat, str(TICKS_PER_ANSWER)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(chance.randrange(1, 150))]
        time.sleep(chance.random() / 1000)
        child.kill()
        child.wait(30)
        # Not communicate(): it would pass over what readline() has read ahead.
        rest = child.stdout.read()
        child.stdout.close()
        # The line that was being written may be cut.
        lines = [line for line in "".join([*told, rest]).splitlines(keepends=True) if line.endswith("\n")]
        answer, said = lines[-1].split()

        conn = connect(tmp_path)
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        interrupted = mark_interrupted(conn)
        if said == "end":
            # Only that the next one began may be untold.
            assert all(get_message(conn, new).content == "" for new in interrupted)
            assert get_message(conn, answer).content == text_of(answer, TICKS_PER_ANSWER)
        else:
            ticks = int(said)
            message = get_message(conn, answer)
            assert message.content in {text_of(answer, ticks), text_of(answer, ticks + 1)}
            ended = message.state == "complete"
            assert interrupted == ([] if ended else [answer])
            assert not ended or ticks == TICKS_PER_ANSWER
            if ticks:
                assert answer in {hit.message_id for hit in search(conn, answer, limit=1000)}
        moments.add(said)
        for turn in shown_branch(conn, chat)[0].sibling_ids:
            message = get_message(conn, turn)
            if message.state == "complete":
                assert message.content == text_of(turn, TICKS_PER_ANSWER)
            assert text_of(turn, TICKS_PER_ANSWER).startswith(message.content)
        conn.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")
        conn.close()
    assert len(moments) > 3
