"""What a URL names, read with retries and kept in a cache on the local disk.

A URL is read because a config names it, or its folder; nothing else reaches for a network.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mmengine.fileio import get_file_backend, register_backend
from mmengine.fileio.backends import BaseStorageBackend

from llmdet.datasets.storage.cache import DiskCache, cache_home
from llmdet.errors import ConfigError, DataError, StorageError

logger = logging.getLogger(__name__)

#: Of URLs that :class:`ObjectStore` reads; mmengine has backends for others, such as https.
PROTOCOLS = ("s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "memory")
_BLOCK_BYTES = 1 << 20  # of one request, where an object is read from its start to its end
_LONGEST_WAIT = 30.0  # seconds
# Not those of Python's global generator, from which samples are drawn.
_random = random.Random()

Result = TypeVar("Result")


@dataclass(frozen=True)
class ObjectStamp:
    """What changes when an object does."""

    size: int  # bytes
    version: int  # 63 bits of a hash of its properties, such as its ETag


def is_url(path: str) -> bool:
    """Whether a path is a URL and no file of this machine."""
    return "://" in path


@register_backend("objects", prefixes=PROTOCOLS, force=True)
class ObjectStore(BaseStorageBackend):
    """Reader of ``s3://``, ``gs://``, ``hf://`` and other URLs that fsspec knows.

    Its arguments are the ``backend_args`` of data sets. A connection is made in the process that
    reads, so that it may be handed to workers.

    Args:
        cache_dir: folder of the cache; ``~/.cache/llmdet/objects`` by default.
        cache_gb: its size in 10^9 bytes; 0 keeps nothing.
        attempts: how often an object is asked for before its absence ends the run. What does not
            exist, or must not be read, is asked for once.
        first_wait: seconds before the second attempt, doubled before each further one.
        storage_options: of the filesystem of fsspec, such as ``endpoint_url`` of S3.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        cache_dir: str | None = None,
        cache_gb: float = 20.0,
        attempts: int = 5,
        first_wait: float = 0.5,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if cache_gb < 0 or attempts < 1 or first_wait < 0:
            raise ConfigError(
                f"backend_args: cache_gb={cache_gb} and first_wait={first_wait} must be at least "
                f"0, attempts={attempts} at least 1"
            )
        self.attempts = attempts
        self.first_wait = first_wait
        self.storage_options = dict(storage_options or {})
        self.cache = DiskCache(cache_dir or cache_home() / "objects", int(cache_gb * 1e9))

    def get(self, filepath: Any) -> bytes:
        """A whole object, from the cache where it is there.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: it cannot be read, after all attempts.
        """
        url = str(filepath)
        content = self.cache.get(url)
        if content is None:
            content = self._attempt(url, lambda files, path: files.cat_file(path))
            self.cache.put(url, content)
        return content

    def get_text(self, filepath: Any, encoding: str = "utf-8") -> str:
        """A whole object as text."""
        return self.get(filepath).decode(encoding)

    def get_range(self, url: str, start: int, length: int, *, keep: bool = False) -> bytes:
        """Bytes ``start`` to ``start + length`` of an object; ``keep`` puts them into the cache.

        Raises:
            FileNotFoundError, StorageError: as :meth:`get`.
            DataError: the object is shorter.
        """
        key = f"{url}#{start}+{length}"
        content = self.cache.get(key) if keep else None
        if content is None:
            content = self._attempt(
                url, lambda files, path: files.cat_file(path, start=start, end=start + length)
            )
            if len(content) != length:
                raise DataError(f"{url} ends before byte {start + length}: it changed, start again")
            if keep:
                self.cache.put(key, content)
        return content

    def stamp(self, url: str) -> ObjectStamp:
        """Size and version of an object.

        Raises:
            FileNotFoundError, StorageError: as :meth:`get`.
        """

        def look(files: Any, path: str) -> ObjectStamp:
            files.invalidate_cache()  # fsspec remembers listings
            properties = files.info(path)
            if properties.get("type") == "directory":
                raise FileNotFoundError(url)
            digest = hashlib.blake2b(files.ukey(path).encode(), digest_size=8).digest()
            return ObjectStamp(int(properties["size"]), int.from_bytes(digest, "big") >> 1)

        return self._attempt(url, look)

    def scan(self, url: str, read: Callable[[io.BufferedReader], Result]) -> Result:
        """Let ``read`` go through an object from its start; it is called again where that fails.

        Raises:
            FileNotFoundError, StorageError: as :meth:`get`.
        """

        def go_through(files: Any, path: str) -> Result:
            options = {"block_size": _BLOCK_BYTES, "cache_type": "readahead"}
            with files.open(path, "rb", **options) as raw:
                return read(io.BufferedReader(raw, _BLOCK_BYTES))

        return self._attempt(url, go_through)

    def _attempt(self, url: str, read: Callable[[Any, str], Result]) -> Result:
        wait = self.first_wait
        for attempt in range(1, self.attempts + 1):
            try:
                files = _filesystem(url, self.storage_options)
                return read(files, files._strip_protocol(url))
            except (FileNotFoundError, DataError, ConfigError):
                raise
            except PermissionError as error:
                raise StorageError(f"{url} must not be read ({_brief(error)})") from None
            except Exception as error:  # of sockets, HTTP and each provider's package
                if attempt == self.attempts:
                    raise StorageError(
                        f"{url} cannot be read ({_brief(error)}) after {attempt} attempt(s): see "
                        "whether its server answers, then continue with --resume"
                    ) from error
                seconds = min(wait, _LONGEST_WAIT) * _random.uniform(0.75, 1.25)
                logger.warning("%s: %s; again in %.1f s", url, _brief(error), seconds)
                time.sleep(seconds)
                wait *= 2
        raise AssertionError("unreachable")


def store_of(url: str, backend_args: Mapping[str, Any] | None = None) -> ObjectStore:
    """The reader of a URL, one for each setting in a process.

    Args:
        url: with one of :data:`PROTOCOLS`.
        backend_args: arguments of :class:`ObjectStore`.

    Raises:
        ConfigError: the protocol or an argument is unknown.
    """
    protocol = url.partition("://")[0]
    if protocol not in PROTOCOLS:
        raise ConfigError(f"{url}: '{protocol}' is none of the protocols {', '.join(PROTOCOLS)}")
    try:
        store = get_file_backend(url, backend_args=dict(backend_args or {}), enable_singleton=True)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"backend_args={dict(backend_args or {})}: {error}") from None
    if not isinstance(store, ObjectStore):
        raise ConfigError(f"backend_args: {url} is read without the key 'backend'")
    return store


def _filesystem(url: str, options: Mapping[str, Any]) -> Any:
    import fsspec

    try:
        # fsspec has one for each process, thread and set of options.
        return fsspec.filesystem(url.partition("://")[0], **options)
    except ImportError as error:
        raise ConfigError(f"{url}: {error}") from None
    except TypeError as error:
        raise ConfigError(f"backend_args.storage_options for {url}: {error}") from None


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
