"""What data sets share about where their files are: folders, URLs and tar shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.pictures import check_place, picture_path
from llmdet.datasets.storage.objects import is_url
from llmdet.datasets.storage.reading import join
from llmdet.datasets.storage.remote_jsonl import RemoteJsonl
from llmdet.datasets.storage.shards import TarRows, TarShards, is_shards


class StoredData:
    """Of a data set: annotations and pictures as files, behind URLs or in tar shards."""

    ann_file: str
    data_root: str
    data_prefix: dict[str, str]
    backend_args: Mapping[str, Any] | None
    picture_roots: tuple[str, ...]
    _shards: TarShards | None = None

    def _join_prefix(self) -> None:
        """Complete paths by `data_root`; either may be a URL."""
        if self.ann_file:
            self.ann_file = join(self.data_root, self.ann_file)
        self.data_prefix = {
            key: join(self.data_root, prefix) for key, prefix in self.data_prefix.items()
        }

    @property
    def image_prefix(self) -> str:
        """Folder, URL or pattern of tar shards of the pictures."""
        return self.data_prefix.get("img", self.data_prefix.get("img_path", ""))

    def open_shards(self) -> None:
        """Open the shards of the pictures, where they are in shards."""
        if is_shards(self.image_prefix):
            self._shards = TarShards(self.image_prefix, self.backend_args)

    def picture_path(self, name: str, where: str) -> str:
        """The address of the picture that annotations name.

        Raises:
            DataError: it is not where pictures may lie, or no shard has it.
        """
        if self._shards is not None:
            return self._shards.address(name, where)
        return picture_path(self.image_prefix, name, where, self.picture_roots)

    def check_picture_place(self, path: str, where: str) -> None:
        """Refuse a picture outside its folder.

        Raises:
            DataError: it lies elsewhere.
        """
        if self._shards is None:
            check_place(path, self.image_prefix, where, self.picture_roots)

    def reading_options(self) -> dict[str, Any]:
        """What a sample tells its pipeline of how pictures are read."""
        return {} if self.backend_args is None else {"backend_args": self.backend_args}


def open_rows(
    ann_file: str, backend_args: Mapping[str, Any] | None, max_bad_rows: int
) -> IndexedJsonl | TarRows:
    """Open rows: a JSONL file, a URL of one, or tar shards.

    Raises:
        DataError: it is missing, or more rows than `max_bad_rows` are broken.
        StorageError: a server does not answer.
    """
    if is_shards(ann_file):
        return TarRows(ann_file, backend_args, max_bad_rows=max_bad_rows)
    if is_url(ann_file):
        return RemoteJsonl(ann_file, backend_args, max_bad_rows=max_bad_rows)
    return IndexedJsonl(ann_file, max_bad_rows=max_bad_rows)
