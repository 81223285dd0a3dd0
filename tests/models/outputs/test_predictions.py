"""What prediction files read of answers about candidates."""

import numpy as np
import pytest
from mmdet.structures import DetDataSample

from llmdet.datasets.sample import GroundingSample, Regions, Sought
from llmdet.errors import ConfigError
from llmdet.evaluation.metrics.samples import row_of_sample
from llmdet.models.outputs import ObjectIndex
from llmdet.prompts.objects import ABSENT, GroundedPhrase, ObjectAnswer
from llmdet.registry import MODELS
from llmdet.testing.region_models import tiny_region_lmm

BOXES = np.array([[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9]], np.float32)


def predicted(sought, answers, scores=None):
    regions = Regions(BOXES, scores=scores)
    sample = DetDataSample(metainfo={"img_id": 3})
    sample.set_metainfo({"grounding": GroundingSample(regions=regions, sought=tuple(sought))})
    ObjectIndex().write_prediction(sample, answers)
    return row_of_sample(sample.to_dict())


def answer(*phrases):
    named = tuple(GroundedPhrase(words, tuple(s), tuple(s.values())) for words, s in phrases)
    return ObjectAnswer("said", named)


def test_boxes_that_an_answer_names_have_its_label_whatever_it_calls_them():
    said = [answer(("puppy", {2: 0.75}), ("dog", {0: 0.5, 2: 0.25})), answer(("cat", {0: 0.125}))]
    row = predicted([Sought(("dog",), (7,)), Sought(("cat",), (4,))], said)
    assert row.boxes.tolist() == BOXES[[2, 0, 0]].tolist()
    assert row.labels.tolist() == [7, 7, 4]
    assert row.scores.tolist() == [0.75, 0.5, 0.125]
    assert row.phrases == ("said", "said")


def test_of_several_names_those_count_that_were_asked_for():
    said = answer(("Dog", {0: 0.5}), ("horse", {1: 0.5}), ("cat", {2: 0.25}))
    row = predicted([Sought(("cat", "dog"), (4, 7))], [said])
    assert sorted(zip(row.labels.tolist(), row.boxes[:, 0].tolist(), strict=True)) == [
        (4, 20.0),
        (7, 0.0),
    ]
    assert row.text == "said"


def test_scores_of_a_detector_take_the_place_of_probabilities():
    said = answer(("dog", {2: 0.5, 0: 0.25}))
    scores = np.array([0.1, 0.2, 0.3], np.float32)
    row = predicted([Sought(("dog",), (0,))], [said], scores)
    assert row.scores.tolist() == pytest.approx([0.3, 0.1])


def test_nothing_is_found_where_it_is_absent_and_given_regions_stay_where_none_is_sought():
    row = predicted([Sought(("dog",), (0,))], [ObjectAnswer(ABSENT, ())])
    assert (len(row.boxes), row.text) == (0, ABSENT)
    assert predicted([], [ObjectAnswer("A dog.", ())]).boxes.tolist() == BOXES.tolist()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({"type": "Text"}, "answers of Text can name none: use ObjectIndex"),
        ({"type": "ObjectIndex", "count": 2}, "can name 2: set max_candidates=2"),
    ],
)
def test_a_model_is_not_asked_for_more_regions_than_it_can_name(output, problem, qwen):
    model = MODELS.build(tiny_region_lmm(qwen, output=output))
    sample = DetDataSample(metainfo={"img_id": 3})
    sought = (Sought(("dog",), (0,)),)
    sample.set_metainfo({"grounding": GroundingSample(regions=Regions(BOXES), sought=sought)})
    with pytest.raises(ConfigError, match=problem):
        model.predict({}, [sample])
