"""The detector without words: two learned prompts, class-agnostic losses, proposals."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torchvision.ops import box_iou

from llmdet.datasets.sample import GroundingSample
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.types import GRANULARITIES, AnyObject, Classes
from llmdet.testing.models import tiny_proposal_dino

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    return tiny_proposal_dino()


def asked(granularity=None, prompt=None, size=SIZE, scale=1.0):
    made = GroundingSample(prompt=prompt or AnyObject(granularity=granularity))
    fields = {"img_shape": size, "scale_factor": (scale, scale), "grounding": made}
    return DetDataSample(metainfo=fields)


def taught(boxes, labels, granularity="fine"):
    sample = asked(granularity)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    return sample


BOXES = [[5, 5, 30, 40], [40, 20, 60, 50]]


def found_by(model, images, *samples):
    return [sample.pred_instances for sample in model.predict(images, list(samples))]


def test_it_has_no_part_of_grounding_dino_that_reads_text(model):
    names = {name for name, _ in model.named_parameters()}
    assert not [name for name in names if "text" in name or "fusion" in name or "lang" in name]
    assert len(model.decoder.layers[0].norms) == 3
    assert model.granularity_embedding.weight.shape == (2, model.encoder.embed_dims)


def test_the_two_prompts_of_one_image_propose_differently_and_neighbours_do_not_matter(model):
    image = torch.randn(1, 3, *SIZE)
    fine, coarse = found_by(model, image.expand(2, -1, -1, -1), *map(asked, GRANULARITIES))
    assert not torch.allclose(fine.scores, coarse.scores)
    (alone,) = found_by(model, image, asked("coarse"))
    torch.testing.assert_close(alone.scores, coarse.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.bboxes, coarse.bboxes, atol=1e-3, rtol=0)
    assert set(fine.label_names) == {"object"}


def test_a_proposal_is_scored_by_the_last_layer_and_its_prompt(model):
    image = torch.randn(1, 3, *SIZE)
    run = model.detect(image, [asked("coarse")], keep_features=True)
    query = run.features.decoded.hidden_states[-1][0]  # [Q, C]
    prompt = model.granularity_embedding.weight[GRANULARITIES.index("coarse")]
    bias = model.bbox_head.cls_branches[1].bias
    expected = (query @ prompt / query.shape[-1] ** 0.5 + bias).sigmoid().sort(descending=True)[0]
    torch.testing.assert_close(run.detections[0].scores, expected[:15])


def test_an_image_that_names_no_granularity_has_that_of_the_protocol():
    model = tiny_proposal_dino(test_cfg={"granularity": "coarse"})
    image = torch.randn(1, 3, *SIZE)
    (expected,) = found_by(model, image, asked("coarse"))
    for prompt in (AnyObject(), Classes(("cat", "dog"))):
        (found,) = found_by(model, image, asked(prompt=prompt))
        assert torch.equal(found.scores, expected.scores)


def test_boxes_are_given_in_pixels_of_the_original_image(model):
    image = torch.randn(1, 3, *SIZE)
    (plain,), (half,) = (found_by(model, image, asked("fine", scale=s)) for s in (1.0, 0.5))
    torch.testing.assert_close(half.bboxes, plain.bboxes * 2)


def test_labels_are_not_read_and_every_parameter_gets_a_gradient():
    model = tiny_proposal_dino().train()
    images = torch.randn(2, 3, *SIZE)
    totals = []
    for labels in ([0, 0], [7, 300]):
        torch.manual_seed(0)
        losses = model.loss(images, [taught(BOXES, labels), taught([], [], "coarse")])
        totals.append(sum(losses.values()))
    assert torch.equal(*totals)
    totals[0].backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_one_granularity_teaches_its_own_prompt_alone():
    model = tiny_proposal_dino(use_dn=False).train()
    sum(model.loss(torch.randn(1, 3, *SIZE), [taught(BOXES, [0, 0])]).values()).backward()
    gradient = model.granularity_embedding.weight.grad
    assert gradient[GRANULARITIES.index("fine")].any()
    assert not gradient[GRANULARITIES.index("coarse")].any()


def test_decoder_layers_share_a_box_map_and_pixels_have_their_own(model):
    *layers, pixels = model.bbox_head.reg_branches
    assert all(branch is layers[0] for branch in layers)
    assert pixels is not layers[0]


def test_a_training_sample_without_a_granularity_is_refused_and_named(model):
    sample = taught(BOXES, [0, 0], granularity=None)
    sample.set_metainfo({"img_path": "street.jpg"})
    with pytest.raises(DataError, match=r"street.jpg.*AnyObjectPrompt"):
        model.loss(torch.randn(1, 3, *SIZE), [sample])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"test_cfg": {"granularity": "medium"}}, "granularity='medium'; choose one of fine"),
        ({"test_cfg": {"chunked_size": 3}}, "unknown key 'chunked_size'"),
        ({"language_model": {"type": "BertModel"}}, "reads no words"),
    ],
)
def test_wrong_settings_name_the_key(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        tiny_proposal_dino(**changes)


def scene(seed):
    """Two rectangles of random size and colour, left and right: image and boxes."""
    random = torch.Generator().manual_seed(seed)
    image, boxes = torch.zeros(3, *SIZE), []
    for left in (0, 48):
        width, height = torch.randint(18, 34, (2,), generator=random).tolist()
        x = left + int(torch.randint(46 - width, (1,), generator=random))
        y = int(torch.randint(62 - height, (1,), generator=random))
        image[:, y : y + height, x : x + width] = 1 + 2 * torch.rand(3, 1, 1, generator=random)
        boxes.append([x, y, x + width, y + height])
    return image, boxes


def average_recall(propose, scenes):
    """Of the best five boxes of each scene, over IoU 0.5:0.05:0.95."""
    overlaps = [
        box_iou(torch.tensor(boxes, dtype=torch.float32), propose(image)[:5]).amax(1)
        for image, boxes in scenes
    ]
    return float((torch.cat(overlaps)[:, None] >= torch.arange(0.5, 1, 0.05)).float().mean())


def test_fifty_steps_teach_it_objects_that_it_has_never_seen():
    torch.manual_seed(0)
    model = tiny_proposal_dino().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(50):
        batch = [scene(4 * step + index) for index in range(4)]
        samples = [taught(boxes, [0, 0]) for _, boxes in batch]
        loss = sum(model.loss(torch.stack([image for image, _ in batch]), samples).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    unseen = [scene(1000 + index) for index in range(8)]

    def random_boxes(image):
        first, second = torch.rand(2, 5, 2) * torch.tensor(SIZE[::-1])
        return torch.cat([first.minimum(second), first.maximum(second)], -1)

    found = average_recall(
        lambda image: found_by(model, image[None], asked("fine"))[0].bboxes, unseen
    )
    assert found > 0.2
    assert found > 4 * average_recall(random_boxes, unseen)
