"""The guide's network: a small Llama (RMSNorm, RoPE, SwiGLU, grouped-query attention).

RoPE pairs neighbouring channels (0,1), (2,3), ... as llama.cpp's "llama" architecture does, so that
Q and K go into a GGUF file without a permutation.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Config:
    vocab: int = 2048
    dim: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 512
    context: int = 1024
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def rope_table(config: Config) -> tuple[Tensor, Tensor]:
    inverse = config.rope_base ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    angles = torch.arange(config.context).float()[:, None] * inverse[None]
    return torch.cos(angles), torch.sin(angles)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x, of shape (batch, heads, time, channels)."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).type_as(x)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal grouped-query attention.

    For short texts on a CPU the plain form is twice as fast as the backward pass of torch's own.
    """
    batch, heads, time, channels = q.shape
    groups = k.shape[1]
    share = heads // groups
    if time > 640:
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.full((time, time), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    scores = q.reshape(batch, groups, share * time, channels) @ k.transpose(-1, -2)
    scores = scores.view(batch, groups, share, time, time) * channels**-0.5 + mask
    mixed = scores.softmax(-1).to(v.dtype).view(batch, groups, share * time, time) @ v
    return mixed.view(batch, heads, time, channels)


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        kv_dim = config.kv_heads * config.head_dim
        self.attn_norm = nn.RMSNorm(config.dim, eps=config.eps)
        self.q = nn.Linear(config.dim, config.heads * config.head_dim, bias=False)
        self.k = nn.Linear(config.dim, kv_dim, bias=False)
        self.v = nn.Linear(config.dim, kv_dim, bias=False)
        self.o = nn.Linear(config.heads * config.head_dim, config.dim, bias=False)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=config.eps)
        self.gate = nn.Linear(config.dim, config.ffn, bias=False)
        self.up = nn.Linear(config.dim, config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, time, _ = x.shape
        h = self.attn_norm(x)
        q = rope(self.q(h).view(batch, time, self.config.heads, -1).transpose(1, 2), cos, sin)
        k = rope(self.k(h).view(batch, time, self.config.kv_heads, -1).transpose(1, 2), cos, sin)
        v = self.v(h).view(batch, time, self.config.kv_heads, -1).transpose(1, 2)
        y = attend(q, k, v)
        x = x + self.o(y.transpose(1, 2).reshape(batch, time, -1))
        h = self.ffn_norm(x)
        out: Tensor = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return out


class Guide(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab, config.dim)
        """Tied with the output head."""
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=config.eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                std = 0.02 if "embed" in name else p.shape[1] ** -0.5 * 0.6
                if name.endswith(("o.weight", "down.weight")):
                    std /= (2 * config.layers) ** 0.5
                nn.init.normal_(p, std=std)

    def forward(self, ids: Tensor, where: Tensor | None = None) -> Tensor:
        """Logits everywhere, or only at the flat positions `where`."""
        time = ids.shape[1]
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos[:time], self.sin[:time])
        h = self.norm(x)
        if where is not None:
            h = h.flatten(0, 1)[where]
        return F.linear(h, self.embed.weight)
