"""Which way noun phrases are found, and what NLTK's way finds."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmdet.errors import ConfigError
from llmdet.prompts import noun_phrases
from llmdet.prompts.noun_phrases import find_noun_phrases

nltk = pytest.importorskip("nltk")

TAGGED = [
    "a/DT brown/JJ dog/NN is/VBZ running/VBG on/IN the/DT green/JJ grass/NN ./.",
    "the/DT man/NN 's/POS hat/NN is/VBZ red/JJ ./.",
    "there/EX are/VBP many/JJ apples/NNS here/RB ./.",
    "two/CD people/NNS sit/VBP under/IN a/DT large/JJ tree/NN ,/, and/CC a/DT bicycle/NN is/VBZ "
    "parked/VBN nearby/RB ./.",
]


@pytest.fixture(autouse=True)
def unannounced() -> Iterator[None]:
    noun_phrases._announce.cache_clear()
    yield
    noun_phrases._announce.cache_clear()


@pytest.fixture
def no_tagger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NLTK without data."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


@pytest.fixture
def small_tagger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NLTK's own tagger, trained on a handful of sentences, where its data would be installed."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    folder = tmp_path / noun_phrases.TAGGER_DATA
    folder.parent.mkdir()
    tagger = nltk.tag.PerceptronTagger(load=False)
    sentences = [[tuple(pair.rsplit("/", 1)) for pair in line.split()] for line in TAGGED]
    tagger.train(sentences, nr_iter=20)
    tagger.save_to_json("eng", str(folder))


def phrases(sentence: str, method: str) -> list[str]:
    return [sentence[start:stop] for start, stop in find_noun_phrases(sentence, method)]


@pytest.mark.usefixtures("small_tagger")
class TestNltk:
    @pytest.mark.parametrize(
        ("sentence", "expected"),
        [
            (
                "A brown dog is running on the green grass.",
                ["A brown dog", "the green grass"],
            ),
            ("The man's hat is red.", ["The man", "hat"]),
            ("There are many apples here.", ["many apples"]),
            (
                "Two people sit under a large tree, and a bicycle is parked nearby.",
                ["people", "a large tree", "a bicycle"],
            ),
        ],
    )
    def test_an_article_adjectives_and_nouns_make_a_phrase(
        self, sentence: str, expected: list[str]
    ) -> None:
        assert phrases(sentence, "nltk") == expected

    def test_auto_prefers_it_and_says_so_once(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "llmdet"):
            assert phrases("The man's hat is red.", "auto") == ["The man", "hat"]
            find_noun_phrases("A brown dog.", "auto")
        assert [record.message for record in caplog.records] == [
            "Noun phrases are found by NLTK's tagger."
        ]

    def test_rules_can_be_chosen_all_the_same(self) -> None:
        assert phrases("The man's hat is red.", "rules") == ["The man's hat"]


@pytest.mark.usefixtures("no_tagger")
class TestWithoutTaggerData:
    def test_auto_falls_back_to_rules_and_says_once_how_to_get_the_data(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "llmdet"):
            assert phrases("There are many apples here.", "auto") == ["many apples"]
            find_noun_phrases("A brown dog.", "auto")
        (record,) = caplog.records
        assert "built-in rules" in record.message
        assert noun_phrases.DOWNLOAD in record.message

    def test_nltk_is_refused_with_the_command_that_gets_the_data(self) -> None:
        with pytest.raises(ConfigError, match="averaged_perceptron_tagger_eng"):
            find_noun_phrases("A brown dog.", "nltk")

    def test_nothing_is_ever_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("downloads"))
        find_noun_phrases("A brown dog.", "auto")


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'spacy': choose one of auto, nltk, rules"):
        find_noun_phrases("A brown dog.", "spacy")
