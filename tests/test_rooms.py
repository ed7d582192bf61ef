"""The house rules that a compiler would not notice: who imports whom, what a wheel holds."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"app", "engine", "net", "store"}
SCREENS = {"textual", "rich", "typer", "click"}
# room -> what nothing in it may import
FORBIDDEN = {
    "engine": {"infraxa.app", "infraxa.net", "infraxa.store"} | SCREENS,
    "net": {"infraxa.app", "infraxa.engine", "infraxa.store", "llama_cpp", "sqlite3", "sqlite_utils"}
    | SCREENS,
    "store": {"infraxa.app", "infraxa.engine", "infraxa.net", "llama_cpp"} | SCREENS,
    "app": {"llama_cpp", "sqlite3"},
}


def modules(room: str) -> Iterator[Path]:
    yield from sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported name, and whether it is imported when the module is."""
    tree = ast.parse(path.read_text(), str(path))
    deferred = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(scope)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) not in deferred


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_room_imports_only_what_it_may(room: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        for name, _ in imports(path)
        if any(within(name, package) for package in FORBIDDEN[room])
    ]
    assert broken == []


def test_the_check_sees_a_forbidden_import(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("def f():\n    from infraxa.app import node\n")
    assert list(imports(module)) == [("infraxa.app.node", False)]


def test_only_one_module_touches_llama_cpp() -> None:
    users = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in modules(room)
        for name, _ in imports(path)
        if within(name, "llama_cpp") and "guide" not in path.parts
    }
    assert users == {"engine/bindings.py"}


def test_commands_do_not_import_the_app_when_they_are_imported() -> None:
    eager = [
        f"{path.name} imports {name}"
        for path in modules("app")
        if "tui" not in path.parts
        for name, at_import in imports(path)
        if at_import and (within(name, "infraxa.app.tui") or within(name, "textual"))
    ]
    assert eager == []


def test_every_package_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {"infraxa"} | {
        ".".join(("infraxa", *init.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert listed == found


def test_every_folder_of_modules_is_a_package() -> None:
    missing = {
        str(path.parent.relative_to(ROOT))
        for room in ROOMS
        for path in modules(room)
        if not (path.parent / "__init__.py").exists()
    }
    assert missing == set()


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in modules(room)
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
