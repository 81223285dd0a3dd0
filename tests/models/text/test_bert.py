"""The text encoder: sub-sentences, padding, the cache, and what it refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError, DataError
from llmdet.models.text.bert import SPECIAL_TOKENS, BertModel
from llmdet.registry import MODELS

PROMPTS = ["red circle. blue square. ", "dog. ", "a small green triangle under the star. cat. "]


@contextmanager
def counted_runs(model: BertModel) -> Iterator[list[int]]:
    """Batch sizes of the BERT runs in the block."""
    runs: list[int] = []
    body = model.language_backbone["body"]
    handle = body.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    try:
        yield runs
    finally:
        handle.remove()


def eager_bert(folder: str) -> transformers.BertModel:
    model = transformers.BertModel.from_pretrained(
        folder, add_pooling_layer=False, attn_implementation="eager"
    )
    return model.eval()


def test_a_sub_sentence_is_embedded_as_if_it_stood_alone(bert: BertModel, bert_folder: str) -> None:
    """Plain BERT with eager attention, run on each sub-sentence by itself, is the reference."""
    plain = eager_bert(bert_folder)
    ids = bert.tokenizer(PROMPTS[0])["input_ids"]
    dots = [i for i, token in enumerate(ids) if token == bert.tokenizer.convert_tokens_to_ids(".")]
    pieces = [ids[:1], ids[1 : dots[0] + 1], ids[dots[0] + 1 : dots[1] + 1], ids[-1:]]
    with torch.no_grad():
        alone = [plain(torch.tensor([piece])).last_hidden_state[0] for piece in pieces]
        together = bert([PROMPTS[0]]).embedded[0]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_a_prompt_does_not_depend_on_its_batch(bert: BertModel) -> None:
    with torch.enable_grad():
        batch = bert(PROMPTS)
        for i, prompt in enumerate(PROMPTS):
            single = bert([prompt])
            length = single.embedded.shape[1]
            torch.testing.assert_close(
                batch.embedded[i, :length], single.embedded[0], atol=1e-5, rtol=0
            )
            assert batch.attention_mask[i, :length, :length].equal(single.attention_mask[0])
            assert batch.position_ids[i, :length].equal(single.position_ids[0])
            assert batch.token_mask[i].sum() == length


def test_without_sub_sentences_it_is_plain_bert_with_zeros_at_padding(bert_folder: str) -> None:
    model = BertModel(bert_folder, pad_to_max=False).eval()
    plain = eager_bert(bert_folder)
    tokens = model.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    expected = plain(**tokens).last_hidden_state * tokens["attention_mask"][..., None]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            features = model(PROMPTS)
        torch.testing.assert_close(features.embedded, expected, atol=1e-5, rtol=0)
        assert features.token_mask.equal(tokens["attention_mask"].bool())


def test_pad_to_max_pads_to_max(bert_folder: str) -> None:
    model = BertModel(bert_folder, 32, True, True, SPECIAL_TOKENS).eval()
    with torch.no_grad():
        features = model(["dog. "])
    assert features.embedded.shape == (1, 32, model.language_dim)
    assert features.attention_mask.shape == (1, 32, 32)
    assert features.token_mask.sum() == 4
    assert features.embedded.isfinite().all()


class TestCache:
    def test_a_prompt_is_encoded_once_and_batches_reuse_single_prompts(
        self, bert: BertModel
    ) -> None:
        with torch.no_grad(), counted_runs(bert) as runs:
            bert(PROMPTS[:2])
            bert(PROMPTS[:2])
            bert([PROMPTS[1], PROMPTS[2], PROMPTS[1]])
            bert(PROMPTS)
        assert runs == [3, 1]  # two prompts and the padding token, then the third prompt

    def test_remembered_features_equal_fresh_ones_at_tokens_and_padding(
        self, bert: BertModel
    ) -> None:
        with torch.enable_grad():
            fresh = bert(PROMPTS)
        with torch.no_grad():
            bert(PROMPTS[:1])
            remembered = bert(PROMPTS)
        torch.testing.assert_close(remembered.embedded, fresh.embedded, atol=1e-5, rtol=0)
        for name in ("token_mask", "position_ids", "attention_mask"):
            assert getattr(remembered, name).equal(getattr(fresh, name))

    def test_results_are_the_callers_own(self, bert: BertModel) -> None:
        with torch.no_grad():
            first = bert(["dog. "]).embedded
            kept = first.clone()
            first.zero_()
            assert bert(["dog. "]).embedded.equal(kept)

    @pytest.mark.parametrize("training", [True, False])
    def test_nothing_is_remembered_while_gradients_flow(
        self, bert: BertModel, training: bool
    ) -> None:
        bert.train(training)
        with counted_runs(bert) as runs:
            for _ in range(2):
                bert(["dog. "]).embedded.sum().backward()
        assert runs == [1, 1]
        assert all(p.grad is not None for p in bert.parameters())

    def test_train_mode_without_gradients_is_not_remembered(self, bert: BertModel) -> None:
        bert.train()
        with torch.no_grad(), counted_runs(bert) as runs:
            bert(["dog. "])
            bert(["dog. "])
        assert runs == [1, 1]

    def test_an_optimizer_step_makes_it_forget(self, bert: BertModel) -> None:
        optimizer = torch.optim.SGD(bert.parameters(), lr=1.0)
        with torch.no_grad():
            before = bert(["dog. "]).embedded
        bert(["dog. "]).embedded.square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            after = bert(["dog. "]).embedded
        assert not torch.allclose(before, after)

    def test_loading_weights_makes_it_forget(self, bert: BertModel, tmp_path: Path) -> None:
        other = BertModel(tiny_bert(tmp_path, seed=1), 256, False, True, SPECIAL_TOKENS).eval()
        with torch.no_grad():
            bert(["dog. "])
            bert.load_state_dict(other.state_dict())
            assert bert(["dog. "]).embedded.equal(other(["dog. "]).embedded)

    def test_swapped_averaged_weights_are_noticed_at_the_next_eval(self, bert: BertModel) -> None:
        """mmengine's EMA hook writes through ``.data``, which no version counter sees."""
        with torch.no_grad():
            before = bert(["dog. "]).embedded
        for parameter in bert.parameters():
            parameter.data.mul_(1.5)
        bert.eval()
        with torch.no_grad():
            assert not torch.allclose(bert(["dog. "]).embedded, before)

    @pytest.mark.parametrize(
        "move",
        [
            lambda m: m.to(torch.device("cpu")),
            lambda m: m.double(),
            lambda m: m.requires_grad_(False).bfloat16(),
        ],
    )
    def test_a_move_makes_it_forget(
        self, bert: BertModel, move: Callable[[BertModel], BertModel]
    ) -> None:
        with torch.no_grad(), counted_runs(bert) as runs:
            bert(["dog. "])
            features = move(bert)(["dog. "])
        assert len(runs) == 2
        assert features.embedded.dtype == next(bert.parameters()).dtype

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_device_move_makes_it_forget(self, bert: BertModel) -> None:
        with torch.no_grad():
            on_cpu = bert(["dog. "]).embedded
            on_gpu = bert.cuda()(["dog. "]).embedded
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-4, rtol=0)

    def test_autocast_results_are_kept_apart(self, bert: BertModel) -> None:
        with torch.no_grad():
            exact = bert(["dog. "]).embedded
            with torch.autocast("cpu", torch.bfloat16), counted_runs(bert) as runs:
                coarse = bert(["dog. "]).embedded
            assert len(runs) == 1
            assert not coarse.float().equal(exact)
            assert bert(["dog. "]).embedded.equal(exact)

    def test_features_of_inference_mode_can_feed_a_trained_layer(self, bert: BertModel) -> None:
        layer = torch.nn.Linear(bert.language_dim, 4)
        with torch.inference_mode():
            bert(["dog. "])
        with torch.no_grad():
            remembered = bert(["dog. "]).embedded
        layer(remembered).sum().backward()
        assert layer.weight.grad is not None


