"""`infraxa serve` when nobody reads its output any more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.app.networked import network_name
from tests.e2e.conftest import INFRAXA


@pytest.mark.parametrize("arguments", [(), ("--json-events",)])
def test_it_ends_when_its_reader_has_gone(
    environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "data"
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen(
            [*INFRAXA, "--data-dir", str(folder), "serve", "--listen-hosts", "127.0.0.1",
             "--listen-port", "0", "--no-mdns", "--network", network_name(folder), *arguments],
            env={**environment, "INFRAXA_ONLINE": "true"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            process.stdout.close()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait(10)
        errors.seek(0)
        assert "Traceback" not in errors.read()
