"""browse.py, stats.py and benchmark/data.py on the toy set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.models import tiny_bert
from llmdet.testing.programs import load_program

TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = """
default_scope = "llmdet"
train_dataloader = dict(dataset=dict(
    type="ODVGDataset", ann_file="annotations/train_grounding.jsonl", data_root={root!r},
    data_prefix=dict(img="images/"), pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="RandomSamplingNegPos", tokenizer_name={bert!r}, num_region_caption=2),
        dict(type="PackDetInputs", meta_keys=("img_path", "text", "tokens_positive",
             "conversations")),
    ]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    generate(root, ToySettings(train=5, val=1, size=64))
    path = root / "config.py"
    path.write_text(CONFIG.format(root=f"{root}/", bert=tiny_bert(root / "bert")))
    return path


def test_browse_writes_annotated_pictures_and_their_texts(config, tmp_path, capsys) -> None:
    load_program(TOOLS / "analysis/browse.py").main(
        [str(config), "--num", "3", "--out", str(tmp_path)]
    )
    assert "3 pictures and texts.txt" in capsys.readouterr().out
    pictures = sorted(tmp_path.glob("*.jpg"))
    assert [path.name for path in pictures] == [
        "00000000_000000.jpg",
        "00000002_000002.jpg",
        "00000004_000004.jpg",
    ]
    with Image.open(pictures[0]) as picture:
        assert min(picture.size) >= 48
    texts = (tmp_path / "texts.txt").read_text()
    assert texts.count("  prompt:  ") == 3
    assert "  caption: The image shows" in texts
    assert "  region " in texts


def test_stats_prints_a_table_and_writes_plots(config, tmp_path, capsys) -> None:
    rows = config.parent / "annotations" / "train_grounding.jsonl"
    bert = str(config.parent / "bert")
    load_program(TOOLS / "analysis/stats.py").main(
        [str(rows), "--tokenizer", bert, "--out", str(tmp_path)]
    )
    table = capsys.readouterr().out
    assert "5 images" in table
    assert "tokens per text" in table
    content = json.loads((tmp_path / "stats.json").read_text())
    assert content["boxes per image"]["number"] == 5
    with Image.open(tmp_path / "stats.png") as picture:
        assert picture.width > 500


def test_the_benchmark_generates_rows_and_measures_them(tmp_path: Path, capsys) -> None:
    tool = load_program(TOOLS / "benchmark/data.py")
    path = tmp_path / "rows.jsonl"
    tool.main(["generate", str(path), "--rows", "50"])
    rows = IndexedJsonl(path)
    assert len(rows) == 50
    for row in rows:
        grounding = row["grounding"]
        for region in grounding["regions"]:
            ((start, end),) = region["tokens_positive"]
            assert grounding["caption"][start:end] == region["phrase"]
            x1, y1, x2, y2 = region["bbox"]
            assert 0 <= x1 < x2 <= row["width"]
            assert 0 <= y1 < y2 <= row["height"]
    capsys.readouterr()
    command = [sys.executable, str(TOOLS / "benchmark/data.py"), "rows", str(path), "--reads", "9"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    for title in ("first open", "later open", "9 random rows", "json.loads of all lines"):
        assert title in out


def test_the_benchmark_times_every_transform(config: Path, capsys) -> None:
    load_program(TOOLS / "benchmark/data.py").main(["pipeline", str(config), "--num", "4"])
    out = capsys.readouterr().out
    assert "images/s per worker (4 images)" in out
    for name in ("LoadImageFromFile", "RandomSamplingNegPos", "get_data_info"):
        assert name in out
