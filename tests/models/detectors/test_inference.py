"""How a detection run is cut into forward passes."""

from collections import Counter

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from llmdet.datasets.toy.models import tiny_bert
from llmdet.models.detectors import inference
from llmdet.models.detectors.inference import MOST_CHUNKS, chunks_that_fit, split_jobs
from llmdet.prompts import TokenizedPrompt
from llmdet.testing.models import tiny_grounding_dino
from llmdet.utils.memory import free_memory

GIB = 2**30
FLOATS = 3840  # of the released sizes


def pixels(height, width, levels=4):
    return sum(-(-height // 2**i) * -(-width // 2**i) for i in range(levels))


@pytest.mark.parametrize(
    ("pixels", "free", "chunks"),
    [
        (pixels(100, 167), 40 * GIB, MOST_CHUNKS),  # Swin-T at 800 x 1333
        (pixels(250, 390, levels=5), 24 * GIB, 6),  # Swin-L at 1000 x 1560
        (pixels(250, 390, levels=5), 80 * GIB, MOST_CHUNKS),
        (pixels(250, 390, levels=5), GIB, 1),
        (pixels(250, 390, levels=5), None, MOST_CHUNKS),
    ],
)
def test_fewer_chunks_run_at_once_where_a_pyramid_is_large_and_memory_short(pixels, free, chunks):
    assert chunks_that_fit(pixels, FLOATS, free) == chunks


def test_the_memory_of_this_machine_is_known():
    free = free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
    assert free_memory(torch.device("meta")) is None


def jobs_of(batches):
    return [[(job.image, job.prompt.text) for job in batch] for batch in batches]


def prompt(text):
    empty = np.zeros(0, np.int64)
    return TokenizedPrompt(text, (), (), ids=empty, token_map=empty.reshape(0, 0))


PROMPTS = [[prompt(text) for text in texts] for texts in (("a", "b", "c"), ("d",), ("e",))]


def test_jobs_keep_the_order_of_images_and_chunks():
    batches = jobs_of(split_jobs(PROMPTS, 2, first_together=False))
    assert batches == [[(0, "a"), (0, "b")], [(0, "c"), (1, "d")], [(2, "e")]]


def test_first_prompts_run_together_where_what_they_give_is_kept():
    batches = jobs_of(split_jobs(PROMPTS, 2, first_together=True))
    assert batches == [[(0, "a"), (1, "d"), (2, "e")], [(0, "b"), (0, "c")]]


@pytest.mark.parametrize(("given", "largest"), [(None, 2), (3, 3)])
def test_a_number_of_chunks_that_is_given_is_kept(tmp_path, monkeypatch, given, largest):
    settings = {"chunked_size": 1, "chunks_per_forward": given}
    model = tiny_grounding_dino(tiny_bert(tmp_path), test_cfg=settings)
    monkeypatch.setattr(inference, "chunks_that_fit", lambda *_: 2)
    sizes, run = [], model.forward_prompts
    monkeypatch.setattr(
        model, "forward_prompts", lambda maps, texts: sizes.append(len(texts)) or run(maps, texts)
    )
    names = [f"thing number {i}" for i in range(7)]
    sample = DetDataSample(metainfo={"text": names, "img_shape": (64, 96)})
    model.detect(torch.randn(1, 3, 64, 96), [sample], rescale=False)
    assert max(sizes) == largest
    assert sum(sizes) == len(names)


def asked(names, size=(64, 96)):
    return DetDataSample(
        metainfo={"text": names, "img_shape": size, "scale_factor": (1.0, 1.0), "pad_shape": size}
    )


def test_what_no_text_changes_is_computed_once_for_a_batch_of_images(tmp_path):
    settings = {"chunked_size": 1, "chunks_per_forward": 1}
    model = tiny_grounding_dino(tiny_bert(tmp_path), test_cfg=settings)
    calls = Counter()
    for name in ("backbone", "neck", "positional_encoding", "encoder", "language_model"):
        model.get_submodule(name).register_forward_hook(
            lambda *_, name=name: calls.update([name]) or None
        )
    names = [f"thing number {i}" for i in range(4)]
    texts, embed = [], model.language_model._embed
    model.language_model._embed = lambda ids, *rest: texts.append(len(ids)) or embed(ids, *rest)
    for _ in range(2):
        model.detect(torch.randn(2, 3, 64, 96), [asked(names), asked(names[:3])])
    batches, levels, jobs = 2, model.level_embed.shape[0], 4 + 3
    assert calls["backbone"] == calls["neck"] == batches
    assert calls["positional_encoding"] == batches * levels
    assert calls["encoder"] == batches * jobs
    assert sum(texts) == 4 + 1  # each prompt once in the run, and padding


def test_chunks_together_find_what_each_finds_as_a_prompt_of_its_own(tmp_path):
    settings = {"chunked_size": 2, "limit_per": "chunk", "max_per_img": 15}
    model = tiny_grounding_dino(tiny_bert(tmp_path), test_cfg=settings)
    names = [f"thing number {i}" for i in range(5)]
    image = torch.randn(1, 3, 64, 96)
    (together,) = model.detect(image, [asked(names)]).detections
    for start in (0, 2, 4):
        (alone,) = model.detect(image, [asked(names[start : start + 2])]).detections
        part = together[(together.labels >= start) & (together.labels < start + 2)]
        torch.testing.assert_close(part.scores, alone.scores)
        torch.testing.assert_close(part.bboxes, alone.bboxes, atol=1e-3, rtol=0)
        assert torch.equal(part.labels - start, alone.labels)
        assert part.label_names == alone.label_names
