"""The web demo, with a detector whose random boxes have scores that a visitor would see."""

import copy
from dataclasses import replace

import pytest
import torch

from llmdet.models.heads.contrastive import ContrastiveEmbed


@pytest.fixture(scope="session")
def confident(describe):
    """The tiny detector with a language model; scores lie around one half, captions are short."""
    made = copy.deepcopy(describe)
    for module in made.model.modules():
        if isinstance(module, ContrastiveEmbed):
            with torch.no_grad():
                module.bias.zero_()
    for captioner in (made.model.image_captioner, made.model.region_captioner):
        captioner.settings = replace(captioner.settings, max_new_tokens=4)
    return made


@pytest.fixture(scope="session")
def page(confident, tmp_path_factory):
    """The address of a running demo."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'llmdet[demo]'")
    from llmdet.apis.web.examples import toy_examples
    from llmdet.apis.web.serving import Serving, running_demo

    examples = toy_examples(tmp_path_factory.mktemp("examples"))
    with running_demo(confident, Serving(), examples=examples) as blocks:
        yield blocks.local_url
