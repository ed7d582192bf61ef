"""Makes the pictures of this folder: a real chat with the built-in guide, in each size and colour.

make pictures
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from textual.widgets import TextArea

from infraxa.app.config import Settings
from infraxa.app.events import AnswerEnded, Event
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.tui.app import InfraxaApp

HERE = Path(__file__).parent
SIZES = [(80, 24), (120, 36), (200, 60)]
COLOURS = ["dark", "light"]
CHATS = [
    ["hello", "what is 17 + 25?", "and now add 7"],
    ["what is gossip?"],
    ["write a haiku about the sea"],
    ["What is infraxa?", "what is a driver?"],
]
SECONDS = 60


async def talk(folders: Folders) -> None:
    """Have the questions answered and kept."""
    node = Node(Settings(online=False, threads=1), folders)
    ended = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, AnswerEnded):
            ended.set()

    node.subscribe(hear)
    await node.start()
    try:
        for questions in CHATS:
            chat = await node.create_chat()
            for question in questions:
                ended.clear()
                await node.send(chat.id, question)
                await asyncio.wait_for(ended.wait(), SECONDS)
            await node.remember_last_chat(chat.id)
    finally:
        await node.close()


async def picture(folders: Folders, size: tuple[int, int], colour: str) -> None:
    """One picture, as SVG that fetches nothing from anywhere."""
    app = InfraxaApp(
        Settings(online=False, threads=1, theme=f"infraxa-{colour}", reduced_motion=True), folders
    )
    async with app.run_test(size=size) as pilot, asyncio.timeout(SECONDS):
        while not (app.opened and app.chat_screen.settled and app.node.engine.state == "ready"):
            await pilot.pause(0.05)
        for text in app.screen.query(TextArea):
            text.cursor_blink = False
        await app.workers.wait_for_complete()
        await pilot.pause(0.3)
        svg = app.export_screenshot(title="infraxa")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono'")
    # Some renderers drop no-break spaces at the edges of a text; none drops these.
    svg = svg.replace("&#160;", " ").replace("<text ", '<text xml:space="preserve" ')
    (HERE / f"chat-{size[0]}x{size[1]}-{colour}.svg").write_text(svg)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folders = Folders.find(Path(folder), {})
        await talk(folders)
        for size in SIZES:
            for colour in COLOURS:
                await picture(folders, size, colour)


if __name__ == "__main__":
    asyncio.run(main())
