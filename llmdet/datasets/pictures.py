"""The one reader of pictures, for training, evaluation, demo and checks alike.

A picture is decoded as a viewer shows it: upright, its first frame, on white where it is
transparent, with 16 bits reduced to 8; or it is refused in one sentence that names it.
"""

from __future__ import annotations

import io
import os
import os.path as osp
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from llmdet.errors import ConfigError, DataError

#: Pixels of the largest picture that is decoded: 805 MB as RGB. Panoramas have up to 200 million.
MAX_PIXELS = 1 << 28
#: The sizes of pictures stored turned sideways, or scaled by an annotation tool, differ by more.
SIZE_TOLERANCE = 1  # pixels
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # values of the orientation that exchange width and height
_PLAIN_MODES = ("RGB", "L")
#: Formats that OpenCV's wheels read in one build and not in another, or not as viewers do.
_OF_PILLOW = ("AVIF", "GIF", "JPEG2000")
_END_BYTES = 64  # enough for what writers append to a JPEG
#: A JPEG spends at least one bit on each of its blocks of 8 x 8 pixels.
_JPEG_PIXELS_PER_BYTE = 8 * 64
_PNG_END = b"IEND\xaeB`\x82"
#: What Pillow's decoders answer damage with; SyntaxError: a broken PNG.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, struct.error)


