"""Visit the elements of a large JSON document one by one.

A COCO file of several gigabytes is one JSON object with a few long arrays. Its elements are
visited in order, with the place of each in the file, so that any of them can be read again later
without holding the document in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

import orjson

from llmdet.datasets.jsonl_index import open_checked
from llmdet.errors import DataError

Visitor = Callable[[str, Any, int, int], None]

_BLOCK_BYTES = 1 << 22
_MAX_ELEMENT_BYTES = 1 << 28
# Where text ends in the middle of a value, the decoder reports a place this near to the end.
_TRUNCATION_MARGIN = 16
_NUMBER = frozenset("0123456789.eE+-")


def visit_document(
    path: str | os.PathLike[str], arrays: Collection[str], visit: Visitor
) -> dict[str, Any]:
    """Call ``visit(key, element, start, length)`` for each element of the named arrays.

    Args:
        path: A JSON file whose top level is an object.
        arrays: Keys of the top level whose values are arrays to be visited, not kept.
        visit: Gets the array's key, the element and its place in bytes. The element is decoded as
            Latin-1: numbers and structure are exact, :func:`read_element` gives its true strings.

    Returns:
        The other members of the top level.

    Raises:
        DataError: On broken JSON, with the line in the file; on a missing or compressed file.
    """
    name = os.fspath(path)
    with open_checked(name) as file:
        file.seek(0)
        return _Scanner(name, file).scan(arrays, visit)


def read_element(fd: int, start: int, length: int) -> Any:
    """The element at a place that :func:`visit_document` told."""
    return orjson.loads(os.pread(fd, length, start))


class _Scanner:
    """A window of text that moves over the file.

    The bytes are taken for Latin-1, so that positions in the text are positions in the file; no
    byte of a multi-byte UTF-8 character looks like a quote, a bracket or a backslash.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.text = ""
        self.base = 0  # where the text begins in the file
        self.position = 0  # in the text
        self.ended = False
        self.raw_decode = json.JSONDecoder().raw_decode

    def scan(self, arrays: Collection[str], visit: Visitor) -> dict[str, Any]:
        self._fill(_BLOCK_BYTES)
        if self.text.startswith("\xef\xbb\xbf"):
            self.position = 3
        self._expect("{", "a JSON object")
        members: dict[str, Any] = {}
        if self._peek() == "}":
            return members
        while True:
            key, _, _ = self._value()
            self._expect(":", "a colon")
            if key in arrays and self._peek() == "[":
                self._visit_array(key, visit)
            else:
                _, start, length = self._value()
                members[key] = read_element(self.file.fileno(), start, length)
            if self._peek() != ",":
                break
            self.position += 1
        self._expect("}", "a comma or the end of the object")
        if self._peek():
            raise self._error("text after the end of the document (JSON Lines?)")
        return members

    def _visit_array(self, key: str, visit: Visitor) -> None:
        self._expect("[", "an array")
        if self._peek() == "]":
            self.position += 1
            return
        while True:
            value, start, length = self._value()
            visit(key, value, start, length)
            if self._peek() != ",":
                break
            self.position += 1
        self._expect("]", f'a comma or the end of "{key}"')

    def _value(self) -> tuple[Any, int, int]:
        """The next value, its first byte in the file and its length."""
        self._peek()
        wanted = _BLOCK_BYTES
        while True:
            try:
                value, end = self.raw_decode(self.text, self.position)
                # A number at the end of the window may go on in the next block, and the decoder
                # leaves out an exponent that is not whole.
                following = self.text[end : end + 1] or self.text[end - 1]
                if self.ended or following not in _NUMBER or wanted > _MAX_ELEMENT_BYTES:
                    break
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self.text) - _TRUNCATION_MARGIN
                truncated = near_end or error.msg.startswith("Unterminated string")
                if self.ended or not truncated or wanted > _MAX_ELEMENT_BYTES:
                    self.position = error.pos
                    raise self._error(error.msg) from None
            self._fill(wanted)
            wanted *= 2
        start = self.base + self.position
        length = end - self.position
        self.position = end
        return value, start, length

    def _peek(self) -> str:
        """The next character that is not white space, without taking it; empty at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            self._fill(_BLOCK_BYTES)

    def _expect(self, character: str, meaning: str) -> None:
        if self._peek() != character:
            raise self._error(f"{meaning} expected")
        self.position += 1

    def _fill(self, size: int) -> None:
        block = self.file.read(size)
        self.ended = len(block) < size
        self.base += self.position
        self.text = self.text[self.position :] + block.decode("latin-1")
        self.position = 0

    def _error(self, problem: str) -> DataError:
        offset = self.base + self.position
        self.file.seek(0)
        line = 1
        left = offset
        while left > 0 and (block := self.file.read(min(left, _BLOCK_BYTES))):
            line += block.count(b"\n")
            left -= len(block)
        return DataError(f"{self.path}:{line}: not valid JSON ({problem}, at byte {offset})")
