"""Small annotation files, and parts looked up as configs do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from llmdet.datasets.toy.models import tiny_bert
from llmdet.datasets.toy.scene import Scene, draw_scene


@pytest.fixture
def scope() -> None:
    """Names are looked up in llmdet first and in mmdet next."""
    init_default_scope("llmdet")


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as rows.jsonl."""

    def write(*rows: dict[str, Any]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[..., Path]:
    """Writes a json file."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer that knows words such as red, dog, cat and spells the others."""
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def painted_box() -> Callable[..., np.ndarray]:
    """Gives the box xyxy of the pixels in which a scene differs by more than a value from none."""

    def box(scene: Scene, least: int) -> np.ndarray:
        empty = replace(scene, items=())
        painted, bare = (
            draw_scene(s, np.random.default_rng(0)).astype(int) for s in (scene, empty)
        )
        rows, columns = np.where(abs(painted - bare).max(2) > least)
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])

    return box
