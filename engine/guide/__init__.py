"""The built-in guide: a tiny model that ships with infraxa, and everything that makes it.

Using it takes only the file at `GUIDE_PATH`. Making it again is `python -m infraxa.engine.guide`;
README.md is its model card.
"""

from pathlib import Path

GUIDE_PATH: Path = Path(__file__).with_name("infraxa-guide-q8_0.gguf")
