"""`infraxa gateway` and `infraxa serve --api` as processes, asked with curl."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.command_line import COMMAND, environment, infraxa, one_line

WAIT_S = 60.0
CURL = shutil.which("curl") or "curl"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")


class Running:
    """A command that runs until it is ended, and what it has said."""

    def __init__(self, data: Path, *arguments: str, **env: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment(data, **env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait(self, pattern: str) -> str:
        """The first group of the first line that has it."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found[1]
            time.sleep(0.02)
        raise AssertionError(f"not within {WAIT_S:g} s: {pattern}\n" + "\n".join(self.lines))

    def address(self) -> str:
        return self.wait(r"programs ask (http://\S+)/v1")

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts the command; all are ended with the test."""
    started: list[Running] = []

    def start(*arguments: str, **env: str) -> Running:
        started.append(Running(tmp_path / "data", *arguments, **env))
        return started[-1]

    yield start
    for one in started:
        one.close()


def curl(*arguments: str, data: object = None) -> str:
    """What it prints."""
    body = [] if data is None else ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    done = subprocess.run(
        [CURL, "--silent", "--show-error", "--max-time", "60", "--no-buffer", *body, *arguments],
        input=None if data is None else json.dumps(data),
        capture_output=True,
        text=True,
        timeout=WAIT_S + 10,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


QUESTION: Any = {"model": "guide", "messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 8}


@needs_curl
def test_curl_asks_everything(run: Callable[..., Running], tmp_path: Path) -> None:
    gateway = run("gateway", "--port", "0")
    address = gateway.address()
    gateway.wait("(with the key that infraxa gateway key prints)")
    printed = infraxa("gateway", "key", data=tmp_path / "data")
    assert printed.code == 0 and printed.err == "" and printed.out.count("\n") == 1
    key = ["-H", f"Authorization: Bearer {printed.out.strip()}"]
    assert json.loads(curl(f"{address}/health")) == {"status": "ok"}
    models = json.loads(curl(*key, f"{address}/v1/models"))
    assert [model["id"] for model in models["data"]] == ["guide"]
    chat = f"{address}/v1/chat/completions"
    answer = json.loads(curl(*key, chat, data=QUESTION))
    assert "4" in answer["choices"][0]["message"]["content"] and answer["infraxa"]["driver"] == "local"
    streamed = curl(*key, chat, data=QUESTION | {"stream": True, "temperature": 0})
    events = [line.removeprefix("data: ") for line in streamed.splitlines() if line]
    assert events[-1] == "[DONE]" and json.loads(events[-2])["infraxa"]["cost"] == 0
    heads = curl(*key, "-D", "-", "-o", "/dev/null", chat, data=QUESTION)
    assert re.search(r"(?i)^x-infraxa-driver: local\r?$", heads, re.M)
    text = json.loads(curl(*key, f"{address}/v1/completions", data={"model": "guide", "prompt": "A driver"}))
    assert text["choices"][0]["text"]
    assert "infraxa_gateway_requests_total" in curl(*key, f"{address}/metrics")
    long = QUESTION | {"ignored": "x" * 3_000_000}
    assert json.loads(curl(*key, chat, data=long))["choices"], "curl asks first whether it may send so much"
    assert json.loads(curl(chat, data=long))["error"]["code"] == "invalid_api_key"
    assert printed.out.strip() not in "\n".join(gateway.lines)
    assert gateway.end() == 0, gateway.lines
    assert gateway.lines[-1] == "The gateway is closed."


@needs_curl
def test_it_is_opened_in_the_infraxa_that_is_open(run: Callable[..., Running], tmp_path: Path) -> None:
    first = run("gateway", "--port", "0", INFRAXA_API_KEY="a-key-of-the-environment")
    first.wait("(with the key that was given)")
    assert "a-key-of-the-environment" not in "\n".join(first.lines)
    key = ["-H", "Authorization: Bearer a-key-of-the-environment"]
    second = run("gateway")
    assert second.wait(r"pid (\d+)") == str(first.process.pid)
    address = second.address()
    assert address == first.address() and json.loads(curl(*key, f"{address}/v1/models"))["data"]
    assert second.end(signal.SIGTERM) == 0
    assert json.loads(curl(*key, f"{address}/v1/models"))["data"], "the first one is still there"
    third = run("gateway")
    third.address()
    assert first.end() == 0
    assert third.process.wait(WAIT_S) == 1
    assert "has ended" in "\n".join(third.lines) and "Traceback" not in "\n".join(third.lines)


def test_options_that_do_not_count_are_said(run: Callable[..., Running], tmp_path: Path) -> None:
    first = run("gateway", "--port", "0")
    first.address()
    capped = infraxa("gateway", "--cap-api", "0.001", data=tmp_path / "data")
    assert capped.code == 1 and "config set cap_api 0.001" in capped.err and "programs ask" not in capped.err
    second = run("gateway", "--gateway-origins", "http://localhost:3000", "--cap-day", "0.05")
    assert second.wait(r"not what was given here: (.*)") == "--gateway-origins"
    assert second.address() == first.address()


def test_a_killed_front_end_leaves_no_gateway_open(run: Callable[..., Running], tmp_path: Path) -> None:
    holder = run("serve", "--listen-hosts", "127.0.0.1", "--listen-port", "0", "--no-mdns",
                 INFRAXA_ONLINE="true", INFRAXA_NETWORK=f"test {tmp_path.name}"[:32])  # fmt: skip
    holder.wait("(listens on)")
    front = run("gateway", "--port", "0", INFRAXA_API_KEY="a-key-of-the-environment")
    address = front.address()
    front.process.kill()
    holder.wait("(The gateway is closed)")
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
        pass
    assert holder.end() == 0


@needs_curl
def test_a_provider_has_a_gateway_too(run: Callable[..., Running], tmp_path: Path) -> None:
    serving = run("serve", "--api", "--gateway-port", "0", "--cap-api", "0.5",
                  "--gateway-origins", "http://localhost:3000", "--listen-hosts", "127.0.0.1",
                  "--listen-port", "0", "--no-mdns", INFRAXA_ONLINE="true",
                  INFRAXA_NETWORK=f"test {tmp_path.name}"[:32],
                  INFRAXA_API_KEY="a-key-of-the-environment")  # fmt: skip
    address = serving.wait(r"The gateway is open: (http://\S+)/v1")
    serving.wait("(serving guide)")
    key = ["-H", "Authorization: Bearer a-key-of-the-environment"]
    page = ["-H", "Origin: http://localhost:3000"]
    answer = json.loads(curl(*key, *page, f"{address}/v1/chat/completions", data=QUESTION))
    assert answer["choices"][0]["message"]["content"]
    assert "infraxa_gateway_cap_microcredits 500000.0" in curl(*key, f"{address}/metrics")
    assert serving.end(signal.SIGTERM) == 0


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        one_line(infraxa("gateway", "--port", port, data=data), port, "--port")
        exposed = infraxa("gateway", "--port", "0", data=data, env={"INFRAXA_GATEWAY_HOST": "0.0.0.0"})
        one_line(exposed, "encrypted", "--host 0.0.0.0")
    one_line(infraxa("gateway", "--api-key", "short", data=data), "16", code=2)
    one_line(infraxa("gateway", "--port", "99999999", data=data), "--port: ", code=2)
    bad = infraxa("gateway", "--port", "1", "key", data=data)
    assert bad.code == 2 and "does nothing" in bad.err
