"""Noun phrases by rule: what is left of a sentence between its function words.

Every word of no closed class counts as *open*: a noun, an adjective or a verb. A phrase is a run of
determiners and open words. What separates verbs from nouns is agreement and place: in "a man holds
a ball" the first phrase ends before "holds", because a determiner follows. The rules know hardly
any nouns, so they carry over to any domain; a tagger does better on long sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from llmdet.prompts import closed_words as words

#: Numbers such as 5.5, abbreviations with their dot, words, and signs.
_TOKEN = re.compile(
    r"\d+(?:[.,]\d+)+"
    rf"|\b(?:{'|'.join(sorted(words.ABBREVIATIONS))})\.(?=\s+\w)"
    r"|[^\W_]+(?:['\u2019\-][^\W_]+)*|[^\w\s]|_+",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LINKS = frozenset({"of", "to", "from"})


class Kind(Enum):
    """What a word does to the phrase around it."""

    DETERMINER = auto()
    OPEN = auto()
    BREAK = auto()


@dataclass(frozen=True)
class Word:
    """A word or punctuation mark of the sentence."""

    text: str  # lower case
    start: int
    stop: int
    kind: Kind


@dataclass(frozen=True)
class Run:
    """Determiners and open words between two breaks."""

    determiners: Sequence[Word]
    open: Sequence[Word]
    before: Sequence[Word]  # the rest of the sentence on the left
    after: Word | None


def rule_noun_phrases(sentence: str) -> list[tuple[int, int]]:
    """[start, end) character spans of the noun phrases of an English sentence."""
    phrases = []
    for run in _runs(_classify(sentence)):
        for part in _split_at_verbs(run):
            part = _without_leading_verb(part)
            part = _without_trailing_verb(part)
            if _names_something(part):
                first = (*part.determiners, *part.open)[0]
                phrases.append((first.start, part.open[-1].stop))
    return phrases


def _classify(sentence: str) -> list[Word]:
    found = [(m.group().lower().replace("\u2019", "'"), m) for m in _TOKEN.finditer(sentence)]
    classified: list[Word] = []
    for i, (text, match) in enumerate(found):
        before = classified[-1].kind if classified else Kind.BREAK
        after = found[i + 1][0] if i + 1 < len(found) else ""
        kind = _kind(text, before, after)
        classified.append(Word(text, match.start(), match.end(), kind))
    return classified


def _kind(text: str, before: Kind, after: str) -> Kind:
    opens_next = _is_open(after)
    if text in {"one", "ones", "other"} and before != Kind.BREAK and not opens_next:
        return Kind.OPEN  # "the red one"
    if text == "that" and before == Kind.OPEN:
        return Kind.BREAK  # "the dog that barks"
    if _NUMBER.fullmatch(text) and not opens_next:
        return Kind.OPEN if before == Kind.OPEN else Kind.BREAK  # "platform 9"
    if text in words.DETERMINERS or _NUMBER.fullmatch(text):
        return Kind.DETERMINER
    if _is_adverb(text):
        inside = before == Kind.DETERMINER and opens_next  # "a very long plant"
        return Kind.DETERMINER if inside else Kind.BREAK
    return Kind.OPEN if _is_open(text) else Kind.BREAK


def _is_open(text: str) -> bool:
    closed = text in words.FUNCTION_WORDS or text in words.DETERMINERS
    return text[:1].isalnum() and not closed


def _is_adverb(text: str) -> bool:
    if text in words.INTENSIFIERS:
        return True
    return text.endswith("ly") and len(text) > 4 and text not in words.ADVERB_LOOKALIKES


def _runs(sentence: Sequence[Word]) -> Iterator[Run]:
    i = 0
    while i < len(sentence):
        start = i
        while i < len(sentence) and sentence[i].kind == Kind.DETERMINER:
            i += 1
        middle = i
        i = _end_of_open_words(sentence, i)
        if i > middle:
            after = sentence[i] if i < len(sentence) else None
            yield Run(sentence[start:middle], sentence[middle:i], sentence[:start], after)
        i = max(i, start + 1)


def _end_of_open_words(sentence: Sequence[Word], i: int) -> int:
    """The first index behind open words; "black and white cat" is one run of them."""
    while i < len(sentence) and sentence[i].kind == Kind.OPEN:
        i += 1
        coordinated = (
            i + 1 < len(sentence)
            and sentence[i - 1].text in words.ADJECTIVES
            and sentence[i].text in {"and", ","}
            and sentence[i + 1].kind == Kind.OPEN
        )
        i += coordinated
    return i


def _split_at_verbs(run: Run) -> Iterator[Run]:
    """Cut "a man wearing sunglasses" and "a man wears sunglasses" at the verb, which is dropped."""
    start = 0
    determiners, before = run.determiners, run.before
    for j in range(1, len(run.open)):
        verb, subject = run.open[j], run.open[j - 1]
        if j - 1 < start or not _is_verb_after(subject, verb, last=j == len(run.open) - 1):
            continue
        yield Run(determiners, run.open[start:j], before, verb)
        determiners, before, start = (), (*before, *run.open[start:j]), j + 1
    yield Run(determiners, run.open[start:], before, run.after)


def _is_verb_after(subject: Word, verb: Word, last: bool) -> bool:
    if subject.text in words.ADJECTIVES or verb.text in words.PARTICIPLE_LOOKALIKES:
        return False
    if verb.text in words.BASE_VERBS:
        return subject.text.endswith("s") or subject.text in words.PLURALS_WITHOUT_S
    if verb.text in words.FINITE_VERBS | words.TRANSITIVE_PARTICIPLES:
        return True
    return last and verb.text.endswith(("ing", "ed"))


def _without_leading_verb(run: Run) -> Run:
    """Drop "sitting" of "are sitting" and the predicate of "is red"."""
    if run.determiners or not run.open:
        return run
    first = run.open[0].text
    participle = first.endswith(("ing", "ed", "en")) and first not in words.PARTICIPLE_LOOKALIKES
    link = next((w for w in reversed(run.before) if w.text not in words.ADVERBS), None)
    existential = link is not None and _is_existential(run.before)
    if link is not None and link.text in words.BE and not existential and not participle:
        plural = run.open[-1].text.endswith("s")
        return run if plural else replace(run, open=())
    alone = participle and len(run.open) == 1
    verb = first in words.FINITE_VERBS | words.BASE_VERBS | words.TRANSITIVE_PARTICIPLES
    if verb or alone or (link is not None and not existential and _needs_verb(link, participle)):
        return replace(run, open=run.open[1:])
    return run


def _is_existential(before: Sequence[Word]) -> bool:
    said = [word.text for word in before[-2:]]
    return said[-1:] == ["there's"] or (said[:1] == ["there"] and said[-1] in words.BE)


def _needs_verb(link: Word, participle: bool) -> bool:
    """Whether the word behind a subject pronoun or an auxiliary is a verb."""
    if link.text in words.BE | words.HAVE:
        return participle
    return link.text in words.AUXILIARIES or (
        link.text in words.SUBJECTS and link.kind == Kind.BREAK
    )


def _without_trailing_verb(run: Run) -> Run:
    """Drop "holds" of "a man holds a ball", "sits" of "a cat sits", "next" of "a cup next to"."""
    if not run.open:
        return run
    rest, last = run.open[:-1], run.open[-1].text
    shorter = replace(run, open=rest)
    if _begins_object(run.after) and (rest or not run.determiners):
        return shorter
    if rest and last in words.LINKING_PLACES and run.after and run.after.text in _LINKS:
        return shorter
    singular = any(word.text in words.SINGULAR_DETERMINERS for word in run.determiners)
    if singular and _agrees_as_verb(last) and _names_something(shorter):
        return shorter
    return run


def _begins_object(word: Word | None) -> bool:
    if word is None:
        return False
    known = word.text in words.OBJECT_DETERMINERS or bool(_NUMBER.fullmatch(word.text))
    return (word.kind == Kind.DETERMINER and known) or word.text in words.OBJECT_PRONOUNS


def _agrees_as_verb(text: str) -> bool:
    noun = text.endswith(("ss", "us", "is", "'s")) or text in words.PLURAL_LOOKALIKES
    return text.endswith("s") and not noun


def _names_something(run: Run) -> bool:
    names = {word.text for word in run.open} - {"and", ","}
    return bool(names) and not (names <= words.PLACES or names <= words.ADJECTIVES)
