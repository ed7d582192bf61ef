"""A GGUF file of any size with random weights and the built-in guide's vocabulary: for measuring, not for
talking."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

_BLOCK = 32
_Q8_0_BYTES = 34
_FREEDOM = 4
"""Of the t-distribution that the numbers of a `heavy` model are from."""
_SPREAD = 2.5
"""Of its logits."""


def write_random_model(
    path: Path,
    vocabulary: Path,
    *,
    layers: int,
    dim: int,
    context: int = 1024,
    seed: int = 1,
    ffn: int | None = None,
    head: int = 64,
    n_vocab: int = 0,
    heavy: bool = False,
) -> None:
    """Writes a Llama of `layers` × `dim` in Q8_0 with tokens and template of the file `vocabulary`.

    `n_vocab`: so many tokens, by adding some that no text has. `head`: numbers of one of dim / 64 heads. It
    never says a control token, so its answers do not end.

    `heavy`: in F16, with other numbers in each layer, as far spread as a trained model's are, so that it
    loses about as much as one of those when it is quantized.
    """
    source = gguf.GGUFReader(vocabulary)

    def read(key: str) -> object:
        field = source.get_field(key)
        assert field is not None, key
        return field.contents()

    tokens = read("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    tokens = [*tokens, *(f"\N{LEFT WHITE LENTICULAR BRACKET}{i}" for i in range(len(tokens), n_vocab))]
    heads, kv_heads, ffn = dim // 64, max(1, dim // 128), ffn or dim * 5 // 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random {layers}x{dim}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if heavy else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(context)
    writer.add_embedding_length(dim)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(str(read("tokenizer.ggml.model")))
    writer.add_tokenizer_pre(str(read("tokenizer.ggml.pre")))
    writer.add_token_list(tokens)
    types = read("tokenizer.ggml.token_type")
    merges = read("tokenizer.ggml.merges")
    assert isinstance(types, list) and isinstance(merges, list)
    types = [*types, *[gguf.TokenType.NORMAL] * (len(tokens) - len(types))]
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(str(read("tokenizer.chat_template")))

    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, spread: float = 0.0) -> np.ndarray:
        """Q8_0 blocks: a 16-bit scale and 32 signed bytes each, here with a deviation of about 0.02."""
        if heavy and spread:
            return np.asarray(random.standard_normal((rows, columns)) * (spread / columns**0.5), np.float16)
        if heavy:
            deviation = (_FREEDOM / (_FREEDOM - 2) * columns) ** -0.5
            return np.asarray(random.standard_t(_FREEDOM, (rows, columns)) * deviation, np.float16)
        blocks = random.integers(0, 256, (rows, columns // _BLOCK, _Q8_0_BYTES), dtype=np.uint8)
        scale = np.array([0.02 / 73], dtype=np.float16).view(np.uint8)
        blocks[:, :, :2] = scale
        return blocks.reshape(rows, -1)

    width, kv = heads * head, kv_heads * head
    quantized = None if heavy else gguf.GGMLQuantizationType.Q8_0
    shapes = {
        "attn_q": (width, dim),
        "attn_k": (kv, dim),
        "attn_v": (kv, dim),
        "attn_output": (dim, width),
        "ffn_gate": (ffn, dim),
        "ffn_up": (ffn, dim),
        "ffn_down": (dim, ffn),
    }
    # Every layer of others gets the same numbers: what is measured is how many bytes are read, not what they
    # say.
    layer = {name: matrix(*shape) for name, shape in shapes.items()}
    norm = np.ones(dim, dtype=np.float32)
    embeddings = matrix(len(tokens), dim, _SPREAD)
    silent = [i for i, kind in enumerate(types) if kind == gguf.TokenType.CONTROL]
    # Some other token is always likelier than 0.
    embeddings[silent] = 0
    writer.add_tensor("token_embd.weight", embeddings, raw_dtype=quantized)
    writer.add_tensor("output_norm.weight", norm)
    if heavy:
        # Else what was said last would always be what is likeliest next.
        output = matrix(len(tokens), dim, _SPREAD)
        output[silent] = 0
        writer.add_tensor("output.weight", output)
    for i in range(layers):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", norm)
        own = {name: matrix(*shape) for name, shape in shapes.items()} if heavy else layer
        for name, data in own.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", data, raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
