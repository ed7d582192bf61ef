"""Makes the pictures of this folder: real chats with the built-in guide, and real nodes on this machine.
Only the download is acted: it would be one of gigabytes.

make pictures
python docs/pictures.py market tab
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from textual.pilot import Pilot
from textual.widgets import TextArea

from infraxa.app.audit_values import AuditPlan
from infraxa.app.config import Settings
from infraxa.app.events import AnswerEnded, Event, NodesChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.hub_curated import CURATED
from infraxa.app.hub_values import HubFile, PullAsked, PullChosen, PullEvent, PullMoved, PullPlan
from infraxa.app.node import Node
from infraxa.app.offers import OfferSeen
from infraxa.app.pulling import Pulling
from infraxa.app.transcripts import Written
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens.audit import AskReferee
from infraxa.app.tui.screens.pull import PullScreen
from infraxa.app.tui.screens.settle import Settle
from infraxa.engine import transcript
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import Delta
from infraxa.net.identity import id_text
from infraxa.store.records import ChatOptions, Verdict

HERE = Path(__file__).parent
SIZE = (120, 36)
SIZES = [(80, 24), SIZE, (200, 60)]
COLOURS = ["dark", "light"]
CHATS = [
    ["What is 17 + 25?", "And now add 7"],
    ["What is gossip?"],
    ["What is forward secrecy?"],
    ["What is infraxa?", "Who can read my chat?", "How do I get a better model?"],
]
PRICES = {"birch": 0.2, "juniper": 0.15, "quartz": 0.31}
MARKET = {**PRICES, "elm": 0.0, "heron": 0.26}
PEERS = ["birch", "juniper", "quartz", "elm", "heron", "basalt", "larch"]
NOTE = "two coffees on Thursday"
TAB_LIMIT = 0.00006
"""Credits: room for one answer."""
LINKED = 20
"""Seconds of traffic in the picture of the network."""
SECONDS = 300
"""Most for one scene. On an idle machine it takes a tenth of that."""


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


@dataclass
class Scene:
    """A node as its person sees it, and others on this machine, in a network of their own."""

    app: InfraxaApp
    pilot: Pilot[None]
    others: list[Node]
    form: str
    """Size and colour."""

    def still(self) -> None:
        """No cursor blinks on this screen."""
        for text in self.app.screen.query(TextArea):
            text.cursor_blink = False

    def save(self, view: str) -> None:
        save(self.app, f"{view}-{self.form}")


@contextlib.asynccontextmanager
async def scene(
    folders: Folders,
    colour: str,
    size: tuple[int, int] = SIZE,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """A node alone, once its model is ready."""
    own = Settings(threads=1, reduced_motion=True, theme=f"infraxa-{colour}", **settings)
    app = InfraxaApp(own, folders)
    async with app.run_test(size=size) as pilot, asyncio.timeout(SECONDS):
        while not (app.opened and app.node.engine.state == "ready"):
            await pilot.pause(0.05)
        yield Scene(app, pilot, [], f"{size[0]}x{size[1]}-{colour}")


@contextlib.asynccontextmanager
async def among(
    others: Mapping[str, Mapping[str, Any]],
    folder: Path,
    colour: str,
    *,
    load_model: bool = True,
    model: Path | None = None,
) -> AsyncIterator[Scene]:
    """A node among others: those that `provide` by their settings do. `load_model`: the others have one;
    `model`: that of this file, in place of the guide."""
    shared: dict[str, Any] = {"listen_port": 0, "network": "pictures", "slots": 4}
    nodes = [
        Node(
            Settings(threads=1, name=name, **shared, **settings),
            Folders.find(folder / name, {}),
            load_model=load_model,
        )
        for name, settings in others.items()
    ]
    try:
        for node in nodes:
            await node.start()
            if model is not None:
                await node.add_model(model)
            if node.settings.provide:
                await node.accept_serving()
                await node.provide(True)
        own = Folders.find(folder / "maple", {})
        async with scene(own, colour, name="maple", **shared) as it:
            it.others = nodes
            yield it
    finally:
        for node in nodes:
            await node.close()


async def choose_in_the_market(it: Scene) -> None:
    """A chat with the best offer of the Market."""
    await it.pilot.press("alt+m")
    await it.pilot.pause(2)
    await it.pilot.press("enter")
    await it.pilot.pause(1)


async def picture(folders: Folders, size: tuple[int, int], colour: str) -> None:
    """The chat, in one size and colour."""
    async with scene(folders, colour, size, online=False) as it:
        while not it.app.chat_screen.settled:
            await it.pilot.pause(0.05)
        it.still()
        await it.app.workers.wait_for_complete()
        await it.pilot.pause(2)  # the last answer is laid out, and scrolled to
        it.save("chat")


async def network(folder: Path, colour: str) -> None:
    """The Network view."""
    async with among({name: {} for name in PEERS}, folder, colour, load_model=False) as it:
        await it.pilot.press("alt+n")
        while it.app.node.network.peers < len(PEERS):
            await it.pilot.pause(0.1)
        await it.pilot.pause(LINKED)
        it.save("network")


async def roles(folder: Path, colour: str) -> None:
    """The Market, a chat with a driver, and what a node that others ask sees: Provide, Earnings,
    and what a user proposes to settle."""
    providers = {name: {"provide": True, "base_price": price} for name, price in MARKET.items()}
    async with among(providers, folder, colour) as it:
        app, pilot = it.app, it.pilot
        await app.node.accept_serving()
        for offer in await offered(app.node, len(MARKET)):
            for question in ("What is gossip?", "What is infraxa?"):
                await answered(app.node, id_text(offer.node.id), question)
            if offer.node.name == "birch":
                await app.node.mark_provider(offer.node.id, "pinned")
        while not all(offer.audited.passed == 2 for offer in await app.node.list_offers()):
            await pilot.pause(1)
        await pilot.press("alt+m")
        await pilot.pause(10)  # the prices of now: nobody works any more
        it.save("market")
        await pilot.press("enter")
        await pilot.pause(1)
        for question in ("What is a receipt?", "What is a driver?"):
            await audited(it, question)
        it.still()
        await pilot.press("ctrl+b", *"And what is a hold?")
        await counted(it)
        it.save("driver")
        await pilot.press("ctrl+b", "f7")
        while app.node.provider.mode != "serving":
            await pilot.pause(0.1)
        me = app.node.network.id
        for node in it.others[:3]:
            while not any(offer.node.id == me for offer in await offered(node, len(MARKET))):
                await pilot.pause(0.1)
            for question in ("What is a tab?", "What is 4+3?", "What is a receipt?"):
                await answered(node, id_text(me), question)
        await it.others[0].settle(id_text(me), note=NOTE)
        await pilot.press("alt+p")
        await pilot.pause(3)
        it.save("provide")
        await pilot.press("alt+e")
        await pilot.pause(3)
        it.save("earnings")
        await pilot.press("tab")
        while not app.screen.query("#decline"):
            if isinstance(app.screen, Settle):
                await pilot.press("escape")
            await pilot.press("down", "t")
            await pilot.pause(1)
        await pilot.pause(6)  # what was said meanwhile is over
        it.save("settle")


async def counted(it: Scene, state: str = "locked") -> None:
    """The rates are locked, or the tab is full, and what the driver says that is owed is what the tab says:
    at first it has what was held for the answer in it."""
    while True:
        bound = it.app.chat_screen.bound
        owed = {tab.peer: tab.owed for tab in await it.app.node.list_tabs()}
        if bound is not None and bound.state == state and bound.owed == owed.get(bound.driver):
            return
        await it.pilot.pause(0.5)


async def full_tab(folder: Path, colour: str) -> None:
    """A chat whose driver lets this node owe no more than it does."""
    birch = {"provide": True, "free_daily": 0, "stranger_limit": TAB_LIMIT}
    async with among({"birch": birch}, folder, colour) as it:
        app, pilot = it.app, it.pilot
        await offered(app.node, 1)
        await choose_in_the_market(it)
        await audited(it, "What is a tab?")
        await app.node.rate(app.chat_screen.shown_turns[-1].message.id, 5)
        await pilot.press("ctrl+b")
        it.still()
        await pilot.press(*"And what is a hold?")
        await counted(it, "refused")
        await pilot.pause(2)
        it.save("tab")


def lying(honest: Callable[[Written, Delta], Iterator[tuple[int, bytes]]]) -> Any:
    """What a driver commits to who gives other tokens than were drawn."""

    def take(self: Written, delta: Delta) -> Iterator[tuple[int, bytes]]:
        leaves = (transcript.decode_leaf(leaf) for leaf in delta.leaves)
        forged = tuple(transcript.encode_leaf(leaf._replace(token=leaf.ids[-1])) for leaf in leaves)
        return honest(self, msgspec.structs.replace(delta, leaves=forged))

    return take


async def audits(folder: Path, colour: str) -> None:
    """An answer whose audit passed, and one whose driver lied."""
    birch = {"provide": True, "base_price": 0.2}
    honest = Written.take
    try:
        async with among({"birch": birch}, folder, colour) as it:
            await offered(it.app.node, 1)
            await choose_in_the_market(it)
            for question, state in (
                ("How do I become a provider?", "passed"),
                ("What is a receipt?", "failed"),
            ):
                if state == "failed":
                    Written.take = lying(honest)  # type: ignore[method-assign] # the driver lies from now on
                assert (await audited(it, question)).state == state
            it.still()
            await it.pilot.pause(6)  # what was said meanwhile is over
            await counted(it)
            it.save("audit")
    finally:
        Written.take = honest  # type: ignore[method-assign]


def another_model(folder: Path) -> Path:
    """A file that the person does not have: the built-in guide's, under another name."""
    file = folder / "harbour-guide-q8_0.gguf"
    file.write_bytes(GUIDE_PATH.read_bytes().replace(b"infraxa-guide", b"harbour-guide", 1))
    return file


