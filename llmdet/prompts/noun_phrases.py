"""Noun phrases of a sentence, for phrase grounding: "There are many apples." -> "many apples".

Two methods: NLTK's part-of-speech tagger with the grammar that Grounding DINO's training and the
original LLMDet use, where the tagger's data is installed; otherwise the rules of
:mod:`llmdet.prompts.phrase_rules`. Nothing is ever downloaded.
"""

from __future__ import annotations

import logging
from functools import cache

from llmdet.errors import ConfigError
from llmdet.prompts.phrase_rules import rule_noun_phrases

logger = logging.getLogger(__name__)

METHODS = ("auto", "nltk", "rules")
TAGGER_DATA = "taggers/averaged_perceptron_tagger_eng"
DOWNLOAD = "python -m nltk.downloader averaged_perceptron_tagger_eng"
#: An article, adjectives, nouns; the tags are those of the Penn Treebank.
GRAMMAR = "NP: {<DT>?<JJ.*>*<NN.*>+}"


def find_noun_phrases(sentence: str, method: str = "auto") -> list[tuple[int, int]]:
    """Character spans of the noun phrases of an English sentence.

    Args:
        sentence: any capitalisation, with or without final dot.
        method: "nltk", "rules", or "auto": NLTK where its tagger data is installed, else rules.

    Returns:
        [start, end) spans in reading order, not overlapping; a phrase that occurs twice is found
        twice.

    Raises:
        ConfigError: no such method, or "nltk" without its package or data.
    """
    chosen = choose_method(method)
    if chosen == "nltk":
        _announce("NLTK's tagger")
        return _nltk_noun_phrases(sentence)
    hint = "" if method == "rules" else f" NLTK's tagger has no data here; to get it: {DOWNLOAD}"
    _announce("the built-in rules", hint)
    return rule_noun_phrases(sentence)


def choose_method(method: str) -> str:
    """What a method means on this machine: "nltk" or "rules".

    Raises:
        ConfigError: no such method, or "nltk" without its package or data.
    """
    if method not in METHODS:
        raise ConfigError(
            f"noun_phrases={method!r}: choose one of {', '.join(METHODS)}, or give a function."
        )
    installed = _tagger_installed()
    if method == "nltk" and not installed:
        raise ConfigError(
            "noun_phrases='nltk' needs the nltk package and its tagger data: run `pip install "
            f"nltk && {DOWNLOAD}` (on a closed network: elsewhere, then copy the nltk_data folder "
            "to your home), or choose noun_phrases='rules'."
        )
    return "nltk" if installed and method != "rules" else "rules"


def _tagger_installed() -> bool:
    try:
        import nltk
    except ImportError:
        return False
    try:
        nltk.data.find(TAGGER_DATA)
    except LookupError:
        return False
    return True


def _nltk_noun_phrases(sentence: str) -> list[tuple[int, int]]:
    import nltk

    spans = list(nltk.tokenize.NLTKWordTokenizer().span_tokenize(sentence))
    tags = nltk.pos_tag([sentence[start:stop].lower() for start, stop in spans])
    indexed = [(i, tag) for i, (_, tag) in enumerate(tags)]
    tree = nltk.RegexpParser(GRAMMAR).parse(indexed)
    phrases = [phrase.leaves() for phrase in tree.subtrees(lambda t: t.label() == "NP")]
    found = [(spans[leaves[0][0]][0], spans[leaves[-1][0]][1]) for leaves in phrases]
    # The tagger takes signs such as % for nouns.
    return [(s, e) for s, e in found if any(character.isalnum() for character in sentence[s:e])]


@cache
def _announce(method: str, hint: str = "") -> None:
    """Say once which method runs."""
    logger.info("Noun phrases are found by %s.%s", method, hint)
