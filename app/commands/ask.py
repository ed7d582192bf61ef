"""`infraxa ask`: one answer on standard output, from the infraxa that is open, else from its own engine.

Nothing is stored. On a terminal the answer cannot send control characters; in a pipe it is as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from infraxa.app import choices
from infraxa.app.answering import Billed, Moved, Sent, Times, Waits
from infraxa.app.choices import ModelEntry
from infraxa.app.commands.audited import AUDIT_S, found, verdicts_of
from infraxa.app.commands.charges import charged, settled, unsigned
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.front import attached_node, is_open, opened_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json
from infraxa.app.commands.providers import require_online
from infraxa.app.config import LOCAL, Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import EngineChanged, Event, NodesChanged
from infraxa.app.facade import AskBegan, AskEvent, NodeFacade
from infraxa.app.folders import Folders, whole_path
from infraxa.engine.host import Engine
from infraxa.engine.types import (
    Delta,
    EngineError,
    EngineStatus,
    ErrorInfo,
    Finished,
    LoadOptions,
    Progress,
    Request,
)
from infraxa.net.credits import micro, shown
from infraxa.net.identity import display, parse_id
from infraxa.net.market import MAX_PRICE
from infraxa.store.records import Bill, ChatOptions, DriverPart, Reader, Verdict

MAX_INPUT = 16 << 20
"""Bytes of standard input; no context holds so much."""
FIND_S = 10.0
"""How long a driver is looked for by a command that joins the network for it."""
NOT_FOUND = ("no_driver", "offline")
"""What may change as soon as more is known of the network."""
WAIT_NOTE = 2.0
"""After so many seconds without the end of standard input, say what is being waited for."""

INTERRUPTED = 130
OWN_ENGINE = ("threads", "context", "gpu_layers")
"""Flags that say how a model is loaded: the one that is open is loaded already."""


def ask(
    data_dir: Path | None,
    flags: Mapping[str, object],
    question: str | None,
    *,
    system: str | None,
    max_tokens: int | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """Returns the exit code: 1 also for an answer that fails its audit, 130 after Ctrl-C.

    Raises NodeError, EngineError, StoreError and UsageError.
    """
    folders = folders_of(data_dir)
    settings = settings_of(folders, flags)
    text = _whole_question(question, _read_input())
    options = ChatOptions(
        model=settings.model,
        driver=settings.driver,
        system=system,
        temperature=settings.temperature,
        max_tokens=max_tokens,
        seed=seed,
        max_price=None if flags["max_price"] is None else _most(settings.max_price),
        failover=settings.failover,
    )
    own = any(flags[name] is not None for name in OWN_ENGINE)
    asking = _Asking(folders, settings, as_json)
    if settings.driver != LOCAL:
        if own:
            raise UsageError("--threads, --context and --gpu-layers are for this machine's own model.")
        require_online(settings)
        return asyncio.run(asking.run(asking.ask_driver(text, options)))
    return asyncio.run(asking.run((asking.ask_alone if own else asking.ask)(text, options)))


class _Asking:
    """One question on its way, and how Ctrl-C ends it: what was said stays."""

    def __init__(self, folders: Folders, settings: Settings, as_json: bool) -> None:
        self._folders = folders
        self._settings = settings
        self._as_json = as_json
        self._model = settings.model
        self._load_ms = 0
        self._drivers: list[DriverPart] = []
        """Who answered, in order."""
        self._readers: list[Reader] = []
        self._bills: tuple[Bill, ...] = ()
        """Of its orders, as far as is known."""
        self._verdicts: list[Verdict] = []
        """What audits found of these."""
        self._bounds: set[str] = set()
        """Orders of which was said what they can cost."""
        self._times = Times()
        self._stop: Callable[[], None] | None = None
        """Ends the answer with its counts; there is none before the model is ready."""
        self._interrupted = False
        self._status_shown = False
        self._task: asyncio.Task[object] | None = None

    async def run(self, answer: Awaitable[tuple[str, Finished]]) -> int:
        """Show it; the exit code."""
        self._task = asyncio.current_task()
        with self._stop_on_interrupt():
            try:
                said, finished = await answer
            except asyncio.CancelledError:
                if not self._interrupted:
                    raise
                return INTERRUPTED
            finally:
                self._clear_status()
        if self._as_json:
            print_json(self._facts(said, finished))
        return self._end(said, finished)

    async def ask_driver(self, text: str, options: ChatOptions) -> tuple[str, Finished]:
        """Have a driver answer. Where no infraxa is open this joins the network, and looks for a moment."""
        limit = 0.0 if is_open(self._folders) else FIND_S
        async with opened_node(self._folders, self._settings) as node:
            found = asyncio.Event()
            node.subscribe(lambda event: found.set() if isinstance(event, NodesChanged) else None)
            until = time.monotonic() + limit
            while True:
                found.clear()
                async with contextlib.aclosing(node.ask(text, options)) as stream:
                    said, finished = await self._show(stream, stream.stop)
                if said:
                    await self._look_after(node, finished)
                    return said, finished
                left = until - time.monotonic()
                if finished.error is None or finished.error.code not in NOT_FOUND or left <= 0:
                    return said, finished
                self._status_line(f"looking for a driver: at most {left:.0f} s more")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await found.wait()

    async def _look_after(self, node: NodeFacade, finished: Finished) -> None:
        """Wait until both sides have signed, and audits are through; Ctrl-C does without."""
        scope = asyncio.timeout(None)
        if not self._interrupted:
            self._stop = lambda: scope.reschedule(0)
        try:
            async with scope:
                await self._signed_and_audited(node, finished)
        except TimeoutError:
            self._verdicts = await verdicts_of(node, self._bills, 0.0)
        finally:
            self._stop = self._task = None  # it was answered; what is left is to close, and to say so
            self._clear_status()

    async def _signed_and_audited(self, node: NodeFacade, finished: Finished) -> None:
        self._bills = await settled(node, self._bills)
        signed = [bill for bill in self._bills if not unsigned(bill)]
        if signed and finished.reason in ("stop", "length"):
            self._status_line(f"waiting for an audit of the answer: at most {AUDIT_S:.0f} s")
            self._verdicts = await verdicts_of(node, signed)

    async def ask(self, text: str, options: ChatOptions) -> tuple[str, Finished]:
        """Have the infraxa that is open answer; alone when none is."""
        async with attached_node(self._folders, self._settings) as node:
            if node is not None:
                if options.model is not None and choices.is_path(options.model):
                    options = msgspec.structs.replace(options, model=str(whole_path(options.model)))
                node.subscribe(self._hear)
                self._show_status(node.engine)
                async with contextlib.aclosing(node.ask(text, options)) as stream:
                    return await self._show(stream, stream.stop)
        return await self.ask_alone(text, options)

    async def ask_alone(self, text: str, options: ChatOptions) -> tuple[str, Finished]:
        entry = await _find(self._settings.model, self._folders)
        self._drivers = [DriverPart(model=entry.name)]
        request = Request(
            choices.one_off(text, options), choices.resolve_sampling(options, self._settings, entry)
        )
        settings = self._settings
        engine = Engine(on_status=self._show_status)
        try:
            loaded = await engine.load(
                Path(entry.path), LoadOptions(settings.context, 1, settings.threads, settings.gpu_layers)
            )
            self._load_ms = loaded.load_ms
            generation = engine.generate(request)
            self._stop = generation.cancel
            return await self._show(generation, generation.cancel)
        finally:
            await engine.close()

    async def _show(self, events: AsyncIterator[AskEvent], stop: Callable[[], None]) -> tuple[str, Finished]:
        parts: list[str] = []
        last = ""
        on_terminal = is_terminal(sys.stdout)
        try:
            async for event in events:
                match event:
                    case AskBegan():
                        self._model, self._load_ms = event.model, event.load_ms
                        self._drivers = [DriverPart(model=event.model)] if event.model else []
                        self._stop = stop
                    case Delta(text=text) if text:
                        self._clear_status()
                        parts.append(text)
                        shown = clean(text) if on_terminal else text
                        last = shown[-1:] or last
                        if not self._as_json:
                            sys.stdout.write(shown)
                            sys.stdout.flush()
                    case Progress(done=done, total=total):
                        self._status_line(f"reading the question: {done} of {total} tokens")
                    case Waits(what=what, limit_s=limit):
                        self._status_line(f"waiting for {what}: at most {limit:.0f} s")
                    case Sent(reader=reader):
                        self._readers.append(reader)
                    case Moved(part=part):
                        self._drivers.append(part)
                        self._model = part.model
                        if part.reason:
                            self._clear_status()
                            note(f"infraxa: {part.reason} {part.name or 'This machine'} goes on.")
                    case Billed(bills=bills):
                        self._say_bound(bills)
                        self._bills = bills
                    case Times():
                        self._times = event
                    case Finished():
                        return "".join(parts), event
        finally:
            if not self._as_json and last not in ("", "\n"):
                print(flush=True)
        raise EngineError("closed", "The engine ended before the answer did.", "Try again.")

    def _end(self, said: str, finished: Finished) -> int:
        if self._readers and not self._as_json:
            names = (display(reader.name, parse_id(reader.id)) for reader in self._readers)
            note(f"infraxa: readable by {', '.join(names)} only.")
        paid = said or any(bill.charge for bill in self._bills)
        if paid and not self._as_json and (cost := charged(self._bills)):
            note(f"infraxa: {cost}")
        if not self._as_json:
            known = {reader.id: display(reader.name, parse_id(reader.id)) for reader in self._readers}
            for verdict in self._verdicts:
                if line := found(verdict):
                    who = f"{known.get(verdict.driver, verdict.driver)}: " if len(self._verdicts) > 1 else ""
                    note(f"infraxa: {who}{line}.")
        if finished.reason == "failed":
            error = finished.error or ErrorInfo("failed", "The answer failed.")
            note(f"infraxa: {error.message} {error.remedy}")
            return 1
        if finished.reason == "cancelled":
            return INTERRUPTED
        if finished.reason == "length":
            note(f"infraxa: the answer was cut after {finished.usage.n_out} tokens.")
        return int(any(verdict.state == "failed" for verdict in self._verdicts))

    def _facts(self, text: str, finished: Finished) -> dict[str, object]:
        usage = finished.usage
        rate = usage.tokens_per_second
        return {
            "text": text,
            "model": self._model,
            "drivers": self._drivers,
            "readers": self._readers,
            "bills": self._bills,
            "verdicts": self._verdicts,
            "connect_ms": None if self._times.connect_ms is None else round(self._times.connect_ms, 1),
            "finish": finished.reason,
            "n_prompt": usage.n_prompt,
            "n_out": usage.n_out,
            "load_ms": self._load_ms,
            "first_token_ms": None if usage.first_token_ms is None else round(usage.first_token_ms, 1),
            "decode_ms": round(usage.decode_ms, 1),
            "tokens_per_second": None if rate is None else round(rate, 1),
            "error": msgspec.to_builtins(finished.error),
        }

    def _say_bound(self, bills: tuple[Bill, ...]) -> None:
        """What an order can cost, before anything of it is answered."""
        for bill in bills:
            if bill.hold and bill.order not in self._bounds and not self._as_json:
                more = any(one.order in self._bounds and one.state != "released" for one in bills)
                self._bounds.add(bill.order)
                self._clear_status()
                note(f"infraxa: at most {shown(bill.hold)} credits{' more' if more else ''}")

    @contextlib.contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C stops the answer; a second one does not wait for its end."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
        except NotImplementedError:  # Windows: asyncio.run cancels the task, which ends in KeyboardInterrupt
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self) -> None:
        first, self._interrupted = not self._interrupted, True
        if self._stop is not None and first:
            self._stop()
        elif self._task is not None:
            self._task.cancel()
            self._task = None  # once: what closes then is not to be cut

    def _hear(self, event: Event) -> None:
        if isinstance(event, EngineChanged) and self._stop is None:
            self._show_status(event.status)

    def _show_status(self, status: EngineStatus) -> None:
        if status.state == "loading" and status.progress:
            self._status_line(f"loading {self._model}: {status.progress:.0%}")

    def _status_line(self, text: str) -> None:
        """What is being waited for, on a line that goes away; only for a person who sees nothing yet."""
        if is_terminal(sys.stderr):
            self._status_shown = True
            sys.stderr.write(f"\r\x1b[2K{clean(text)}")
            sys.stderr.flush()

    def _clear_status(self) -> None:
        if self._status_shown:
            self._status_shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _most(max_price: float | None) -> int:
    """Of the flag, in µcr. `auto` is said, too: the infraxa that is open may have a bound of its own."""
    return MAX_PRICE if max_price is None else micro(max_price)


async def _find(name: str, folders: Folders) -> ModelEntry:
    """The model of this name or path; the store is opened only when it is neither the guide nor a file."""
    entries = choices.model_entries([])
    if all(entry.name != name for entry in entries) and not choices.is_path(name):
        from infraxa.app.commands.models import read_records_async

        entries = choices.model_entries(await read_records_async(folders))
    entry = choices.find_model(name, entries)
    if entry.problem:
        raise NodeError("no_model", entry.problem, "See: infraxa models list")
    return entry


def _whole_question(question: str | None, piped: str) -> str:
    """The question, then what was piped in; one of them may be missing. Raises UsageError when both are."""
    text = "\n\n".join(part for part in (question or "", piped) if part.strip())
    if not text:
        raise UsageError('There is no question. Example: infraxa ask "What is 2+2?"')
    return text


def _read_input() -> str:
    """What is piped into standard input; nothing from a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    waiting = threading.Timer(
        WAIT_NOTE, note, ["infraxa: waiting for the end of standard input; < /dev/null leaves it out."]
    )
    waiting.daemon = True
    waiting.start()
    try:
        data = sys.stdin.buffer.read(MAX_INPUT + 1)
    finally:
        waiting.cancel()
    if len(data) > MAX_INPUT:
        raise NodeError("too_long", f"Standard input is longer than {MAX_INPUT >> 20} MB.", "Pipe in less.")
    return data.decode("utf-8", "replace").strip("\r\n")
