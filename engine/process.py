"""The worker process as the host sees it: start, send, hear, end. Knows frames, not what they mean."""

from __future__ import annotations

import asyncio
import os
import signal
import site
import sys
from collections.abc import Callable
from pathlib import Path

import infraxa
from infraxa.engine.frames import (
    Close,
    FrameError,
    FrameReader,
    ToHost,
    ToWorker,
    pack_checked,
    unpack_to_host,
)

MAX_LINE = 2000
"""Characters of a log line that are kept."""
PIPES_GRACE = 1.0
"""Seconds for the pipes to run dry after the process has ended; somebody else may hold them open."""


class WorkerProcess(asyncio.SubprocessProtocol):
    """One child process. Made by `start`; `on_exit` is called exactly once, when nothing more will come."""

    def __init__(
        self,
        on_message: Callable[[ToHost], None],
        on_line: Callable[[str], None],
        on_exit: Callable[[WorkerProcess], None],
    ) -> None:
        self._on_message = on_message
        self._on_line = on_line
        self._on_exit = on_exit
        self._reader = FrameReader()
        self._line = bytearray()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._gone = asyncio.Event()
        self.pid = 0
        self.returncode: int | None = None
        """Negative: the signal that killed it."""

    @classmethod
    async def start(
        cls,
        on_message: Callable[[ToHost], None],
        on_line: Callable[[str], None],
        on_exit: Callable[[WorkerProcess], None],
    ) -> WorkerProcess:
        """Raises OSError when the system cannot start a process."""
        loop = asyncio.get_running_loop()
        _, worker = await loop.subprocess_exec(
            lambda: cls(on_message, on_line, on_exit),
            sys.executable,
            "-P",
            "-m",
            "infraxa.engine.worker",
            env=worker_environment(),
            # What a terminal sends to all of its job, Ctrl-C above all, is for the host to obey.
            start_new_session=True,
        )
        return worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        self.pid = transport.get_pid()
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        self._stdin = stdin

    def send(self, message: ToWorker) -> None:
        """Raises FrameError when the message cannot be sent; does nothing when the process is gone."""
        data = pack_checked(message)
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(data)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._hear(data)
            return
        try:
            for body in self._reader.feed(data):
                self._on_message(unpack_to_host(body))
        except FrameError as error:
            self._on_line(f"host: worker {self.pid} sent something unreadable: {error}")
            self.kill()

    def _hear(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\n")
        for line in lines:
            self._on_line(bytes(line[:MAX_LINE]).decode("utf-8", "replace").rstrip())
        # A line without an end must not grow for ever.
        self._line = rest[:MAX_LINE]

    def process_exited(self) -> None:
        assert self._transport is not None
        self.returncode = self._transport.get_returncode()
        asyncio.get_running_loop().call_later(PIPES_GRACE, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._gone.is_set():
            assert self._transport is not None
            if self._line:
                self._hear(b"\n")
            self._gone.set()
            self._transport.close()
            self._on_exit(self)

    def signal(self, number: int) -> None:
        """Does nothing when the process is gone."""
        if self._transport is not None and self._transport.get_returncode() is None:
            try:
                self._transport.send_signal(number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        self.signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    async def wait(self, seconds: float) -> bool:
        """Whether it is gone within that time."""
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def stop(self, grace: float) -> None:
        """Asks it to end, then makes it; `grace` seconds each, or at once when the caller is cancelled."""
        self._on_exit = _ignore_exit
        self._on_message = _ignore
        self.send(Close())
        try:
            if await self.wait(grace):
                return
            self.kill()
            await self.wait(grace)
        finally:
            # Closing its pipes kills it where it still runs.
            self._end()

    @property
    def gone(self) -> bool:
        """`on_exit` was called."""
        return self._gone.is_set()

    @property
    def killed(self) -> bool:
        """By SIGKILL: nobody could stop it, and it could not say why."""
        return sys.platform != "win32" and self.returncode == -signal.SIGKILL

    @property
    def lost_its_file(self) -> bool:
        """What it had mapped of a file was not there any more: the file was cut off, or cannot be read."""
        return sys.platform != "win32" and self.returncode == -signal.SIGBUS

    def cause_of_death(self) -> str:
        """“killed by signal 9 (SIGKILL)”, “exit code 1”."""
        code = self.returncode
        if code is None:
            return "unknown cause"
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"killed by signal {-code}"


def _ignore_exit(worker: WorkerProcess) -> None:
    """Whoever ends the process need not be told."""


def _ignore(message: ToHost) -> None:
    """What a process says that was told to end is of no interest."""


def worker_environment() -> dict[str, str]:
    """The environment in which `import infraxa` finds the same package as here."""
    environment = dict(os.environ)
    # On abort, ggml would start a debugger on its own process, which keeps it from ending.
    environment["GGML_NO_BACKTRACE"] = "1"
    place = import_place()
    if place is not None:
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([place, before] if before else [place])
    return environment


def import_place() -> str | None:
    """The entry of sys.path that this package came from; None when every Python process here has it by
    itself."""
    package = Path(infraxa.__file__).parent
    installed = {os.path.realpath(p) for p in [*site.getsitepackages(), site.getusersitepackages()]}
    for entry in sys.path:
        folder = Path(entry or os.curdir).absolute()
        candidate = folder / "infraxa"
        try:
            if candidate.samefile(package):
                return None if os.path.realpath(folder) in installed else str(folder)
        except OSError:
            continue
    # An editable install: a finder of site-packages knows where the package is.
    return None
