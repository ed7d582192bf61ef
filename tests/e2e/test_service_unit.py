"""The unit file for systemd: it says what the command needs, in words that systemd knows."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

from infraxa.app.commands.serve import DRAIN

UNIT = Path(__file__).parents[2] / "docs" / "infraxa.service"


def test_the_unit_lets_answers_end_and_gives_up_on_what_fails_for_good(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    assert int(unit["Service"]["TimeoutStopSec"]) > DRAIN
    limits = unit["Unit"]
    tries = int(limits["StartLimitBurst"]) * int(unit["Service"]["RestartSec"])
    assert tries < int(limits["StartLimitIntervalSec"]), "it would be started again for ever"
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
    if shutil.which("systemd-analyze"):
        command = tmp_path / ".local" / "bin" / "infraxa"
        command.parent.mkdir(parents=True)
        command.touch(0o755)
        checked = subprocess.run(
            ["systemd-analyze", "--user", "--man=no", "verify", str(UNIT)],
            env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        # It also speaks of other units of this machine.
        assert not [line for line in checked.stderr.splitlines() if "infraxa" in line]
