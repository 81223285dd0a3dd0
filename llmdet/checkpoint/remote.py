"""Weights at an address of the web: fetched once into torch's cache, then read as files are."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch

from llmdet.errors import CheckpointError

logger = logging.getLogger(__name__)

#: OpenMMLab's and torchvision's file names end in the first digits of their sha256.
_HASH = re.compile(r"-([0-9a-f]{8,})\.\w+$")


def is_address(path: str | Path) -> bool:
    """Whether ``path`` is an ``http(s)://`` address."""
    return str(path).startswith(("http://", "https://"))


def fetch(url: str) -> Path:
    """Download a file, unless an earlier call did; processes of one machine wait for each other.

    Args:
        url: ``http(s)://`` address; the end of a name such as ``swin_t-61c2f2a1.pth`` is checked.

    Raises:
        CheckpointError: the address cannot be reached, or the file is not what its name says.
    """
    from filelock import FileLock

    name = Path(urlparse(url).path).name
    if not name:
        raise CheckpointError(f"'{url}' names no file")
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = _HASH.search(name)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            logger.info("downloading %s to %s", url, target)
            try:
                torch.hub.download_url_to_file(
                    url, str(target), hash_prefix=prefix and prefix[1], progress=False
                )
            except (URLError, OSError, RuntimeError, ValueError) as error:
                raise CheckpointError(
                    f"'{url}' cannot be fetched ({error}); download it elsewhere and give the file"
                ) from error
    return target
