"""Offsets of learned classes beside the text features of their names."""

from __future__ import annotations

import pytest
import torch

from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.structures import TextFeatures
from llmdet.models.text.learned_classes import LearnedClasses
from llmdet.prompts import Classes, PromptTokenizer, load_tokenizer

DIMS = 4


@pytest.fixture(scope="module")
def tokenizer(bert_folder):
    return PromptTokenizer(load_tokenizer(bert_folder), 64)


@pytest.fixture
def learned():
    classes = LearnedClasses(DIMS)
    classes.begin(["Red part", "v1.5 <box>", "keys", "..."])
    for number, parameter in enumerate(classes.parameters(), start=1):
        torch.nn.init.constant_(parameter, float(number))
    return classes


def text_of(prompts):
    length = max(len(prompt.ids) for prompt in prompts)
    mask = torch.ones(len(prompts), length, dtype=torch.bool)
    blank = torch.zeros(len(prompts), length, DIMS)
    return TextFeatures(blank, mask, mask.long(), mask[:, None] & mask[:, :, None])


def test_tokens_of_a_learned_class_get_its_offsets_wherever_it_stands(learned, tokenizer):
    prompts = [
        tokenizer(Classes(names))[0] for names in (("circle", "red PART"), ("red part", "circle"))
    ]
    with torch.no_grad():
        added = learned(text_of(prompts), prompts).embedded
    for row, prompt in enumerate(prompts):
        place = [name.lower() for name in prompt.entities].index("red part")
        tokens = torch.from_numpy(prompt.token_map[place])
        assert tokens.sum() > 1
        assert (added[row, : len(tokens)][tokens] == 1).all()
        assert not added[row, : len(tokens)][~tokens].any()


def test_a_prompt_without_learned_classes_is_not_touched(learned, tokenizer):
    prompts = tokenizer(Classes(("circle", "part")))
    text = text_of(prompts)
    with torch.no_grad():
        assert learned(text, prompts) is text
    assert LearnedClasses(DIMS)(text, prompts) is text


def test_every_class_has_a_gradient_whichever_a_prompt_names(learned, tokenizer):
    prompts = tokenizer(Classes(("red part",)))
    learned(text_of(prompts), prompts).embedded.sum().backward()
    assert learned["red part"].grad.eq(prompts[0].token_map[0].sum()).all()
    assert learned["keys"].grad.eq(0).all()


def test_a_checkpoint_says_which_classes_it_has(learned):
    state = learned.state_dict()
    fresh = LearnedClasses(DIMS)
    fresh.load_state_dict(state)
    assert fresh.names == learned.names == ("red part", "v1.5 <box>", "keys")
    for name in fresh.names:
        assert torch.equal(fresh[name], learned[name])
    assert LearnedClasses(DIMS).state_dict() == {}


@pytest.mark.parametrize("entry", ["<Red part>", "red part", "<a\nb>"])
def test_what_is_no_learned_class_is_refused(entry):
    with pytest.raises(CheckpointError, match="no learned class"):
        LearnedClasses(DIMS).adopt({f"learned_classes.{entry}": torch.zeros(DIMS)})
    with pytest.raises(CheckpointError, match="no learned class"):
        LearnedClasses(DIMS).adopt({"learned_classes.<a>": torch.zeros(DIMS + 1)})


def test_names_that_are_no_list_are_refused(learned):
    with pytest.raises(ConfigError, match="give class names in a list"):
        learned.begin("keys")
