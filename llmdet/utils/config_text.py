"""The text of a config as people read it: short things on one line, long ones one entry a line."""

from __future__ import annotations

import ast
from dataclasses import dataclass

_WIDTH = 100  # characters of a line
_INDENT = 4


@dataclass(frozen=True)
class _Value:
    """A value on one line, and what it is made of, where it can be divided."""

    line: str
    opening: str = ""
    entries: tuple[tuple[str, _Value], ...] = ()  # what stands before each: "name=", "'key': ", ""
    closing: str = ""


def lay_out(program: str) -> str:
    """Lay out assignments of nested dicts, lists and tuples.

    yapf, which mmengine calls for this, takes a third of a second for a config.

    Args:
        program: as mmengine writes a config; one that is no Python, as a value has no text that
            could be read again, stays as it is.
    """
    try:
        statements = ast.parse(program).body
    except SyntaxError:
        return program
    lines = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            head = f"{ast.unparse(statement.targets[0])} = "
            lines.append(head + _write(_read(statement.value), len(head), 0))
        else:
            lines.append(ast.unparse(statement))
    return "".join(f"{line}\n" for line in lines)


def _read(node: ast.expr) -> _Value:
    match node:
        case ast.Call(args=[]):
            opening, closing = f"{ast.unparse(node.func)}(", ")"
            entries = [(f"{keyword.arg}=", keyword.value) for keyword in node.keywords]
        case ast.Dict():
            opening, closing = "{", "}"
            keys = [f"{ast.unparse(key)}: " for key in node.keys if key is not None]
            entries = list(zip(keys, node.values, strict=True))
        case ast.List():
            opening, closing, entries = "[", "]", [("", element) for element in node.elts]
        case ast.Tuple():
            opening, closing, entries = "(", ")", [("", element) for element in node.elts]
        case _:
            return _Value(ast.unparse(node))
    parts = tuple((head, _read(value)) for head, value in entries)
    inside = ", ".join(head + value.line for head, value in parts)
    comma = "," if isinstance(node, ast.Tuple) and len(parts) == 1 else ""
    return _Value(f"{opening}{inside}{comma}{closing}", opening, parts, closing)


def _write(value: _Value, column: int, indent: int) -> str:
    """The text of a value that begins at a column of a line that is indented so far."""
    if not value.entries or column + len(value.line) < _WIDTH:  # a comma may follow
        return value.line
    within = indent + _INDENT
    rows = [
        f"{' ' * within}{head}{_write(entry, within + len(head), within)},\n"
        for head, entry in value.entries
    ]
    return f"{value.opening}\n{''.join(rows)}{' ' * indent}{value.closing}"
