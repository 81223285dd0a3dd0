"""Answers with masks: what they cost, what they are, and that they are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate

from llmdet.datasets.masks import decode_mask, encode_mask
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import MakeViews, PackViews
from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.metrics.samples import row_of_sample
from llmdet.models.outputs.mask import MaskAnswer
from llmdet.models.outputs.mask_losses import mask_cross_entropy, mask_dice
from llmdet.prompts.conversation import Conversation, Turn, ask
from llmdet.registry import MODELS
from llmdet.testing.region_models import tiny_region_lmm, with_masks

LEFT = np.zeros((30, 40), bool)
LEFT[:, :20] = True
BOXES = np.array([[0, 0, 20, 30], [20, 0, 40, 30]], np.float32)
HALVES = Regions(BOXES, (encode_mask(LEFT), encode_mask(~LEFT)))


def settings_of(qwen, **output):
    return with_masks(tiny_region_lmm(qwen), **output)


@pytest.fixture
def model(qwen):
    torch.manual_seed(0)
    return MODELS.build(settings_of(qwen))


def picture(mirrored=False):
    image = np.empty((30, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (0, 0, 255), (255, 255, 255)
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image


def batch_of(model, *conversations, regions=HALVES):
    """A batch of pictures, each with some conversations; red is left, then right, and so on."""
    views, made = MakeViews(model.view_settings()), []
    for number, each in enumerate(conversations):
        image = picture(mirrored=number % 2 == 1)
        fields = {"img": image, "ori_shape": image.shape[:2], "conversations": each}
        made.append(PackViews().transform(views.transform({**fields, "regions": regions})))
    return model.data_preprocessor(pseudo_collate(made), True)


def segment(side, number):
    return ask(f"<image>\nSegment the {side} half.", f"It is <mask:{number}>.")


def test_it_learns_which_half_is_red(model):
    data = batch_of(model, [segment("red", 0)], [segment("red", 1)])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        losses = model.loss(**data)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.eval()
    questions = [[ask("<image>\nSegment the red half.")]] * 2
    answers = model.answer_views(data["inputs"], data["data_samples"], questions)
    for (answer,), wanted in zip(answers, (LEFT, ~LEFT), strict=True):
        assert isinstance(answer, MaskAnswer)
        assert str(answer) == "It is [SEG]."
        (mask,) = answer.masks
        found = decode_mask(mask, (30, 40))
        assert (found & wanted).sum() / (found | wanted).sum() > 0.9
        assert 0.5 < answer.scores[0] <= 1
    seen, given = model.look(data["inputs"]), [[segment("red", 0)], [segment("red", 1)]]
    read = model.read_given(seen, data["data_samples"], given)  # the same words
    for (given,), (said,) in zip(read, answers, strict=True):
        pixels = [decode_mask(each.masks[0], (30, 40)) for each in (given, said)]
        assert (pixels[0] != pixels[1]).mean() < 0.01
    model.output.write_prediction(data["data_samples"][0], answers[0])
    row = row_of_sample({"img_id": 1, **data["data_samples"][0].to_dict()})
    assert (row.text, row.phrases, row.masks) == ("It is [SEG].", ("",), answers[0][0].masks)


def test_losses_are_means_over_all_masks_of_the_batch(model):
    one = ask("<image>\nBoth?", "<p>left</p><mask:0> and <p>right</p><mask:1>")
    pairs = [[one], [segment("left", 0)]]
    together = model.loss(**batch_of(model, *pairs))
    alone = [model.loss(**batch_of(model, each)) for each in pairs]
    for name in ("loss_mask", "loss_dice"):
        expected = (2 * alone[0][name] + alone[1][name]) / 3
        torch.testing.assert_close(together[name], expected, rtol=1e-4, atol=1e-5)


def test_what_has_no_mask_costs_none_and_everything_has_a_gradient(model):
    losses = model.loss(**batch_of(model, [ask("<image>\nWhat is it?", "Two halves.")]))
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses.values()).backward()
    trained = [p for p in model.output.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in trained)
    assert model.loss(**batch_of(model, []))["loss_mask"] == 0


def test_masks_behind_a_cut_are_not_learned(qwen):
    settings = settings_of(qwen)
    settings["talk"]["max_length"] = 24
    short = MODELS.build(settings)
    long = ask("<image>\nBoth?", "<mask:0> " + "and then " * 20 + "<mask:1>")
    data = batch_of(short, [long])
    (tokens,) = short._tokenized(data["data_samples"][0])
    assert tokens.cut
    assert short.output.counts([tokens], short.lmm.tokenizer) == {"mask": 1}
    assert short.loss(**data)["loss_mask"] > 0


def test_rows_that_name_no_region_are_refused(model):
    with pytest.raises(DataError, match=r"has 1 masks but names 0 regions: write <mask>"):
        model.loss(**batch_of(model, [ask("<image>\nWhere?", "It is [SEG].")]))
    with pytest.raises(DataError, match=r"mask of region 5 .* the sample has 2"):
        model.loss(**batch_of(model, [segment("left", 5)]))


def test_a_tower_that_is_not_there_is_named(qwen):
    with pytest.raises(ConfigError, match=r"output\.tower='eye' is none of model\.towers: clip"):
        MODELS.build(settings_of(qwen, tower="eye"))


def test_both_losses_follow_from_their_formulas():
    logits, targets = torch.randn(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    p, t = logits.sigmoid().double(), targets.double()
    entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean((1, 2))
    torch.testing.assert_close(mask_cross_entropy(logits, targets).double(), entropy)
    dice = 1 - 2 * (p * t).sum((1, 2)) / (p.sum((1, 2)) + t.sum((1, 2)))
    torch.testing.assert_close(mask_dice(logits, targets).double(), dice, rtol=1e-3, atol=1e-3)


def test_of_given_answers_the_last_one_is_read_and_a_silent_one_has_no_mask(model):
    both = "<p>left</p><mask:0> and <p>right</p><mask:1>"
    first, question = Turn("assistant", both, learned=True), Turn("user", "And the red half?")
    last = Turn("assistant", "It is <mask:0>.", learned=True)
    several = Conversation((Turn("user", "<image>\nBoth?"), first, question, last))
    given = [[several], [ask("<image>\nWhere?", "Nowhere.")]]
    data = batch_of(model.eval(), *given)
    seen = model.look(data["inputs"])
    (shown,), (silent,) = model.read_given(seen, data["data_samples"], given)
    assert (shown.said.text, len(shown.masks)) == ("It is [SEG].", 1)
    assert (silent.said.caption, silent.masks) == ("Nowhere.", ())


def test_files_have_glamms_tokens_whatever_those_of_the_model_are(qwen):
    model = MODELS.build(settings_of(qwen, token="<SEG>", opened="<g>", closed="</g>"))
    said = model.output.grammar.parse("<g> a cat </g> <SEG> sleeps")
    sample = DetDataSample(metainfo={"img_id": 1})
    model.output.write_prediction(sample, [MaskAnswer(said, ({"size": [1, 1], "counts": "1"},))])
    assert sample.pred_text == "<p> a cat </p> [SEG] sleeps"
    assert sample.pred_phrases == ["a cat"]
