"""Clean the captions and phrases that the language model is taught to say.

Captions written by a language model speculate ("possibly a shop", "suggesting that"); section 3
of the LLMDet paper removes such clauses. :func:`remove_speculative_clauses` does so and leaves
whole sentences; :func:`remove_speculative_clauses_upstream` equals the original program, faults
included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

_STEMS = {  # stem -> endings that make it a word of speculation; "" is the stem itself
    "possibly": ("",),
    "probabl": ("e", "y"),
    "maybe": ("",),
    "perhaps": ("",),
    "suggest": ("", "s", "ing", "ed"),
    "speculat": ("e", "es", "ing", "ed"),
    "assum": ("e", "es", "ing", "ed"),
    "guess": ("", "es", "ing", "ed"),
    "suppos": ("e", "es", "ing", "ed"),
    "appear": ("", "s", "ed", "ing"),
    "seem": ("", "s", "ed", "ing"),
    "indicat": ("e", "es", "ing", "ed"),
    "hint": ("", "s", "ing", "ed"),
    "impl": ("y", "ies", "ying", "ied"),
    "infer": ("", "s", "ring", "red"),
    "expect": ("", "s", "ing", "ed"),
    "tends ": ("to", "not to"),
    "looks ": ("like",),
    "sounds ": ("like",),
}
_WORDS = tuple(stem + ending for stem, endings in _STEMS.items() for ending in endings)
#: What a clause denies is no part of the image either.
_NEGATIONS = ("no", "not")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREPOSITIONS = _words(
    "in on at by with about against between into through during before after above below to from "
    "up down for of under over as"
)
_SUBORDINATORS = _PREPOSITIONS | _words(
    "along alongside amid among around across behind beside besides beneath beyond near next "
    "inside outside toward towards within without while which who whom whose that where when "
    "because since though although if whether unless until than like unlike especially including "
    "such hence thus making"
)
_COORDINATORS = frozenset(("and", "but", "or", "so", "yet", "nor"))
_SUBJECTS = _words("it he she they there this these we you i")
_FINITE_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|does|do|did|can|will)\b", re.I)


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")


_WORD = re.compile(r"\w+")
_SINGLE = frozenset(word for word in (*_WORDS, *_NEGATIONS) if " " not in word)
_PAIRS = _pattern(word for word in _WORDS if " " in word)
_PAIR_HEADS = frozenset(word.split()[0] for word in _WORDS if " " in word)


def _speculates(text: str) -> bool:
    """Whether a word of speculation or negation is in a text."""
    lower = text.lower()
    words = set(_WORD.findall(lower))
    if not _SINGLE.isdisjoint(words):
        return True
    return not _PAIR_HEADS.isdisjoint(words) and _PAIRS.search(lower) is not None


#: A clause ends at a comma or semicolon, but not inside a number such as 1,000.
_CLAUSE_END = re.compile(r"([,;])(?!\d)")
#: A sentence ends at its mark, at an empty line, or where a line begins a list item.
_SENTENCE_END = re.compile(
    r"((?<=[.!?])(?<!\bMr\.)(?<!\bDr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bSt\.)(?<!\be\.g\.)(?<!\bi\.e\.)"
    r"\s+|\n\s*\n\s*|\n(?=\s*(?:[-*\u2022]|\d+\.)\s))"
)


def remove_speculative_clauses(text: str) -> str:
    """Remove what a caption supposes or denies, and keep what it states.

    Words count as a whole and in any case. A clause that holds one of them goes; a sentence
    whose main clause goes is dropped altogether, unless what is left has a subject and a verb of
    its own. Line breaks between sentences stay.

    Args:
        text: a caption of any number of sentences and lines.

    Returns:
        The cleaned caption, empty where nothing certain is said.
    """
    if not _speculates(text):
        return text.strip()
    pieces = _SENTENCE_END.split(text)
    result, gap = "", ""
    for sentence, following_gap in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        cleaned = _clean_sentence(sentence)
        if cleaned:
            result += gap + cleaned if result else cleaned
            gap = following_gap
        elif following_gap.count("\n") > gap.count("\n"):
            gap = following_gap
    return result


def _clean_sentence(sentence: str) -> str:
    sentence = sentence.strip()
    if not _speculates(sentence):
        return sentence
    body = sentence.rstrip(".!?")
    pieces = _CLAUSE_END.split(body)
    clauses, separators = [piece.strip() for piece in pieces[::2]], ["", *pieces[1::2]]
    certain = [not _speculates(clause) for clause in clauses]
    kept = [i for i, is_certain in enumerate(certain) if is_certain and clauses[i]]
    kept = kept[_first_statement(clauses, kept, lost_subject=not certain[0]) :]
    if not kept:
        return ""
    result = _without_coordinator(clauses[kept[0]]) if kept[0] else clauses[0]
    for before, after in pairwise(kept):
        is_introduction = before == kept[0] and not _is_main_clause(clauses[before])
        neighbours = after == before + 1
        comma = separators[after] if neighbours else "," if is_introduction else ""
        result += f"{comma} {clauses[after]}"
    return f"{result[0].upper()}{result[1:]}{sentence[len(body) :] or '.'}"


def _first_statement(clauses: Sequence[str], kept: Sequence[int], lost_subject: bool) -> int:
    """Position in `kept` where a sentence can begin; len(kept) if nothing can stand alone."""
    if not lost_subject:
        can_stand = any(_is_main_clause(clauses[i]) for i in kept)
        return 0 if can_stand else len(kept)
    for position, index in enumerate(kept):
        words = _without_coordinator(clauses[index]).lower().split()
        if words and _is_main_clause(" ".join(words)) and _has_verb(words):
            return position
    return len(kept)


def _is_main_clause(clause: str) -> bool:
    """Whether a clause may be more than an adverbial, a relative clause or a participle."""
    words = clause.lower().split()
    if len(words) < 2 or words[0] in _COORDINATORS:
        return False
    if words[0] in _SUBORDINATORS or words[0].endswith("ing"):
        return words[0] in _PREPOSITIONS and _FINITE_VERB.search(clause) is not None
    return True


def _has_verb(words: Sequence[str]) -> bool:
    return words[0] in _SUBJECTS or _FINITE_VERB.search(" ".join(words)) is not None


def _without_coordinator(clause: str) -> str:
    first, _, rest = clause.partition(" ")
    return rest.strip() if first.lower() in _COORDINATORS else clause


_UPSTREAM_KEYWORDS = (*_WORDS, *(f" {word} " for word in _NEGATIONS))
#: A text without any of these has no keyword: the others contain one of them.
_UPSTREAM_SHORTEST = tuple(
    word
    for word in _UPSTREAM_KEYWORDS
    if not any(w in word for w in _UPSTREAM_KEYWORDS if w != word)
)
_UPSTREAM_SPECULATION = _pattern(_UPSTREAM_KEYWORDS)
_UPSTREAM_SENTENCE_END = re.compile(r"(?<=\.)\s+")


def remove_speculative_clauses_upstream(text: str) -> str:
    """Remove clauses that speculate, exactly as the original LLMDet does.

    Kept for parity: it is case-sensitive, loses line breaks, drops any changed sentence that
    begins with a preposition, and can leave fragments ("but it is calm."). Where nothing is left
    the result is empty; the original program then trains on the uncleaned caption.
    """
    kept = []
    for sentence in _UPSTREAM_SENTENCE_END.split(text):
        if not any(word in sentence for word in _UPSTREAM_SHORTEST):
            kept.append(sentence.strip())
            continue
        cleaned = _drop_upstream_clauses(sentence)
        if cleaned != "." and cleaned.split()[0].lower() not in _PREPOSITIONS:
            kept.append(cleaned)
    return " ".join(kept).strip()


def _drop_upstream_clauses(sentence: str) -> str:
    """Delete the clauses between commas that speculate, with the commas beside them."""
    result, follows_kept = "", False
    for clause in sentence.split(","):
        if _UPSTREAM_SPECULATION.search(clause):
            follows_kept = False
            continue
        result += f",{clause}" if follows_kept else clause
        follows_kept = True
    result = result.strip()
    return result if result.endswith(".") else result + "."


_DETERMINERS = _words("a an the one two three four five six seven eight nine ten")
#: In the order in which the original tries them; the spelling is its own.
_UPSTREAM_DETERMINERS = "a an the one two three four five six seven eigth nine"


def clean_phrase(phrase: str) -> str:
    """Turn the phrase of a region into the sentence that answers for it: "Brown dog.".

    Lower-cased, one leading article or number word removed, first letter capitalised, final dot.

    Returns:
        The sentence, empty where the phrase has no word.
    """
    words = phrase.lower().strip(" \t\n.").split()
    if len(words) > 1 and words[0] in _DETERMINERS:
        words = words[1:]
    return f"{' '.join(words).capitalize()}." if words else ""


def clean_phrase_upstream(phrase: str) -> str:
    """Clean a region's phrase exactly as the original LLMDet does.

    Several articles may go, in a fixed order; "eight" stays for a spelling mistake; blanks are
    kept; no words give ".".
    """
    phrase = phrase.lower().strip(".")
    for word in _UPSTREAM_DETERMINERS.split():
        phrase = phrase.removeprefix(f"{word} ")
    return f"{phrase.capitalize()}."
