"""The settings: which source goes before which, what is not allowed, how one is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from infraxa.app import config
from infraxa.app.config import BadSettings, Settings
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders.find(tmp_path / "node", {})


def write(folders: Folders, text: str) -> None:
    folders.make()
    folders.config_file.write_text(text)


def test_nothing_set_means_the_defaults_and_makes_no_folder(folders: Folders) -> None:
    assert config.load(folders, {}, {}) == Settings()
    assert not folders.data.exists()


def test_flags_go_before_variables_before_the_file_before_defaults(folders: Folders) -> None:
    write(folders, "slots = 2\nthreads = 2\ntheme = 'infraxa-light'\n")
    environ = {"INFRAXA_SLOTS": "3", "INFRAXA_THREADS": "3"}
    layers = config.read(folders, {"slots": "4", "theme": None}, environ)
    assert (layers.settings.slots, layers.settings.threads, layers.settings.theme) == (4, 3, "infraxa-light")
    sources = {name: source for name, source in layers.sources.items() if source != "default"}
    assert sources == {"slots": "flag", "threads": "environment", "theme": "config.toml"}
    assert layers.settings.model == "guide"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("threads", "auto", None),
        ("threads", "", None),
        ("threads", " 4 ", 4),
        ("temperature", "0.5", 0.5),
        ("temperature", "1", 1.0),
        ("mouse", "off", False),
        ("mouse", "Yes", True),
        ("reduced_motion", "1", True),
        ("send_key", "ctrl+enter", "ctrl+enter"),
        ("driver", "auto", "auto"),
        ("driver", "7k2m", "7k2m"),
        ("driver", "Maple tree·7K2M9X4Q", "Maple tree·7K2M9X4Q"),
        ("driver", "0" * 52, "0" * 52),
    ],
)
def test_texts_are_understood(folders: Folders, name: str, text: str, value: object) -> None:
    settings = config.load(folders, {}, {config.variable(name): text})
    assert getattr(settings, name) == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("threads = 0", 'threads is 0; it must be a whole number from 1 to 1024, or "auto"'),
        ("threads = true", "threads is True; it must be a whole number"),
        ("threads = 2.5", "threads is 2.5; it must be a whole number"),
        ("temperature = nan", "temperature is nan; it must be a number from 0 to 5"),
        ('temperature = "warm"', "temperature is 'warm'; it must be a number"),
        ("temperature = [1]", "temperature is [1]; it must be a number"),
        ('send_key = "tab"', 'send_key is \'tab\'; it must be "enter" or "ctrl+enter"'),
        ("mouse = 3", "mouse is 3; it must be true or false"),
        ('slots = "auto"', "slots is 'auto'; it must be a whole number from 1 to 64."),
        ('theme = ""', "theme is ''; it must be a line of 1 to 100 characters"),
        ('driver = "xx"', 'driver is \'xx\'; it must be "local" or "auto", or the id of a node'),
        ('driver = "maple·"', "of which the first 4 characters are enough."),
        (r'model = "a\u001bb"', "model is 'a\\x1bb'; it must be a line of"),
    ],
)
def test_a_bad_value_names_its_place_and_what_is_allowed(folders: Folders, line: str, words: str) -> None:
    write(folders, line)
    with pytest.raises(BadSettings) as raised:
        config.load(folders, {}, {})
    assert len(raised.value.problems) == 1
    assert raised.value.message.startswith(f"{folders.config_file}: ")
    assert words in raised.value.message


def test_all_bad_values_are_told_at_once(folders: Folders) -> None:
    write(folders, "threads = 0\nmouse = 3\n")
    with pytest.raises(BadSettings) as raised:
        config.load(folders, {"slots": "x"}, {"INFRAXA_CONTEXT": "-1"})
    assert [problem.split(":")[0] for problem in raised.value.problems] == [
        *[str(folders.config_file)] * 2,
        "INFRAXA_CONTEXT",
        "--slots",
    ]


def test_a_name_that_is_no_setting_is_a_warning(folders: Folders) -> None:
    write(folders, "thread = 2\n[table]\nx = 1\n")
    warnings: list[str] = []
    environ = {"INFRAXA_THEEM": "x", "INFRAXA_DATA_DIR": "x", "OTHER": "x"}
    assert config.load(folders, {}, environ, warnings.append) == Settings()
    assert [word in line for word, line in zip(("thread", "table", "INFRAXA_THEEM"), warnings, strict=True)]
    assert all("\n" not in line for line in warnings)


@pytest.mark.parametrize("content", [b"threads = ", b"\xff\xfe", b"threads = 1\nthreads = 2\n"])
def test_a_file_that_is_no_toml_is_one_line(folders: Folders, content: bytes) -> None:
    folders.make()
    folders.config_file.write_bytes(content)
    with pytest.raises(BadSettings, match="is not valid TOML"):
        config.load(folders, {}, {})
    with pytest.raises(BadSettings, match="is not valid TOML"):
        config.set(folders, "threads", "2")
    assert folders.config_file.read_bytes() == content


def test_setting_one_keeps_the_rest_of_the_file(folders: Folders) -> None:
    write(folders, "# mine\nthreads = 2  # two\n\nunknown = 1\n\n[table]\nx = 1\n")
    assert config.set(folders, "threads", "4") == 4
    assert config.set(folders, "theme", "infraxa-light") == "infraxa-light"
    text = folders.config_file.read_text()
    assert "# mine\nthreads = 4  # two\n" in text and "unknown = 1" in text and "[table]\nx = 1" in text
    settings = config.load(folders, {}, {})
    assert (settings.threads, settings.theme) == (4, "infraxa-light")


@pytest.mark.parametrize("name", config.names())
def test_every_setting_can_be_written_and_read_back(folders: Folders, name: str) -> None:
    value = getattr(Settings(), name)
    assert config.set(folders, name, config.text_of(value)) == value
    layers = config.read(folders, {}, {})
    assert layers.settings == Settings()
    assert layers.sources[name] == "config.toml"
    assert config.help_text(name) and config.allowed(name)


def test_a_bad_value_or_name_writes_nothing(folders: Folders) -> None:
    with pytest.raises(NodeError, match="must be true or false") as raised:
        config.set(folders, "mouse", "perhaps")
    assert raised.value.code == "bad_setting"
    with pytest.raises(NodeError, match="no setting 'mice'") as raised:
        config.set(folders, "mice", "1")
    assert "mouse" in raised.value.remedy
    assert not folders.config_file.exists()


def test_the_file_is_for_its_owner_and_a_link_stays_one(folders: Folders, tmp_path: Path) -> None:
    config.set(folders, "threads", "2")
    assert stat.S_IMODE(folders.config_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folders.config.stat().st_mode) == 0o700
    kept = tmp_path / "dotfiles.toml"
    folders.config_file.rename(kept)
    folders.config_file.symlink_to(kept)
    config.set(folders, "threads", "3")
    assert folders.config_file.is_symlink()
    assert kept.read_text() == "threads = 3\n"
    assert [name for name in os.listdir(folders.config) if name.startswith(".")] == []


def test_folders_are_found(tmp_path: Path) -> None:
    one = Folders.find(tmp_path / "flag", {"INFRAXA_DATA_DIR": str(tmp_path / "variable")})
    assert {one.data, one.config, one.log.parent} == {tmp_path / "flag"}
    assert Folders.find(None, {"INFRAXA_DATA_DIR": str(tmp_path / "variable")}).data == tmp_path / "variable"
    usual = Folders.find(None, {"INFRAXA_DATA_DIR": ""})
    assert all("infraxa" in str(folder) for folder in (usual.data, usual.config, usual.log))
    assert usual.data != usual.config


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeError, match="cannot be made: Not a directory") as raised:
        Folders.find(tmp_path / "file" / "data", {}).make()
    assert "--data-dir" in raised.value.remedy
