"""LLaVA's conversations about whole pictures."""

import json

import pytest

from llmdet.datasets.formats import ReadOptions, open_source
from llmdet.datasets.formats.llava import NO_PICTURE
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError


def talk(question="What is it?"):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "A cat."}]


def test_conversations_of_llava_keep_their_turns_and_those_without_a_picture_are_counted(tmp_path):
    path = tmp_path / "llava.json"
    path.write_text(
        json.dumps([{"id": "a", "image": "a.jpg", "conversations": talk()}, {"id": "b"}])
    )
    ledger = Ledger()
    (sample,) = open_source(path, "llava", ReadOptions(), ledger).samples
    assert (sample.filename, sample.width) == ("a.jpg", None)
    assert sample.fields == {"conversations": talk()}
    assert ledger.counts == {NO_PICTURE: 1}
    path.write_text(json.dumps([{"image": "a.jpg", "conversations": talk("<region>?")}]))
    with pytest.raises(DataError, match=r"entry 0: .* has a mark for region 0"):
        list(open_source(path, "llava", ReadOptions(), Ledger()).samples)


def test_permitted_broken_conversations_are_skipped_and_counted(tmp_path):
    path = tmp_path / "llava.json"
    entries = [{"image": "a.jpg"}, {"image": "b.jpg", "conversations": talk()}]
    path.write_text(json.dumps(entries))
    ledger = Ledger(max_bad_rows=1)
    (sample,) = open_source(path, "llava", ReadOptions(), ledger).samples
    assert sample.filename == "b.jpg"
    assert ledger.counts["broken record"] == 1
