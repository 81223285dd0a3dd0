"""A file of records through Real-LOD's agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from llmdet.chat import ChatModel
from llmdet.data_engines.flow import Steps, identities
from llmdet.data_engines.identities import hash_of_files
from llmdet.data_engines.real_lod import AgentSettings, refine
from llmdet.data_engines.real_lod_prompts import AgentPrompts
from llmdet.data_engines.real_lod_records import count_records, read_records
from llmdet.data_engines.runs import WHOLE, Run, journal_of
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError
from llmdet.utils.suggest import did_you_mean

#: Counted up whenever the same answers would give other rows.
VERSION = 1


def refine_records(
    records: Path,
    images: Path,
    out: Path,
    models: Mapping[str, ChatModel],
    settings: AgentSettings,
    ledger: Ledger,
    run: Run = WHOLE,
) -> int:
    """Take the expressions of a file through the agent.

    What is found right is written to ``out``, the rest with its cause to
    :func:`unsolved_path`. Finished records are kept in ``OUT.partial``; a second call with the
    same records, models and settings goes on from there.

    Args:
        records: JSON Lines or one JSON array, of records that
            :func:`llmdet.data_engines.real_lod_records.read_sample` takes.
        images: the folder of the pictures.
        out: the JSONL file to write.
        models: role of the agent -> model.
        settings: how to work.
        ledger: counts rejected answers, unsolved expressions and broken records.
        run: how expressions go through, and which.

    Returns:
        The number of rows in ``out``.

    Raises:
        ConfigError: ``OUT.partial`` was begun with something else, which is named.
        DataError: a record or a picture is broken and ``ledger`` permits no more of them.
    """
    decided = {
        "agent": VERSION,
        "records": hash_of_files(records),
        "images": str(images.resolve()),
        "shard": str(run.shard),
        **identities(models),
        **_decided_by(settings),
    }
    journal = journal_of(out, decided)

    def program(item: tuple[str, dict[str, Any]]) -> Steps:
        where, record = item
        return refine(record, where, images, settings)

    run.take(read_records(records), count_records(records), program, models, journal, ledger)
    return journal.finish(out, ledger, aside=unsolved_path(out))


def unsolved_path(out: Path) -> Path:
    """The file beside ``out`` of the expressions that none was found right for."""
    return out.with_name(f"{out.stem}_unsolved{out.suffix}")


def read_settings(values: Mapping[str, Any]) -> AgentSettings:
    """The settings that a config's ``agent`` names.

    Raises:
        ConfigError: a name is unknown; its nearest match is given.
    """
    values = dict(values)
    _check_names("agent", values, [field.name for field in fields(AgentSettings)])
    prompts = dict(values.pop("prompts", {}))
    _check_names("agent.prompts", prompts, [field.name for field in fields(AgentPrompts)])
    return AgentSettings(**values, prompts=AgentPrompts(**prompts))


def _check_names(where: str, values: Mapping[str, Any], known: list[str]) -> None:
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}.{name}: {did_you_mean(name, known)}")


def _decided_by(settings: AgentSettings) -> dict[str, Any]:
    """The settings under names that a sentence can show; prompts each by its own."""
    values = asdict(settings)
    prompts = values.pop("prompts")
    named = {name.replace("_", " "): value for name, value in values.items()}
    return named | {f"prompt of the {role}": text for role, text in prompts.items()}
