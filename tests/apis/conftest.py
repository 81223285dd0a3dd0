"""The tiny detector."""

import pytest


@pytest.fixture(scope="session")
def detector(tiny):
    """The tiny detector on the CPU."""
    from llmdet import Detector

    return Detector.from_pretrained(tiny.config, tiny.weights, device="cpu")
