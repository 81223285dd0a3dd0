"""Real-Model's configs: long text, three sets alike, and a training step from rows to a loss."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from llmdet.datasets.inspection import build_dataset
from llmdet.datasets.samplers import ShareSampler
from llmdet.datasets.text_encoder import share_text_encoder
from llmdet.datasets.toy.models import tiny_bert
from llmdet.engine.loops import RepeatableBatch
from llmdet.engine.settings import check_settings
from llmdet.testing.models import tiny_grounding_dino
from llmdet.utils.config import load_config, typed_parts

CONFIGS = Path(__file__).parents[2] / "configs"
SETS = {
    "objects365/real_data_objects365_base.jsonl": "objects365/images",
    "openimages/real_data_openimages_base.jsonl": "openimages/images",
    "coco/annotations/real_data_lvis.jsonl": "coco/train2017",
}
DOG = {
    "bboxes": [[5, 5, 40, 30]],
    "category": "dog",
    "relation": "single",
    "postive_expressions": ["a red dog on the left", "the dog"],
    "negative_expressions": ["a blue dog", "a dog on the right", "two dogs"],
}
BOTH = DOG | {"bboxes": [[5, 5, 40, 30], [45, 5, 60, 30]], "relation": "multiple"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def config(tmp_path, bert):
    """Swin-T's config with two rows a set, and small pictures."""
    for number, (file, folder) in enumerate(SETS.items()):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (60, 90, 60)).save(tmp_path / folder / "a.jpg")
        row = {"filename": "a.jpg", "height": 48, "width": 64}
        rows = [row | {"pairs": {"vlm_short": DOG, "llm": [BOTH] * (number + 1)}}] * (number + 1)
        (tmp_path / file).write_text("".join(json.dumps(one) + "\n" for one in rows))
    options = {"data_root": f"{tmp_path}/", "lang_model_name": bert}
    loaded = load_config(CONFIGS / "real_model/swin_t.py", options)
    for step in typed_parts(loaded.train_dataloader.dataset):
        if step["type"] == "RandomChoiceResize":
            step["scales"] = [(96, 128), (64, 96)]
        if step["type"] == "RandomCrop":
            step["crop_size"] = (32, 48)
    return loaded


@pytest.mark.parametrize("name", ["swin_t", "swin_b"])
def test_one_place_says_how_long_the_text_is(name):
    config = load_config(CONFIGS / f"real_model/{name}.py")
    check_settings(config)
    assert config.model.language_model.max_tokens == 512
    assert "max_text_len" not in config.model.bbox_head.contrastive_cfg
    share_text_encoder(config)
    steps = list(typed_parts(config.train_dataloader.dataset))
    limits = [step["max_tokens"] for step in steps if step["type"] == "SampleExpressions"]
    assert limits == [512] * 3


def test_swin_b_differs_in_its_backbone_alone():
    small, large = (load_config(CONFIGS / f"real_model/swin_{size}.py") for size in "tb")
    assert large.model.backbone.depths == [2, 2, 18, 2]
    assert large.model.neck.in_channels == [256, 512, 1024]
    assert large.load_from == "checkpoints/mm_grounding_dino_swin_b.pth"
    assert large.train_dataloader == small.train_dataloader
    assert large.optim_wrapper == small.optim_wrapper


@pytest.mark.parametrize("benchmark", ["d3", "ovdeval", "omnilabel"])
def test_benchmarks_ask_for_one_description_in_a_prompt_of_512_tokens(benchmark):
    for size in "tb":
        real = load_config(CONFIGS / f"val/{benchmark}_real_swin_{size}.py")
        plain = load_config(CONFIGS / f"val/{benchmark}_swin_t.py")
        assert real.model.language_model.max_tokens == 512
        assert (real.model.test_cfg.chunked_size, plain.model.test_cfg.chunked_size) == (1, -1)
        assert real.test_dataloader == plain.test_dataloader
        assert real.test_evaluator == plain.test_evaluator
        assert real.model.backbone.embed_dims == {"t": 96, "b": 128}[size]


def test_each_of_three_sets_gives_a_third_whatever_its_size(config):
    dataset = build_dataset(config)
    settings = {k: v for k, v in config.train_dataloader.sampler.items() if k != "type"}
    assert [len(part) for part in dataset.datasets] == [1, 2, 3]
    drawn = np.array(list(islice(ShareSampler(dataset, **settings, seed=0), 30)))
    of_set = np.searchsorted(dataset.cumulative_sizes, drawn, side="right")
    assert np.bincount(of_set).tolist() == [10, 10, 10]


def test_rows_become_a_loss(config, bert):
    dataset = build_dataset(config)
    batch = pseudo_collate([dataset[index] for index in RepeatableBatch((0, 3), (1, 2))])
    model = tiny_grounding_dino(bert, language_model=dict(max_tokens=512)).train()
    losses = model(**model.data_preprocessor(batch, True), mode="loss")
    total, _ = model.parse_losses(losses)
    assert total.isfinite()


def test_a_sample_is_drawn_again_as_it_was_when_a_run_is_resumed(config):
    dataset = build_dataset(config)

    def drawn(key):
        samples = [dataset[index] for index in RepeatableBatch((0, 1, 5), key)]
        texts = [sample["data_samples"].grounding.prompt.text for sample in samples]
        return texts, [sample["inputs"] for sample in samples]

    (texts, pixels), (other, _), (again, same) = (
        drawn((7, 0, 4)),
        drawn((7, 0, 5)),
        drawn((7, 0, 4)),
    )
    assert texts == again != other
    assert all(torch.equal(a, b) for a, b in zip(pixels, same, strict=True))
