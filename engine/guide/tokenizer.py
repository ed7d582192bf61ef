"""The byte-level BPE tokenizer and the chat format.

Text is cut up like Qwen2's ("qwen2" in llama.cpp), so that every digit is a token of its own.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from infraxa.engine.guide.chats import Message

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, TURN_START, TURN_END = range(3)
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(texts: Iterable[str], vocab: int) -> Tokenizer:
    tokenizer = _finish(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(s, special=True) for s in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def rebuild(tokens: list[str], merges: list[str]) -> Tokenizer:
    """From the token list and the merges that a GGUF file carries."""
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = [(a, b) for a, b in (merge.split(" ") for merge in merges)]
    tokenizer = _finish(Tokenizer(models.BPE(vocab=vocab, merges=pairs)))
    tokenizer.add_special_tokens([AddedToken(s, special=True) for s in SPECIAL])
    return tokenizer


def encode_chat(tokenizer: Tokenizer, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """Token ids and, for each, whether it belongs to an assistant's answer (its end of turn included)."""
    ids: list[int] = []
    answers: list[bool] = []
    for role, text in messages:
        head = [TURN_START, *tokenizer.encode(role + "\n").ids]
        body = [*tokenizer.encode(text.strip()).ids, TURN_END]
        tail = tokenizer.encode("\n").ids
        ids += head + body + tail
        answers += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(tail)
    return ids, answers


def render(messages: list[Message], generate: bool = True) -> str:
    """The same as TEMPLATE gives."""
    chat = "".join(f"<|im_start|>{role}\n{text.strip()}<|im_end|>\n" for role, text in messages)
    return chat + ("<|im_start|>assistant\n" if generate else "")
