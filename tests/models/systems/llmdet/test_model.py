"""The detector that a language model teaches: losses, gradients, and captions out."""

from __future__ import annotations

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.prompts.conversation import ask

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def trainable_without_gradient(model):
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]


def total(losses):
    return sum(value for name, value in losses.items() if "loss" in name)


def test_both_caption_losses_are_added_to_the_detection_losses(make_llmdet, samples):
    model = make_llmdet()
    batch = [samples(2), samples(3)]
    losses = model.loss(IMAGES, batch)
    detection = make_llmdet(lmm=None).loss(IMAGES, batch)
    assert set(losses) - set(detection) == {"loss_lmm_image", "d1.loss_lmm_region"}
    # a random language model knows nothing: close to the entropy of its vocabulary
    uniform = torch.tensor(float(len(model.lmm.tokenizer))).log()
    assert abs(losses["loss_lmm_image"] - uniform) < 1.5
    assert abs(losses["d1.loss_lmm_region"] - uniform) < 1.5


@pytest.mark.parametrize(
    "given",
    [(True, True), (True, False), (False, True), (False, False)],
    ids=["both", "no phrases", "no caption", "neither"],
)
def test_every_trainable_parameter_gets_a_gradient_whatever_a_batch_lacks(
    make_llmdet, samples, given
):
    image, regions = given
    model = make_llmdet().train()
    losses = model.loss(IMAGES, [samples(2, image=image, regions=regions) for _ in range(2)])
    assert {"loss_lmm_image", "d1.loss_lmm_region"} <= set(losses)
    total(losses).backward()
    assert trainable_without_gradient(model) == []
    assert (losses["loss_lmm_image"] == 0) == (not image)
    assert (losses["d1.loss_lmm_region"] == 0) == (not regions)


def test_an_image_without_boxes_is_trained_on_its_caption_alone(make_llmdet, samples):
    model = make_llmdet().train()
    losses = model.loss(IMAGES, [samples(0), samples(0)])
    total(losses).backward()
    assert losses["loss_lmm_image"] > 0
    assert losses["d1.loss_lmm_region"] == 0
    assert trainable_without_gradient(model) == []


def test_captions_of_a_mixed_batch_weigh_by_their_tokens(make_llmdet, samples):
    """The loss of a batch in which one image has no caption is that of the other image."""
    model = make_llmdet()
    both = [samples(2), samples(2, image=False, regions=False)]
    one = model.loss(IMAGES, both)
    alone = model.loss(IMAGES[:1], both[:1])
    torch.testing.assert_close(one["loss_lmm_image"], alone["loss_lmm_image"])
    torch.testing.assert_close(one["d1.loss_lmm_region"], alone["d1.loss_lmm_region"])


def test_without_language_model_it_is_the_plain_detector(make_llmdet, samples):
    full, plain = make_llmdet(), make_llmdet(lmm=None)
    assert not any("lmm" in name or "captioner" in name for name in plain.state_dict())
    plain.load_state_dict(full.state_dict(), strict=False)
    taught, untaught = (
        model.predict(IMAGES[:1], [samples(2)])[0].pred_instances for model in (full, plain)
    )
    torch.testing.assert_close(untaught.bboxes, taught.bboxes, rtol=0, atol=0)
    torch.testing.assert_close(untaught.scores, taught.scores, rtol=0, atol=0)


def test_the_language_model_stays_frozen_and_in_eval_mode(make_llmdet):
    model = make_llmdet().train()
    assert not any(module.training for module in model.lmm.modules())
    trainable = {name for name, p in model.lmm.named_parameters() if p.requires_grad}
    assert trainable
    assert all(
        ".lora_" in name or "region_attention" in name or "reference_head" in name
        for name in trainable
    )


