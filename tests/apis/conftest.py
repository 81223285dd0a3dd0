"""A tiny detector, and pictures to look at."""

import pytest

from llmdet.testing.demo import TinyDemo, tiny_demo


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyDemo:
    """Config and weights of a tiny detector."""
    return tiny_demo(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def detect(tiny):
    """The tiny detector's inferencer on the CPU."""
    from llmdet.apis import LLMDetInferencer

    return LLMDetInferencer(tiny.config, tiny.weights, "cpu")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with three photographs of different shape: astronaut, cat, coffee."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.astronaut()).save(folder / "astronaut.png")
    Image.fromarray(data.cat()).resize((225, 150)).save(folder / "cat.jpg")
    Image.fromarray(data.coffee()).resize((150, 200)).save(folder / "coffee.png")
    return folder
