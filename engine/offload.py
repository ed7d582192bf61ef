"""How many layers of a model go onto the GPUs: as many as their memory holds. Arithmetic on given numbers,
and what asks llama.cpp and the file for them.

llama.cpp puts the last layers there, the output (which it counts as a layer) first of all. Modelled on its
common/fit.cpp, which loads a model several times to measure what is estimated here.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from infraxa.engine.bindings import api
from infraxa.engine.ggml_types import TENSOR_TYPES
from infraxa.engine.gguf_header import Tensor, read_header
from infraxa.engine.models import PROCESS_BYTES, ModelInfo, cache_bytes, memory_estimate
from infraxa.engine.sizing import CTX_COMFORT
from infraxa.engine.types import LoadOptions

MARGIN: Final = 1 << 30
"""Bytes of each GPU that stay free for other programs; llama.cpp leaves as much."""
_GPU, _INTEGRATED = 1, 2
_CLASSES: Final = {"rocm": "cuda", "musa": "cuda", "mtl": "metal"}
"""Other names of the same code."""
_LAYER = re.compile(r"^blk\.(\d+)\.")


class Weights(NamedTuple):
    """Bytes of a model's tensors."""

    layers: tuple[int, ...]
    """In order."""
    output: int
    """What turns the last layer's numbers into those of tokens."""


class Fit(NamedTuple):
    """What goes onto the GPUs."""

    layers: int
    """As llama.cpp counts them: all of a model with n layers are n + 1."""
    left: int
    """Bytes that are free there when the weights are in place."""


def fit_layers(free: int, weights: Weights, cache_per_layer: int, scratch: int) -> Fit:
    """As many of the last layers as fit into `free` bytes, each with its part of the caches.

    `scratch`: bytes of the buffers of one step, which are there as soon as one layer is.
    """
    left, layers, caches = free - scratch, 0, 0
    for size in (weights.output, *reversed(weights.layers)):
        cache = cache_per_layer if layers else 0  # the output has none
        if size + caches + cache > left:
            break
        left -= size
        caches += cache
        layers += 1
    return Fit(layers, left) if layers else Fit(0, 0)


def layers_for(info: ModelInfo, options: LoadOptions, free: int) -> Fit:
    """For this model, with contexts that nobody has to complain of. Raises EngineError as `read_header`."""
    trained = info.context_length or CTX_COMFORT
    tokens = min(options.n_ctx or CTX_COMFORT, trained) * options.slots
    per_layer = cache_bytes(info, options.kv_type) * tokens // max(1, info.layers)
    scratch = memory_estimate(info, 0, 0) - info.size - PROCESS_BYTES
    tensors = (tensor for file in info.files for tensor in read_header(file).tensors)
    return fit_layers(free, weights_of(tensors, info.layers), per_layer, scratch)


def weights_of(tensors: Iterable[Tensor], layers: int) -> Weights:
    """Bytes by the tensor table; what belongs to no layer counts for the output, except the embeddings of the
    tokens, which stay in main memory unless they are the output too."""
    sizes, output, embeddings, has_output = [0] * layers, 0, 0, False
    for tensor in tensors:
        size = _bytes(tensor)
        layer = _LAYER.match(tensor.name)
        if layer is not None and int(layer[1]) < layers:
            sizes[int(layer[1])] += size
        elif tensor.name.startswith("token_embd."):
            embeddings += size
        else:
            output += size
            has_output = has_output or tensor.name == "output.weight"
    return Weights(tuple(sizes), output if has_output else output + embeddings)


def _bytes(tensor: Tensor) -> int:
    kind = TENSOR_TYPES.get(tensor.type_id)
    numbers = math.prod(tensor.shape)
    # A format that is newer than the table is taken for one of 16 bits.
    return numbers * 2 if kind is None else numbers // kind.block * kind.size


def usable(devices: Sequence[tuple[int, int]]) -> int:
    """Bytes of GPU memory for a model: `devices` are kinds as ggml numbers them, and free bytes. Integrated
    GPUs count when there are no others, as llama.cpp chooses them."""
    for kind in (_GPU, _INTEGRATED):
        if found := [free for its, free in devices if its == kind]:
            return sum(max(0, free - MARGIN) for free in found)
    return 0


def free_gpu_memory() -> int | None:
    """Bytes for a model on all GPUs; None: this build of llama.cpp does not say."""
    devices = _devices()
    return None if devices is None else usable([(kind, free) for kind, free, _ in devices])


def backend_of(gpu_layers: int) -> str:
    """What computes a model of which so many layers are on GPUs: `cpu`, `cuda`, `metal`, `vulkan`, or as
    llama.cpp calls it. Models give slightly different numbers on each."""
    if not gpu_layers:
        return "cpu"
    names = [name for kind, _, name in _devices() or () if kind in (_GPU, _INTEGRATED)]
    name = names[0].lower() if names else "gpu"
    return _CLASSES.get(name, name)


def _devices() -> list[tuple[int, int, str]] | None:
    """The kind of each as ggml numbers them, its free bytes, and what its backend is called."""
    try:
        # The module has no such functions; the library that it opened finds them in those it depends on.
        library = api._lib
        count, get = library.ggml_backend_dev_count, library.ggml_backend_dev_get
        kind, memory = library.ggml_backend_dev_type, library.ggml_backend_dev_memory
        backend, name = library.ggml_backend_dev_backend_reg, library.ggml_backend_reg_name
    except AttributeError:
        return None
    count.restype, get.restype, get.argtypes = ctypes.c_size_t, ctypes.c_void_p, [ctypes.c_size_t]
    kind.restype, kind.argtypes = ctypes.c_int, [ctypes.c_void_p]
    size_p = ctypes.POINTER(ctypes.c_size_t)
    memory.restype, memory.argtypes = None, [ctypes.c_void_p, size_p, size_p]
    backend.restype, backend.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    devices: list[tuple[int, int, str]] = []
    for number in range(count()):
        device, free, total = get(number), ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        devices.append((kind(device), free.value, name(backend(device)).decode(errors="replace")))
    return devices
