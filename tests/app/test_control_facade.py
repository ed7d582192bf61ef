"""The node here and the node of another process can be asked for the same things in the same way."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.control import messages
from infraxa.app.control.client import AttachedNode
from infraxa.app.control.table import methods
from infraxa.app.facade import NodeFacade
from infraxa.app.node import Node
from infraxa.app.node_base import NodeBase
from infraxa.store.records import ChatOptions


def public(kind: type) -> dict[str, Any]:
    """The public members that the class itself defines."""
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


def functions(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: member for name, member in public(kind).items() if inspect.isfunction(member)}


def shape(function: Callable[..., Any]) -> inspect.Signature:
    """The signature without what it returns: Node may say so more exactly."""
    return inspect.signature(function).replace(return_annotation=inspect.Signature.empty)


def test_node_does_all_that_the_facade_promises_and_promises_all_that_it_does() -> None:
    promised, done = public(NodeFacade), public(NodeBase) | public(Node)
    assert set(done) == set(promised)
    for name, function in functions(NodeFacade).items():
        assert shape(done[name]) == shape(function), name
        assert inspect.iscoroutinefunction(done[name]) == inspect.iscoroutinefunction(function), name


def test_an_attached_node_does_all_that_the_facade_promises() -> None:
    promised, done = public(NodeFacade), public(AttachedNode)
    assert set(promised) <= set(done)
    for name, function in functions(NodeFacade).items():
        assert shape(done[name]) == shape(function), name
        assert inspect.iscoroutinefunction(done[name]) == inspect.iscoroutinefunction(function), name
    assert "list_chats" in methods() and methods()["ask"].kind == "stream"
    assert not {"start", "close", "subscribe", "partial"} & set(methods())


def test_whatever_the_facade_gains_a_front_end_gains() -> None:
    coroutines = {
        name for name, function in functions(NodeFacade).items() if inspect.iscoroutinefunction(function)
    }
    assert coroutines - {"start", "close"} == {name for name, it in methods().items() if it.kind == "call"}


@pytest.mark.parametrize("name", sorted(methods()))
def test_every_argument_and_every_result_can_travel(name: str) -> None:
    method = methods()[name]
    # msgspec looks at a type when a decoder of it is made.
    for kind in (method.arguments, method.result):
        with pytest.raises(messages.FrameError):
            messages.decode(messages.encode({"no": "such"}), kind)


def test_arguments_arrive_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def there_and_back(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        method = methods()[name]
        packed, _ = method.pack(args, kwargs)
        return method.unpack(messages.decode(messages.encode(packed), method.arguments), print_progress)

    def print_progress(done: int, total: int) -> None:
        raise AssertionError

    monkeypatch.chdir(tmp_path)
    # A relative path means the same file in a process that is elsewhere.
    assert there_and_back("add_model", Path("a.gguf"), force=True) == {
        "path": tmp_path / "a.gguf",
        "name": None,
        "on_progress": None,
        "force": True,
    }
    told = there_and_back("add_model", Path("/a"), "b", lambda done, total: None)
    assert told["on_progress"] is print_progress
    options = ChatOptions(seed=3, stop=("END",))
    assert there_and_back("ask", "hi", options) == {"text": "hi", "options": options}
    for value in (None, True, 3, 0.5, "dark"):
        assert there_and_back("change_setting", "theme", value)["value"] == value
    with pytest.raises(TypeError):
        there_and_back("get_chat")


def test_the_types_of_the_facade_can_be_read() -> None:
    assert typing.get_type_hints(NodeFacade.add_model)["path"] is Path
