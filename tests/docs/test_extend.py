"""What docs/extend.md shows runs as it is printed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.datasets.toy.models import tiny_bert, tiny_qwen
from llmdet.models.language.language_model import Generated
from llmdet.prompts.conversation import ask
from llmdet.registry import MODELS
from llmdet.utils.config import load_config

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
_BLOCK = re.compile(r"```python\n# ((?:my_project/)?\w+\.py)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def printed(root, tmp_path_factory):
    """A folder with every file that the document prints."""
    folder = tmp_path_factory.mktemp("printed")
    (folder / "my_project").mkdir()
    blocks = dict(_BLOCK.findall((root / "docs" / "extend.md").read_text()))
    for name, text in blocks.items():
        (folder / name).write_text(text)
    (folder / "configs").symlink_to(root / "configs")
    return folder, blocks


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    bert, qwen = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("qwen")
    return str(tiny_bert(bert)), tiny_qwen(qwen)


@pytest.fixture
def build(printed, folders, monkeypatch):
    """Builds the model of a printed config, with models of toy size."""
    folder, _ = printed
    monkeypatch.syspath_prepend(str(folder))

    def make(config):
        bert, qwen = folders
        settings = load_config(folder / config, {"model.language_model.name": bert}).model
        settings.lmm.model = qwen
        settings.num_queries = 20
        torch.manual_seed(0)
        return MODELS.build(settings)

    return make


def samples(answers):
    made = []
    for answer in answers:
        sample = DetDataSample(
            metainfo={
                "text": "a red circle and a blue square",
                "tokens_positive": {0: [[2, 12]], 1: [[19, 30]]},
                "img_shape": (64, 64),
                "ori_shape": (128, 128),
                "scale_factor": (0.5, 0.5),
                "conversations": [ask("<region:0>\nIs this a circle?", answer)],
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4.0, 4, 30, 30], [10, 20, 60, 50]]), labels=torch.tensor([0, 1])
        )
        made.append(sample)
    return made


@pytest.mark.parametrize("name", ["corners", "presence"])
def test_an_example_is_shorter_than_60_lines(printed, name):
    _, blocks = printed
    lines = [blocks[f"my_project/{name}.py"], blocks[f"{name}_config.py"]]
    assert sum(len(text.splitlines()) for text in lines) < 60


def test_the_region_encoder_trains_and_describes(build):
    model = build("corners_config.py").train()
    encoder = model.region_captioner.encoder
    assert type(encoder).__name__ == "BoxCorners"
    seen = []
    encoder.register_forward_hook(lambda _, args, out: seen.append((args, out)))
    losses = model.loss(IMAGES, samples(["Red circle.", "Red circle."]))
    ((tower, regions), tokens) = seen[0]
    assert tokens.features.shape == (2, 4, tower.tokens.shape[-1])
    torch.testing.assert_close(regions.boxes[0], torch.tensor([8.0, 8, 60, 60]))
    torch.testing.assert_close(tokens.boxes[0, 0], torch.tensor([4.0, 4, 30, 30]) / 64)
    losses["d2.loss_lmm_region"].backward()
    assert model.region_captioner.connector.projector[0].weight.grad.any()
    boxes = [torch.tensor([[8.0, 8, 60, 60]]), torch.zeros(0, 4)]
    found = model.eval().predict(
        IMAGES, samples(["", ""]), captions={"regions"}, boxes=boxes, max_new_tokens=3
    )
    assert [len(sample.region_descriptions) for sample in found] == [1, 0]


def test_a_region_encoder_reads_the_map_at_the_corners(build):
    """A map whose channels hold their own coordinates gives the corners' coordinates."""
    model = build("corners_config.py")
    encoder = model.region_captioner.encoder
    seen = []
    encoder.register_forward_hook(lambda _, args, __: seen.append(args))
    model.loss(IMAGES, samples(["Red circle.", "Red circle."]))
    tower, regions = seen[0]
    height, width = tower.maps[1].shape[2:]
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])[None].expand(2, -1, -1, -1)
    maps = (tower.maps[0], grid, *tower.maps[2:])
    tokens = encoder(replace(tower, maps=maps), regions)
    margin = 0.5 / height
    x1, y1, x2, y2 = (torch.tensor([4.0, 4, 30, 30]) / 64).clamp(margin, 1 - margin)
    expected = torch.tensor([[x1, y1], [x2, y1], [x1, y2], [x2, y2]])
    torch.testing.assert_close(tokens.features[0], expected)


def test_the_output_adds_tokens_and_writes_answers_with_them(build):
    model = build("presence_config.py")
    present, absent = model.lmm.tokenizer.convert_tokens_to_ids(["<present>", "<absent>"])
    for sample, token in zip(samples(["yes", "no"]), (present, absent), strict=True):
        (tokens,) = model.region_captioner.tokenized(sample.conversations)
        assert token in tokens.labels


def test_the_output_reads_a_probability(build):
    model = build("presence_config.py")
    ids = torch.tensor(model.lmm.tokenizer.convert_tokens_to_ids(["<present>", "<absent>"]))
    said = Generated(["", ""], ids[:, None], torch.tensor([[0.75], [1.0]]), torch.zeros(2, 1, 8))
    assert model.region_captioner.output.read(said, model.lmm.tokenizer) == [0.75, 0.0]


def test_the_output_trains_and_is_generated(build):
    model = build("presence_config.py").train()
    batch = samples(["yes", "no"])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(model.loss(IMAGES, batch)["d2.loss_lmm_region"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert model.lmm.causal_lm.get_input_embeddings().added.grad.any(1).all()
    boxes = [2 * sample.gt_instances.bboxes[:1] for sample in batch]
    found = model.eval().predict(IMAGES, batch, captions={"regions"}, boxes=boxes, max_new_tokens=1)
    for sample in found:
        (probability,) = sample.region_descriptions
        assert 0 <= probability <= 1
