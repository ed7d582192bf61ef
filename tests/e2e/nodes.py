"""Drives nodes without a screen (tests/e2e/network_node.py) in hosts of the laboratory."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.e2e import network_node
from tests.e2e.lab import Host, line_of, until

ANSWER_S = 30.0
"""How long one request may take on a busy machine; `join` dials, with limits of its own."""


class NetworkNode:
    """A running node in a host of the laboratory."""

    def __init__(self, host: Host, folder: Path, *, clock_ms: int = 0, **settings: str) -> None:
        """Start it: `settings` by their names; `clock_ms` is how far its clock is ahead. It is called as
        its host, if not otherwise."""
        self.host = host
        self.name = settings.setdefault("name", host.name)
        variables = {f"INFRAXA_{name.upper()}": value for name, value in settings.items()}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("INFRAXA_")}
        folder.mkdir(exist_ok=True)
        self.folder = folder
        with (folder / "stderr").open("wb") as said:
            self.process = host.start(
                *(sys.executable, "-P", network_node.__file__, str(folder), str(clock_ms)),
                env={**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables},
                stderr=said,
            )

    @functools.cached_property
    def id(self) -> str:
        """Its node id in hex; waits until it has started."""
        return str(self.ask("look")["status"]["id"])

    def ask(self, do: str, **given: Any) -> Any:
        """What the node answers. AssertionError with its words when it cannot do it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        what = f"{self.host.name}, asked to {do}"
        try:
            self.process.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
            answer = json.loads(line_of(self.process.stdout, what, seconds=ANSWER_S))
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{error}\n{(self.folder / 'stderr').read_text()}") from None
        assert "failed" not in answer, f"{what}: {answer['failed']}"
        return answer["answer"]

    def wait(self, what: str, condition: Callable[[dict[str, Any]], Any], *, seconds: float = 20) -> Any:
        """Until `condition` is true of what the node sees: its `status`, `nodes`, `peers`, `refused`."""
        seen: dict[str, Any] = {}

        def holds() -> Any:
            seen.update(self.ask("look"))
            return condition(seen)

        try:
            return until(f"{what} at {self.host.name}", holds, seconds=seconds, every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(seen, indent=1)}") from None

    def wait_linked(self, *others: NetworkNode, seconds: float = 20) -> None:
        """Until it has links with all these."""
        self.wait(f"links with {_names(others)}", lambda seen: linked(seen, *others), seconds=seconds)

    def wait_online(self, *others: NetworkNode, seconds: float = 20) -> None:
        """Until it shows all these as online, by their names."""
        self.wait(f"{_names(others)} online", lambda seen: online(seen, *others), seconds=seconds)

    def wait_measured(self, other: NetworkNode, *, seconds: float = 20) -> None:
        """Have it watch `other`, until it knows how long a round trip takes."""
        self.ask("watch", nodes=[other.id])
        self.wait(
            f"a round trip to {other.name}",
            lambda seen: (node_of(seen, other) or {}).get("rtt_ms") is not None,
            seconds=seconds,
        )

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it as a person does: it says goodbye."""
        self.thaw()
        self.process.communicate(timeout=ANSWER_S)


def node_of(view: Mapping[str, Any], node: NetworkNode) -> dict[str, Any] | None:
    """What a view says of a node; None when it does not know it."""
    return next((dict(seen) for seen in view["nodes"] if seen["id"] == node.id), None)


def linked(view: Mapping[str, Any], *nodes: NetworkNode) -> bool:
    """Whether a view has links with all these nodes."""
    return {node.id for node in nodes} <= {peer["id"] for peer in view["peers"]}


def online(view: Mapping[str, Any], *nodes: NetworkNode) -> bool:
    """Whether a view shows all these nodes as online, by their names."""
    shown = {(seen["id"], seen["name"]) for seen in view["nodes"] if seen["status"] == "online"}
    return {(node.id, node.name) for node in nodes} <= shown


def _names(nodes: Iterable[NetworkNode]) -> str:
    return ", ".join(node.name for node in nodes)
