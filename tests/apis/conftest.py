"""The tiny detector."""

import pytest


@pytest.fixture(scope="session")
def detector(tiny):
    """The tiny detector on the CPU."""
    from llmdet import Detector

    return Detector.from_pretrained(tiny.config, tiny.weights, device="cpu")


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Config and weights of a tiny detector with a language model."""
    from llmdet.datasets.toy.models import tiny_qwen
    from llmdet.testing.demo import tiny_demo

    qwen = tiny_qwen(tmp_path_factory.mktemp("qwen"))
    made = tiny_demo(
        tmp_path_factory.mktemp("taught"),
        type="LLMDet",
        lmm={
            "type": "LanguageModel",
            "model": qwen,
            "dtype": "float32",
            "lora": {"r": 4},
            "region_attention": {"every": 2, "num_heads": 4},
        },
        image_captioner={"encoder": {"type": "GridCells", "grids": ((-2, 2), (-3, 3))}},
        region_captioner={},
    )
    # What training started from is not needed, and need not be there, afterwards.
    made.config.write_text(made.config.read_text() + "model['connector'] = 'work_dirs/gone.pth'\n")
    return made


@pytest.fixture(scope="session")
def describe(taught):
    """The tiny detector with a language model, on the CPU."""
    from llmdet import Detector

    return Detector.from_pretrained(taught.config, taught.weights, device="cpu", captions=True)