@contextmanager
def open_picture(
    source: str | os.PathLike[str] | bytes, name: str = "", max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open a picture, of which only the head is read; damage met inside the block is named.

    Args:
        source: a file or its bytes.
        name: of the picture, for messages; the file by default.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        DataError: the file is missing, empty, damaged, no picture, too large, or too short for
            the size that it claims.
    """
    name = name or os.fspath(source)  # type: ignore[assignment]
    try:
        with _bytes_or_file(source) as file, _opened(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"the picture {name} has {width} x {height} pixels, more than the "
                    f"{max_pixels:,} that are decoded; scale it down, or raise max_pixels of "
                    "LoadImageFromFile"
                )
            if image.format == "JPEG" and width * height > _JPEG_PIXELS_PER_BYTE * _size(source):
                raise DataError(
                    f"the picture {name} cannot be read (it claims {width} x {height} pixels, for "
                    f"which its {_size(source):,} bytes are too few)"
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"the picture {name} does not exist") from None
    except _DAMAGE as error:
        # Pillow's sentence about bytes names an object in memory.
        unknown = isinstance(error, Image.UnidentifiedImageError)
        problem = "it is no picture of a known format" if unknown else str(error)
        problem = "the file is empty" if unknown and not _size(source) else problem
        raise DataError(f"the picture {name} cannot be read ({problem})") from None


def picture_size(
    path: str | os.PathLike[str], backend_args: Mapping[str, Any] | None = None
) -> tuple[int, int]:
    """Width and height of a picture as it will be decoded, that is after its EXIF rotation.

    Args:
        path: a file, a URL or a member of a tar shard.
        backend_args: how URLs are read.

    Raises:
        DataError: The file is missing or is not a picture.
    """
    return _upright_size(_source(path, backend_args), os.fspath(path))


def _upright_size(source: str | os.PathLike[str] | bytes, name: str) -> tuple[int, int]:
    with open_picture(source, name) as image:
        width, height = image.size
        return (height, width) if orientation(image) in _TURNED else (width, height)


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """A picture as a viewer shows it, in mode RGB.

    Raises:
        DataError: as :func:`open_picture`; or it has floating-point pixels.
    """
    with open_picture(path) as image:
        return upright_rgb(image, os.fspath(path))


def check_picture(
    path: str | os.PathLike[str], backend_args: Mapping[str, Any] | None = None
) -> tuple[int, int]:
    """Whether a picture is whole; decodes only where the end of its file does not tell.

    Args:
        path: as of :func:`picture_size`.
        backend_args: how URLs are read.

    Returns:
        What :func:`picture_size` returns.

    Raises:
        DataError: as :func:`read_picture`.
    """
    source = _source(path, backend_args)
    with open_picture(source, os.fspath(path)) as image:
        with _bytes_or_file(source) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            tail = file.read()
        if not is_whole(tail, image):
            image.load()
        _refuse_unknown_range(image, os.fspath(path))
    return _upright_size(source, os.fspath(path))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, 1 (upright) where it has none or a broken one."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1


def is_plain(image: Image.Image) -> bool:
    """Whether all decoders agree on a picture: 8 bits, RGB or grey, opaque, upright or a JPEG."""
    upright = image.format == "JPEG" or orientation(image) == 1
    if image.format in _OF_PILLOW:
        return False
    return image.mode in _PLAIN_MODES and "transparency" not in image.info and upright


def is_whole(content: bytes, image: Image.Image) -> bool:
    """Whether a file (or its last bytes) ends as its format says; False where that is not known.

    To be decoded by Pillow then: OpenCV fills in grey what a JPEG lacks, without a word.
    """
    if image.format == "JPEG":
        return content[-_END_BYTES:].rstrip(b"\0").endswith(b"\xff\xd9")
    return image.format == "PNG" and content.endswith(_PNG_END)


def upright_rgb(image: Image.Image, name: str = "") -> Image.Image:
    """An opened picture as a viewer shows it, in mode RGB.

    Raises:
        DataError: it has floating-point pixels or more than 16 bits.
    """
    _refuse_unknown_range(image, name)
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _refuse_unknown_range(image: Image.Image, name: str) -> None:
    whole = image.mode != "F"
    if image.mode == "I":
        values = np.asarray(image)
        whole = bool(values.min() >= 0 and values.max() < 1 << 16)
    if not whole:
        raise DataError(
            f"the picture {name} has floating-point or 32-bit pixels, which no viewer shows alike; "
            "convert it to 8 or 16 bits"
        )


def picture_path(folder: str, name: str, where: str, roots: Sequence[str] = ()) -> str:
    """The path of the picture that annotations name, which must stay in its folder.

    Args:
        folder: of the pictures, or a URL.
        name: what the annotations say; a URL needs a URL among the folders that it lies below.
        where: place in the annotations, for messages.
        roots: further folders that names and symbolic links may lead to.

    Raises:
        DataError: the name leads elsewhere (by ``..``, as an absolute path or by a link), or no
            file can have it.
    """
    if "\0" in name:
        raise DataError(f"{where}: no file can have the name {name!r}, which has a zero in it")
    path = name if "://" in name else osp.join(folder, name)
    check_place(path, folder, where, roots)
    return path


def check_place(path: str, folder: str, where: str, roots: Sequence[str] = ()) -> None:
    """Refuse a picture outside its folder, as :func:`picture_path` does for a name."""
    real = path if "://" in path else osp.realpath(path)
    is_inside = _is_below if "://" in path else _is_inside
    leaves = not any(is_inside(real, root) for root in (folder, *roots))
    if leaves:
        raise DataError(
            f"{where}: the picture {path} lies at {real}, outside the folder of the pictures "
            f"{folder!r}; where that is meant, name its folder in picture_folders of the data set"
        )


def picture_roots(data_root: str | None, folders: Sequence[str]) -> tuple[str, ...]:
    """The folders beside that of the pictures which :func:`picture_path` takes.

    Raises:
        ConfigError: ``folders`` is a text, not a list of texts.
    """
    if isinstance(folders, str):
        raise ConfigError(f"picture_folders is a list of folders, such as [{folders!r}]")
    return tuple(root for root in (data_root, *folders) if root)


def _is_below(url: str, root: str) -> bool:
    start = f"{root.rstrip('/')}/"
    rest = url.removeprefix(start)
    return url.startswith(start) and "://" not in rest and not {"..", "."} & set(rest.split("/"))


def _is_inside(real: str, folder: str) -> bool:
    if "://" in folder:
        return False
    root = _real_folder(osp.abspath(folder))
    return real.startswith(root if root.endswith("/") else f"{root}/")


@lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return osp.realpath(folder)


def _source(
    path: str | os.PathLike[str], backend_args: Mapping[str, Any] | None
) -> str | os.PathLike[str] | bytes:
    """The path of a file, else the bytes of what the path names."""
    from llmdet.datasets.storage.reading import is_remote, read_content

    text = os.fspath(path)
    if not is_remote(text):
        return path
    try:
        return read_content(text, backend_args)
    except FileNotFoundError:
        raise DataError(f"the picture {text} does not exist") from None


@contextmanager
def _bytes_or_file(source: str | os.PathLike[str] | bytes) -> Iterator[IO[bytes]]:
    file: IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    with file:
        yield file


def _size(source: str | os.PathLike[str] | bytes) -> int:
    return len(source) if isinstance(source, bytes) else osp.getsize(source)


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Decode pictures that :func:`open_picture` let pass, whatever Pillow thinks of their size."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _opened(file: IO[bytes]) -> Image.Image:
    with without_pillow_limit():
        return Image.open(file)