def test_gradient_checkpointing_changes_no_gradient(bert_folder: str) -> None:
    gradients = []
    for use_checkpoint in (False, True):
        model = BertModel(
            bert_folder, 256, False, True, SPECIAL_TOKENS, use_checkpoint=use_checkpoint
        ).train()
        model(PROMPTS).embedded.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_checkpointing_keeps_fewer_activations(bert_folder: str) -> None:
    kept: list[int] = []
    for use_checkpoint in (False, True):
        model = BertModel(
            bert_folder, 256, False, True, SPECIAL_TOKENS, use_checkpoint=use_checkpoint
        ).train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            model(PROMPTS)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_several_layers_are_averaged(bert_folder: str) -> None:
    model = BertModel(bert_folder, 256, False, False, num_layers_of_embedded=2).eval()
    with torch.no_grad():
        states = eager_bert(bert_folder)(
            **model.tokenizer(["dog. "], return_tensors="pt"), output_hidden_states=True
        ).hidden_states
        embedded = model(["dog. "]).embedded
    torch.testing.assert_close(embedded, (states[1] + states[2]) / 2, atol=1e-5, rtol=0)


class TestStateDict:
    def test_keys_are_those_of_mmdet(self, bert: BertModel) -> None:
        keys = set(bert.state_dict())
        prefix = "language_backbone.body.model."
        assert all(key.startswith(prefix) for key in keys)
        assert f"{prefix}embeddings.word_embeddings.weight" in keys
        assert f"{prefix}encoder.layer.1.attention.self.query.bias" in keys
        assert not any("position_ids" in key or "pooler" in key for key in keys)

    def test_the_position_buffer_of_old_checkpoints_is_let_pass(self, bert: BertModel) -> None:
        state = dict(bert.state_dict())
        state["language_backbone.body.model.embeddings.position_ids"] = torch.arange(512)[None]
        bert.load_state_dict(state, strict=True)

    def test_an_unknown_key_is_not_let_pass(self, bert: BertModel) -> None:
        state = {**bert.state_dict(), "language_backbone.body.model.unknown": torch.zeros(1)}
        with pytest.raises(RuntimeError, match="unknown"):
            bert.load_state_dict(state, strict=True)

    def test_the_pooler_is_there_when_asked_for(self, bert_folder: str) -> None:
        keys = BertModel(bert_folder, add_pooling_layer=True).state_dict()
        assert "language_backbone.body.model.pooler.dense.weight" in keys