async def asking_for_a_referee(folder: Path, colour: str) -> None:
    """The question before others read a chat, to audit an answer of a model that is not here."""
    providers = {name: {"provide": True, "base_price": price} for name, price in PRICES.items()}
    model = another_model(folder)
    async with among(providers, folder, colour, model=model) as it:
        node = it.app.node
        await offered(node, len(PRICES))
        await choose_in_the_market(it)
        await it.pilot.press(*"How do I become a provider?", "enter")
        plan = AuditPlan("none")
        while plan.state != "referee" or plan.referees < len(PRICES) - 1:
            await it.pilot.pause(1)
            answer = it.app.chat_screen.shown_turns[-1].message
            plan = await node.audit_plan(answer.chat_id, answer.id)
        await it.pilot.pause(6)  # what was said meanwhile is over
        it.still()
        await it.app.action_perform("answer.audit", "")
        while not isinstance(it.app.screen, AskReferee):
            await it.pilot.pause(0.1)
        await it.pilot.pause(1)
        it.save("audit-referee")


async def audited(it: Scene, question: str) -> Verdict:
    """Of the answer to this, once an audit of it has ended: first the model is measured."""
    before = {turn.message.id for turn in it.app.chat_screen.shown_turns}
    await it.pilot.press(*question, "enter")
    while True:
        turns = it.app.chat_screen.shown_turns
        facts = turns[-1].message.facts if turns and turns[-1].message.id not in before else None
        if facts is not None and facts.verdicts and facts.verdicts[-1].state in ("passed", "failed"):
            return facts.verdicts[-1]
        await it.pilot.pause(0.5)