def test_images_and_boxes_are_described(make_llmdet, samples):
    model = make_llmdet()
    options = {"captions": {"image", "regions"}, "max_new_tokens": 4}
    found = model.predict(IMAGES, [samples(2), samples(1)], **options)
    for number, count in enumerate((2, 1)):
        (alone,) = model.predict(IMAGES[number : number + 1], [samples(count)], **options)
        assert found[number].image_description == alone.image_description != ""
        captions = found[number].pred_instances.captions
        assert captions == alone.pred_instances.captions
        assert len(captions) == len(found[number].pred_instances.bboxes) > 0


def test_given_boxes_are_described_instead_of_detected_ones(make_llmdet, samples):
    model = make_llmdet()
    detected = model.predict(
        IMAGES, [samples(2), samples(1)], captions={"regions"}, max_new_tokens=4
    )
    boxes = [detected[0].pred_instances.bboxes[:2], torch.zeros(0, 4)]
    given = model.predict(
        IMAGES, [samples(2), samples(1)], captions={"regions"}, boxes=boxes, max_new_tokens=4
    )
    assert given[0].region_descriptions == detected[0].pred_instances.captions[:2]
    assert given[1].region_descriptions == []
    assert "captions" not in given[0].pred_instances


def test_a_description_does_not_depend_on_how_many_boxes_are_asked_for_at_once(
    make_llmdet, samples
):
    model = make_llmdet()
    boxes = [torch.rand(5, 4).cumsum(1) * 30, torch.rand(3, 4).cumsum(1) * 30]
    texts = []
    for batch_size in (1, 3, 100):
        found = model.predict(
            IMAGES,
            [samples(2), samples(1)],
            captions={"regions"},
            boxes=boxes,
            max_new_tokens=6,
            batch_size=batch_size,
        )
        texts.append([sample.region_descriptions for sample in found])
    assert texts[0] == texts[1] == texts[2]


def test_captions_reuse_what_the_detection_saw(make_llmdet, samples):
    """The decoder runs once, whether or not there are captions, and so does the backbone."""
    model = make_llmdet()
    calls = []
    for part in (model.backbone, model.decoder):
        part.register_forward_hook(lambda module, *_: calls.append(module))
    model.predict(IMAGES, [samples(2), samples(1)], captions={"image", "regions"}, max_new_tokens=2)
    assert calls == [model.backbone, model.decoder]


def test_boxes_of_the_input_are_described_like_those_of_the_original_image(make_llmdet, samples):
    model = make_llmdet()
    texts = []
    for rescale in (True, False):
        found = model.predict(
            IMAGES, [samples(2), samples(1)], rescale, captions={"regions"}, max_new_tokens=4
        )
        texts.append([sample.pred_instances.captions for sample in found])
    assert texts[0] == texts[1]


def test_the_alignment_stage_needs_no_boxes_and_no_text(make_llmdet, samples):
    """A sentence none of whose words is in the image, and rows with a caption alone."""
    model = make_llmdet(
        freeze_detector=True,
        region_captioner=None,
        lmm={"lora": None, "region_attention": None},
    ).train()
    nothing_shown, caption_alone = samples(0), samples(0)
    nothing_shown.set_metainfo({"tokens_positive": {}})
    caption_alone.set_metainfo({"tokens_positive": None, "text": None})
    del caption_alone.gt_instances
    losses = model.loss(IMAGES, [nothing_shown, caption_alone])
    assert set(losses) == {"loss_lmm_image"}
    assert losses["loss_lmm_image"] > 0
    losses["loss_lmm_image"].backward()
    assert trainable_without_gradient(model) == []
    assert all(p.grad is None for p in model.backbone.parameters())


def test_the_alignment_stage_runs_the_backbone_once_and_no_decoder(make_llmdet, samples):
    model = make_llmdet(
        freeze_detector=True,
        region_captioner=None,
        lmm={"lora": None, "region_attention": None},
    ).train()
    batch = [samples(2), samples(2)]
    batch[1].set_metainfo({"img_shape": (48, 64), "ori_shape": (96, 128)})
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append("backbone"))
    model.decoder.register_forward_hook(lambda *_: calls.append("decoder"))
    model.loss(IMAGES, batch)
    assert calls == ["backbone"]


