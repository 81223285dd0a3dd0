"""A file of records through Real-LOD's agent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from llmdet.chat import ChatModel
from llmdet.data_engines.flow import Progress, Shard, Steps, identities, run_flow, silent
from llmdet.data_engines.journal import Journal
from llmdet.data_engines.real_lod import AgentSettings, refine
from llmdet.data_engines.real_lod_prompts import AgentPrompts
from llmdet.data_engines.real_lod_records import count_records, read_records
from llmdet.datasets.jsonl_index import file_digest
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
    *,
    in_flight: int = 32,
    shard: Shard | None = None,
    progress: Progress = silent,
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
        in_flight: expressions under way at a time.
        shard: the part of the records that is to be done; all by default.
        progress: shows how far it is.

    Returns:
        The number of rows in ``out``.

    Raises:
        ConfigError: ``OUT.partial`` was begun with something else, which is named.
        DataError: a record or a picture is broken and ``ledger`` permits no more of them.
    """
    shard = shard or Shard()
    decided = {
        "agent": VERSION,
        "records": _digest(records),
        "images": str(images.resolve()),
        "shard": str(shard),
        **identities(models),
        **_decided_by(settings),
    }
    journal = Journal(out.with_name(f"{out.name}.partial"), decided)

    def program(item: tuple[str, dict[str, Any]]) -> Steps:
        where, record = item
        return refine(record, where, images, settings)

    run_flow(
        read_records(records),
        program,
        models,
        journal,
        ledger,
        in_flight=in_flight,
        shard=shard,
        finished=progress(journal.done, shard.size(count_records(records))),
    )
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


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = file_digest(file.fileno())
    return f"of hash {hashlib.blake2b(digest, digest_size=8).hexdigest()}"


def _decided_by(settings: AgentSettings) -> dict[str, Any]:
    """The settings under names that a sentence can show; prompts each by its own."""
    values = asdict(settings)
    prompts = values.pop("prompts")
    named = {name.replace("_", " "): value for name, value in values.items()}
    return named | {f"prompt of the {role}": text for role, text in prompts.items()}
