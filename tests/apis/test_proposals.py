"""A detector of proposals in Python and on the command line."""

import json

import numpy as np
import pytest

from llmdet.cli.predict import main
from llmdet.errors import ConfigError
from llmdet.testing.demo import tiny_proposal_demo


@pytest.fixture(scope="module")
def upn(tmp_path_factory):
    """Config and weights of a tiny detector of proposals."""
    return tiny_proposal_demo(tmp_path_factory.mktemp("upn"), test_cfg={"granularity": "coarse"})


@pytest.fixture(scope="module")
def proposer(upn):
    from llmdet import Detector

    return Detector.from_pretrained(upn.config, upn.weights, device="cpu")


def test_both_granularities_give_boxes_of_their_own_without_names(proposer, photos):
    image = photos / "astronaut.png"
    fine, coarse, usual = (
        proposer.predict(image, granularity=name, threshold=0, nms=1.0)
        for name in ("fine", "coarse", None)
    )
    assert len(fine) == len(coarse) == 15
    assert set(fine.names) == {"object"}
    assert not np.allclose(fine.scores, coarse.scores)
    assert np.array_equal(usual.scores, coarse.scores)  # as the config says
    assert fine.boxes.max() <= 512


def test_score_and_overlap_filter_proposals(proposer, photos):
    session = proposer.set_image(photos / "astronaut.png")
    every = session.predict(granularity="fine", threshold=0, nms=1.0)
    apart = session.predict(granularity="fine", threshold=0, nms=0)
    assert 0 < len(apart) < len(every)
    assert apart.scores[0] == every.scores[0]
    cut = session.predict(granularity="fine", threshold=float(every.scores[4]), nms=1.0)
    assert np.array_equal(cut.boxes, every.boxes[:5])


def test_images_of_a_batch_may_differ_in_granularity(proposer, photos):
    from llmdet.prompts.types import AnyObject

    image = photos / "astronaut.png"
    wanted = ("fine", "coarse")
    prompts = [AnyObject(granularity=name) for name in wanted]
    together = proposer.predict([image, image], prompts=prompts, threshold=0, batch_size=2)
    for name, found in zip(wanted, together, strict=True):
        alone = proposer.predict(image, granularity=name, threshold=0)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)


def test_words_and_granularities_are_refused_where_nothing_reads_them(proposer, detector, photos):
    image = photos / "astronaut.png"
    with pytest.raises(ConfigError, match="reads no words"):
        proposer.predict(image, ["dog"])
    with pytest.raises(ConfigError, match="is for detectors of proposals"):
        detector.predict(image, granularity="fine")
    with pytest.raises(ConfigError, match="text and granularity exclude each other"):
        proposer.predict(image, text="a dog", granularity="fine")
    with pytest.raises(ConfigError, match="'medium'; choose one of fine, coarse"):
        proposer.predict(image, granularity="medium")
    with pytest.raises(ConfigError, match="it has no classes"):
        proposer.add_class("dog", [(image, [[0, 0, 9, 9]])])
    assert proposer.learned_classes == ()


def test_the_demo_saves_proposals(upn, photos, tmp_path, capsys):
    def run(*arguments):
        model = [str(upn.config), "--weights", str(upn.weights), "--device", "cpu"]
        output = ["--out-dir", str(tmp_path), "--pred-score-thr", "0", "--no-save-vis"]
        assert main([str(photos / "astronaut.png"), *model, *output, *arguments]) == 0
        return json.loads((tmp_path / "preds" / "astronaut.json").read_text())

    usual = run("--nms", "1")
    fine = run("--granularity", "fine", "--nms", "1")
    assert set(fine["label_names"]) == {"object"}
    assert fine["scores"] != usual["scores"]
    assert len(run("--granularity", "fine", "--nms", "0")["scores"]) < len(fine["scores"])
    with pytest.raises(ConfigError, match="--granularity finds things without a name"):
        run("--granularity", "fine", "--text", "dog")
