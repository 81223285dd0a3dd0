"""Token maps of a batch."""

import torch

from llmdet.models.text.token_map import stack_token_maps
from llmdet.prompts import PromptText, PromptTokenizer, load_tokenizer


def test_a_batch_is_padded_to_its_longest_prompt_and_most_entities(bert_folder: str) -> None:
    tokenizer = PromptTokenizer(load_tokenizer(bert_folder))
    short = tokenizer.tokenize(PromptText("cat. ", ("cat",), (((0, 3),),)))
    long = tokenizer.tokenize(PromptText("cat. dog. ", ("cat", "dog"), (((0, 3),), ((5, 8),))))
    stacked = stack_token_maps([short, long])
    assert stacked.dtype == torch.bool
    assert stacked.shape == (2, 2, 6)
    assert stacked[0].int().tolist() == [[0, 1, 0, 0, 0, 0], [0] * 6]
    assert stacked[1].int().tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert stack_token_maps([short], 9).shape == (1, 1, 9)
    stacked.zero_()
    assert short.token_map.any()
