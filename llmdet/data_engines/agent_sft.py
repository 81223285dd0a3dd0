"""Fine-tune a language model to plan for Real-LOD's agent, on plans that made things right."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdet.data_engines.real_lod import HISTORY, UNSOLVED
from llmdet.data_engines.real_lod_answers import read_plan
from llmdet.data_engines.real_lod_prompts import SHORT_PLANNER, AgentPrompts
from llmdet.data_engines.real_lod_records import read_sample
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

_IGNORED = -100  # label of what is not to be learned


@dataclass(frozen=True)
class PlannerSample:
    """What a planner is asked, and the plan that it is to answer with."""

    prompt: str
    plan: str


@dataclass(frozen=True)
class AgentSFTSettings:
    """How a planner is fine-tuned.

    Attributes:
        model: folder or name of a causal language model with a chat template.
        lora: ``r``, ``alpha``, ``dropout`` and ``targets`` (names of layers, or "all-linear");
            None trains the whole model.
        training: arguments of ``transformers.TrainingArguments``.
        prompt: what stands above the labelled lines of a question. The agent must ask with it.
        max_length: tokens of a sample; longer ones are left out and counted.
    """

    model: str
    lora: Mapping[str, Any] | None = field(
        default_factory=lambda: dict(r=16, alpha=32, dropout=0.05, targets="all-linear")
    )
    training: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = SHORT_PLANNER
    max_length: int = 1024


def planner_samples(
    rows: Iterable[tuple[str, Mapping[str, Any]]], prompt: str = SHORT_PLANNER
) -> list[PlannerSample]:
    """The plans in rows that the agent has written, as samples.

    Only rows with a right expression teach: those of a scripted planner in the toy world, or of a
    strong model that planned for real pictures. Rejected plans do not.

    Args:
        rows: place and content.
        prompt: what stands above the labelled lines.

    Raises:
        DataError: a row has no history, or its plans do not say what they are about.
    """
    prompts = AgentPrompts(planner=prompt)
    samples = []
    for where, row in rows:
        if UNSOLVED in row:
            continue
        if not isinstance(row.get(HISTORY), list):
            raise DataError(f"{where}: there is no history; name a file that real-lod has written")
        sample = read_sample(row, where)
        for entry in row[HISTORY]:
            if entry.get("stage") == "plan" and "rejected" not in entry:
                try:
                    question = prompts.plan(sample, entry["expression"], entry["feedback"])
                except KeyError as error:
                    raise DataError(f"{where}: a plan of the history has no {error}") from None
                samples.append(PlannerSample(question, entry["answer"].strip()))
    return samples


def read_sft_settings(values: Mapping[str, Any]) -> AgentSFTSettings:
    """The settings that a config's ``sft`` names.

    Raises:
        ConfigError: a name is unknown; its nearest match is given.
    """
    known = list(AgentSFTSettings.__dataclass_fields__)
    for name in values:
        if name not in known:
            raise ConfigError(f"sft.{name}: {did_you_mean(name, known)}")
    if "model" not in values:
        raise ConfigError("sft has no 'model'")
    return AgentSFTSettings(**values)


def finetune_planner(
    files: Sequence[Path], out: Path, settings: AgentSFTSettings, ledger: Ledger
) -> int:
    """Train a planner and write it, with LoRA merged into it, to a folder.

    Args:
        files: what ``real-lod`` has written.
        out: folder for the model and its tokenizer; transformers and vLLM load it.
        settings: how to train.
        ledger: counts samples that are too long.

    Returns:
        The number of samples that it learned from.

    Raises:
        ConfigError: the model cannot be loaded, or an argument of the training is unknown.
        DataError: there is no plan in the files.
    """
    rows = ((f"{path}:{i}", row) for path in files for i, row in enumerate(IndexedJsonl(path), 1))
    samples = planner_samples(rows, settings.prompt)
    if not samples:
        raise DataError(f"{', '.join(map(str, files))}: no plan led to a right expression")
    _log_kinds(samples)
    model, tokenizer = _load(settings)
    features = [_features(sample, tokenizer) for sample in samples]
    kept = [entry for entry in features if len(entry["input_ids"]) <= settings.max_length]
    if len(kept) < len(features):
        ledger.note("sample too long", number=len(features) - len(kept))
    _train(model, tokenizer, kept, out, settings)
    return len(kept)


def _log_kinds(samples: Sequence[PlannerSample]) -> None:
    kinds: Counter[str] = Counter()
    for sample in samples:
        actions = read_plan(sample.plan).actions
        kinds[", ".join(a.edit.value if a.edit else a.tool.value for a in actions) or "stop"] += 1
    for kind, number in kinds.most_common():
        logger.info("%8d plans: %s", number, kind)


def _load(settings: AgentSFTSettings) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(settings.model, "sft.model")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            settings.model, dtype="auto", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{settings.model}: no language model could be loaded: {error}") from None
    if not tokenizer.chat_template:
        raise ConfigError(f"{settings.model}: the tokenizer has no chat template")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if settings.lora is not None:
        model = _with_lora(model, settings.lora)
    return model, tokenizer


def _with_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    known = ("r", "alpha", "dropout", "targets")
    for name in lora:
        if name not in known:
            raise ConfigError(f"sft.lora.{name}: {did_you_mean(name, known)}")
    for name in known[:2]:
        if name not in lora:
            raise ConfigError(f"sft.lora has no {name!r}")
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora.get("dropout", 0.0),
        target_modules=lora.get("targets", "all-linear"),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _features(sample: PlannerSample, tokenizer: Any) -> dict[str, list[int]]:
    """Token ids of the conversation; only the plan and the end of the turn are learned."""
    turn = [{"role": "user", "content": sample.prompt}]
    prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    plan = tokenizer(sample.plan, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ids = asked + plan
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [_IGNORED] * len(asked) + plan,
    }


def _train(
    model: Any, tokenizer: Any, features: list[Any], out: Path, settings: AgentSFTSettings
) -> None:
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    options: dict[str, Any] = {"save_strategy": "no", "report_to": [], "logging_steps": 20}
    options |= settings.training
    try:
        arguments = TrainingArguments(output_dir=str(out), **options)
    except TypeError as error:
        raise ConfigError(f"sft.training: {error}") from None
    Trainer(
        model=model,
        args=arguments,
        train_dataset=features,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    ).train()
    trained = model if settings.lora is None else model.merge_and_unload()
    trained.save_pretrained(out)
    tokenizer.save_pretrained(out)