class Download(Pulling):
    """One that has come to three eighths."""

    def __init__(self, plan: PullPlan) -> None:
        self._coming: list[PullEvent] = [
            PullChosen(plan),
            PullMoved(plan.size * 3 // 8, plan.size, 11_400_000.0, 137.0),
        ]

    def __aiter__(self) -> Download:
        return self

    async def __anext__(self) -> PullEvent:
        if not self._coming:
            await asyncio.Event().wait()
        return self._coming.pop(0)

    def stop(self) -> None:
        """There is nothing to end."""

    async def aclose(self) -> None:
        """The same."""


async def pulling(folder: Path, colour: str) -> None:
    """A model on its way from the hub."""
    folders = Folders.find(folder, {})
    await talk(folders)
    n_bytes = 2_497_280_256
    plan = PullPlan(
        repo="Qwen/Qwen3-4B-GGUF",
        commit="0" * 40,
        quant="Q4_K_M",
        files=(HubFile("Qwen3-4B-Q4_K_M.gguf", n_bytes, "0" * 64),),
        size=n_bytes,
        missing=n_bytes,
        name="Qwen3-4B-Q4_K_M",
        license="apache-2.0",
        memory=3_047_000_000,
        free_memory=9_000_000_000,
    )

    class Downloading(Node):
        def pull_model(self, asked: PullAsked) -> Download:
            return Download(plan)

    async def open_node(settings: Settings, folders: Folders) -> Node:
        return Downloading(settings, folders)

    settings = Settings(theme=f"infraxa-{colour}", reduced_motion=True, online=False)
    app = InfraxaApp(settings, folders, open_node=open_node)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(2)
        app.action_pull_model()
        await pilot.pause(0.5)
        assert isinstance(app.screen, PullScreen)
        names = [one.text for one in CURATED]
        await pilot.press(*["down"] * names.index(f"{plan.repo}:{plan.quant}"))
        app.pulls.start(PullAsked(plan.repo), plan)
        await pilot.pause(1)
        save(app, f"pull-{SIZE[0]}x{SIZE[1]}-{colour}")


async def offered(node: NodeFacade, count: int) -> list[OfferSeen]:
    """So many offers, once the node can take them."""
    changed = asyncio.Event()
    end = node.subscribe(lambda event: changed.set() if isinstance(event, NodesChanged) else None)
    try:
        while len(found := [one for one in await node.list_offers() if not one.problem]) < count:
            await changed.wait()
            changed.clear()
        return found
    finally:
        end()


async def answered(node: NodeFacade, driver: str, question: str) -> None:
    async with contextlib.aclosing(node.ask(question, ChatOptions(driver=driver))) as stream:
        async for _ in stream:
            pass


def save(app: InfraxaApp, name: str) -> None:
    """What is on the screen, as SVG that fetches nothing from anywhere."""
    svg = app.export_screenshot(title="infraxa")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    # The last row is cut by a little: an underscore in it is not seen.
    svg = re.sub(r'(-clip-terminal">\s*<rect [^>]*height=")([\d.]+)', _higher, svg)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono'")
    # Some renderers drop no-break spaces at the edges of a text; none drops these.
    svg = svg.replace("&#160;", " ").replace("<text ", '<text xml:space="preserve" ')
    (HERE / f"{name}.svg").write_text(svg)


def _higher(found: re.Match[str]) -> str:
    return f"{found[1]}{float(found[2]) + 2.8:.1f}"


async def chats(folder: Path, colour: str) -> None:
    """The chat, in all sizes."""
    folders = Folders.find(folder, {})
    await talk(folders)
    for size in SIZES:
        await picture(folders, size, colour)


SCENES: dict[str, Callable[[Path, str], Awaitable[None]]] = {
    "chat": chats,
    "pull": pulling,
    "network": network,
    "roles": roles,
    "tab": full_tab,
    "audit": audits,
    "audit-referee": asking_for_a_referee,
}


async def main(names: list[str], colours: list[str]) -> None:
    for name in names:
        for colour in colours:
            with tempfile.TemporaryDirectory() as folder:
                await SCENES[name](Path(folder), colour)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the pictures of this folder.")
    parser.add_argument("scenes", nargs="*", help=f"all, or some of: {', '.join(SCENES)}")
    parser.add_argument("--colour", choices=COLOURS, help="both, or this")
    args = parser.parse_args()
    if unknown := set(args.scenes) - set(SCENES):
        parser.error(f"no such scene: {', '.join(sorted(unknown))}")
    asyncio.run(main(args.scenes or list(SCENES), [args.colour] if args.colour else COLOURS))
