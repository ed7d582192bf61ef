"""`infraxa ask`: one answer on standard output, from an engine of its own: it works while the app is open.

Nothing is stored. On a terminal the answer cannot send control characters; in a pipe it is as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from infraxa.app import choices
from infraxa.app.choices import ModelEntry
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders
from infraxa.engine.generation import Generation
from infraxa.engine.host import Engine
from infraxa.engine.types import (
    ChatMessage,
    Delta,
    EngineError,
    EngineStatus,
    ErrorInfo,
    Finished,
    LoadOptions,
    Progress,
    Request,
    Role,
)
from infraxa.store.records import ChatOptions

MAX_INPUT = 16 << 20
"""Bytes of standard input; no context holds so much."""
WAIT_NOTE = 2.0
"""After so many seconds without the end of standard input, say what is being waited for."""

INTERRUPTED = 130


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
    """Returns the exit code; 130 after Ctrl-C. Raises NodeError, EngineError, StoreError and UsageError."""
    folders = folders_of(data_dir)
    settings = settings_of(folders, flags)
    text = _whole_question(question, _read_input())
    entry = _find(settings.model, folders)
    options = ChatOptions(max_tokens=max_tokens, seed=seed)
    said: list[tuple[Role, str]] = [("system", system)] if system else []
    said.append(("user", text))
    request = Request(
        tuple(ChatMessage(role, content) for role, content in said),
        choices.resolve_sampling(options, settings, entry),
    )
    return asyncio.run(_Asking(entry, settings, as_json).run(request))


class _Asking:
    """One question on its way, and how Ctrl-C ends it: what was said stays."""

    def __init__(self, entry: ModelEntry, settings: Settings, as_json: bool) -> None:
        self._entry = entry
        self._settings = settings
        self._as_json = as_json
        self._generation: Generation | None = None
        self._interrupted = False
        self._status_shown = False
        self._task: asyncio.Task[object] | None = None

    async def run(self, request: Request) -> int:
        self._task = asyncio.current_task()
        engine = Engine(on_status=self._show_status)
        with self._stop_on_interrupt():
            try:
                settings = self._settings
                loaded = await engine.load(
                    Path(self._entry.path),
                    LoadOptions(settings.context, 1, settings.threads, settings.gpu_layers),
                )
                self._clear_status()
                self._generation = engine.generate(request)
                text, finished = await self._show(self._generation)
            except asyncio.CancelledError:
                if not self._interrupted:
                    raise
                return INTERRUPTED
            finally:
                self._clear_status()
                await engine.close()
        if self._as_json:
            print_json(self._facts(text, finished, loaded.load_ms))
        return self._end(finished)

    async def _show(self, generation: Generation) -> tuple[str, Finished]:
        parts: list[str] = []
        last = ""
        on_terminal = is_terminal(sys.stdout)
        async for item in generation:
            match item:
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
                case Finished():
                    if not self._as_json and last not in ("", "\n"):
                        print(flush=True)
                    return "".join(parts), item
        raise EngineError("closed", "The engine ended before the answer did.", "Try again.")

    def _end(self, finished: Finished) -> int:
        if finished.reason == "failed":
            error = finished.error or ErrorInfo("failed", "The answer failed.")
            note(f"infraxa: {error.message} {error.remedy}")
            return 1
        if finished.reason == "cancelled":
            return INTERRUPTED
        if finished.reason == "length":
            note(f"infraxa: the answer was cut after {finished.usage.n_out} tokens.")
        return 0

    def _facts(self, text: str, finished: Finished, load_ms: int) -> dict[str, object]:
        usage = finished.usage
        rate = usage.tokens_per_second
        return {
            "text": text,
            "model": self._entry.name,
            "finish": finished.reason,
            "n_prompt": usage.n_prompt,
            "n_out": usage.n_out,
            "load_ms": load_ms,
            "first_token_ms": None if usage.first_token_ms is None else round(usage.first_token_ms, 1),
            "decode_ms": round(usage.decode_ms, 1),
            "tokens_per_second": None if rate is None else round(rate, 1),
            "error": msgspec.to_builtins(finished.error),
        }

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
        if self._generation is not None and not self._interrupted:
            self._generation.cancel()
        elif self._task is not None:
            self._task.cancel()
        self._interrupted = True

    def _show_status(self, status: EngineStatus) -> None:
        if status.state == "loading" and status.progress:
            self._status_line(f"loading {self._entry.name}: {status.progress:.0%}")

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


def _find(name: str, folders: Folders) -> ModelEntry:
    """The model of this name or path; the store is opened only when it is neither the guide nor a file."""
    entries = choices.model_entries([])
    if all(entry.name != name for entry in entries) and not choices.is_path(name):
        from infraxa.app.commands.models import read_records

        entries = choices.model_entries(read_records(folders))
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
