"""The tiny detector's inferencer."""

import pytest


@pytest.fixture(scope="session")
def detect(tiny):
    """The tiny detector's inferencer on the CPU."""
    from llmdet.apis import LLMDetInferencer

    return LLMDetInferencer(tiny.config, tiny.weights, "cpu")
