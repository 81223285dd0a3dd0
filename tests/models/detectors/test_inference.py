"""How a detection run is cut into forward passes."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from llmdet.datasets.toy.models import tiny_bert
from llmdet.models.detectors import grounding_dino
from llmdet.models.detectors.inference import MOST_CHUNKS, PaddedMaps, chunks_that_fit, split_jobs
from llmdet.prompts import TokenizedPrompt
from llmdet.testing.models import tiny_grounding_dino
from llmdet.utils.memory import free_memory

GIB = 2**30
FLOATS = 6656  # of the released sizes


def maps(height, width, levels=4):
    shapes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(levels)]
    feats = tuple(torch.empty(1, 1, *shape, device="meta") for shape in shapes)
    return PaddedMaps(feats, tuple((shape,) for shape in shapes))


@pytest.mark.parametrize(
    ("pyramid", "free", "chunks"),
    [
        (maps(100, 167), 40 * GIB, MOST_CHUNKS),  # Swin-T at 800 x 1333
        (maps(250, 390, levels=5), 24 * GIB, 3),  # Swin-L at 1000 x 1560
        (maps(250, 390, levels=5), 80 * GIB, MOST_CHUNKS),
        (maps(250, 390, levels=5), GIB, 1),
        (maps(250, 390, levels=5), None, MOST_CHUNKS),
    ],
)
def test_fewer_chunks_run_at_once_where_a_pyramid_is_large_and_memory_short(pyramid, free, chunks):
    assert chunks_that_fit(pyramid, FLOATS, free) == chunks


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
    monkeypatch.setattr(grounding_dino, "chunks_that_fit", lambda *_: 2)
    sizes, run = [], model.forward_prompts
    monkeypatch.setattr(
        model, "forward_prompts", lambda maps, texts: sizes.append(len(texts)) or run(maps, texts)
    )
    names = [f"thing number {i}" for i in range(7)]
    sample = DetDataSample(metainfo={"text": names, "img_shape": (64, 96)})
    model.detect(torch.randn(1, 3, 64, 96), [sample], rescale=False)
    assert max(sizes) == largest
    assert sum(sizes) == len(names)
