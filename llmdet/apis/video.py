"""Videos: frame by frame through a detector, with an identity for each object."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from llmdet.apis.results import Results
from llmdet.errors import ConfigError, DataError

#: Suffix -> codec that OpenCV's wheels can write.
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_USUAL_RATE = 30.0  # frames a second, where a camera does not tell
#: A track that was lost is found again within this time.
_REMEMBERED_SECONDS = 1.0
#: ByteTrack's first match joins boxes of this overlap (IoU) and more with where tracks should be.
_LEAST_OVERLAP = 0.1
#: Frames after which a track is one.
_CONFIRMED_AFTER = 2


@dataclass(frozen=True)
class VideoFile:
    """An opened video or camera.

    Attributes:
        name: its path or number, for messages.
        rate: frames a second.
        count: frames that it claims to have; None for cameras.
    """

    name: str
    rate: float
    count: int | None
    _capture: Any

    def frames(self, stride: int = 1, most: int | None = None) -> Iterator[np.ndarray]:
        """Every ``stride``-th frame as [H, W, 3] uint8 RGB, at most ``most``, one at a time.

        Raises:
            DataError: there is no frame at all.
        """
        given = 0
        for number in range(1 << 62):
            if given == most or not self._capture.grab():
                break
            if number % stride:
                continue  # grabbed, and not decoded
            there, frame = self._capture.retrieve()
            if not there:
                break
            given += 1
            yield np.ascontiguousarray(frame[..., ::-1])
        if not given:
            raise DataError(f"The video {self.name} has no frame that can be read.")


@contextmanager
def open_video(source: str | Path) -> Iterator[VideoFile]:
    """Open a video file, or a camera by its number (``"0"``).

    Raises:
        DataError: there is no such file or camera, or it is no video.
    """
    name = str(source)
    camera = name.isdecimal()
    if "://" in name:
        raise DataError(f"{name} is a URL; nothing is downloaded here: save the video first.")
    if not camera and not Path(name).is_file():
        raise DataError(f"There is no video {name}: check the path, or give a camera's number.")
    capture = cv2.VideoCapture(int(name) if camera else name)
    try:
        if not capture.isOpened():
            problem = f"There is no camera {name}" if camera else f"{name} is no video"
            raise DataError(f"{problem} that OpenCV can open.")
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        usable = math.isfinite(rate) and 0 < rate <= 1000
        known = count if count > 0 and not camera else None
        yield VideoFile(name, rate if usable else _USUAL_RATE, known, capture)
    finally:
        capture.release()


class VideoWriter:
    """Writes frames of one size; the file is opened by the first.

    Args:
        path: its suffix decides the format, see :data:`CODECS`.
        rate: frames a second.

    Raises:
        ConfigError: the suffix is none of those.
    """

    def __init__(self, path: Path, rate: float) -> None:
        if path.suffix.lower() not in CODECS:
            raise ConfigError(f"{path} ends in none of {', '.join(CODECS)}.")
        self.path, self.rate = path, rate
        self._writer: Any = None

    def write(self, frame: np.ndarray) -> None:
        """Append [H, W, 3] uint8 RGB.

        Raises:
            DataError: the file cannot be written.
        """
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), codec, self.rate, size)
            if not self._writer.isOpened():
                raise DataError(f"The video {self.path} cannot be written.")
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        """Finish the file, so that players read it."""
        if self._writer is not None:
            self._writer.release()


class Tracker:
    """Identities of objects over frames, by ByteTrack (arXiv:2110.06864) for each name.

    Detections of at least ``threshold`` begin tracks; weaker ones, of which the detector should
    be asked for some, only carry them on.

    Args:
        threshold: of detections that begin tracks.
        rate: frames a second.

    Raises:
        ConfigError: the packages that track are missing.
    """

    def __init__(self, threshold: float, rate: float) -> None:
        try:
            from trackers.core.bytetrack.tracker import ByteTrackTracker
        except ImportError as error:
            raise ConfigError(
                "Tracking needs `pip install --no-deps trackers supervision pydeprecate` "
                f"({error})."
            ) from error
        self._new = lambda: ByteTrackTracker(
            lost_track_buffer=round(30 * _REMEMBERED_SECONDS),
            frame_rate=rate,
            track_activation_threshold=threshold,
            high_conf_det_threshold=threshold,
            minimum_consecutive_frames=_CONFIRMED_AFTER,
            minimum_iou_threshold=_LEAST_OVERLAP,
        )
        self._trackers: dict[str, Any] = {}
        self._numbers: dict[tuple[str, int], int] = {}

    def update(self, results: Results) -> np.ndarray:
        """The identities of a frame's detections.

        Returns:
            [N] int64 from 1, 0 for what belongs to no track (yet).
        """
        from supervision import Detections

        identities = np.zeros(len(results), dtype=np.int64)
        names = np.array(results.names, dtype=object)
        for name in dict.fromkeys([*self._trackers, *results.names]):
            tracker = self._trackers.setdefault(name, self._new())
            positions = np.flatnonzero(names == name)
            scores = results.scores if results.scores is not None else np.ones(len(results))
            tracked = tracker.update(
                Detections(
                    xyxy=results.boxes[positions].reshape(-1, 4),
                    confidence=scores[positions],
                    data={"position": positions},
                )
            )
            for position, number in zip(
                tracked.data.get("position", ()), tracked.tracker_id, strict=True
            ):
                if number >= 0:
                    key = (name, int(number))
                    identities[position] = self._numbers.setdefault(key, len(self._numbers) + 1)
        return identities


@dataclass(frozen=True)
class TrackedFrame:
    """What was found in a frame and belongs to a track."""

    index: int  # of the frames that were looked at, from 0
    results: Results  # with the frame's pixels as their picture
    identities: np.ndarray  # [N] int64 from 1

    def row(self, rate: float) -> dict[str, Any]:
        """The frame as JSON; ``rate`` is that of the frames that were looked at."""
        tracks = [
            {
                "id": int(identity),
                "name": found.name,
                "score": None if found.score is None else round(found.score, 4),
                "box": [round(value, 2) for value in found.box],
            }
            for identity, found in zip(self.identities, self.results, strict=True)
        ]
        return {"frame": self.index, "seconds": round(self.index / rate, 3), "tracks": tracks}


def track(
    frames: Iterable[np.ndarray],
    detector: Any,
    tracker: Tracker,
    threshold: float,
    **options: Any,
) -> Iterator[TrackedFrame]:
    """Detect and track through a stream of frames.

    At any time two batches of frames are in memory at most.

    Args:
        frames: [H, W, 3] uint8 RGB.
        detector: a :class:`~llmdet.apis.Detector`.
        tracker: keeps the identities.
        threshold: the tracker's; the detector is asked for boxes of half of it.
        options: of :meth:`~llmdet.apis.Detector.predict`: what to look for, ``batch_size`` ...
    """
    found = detector.predict(iter(frames), threshold=threshold / 2, **options)
    for index, results in enumerate(found):
        identities = tracker.update(results)
        there = np.flatnonzero(identities)
        yield TrackedFrame(index, results.select(there), identities[there])
