"""The child process that owns llama.cpp: `python -P -m infraxa.engine.worker`, driven by `engine/host.py`.

Frames come on fd 0 and go out on fd 1, which native code never sees: both are moved away at the start, so
whatever a library prints lands in stderr, the log. One thread reads, one tells the host that there is life,
the main thread decodes. The process ends when its parent does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NoReturn

from infraxa.engine import frames
from infraxa.engine.frames import FrameError, FrameReader
from infraxa.engine.models import read_metadata
from infraxa.engine.turns import Turn, open_turn
from infraxa.engine.types import EngineError, LoadOptions

if TYPE_CHECKING:
    from infraxa.engine.work import Work

BEAT_SECONDS = 1.0
FLUSH_SECONDS = 0.004
"""Models quicker than this per step tell several steps in one frame: nobody sees the difference, and waking
the host for each would cost as much as a tenth of the step."""
OOM_SCORE = 500
"""Of 1000: as if it took half of the machine's memory more than it does."""


def main() -> None:
    source, sink = _take_pipes()
    faulthandler.enable()
    _leave_signals_to_the_host()
    _die_with_parent()
    _die_before_others()
    Worker(source, sink).run()
    # Threads of llama.cpp and of this module may still be busy: there is nothing left to tidy up.
    _exit(0)


def _leave_signals_to_the_host() -> None:
    """Whoever ends all processes of a terminal or of a service wants the host to end in order, and that needs
    the answers that are under way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _take_pipes() -> tuple[int, int]:
    """Moves the pipes to other descriptors, and points 0 at nothing and 1 at stderr."""
    source, sink = os.dup(0), os.dup(1)
    os.set_inheritable(source, False)
    os.set_inheritable(sink, False)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return source, sink


def _die_with_parent() -> None:
    """On Linux also when this process is stopped and could not see the pipe close. (The parent is the thread
    that runs the host's event loop.)"""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_before_others() -> None:
    """When memory runs out, Linux shall end this process and not the app, which can go on without it."""
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))


def _exit(code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line.encode("utf-8", "replace") + b"\n")


class Worker:
    """One loaded model and its loop."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._write_lock = threading.Lock()
        self._inbox: SimpleQueue[tuple[float, frames.ToWorker | None]] = SimpleQueue()
        """When each message came, and what it says; None: it is this worker's turn."""
        self._turn: Turn | None = None
        self._waiting = False
        """For its turn."""
        self._busy = threading.Event()
        self._work: Work | None = None
        self._step = 0
        self._told = 0.0

    def run(self) -> None:
        """Returns when the host asks for it."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        _, load = self._inbox.get()
        if not isinstance(load, frames.Load):
            return
        self._busy.set()
        try:
            work = self._load(Path(load.path), load.options)
        except EngineError as error:
            self._send(frames.LoadFailed(error.info))
            return
        self._work = work
        self._busy.clear()
        # What is alive now stays: the collector need not look at it after every few hundred tokens.
        gc.collect()
        gc.freeze()
        self._loop(work)

    def _send(self, message: frames.ToHost) -> None:
        data = memoryview(frames.pack(message))
        try:
            with self._write_lock:
                while data:
                    data = data[os.write(self._sink, data) :]
        except OSError:
            # The host is gone; on Windows that is EINVAL.
            _exit(0)

    def _read(self) -> None:
        """Thread: frames into the inbox. What must not wait for the end of a decode is done here."""
        reader = FrameReader()
        try:
            while data := os.read(self._source, 65536):
                for body in reader.feed(data):
                    message = frames.unpack_to_worker(body)
                    if isinstance(message, frames.Close):
                        _exit(0)
                    if isinstance(message, frames.Cancel) and self._work is not None:
                        # Before the message is in the inbox: whoever takes it out switches the abort off.
                        self._work.interrupt(message.id)
                    self._inbox.put((time.perf_counter(), message))
        except (FrameError, OSError) as error:
            _log(f"worker: the host's messages cannot be read: {error}")
        _exit(0)

    def _beat(self) -> None:
        """Thread: life signs while there is work. The step counter shows whether it moves."""
        while True:
            self._busy.wait()
            self._send(frames.Beat(self._step, self._waiting))
            time.sleep(BEAT_SECONDS)

    def _load(self, path: Path, options: LoadOptions) -> Work:
        self._send(frames.Loading(0.0))
        # Before llama.cpp is imported: what is wrong with the path or the header is answered at once.
        info = read_metadata(path)
        try:
            from infraxa.engine.opening import open_work
        except (ImportError, OSError, RuntimeError) as error:
            raise EngineError(
                "load_failed",
                f"llama.cpp itself cannot be loaded: {' '.join(str(error).split())}.",
                "Install llama-cpp-python again, for this machine.",
            ) from None

        work, loaded = open_work(
            info, options, on_progress=lambda done: self._send(frames.Loading(done)), on_log=_log
        )
        if loaded.gpu_layers <= info.layers:  # else the cores are not needed
            self._turn = self._open_turn(loaded.threads)
        self._send(frames.Ready(loaded))
        return work

    def _open_turn(self, threads: int) -> Turn | None:
        from infraxa.engine.sizing import usable_cores

        def taken() -> None:
            self._inbox.put((time.perf_counter(), None))

        try:
            return open_turn(threads=threads, cores=usable_cores(), on_taken=taken)
        except OSError as error:
            _log(f"worker: it takes no turns with others: {error}")
            return None

    def _loop(self, work: Work) -> NoReturn:
        inbox = self._inbox
        while True:
            if not work.busy:
                self._busy.clear()
                came = inbox.get()
                self._busy.set()
                self._handle(work, *came)
            elif not inbox.empty():
                # A new prompt makes the next step longer: what is known is told before.
                self._tell(work)
            while not inbox.empty():
                self._handle(work, *inbox.get())
            if self._turn is not None and work.busy and not self._turn.take():
                self._wait_for_turn(work, self._turn)
            work.step()
            self._step = work.step_number
            if self._turn is not None:
                self._turn.give(idle=not work.busy)
            if not work.busy or work.urgent or time.perf_counter() - self._told >= FLUSH_SECONDS:
                self._tell(work)

    def _wait_for_turn(self, work: Work, turn: Turn) -> None:
        """Returns when there may be a step, or nothing is to be done any more; what comes meanwhile is dealt
        with."""
        self._tell(work)
        self._waiting = True
        while work.busy and not turn.mine and turn.patience > 0:
            with contextlib.suppress(Empty):
                self._handle(work, *self._inbox.get(timeout=max(0.001, turn.patience)))
        self._waiting = False

    def _handle(self, work: Work, received: float, message: frames.ToWorker | None) -> None:
        if isinstance(message, frames.Generate):
            work.submit(message.id, message.request, received)
        elif isinstance(message, frames.Cancel):
            work.cancel(message.id)
        elif isinstance(message, frames.Embed):
            work.embed(message.id, message.texts)
        elif isinstance(message, frames.Score):
            work.score(message)
        elif isinstance(message, frames.Calibrate):
            work.calibrate(message)
        elif isinstance(message, frames.Count):
            try:
                counted = frames.Counted(message.id, work.count(message.messages))
            except EngineError as error:
                counted = frames.Counted(message.id, 0, error.info)
            self._send(counted)

    def _tell(self, work: Work) -> None:
        output = work.take()
        self._send(frames.Steps(self._step, work.n_running, work.n_waiting, *output))
        for made in work.take_made():
            self._send(made)
        self._told = time.perf_counter()


if __name__ == "__main__":
    main()
