"""What the built-in guide says of the program is so: its commands, options, keys, settings and numbers."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from infraxa.app.commands import root
from infraxa.app.config import Settings
from infraxa.app.tui.actions import ACTIONS, BY_SLASH, key_label
from infraxa.engine.guide.facts import FACTS
from infraxa.engine.guide.sums import TOO_HARD
from infraxa.engine.guide.tables import entries
from infraxa.net.deals import QUOTE_MS
from infraxa.net.reputation import NEW_RECEIPTS

ARGUMENT = re.compile(r"[A-Z]+|FILE\.gguf|your question")


def everything_said() -> list[str]:
    said = [FACTS.product.fallback, FACTS.product.fallback_task, TOO_HARD]
    for fact in FACTS.intent + FACTS.fact:
        said += [*fact.said, *([fact.more] if fact.more else [])]
    return said + [entry.answer for entry in entries()]


@pytest.fixture(scope="module")
def program() -> Any:
    """The command `infraxa` with all that belong to it."""
    return typer.main.get_command(root.app)


def options_of(command: Any) -> set[str]:
    return {"--help"}.union(*([*p.opts, *p.secondary_opts] for p in command.params))


def all_options(command: Any) -> set[str]:
    below = getattr(command, "commands", {}).values()
    return options_of(command).union(*(all_options(one) for one in below))


def check_command(program: Any, text: str) -> None:
    name, *words = shlex.split(text)
    assert name == "infraxa", text
    command = program
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    options = {word for word in words if word.startswith("--")}
    assert options <= options_of(command), text
    arguments = [word for word in words if word not in options]
    assert all(ARGUMENT.fullmatch(argument) for argument in arguments), text
    assert len(arguments) <= sum(p.param_type_name == "argument" for p in command.params), text


def test_only_commands_that_exist_are_named(program: Any) -> None:
    commands = [c for text in everything_said() for c in re.findall(r"`([^`]*)`", text)]
    terms = [t for fact in FACTS.intent for t in fact.terms if t.startswith("infraxa ")]
    assert len(commands) > 40
    for command in {*commands, *terms} - {"infraxa guide"}:
        check_command(program, command)


def test_only_options_that_exist_are_named(program: Any) -> None:
    named = {option for text in everything_said() for option in re.findall(r"--[a-z-]+", text)}
    assert len(named) > 5
    assert named <= all_options(program)


def test_a_command_that_does_not_exist_is_noticed(program: Any) -> None:
    for text in ("infraxa mine", "infraxa models sell NAME", "infraxa ask --nonsense", "infraxa demo FILE"):
        with pytest.raises(AssertionError):
            check_command(program, text)


def test_commands_stand_in_backticks(program: Any) -> None:
    verbs = "|".join(program.commands)
    for text in everything_said():
        assert not re.search(rf"infraxa ({verbs})\b", re.sub(r"`[^`]*`", "", text)), text
        assert text.count("`") % 2 == 0


def test_only_keys_that_exist_are_named() -> None:
    keys = {key_label(action.key).lower() for action in ACTIONS if action.key}
    named = {k for text in everything_said() for k in re.findall(r"\b(?:F\d+|(?:ctrl|alt)\+\w+)", text)}
    assert len(named) > 5
    assert {key.lower() for key in named} <= keys
    slashes = {word for text in everything_said() for word in re.findall(r"(?<= /)[a-z]+", text)}
    assert slashes and slashes <= set(BY_SLASH)


def test_only_settings_that_exist_are_named() -> None:
    named = {
        s for text in everything_said() for s in re.findall(r"setting ([a-z_]+)|\b([a-z]+_[a-z]+)\b", text)
    }
    assert len(named) > 3
    assert {a or b for a, b in named} <= set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("fact_id", "words"),
    [
        ("quote", f"{QUOTE_MS // 1000} seconds"),
        ("new", f"{NEW_RECEIPTS} answers"),
        ("free_limit", f"{Settings().free_daily} short requests a day"),
        ("reach", f"TCP port {Settings().listen_port}"),
        ("gateway", f"port {Settings().gateway_port}"),
        ("base_price", f"with {Settings().base_price}"),
    ],
)
def test_numbers_are_those_of_the_program(fact_id: str, words: str) -> None:
    (fact,) = (fact for fact in FACTS.intent if fact.id == fact_id)
    assert words in f"{fact.answer} {fact.more}"
