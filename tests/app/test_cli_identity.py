"""`infraxa identity`: a key is shown without its secret, copied out, brought in, and never lost."""

from __future__ import annotations

import json
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from infraxa.net.identity import Identity, base32, id_text, short_id
from infraxa.net.keyfile import IDENTITY_NAME, RECOVERY_NAME, from_text, load_or_make, make, read, write
from infraxa.net.names import default_name
from infraxa.store.lock import FolderLock
from tests.app.command_line import COMMAND, environment, infraxa, one_line
from tests.app.test_cli_imports import HEAVY, modules
from tests.e2e.terminal import Terminal

SECRET = {"INFRAXA_PASSPHRASE": "grün 1"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def me(data: Path) -> Identity:
    data.mkdir(mode=0o700)
    return load_or_make(data)


def secret_of(data: Path) -> str:
    return base32(read(data / IDENTITY_NAME).secret)


def test_a_node_without_a_key_says_so_and_writes_nothing(data: Path) -> None:
    for command in ("show", "export"):
        one_line(infraxa("identity", command, data=data), "no identity yet", "infraxa identity import")
    assert not data.exists()


def test_what_is_shown(data: Path, me: Identity) -> None:
    ran = infraxa("identity", "show", data=data)
    name = default_name(me.id)
    assert (ran.code, ran.err) == (0, "")
    assert f"shown as\t{name}·{short_id(me.id)}\n" in ran.out and f"id\t{id_text(me.id)}\n" in ran.out
    assert f"{data / RECOVERY_NAME} (move it" in ran.out
    assert secret_of(data)[:20] not in ran.out

    (data / RECOVERY_NAME).unlink()
    shown = json.loads(infraxa("identity", "show", "--json", data=data, env={"INFRAXA_NAME": "Big Oak"}).out)
    assert shown == {
        "display": f"Big Oak·{short_id(me.id)}",
        "name": "Big Oak",
        "id": id_text(me.id),
        "file": str(data / IDENTITY_NAME),
        "passphrase": False,
        "recovery_file": None,
    }


def test_a_key_goes_to_another_machine_and_is_the_same_node(data: Path, me: Identity) -> None:
    file = data.parent / "node.key"
    ran = infraxa("identity", "export", str(file), data=data)
    assert ran.code == 0 and ran.err == "" and secret_of(data)[:20] not in ran.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    other = data.parent / "other"
    ran = infraxa("identity", "import", str(file), data=other)
    assert ran.code == 0 and ran.err == "", ran
    assert f"This node is {default_name(me.id)}·{short_id(me.id)}." in ran.out and "one machine" in ran.out
    assert stat.S_IMODE((other / IDENTITY_NAME).stat().st_mode) == 0o600
    again = load_or_make(other)
    assert (again.id, again.recovery) == (me.id, me.recovery)

    piped = infraxa("identity", "export", data=data)
    assert (piped.code, piped.err) == (0, "")
    third = data.parent / "third"
    assert infraxa("identity", "import", "-", data=third, stdin=piped.out).code == 0
    assert load_or_make(third).id == me.id


def test_export_does_not_overwrite(data: Path, me: Identity) -> None:
    file = data.parent / "thesis.txt"
    file.write_text("two years of work")
    one_line(infraxa("identity", "export", "thesis.txt", data=data), "is there already")
    assert file.read_text() == "two years of work"
    one_line(infraxa("identity", "export", "no/such/folder.key", data=data), "No such file")
    assert infraxa("identity", "export", "~/new.key", data=data).code == 0
    assert read(data.parent / "new.key").id == me.id


def test_a_passphrase_is_put_on_and_taken_off(data: Path, me: Identity) -> None:
    sealed = infraxa("identity", "export", "--passphrase", data=data, env=SECRET).out
    assert from_text(sealed, "it").locked and secret_of(data)[:20] not in sealed
    one_line(infraxa("identity", "import", "-", data=data, stdin=sealed), "passphrase", "INFRAXA_PASSPHRASE")
    wrong = infraxa("identity", "import", "-", data=data, stdin=sealed, env={"INFRAXA_PASSPHRASE": "gruen 1"})
    one_line(wrong, "passphrase is wrong")
    assert not read(data / IDENTITY_NAME).locked

    ran = infraxa("identity", "import", "-", "--json", data=data, stdin=sealed, env=SECRET)
    assert ran.code == 0 and ran.err == "", ran
    assert json.loads(ran.out)["passphrase"] is True and json.loads(ran.out)["kept"] == []
    # No copy without the passphrase stays behind.
    assert {path.name for path in data.glob("*.key")} == {IDENTITY_NAME, RECOVERY_NAME}
    assert load_or_make(data, SECRET["INFRAXA_PASSPHRASE"]).id == me.id
    assert "with a passphrase" in infraxa("identity", "show", data=data).out
    assert infraxa("identity", "export", data=data).out == (data / IDENTITY_NAME).read_text()
    bare = infraxa("identity", "export", "--no-passphrase", data=data, env=SECRET).out
    assert not from_text(bare, "it").locked


def test_an_empty_passphrase_is_none(data: Path, me: Identity) -> None:
    ran = infraxa("identity", "export", "--passphrase", data=data, env={"INFRAXA_PASSPHRASE": ""})
    one_line(ran, "empty passphrase")
    assert load_or_make(data).id == me.id


def test_another_identity_takes_the_place_only_by_force_and_nothing_is_lost(data: Path, me: Identity) -> None:
    node, _ = make()
    write(data.parent / "new.key", node)
    before, recovery = read(data / IDENTITY_NAME), read(data / RECOVERY_NAME)
    one_line(infraxa("identity", "import", "new.key", data=data), short_id(me.id), "--force")
    assert read(data / IDENTITY_NAME) == before

    ran = infraxa("identity", "import", "new.key", "--force", "--json", data=data)
    assert ran.code == 0, ran
    kept = [
        data / f"identity-{short_id(me.id)}.key",
        data / f"recovery-{short_id(recovery.id)}.key",
    ]
    assert json.loads(ran.out)["kept"] == [str(path) for path in kept]
    assert [read(path) for path in kept] == [before, recovery]
    assert read(data / IDENTITY_NAME) == node
    assert not (data / RECOVERY_NAME).exists()  # it is not the recovery key of this node

    back = infraxa("identity", "import", str(kept[0]), "--force", data=data)
    assert f"kept in {data / f'identity-{short_id(node.id)}.key'}" in back.out
    assert load_or_make(data).id == me.id


def test_another_recovery_key_does_not_slip_in_with_the_same_node(data: Path, me: Identity) -> None:
    before = read(data / IDENTITY_NAME)
    changed = replace(before, secret=before.secret[:32] + bytes(32))
    write(data.parent / "changed.key", changed)
    one_line(infraxa("identity", "import", "changed.key", data=data), "--force")
    assert read(data / IDENTITY_NAME) == before
    assert infraxa("identity", "import", "changed.key", "--force", data=data).code == 0
    assert read(data / f"identity-{short_id(me.id)}.key") == before


def test_a_damaged_key_is_said_and_kept(data: Path, me: Identity) -> None:
    infraxa("identity", "export", "good.key", data=data)
    damaged = (data / IDENTITY_NAME).read_text()[:200]
    (data / IDENTITY_NAME).write_text(damaged)
    for arguments in (("show",), ("export",)):
        one_line(infraxa("identity", *arguments, data=data), str(data / IDENTITY_NAME), "is damaged")
    one_line(infraxa("identity", "import", "good.key", data=data), "cannot be read", "--force")
    assert (data / IDENTITY_NAME).read_text() == damaged
    assert infraxa("identity", "import", "good.key", "--force", data=data).code == 0
    assert load_or_make(data).id == me.id
    assert (data / "identity-damaged.key").read_text() == damaged


def test_not_while_a_node_runs_on_the_folder(data: Path, me: Identity) -> None:
    infraxa("identity", "export", "me.key", data=data)
    write(data.parent / "new.key", make()[0])
    with FolderLock.acquire(data):
        for file in ("new.key", "me.key"):
            ran = infraxa("identity", "import", file, "--force", data=data)
            one_line(ran, "Another infraxa", "quit it first")
        assert infraxa("identity", "show", data=data).code == 0
    assert load_or_make(data).id == me.id
    assert infraxa("identity", "import", "me.key", data=data).code == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged"),
        ("AGE-SECRET-KEY-1QQQ\n", "not a key of infraxa"),
        ("x" * 100_000, "not a key of infraxa"),
        ("\x1b[2J\x00", "not a key of infraxa"),
        ("infraxa-key 9\n", "newer infraxa"),
    ],
)
def test_what_is_no_key_is_one_line_and_changes_nothing(data: Path, content: str, words: str) -> None:
    (data.parent / "file").write_text(content)
    one_line(infraxa("identity", "import", "file", data=data), words)
    one_line(infraxa("identity", "import", "-", data=data, stdin=content), words)
    assert not data.exists()


