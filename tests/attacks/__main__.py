"""All attacks at full size, then the fuzz of every decoder: `python -m tests.attacks [pytest options]`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    folder = Path(__file__).parent
    environment = os.environ | {"ATTACKS": "full"}
    command = [sys.executable, "-m", "pytest", str(folder), *sys.argv[1:]]
    attacks = subprocess.run(command, env=environment, check=False).returncode
    fuzz = subprocess.run([sys.executable, "-m", "tests.attacks.fuzz"], env=environment, check=False)
    return attacks or fuzz.returncode


if __name__ == "__main__":
    sys.exit(main())
