"""Classes said in several ways have the average of their features."""

import torch

from llmdet.prompts import ensemble, parse_prompt

NAMES = parse_prompt(["red circle", "dog"])


def features(bert, prompt):
    """Embedding of the one text of a prompt, and its token map."""
    (made,) = bert.prompts(prompt)
    with torch.no_grad():
        return bert([made]).embedded[0, : len(made.ids)], torch.from_numpy(made.token_map)


def test_templates_are_averaged_token_by_token(bert):
    plain, tokens = features(bert, NAMES)
    small, of_small = features(bert, parse_prompt(["a small red circle", "a small dog"]))
    both, _ = features(bert, ensemble(NAMES, ["{}", "a small {}"]))
    for label, count in enumerate((2, 1)):
        told = small[of_small[label]][-count:]  # behind "a small"
        expected = (plain[tokens[label]] + told) / 2
        torch.testing.assert_close(both[tokens[label]], expected)
    separators = ~tokens.any(0)
    assert torch.equal(both[separators], plain[separators])
    alone, _ = features(bert, ensemble(NAMES, ["a small {}"]))
    torch.testing.assert_close(alone[tokens[1]], small[of_small[1]][-1:])


def test_a_synonym_of_another_length_adds_its_mean(bert):
    plain, tokens = features(bert, NAMES)
    green, of_green = features(bert, parse_prompt(["green"]))
    both, _ = features(bert, ensemble(NAMES, synonyms={"red circle": ["green"]}))
    expected = (plain[tokens[0]] + green[of_green[0]].mean(0)) / 2
    torch.testing.assert_close(both[tokens[0]], expected)
    assert torch.equal(both[tokens[1]], plain[tokens[1]])


def test_the_average_is_that_of_the_weights_of_now(bert):
    prompt = ensemble(NAMES, ["a small {}"])
    before, _ = features(bert, prompt)
    assert torch.equal(features(bert, prompt)[0], before)  # from the cache
    weight = bert.language_backbone["body"].model.embeddings.word_embeddings.weight
    with torch.no_grad():
        weight.mul_(1.5)
        after, tokens = features(bert, prompt)
        weight.div_(1.5)
    assert not torch.allclose(after[tokens[0]], before[tokens[0]])


def test_other_prompts_of_a_batch_are_left_alone(bert):
    (several,) = bert.prompts(ensemble(NAMES, ["a small {}"]))
    (plain,) = bert.prompts(NAMES)
    with torch.no_grad():
        together = bert([several, plain]).embedded
        assert torch.equal(together[1], bert([plain]).embedded[0])
        assert torch.equal(together[0], bert([several]).embedded[0])
    learned = bert([several]).embedded  # with gradients
    torch.testing.assert_close(learned[0], together[0], atol=1e-5, rtol=0)
    assert learned.requires_grad


def test_all_variants_run_together(bert):
    (made,) = bert.prompts(ensemble(NAMES, ["{}", "a small {}", "a photo of the {}"]))
    sizes = []
    body = bert.language_backbone["body"]
    hook = body.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    bert([made])  # with gradients, so that nothing is remembered
    hook.remove()
    assert sizes == [1, 3]
