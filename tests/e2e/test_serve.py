"""`infraxa serve` as a service uses it: its log, its signals, its exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.events import NodesChanged
from infraxa.app.node import Node
from infraxa.net.table import LEASE_S
from tests.app.networked import network_name, running
from tests.crowd import ask, offers
from tests.e2e.conftest import INFRAXA

WAIT_S = 60.0


class Serving:
    """The command, and the lines that it has printed."""

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*INFRAXA, "--data-dir", str(folder), "serve", "--listen-hosts", "127.0.0.1",
             "--listen-port", "0", "--no-mdns", "--network", network_name(folder), *arguments],
            env={**environment, "INFRAXA_ONLINE": "true"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.05)
        raise AssertionError(f"not within {WAIT_S:g} s: {what}\n" + "\n".join(self.lines))

    def wait_mode(self, mode: str) -> dict[str, Any]:
        """Until provider mode is in this state."""

        def now() -> dict[str, Any] | None:
            said = [event for event in self.events if event["event"] == "provider"]
            return said[-1] if said and said[-1]["mode"] == mode else None

        found: dict[str, Any] = self.wait(mode, now)
        return found

    def wait_port(self) -> int:
        def told() -> list[dict[str, Any]]:
            return [event for event in self.events if event["event"] == "listening"]

        listening = self.wait("listening", told)[-1]
        return int(listening["addresses"][0].rpartition(":")[2])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def serve(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Starts the command; all are ended with the test."""
    started: list[Serving] = []

    def start(*arguments: str) -> Serving:
        started.append(Serving(environment, tmp_path / "data", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_goodbye_and_ends_well(serve: Callable[..., Serving], number: int) -> None:
    serving = serve("--json-events")
    assert serving.wait_mode("serving")["model"] == "guide"
    serving.process.send_signal(number)
    assert serving.process.wait(WAIT_S) == 0, serving.lines
    assert [event["event"] for event in serving.wait("stopped", lambda: serving.events)][-1] == "stopped"


def test_people_read_a_log(serve: Callable[..., Serving]) -> None:
    serving = serve()
    for said in ("You can read their prompts.", "serving guide (Q8_0)", "listens on ws://127.0.0.1:"):
        serving.wait(said, lambda said=said: any(said in line for line in serving.lines))  # type: ignore[misc]
    serving.process.terminate()
    assert serving.process.wait(WAIT_S) == 0
    # What serving means is said once.
    again = serve()
    again.wait("serving", lambda: any("serving guide (Q8_0)" in line for line in again.lines))
    assert "You can read their prompts" not in "\n".join(again.lines)


def test_a_second_one_in_the_folder_ends_nothing_but_itself(serve: Callable[..., Serving]) -> None:
    serving = serve("--json-events")
    serving.wait_mode("serving")
    second = serve("--capacity", "2")
    for said in ("not what was given here: --capacity", "stays on when this command ends"):
        second.wait(said, lambda said=said: any(said in line for line in second.lines))  # type: ignore[misc]
    second.process.terminate()
    assert second.process.wait(WAIT_S) == 0, second.lines
    assert {event["mode"] for event in serving.events if event["event"] == "provider"} == {
        "starting", "serving",
    }  # fmt: skip
    assert serving.process.poll() is None


def test_it_fails_when_the_one_that_it_is_attached_to_ends(serve: Callable[..., Serving]) -> None:
    first = serve("--json-events")
    first.wait_mode("serving")
    second = serve()
    second.wait("attached", lambda: any("stays on when this command ends" in line for line in second.lines))
    first.process.terminate()
    assert first.process.wait(WAIT_S) == 0, first.lines
    assert second.process.wait(WAIT_S) == 1, second.lines
    said = second.wait("the reason", lambda: [line for line in second.lines if "has ended" in line])
    assert "The infraxa that was served with has ended. Start infraxa serve again." in said[-1]


def test_ask_says_who_could_read_the_question(
    serve: Callable[..., Serving], environment: dict[str, str], tmp_path: Path
) -> None:
    serving = serve("--json-events", "--name", "maple")
    serving.wait_mode("serving")
    asked = subprocess.run(
        [*INFRAXA, "--data-dir", str(tmp_path / "user"), "ask", "What is a driver?", "--driver", "auto"],
        env={
            **environment,
            "INFRAXA_ONLINE": "true",
            "INFRAXA_NETWORK": network_name(tmp_path / "data"),
            "INFRAXA_LISTEN_HOSTS": "127.0.0.1",
            "INFRAXA_LISTEN_PORT": "0",
            "INFRAXA_MDNS": "false",
            "INFRAXA_BOOTSTRAP": f"127.0.0.1:{serving.wait_port()}",
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert "provider that you chose" in asked.stdout
    bound, readable, charge, audited = asked.stderr.splitlines()
    assert re.fullmatch(r"infraxa: at most 0\.\d+ credits", bound)
    assert re.fullmatch(r"infraxa: readable by maple·\w{8} only\.", readable)
    assert re.fullmatch(r"infraxa: charged 0\.\d+ credits, signed by both", charge)
    assert audited.startswith("infraxa: audit: 16 of ")


def test_it_ends_with_the_program_that_started_it(serve: Callable[..., Serving]) -> None:
    serving = serve("--json-events", "--until-eof")
    serving.wait_mode("serving")
    assert serving.process.stdin is not None
    serving.process.stdin.close()
    assert serving.process.wait(WAIT_S) == 0


def test_a_model_that_is_not_there_fails_with_one_line(serve: Callable[..., Serving]) -> None:
    serving = serve("--model", "nobody")
    assert serving.process.wait(WAIT_S) == 1
    said = serving.wait("the reason", lambda: [line for line in serving.lines if "nobody" in line])
    assert "There is no model named nobody" in said[-1] and "Traceback" not in "\n".join(serving.lines)
    assert "You can read their prompts" not in "\n".join(serving.lines), "nobody is served, so not yet"


def test_a_hangup_reads_the_settings_again(serve: Callable[..., Serving], tmp_path: Path) -> None:
    serving = serve("--json-events")
    serving.wait_mode("serving")
    config = tmp_path / "data" / "config.toml"
    config.write_text("capacity = 2\n")
    serving.process.send_signal(signal.SIGHUP)
    serving.wait("reload", lambda: [event for event in serving.events if event["event"] == "reload"])
    assert [event for event in serving.events if event["event"] == "reload"][-1]["changed"] == ["capacity"]
    config.write_text("capacity = many\n")
    serving.process.send_signal(signal.SIGHUP)
    serving.wait(
        "refusal", lambda: any("error" in event for event in serving.events if event["event"] == "reload")
    )
    assert serving.process.poll() is None


@pytest.fixture
def slow_folder(slow_model: Path, environment: dict[str, str], tmp_path: Path) -> Path:
    """A data folder that knows the slow model."""
    added = subprocess.run(
        [*INFRAXA, "--data-dir", str(tmp_path / "data"), "models", "add", str(slow_model)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert added.returncode == 0, added.stderr
    return tmp_path / "data"


@contextlib.asynccontextmanager
async def user_of(serving: Serving, folder: Path, own: Path) -> AsyncIterator[Node]:
    """Somebody who sees the offer of the node that serves with `folder`."""
    async with running(
        own,
        network=network_name(folder),
        listen_hosts="127.0.0.1",
        mdns=False,
        bootstrap=f"127.0.0.1:{serving.wait_port()}",
    ) as user:
        await offers(user)
        yield user


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_runs_is_finished_before_the_end(
    serve: Callable[..., Serving], slow_folder: Path, tmp_path: Path, number: int
) -> None:
    """The signal goes to all that the command has started, as a terminal and a service manager send it."""
    serving = serve("--json-events", "--model", "slow")
    serving.wait_mode("serving")
    async with user_of(serving, slow_folder, tmp_path / "user") as user:
        answering = asyncio.Event()
        asking = asyncio.ensure_future(ask(user, 1, max_tokens=60, began_to_answer=answering))
        async with asyncio.timeout(WAIT_S):
            await answering.wait()
        os.killpg(serving.process.pid, number)
        asked = await asking
        assert asked.finish in ("stop", "length"), asked.reason
    assert await asyncio.to_thread(serving.process.wait, WAIT_S) == 0
    requests = [event for event in serving.events if event["event"] == "request"]
    assert [one["state"] for one in requests] == ["done"] and requests[0]["n_out"] == asked.n_out


async def test_the_same_signal_again_ends_what_runs(
    serve: Callable[..., Serving], slow_folder: Path, tmp_path: Path
) -> None:
    serving = serve("--json-events", "--model", "slow")
    serving.wait_mode("serving")
    async with user_of(serving, slow_folder, tmp_path / "user") as user:
        answering = asyncio.Event()
        asking = asyncio.ensure_future(ask(user, 1, max_tokens=300, began_to_answer=answering))
        async with asyncio.timeout(WAIT_S):
            await answering.wait()
        serving.process.terminate()
        await asyncio.to_thread(serving.wait_mode, "draining")
        serving.process.terminate()
        asked = await asking
    assert (asked.finish, asked.code) == ("failed", "leaving")
    assert await asyncio.to_thread(serving.process.wait, WAIT_S) == 0
    requests = [event for event in serving.events if event["event"] == "request"]
    assert [one["state"] for one in requests] == ["failed"] and requests[0]["n_out"]


async def test_who_sees_it_is_told_that_it_leaves(serve: Callable[..., Serving], tmp_path: Path) -> None:
    """Long before its lease is over, which it would be after one that was killed."""
    serving = serve("--json-events")
    serving.wait_mode("serving")
    async with user_of(serving, tmp_path / "data", tmp_path / "user") as user:
        news = asyncio.Event()
        user.subscribe(lambda event: news.set() if isinstance(event, NodesChanged) else None)
        serving.process.terminate()
        assert await asyncio.to_thread(serving.process.wait, WAIT_S) == 0
        async with asyncio.timeout(LEASE_S / 3):
            while [node.status for node in await user.list_nodes()] != ["offline"]:
                await news.wait()
                news.clear()
