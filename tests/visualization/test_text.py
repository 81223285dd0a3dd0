import logging

import numpy as np
import pytest
from PIL import Image

from llmdet.visualization import fonts
from llmdet.visualization.text import Lettering

WRITING = Lettering(20)


@pytest.fixture
def only_dejavu(monkeypatch):
    """A machine without any font but matplotlib's."""
    caches = (fonts.font_file, fonts._first_report)
    monkeypatch.setattr(fonts, "_installed", tuple)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def page(text):
    canvas = Image.new("RGB", (400, 40), "white")
    WRITING.write(canvas, (5, 5), text, (0, 0, 0))
    return np.asarray(canvas)


def ink(text):
    return np.argwhere((page(text) != 255).any(axis=2))


def test_long_phrases_wrap_between_words_and_keep_their_end():
    rows = WRITING.wrap("the man in a red hat who stands near the old car 87%", 160, 3)
    assert 1 < len(rows) <= 3
    assert all(WRITING.width(row) <= 160 for row in rows)
    assert rows[0].startswith("the man")
    assert rows[-1].endswith("87%")


def test_a_word_wider_than_its_line_is_cut():
    (row,) = WRITING.wrap("Donaudampfschifffahrtsgesellschaft", 100, 3)
    assert row.startswith("Don")
    assert row.endswith("…")
    assert WRITING.width(row) <= 100


def test_the_width_is_that_of_the_ink():
    for text in ("dog", "a long phrase, with commas", "naïve Å"):
        columns = ink(text)[:, 1]
        assert columns.max() - columns.min() == pytest.approx(WRITING.width(text), abs=4)


@pytest.mark.parametrize("text", ["猫が二匹", "강아지 두 마리", "🐕 🚚"])
def test_scripts_that_a_font_of_the_machine_has_are_written(text):
    if fonts.missing_characters(text):
        pytest.skip(f"no font of this machine has {text}: fonts-droid-fallback, fonts-nanum, ...")
    columns = ink(text)[:, 1]
    assert columns.max() - columns.min() == pytest.approx(WRITING.width(text), abs=8)
    assert len({page(character).tobytes() for character in text}) == len(set(text))


def test_characters_without_a_font_leave_no_empty_boxes(only_dejavu, caplog):
    assert len(ink("猫")) == 0
    assert WRITING.width("猫") == 0
    assert WRITING.width("a猫b") == pytest.approx(WRITING.width("a") + WRITING.width("b"))


def test_a_name_without_a_font_becomes_its_number_and_the_log_says_so_once(only_dejavu, caplog):
    with caplog.at_level(logging.WARNING):
        assert fonts.writable("red 猫", "label 3") == "label 3"
        assert fonts.writable("犬", "label 4") == "label 4"
        assert fonts.writable("dog 🫎", "label 5") == "dog"
        assert fonts.writable("Ärger über Ωmega", "label 6") == "Ärger über Ωmega"
    assert [record.message for record in caplog.records if "No font" in record.message] != []
    assert len(caplog.records) == 1
    assert "fonts-droid-fallback" in caplog.text


def test_joined_pictographs_and_accents_stay_together():
    pieces = [piece for _, piece in fonts.split_by_font("e\u0301a 👩\u200d🚀!")]
    assert "".join(pieces) == "e\u0301a 👩\u200d🚀!"
    assert any("👩\u200d🚀" in piece for piece in pieces)


def test_a_broken_font_file_is_left_out(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    assert fonts._characters(broken) == frozenset()
