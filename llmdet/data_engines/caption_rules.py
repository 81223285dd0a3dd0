"""Which answers of a vision-language model may teach, after the clean-up of the LLMDet paper.

Speculative clauses are dropped; an answer that refuses, repeats itself or is too short afterwards
is asked for again (LLMDet, section 3: captions under 100 tokens are written anew).
"""

from __future__ import annotations

import re
from collections import Counter

from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.datasets.captions import remove_speculative_clauses

#: 100 tokens of the paper are about this many English words.
MIN_CAPTION_WORDS = 75
MAX_PHRASE_WORDS = 15

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable)|i (?:can(?:'|no)t|cannot|am not able to)|as an ai\b"
    r"|unable to (?:see|view|provide|describe)|no image (?:was|is|has been) (?:provided|attached))",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_LEAD_IN = re.compile(
    r"^(?:(?:sure|certainly|of course)\b(?:[!.]|[^.:!\n]*:)\s*)?"
    r"(?:here(?:'s| is)\b[^.:\n]*:\s*)?",
    re.IGNORECASE,
)
#: In a row of training it would stand for the picture, a box or a mask.
_MARK = re.compile(r"</?(?:image|region|mask|obj[0-9]+|ground|objects)\b", re.IGNORECASE)
_REPEATED_WORDS = 8  # a run of words this long that comes back ...
_REPETITIONS = 3  # ... this often is a loop of the model, not style


def clean_caption(answer: str) -> str:
    """A caption without lead-in ("Sure, here is ...") and speculative clauses."""
    return remove_speculative_clauses(_LEAD_IN.sub("", answer.strip()))


def caption_fault(answer: str, cleaned: str, min_words: int = MIN_CAPTION_WORDS) -> str | None:
    """Why a caption must be asked for again, None if it may stay.

    Args:
        answer: What the model said.
        cleaned: The same after :func:`clean_caption`.
        min_words: The least number of words after cleaning.
    """
    if not answer.strip():
        return "empty"
    if _REFUSAL.search(answer):
        return "refused"
    if _MARK.search(answer):
        return "holds a mark"
    if repeats_itself(answer):
        return "repeats itself"
    if len(cleaned.split()) < min_words:
        return "too short"
    return None


def repeats_itself(text: str) -> bool:
    """Whether a sentence comes twice, or a run of words many times."""
    sentences = Counter(
        sentence.lower() for sentence in _SENTENCE_END.split(text) if len(sentence.split()) > 3
    )
    if any(count > 1 for count in sentences.values()):
        return True
    words = text.lower().split()
    runs = Counter(
        tuple(words[start : start + _REPEATED_WORDS])
        for start in range(len(words) - _REPEATED_WORDS + 1)
    )
    return any(count >= _REPETITIONS for count in runs.values())


def clean_phrase(answer: str) -> str:
    """A phrase on one line, without lead-in, quotes and final stop."""
    return " ".join(_LEAD_IN.sub("", answer.strip()).split()).strip("\"'.*` ")


def phrase_fault(answer: str, cleaned: str, max_words: int = MAX_PHRASE_WORDS) -> str | None:
    """Why a region's phrase must be asked for again, None if it may stay."""
    if not any(map(str.isalnum, cleaned)):
        return "empty"
    if _REFUSAL.search(answer):
        return "refused"
    if _MARK.search(answer):
        return "holds a mark"
    if len(cleaned.split()) > max_words:
        return "too long"
    if clean_caption(cleaned).rstrip(".") != cleaned:
        return "speculates"
    return None


def accepted_caption(answer: str, min_words: int) -> str:
    """A cleaned caption.

    Raises:
        RejectedAnswerError: it must be asked for again.
    """
    cleaned = clean_caption(answer)
    return _accepted(cleaned, caption_fault(answer, cleaned, min_words))


def accepted_phrase(answer: str, max_words: int = MAX_PHRASE_WORDS) -> str:
    """A cleaned phrase.

    Raises:
        RejectedAnswerError: it must be asked for again.
    """
    cleaned = clean_phrase(answer)
    return _accepted(cleaned, phrase_fault(answer, cleaned, max_words))


def _accepted(cleaned: str, fault: str | None) -> str:
    if fault is not None:
        raise RejectedAnswerError(fault)
    return cleaned
