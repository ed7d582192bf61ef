"""Runs every benchmark, or those that are named: `python -m tests.bench [name ...]`. Each prints ratios
measured within one run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

BY_NAME_ONLY = {"llama_server"}
"""It builds llama.cpp's server first."""


def main(names: list[str]) -> None:
    folder = Path(__file__).parent
    known = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    for name in names or sorted(set(known) - BY_NAME_ONLY):
        if name not in known:
            sys.exit(f"no benchmark {name!r}; there are: {', '.join(known)}")
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
