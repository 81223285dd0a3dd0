"""Which model has which role, as a config says it."""

import pytest

from llmdet.data_engines.models import ModelSettings, build_models, read_model_settings
from llmdet.errors import ConfigError

SERVER = dict(backend="openai", model="m", url="http://localhost:1/v1", price=[1.0, 2.0])


def test_roles_with_the_same_settings_share_a_model():
    other = {**SERVER, "max_new_tokens": 9}
    config = {"models": {"writer": SERVER, "judge": dict(SERVER), "planner": other}}
    models = build_models(read_model_settings(config, ["writer", "judge", "planner"]))
    assert models["writer"] is models["judge"]
    assert models["planner"] is not models["writer"]
    assert models["planner"].identity["max_new_tokens"] == 9


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "models have no 'writer'; the roles are writer"),
        ({"writer": {**SERVER, "modle": "a"}}, r"models.writer.modle: did you mean 'model'"),
        ({"writer": {"backend": "openai"}}, "models.writer has no 'model'"),
        ({"writer": {**SERVER, "backend": "openia"}}, "did you mean 'openai'"),
        ({"writer": {**SERVER, "url": None}}, "needs a url"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(models, message):
    with pytest.raises(ConfigError, match=message):
        read_model_settings({"models": models}, ["writer"])


def test_settings_are_read_with_their_price():
    settings = read_model_settings({"models": {"writer": SERVER}}, ["writer"])["writer"]
    assert settings == ModelSettings(**{**SERVER, "price": (1.0, 2.0)})
