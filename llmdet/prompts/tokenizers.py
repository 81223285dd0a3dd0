"""The one loader of tokenizers: a folder or the Hugging Face hub, or one sentence why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.errors import ConfigError
from llmdet.prompts.sentencepiece import FAST, MODEL, load_llama_tokenizer
from llmdet.utils.hub import hub_options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The text encoder of all released models.
TEXT_ENCODER = "bert-base-uncased"
#: Most tokens of a prompt, special tokens included, where a config says nothing.
MAX_TOKENS = 256


def load_tokenizer(
    name: str, role: str = "language_model.name", **options: Any
) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a local folder or hub id.

    Args:
        name: folder or hub id.
        role: the setting that names it, for messages.
        options: of transformers' ``AutoTokenizer``.

    Raises:
        ConfigError: it cannot be found, or has no fast version (character offsets need one).
    """
    from transformers import AutoTokenizer

    options = {**hub_options(name), **options}
    if _has_pieces_alone(Path(name)):
        return load_llama_tokenizer(Path(name), **options)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        kept = _downloaded(name, options)
        if kept is None or not _has_pieces_alone(kept):
            raise not_found(name, error, role) from error
        tokenizer = load_llama_tokenizer(kept)
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{role}: the tokenizer of {name!r} gives no character offsets; save a fast one "
            "(tokenizer.json) in that folder."
        )
    return tokenizer


def _has_pieces_alone(folder: Path) -> bool:
    return (folder / MODEL).is_file() and not (folder / FAST).exists()


def _downloaded(name: str, options: Mapping[str, Any]) -> Path | None:
    """Where the hub's files of a tokenizer like LLaMA's were put; None where it has none."""
    from transformers.utils import cached_file

    kept = ("revision", "cache_dir", "token", "local_files_only")
    place = {key: options[key] for key in kept if key in options}
    try:
        found = cached_file(name, MODEL, **place)
    except (OSError, ValueError):
        return None
    return Path(found).parent if found else None


def not_found(name: str, error: Exception, role: str = "language_model.name") -> ConfigError:
    """The sentence for a folder or hub id that transformers cannot read."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).is_dir():
        return ConfigError(
            f"{role}: the folder {name!r} is no complete transformers model (config, tokenizer, "
            f"weights): {reason}"
        )
    if Path(name).match("data/toy/*"):
        return ConfigError(
            f"{role}: there is no folder {name!r}. Make it: `python -m llmdet.datasets.toy "
            "data/toy`."
        )
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    wanted = TEXT_ENCODER if is_path else name
    return ConfigError(
        f"{role}: {name!r} is neither a folder here nor reachable on the Hugging Face hub "
        f"({reason}). Download it once where there is a network, `hf download {wanted} "
        f"--local-dir FOLDER`, and set {role}=FOLDER."
    )
