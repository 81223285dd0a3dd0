"""The one door to bytes: of a file, an object behind a URL, a member of a tar shard, a TSV line."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmengine import fileio

from llmdet.datasets.storage.objects import PROTOCOLS, is_url, store_of
from llmdet.datasets.storage.shards import read_member, split_member
from llmdet.datasets.storage.tsv import read_picture_line, split_line
from llmdet.errors import DataError
from llmdet.utils.files import decoded, parse_json, read_json, unpacked


def read_content(path: str, backend_args: Mapping[str, Any] | None = None) -> bytes:
    """Bytes of what a path names.

    Args:
        path: a file, a URL, ``shard.tar/member`` of either, or ``file.tsv/BYTE``: a picture's line.
        backend_args: how URLs are read: arguments of
            :class:`~llmdet.datasets.storage.objects.ObjectStore`, or of a backend of mmengine.

    Raises:
        FileNotFoundError: there is none.
        DataError: a tar shard or a line of a TSV file is damaged.
        StorageError: a server does not answer.
    """
    member = split_member(path)
    if member is not None:
        return read_member(*member, backend_args)
    line = split_line(path)
    if line is not None:
        return read_picture_line(*line)
    settings = backend_args or {}
    known = not is_url(path) or path.partition("://")[0] in PROTOCOLS
    if "backend" in settings or not known:
        return bytes(fileio.get(path, backend_args=dict(settings)))
    if is_url(path):
        return store_of(path, settings).get(path)
    return bytes(fileio.get(path))  # settings say how URLs are read


def read_json_at(path: str, backend_args: Mapping[str, Any] | None = None) -> Any:
    """Parsed content of a ``.json`` or ``.json.gz``, a file or a URL.

    Raises:
        DataError: it is missing or is not JSON; the message names line and column.
        StorageError: a server does not answer.
    """
    if not is_url(path):
        return read_json(path)
    try:
        content = read_content(path, backend_args)
    except FileNotFoundError:
        raise DataError(f"cannot read {path}: it does not exist") from None
    return parse_json(decoded(unpacked(content, path), path), path)


def is_remote(path: str) -> bool:
    """Whether a path is no plain file: a URL, a member of a tar shard, or a line of a TSV file."""
    return is_url(path) or split_member(path) is not None or split_line(path) is not None


def join(root: str | None, path: str) -> str:
    """A path below a root, either of which may be a URL; an absolute path stays as it is."""
    if not root or is_url(path) or osp.isabs(path):
        return path
    return f"{root.rstrip('/')}/{path}" if is_url(root) else osp.join(root, path)