def test_mmdets_config_builds_it(bert_folder: str) -> None:
    model = MODELS.build(
        {
            "type": "BertModel",
            "name": bert_folder,
            "max_tokens": 128,
            "pad_to_max": False,
            "use_sub_sentence_represent": True,
            "special_tokens_list": ["[CLS]", "[SEP]", ".", "?"],
            "add_pooling_layer": False,
        }
    )
    assert isinstance(model, BertModel)
    assert (model.max_tokens, model.language_dim) == (128, 64)


class TestRefusals:
    def test_a_prompt_over_the_limit_is_not_cut(self, bert_folder: str) -> None:
        model = BertModel(bert_folder, 8, False, True, SPECIAL_TOKENS)
        with pytest.raises(DataError, match=r"10 tokens.*max_tokens is 8.*--custom-entities"):
            model(["dog. ", "red circle. blue square. x. "])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"use_sub_sentence_represent": True}, "special_tokens_list"),
            ({"max_tokens": 513}, "512 positions"),
            ({"num_layers_of_embedded": 3}, "has 2 layers"),
            ({"num_layers_of_embedded": 0}, "has 2 layers"),
        ],
    )
    def test_settings_that_do_not_fit_are_refused(
        self, bert_folder: str, settings: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            BertModel(bert_folder, **settings)


@pytest.mark.parametrize("case", ["a", "b", "c"])
@pytest.mark.parametrize("remember", [False, True])
def test_features_equal_those_of_the_original(golden: Path, case: str, remember: bool) -> None:
    folder = golden / "llmdet/public/detector_eval"
    model = BertModel(str(folder / "bert"), 256, False, True, SPECIAL_TOKENS).eval()
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    prefix = "language_model."
    model.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, strict=True
    )
    recorded: dict[str, Tensor] = torch.load(folder / f"expected_{case}.pt", weights_only=True)
    captions = [
        prompt["caption_string"]
        for prompt in json.loads((folder / f"expected_{case}.json").read_text())["prompts"]
    ]
    calls = [[chunk] for chunk in captions[0]] if case == "c" else [captions]
    for k, texts in enumerate(calls):
        with torch.set_grad_enabled(not remember):
            features = model(texts)
        expected = {
            name: recorded[f"bert{f'#{k}' if k else ''}.{name}"]
            for name in ("embedded", "hidden", "masks", "position_ids", "text_token_mask")
        }
        torch.testing.assert_close(features.embedded, expected["embedded"], atol=1e-5, rtol=0)
        torch.testing.assert_close(features.embedded, expected["hidden"], atol=1e-5, rtol=0)
        assert features.attention_mask.equal(expected["masks"])
        assert features.position_ids.equal(expected["position_ids"])
        assert features.token_mask.equal(expected["text_token_mask"])
