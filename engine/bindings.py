"""llama.cpp's C functions. Used by the modules that give them types, and nowhere else."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def load() -> Any:
    """The low-level module without the rest of its package, which imports numpy and more: 0.1 s and 20 MB of
    every worker. The package itself can still be imported afterwards."""
    name = "llama_cpp"
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is not None:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            from llama_cpp import llama_cpp as bindings

            return bindings
        except ImportError:
            # Another layout, or a broken one: the package itself says best what is wrong.
            sys.modules.pop("llama_cpp.llama_cpp", None)
        finally:
            del sys.modules[name]
    from llama_cpp import llama_cpp as whole

    return whole


# The bindings' annotations do not describe what ctypes takes and gives, so they are used untyped.
api: Any = load()
