"""Tokens that an output adds."""

from __future__ import annotations

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.models.language.language_model import LanguageModel
from llmdet.prompts.conversation import ConversationSettings, ask
from llmdet.prompts.conversation_tokens import ConversationTokenizer

TOKENS = ("<yes>", "<no>")


def dialogue_of(lmm, answers=("<yes>", "Sure: <no>")):
    settings = ConversationSettings(lmm.tokenizer_name, (("region", 1),), 60)
    tokenize = ConversationTokenizer(lmm.tokenizer, settings)
    return collate_dialogue([tokenize(ask("<region>\nIs it?", a)) for a in answers], lmm.pad_id)


def features(lmm, count=2):
    return {
        "region": torch.rand(count, lmm.hidden_size, generator=torch.Generator().manual_seed(3))
    }


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request, qwen, tmp_path):
    """A language model whose embedding and head share weights, or do not."""
    from llmdet.datasets.toy.models import tiny_qwen

    return tiny_qwen(tmp_path, tie_word_embeddings=request.param)


def test_only_rows_of_new_tokens_train_in_a_frozen_vocabulary(make_lmm, model):
    lmm = make_lmm(model, lora=None, added_tokens=TOKENS)
    lmm.loss(dialogue_of(lmm), features(lmm)).backward()
    trained = {name for name, p in lmm.named_parameters() if p.grad is not None}
    expected = {"causal_lm.model.embed_tokens.added"}
    if not lmm.causal_lm.config.tie_word_embeddings:
        expected.add("causal_lm.lm_head.added")
    assert trained == expected
    assert all(p.grad.any(1).all() for p in lmm.parameters() if p.grad is not None)


def test_old_tokens_are_read_and_said_as_before(make_lmm, model):
    plain, extended = make_lmm(model, lora=None), make_lmm(model, lora=None, added_tokens=TOKENS)
    ids = torch.randint(0, len(plain.tokenizer), (2, 9))
    with torch.no_grad():
        before, after = plain.causal_lm(ids).logits, extended.causal_lm(ids).logits
    assert torch.equal(after[..., : before.shape[-1]], before)
    assert after.shape[-1] == before.shape[-1] + 2


def test_the_weights_keep_their_names(make_lmm, model):
    plain, extended = make_lmm(model), make_lmm(model, added_tokens=TOKENS)
    added = set(extended.state_dict()) - set(plain.state_dict())
    assert added == {"causal_lm.model.embed_tokens.added", "causal_lm.lm_head.added"}


def test_new_rows_are_saved_and_loaded(make_lmm, model):
    trained, fresh = (make_lmm(model, added_tokens=TOKENS) for _ in range(2))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if name.endswith(".added"):
                parameter.normal_()
    expected = trained.loss(dialogue_of(trained), features(trained))
    assert fresh.loss(dialogue_of(fresh), features(fresh)) != expected
    fresh.load_state_dict(trained.state_dict())
    assert fresh.loss(dialogue_of(fresh), features(fresh)) == expected


def test_rows_inside_a_padded_vocabulary_are_replaced_without_growth(make_lmm, tmp_path, qwen):
    """Published models have more rows than their tokenizers know, for round sizes."""
    from transformers import AutoTokenizer

    from llmdet.datasets.toy.models import tiny_qwen

    size = len(AutoTokenizer.from_pretrained(qwen)) + 50
    lmm = make_lmm(tiny_qwen(tmp_path, vocab_size=size), added_tokens=TOKENS)
    first = len(lmm.tokenizer) - 2
    logits = lmm.causal_lm(torch.tensor([[first, first + 1, 5]])).logits
    assert logits.shape[-1] == size
    changed = torch.ones_like(lmm.causal_lm.get_output_embeddings().added)
    with torch.no_grad():
        lmm.causal_lm.get_output_embeddings().added.copy_(changed)
    after = lmm.causal_lm.get_output_embeddings()(torch.ones(1, lmm.hidden_size))
    assert after[0, first : first + 2].tolist() == [lmm.hidden_size] * 2


def test_it_learns_to_say_a_new_token(make_lmm, model):
    lmm = make_lmm(model, added_tokens=TOKENS, frozen=False, lora=None)
    answers = ("<yes>", "<no>")
    given = features(lmm)
    trainable = [p for p in lmm.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        lmm.loss(dialogue_of(lmm, answers), given).backward()
        optimizer.step()
    settings = ConversationSettings(lmm.tokenizer_name, (("region", 1),), 60)
    tokenize = ConversationTokenizer(lmm.tokenizer, settings)
    question = tokenize(ask("<region>\nIs it?"))
    dialogue = collate_dialogue([question] * 2, lmm.pad_id, left=True)
    said = lmm.generate(dialogue, given, max_new_tokens=4, do_sample=False)
    yes, no = lmm.tokenizer.convert_tokens_to_ids(list(TOKENS))
    assert said.ids[:, 0].tolist() == [yes, no]
    assert (said.probabilities[:, 0] > 0.5).all()


def test_a_token_that_is_known_already_is_refused(make_lmm):
    with pytest.raises(ConfigError, match=r"known already: \['<\|im_end\|>'\]"):
        make_lmm(added_tokens=("<|im_end|>",))
    with pytest.raises(ConfigError, match="must be new and differ"):
        make_lmm(added_tokens=("<yes>", "<yes>"))


def test_new_rows_may_begin_apart_and_equal_models_have_equal_ones(model):
    rows, again, mean = (
        LanguageModel(model, dtype="float32", added_tokens=TOKENS, added_spread=spread)
        .causal_lm.get_input_embeddings()
        .added.detach()
        for spread in (1.0, 1.0, 0.0)
    )
    assert torch.equal(rows, again)
    assert torch.equal(mean[0], mean[1])
    others = LanguageModel(model, dtype="float32").causal_lm.get_input_embeddings().weight
    assert (rows - mean).std().item() == pytest.approx(others.std(0).mean().item(), rel=0.3)
