"""The detector as a runner and a demo see it."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.datasets.sample import GroundingSample
from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError, DataError
from llmdet.models.detectors.settings import TestSettings
from llmdet.prompts import Expression, Expressions, parse_prompt
from llmdet.testing.models import tiny_grounding_dino

SENTENCE = "a red circle above two small stars. "
SPANS = {0: [[0, 12]], 1: [[19, 34]]}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(bert):
    return tiny_grounding_dino(bert)


def asked(text, size=(64, 96), **settings):
    scale = {"scale_factor": (1.0, 1.0), "img_shape": size}
    return DetDataSample(metainfo={"text": text, **scale, **settings})


def taught(text, boxes, labels, size=(64, 96), **settings):
    sample = asked(text, size, **settings)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    return sample


def batch_of_two():
    return torch.randn(2, 3, 64, 96), [
        taught(SENTENCE, [[5, 5, 30, 40], [40, 20, 60, 50]], [0, 1], tokens_positive=SPANS),
        taught(["red circle", "blue square", "cat"], [[10, 10, 50, 50]], [2]),
    ]


def padded(images):
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch


def assert_same_detections(first, second):
    torch.testing.assert_close(first.scores, second.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(first.bboxes, second.bboxes, atol=1e-3, rtol=0)
    assert torch.equal(first.labels, second.labels)
    assert first.label_names == second.label_names


def test_a_batch_of_any_prompts_and_sizes_gives_what_single_images_give(model):
    sizes = [(64, 96), (80, 64), (64, 96)]
    images = [torch.randn(3, *size) for size in sizes]
    prompts = [
        {"text": ["red circle", "blue square"]},
        {"text": "many small apples next to a large dog. "},
        {"text": "cat . person . stop sign", "custom_entities": True},
    ]
    together = model.predict(
        padded(images), [asked(size=s, **p) for s, p in zip(sizes, prompts, strict=True)]
    )
    for image, size, prompt, found in zip(images, sizes, prompts, together, strict=True):
        (alone,) = model.predict(image[None], [asked(size=size, **prompt)])
        assert_same_detections(found.pred_instances, alone.pred_instances)


def test_training_losses_do_not_depend_on_the_neighbours_prompt(model, bert):
    model = tiny_grounding_dino(bert, use_dn=False)
    images, samples = batch_of_two()
    per_image = [model.forward_train(images[i : i + 1], samples[i : i + 1]) for i in (0, 1)]
    together = model.forward_train(images, samples)
    for index, alone in enumerate(per_image):
        length = alone.predictions.logits.shape[-1]
        torch.testing.assert_close(
            together.predictions.logits[:, index, :, :length],
            alone.predictions.logits[:, 0],
            atol=1e-4,
            rtol=0,
        )


def test_the_quirks_of_the_original_do_depend_on_the_neighbour(bert):
    quirky = tiny_grounding_dino(
        bert, quirks={"fusion_attends_to_padded_text": True, "head_major_text_mask": True}
    )
    images = torch.randn(2, 3, 64, 96)
    texts = [["cat"], ["a very long class name", "another one", "dog"]]
    together = quirky.predict(images, [asked(text) for text in texts])
    (alone,) = quirky.predict(images[:1], [asked(texts[0])])
    difference = (together[0].pred_instances.scores - alone.pred_instances.scores).abs().max()
    assert difference > 1e-5


def test_boxes_are_given_in_pixels_of_the_original_image(model):
    images = torch.randn(1, 3, 64, 96)
    settings = {"text": ["cat"], "scale_factor": (2.0, 0.5)}
    original = model.predict(images, [asked(**settings)])[0].pred_instances
    network = model.predict(images, [asked(**settings)], rescale=False)[0].pred_instances
    factors = torch.tensor([2.0, 0.5, 2.0, 0.5])
    torch.testing.assert_close(original.bboxes * factors, network.bboxes)
    assert network.bboxes.min() >= 0
    assert (network.bboxes <= torch.tensor([96.0, 64, 96, 64])).all()


def test_more_classes_than_fit_are_chunked_and_come_back_sorted_and_capped(model):
    names = [f"thing number {i}" for i in range(60)]
    (sample,) = model.predict(torch.randn(1, 3, 64, 96), [asked(names)])
    found = sample.pred_instances
    assert len(found) == 15
    assert (found.scores.diff() <= 0).all()
    assert found.label_names == [names[label] for label in found.labels.tolist()]


def test_a_limit_per_chunk_keeps_the_best_of_every_prompt_and_says_so(bert):
    names = [f"thing number {i}" for i in range(12)]
    image, found = torch.randn(1, 3, 64, 96), {}
    for limit in ("image", "chunk"):
        settings = {"limit_per": limit, "chunked_size": 4, "max_per_img": 15}
        (sample,) = tiny_grounding_dino(bert, test_cfg=settings).predict(image, [asked(names)])
        assert sample.limit_per == limit
        assert (sample.pred_instances.scores.diff() <= 0).all()
        found[limit] = sample.pred_instances
    assert len(found["image"]) == 15
    assert (found["chunk"].labels // 4).bincount().tolist() == [15, 15, 15]
    assert_same_detections(found["chunk"][:15], found["image"])


@pytest.mark.parametrize("per_forward", [1, 3, 100])
def test_chunks_give_the_same_however_many_run_at_once(bert, per_forward):
    names = [f"thing number {i}" for i in range(40)]
    images = torch.randn(1, 3, 64, 96)
    found = []
    for count in (per_forward, 2):
        model = tiny_grounding_dino(bert, test_cfg={"chunks_per_forward": count})
        found.append(model.predict(images, [asked(names)])[0].pred_instances)
    assert_same_detections(*found)


def test_bfloat16_detections_are_near_those_of_float32_with_boxes_in_float32(bert):
    torch.manual_seed(0)
    image, text = torch.randn(1, 3, 64, 96), ["cat", "dog"]
    model = tiny_grounding_dino(bert)
    exact = model.detect(image, [asked(text)]).detections[0]
    model.test_cfg = TestSettings(dtype="bfloat16")
    found = model.detect(image, [asked(text)]).detections[0]
    assert found.bboxes.dtype == found.scores.dtype == torch.float32
    assert not torch.equal(found.scores, exact.scores)
    torch.testing.assert_close(found.scores, exact.scores, rtol=0, atol=2e-2)


def test_a_label_without_spans_is_found_nowhere(model):
    spans = {0: [[0, 12]], 2: [[19, 34]]}
    (sample,) = model.predict(torch.randn(1, 3, 64, 96), [asked(SENTENCE, tokens_positive=spans)])
    found = sample.pred_instances
    assert len(found) == 15
    assert ((found.scores > 0) & (found.scores < 1)).all()
    assert set(zip(found.labels.tolist(), found.label_names, strict=True)) == {
        (0, "a red circle"),
        (2, "two small stars"),
    }


def test_a_referring_expression_is_one_entity(model):
    text = "the small dog on the left"
    image = torch.randn(1, 3, 64, 96)
    (sample,) = model.predict(image, [asked(text, tokens_positive=-1)])
    found = sample.pred_instances
    assert found.labels.tolist() == [0] * 15
    assert {name.strip(" .") for name in found.label_names} == {text}
    # The score of a query is that of its best token.
    features = model.detect(image, [asked(text, tokens_positive=-1)], keep_features=True).features
    best = features.predictions.logits[-1, 0].sigmoid().amax(-1)
    torch.testing.assert_close(found.scores, best[found.bbox_index])
    torch.testing.assert_close(found.scores, best.topk(15).values)


def test_descriptions_prefer_the_side_that_each_of_them_names(bert):
    image, texts = torch.randn(1, 3, 64, 96), ("the left dog", "the dog on the right")
    model = tiny_grounding_dino(bert, test_cfg={"referring": {"position_boost": True}})

    def found(prompt):
        sample = asked("dog")
        sample.set_metainfo({"grounding": GroundingSample(prompt)})
        return model.predict(image, [sample])[0].pred_instances

    together = found(Expressions(texts))
    assert (together.scores.diff() <= 0).all()
    for label, text in enumerate(texts):
        kept = together.scores[together.labels == label]
        torch.testing.assert_close(kept, found(Expression(text)).scores[: len(kept)])


def test_the_protocol_of_referring_expressions_is_a_setting(bert):
    text, image = "the small dog on the left next to a cat", torch.randn(1, 3, 64, 96)
    found = {}
    for name in ("", "subject_only", "position_boost"):
        model = tiny_grounding_dino(bert, test_cfg={"referring": {name: True} if name else {}})
        sample = asked(text, tokens_positive=-1)
        found[name] = model.predict(image, [sample])[0].pred_instances
    assert found["subject_only"].label_names[0] == "the small dog"
    boosted = found["position_boost"]
    assert (boosted.scores.diff() <= 0).all()
    assert sorted(boosted.bbox_index.tolist()) == sorted(found[""].bbox_index.tolist())
    # Each query keeps its box, whatever its new place.
    boxes = dict(zip(found[""].bbox_index.tolist(), found[""].bboxes, strict=True))
    for query, box in zip(boosted.bbox_index.tolist(), boosted.bboxes, strict=True):
        assert torch.equal(box, boxes[query])


LOSSES = {
    f"{prefix}loss_{kind}"
    for prefix in ("", "d0.", "enc_", "dn_", "d0.dn_")
    for kind in ("cls", "bbox", "iou")
}


@pytest.mark.parametrize("boxes", ["both", "one image", "none"])
@pytest.mark.parametrize("size", [1, 2])
def test_every_loss_is_there_and_every_parameter_gets_a_gradient(bert, boxes, size):
    model = tiny_grounding_dino(bert).train()
    images, samples = batch_of_two()
    images, samples = images[:size], samples[:size]
    for sample in samples[0 if boxes == "none" else 1 :] if boxes != "both" else []:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model.loss(images, samples)
    assert set(losses) == LOSSES
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_a_caption_without_any_phrase_trains(bert):
    model = tiny_grounding_dino(bert).train()
    sample = taught("nothing to see here. ", [], [], tokens_positive={})
    assert torch.isfinite(sum(model.loss(torch.randn(1, 3, 64, 96), [sample]).values()))


def test_without_denoising_its_embedding_is_frozen_and_its_losses_are_absent(bert):
    model = tiny_grounding_dino(bert, use_dn=False).train()
    losses = model.loss(*batch_of_two())
    assert set(losses) == {name for name in LOSSES if "dn_" not in name}
    assert not model.dn_query_generator.label_embedding.weight.requires_grad


def test_recomputing_activations_changes_memory_only(bert):
    plain = tiny_grounding_dino(bert).train()
    recomputing = tiny_grounding_dino(
        bert,
        encoder={"num_cp": 2},
        decoder={"num_cp": 2},
        backbone={"with_cp": True},
        language_model={"use_checkpoint": True},
    ).train()
    images, samples = batch_of_two()
    for model in (plain, recomputing):
        torch.manual_seed(0)
        sum(model.loss(images, samples).values()).backward()
    gradients = dict(recomputing.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(
            gradients[name].grad, parameter.grad, msg=lambda m, n=name: n + m
        )


def test_frozen_parts_get_no_gradient_and_stay_in_eval_mode(bert):
    model = tiny_grounding_dino(bert, freeze_backbone=True, freeze_lm=True).train()
    sum(model.loss(*batch_of_two()).values()).backward()
    for part in (model.backbone, model.neck, model.language_model):
        assert not part.training
        assert all(parameter.grad is None for parameter in part.parameters())
    assert model.encoder.training


def test_five_levels_work(bert):
    model = tiny_grounding_dino(
        bert,
        num_feature_levels=5,
        backbone={"out_indices": (0, 1, 2, 3)},
        neck={"in_channels": [8, 16, 32, 64], "num_outs": 5},
        encoder={"layer_cfg": {"self_attn_cfg": {"num_levels": 5}}},
        decoder={"layer_cfg": {"cross_attn_cfg": {"num_levels": 5}}},
    ).train()
    images, samples = batch_of_two()
    output = model.forward_train(images, samples)
    # Strides 4 to 64 of 64 x 96 pixels; queries come from any of them.
    shapes = ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2))
    assert output.encoded.pyramid.shapes == shapes
    sum(output.losses.values()).backward()
    offsets = [layer.self_attn.sampling_offsets.bias.grad for layer in model.encoder.layers]
    for gradient in offsets:  # every level is read
        heads = model.encoder.layers[0].self_attn.num_heads
        assert (gradient.view(heads, 5, -1).abs().sum((0, 2)) > 0).all()


def test_bf16_autocast_keeps_boxes_and_losses_in_float32(bert):
    model = tiny_grounding_dino(bert).train()
    images, samples = batch_of_two()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.forward_train(images, samples)
    assert output.predictions.boxes.dtype == torch.float32
    assert output.decoded.references.dtype == torch.float32
    assert all(loss.dtype == torch.float32 for loss in output.losses.values())
    assert torch.isfinite(sum(output.losses.values()))


def test_an_mmdet_config_builds_and_runs_unchanged(bert, tmp_path):
    from llmdet.models import GroundingDINO
    from llmdet.registry import MODELS
    from llmdet.utils.config import load_config

    path = tmp_path / "config.py"
    path.write_text(
        "_base_ = 'mmdet::mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py'\n"
        "default_scope = 'llmdet'\n"
    )
    config = load_config(path)
    config.model.language_model.name = bert  # no download in a test
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model).eval()
    assert type(model) is GroundingDINO
    (sample,) = model.predict(torch.randn(1, 3, 256, 320), [asked(["cat"], (256, 320))])
    assert len(sample.pred_instances) == 300


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"encoder": {"num_layer": 2}},
            "model.encoder has the unknown key 'num_layer'.*num_layers",
        ),
        ({"quirks": {"typo": True}}, "model.quirks has the unknown key 'typo'"),
        ({"test_cfg": {"max_per_image": 5}}, "model.test_cfg .*'max_per_image'.*max_per_img"),
        ({"with_box_refine": False}, "with_box_refine"),
        (
            {"bbox_head": {"contrastive_cfg": {"max_text_len": 256}}},
            r"max_text_len=256, but model.language_model.max_tokens=64",
        ),
        ({"decoder": {"return_intermediate": False}}, "return_intermediate"),
    ],
)
def test_wrong_settings_name_the_key(bert, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        tiny_grounding_dino(bert, **changes)


def test_a_label_without_a_token_is_refused_before_the_device_sees_it(model):
    sample = taught("a dog and a cat", [[1.0, 1, 9, 9]], [1], tokens_positive={0: [[2, 5]]})
    sample.set_metainfo({"img_path": "a.jpg"})
    with pytest.raises(DataError, match=r"^a\.jpg: A box has the label 1, and no token"):
        model.loss(torch.randn(1, 3, 64, 96), [sample])


def test_the_model_tokenises_nothing_that_a_worker_has_tokenised(model, monkeypatch):
    sample = taught(["cat", "dog"], [[1.0, 1, 9, 9]], [1])
    images = torch.randn(1, 3, 64, 96)
    made = model.language_model.prompts(parse_prompt(["cat", "dog"]))
    torch.manual_seed(0)  # of the denoising queries
    expected = model.loss(images, [sample])
    sample.set_metainfo({"grounding": GroundingSample(tokenized=made)})
    # What is left of the tokenizer cannot be called.
    monkeypatch.setattr(model.language_model.prompts, "tokenizer", SimpleNamespace(pad_token_id=0))
    torch.manual_seed(0)
    assert model.loss(images, [sample]) == expected


def test_class_lists_are_tokenised_once_and_not_for_every_image(model, monkeypatch):
    texts = []
    tokenize = model.language_model.prompts.tokenize
    monkeypatch.setattr(
        model.language_model.prompts,
        "tokenize",
        lambda written: texts.append(written.text) or tokenize(written),
    )
    for _ in range(3):
        model.predict(torch.randn(2, 3, 64, 96), [asked(["kite", "lamp"]), asked(("kite", "lamp"))])
    assert texts == ["kite. lamp. "]


def test_too_many_classes_for_one_training_prompt_are_refused(model):
    sample = taught([f"class number {i}" for i in range(90)], [], [], img_path="a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: its 90 classes exceed"):
        model.loss(torch.randn(1, 3, 64, 96), [sample])


def test_an_image_smaller_than_the_queries_is_refused(model):
    with pytest.raises(DataError, match="num_queries=20"):
        model.predict(torch.randn(1, 3, 16, 16), [asked(["cat"], (16, 16))])


def test_a_run_keeps_what_the_first_prompt_of_each_image_gave_where_captions_need_it(bert):
    sizes = [(64, 96), (80, 64), (64, 96)]
    images = [torch.randn(3, *size) for size in sizes]
    texts = [["cat", "dog", "person"], "two apples. ", ["stop sign", "tree"]]
    model = tiny_grounding_dino(bert, test_cfg={"chunked_size": 1, "chunks_per_forward": 2})
    samples = [asked(text, size) for text, size in zip(texts, sizes, strict=True)]
    run = model.detect(padded(images), samples, keep_features=True)
    plain = model.detect(padded(images), samples)
    assert plain.features is None
    assert "pred_instances" not in samples[0]
    for with_features, without in zip(run.detections, plain.detections, strict=True):
        assert_same_detections(with_features, without)
    pyramid = model.read_images(padded(images), samples)
    expected = model.forward_prompts(pyramid, ["cat. ", "two apples. ", "stop sign. "])
    memory, boxes = run.features.encoded.memory, run.features.predictions.boxes
    torch.testing.assert_close(memory, expected.encoded.memory)
    torch.testing.assert_close(boxes, expected.predictions.boxes)
    torch.testing.assert_close(run.features.decoded.hidden_states, expected.decoded.hidden_states)
    assert len(memory) == len(images)
