"""A finished labelling with boxes of which some are doubtful."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from llmdet.chat import Pace
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.pictures import PictureSet
from llmdet.labelling.corrections import Corrections
from llmdet.labelling.run import LabelJob
from llmdet.labelling.settings import LabelSettings, OutputSettings

CLASSES = ("dog", "stop sign", "cat")
#: Picture -> (label, score) of its boxes; the threshold is 0.3, and 0.1 above it is doubtful.
FOUND = {
    "a.png": ((0, 0.9), (1, 0.35)),
    "b.png": ((1, 0.31), (0, 0.33)),
    "c.png": ((2, 0.8),),
    "d.png": (),
}


class Engine:
    pace = Pace(2)

    def answer(self, names):
        return [Outcome(row_of(name)) for name in names]


@pytest.fixture
def labelled(tmp_path):
    """Label four pictures in a format; gives what corrects them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in FOUND:
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)

    def labelled(target="coco", **changes):
        pictures = PictureSet.of([folder / name for name in FOUND])
        output = OutputSettings(target, val=0.25)
        job = LabelJob(pictures, LabelSettings(CLASSES, **changes), output, tmp_path / "out")
        with job.journal(Config({"model": {"type": "Tiny"}}), None) as journal:
            job.run(Engine(), journal)
        return Corrections(job, journal)

    return labelled


def row_of(name):
    found = FOUND[name]
    return {
        "filename": name,
        "width": 64,
        "height": 48,
        "boxes": [[1.5 + k, 2.0, 20.0, 40.0] for k in range(len(found))],
        "labels": [label for label, _ in found],
        "scores": [score for _, score in found],
        "doubt": min((abs(score - 0.3) for _, score in found), default=0.5),
        "captions": [f"A thing {k}." for k in range(len(found))],
    }
