"""The check-up says "ready" of a healthy config and names what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from pprint import pformat
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.models import tiny_bert
from llmdet.testing.models import tiny_config
from llmdet.testing.programs import load_program

TOOLS = Path(__file__).parents[2] / "tools"


CONFIG = """
default_scope = "llmdet"
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomSamplingNegPos", tokenizer_name={bert!r}, num_sample_negative=2,
         max_tokens=64),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape",
         "scale_factor", "text", "tokens_positive", "conversations")),
]
part = dict(data_root={root!r}, data_prefix=dict(img="images/"), pipeline=pipeline)
train_dataloader = dict(batch_size=4, dataset=dict(
    type="ODVGDataset", ann_file="annotations/train_detection.jsonl",
    label_map_file="annotations/label_map.json", **part))
val_dataloader = dict(batch_size=1, dataset=dict(
    type="CocoDataset", ann_file="annotations/val_unseen_coco.json", test_mode=True,
    return_classes=True, **(part | dict(pipeline=pipeline[:2]))))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
model = {model}
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generate(tmp_path / "toy", ToySettings(train=6, val=3, size=64))
    return tmp_path / "toy"


@pytest.fixture
def config(root: Path, bert: str) -> Path:
    path = root / "config.py"
    model = pformat(tiny_config(bert), width=100)
    path.write_text(CONFIG.format(bert=bert, root=f"{root}/", model=model))
    return path


@pytest.fixture(scope="module")
def doctor() -> ModuleType:
    return load_program(TOOLS / "doctor.py")


def check_up(doctor: ModuleType, config: Path, capsys, *more: str) -> tuple[int, str]:
    capsys.readouterr()
    out = str(config.parent / "out")
    code = doctor.main([str(config), "--out", out, "--num", "6", *more])
    return code, capsys.readouterr().out


def test_a_healthy_config_is_ready(doctor, config: Path, capsys) -> None:
    code, text = check_up(doctor, config, capsys, "--steps", "40", "--device", "cpu")
    assert code == 0, text
    assert text.endswith("ready\n")
    assert "6 images" in text
    assert "'red circle' -> red circle" in text
    assert "val has" in text  # combinations that training never shows
    assert "overfitting 6 images for 40 steps: loss" in text
    with Image.open(config.parent / "out" / "contact_sheet.png") as picture:
        page = np.array(picture)
    assert page.shape[1] > 4 * 400
    assert (page < 128).any()


def broken_row(root: Path, number: int, **changes) -> None:
    path = root / "annotations" / "train_detection.jsonl"
    lines = path.read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"detection": {"instances": [{"bbox": [1, 1, 9, 9], "label": 99, "category": "x"}]}},
            "broken record: {file}:3: field 'detection.instances[0].label' is 99, but the label",
        ),
        ({"width": 999}, "size differs from the picture's: {file}:3: "),
        ({"filename": "train/absent.jpg"}, "picture missing or broken: {file}:3: the picture "),
        (
            {"detection": {"instances": [{"bbox": [9, 1, 1, 9], "label": 0, "category": "x"}]}},
            "box with negative size (corners swapped, or x, y, width, height?): {file}:3: box",
        ),
        ({"height": None}, "no height: {file}:3: field 'height' is missing"),
    ],
)
def test_every_fault_of_a_row_is_listed_with_file_and_line(
    doctor, config: Path, root: Path, capsys, changes: dict, problem: str
) -> None:
    broken_row(root, 3, **changes)
    code, text = check_up(doctor, config, capsys, "--steps", "0")
    assert code == 1
    to_fix = text[text.index("to fix (") :]
    assert problem.format(file=root / "annotations" / "train_detection.jsonl") in to_fix


def test_a_truncated_picture_is_not_ready(doctor, config: Path, root: Path, capsys) -> None:
    rows = (root / "annotations/train_detection.jsonl").read_text().splitlines()
    picture = root / "images" / json.loads(rows[0])["filename"]
    picture.write_bytes(picture.read_bytes()[:-200])
    code, text = check_up(doctor, config, capsys, "--steps", "0")
    assert code == 1
    assert f"picture missing or broken: {root}/annotations/train_detection.jsonl:1: " in text
    assert "image file is truncated" in text[text.index("to fix (") :]


def test_missing_files_and_folders_are_listed_together(doctor, config, root, capsys) -> None:
    (root / "annotations" / "train_detection.jsonl").unlink()
    (root / "images").rename(root / "pictures")
    code, text = check_up(doctor, config, capsys, "--steps", "0")
    assert code == 1
    to_fix = text[text.index("to fix (") :]
    assert "train_detection.jsonl: cannot be opened" in to_fix
    assert f"the folder of pictures {root / 'images'} does not exist" in to_fix


def test_a_class_beyond_the_token_limit_is_named(doctor, config, root, capsys) -> None:
    path = root / "annotations" / "label_map.json"
    names = json.loads(path.read_text())
    names["0"] = "very " * 80 + "red circle"
    path.write_text(json.dumps(names))
    code, text = check_up(doctor, config, capsys, "--steps", "0")
    assert code == 1
    assert "classes: Class 'very very" in text[text.index("to fix (") :]
