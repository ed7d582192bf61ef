"""Writes trained weights as GGUF files (llama.cpp's "llama" architecture).

    python -m infraxa.engine.guide.export --kinds q8_0

Reads model.pt in the work folder, writes infraxa-guide-KIND.gguf beside it.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from infraxa.engine.guide.checkpoint import Checkpoint, gguf_name, load
from infraxa.engine.guide.corpus import WORK
from infraxa.engine.guide.facts import FACTS
from infraxa.engine.guide.tokenizer import END_OF_TEXT, SPECIAL, TEMPLATE, TURN_END

DESCRIPTION = (
    "The tiny built-in guide of infraxa, trained from scratch on text that its own templates generated. "
    "It explains infraxa, does small sums and knows a few facts; it is not a general assistant."
)
TEMPERATURE = 0.0
"""The guide recites what it knows: any randomness makes it worse."""
F32 = gguf.GGMLQuantizationType.F32
KINDS = {
    "f16": (
        gguf.LlamaFileType.MOSTLY_F16,
        gguf.GGMLQuantizationType.F16,
        gguf.GGMLQuantizationType.F16,
    ),
    "q8_0": (
        gguf.LlamaFileType.MOSTLY_Q8_0,
        gguf.GGMLQuantizationType.Q8_0,
        gguf.GGMLQuantizationType.Q8_0,
    ),
    "q4_0": (
        gguf.LlamaFileType.MOSTLY_Q4_0,
        gguf.GGMLQuantizationType.Q4_0,
        gguf.GGMLQuantizationType.Q8_0,
    ),
}
"""Kind → file type, type of the matrices, type of the tied embedding."""


def write(path: Path, kind: str, checkpoint: Checkpoint) -> None:
    file_type, matrix, embedding = KINDS[kind]
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer, checkpoint)
    writer.add_file_type(file_type)
    add_tokenizer(writer, checkpoint)
    for name, weight in checkpoint.weights.items():
        data: NDArray[np.float32] = weight.float().numpy()
        target = gguf_name(name)
        kept = F32 if data.ndim == 1 else embedding if target.startswith("token_embd") else matrix
        writer.add_tensor(target, gguf.quants.quantize(data, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_metadata(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    writer.add_type("model")
    writer.add_name(FACTS.product.name)
    writer.add_author("the infraxa project")
    writer.add_version("1.1")
    writer.add_description(DESCRIPTION)
    writer.add_license("MIT")
    writer.add_size_label("5M")
    writer.add_languages(["en"])
    writer.add_tags(["demo", "text-generation"])
    writer.add_sampling_temp(TEMPERATURE)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.eps)


def add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    tokens = [t for t, _ in sorted(checkpoint.tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in tokens]
    )
    writer.add_token_merges(checkpoint.merges())
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_eos_token_id(TURN_END)
    writer.add_eot_token_id(TURN_END)
    writer.add_pad_token_id(END_OF_TEXT)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the trained guide as GGUF.")
    parser.add_argument("--work", type=Path, default=WORK, help="the folder for everything that is made")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=["q8_0"])
    args = parser.parse_args()
    checkpoint = load(args.work / "model.pt")
    for kind in args.kinds:
        path = args.work / f"{FACTS.product.name}-{kind}.gguf"
        write(path, kind, checkpoint)
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.2f} MB, step {checkpoint.step}, {checkpoint.tokens} tokens")


if __name__ == "__main__":
    main()
