"""A detector between tensors gives what the detector gives, before anything is exported."""

from dataclasses import replace

import pytest
import torch
from mmdet.structures import DetDataSample

from llmdet.datasets.sample import GroundingSample
from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError
from llmdet.export import check
from llmdet.export.program import FixedPromptProgram, TextInputProgram
from llmdet.export.text import encode_prompt
from llmdet.export.writing import ExportOptions, example_inputs, make_program, smallest_side
from llmdet.models.detectors.settings import ReferringSettings
from llmdet.prompts.parse import parse_prompt
from llmdet.testing.models import tiny_grounding_dino

CLASSES = ["dog", "red circle", "cat", "large blue square", "green star"]
SIZE = (70, 101)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    bert = tiny_bert(tmp_path_factory.mktemp("bert"))
    return tiny_grounding_dino(bert, test_cfg={"limit_per": "image"})


@pytest.fixture
def images():
    return torch.randn(2, 3, *SIZE)


def detections(model, images, prompt):
    """What the detector itself finds: boxes in 0..1, scores and labels of each image."""
    samples = [
        DetDataSample(metainfo={"img_shape": SIZE, "grounding": GroundingSample(prompt)})
        for _ in images
    ]
    found = model.detect(images, samples, rescale=False).detections
    size = torch.tensor([SIZE[1], SIZE[0]] * 2)
    return [(each.bboxes / size, each.scores, each.labels) for each in found]


@pytest.mark.parametrize("chunk", [-1, 2])
@torch.no_grad()
def test_one_text_or_several_are_looked_for_as_the_detector_does(model, images, chunk, monkeypatch):
    prompt = parse_prompt(CLASSES)
    monkeypatch.setattr(model, "test_cfg", replace(model.test_cfg, chunked_size=chunk))
    encoded = encode_prompt(model, prompt)
    assert len(encoded.offsets) == (1 if chunk == -1 else 3)
    assert encoded.classes == tuple(CLASSES)
    found = FixedPromptProgram(model, encoded)(images)
    for index, (boxes, scores, labels) in enumerate(detections(model, images, prompt)):
        torch.testing.assert_close(found["scores"][index], scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(found["boxes"][index], boxes, rtol=0, atol=1e-5)
        assert torch.equal(found["labels"][index], labels)


@pytest.mark.parametrize("subject_only", [False, True])
@torch.no_grad()
def test_expressions_are_looked_for_as_the_detector_does(model, images, subject_only, monkeypatch):
    settings = replace(model.test_cfg, referring=ReferringSettings(subject_only=subject_only))
    monkeypatch.setattr(model, "test_cfg", settings)
    prompt = parse_prompt("the large dog left of the cat", tokens_positive=-1)
    encoded = encode_prompt(model, prompt)
    assert encoded.best_token is not subject_only
    found = FixedPromptProgram(model, encoded)(images)
    for index, (boxes, scores, labels) in enumerate(detections(model, images, prompt)):
        torch.testing.assert_close(found["scores"][index], scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(found["boxes"][index], boxes, rtol=0, atol=1e-5)
        assert torch.equal(found["labels"][index], labels)


def test_expressions_that_programs_cannot_score_are_refused(model, monkeypatch):
    prompt = parse_prompt("the left dog", tokens_positive=-1)
    with pytest.raises(ConfigError, match="'the left dog' is a referring expression"):
        make_program(model, encode_prompt(model, prompt), ExportOptions(*SIZE), True)
    settings = replace(model.test_cfg, referring=ReferringSettings(position_boost=True))
    monkeypatch.setattr(model, "test_cfg", settings)
    with pytest.raises(ConfigError, match="position_boost"):
        encode_prompt(model, prompt)


@torch.no_grad()
def test_texts_may_come_with_the_images(model, images, monkeypatch):
    monkeypatch.setattr(model, "test_cfg", replace(model.test_cfg, chunked_size=4))
    texts = encode_prompt(model, parse_prompt(CLASSES)).tensors
    assert not texts.token_mask.all()  # the shorter text is padded
    found = TextInputProgram(model)(images, **vars(texts))
    for index, classes in enumerate((CLASSES[:4], CLASSES[4:])):
        alone = FixedPromptProgram(model, encode_prompt(model, parse_prompt(classes)))
        expected = alone(images[index : index + 1])
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(found[name][index], expected[name][0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_bytes_are_normalised_within(model):
    encoded = encode_prompt(model, parse_prompt(CLASSES))
    pixels = torch.randint(0, 256, (1, *SIZE, 3), dtype=torch.uint8)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    normalised = ((pixels - mean) / std).permute(0, 3, 1, 2)
    expected = FixedPromptProgram(model, encoded)(normalised)
    found = FixedPromptProgram(model, encoded, uint8=True)(pixels)
    torch.testing.assert_close(found["scores"], expected["scores"])


@torch.no_grad()
def test_half_precision_changes_scores_by_its_rounding_only(model, images):
    encoded = encode_prompt(model, parse_prompt(CLASSES))
    exact = FixedPromptProgram(model, encoded)
    half = make_program(model, encoded, ExportOptions(*SIZE, fp16=True), False)
    assert {weight.dtype for weight in half.parameters()} == {torch.float16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    found = half(images)
    assert found["scores"].dtype == found["boxes"].dtype == torch.float32
    assert check.compare(exact, {"image": images}, found).scores < check.TOLERANCE_FP16


@torch.no_grad()
def test_comparing_sees_wrong_numbers_and_forgives_the_order_of_ties(model, images):
    program = FixedPromptProgram(model, encode_prompt(model, parse_prompt(CLASSES)))
    inputs = {"image": images}
    found = program(**inputs)
    swapped = found["pixels"].clone()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    other = program(**inputs, pixels=swapped)
    assert check.compare(program, inputs, found).largest() < 1e-6
    # Not a tie: what was chosen first is likelier.
    assert check.compare(program, inputs, other).choice > 1e-6
    assert check.compare(program, inputs, other).scores < 1e-6
    for name, place in (("query_boxes", "boxes"), ("logits", "scores"), ("scores", "detections")):
        wrong = {**found, name: found[name] + 0.1}
        assert getattr(check.compare(program, inputs, wrong), place) > 1e-3
    nothing = {**found, "boxes": torch.full_like(found["boxes"], torch.nan)}
    assert check.compare(program, inputs, nothing).largest() > 1e-3


def test_several_texts_and_texts_as_inputs_exclude_each_other(model, monkeypatch):
    monkeypatch.setattr(model, "test_cfg", replace(model.test_cfg, chunked_size=2))
    encoded = encode_prompt(model, parse_prompt(CLASSES))
    with pytest.raises(ConfigError, match="3 texts"):
        make_program(model, encoded, ExportOptions(*SIZE), True)
    with pytest.raises(ConfigError, match="multiples of 32"):
        ExportOptions(70, 96, dynamic=True)


def test_the_smallest_image_has_a_pixel_for_each_query(model):
    program = FixedPromptProgram(model, encode_prompt(model, parse_prompt(CLASSES)))
    side = smallest_side(program)
    assert side == 64
    prompt = encode_prompt(model, parse_prompt(CLASSES))
    inputs = example_inputs(prompt, ExportOptions(side, side), 1, (side, side), False)
    assert program(**inputs)["pixels"].shape == (1, model.num_queries)
