"""What the guide knows (facts.toml) and what it must refuse (unknown.toml), as typed values."""

import tomllib
from pathlib import Path

import msgspec

HERE = Path(__file__).parent


class Product(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    fallback: str
    """Said to a question that the guide cannot answer."""
    fallback_task: str
    """Said to a task that only a real model can do."""


class Fact(msgspec.Struct, forbid_unknown_fields=True):
    """Questions that share an answer. The pattern language is described in facts.toml."""

    id: str = "fact"
    asks: list[str] = []
    always: list[str] = []
    terms: list[str] = []
    answer: str = ""
    answers: list[str] = []
    key: list[str] = []
    more: str | None = None

    @property
    def said(self) -> list[str]:
        """The answers, one of which is given."""
        return self.answers or [self.answer]

    @property
    def marks(self) -> list[str]:
        """What a right answer contains: all of these, and of "a|b" one."""
        if self.answers:
            return ["|".join(a.split("\n")[0] for a in self.answers)]
        return self.key or self.said


class Facts(msgspec.Struct, forbid_unknown_fields=True):
    product: Product
    intent: list[Fact]
    fact: list[Fact]
    capitals: dict[str, str]
    colours: dict[str, str]
    mixes: dict[str, str]
    sounds: dict[str, str]
    young: dict[str, str]
    legs: dict[str, str]
    units: dict[str, str]
    haiku: dict[str, str]


class Unknown(msgspec.Struct, forbid_unknown_fields=True):
    """Things that stand for all the guide has never heard of; "!" marks what only the evaluation uses."""

    frames: list[str]
    tasks: list[str]
    topics: list[str]
    capitals: list[str]
    gibberish: list[str]
    names: list[str]
    colours: list[str]
    cities: list[str]
    systems: list[str]


def trained(items: list[str]) -> list[str]:
    return [x for x in items if not x.startswith("!")]


def withheld(items: list[str]) -> list[str]:
    return [x[1:] for x in items if x.startswith("!")]


FACTS = msgspec.convert(tomllib.loads((HERE / "facts.toml").read_text("utf-8")), Facts)
UNKNOWN = msgspec.convert(tomllib.loads((HERE / "unknown.toml").read_text("utf-8")), Unknown)
