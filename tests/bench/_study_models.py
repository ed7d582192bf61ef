"""The model files of the study of audits: some are what is claimed, others what a cheat runs in their place.
All are made by llama.cpp itself from one file in 16-bit numbers, or from the guide as it is shipped."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final, NamedTuple

from infraxa.engine.bindings import api
from infraxa.engine.guide import GUIDE_PATH
from tests.random_model import write_random_model

FILE_TYPES: Final = {
    "F16": api.LLAMA_FTYPE_MOSTLY_F16,
    "Q8_0": api.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": api.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q5_K_M": api.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q4_K_M": api.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q4_0": api.LLAMA_FTYPE_MOSTLY_Q4_0,
}


class Shape(NamedTuple):
    name: str
    layers: int = 0
    """0: the guide."""
    dim: int = 0
    ffn: int = 0
    n_vocab: int = 0


GUIDE: Final = Shape("guide")
SMALL: Final = Shape("random 22M", 8, 256, 768, 32000)
MIDDLE: Final = Shape("random 0.6B", 28, 1024, 3072, 151936)


class Models:
    """The files of one shape, made in `folder` when they are first asked for."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape = shape
        self._folder = folder
        self._stem = shape.name.replace(" ", "-")

    def of(self, kind: str) -> Path:
        """A file type, `other` (another model of that shape) or `cut` (without one of its last layers), both
        in Q8_0."""
        if kind == "other":
            return self._quantized(self._random(2), "Q8_0", "other")
        if kind == "cut":
            layers = self.shape.layers or 8
            return self._quantized(self._source(), "Q8_0", "cut", drop=layers - 2)
        if not self.shape.layers and kind == "Q8_0":
            return GUIDE_PATH
        source = self._source()
        return source if self.shape.layers and kind == "F16" else self._quantized(source, kind, kind)

    def dequantised(self, kind: str) -> Path:
        """The same numbers as of that file type, in F16."""
        return self._quantized(self.of(kind), "F16", f"{kind}-in-F16")

    def _source(self) -> Path:
        return self._random(1) if self.shape.layers else GUIDE_PATH

    def _random(self, seed: int) -> Path:
        """One with the guide's shape in its place, if it is that."""
        path = self._folder / f"{self._stem}-{seed}.gguf"
        if not path.exists():
            shape = self.shape if self.shape.layers else Shape("", 8, 256, 768, 0)
            write_random_model(
                path,
                GUIDE_PATH,
                layers=shape.layers,
                dim=shape.dim,
                ffn=shape.ffn,
                n_vocab=shape.n_vocab,
                seed=seed,
                heavy=True,
            )
        return path

    def _quantized(self, source: Path, kind: str, name: str, drop: int | None = None) -> Path:
        path = self._folder / f"{self._stem}-{name}.gguf"
        if not path.exists():
            quantize(source, path, kind, drop)
        return path


def quantize(source: Path, target: Path, kind: str, drop: int | None = None) -> None:
    """As `llama-quantize` does; `drop`: without that layer."""
    params = api.llama_model_quantize_default_params()
    params.nthread = 1
    params.ftype = FILE_TYPES[kind]
    params.allow_requantize = True
    layers = (ctypes.c_int32 * 2)(drop if drop is not None else -1, -1)
    if drop is not None:
        params.prune_layers = ctypes.cast(layers, ctypes.POINTER(ctypes.c_int32))
    code = api.llama_model_quantize(os.fsencode(source), os.fsencode(target), params)
    if code:
        raise RuntimeError(f"{source.name} could not be written as {kind} (code {code})")