def test_what_else_cannot_be_brought_in(data: Path, me: Identity) -> None:
    one_line(infraxa("identity", "import", "nothing.key", data=data), "nothing.key", "No such file")
    one_line(infraxa("identity", "import", ".", data=data), "cannot be read")
    one_line(infraxa("identity", "import", str(data / RECOVERY_NAME), data=data), "recovery key")
    assert infraxa("identity", "import", data=data).code == 2
    assert load_or_make(data).id == me.id


def test_a_key_that_others_can_read_is_said(data: Path, me: Identity) -> None:
    (data / IDENTITY_NAME).chmod(0o644)
    ran = infraxa("identity", "show", data=data)
    assert ran.code == 0 and short_id(me.id) in ran.out
    assert ran.err.count("\n") == 1 and "chmod 600" in ran.err


def test_on_a_terminal_the_passphrase_is_typed_unseen(data: Path, me: Identity) -> None:
    command = [*COMMAND, "identity"]
    with closing(
        Terminal([*command, "export", "a.key", "--passphrase"], environment(data), cwd=str(data.parent))
    ) as terminal:
        terminal.wait_for("New passphrase:")
        terminal.send("tree tree\r")
        terminal.wait_for("The same again:")
        terminal.send("tree tree\r")
        assert terminal.wait_exit(seconds=60) == 0
        assert "tree tree" not in terminal.text and "Whoever has it is this node" in terminal.text
    assert read(data.parent / "a.key").locked
    with closing(
        Terminal([*command, "export", "b.key", "--passphrase"], environment(data), cwd=str(data.parent))
    ) as terminal:
        terminal.wait_for("New passphrase:")
        terminal.send("tree\r")
        terminal.wait_for("The same again:")
        terminal.send("three\r")
        assert terminal.wait_exit(seconds=60) == 1
        assert "not the same" in terminal.text
    assert not (data.parent / "b.key").exists()
    with closing(
        Terminal([*command, "import", "a.key"], environment(data), cwd=str(data.parent))
    ) as terminal:
        terminal.wait_for(f"Passphrase of {short_id(me.id)}:")
        terminal.press("ctrl+c")
        assert terminal.wait_exit(seconds=60) == 130
    assert not read(data / IDENTITY_NAME).locked


def test_a_secret_on_the_screen_comes_with_a_warning(data: Path, me: Identity) -> None:
    with closing(Terminal([*COMMAND, "identity", "export"], environment(data), size=(160, 30))) as terminal:
        assert terminal.wait_exit(seconds=60) == 0
        assert "Whoever sees it can be this node" in terminal.text
        assert f"id {id_text(me.id)}" in terminal.text


def test_it_loads_only_what_it_uses(data: Path, me: Identity) -> None:
    assert modules(data, "identity", "show") & (HEAVY | {"asyncio", "sqlite3"}) == set()
