"""The annotated pictures that an engine begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llmdet.datasets.formats import ReadOptions, identity, open_source
from llmdet.datasets.formats.samples import Source
from llmdet.datasets.ledger import Ledger


@dataclass(frozen=True)
class Annotations:
    """Annotations in any format of the converters, and their pictures.

    Attributes:
        path: an annotation file, or the folder of a format that has one file per image.
        images: the folder of the pictures.
        source_format: a key of :data:`llmdet.datasets.formats.READERS`, where the name of the
            file does not tell it.
        options: what the annotations themselves do not say.
    """

    path: Path
    images: Path
    source_format: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    def open(self, ledger: Ledger) -> Source:
        """The samples, which are read as they are needed."""
        return open_source(self.path, self.source_format, self.options, ledger)

    @property
    def identity(self) -> dict[str, object]:
        """All that decides the samples, for a journal."""
        return {
            **identity(self.path, self.source_format, self.options),
            "images": str(self.images.resolve()),
        }
