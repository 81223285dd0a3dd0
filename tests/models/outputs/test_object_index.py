"""Answers that name candidates: tokens, decoding, scores, and finding objects."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import pseudo_collate

from llmdet.apis.region_chat import FIND, RegionChat
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import MakeViews, PackViews
from llmdet.errors import ConfigError, DataError
from llmdet.models.language.language_model import Generated
from llmdet.models.outputs import ObjectIndex
from llmdet.models.outputs.object_decoding import ObjectConstraint, ObjectTokens
from llmdet.prompts.conversation import Conversation, Turn, ask
from llmdet.prompts.objects import ABSENT, ObjectGrammar
from llmdet.registry import MODELS
from llmdet.testing.region_models import tiny_region_lmm

BOXES = [[0.0, 0, 20, 30], [20.0, 0, 40, 30]]
COLOURS = {"red": (0, 0, 255), "blue": (255, 0, 0), "green": (0, 255, 0)}  # blue first
#: Ids 0..5 are words, 6 ends, 7..10 are delimiters and 11..14 objects.
TOKENS = ObjectTokens(objects=(11, 12, 13, 14), delimiters=(7, 8, 9, 10), end=6)
GROUP = re.compile(r"7w+89(?:o\d)+A")


def settings_of(qwen, **output):
    output = {"type": "ObjectIndex", "count": 4, **output}
    talk = {"max_length": 200, "max_new_tokens": 16, "system": None}
    return tiny_region_lmm(qwen, output=output, talk=talk)


@pytest.fixture
def model(qwen):
    torch.manual_seed(0)
    return MODELS.build(settings_of(qwen))


def halves(left, right):
    image = np.empty((30, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = COLOURS[left], COLOURS[right]
    return image


def batch_of(model, *samples):
    """Pairs of a picture and its conversations as a batch."""
    views, made = MakeViews(model.view_settings()), []
    for image, conversations in samples:
        fields = {"img": image, "ori_shape": image.shape[:2], "conversations": conversations}
        fields["regions"] = Regions(np.array(BOXES, np.float32))
        made.append(PackViews().transform(views.transform(fields)))
    return model.data_preprocessor(pseudo_collate(made), True)


def written(ids):
    """An answer up to its end as one letter a kind, objects with their number."""
    letters = {**dict.fromkeys(range(6), "w"), 7: "7", 8: "8", 9: "9", 10: "A"}
    said = ids[: ids.index(6)] if 6 in ids else ids
    return "".join(letters.get(token) or f"o{token - 11}" for token in said)


@given(st.integers(0, 2**31), st.integers(1, 24), st.lists(st.booleans(), min_size=4, max_size=4))
@settings(max_examples=40)
def test_whatever_is_preferred_only_live_candidates_are_named_and_all_is_closed(seed, limit, there):
    random = torch.Generator().manual_seed(seed)
    live = torch.tensor([there, [True, False, True, False]])
    constraint = ObjectConstraint(TOKENS, live, limit)
    ids = torch.zeros(6, 0, dtype=torch.int64)
    liking = torch.randn(6, 15, generator=random) * 3
    for _ in range(limit):
        scores = liking + torch.randn(6, 15, generator=random) * 2
        allowed = constraint(ids, scores)
        assert ((allowed == scores) | (allowed == -torch.inf)).all()
        ids = torch.cat([ids, allowed.argmax(1, keepdim=True)], 1)
    for row, said in enumerate(ids.tolist()):
        text = written(said)
        rest = GROUP.sub("", text)
        assert re.fullmatch(r"(w|o\d)*", rest), text
        assert {int(n) for n in re.findall(r"o(\d)", text)} <= {
            n for n, alive in enumerate(live[row // 3].tolist()) if alive
        }
        for group in GROUP.findall(text):
            named = re.findall(r"o\d", group)
            assert len(set(named)) == len(named)


def test_free_text_is_untouched():
    constraint = ObjectConstraint(TOKENS, torch.tensor([[True, False, True, False]]))
    scores = torch.randn(1, 15)
    said = torch.tensor([[1, 7, 2, 8, 9, 11, 10, 3]])
    for ids in (said[:, :0], said[:, :1], said):
        changed = (constraint(ids, scores) != scores)[0].nonzero()[:, 0].tolist()
        assert changed == [8, 9, 10, 12, 14]
    assert torch.equal(constraint(torch.tensor([[1, 6]]), scores), scores)  # has ended


def test_sampling_and_beams_keep_to_the_candidates_of_their_conversation(model):
    questions = [[ask("<image>\n<obj0><region:0>\nCars?"), ask("<image>\nHow many <obj3>?")]]
    data = batch_of(model, (halves("red", "blue"), ()))
    torch.nn.init.normal_(model.lmm.causal_lm.get_output_embeddings().added, std=2.0)
    torch.manual_seed(1)
    for options in (
        {"do_sample": True, "temperature": 3.0},
        {"num_beams": 3, "early_stopping": True},
    ):
        seen = model.look(data["inputs"])
        first, second = model.answer(seen, data["data_samples"], questions, **options)[0]
        assert set(re.findall(r"<obj\d>", first.text)) <= {"<obj0>"}
        assert not re.search(r"<obj\d>|<ground>", second.text)
        for answer in (first, second):
            assert answer.text.count("<ground>") == answer.text.count("</objects>")
            assert {n for named in answer.phrases for n in named.indices} <= {0}


def test_scores_are_the_probabilities_of_the_indices(model):
    tokenizer = model.lmm.tokenizer
    text = "A <ground>red circle</ground><objects><obj2><obj0></objects> is here.<|im_end|>"
    ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
    probabilities = torch.linspace(0.1, 0.9, ids.shape[1])[None]
    said = Generated([""], ids, probabilities, torch.zeros(1, 1, 1))
    (answer,) = model.output.read(said, tokenizer)
    assert answer.text == text.removesuffix("<|im_end|>")
    (named,) = answer.phrases
    assert (named.phrase, named.indices) == ("red circle", (2, 0))
    objects = [ids[0].tolist().index(tokenizer.convert_tokens_to_ids(f"<obj{n}>")) for n in (2, 0)]
    assert named.scores == pytest.approx(probabilities[0, objects].tolist())


def test_what_is_spelled_letter_by_letter_is_no_index(model):
    tokenizer = model.lmm.tokenizer
    marks = tokenizer.convert_tokens_to_ids(["<ground>", "</ground>", "<objects>", "</objects>"])
    letters = [tokenizer(c, add_special_tokens=False).input_ids[0] for c in "<obj0>"]
    word = tokenizer("red", add_special_tokens=False).input_ids
    ids = [marks[0], *word, marks[1], marks[2], *letters, marks[3]]
    said = Generated([""], torch.tensor([ids]), torch.ones(1, len(ids)), torch.zeros(1, 1, 1))
    (answer,) = model.output.read(said, tokenizer)
    assert "<obj0>" in answer.text
    assert answer.phrases == ()


def test_only_the_rows_of_its_tokens_train_in_a_frozen_language_model(qwen):
    config = settings_of(qwen)
    config["lmm"]["frozen"] = True
    model = MODELS.build(config).train()
    trainable = [name for name, p in model.lmm.named_parameters() if p.requires_grad]
    assert trainable == ["causal_lm.model.embed_tokens.added"]  # the head's are the same
    conversation = model.output.introduce(
        ask("Find red.", ObjectGrammar("g").write({"red": [0]})), 2
    )
    model.loss(**batch_of(model, (halves("red", "blue"), (conversation,))))["loss_lmm"].backward()
    rows = model.lmm.causal_lm.get_input_embeddings().added
    assert rows.grad.any(1).all()
    tokens = model.conversations(conversation)
    learned = model.lmm.tokenizer.decode(tokens.labels[tokens.labels >= 0])
    assert learned.startswith("<ground>red</ground><objects><obj0></objects>")


@pytest.fixture
def chat(model, monkeypatch):
    """A model that answers from a table: what is asked for -> text and probability of all of it."""
    answers = {
        "red": ("<ground>red</ground><objects><obj1></objects>", 0.75),
        "both": ("<ground>red</ground><objects><obj0><obj1></objects>", 0.5),
        "green": (ABSENT, 1.0),
    }
    tokenizer = model.lmm.tokenizer

    def generate(dialogue, features, **options):
        assert options["logits_processor"]
        asked = tokenizer.batch_decode(dialogue.input_ids)
        said = [answers[re.search(r"detect (\w+) in", each).group(1)] for each in asked]
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text, _ in said]
        length = max(map(len, ids))
        padded = [each + [tokenizer.eos_token_id] * (length - len(each)) for each in ids]
        sure = torch.tensor([[score] * length for _, score in said])
        hidden = torch.zeros(len(said), length, 1)
        return Generated([""] * len(said), torch.tensor(padded), sure, hidden, dialogue)

    monkeypatch.setattr(model.lmm, "generate", generate)
    return RegionChat(model)


def test_boxes_are_found_among_the_candidates_and_what_is_absent_is_said(chat):
    image = halves("blue", "red")[..., ::-1]
    red, both, green = chat.find_each(image, ["red", "both", "green"], BOXES)
    assert (red.boxes.tolist(), red.indices.tolist()) == ([BOXES[1]], [1])
    assert red.scores.tolist() == [0.75]
    assert (both.boxes.tolist(), both.scores.tolist()) == (BOXES, [0.5, 0.5])
    assert (green.boxes.shape, green.absent, red.absent) == ((0, 4), True, False)
    alone = chat.find(image, "red", BOXES)
    assert (alone.answer, alone.left_out) == (red.answer, 0)
    assert chat.find(image, "red", BOXES[:1]).indices.tolist() == []  # there is no <obj1>
    assert chat.ask(image, FIND.replace("{phrase}", "green"), BOXES) == ABSENT


def test_of_too_many_candidates_the_best_are_shown_and_the_others_counted(chat, caplog):
    image = halves("blue", "red")[..., ::-1]
    boxes = [[0.0, 0, 5, 5]] * 3 + BOXES
    found = chat.find(image, "red", boxes, scores=[0.1, 0.2, 0.3, 0.8, 0.9])
    assert (found.left_out, found.indices.tolist()) == (1, [2])
    assert "1 of 5 candidates are left out" in caplog.text
    assert chat.find(image, "red", boxes, keep="area").indices.tolist() == [1]
    with pytest.raises(DataError, match="no scores"):
        chat.find(image, "red", boxes)
    with pytest.raises(DataError, match="5 regions are more than the 4"):
        chat.ask(image, "What is <obj0>?", boxes)


def test_without_candidates_nothing_is_asked_and_all_is_absent(chat, monkeypatch):
    def answer(*_, **__):
        pytest.fail("the model was asked")

    monkeypatch.setattr(chat.model, "answer", answer)
    red, dog = chat.find_each(halves("red", "blue"), ["red", "dog"], np.zeros((0, 4)), [])
    assert (red.phrase, red.boxes.shape, red.absent, red.answer) == ("red", (0, 4), True, "")
    assert (dog.phrase, dog.absent, dog.picture.width) == ("dog", True, 40)


def test_finding_needs_a_model_that_names_objects(qwen):
    chat = RegionChat(MODELS.build(tiny_region_lmm(qwen)))
    with pytest.raises(ConfigError, match="Text; finding objects needs"):
        chat.find(halves("red", "blue"), "red", BOXES)


def test_questions_about_regions_ask_for_candidates():
    turns = Conversation((Turn("user", "What is <region>?"),))
    (turn,) = ObjectIndex().introduce(turns, 1).turns
    assert turn.text == "<image>\n<obj0><region:0>\nWhat is <obj0>?"


def test_numbered_candidates_carry_the_embeddings_of_their_tokens(qwen, model):
    numbered = MODELS.build(settings_of(qwen, numbered=2.0))
    asked = numbered.conversations(ask("<image>\n<obj1><region:0><obj3><region:1>\nCars?"))
    dialogue = numbered._collate([asked])
    given = {"region": torch.zeros(2, numbered.lmm.hidden_size), "image": torch.ones(1, 1)}
    filled = numbered.output.mark_features(given, dialogue, numbered.lmm)
    ids = numbered.lmm.tokenizer.convert_tokens_to_ids(["<obj1>", "<obj3>"])
    rows = numbered.lmm.causal_lm.get_input_embeddings()(torch.tensor(ids))
    assert torch.equal(filled["region"], 2 * rows)
    assert filled["image"] is given["image"]
    assert model.output.mark_features(given, dialogue, model.lmm) is given  # of released models


def test_regions_that_stand_behind_no_token_stay_as_they_are(qwen):
    model = MODELS.build(settings_of(qwen, numbered=1.0))
    dialogue = model._collate([model.conversations(ask("<image>\nWhat is <region:0>?"))])
    given = {"region": torch.ones(1, model.lmm.hidden_size)}
    assert torch.equal(
        model.output.mark_features(given, dialogue, model.lmm)["region"], given["region"]
    )
