"""What all tests share: quiet third parties and the folders of optional fixtures."""

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: tests run in several processes, each of which gets one core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import llmdet  # noqa: F401, I001  before mmdet: answers for its compiled operators
import numpy as np
import pytest
import torch
from hypothesis import settings
from mmengine.registry import DefaultScope

from llmdet.testing.chat import ChatServer


ROOT = Path(__file__).resolve().parents[1]

# How long an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def folder_from(variable: str) -> Path:
    """The folder that an environment variable names; skips the test where it is not set."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"{variable}={value} is not a folder")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images and annotations that are not part of the repository."""
    return folder_from("LLMDET_REAL_DATA")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of recorded outputs that are too large for ``tests/golden``."""
    return folder_from("LLMDET_GOLDEN")


@pytest.fixture
def chat_server(monkeypatch) -> Iterator[ChatServer]:
    """An OpenAI-compatible endpoint on this machine."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Config and weights of a tiny detector."""
    from llmdet.testing.demo import tiny_demo

    return tiny_demo(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_regions(tmp_path_factory, root):
    """Config and weights of a tiny region language model, tested on COCO's objects."""
    from llmdet.testing.region_models import tiny_region_demo

    base = root / "configs" / "regiongpt" / "coco_classification.py"
    return tiny_region_demo(tmp_path_factory.mktemp("tiny_regions"), base)


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


@pytest.fixture(scope="session")
def demo():
    """The program of image_demo.py."""
    from llmdet.cli import predict

    return predict


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """A runner hands its log files to the loggers of llmdet; the next test wants them as before."""
    yield
    logger = logging.getLogger("llmdet")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def restored_scope() -> Iterator[None]:
    """A runner names the registries that names are looked up in; the next test has its own."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)
