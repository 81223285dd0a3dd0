"""What the model says of its text encoder holds for the data too."""

import pytest
from mmengine.config import Config

from llmdet.datasets.text_encoder import share_text_encoder
from llmdet.errors import ConfigError


def config(language_model=None, **step):
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "RandomSamplingNegPos", **step}]
    part = {"type": "ODVGDataset", "pipeline": pipeline}
    return Config(
        {
            "model": {"language_model": language_model or {"name": "bert", "max_tokens": 64}},
            "train_dataloader": {"dataset": {"type": "ConcatDataset", "datasets": [part]}},
            "val_dataloader": None,
        }
    )


def writer(config):
    return config.train_dataloader.dataset.datasets[0].pipeline[1]


def test_the_transform_gets_tokenizer_and_limit_of_the_model():
    shared = config()
    share_text_encoder(shared)
    assert writer(shared) == {
        "type": "RandomSamplingNegPos",
        "tokenizer_name": "bert",
        "max_tokens": 64,
    }
    share_text_encoder(shared)  # a second time changes nothing
    defaults = config({"type": "BertModel"})
    share_text_encoder(defaults)
    assert (writer(defaults).tokenizer_name, writer(defaults).max_tokens) == (
        "bert-base-uncased",
        256,
    )


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"max_tokens": 256}, r"max_tokens=256, but model.language_model.max_tokens is 64"),
        ({"tokenizer_name": "b"}, r"tokenizer_name='b', but model.language_model.name is 'bert'"),
    ],
)
def test_another_text_encoder_than_the_models_is_refused(step, message):
    with pytest.raises(ConfigError, match=message):
        share_text_encoder(config(**step))


def test_without_a_model_nothing_happens():
    alone = config()
    alone.model = None
    share_text_encoder(alone)
    assert set(writer(alone)) == {"type"}
