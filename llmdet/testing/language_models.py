"""Real language models of toy size: transformers' classes, random weights, own tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Enough English for the byte-level merges to form whole words of captions and prompts.
CORPUS = (
    "You are a helpful assistant.",
    "Describe the image in detail.",
    "Describe the region in a phrase.",
    "A brown dog is running on the green grass next to a red ball.",
    "On the left, a small lamp stands on the wooden desk under the window.",
    "A red circle is above a blue square, and a green triangle is to the right of them.",
    "A large yellow star is below a purple cross on a grey background.",
    "system user assistant",
)

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HEADERS = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def tiny_qwen(folder: str | Path, *, corpus: Iterable[str] = CORPUS, **changes: Any) -> str:
    """Saves a Qwen2 of about 0.2 M parameters with a ChatML tokenizer; returns its folder.

    Args:
        folder: where to write; made if needed.
        corpus: sentences that the byte-level BPE is learned from.
        changes: fields of ``Qwen2Config`` to set differently, e.g. ``num_hidden_layers=2``.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = _byte_level_bpe(corpus, specials, eos="<|im_end|>", bos=None, template=_CHATML)
    config = Qwen2Config(**(_sizes(tokenizer) | {"use_sliding_window": False} | changes))
    return _save(Path(folder), Qwen2ForCausalLM, config, tokenizer)


def tiny_llama(folder: str | Path, *, corpus: Iterable[str] = CORPUS, **changes: Any) -> str:
    """Saves a Llama with a header-style tokenizer; otherwise like :func:`tiny_qwen`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    specials = (
        "<|end_of_text|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    )
    tokenizer = _byte_level_bpe(
        corpus, specials, eos="<|eot_id|>", bos="<|begin_of_text|>", template=_HEADERS
    )
    config = LlamaConfig(**(_sizes(tokenizer) | changes))
    return _save(Path(folder), LlamaForCausalLM, config, tokenizer)


def _sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        # Frozen word embeddings of 0.02 could never give a sharp distribution at this width.
        "initializer_range": 0.125,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _byte_level_bpe(
    corpus: Iterable[str], specials: tuple[str, ...], *, eos: str, bos: str | None, template: str
) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        bos_token=bos,
        pad_token=specials[0],
        chat_template=template,
    )


def _save(folder: Path, model_class: Any, config: Any, tokenizer: Any) -> str:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
