"""Conversations as token ids, labels and slots."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from llmdet.errors import ConfigError, DataError
from llmdet.prompts.conversation import (
    IGNORE_INDEX,
    Conversation,
    ConversationSettings,
    Slot,
    Turn,
    ask,
)
from llmdet.prompts.conversation_tokens import ConversationTokenizer
from llmdet.prompts.tokenizers import load_tokenizer

PROMPT, ANSWER = "<image>\nDescribe the image in detail.", "A red circle is above a blue square."
RECORDED = Path(__file__).parents[1] / "golden" / "pipeline"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    from llmdet.datasets.toy.models import tiny_llama, tiny_qwen

    make = {"qwen": tiny_qwen, "llama": tiny_llama}
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in make.items()}


@pytest.fixture(params=["qwen", "llama"])
def tokenizer(folders, request):
    """Each kind of chat template in turn."""
    return AutoTokenizer.from_pretrained(folders[request.param])


def make(tokenizer, max_length=100, image=3, region=1, **changes):
    settings = ConversationSettings(
        tokenizer.name_or_path, (("image", image), ("region", region)), max_length, **changes
    )
    return ConversationTokenizer(tokenizer, settings)


def supervised_text(tokenizer, tokens):
    return tokenizer.decode(tokens.labels[tokens.labels != IGNORE_INDEX])


def test_conversations_equal_the_recorded_ones_of_the_original():
    """Token ids and labels of every image and region conversation that was recorded."""
    tokenizer = AutoTokenizer.from_pretrained(RECORDED / "lmm")
    tokenize = make(tokenizer, 1000, image=1)
    records = json.loads((RECORDED / "random_sampling_neg_pos2.json").read_text())["records"]
    compared = 0
    for record in records:
        output = record["output"] or {}
        regions = output.get("region_conversations") or {"conversations": []}
        images = [output["conversations"]] if output.get("conversations") else []
        for recorded in images + regions["conversations"]:
            ids = recorded["input_id"]
            text = tokenizer.decode([i for i in ids if i >= 0])
            _, _, user, said = text.split("<|im_start|>")
            prompt = user.removeprefix("user\n").split("<|im_end|>")[0].strip("\n")
            answer = said.removeprefix("assistant\n").split("<|im_end|>")[0]
            place = ids.index(-200)
            if not ids[place - 1] == ids[place + 1] == tokenizer("\n").input_ids[0]:
                continue  # a prompt with the mark elsewhere
            tokens = tokenize(ask(f"<image>\n{prompt}", answer))
            assert tokens.ids.tolist() == [tokenize.pad_id if i < 0 else i for i in ids]
            assert tokens.labels.tolist() == recorded["label"]
            assert tokens.slots == (Slot("image", 0, place, 1),)
            compared += 1
    assert compared > 20


def test_marks_are_numbered_kind_by_kind():
    turns = (
        Turn("user", "<image> shows <region>, <region:4> and <region>."),
        Turn("assistant", "Like <region:0> in <image>?"),
    )
    found = [(slot.kind, slot.index) for slot in Conversation(turns).slots]
    assert found == [
        ("image", 0),
        ("region", 0),
        ("region", 4),
        ("region", 5),
        ("region", 0),
        ("image", 1),
    ]


def test_slots_stand_where_the_marks_were(tokenizer):
    tokenize = make(tokenizer)
    tokens = tokenize(ask("Is <region:2> in <image>?", ANSWER))
    region, image = tokens.slots
    assert (region.kind, region.index, region.length) == ("region", 2, 1)
    assert (image.kind, image.index, image.length) == ("image", 0, 3)
    for slot in tokens.slots:
        place = slice(slot.start, slot.start + slot.length)
        assert (tokens.ids[place] == tokenize.pad_id).all()
        assert (tokens.labels[place] == IGNORE_INDEX).all()
    between = tokens.ids[region.start + 1 : image.start]
    assert tokenizer.decode(between) == " in "


def test_a_mark_of_a_kind_that_nothing_fills_is_an_error(tokenizer):
    settings = ConversationSettings("any", (("region", 1),), 100)
    with pytest.raises(DataError, match="the mark <image>, which nothing fills"):
        ConversationTokenizer(tokenizer, settings)(ask(PROMPT, ANSWER))


def test_it_reads_conversations_whose_kinds_of_marks_are_its_own(tokenizer):
    settings = ConversationSettings("any", (("region", 1),), 100)
    tokenize = ConversationTokenizer(tokenizer, settings)
    assert tokenize.reads(ask("What is <region:3>?"))
    assert not tokenize.reads(ask(PROMPT))
    assert not tokenize.reads(ask("What is <region> in <image>?"))
    assert not tokenize.reads(ask("What is this?"))


def test_learned_turns_are_supervised_and_of_the_others_only_the_template(tokenizer):
    tokens = make(tokenizer)(ask(PROMPT, ANSWER))
    text = supervised_text(tokenizer, tokens)
    assert ANSWER in text
    assert "assistant" in text
    assert "Describe" not in text
    assert "helpful" not in text


def test_the_template_keeps_its_labels_as_in_the_original(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["qwen"])
    tokens = make(tokenizer)(ask(PROMPT, ANSWER))
    assert supervised_text(tokenizer, tokens).count("<|im_start|>") == 3


def test_several_turns_are_learned_where_they_are_marked_as_such(tokenizer):
    turns = (
        Turn("user", PROMPT),
        Turn("assistant", "A star.", learned=True),
        Turn("user", "And behind it?"),
        Turn("assistant", "Nothing.", learned=False),
        Turn("user", "Sure about <region>?"),
        Turn("assistant", "A cross.", learned=True),
    )
    tokens = make(tokenizer, 200)(Conversation(turns))
    text = supervised_text(tokenizer, tokens)
    assert "A star." in text
    assert "A cross." in text
    assert "Nothing" not in text
    assert "behind" not in text
    assert [slot.kind for slot in tokens.slots] == ["image", "region"]


def test_an_output_writes_learned_turns_its_way(tokenizer):
    tokenize = make(tokenizer, write=str.upper)
    text = supervised_text(tokenizer, tokenize(ask(PROMPT, "a star.")))
    assert "A STAR." in text


def test_cutting_counts_the_slots(tokenizer):
    short = make(tokenizer, 60, image=2)(ask(PROMPT, ANSWER * 20))
    long = make(tokenizer, 60, image=12)(ask(PROMPT, ANSWER * 20))
    assert len(short.ids) == len(long.ids) == 60
    learned = [(tokens.labels != IGNORE_INDEX).sum() for tokens in (short, long)]
    assert learned[1] == learned[0] - 10


def test_a_slot_is_never_cut_in_two(tokenizer):
    turns = (
        *ask(PROMPT, "A star.").turns,
        Turn("user", "And <image>?"),
        Turn("assistant", "A cross.", learned=True),
    )
    whole = make(tokenizer, 500, image=5)(Conversation(turns))
    second = whole.slots[1]
    for length in range(second.start + 1, second.start + 5):
        cut = make(tokenizer, length, image=5)(Conversation(turns))
        assert len(cut.ids) == second.start
        assert len(cut.slots) == 1
    assert len(make(tokenizer, second.start + 5, image=5)(Conversation(turns)).slots) == 2


def test_a_limit_that_leaves_no_room_for_an_answer_is_an_error(tokenizer):
    with pytest.raises(ConfigError, match=r"max_length=60 cannot hold"):
        make(tokenizer, 60, image=100)(ask(PROMPT, ANSWER))


def test_a_question_is_the_beginning_of_the_conversation_it_is_trained_on(tokenizer):
    tokenize = make(tokenizer)
    question, trained = tokenize(ask(PROMPT)), tokenize(ask(PROMPT, ANSWER))
    assert np.array_equal(question.ids, trained.ids[: len(question.ids)])
    assert (question.labels == IGNORE_INDEX).all()


def test_a_system_turn_of_the_conversation_replaces_that_of_the_settings(tokenizer):
    turns = (Turn("system", "Answer briefly."), *ask(PROMPT, ANSWER).turns)
    text = tokenizer.decode(make(tokenizer)(Conversation(turns)).ids)
    assert "Answer briefly." in text
    assert "helpful" not in text


def test_tokens_travel_from_a_worker(tokenizer):
    tokens = make(tokenizer)(ask(PROMPT, ANSWER))
    arrived = pickle.loads(pickle.dumps(tokens))
    assert arrived.settings == tokens.settings
    assert np.array_equal(arrived.ids, tokens.ids)


def test_a_template_that_refuses_system_turns_says_how_to_go_without(tokenizer):
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    with pytest.raises(ConfigError, match="system=None"):
        make(tokenizer)(ask(PROMPT, ANSWER))
    tokens = make(tokenizer, system=None)(ask(PROMPT, ANSWER))
    assert ANSWER in supervised_text(tokenizer, tokens)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    tokenizer.chat_template = (
        "{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(ConfigError, match="rewrites earlier turns"):
        make(tokenizer)(ask(PROMPT, ANSWER))


def test_a_tokenizer_without_any_template_is_refused(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        make(tokenizer)


def test_answers_alone_are_learned_and_are_what_follows_the_opened_question(tokenizer):
    turns = (Turn("user", "Where?"), Turn("assistant", "Here.", True))
    turns += (Turn("user", "Who?"), Turn("assistant", "Nobody.", True))
    converse = make(tokenizer, answers_only=True)
    tokens = converse(Conversation(turns))
    learned = tokenizer.decode(tokens.ids[tokens.labels != IGNORE_INDEX])
    end = tokenizer.eos_token
    assert learned.replace("\n", "") == f"Here.{end}Nobody.{end}"
    opened = converse(Conversation(turns[:1])).ids
    assert np.array_equal(tokens.ids[: len(opened)], opened)
    assert tokens.labels[len(opened) - 1] == IGNORE_INDEX != tokens.labels[len(opened)]


def test_a_tokenizer_without_template_takes_one_of_ours_by_name(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    tokenizer.chat_template = None
    turns = (Turn("user", "Where?"), Turn("assistant", "Here.", True), Turn("user", "Who?"))
    converse = make(tokenizer, template="vicuna", answers_only=True, system="Be kind.")
    tokens = converse(Conversation(turns))
    said = f"{tokenizer.bos_token}Be kind. USER: Where? ASSISTANT: Here.{tokenizer.eos_token}"
    assert tokenizer.decode(tokens.ids) == f"{said}USER: Who? ASSISTANT:"
    learned = tokenizer.decode(tokens.ids[tokens.labels != IGNORE_INDEX])
    assert learned == f" Here.{tokenizer.eos_token}"


def test_settings_may_read_conversations_that_lack_some_kinds(tokenizer):
    converse = make(tokenizer, any_kinds=True)
    assert converse.reads(ask("<image>\nWhat?", "A dog."))
    assert converse.reads(ask("What?", "A dog."))
    assert not make(tokenizer).reads(ask("What?", "A dog."))


def test_marks_have_text_around_them_where_settings_say_so(tokenizer):
    tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    converse = make(tokenizer, around=(("image", "<im_start>", "<im_end>"),), any_kinds=True)
    ids = converse(ask("The <image> and <image:0>.", "Yes.")).ids.tolist()
    pad, start, end = converse.pad_id, *tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    where = [place for place, token in enumerate(ids) if token == start]
    assert len(where) == 2
    assert all(ids[place : place + 5] == [start, pad, pad, pad, end] for place in where)


def test_a_blank_between_turns_is_written_once(root):
    """Of tokenizers that put one in front of whatever they encode."""
    tokenizer = load_tokenizer(str(root / "tests/golden/regions/text_pipeline/tokenizer"))
    turns = (Turn("user", "Where is a cup?"), Turn("assistant", "It is here.", True))
    converse = make(tokenizer, template="vicuna", answers_only=True, system="Be kind.")
    whole = "Be kind. USER: Where is a cup? ASSISTANT: It is here.</s>"
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    assert converse(Conversation(turns)).ids.tolist() == [tokenizer.bos_token_id, *ids]


def test_blanks_beside_tokens_are_left_out_on_request(root):
    tokenizer = load_tokenizer(str(root / "tests/golden/regions/text_pipeline/tokenizer"))
    turns = (Turn("user", "is <region> a cup?"), Turn("assistant", "<p> It </p> [SEG].", True))
    for legacy, inside in ((True, ["▁", "I", "t"]), (False, ["▁", "I", "t", "▁"])):
        options = {"template": "vicuna", "answers_only": True, "system": None}
        converse = make(tokenizer, legacy_blanks=legacy, any_kinds=True, **options)
        said = tokenizer.convert_ids_to_tokens(converse(Conversation(turns)).ids.tolist())
        assert said[said.index("<p>") + 1 : said.index("</p>")] == inside
        mark = said.index("<unk>")
        assert said[mark - 1 : mark + 2] == ["▁is" if legacy else "▁", "<unk>", "▁a"]