def test_the_alignment_stage_sees_what_training_sees(make_llmdet, samples):
    """Same memory as the main stage, so that the connector learned the features it will get."""
    frozen = make_llmdet(
        freeze_detector=True,
        region_captioner=None,
        lmm={"lora": None, "region_attention": None},
    )
    whole = make_llmdet(region_captioner=None, lmm={"lora": None, "region_attention": None})
    whole.load_state_dict(frozen.state_dict())
    batch = [samples(2), samples(2)]
    batch[1].set_metainfo({"img_shape": (48, 64), "ori_shape": (96, 128)})
    expected = whole.loss(IMAGES, batch)["loss_lmm_image"]
    torch.testing.assert_close(frozen.loss(IMAGES, batch)["loss_lmm_image"], expected)


def test_workers_and_model_agree_on_tokens(make_llmdet, samples):
    from llmdet.datasets.transforms import TokenizeConversations

    model = make_llmdet()
    batch = [samples(2), samples(3)]
    expected = model.loss(IMAGES, batch)
    transform = TokenizeConversations(model.conversation_settings())
    for sample in batch:
        ready = transform.transform({"conversations": sample.conversations})["conversations"]
        assert all(conversation.tokens is not None for conversation in ready)
        sample.set_metainfo({"conversations": ready})
    losses = model.loss(IMAGES, batch)
    for name in ("loss_lmm_image", "d1.loss_lmm_region"):
        assert torch.equal(losses[name], expected[name])


def test_asking_a_plain_detector_for_captions_says_what_is_missing(make_llmdet, samples):
    with pytest.raises(ConfigError, match="needs a model with lmm"):
        make_llmdet(lmm=None).predict(IMAGES, [samples(2), samples(2)], captions={"image"})


def test_an_unknown_captioner_setting_names_its_nearest_match(make_llmdet):
    with pytest.raises(ConfigError, match="did you mean 'max_length'"):
        make_llmdet(image_captioner={"max_lenght": 100})


def test_an_unknown_setting_of_the_detector_names_its_nearest_match(make_llmdet):
    with pytest.raises(ConfigError, match=r"model has the unknown key 'use_dnn'.*'use_dn'"):
        make_llmdet(lmm=None, use_dnn=True)


def test_region_attention_that_nobody_would_use_is_refused(make_llmdet):
    with pytest.raises(ConfigError, match="would never be used"):
        make_llmdet(region_captioner=None)


@pytest.mark.slow
def test_it_learns_to_describe_two_images_and_their_boxes(make_llmdet, samples):
    """From detector features alone: the language model sees no pixel."""
    model = make_llmdet(lmm={"lora": {"r": 8, "alpha": 16}}).train()
    pictures = torch.stack([IMAGES[0], IMAGES[1] - 2])
    batch = [samples(2), samples(2)]
    star = "A large yellow star is below a purple cross."
    said = [
        ask("<image>\nDescribe the image in detail.", star),
        ask("<region:0>\nDescribe the region in a phrase.", "Green triangle."),
        ask("<region:1>\nDescribe the region in a phrase.", "Cross."),
    ]
    batch[1].set_metainfo({"conversations": said})
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        total(model.loss(pictures, batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    boxes = [2 * sample.gt_instances.bboxes for sample in batch]  # of the original image
    for sample in batch:
        sample.set_metainfo({"tokens_positive": None})
    model.eval().predict(
        pictures, batch, captions={"image", "regions"}, boxes=boxes, max_new_tokens=20
    )
    assert [sample.image_description for sample in batch] == [
        "A red circle is above a blue square.",
        star,
    ]
    assert [sample.region_descriptions for sample in batch] == [
        ["Red circle.", "Blue square."],
        ["Green triangle.", "Cross."],
    ]
