"""Find in a video what a text names, and follow it from frame to frame.

    python demo/video_demo.py IN.mp4 OUT.mp4 CONFIG --weights W --text 'person . dog' -c
    python demo/video_demo.py 0 OUT.mp4 CONFIG --weights W --text 'person' -c --max-frames 300

IN is a file or the number of a camera, which is read until Ctrl-C. OUT.mp4 shows boxes with the
numbers of their tracks; OUT.jsonl beside it has a row for each frame.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llmdet.cli.model import (
    CONFIG_HELP,
    add_model_options,
    add_score_option,
    add_text_options,
    build_detector,
    read_words,
)
from llmdet.utils.cli import count, fraction, refuse_existing, write_notice, write_result

if TYPE_CHECKING:
    from llmdet.apis.video import TrackedFrame, VideoWriter

_LOGGED_SECONDS = 10  # between two lines of progress in a file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="video file, or the number of a camera")
    parser.add_argument("output", type=Path, help="video to write: .mp4, .mov, .mkv or .avi")
    parser.add_argument("config", help=CONFIG_HELP)
    add_model_options(parser)
    add_text_options(parser, default=None)
    add_score_option(parser, "score that begins a track; half of it continues one")
    parser.add_argument(
        "--nms", type=fraction, default=0.7, help="overlap (IoU) of boxes that are one (0.7)"
    )
    parser.add_argument("--tile", type=count, metavar="PIXELS", help="look at frames in tiles")
    parser.add_argument("--batch-size", type=count, default=4, help="frames at once (default 4)")
    parser.add_argument("--stride", type=count, default=1, help="look at every N-th frame")
    parser.add_argument("--max-frames", type=count, help="stop after looking at so many")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from llmdet.apis.video import Tracker, VideoWriter, open_video, track

    question = read_words(args) or {}  # before a camera is opened
    rows = args.output.with_suffix(".jsonl")
    refuse_existing([args.output, rows], args.overwrite)
    with open_video(args.input) as video:
        rate = video.rate / args.stride
        writer = VideoWriter(args.output, rate)
        tracker = Tracker(args.score_thr, rate)
        detector = build_detector(
            args.config, args.weights, device=args.device, cfg_options=args.cfg_options
        )
        frames = video.frames(args.stride, args.max_frames)
        tracked = track(
            _progress(frames, video.count, args),
            detector,
            tracker,
            args.score_thr,
            nms=args.nms,
            batch_size=args.batch_size,
            tiles=args.tile,
            **question,
        )
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with rows.open("w", encoding="utf-8") as file:
            names = deliver(tracked, writer, file, rate)
    _tell(names, args.output, rows)


def deliver(
    tracked: Iterator[TrackedFrame], writer: VideoWriter, rows: TextIO, rate: float
) -> dict[int, str]:
    """Write frame after frame; Ctrl-C ends both files as they should.

    Returns:
        Identity -> name of all tracks.
    """
    from llmdet.visualization.frames import draw_frame
    from llmdet.visualization.palette import detection_colors

    names: dict[int, str] = {}
    try:
        for frame in tracked:
            found = frame.results
            names |= dict(zip(frame.identities.tolist(), found.names, strict=True))
            colors = detection_colors(found.names, found.labels.tolist(), classes=found.classes)
            texts = [f"{i} {name}" for i, name in zip(frame.identities, found.names, strict=True)]
            writer.write(draw_frame(found.picture.pixels(), found.boxes, texts, colors))
            rows.write(json.dumps(frame.row(rate), ensure_ascii=False) + "\n")
    except KeyboardInterrupt:
        write_notice("stopped; what was seen until then is saved")
    finally:
        writer.close()
    return names


def _progress(frames: Iterator[Any], total: int | None, args: argparse.Namespace) -> Iterator[Any]:
    """A bar with rate and time left; in a file, a line every some seconds."""
    from tqdm import tqdm

    if total is not None:
        total = -(-total // args.stride)
    if args.max_frames is not None:
        total = min(total or args.max_frames, args.max_frames)
    interval = 0.2 if sys.stderr.isatty() else _LOGGED_SECONDS
    return iter(tqdm(frames, total=total, unit="frame", mininterval=interval))


def _tell(names: dict[int, str], output: Path, rows: Path) -> None:
    counts = Counter(names.values())
    listed = ", ".join(f"{number} {name}" for name, number in counts.most_common())
    write_result(f"{len(names)} tracks: {listed or 'nothing was followed'}")
    write_result(f"Saved in {output} and {rows}.")
