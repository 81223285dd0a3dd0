"""A live line at the foot of a terminal: how far training and validation are, and what remains."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SECONDS = 0.1  # between two drawings


class TerminalProgress:
    """Bars of what is going on, below the lines of the log; nothing where there is no terminal.

    It draws when it is told of progress and has no thread, which workers could inherit in the
    middle of a line.

    Args:
        logger: whose lines for the terminal are to scroll above the bars.
        console: where to draw; stdout by default.
    """

    def __init__(self, logger: logging.Logger, console: Console | None = None) -> None:
        self._logger = logger
        self._console = console
        self._progress: Progress | None = None
        self._bars: dict[str, Any] = {}
        self._streams: list[tuple[logging.StreamHandler, Any]] = []
        self._drawn = 0.0

    def start(self, name: str, total: int, done: int = 0) -> None:
        """Begin a bar of ``total`` steps, of which ``done`` were done before."""
        if self._progress is None:
            self._open()
        if self._progress is not None:
            self.finish(name)
            self._bars[name] = self._progress.add_task(name, total=total, completed=done, note="")

    def advance(self, name: str, done: int) -> None:
        """Say that ``done`` steps are done."""
        if self._progress is None or name not in self._bars:
            return
        self._progress.update(self._bars[name], completed=done)
        if time.monotonic() - self._drawn > _SECONDS:
            self._progress.refresh()
            self._drawn = time.monotonic()

    def note(self, name: str, text: str) -> None:
        """Put a few words beside a bar."""
        if self._progress is not None and name in self._bars:
            self._progress.update(self._bars[name], note=text)

    def finish(self, name: str) -> None:
        """Take a bar away."""
        if self._progress is not None and name in self._bars:
            self._progress.remove_task(self._bars.pop(name))

    def close(self) -> None:
        """Take all bars away and give the terminal back."""
        if self._progress is None:
            return
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._progress.stop()
        self._progress, self._bars, self._streams = None, {}, []

    def _open(self) -> None:
        # Long lines are the terminal's to break, so that they can be copied whole.
        console = self._console or Console(file=sys.stdout, soft_wrap=True)
        if not console.is_terminal or console.is_dumb_terminal:
            return
        before = sys.stdout
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._progress.start()
        # While it runs sys.stdout prints above the bars; handlers know the stream of before.
        for handler in self._logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(sys.stdout)
                self._streams.append((handler, before))
