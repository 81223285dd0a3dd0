"""What a detector's test_cfg and train_cfg may say."""

import pytest

from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError
from llmdet.models.detectors.settings import TestSettings
from llmdet.testing.models import tiny_grounding_dino


def test_nothing_said_is_the_protocol_of_the_released_models():
    settings = TestSettings.from_config(None)
    assert (settings.max_per_img, settings.limit_per, settings.chunked_size) == (300, "image", -1)
    assert not settings.referring.subject_only


@pytest.mark.parametrize(
    ("test_cfg", "sentence"),
    [
        ({"max_per_image": 10}, r"test_cfg has the unknown key 'max_per_image'.*max_per_img"),
        ({"chunk_size": 40}, r"'chunk_size'.*chunked_size"),
        ({"referring": {"subject": True}}, r"test_cfg\.referring .*'subject'.*subject_only"),
        ({"referring": {"position_boost": "yes"}}, r"referring\.position_boost='yes'"),
        ({"limit_per": "prompt"}, r"limit_per='prompt'; choose 'image', or 'chunk'"),
        ({"noun_phrases": "spacy"}, r"noun_phrases='spacy'; choose one of auto, nltk, rules"),
        ({"dtype": "fp16"}, r"dtype='fp16'; choose one of float32, bfloat16, float16"),
        ({"max_per_img": 0}, r"max_per_img=0; give a whole number of at least 1"),
        ({"chunked_size": 0}, r"chunked_size=0; .*or -1"),
        ({"chunks_per_forward": 2.5}, r"chunks_per_forward=2\.5"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_the_remedy(test_cfg, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TestSettings.from_config(test_cfg)


@pytest.mark.parametrize("number", [0, -1, "abc", 1.5])
def test_a_detector_has_at_least_one_query(tmp_path, number):
    with pytest.raises(ConfigError, match=f"model.num_queries={number!r}; give a whole number"):
        tiny_grounding_dino(tiny_bert(tmp_path / "bert"), num_queries=number)
