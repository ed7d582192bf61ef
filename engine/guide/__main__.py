"""Makes the guide again: corpus → train → export → evaluate, each step a process of its own.

    python -m infraxa.engine.guide                     on from the shipped weights: about 35 minutes
    python -m infraxa.engine.guide --from-scratch      new weights: about 75 minutes

Everything goes into the work folder. The shipped file is left alone: copy the new one over it when its
table is the better one.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.guide.corpus import WORK


def run(title: str, module: str, *args: object) -> None:
    print(f"\n{title}", flush=True)
    command = [sys.executable, "-P", "-m", f"infraxa.engine.guide.{module}", *map(str, args)]
    code = subprocess.run(command).returncode
    if code:
        raise SystemExit(f"{module} failed")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m infraxa.engine.guide",
        description="Makes the built-in guide model again, in the work folder.",
    )
    parser.add_argument("--work", type=Path, default=WORK, help="the folder for everything that is made")
    parser.add_argument("--from-scratch", action="store_true", help="forget the shipped weights")
    parser.add_argument("--minutes", type=float, help="how long to train (31, from scratch 70)")
    parser.add_argument("--seed", type=int, default=22)
    args = parser.parse_args()
    work = args.work.resolve()
    minutes = args.minutes or (70 if args.from_scratch else 31)
    made = work / GUIDE_PATH.name
    scratch = ["--from-scratch"] if args.from_scratch else []
    origin = "from scratch" if args.from_scratch else "on from the shipped weights"
    print(f"Making the built-in guide in {work}: it trains {origin} for {minutes:g} minutes on two cores.")
    run(
        "1/4 corpus: chats and evaluation sets from facts.toml", "corpus", "--work", work, "--seed", args.seed
    )
    run(
        "2/4 train",
        "train",
        "--work",
        work,
        "--minutes",
        minutes,
        "--seed",
        args.seed,
        *scratch,
    )
    run("3/4 export: GGUF, Q8_0", "export", "--work", work)
    run("4/4 evaluate: llama.cpp against the training side", "evaluate", "reference", "--work", work)
    run("The new guide", "evaluate", "check", made, "--work", work)
    print(f"\nMade {made}\nTo ship it, put its table into README.md and copy it to\n{GUIDE_PATH}")


if __name__ == "__main__":
    main()
