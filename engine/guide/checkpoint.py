"""Weights, shape and tokenizer together, kept as a torch file while training or read back from a GGUF.

A GGUF holds everything that training needs to go on, so the project ships no other binary.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer
from torch import Tensor

from infraxa.engine.guide.model import Config, Guide
from infraxa.engine.guide.tokenizer import rebuild

LAYER_NAMES = {
    "attn_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""A layer's parts: here → in GGUF."""


@dataclass
class Checkpoint:
    config: Config
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    step: int = 0
    tokens: int = 0
    """Steps and tokens of the training that gave these weights."""

    def model(self) -> Guide:
        model = Guide(self.config)
        model.load_state_dict(self.weights)
        return model

    def merges(self) -> list[str]:
        pairs = json.loads(self.tokenizer.to_str())["model"]["merges"]
        return [p if isinstance(p, str) else " ".join(p) for p in pairs]

    def save(self, path: Path) -> None:
        torch.save(
            {
                "config": asdict(self.config),
                "weights": self.weights,
                "tokenizer": self.tokenizer.to_str(),
                "step": self.step,
                "tokens": self.tokens,
            },
            path,
        )


def gguf_name(name: str) -> str:
    """The output head has no name of its own: llama.cpp takes token_embd when output.weight is absent."""
    part = name.split(".")
    if part[0] == "embed":
        return "token_embd.weight"
    if part[0] == "norm":
        return "output_norm.weight"
    return f"blk.{part[1]}.{LAYER_NAMES[part[2]]}.weight"


def load(path: Path) -> Checkpoint:
    return load_gguf(path) if path.suffix == ".gguf" else load_torch(path)


def load_torch(path: Path) -> Checkpoint:
    saved = torch.load(path, weights_only=True)
    tokenizer = Tokenizer.from_str(saved["tokenizer"])
    return Checkpoint(Config(**saved["config"]), saved["weights"], tokenizer, saved["step"], saved["tokens"])


def load_gguf(path: Path) -> Checkpoint:
    reader = gguf.GGUFReader(path)

    def get(key: str) -> Any:
        field = reader.get_field(key)
        if field is None:
            raise ValueError(f"{path} has no {key}")
        return field.contents()

    config = Config(
        vocab=get("llama.vocab_size"),
        dim=get("llama.embedding_length"),
        layers=get("llama.block_count"),
        heads=get("llama.attention.head_count"),
        kv_heads=get("llama.attention.head_count_kv"),
        ffn=get("llama.feed_forward_length"),
        context=get("llama.context_length"),
        rope_base=get("llama.rope.freq_base"),
        eps=get("llama.attention.layer_norm_rms_epsilon"),
    )
    tensors = {t.name: t for t in reader.tensors}
    weights: dict[str, Tensor] = {}
    for name in Guide(config).state_dict():
        tensor = tensors[gguf_name(name)]
        weights[name] = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
    tokenizer = rebuild(get("tokenizer.ggml.tokens"), get("tokenizer.ggml.merges"))
    return Checkpoint(config, weights, tokenizer)
