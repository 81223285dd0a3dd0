"""From detections to Real-Data: expressions, then the agent, then rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from llmdet.chat import ChatModel
from llmdet.data_engines.annotations import Annotations
from llmdet.data_engines.flow import Model, Shard, identities
from llmdet.data_engines.journal import Journal, check_same
from llmdet.data_engines.real_data import (
    CAPTIONER,
    DIVERSIFIER,
    FILTER,
    ExpressionSettings,
    write_expressions,
)
from llmdet.data_engines.real_data_rows import write_real_data
from llmdet.data_engines.real_lod import ROLES, AgentSettings
from llmdet.data_engines.real_lod_run import refine_records
from llmdet.data_engines.runs import WHOLE, Run, by_name
from llmdet.data_engines.similarity import ImageTextSimilarity, SimilarityFilter
from llmdet.datasets.ledger import Ledger
from llmdet.utils.whole_files import whole_file

#: Counted up whenever the same answers would give other rows.
VERSION = 1
#: Files of the folder, in the order in which they are made.
EXPRESSIONS, REFINED_RECORDS, ROWS = "expressions.jsonl", "refined.jsonl", "real_data.jsonl"
_SETTINGS = "settings.json"
_REMEDY = "Repeat the command that began it, or name another folder."


@dataclass(frozen=True)
class RealDataSettings:
    """All that decides the rows but the models.

    Attributes:
        expressions: what is asked of objects.
        keep: which expressions fit their objects.
        agent: how the agent works; None takes expressions as they are.
        negatives: negative expressions of each pair of boxes, at most.
        seed: draws them.
    """

    expressions: ExpressionSettings = field(default_factory=ExpressionSettings)
    keep: SimilarityFilter = field(default_factory=SimilarityFilter)
    agent: AgentSettings | None = field(default_factory=AgentSettings)
    negatives: int = 50
    seed: int = 0

    @property
    def writers(self) -> tuple[str, ...]:
        """The roles that write expressions."""
        return (CAPTIONER, DIVERSIFIER) if self.expressions.more else (CAPTIONER,)

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles that must have a model."""
        return (*self.writers, *(ROLES if self.agent is not None else ()))


def make_real_data(
    annotations: Annotations,
    folder: Path,
    models: Mapping[str, ChatModel],
    similarity: ImageTextSimilarity | None,
    settings: RealDataSettings,
    *,
    max_bad_rows: int = 0,
    run: Run = WHOLE,
    told: Callable[[str, int, Ledger], object] = lambda name, count, ledger: None,
) -> int:
    """Make a folder with expressions, what the agent made of them, and rows for training.

    Killed and called again with the same arguments, it goes on: in the middle of a stage, or after
    the last one that is over.

    Args:
        annotations: pictures with boxes and classes.
        folder: for all files.
        models: by role, see :attr:`RealDataSettings.roles`.
        similarity: what compares expressions with objects; None compares nothing.
        settings: all the rest that decides the rows.
        max_bad_rows: broken pictures that are skipped, of each stage.
        run: how items go through, and which pictures.
        told: called with the file of a stage that was made here, the number of its lines and what
            was left out.

    Returns:
        The number of rows.

    Raises:
        ConfigError: the folder was begun with something else, which is named.
        DataError: a picture is broken and no more of them are permitted.
    """
    compared: dict[str, Any] = {} if similarity is None else {FILTER: similarity}
    decided = _decided_by(annotations, {**models, **compared}, settings, run.shard)
    _check_settings(folder, settings, decided)
    expressions, refined, rows = folder / EXPRESSIONS, folder / REFINED_RECORDS, folder / ROWS
    if not expressions.exists():
        ledger = Ledger(max_bad_rows)
        asked: dict[str, Model] = {role: models[role] for role in settings.writers} | compared
        journal = Journal(folder / f"{EXPRESSIONS}.partial", decided, _REMEDY)
        what = settings.expressions, settings.keep, ledger
        count = write_expressions(annotations, journal, expressions, asked, *what, run)
        told(str(expressions), count, ledger)
    if settings.agent is not None and not refined.exists():
        ledger = Ledger(max_bad_rows)
        agents = {role: models[role] for role in ROLES}
        what_agent = agents, settings.agent, ledger
        all_of_them = replace(run, shard=Shard())  # whose pictures are those of the shard
        count = refine_records(expressions, annotations.images, refined, *what_agent, all_of_them)
        told(str(refined), count, ledger)
    records = expressions if settings.agent is None else refined
    count = write_real_data(records, rows, settings.negatives, settings.seed)
    told(str(rows), count, Ledger())
    return count


def _decided_by(
    annotations: Annotations,
    models: Mapping[str, Any],
    settings: RealDataSettings,
    shard: Shard,
) -> dict[str, Any]:
    """All on which the expressions and the agent depend, but its settings."""
    roles = [role for role in (*settings.roles, FILTER) if role in models]
    return {
        "real-data engine": VERSION,
        **annotations.identity,
        "shard": str(shard),
        **identities({role: models[role] for role in roles}),
        **by_name(settings.expressions),
    }


def _check_settings(folder: Path, settings: RealDataSettings, first: Mapping[str, Any]) -> None:
    """Remember what decides the files of a folder, or refuse another folder's settings."""
    decided = {
        **first,
        "keep": repr(settings.keep),
        "agent": repr(settings.agent),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _SETTINGS
    if path.exists():
        check_same(path, path.read_bytes(), orjson.loads(orjson.dumps(decided)), _REMEDY)
    else:
        with whole_file(path) as file:
            file.write(orjson.dumps({"decided_by": decided}, option=orjson.OPT_APPEND_NEWLINE))
