"""Models to begin with: small to medium ones that are known to be on the hub and to run here.

Sizes are those of the named quantization, about; what is really downloaded is said by the hub.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from infraxa.app.hub_names import memory_needed


class Curated(msgspec.Struct, frozen=True):
    """One of them."""

    repo: str
    quant: str
    parameters: str
    size: int
    """Bytes, about."""
    license: str
    """As the hub names it."""
    good_for: str
    kind: Literal["chat", "embedding"] = "chat"

    @property
    def text(self) -> str:
        """What a person writes to pull it."""
        return f"{self.repo}:{self.quant}"

    @property
    def memory(self) -> int:
        """About how many bytes of memory it takes."""
        return memory_needed(self.size)


CURATED = (
    Curated("Qwen/Qwen3-0.6B-GGUF", "Q8_0", "0.6B", 640_000_000, "apache-2.0", "a first try; very fast"),
    Curated(
        "bartowski/Llama-3.2-1B-Instruct-GGUF", "Q4_K_M", "1B", 810_000_000, "llama3.2", "short answers, fast"
    ),
    Curated(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "Q4_K_M", "1.7B", 1_060_000_000, "apache-2.0", "English"
    ),
    Curated(
        "bartowski/Llama-3.2-3B-Instruct-GGUF", "Q4_K_M", "3B", 2_020_000_000, "llama3.2", "everyday talk"
    ),
    Curated("Qwen/Qwen3-4B-GGUF", "Q4_K_M", "4B", 2_500_000_000, "apache-2.0", "reasoning, many languages"),
    Curated(
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF", "Q4_K_M", "7B", 4_370_000_000, "apache-2.0", "writing"
    ),
    Curated("Qwen/Qwen3-8B-GGUF", "Q4_K_M", "8B", 5_030_000_000, "apache-2.0", "reasoning, code, tools"),
    Curated("Qwen/Qwen3-14B-GGUF", "Q4_K_M", "14B", 9_000_000_000, "apache-2.0", "the best of these"),
    Curated(
        "nomic-ai/nomic-embed-text-v1.5-GGUF", "Q8_0", "137M", 146_000_000, "apache-2.0", "embeddings only",
        kind="embedding",
    ),
)  # fmt: skip
