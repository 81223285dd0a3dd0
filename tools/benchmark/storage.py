"""Measure how quickly pictures are read from files, tar shards and S3 on this machine.

python tools/benchmark/storage.py --images 300
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/storage.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import count, run_cli


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    benchmark_storage(args.images, args.workers)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=count, default=300, help="photographs of 640 x 480")
    parser.add_argument("--workers", type=count, default=2, help="of the data loader on S3")
    return parser.parse_args(argv)


def benchmark_storage(images: int, workers: int) -> None:
    """Decode the same photographs from files, from tar shards and from S3 on this machine."""
    with tempfile.TemporaryDirectory() as folder, s3_server() as endpoint:
        write_photographs(Path(folder), images, endpoint)
        settings = {
            "cache_dir": f"{folder}/cache",
            "storage_options": {"endpoint_url": endpoint},
        }
        uncached = settings | {"cache_gb": 0}
        names = [f"{number:06d}.jpg" for number in range(images)]
        random.Random(0).shuffle(names)
        print(f"{'':44}{'images/s':>10}{'CPU ms/image':>14}")
        for title, root, options, processes in (
            ("files", f"{folder}/images", None, 0),
            ("tar shards", f"{folder}/a.tar", None, 0),
            ("S3, without cache", "s3://benchmark/images", uncached, 0),
            ("S3, first pass", "s3://benchmark/images", settings, 0),
            ("S3, from the cache", "s3://benchmark/images", settings, 0),
            ("tar shards on S3, without cache", "s3://benchmark/a.tar", uncached, 0),
            (f"S3, without cache, {workers} workers", "s3://benchmark/images", uncached, workers),
        ):
            decode_all([f"{root}/{name}" for name in names], options, processes, title)


def decode_all(paths: list[str], options: dict[str, Any] | None, workers: int, title: str) -> None:
    """Print images/s and processor milliseconds an image of this process and its workers."""
    from torch.utils.data import DataLoader

    from llmdet.datasets.transforms.loading import LoadImageFromFile

    load = LoadImageFromFile(backend_args=options)
    load({"img_path": paths[0]})  # the first one pays for imports and connections
    start, used = time.perf_counter(), processor_seconds()
    settings = {"batch_size": None, "num_workers": workers, "collate_fn": shape_of}
    for _ in DataLoader([Photograph(path, load) for path in paths], **settings):
        pass
    seconds, used = time.perf_counter() - start, processor_seconds() - used
    print(f"{title:44}{len(paths) / seconds:10.1f}{1000 * used / len(paths):14.2f}", flush=True)


class Photograph:
    """A picture that is decoded when it is asked for."""

    def __init__(self, path: str, load: Callable[[dict[str, Any]], Any]) -> None:
        self.path = path
        self.load = load

    def shape(self) -> tuple[int, ...]:
        return self.load({"img_path": self.path})["img"].shape


def shape_of(photograph: Photograph) -> tuple[int, ...]:
    return photograph.shape()


def processor_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


def write_photographs(folder: Path, images: int, endpoint: str) -> None:
    """The same JPEGs as files, in one tar and in a bucket."""
    import cv2
    import numpy as np
    import s3fs

    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(images):
        # Noise at the scale of 8 pixels: about as many bytes as a photograph.
        coarse = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"images/{number:06d}.jpg"), picture)
    with tarfile.open(folder / "a.tar", "w") as archive:
        for path in sorted((folder / "images").iterdir()):
            archive.add(path, path.name)
    files = s3fs.S3FileSystem(endpoint_url=endpoint)
    files.mkdir("benchmark")
    files.put(f"{folder}/images", "benchmark/images", recursive=True)
    files.put(f"{folder}/a.tar", "benchmark/a.tar")
    size = (folder / "a.tar").stat().st_size / images / 1000
    print(f"{images} pictures of 640 x 480, {size:.0f} kB each; the S3 server is moto's, here")


@contextmanager
def s3_server() -> Iterator[str]:
    """Start moto's S3 server on the loopback interface; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ.update(keys | {"AWS_DEFAULT_REGION": "us-east-1"})  # of clients in this process
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    run_cli(main)
