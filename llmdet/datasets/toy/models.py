"""Text encoder and language models small enough for the toy set, tests and demonstrations.

They have random weights and vocabularies made on the spot, so that the quickstart and the configs
that train a tiny detector need no download.
"""

from __future__ import annotations

import json
import logging
import re
import string
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES
from llmdet.utils.whole_files import whole_folder

logger = logging.getLogger(__name__)

_COMMON_WORDS = (
    "a an the one two three red green blue yellow black white orange purple pink brown grey "
    "circle square triangle star ring cross diamond hexagon small large left right above below "
    "of on in at to and with next under over between beside person dog cat car bus tree ball "
    "grass bench table chair bottle cup apple apples bicycle traffic light fire hydrant stop sign "
    "wine glass many there are is running sitting describe image region detail phrase"
)
#: Whole words of the default vocabulary; every other word is spelled in characters.
WORDS = tuple(_COMMON_WORDS.split())
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
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
_MARK = re.compile(r"</?(image|region|mask|obj|p|ground|objects)(:?\d+)?>")
#: Sizes of language models that are asked about regions.
_SMALL = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=3, initializer_range=0.09)
#: Captions that the language model's vocabulary is learned from; more of them add no new word.
_CORPUS_ROWS = 500


def write_toy_models(folder: str | Path) -> None:
    """Write ``bert/`` and ``language_model/`` beside the toy set, unless they are there.

    Args:
        folder: the toy set, as :func:`llmdet.datasets.toy.generate` wrote it.
    """
    folder = Path(folder)
    if not (folder / "bert" / "config.json").is_file():
        words = dict.fromkeys((*WORDS, *COLOURS, *SHAPES, *SHAPES.values()))
        with whole_folder(folder / "bert") as target:
            tiny_bert(target, words)
        logger.info("wrote the text encoder %s", folder / "bert")
    if not (folder / "language_model" / "config.json").is_file():
        # Half as wide, or twice as deep, it learns the captions more slowly than the quickstart
        # lasts.
        with whole_folder(folder / "language_model") as target:
            tiny_qwen(
                target,
                corpus=[*CORPUS, *_captions(folder)],
                hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=2,
                initializer_range=0.09,
            )
        logger.info("wrote the language model %s", folder / "language_model")


def write_region_language_model(folder: str | Path) -> None:
    """Write ``region_language_model/`` beside the toy set, unless it is there.

    Args:
        folder: the toy set with its questions about regions, see
            :func:`llmdet.datasets.toy.conversations.write_region_questions`.
    """
    _write_language_model(Path(folder), "region_language_model", ["train_regions.jsonl"])


def write_retrieval_language_model(folder: str | Path) -> None:
    """Write ``retrieval_language_model/`` beside the toy set, unless it is there.

    Args:
        folder: the toy set with its rows about candidates, see
            :func:`llmdet.datasets.toy.retrieval.write_retrieval_rows`.
    """
    files, layers = ["train_retrieval.jsonl"], 4  # three compare what they look up less well
    _write_copying_model(Path(folder), "retrieval_language_model", files, num_hidden_layers=layers)


def write_mask_language_model(folder: str | Path) -> None:
    """Write ``mask_language_model/`` beside the toy set, unless it is there.

    Args:
        folder: the toy set with its questions about regions and its conversations with masks, see
            :func:`llmdet.datasets.toy.masks.write_mask_questions`.
    """
    files = ["train_regions.jsonl", "train_masks.jsonl"]
    _write_copying_model(Path(folder), "mask_language_model", files)


def _write_copying_model(folder: Path, name: str, rows: Iterable[str], **changes: Any) -> None:
    _write_language_model(folder, name, rows, copying=True, num_key_value_heads=4, **changes)


def _write_language_model(
    folder: Path, name: str, rows: Iterable[str], copying: bool = False, **changes: Any
) -> None:
    """A language model whose vocabulary is that of conversations, without their marks."""
    from llmdet.datasets.toy.copying_heads import begin_with_copying_heads

    if (folder / name / "config.json").is_file():
        return
    corpus = [text for file in rows for text in _questions(folder, file)]
    with whole_folder(folder / name) as target:
        tiny_qwen(target, corpus=corpus, **(_SMALL | changes))
        if copying:
            begin_with_copying_heads(target)
    logger.info("wrote the language model %s", folder / name)


def _captions(folder: Path) -> Iterator[str]:
    for row in _rows(folder, "train_grounding.jsonl"):
        yield row["grounding"]["caption"]
        yield from (turn["value"] for turn in row["conversations"])


def _questions(folder: Path, name: str) -> Iterator[str]:
    for row in _rows(folder, name):
        yield from (_MARK.sub("", turn["value"]) for turn in row["conversations"])


def _rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    with (folder / "annotations" / name).open(encoding="utf-8") as stream:
        yield from map(json.loads, islice(stream, _CORPUS_ROWS))


def tiny_bert(
    folder: str | Path,
    vocabulary: Iterable[str] = WORDS,
    *,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    seed: int = 0,
) -> str:
    """Write a BERT with random weights and its WordPiece tokenizer to ``folder``.

    Args:
        folder: made where it is missing; loads as ``language_model.name``.
        vocabulary: words that become one token each, lower case. Their characters, ASCII letters,
            digits and punctuation are tokens too, so that no other word of these is unknown.
        hidden_size: width of the embeddings, a multiple of ``heads``.
        layers: number of transformer layers.
        heads: attention heads of each.
        dropout: of hidden states and attention, active in training only.
        seed: of the weights; equal arguments write equal files and leave the global random state
            as it was.

    Returns:
        ``folder`` as a string.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = wordpiece_vocabulary(vocabulary)
    tokenizer = BertTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, model_max_length=512
    )
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokens.index("[PAD]"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def wordpiece_vocabulary(words: Iterable[str]) -> list[str]:
    """Tokens in the order of their ids: special ones, characters, continuations, whole words."""
    words = list(dict.fromkeys(word.lower() for word in words))
    ascii_characters = string.ascii_lowercase + string.digits + string.punctuation
    characters = sorted({*ascii_characters, *"".join(words)})
    continuations = [f"##{character}" for character in characters]
    return list(dict.fromkeys((*SPECIAL_TOKENS, *characters, *continuations, *words)))


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
