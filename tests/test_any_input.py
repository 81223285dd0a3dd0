"""Whatever stands in a prompt, a row, a file or a config, it is used or named in a sentence.

Each test starts from what is right and puts arbitrary values in arbitrary places. An error that is
not of :mod:`llmdet.errors` would be a traceback for a user.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import init_default_scope

from llmdet.apis.questions import as_prompt, ask, parse_spans, read_question
from llmdet.apis.reading import parse_boxes
from llmdet.datasets.coco_dataset import CocoDataset
from llmdet.datasets.coco_file import CocoFile
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.pictures import picture_path
from llmdet.datasets.row_targets import (
    CaptionOptions,
    conversations,
    label_targets,
    phrase_targets,
)
from llmdet.datasets.rows import read_row
from llmdet.datasets.toy.models import tiny_bert
from llmdet.engine.settings import check_settings
from llmdet.errors import LLMDetError
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.writing import PromptOptions
from llmdet.registry import HOOKS, TRANSFORMS
from llmdet.utils.build import checked_builds

#: Half of a surrogate pair is among them: Python reads bytes that are no UTF-8 so.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)
WORDS = st.sampled_from(["", " ", ".", "dog", "a . b", "\x00", "\x1b[2J", "\udcff", "x" * 3000])
NUMBERS = st.one_of(
    st.integers(-3, 5), st.integers(), st.floats(), st.sampled_from([10**400, -0.0, 1e308])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, WORDS)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.dictionaries(TEXTS, SCALARS, max_size=2),
    st.lists(st.lists(SCALARS, max_size=4), max_size=2),
)
#: Where to go down at each level, and what to put there; None takes the place away.
EDITS = st.lists(
    st.tuples(st.lists(st.integers(0, 11), min_size=1, max_size=7), st.none() | VALUES),
    min_size=1,
    max_size=3,
)


def arbitrary(examples: int) -> settings:
    """As many examples, the same in every run, and no time spent on shrinking unless one fails."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def edited(right: Any, edits: list[tuple[list[int], Any]]) -> Any:
    """A copy of ``right`` with values put in other places of it."""
    document = {"root": copy.deepcopy(right)}
    for path, value in edits:
        parent: Any = document
        key: Any = "root"
        for turn in path:
            inner = parent[key]
            if not isinstance(inner, (dict, list)) or not inner:
                break
            parent = inner
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            key = keys[turn % len(keys)]
        if value is None and isinstance(parent, dict) and parent is not document:
            del parent[key]
        else:
            parent[key] = value
    return document["root"]


def named_errors(call: Callable[..., Any]) -> Callable[..., None]:
    """The call, which may raise an error of ours with a sentence, and none of others."""

    @functools.wraps(call)
    def called(*arguments: Any, **named: Any) -> None:
        try:
            call(*arguments, **named)
        except LLMDetError as error:
            assert str(error).strip()  # noqa: PT017  that it is raised is not demanded

    return called


BOX = [1.0, 2, 30, 20.5]
TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
GROUNDING = {
    "filename": "a.jpg",
    "width": 64,
    "height": 48,
    "image_id": 3,
    "grounding": {
        "caption": "a dog and a cat",
        "regions": [
            {"bbox": BOX, "phrase": "a dog", "tokens_positive": [[0, 5]]},
            {"bbox": [BOX, BOX], "phrase": ["a cat", "cat"], "tokens_positive": [[10, 15]]},
            {"bbox": BOX, "tokens_positive": [[2, 5]], "segmentation": [[1, 1, 9, 1, 9, 9]]},
        ],
    },
    "conversations": TALK,
    "regions": [{"bbox": BOX}, {"segmentation": [[1, 1, 9, 1, 9, 9]]}],
    "tags": ["dog"],
}
DETECTION = {
    "image": "a.jpg",
    "width": 64,
    "height": 48,
    "detection": {"instances": [{"bbox": BOX, "label": 1, "category": "dog"}] * 2},
    "conversations": TALK,
}


@arbitrary(4000)
@given(row=st.sampled_from([GROUNDING, DETECTION]), edits=EDITS)
def test_any_row_is_read_or_named(row, edits):
    @named_errors
    def read() -> None:
        made = read_row(edited(row, edits), "rows.jsonl:1", 3)
        picture_path("images", made.filename, made.where)
        size = (made.width or 64, made.height or 48)
        ledger = Ledger()
        phrase_targets(made, size, ledger)
        label_targets(made, size, ledger)
        for options in (CaptionOptions(), CaptionOptions(short=True), CaptionOptions(clean=False)):
            conversations(made, options, ledger)

    read()


COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": "b", "file_name": "b.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": BOX, "iscrowd": 0, "area": 3},
        {"id": 2, "image_id": "b", "category_id": 8, "bbox": BOX, "ignore": True},
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "red ball"}],
}


@pytest.fixture
def open_content(monkeypatch):
    """A data set of a document that lies in no file."""

    def build(content: Any) -> CocoDataset:
        monkeypatch.setattr(CocoFile, "read", lambda path: CocoFile.parse(content, "a.json"))
        return CocoDataset(ann_file="a.json", data_prefix=dict(img="images/"), return_classes=True)

    return build


@arbitrary(2000)
@given(edits=EDITS)
def test_any_annotations_are_read_or_named(open_content, edits):
    @named_errors
    def read() -> None:
        dataset = open_content(edited(COCO, edits))
        for number in range(len(dataset)):
            dataset.prepare_data(number)

    read()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return PromptTokenizer(load_tokenizer(tiny_bert(tmp_path_factory.mktemp("any") / "bert")), 64)


SPANS = st.one_of(
    st.none(),
    st.just(-1),
    st.lists(st.lists(st.integers(-2, 20), min_size=1, max_size=3), max_size=3),
    st.lists(st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=2), max_size=2)),
    VALUES,
)
PROMPTS = st.one_of(TEXTS, WORDS, st.sampled_from(["a red dog and a cat", "dog . cat . $: lvis"]))


@arbitrary(2000)
@given(
    text=PROMPTS | st.lists(PROMPTS, max_size=4) | VALUES,
    spans=SPANS,
    form=st.sampled_from(["classes", "text", "expression", "spans", "prompts"]),
)
def test_any_prompt_is_written_or_named(tokenizer, text, spans, form):
    @named_errors
    def write() -> None:
        asked = as_prompt(text) if form == "prompts" else None
        wanted = (text, spans) if form == "spans" else text
        ask(asked or read_question(**{form: wanted}), tokenizer, PromptOptions())

    write()


@arbitrary(500)
@given(text=st.one_of(TEXTS, WORDS, VALUES.map(repr), VALUES.map(str), st.just("[" * 9999)))
def test_any_boxes_and_spans_of_the_command_line_are_read_or_named(text):
    named_errors(parse_boxes)(text)
    named_errors(parse_spans)(text)
    with contextlib.suppress(TypeError, ValueError):
        named_errors(parse_boxes)(json.dumps(text))


RUN = dict(
    model=dict(type="GroundingDINO", num_queries=5, test_cfg=dict(limit_per="chunk")),
    train_dataloader=dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler")),
    val_evaluator=[dict(type="LVISFixedAPMetric", ann_file="a.json")],
    optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1), clip_grad=dict(max_norm=1)),
    train_cfg=dict(max_iters=3, val_interval=2),
    default_hooks=dict(checkpoint=dict(interval=2), logger=dict(interval=1)),
    env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork")),
    randomness=dict(seed=3),
    auto_scale_lr=dict(base_batch_size=16),
)


@arbitrary(1000)
@given(edits=EDITS)
def test_any_config_is_checked_or_named(edits):
    content = edited(RUN, edits)
    if isinstance(content, dict):
        config = Config()
        config._cfg_dict.update(content)
        named_errors(check_settings)(config)


PARTS = [
    (TRANSFORMS, dict(type="LoadImageFromFile", imdecode_backend="cv2", max_pixels=5)),
    (TRANSFORMS, dict(type="FixScaleResize", scale=(64, 96), keep_ratio=True)),
    (TRANSFORMS, dict(type="RandomFlip", prob=0.5)),
    (HOOKS, dict(type="EMAHook", momentum=0.1, priority=49)),
]


@arbitrary(500)
@given(part=st.sampled_from(PARTS), edits=EDITS)
def test_any_part_of_a_config_is_built_or_named(part, edits):
    init_default_scope("llmdet")
    registry, right = part
    settings = edited(right, edits)
    with checked_builds():
        if isinstance(settings, dict):
            named_errors(registry.build)(settings)
