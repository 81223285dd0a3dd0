"""A video of moving shapes, through real files and ByteTrack; colours stand for a detector."""

import json
import weakref

import cv2
import numpy as np
import pytest

from llmdet.apis.results import Picture, Results
from llmdet.apis.video import Tracker, VideoWriter, open_video, track
from llmdet.cli import video as program
from llmdet.errors import ConfigError, DataError

FRAMES, SIDE, RATE = 40, 120, 20.0
RED, BLUE = (220, 30, 30), (30, 30, 220)
CLASSES = ("red square", "blue square")
#: Where each shape begins, how it moves, and when it cannot be seen.
SHAPES = [
    (RED, (5, 10), (2, 0), ()),
    (RED, (90, 80), (-2, 0), ()),
    (BLUE, (10, 90), (1, -2), range(15, 20)),
]


def scene(number):
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    for color, (x, y), (dx, dy), hidden in SHAPES:
        if number not in hidden:
            left, top = x + dx * number, y + dy * number
            image[max(top, 0) : top + 16, max(left, 0) : left + 16] = color
    return image


class ColourDetector:
    """Finds each coloured patch, one batch of frames at a time as the detector does."""

    def __init__(self):
        self.asked = {}

    def predict(self, frames, *, batch_size, threshold, **options):
        self.asked = options | {"threshold": threshold}
        batch = []
        for frame in frames:
            batch.append(frame)
            if len(batch) == batch_size:
                yield from map(self.look, batch)
                batch = []
        yield from map(self.look, batch)

    def look(self, frame):
        boxes, labels = [], []
        for label, channel in enumerate((0, 2)):
            rest = frame.astype(int).sum(axis=2) - frame[..., channel]
            mask = (frame[..., channel] > 150) & (rest < 150)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
            for x, y, w, h, area in stats[1:]:
                if area > 20:
                    boxes.append((x, y, x + w, y + h))
                    labels.append(label)
        count = len(boxes)
        return Results(
            Picture(frame, SIDE, SIDE),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.full(count, 0.8, np.float32),
            np.array(labels, np.int64),
            [CLASSES[label] for label in labels],
            CLASSES,
        )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "shapes.avi"
    writer = VideoWriter(path, RATE)
    for number in range(FRAMES):
        writer.write(scene(number))
    writer.close()
    return path


def test_written_frames_are_read_again(clip):
    with open_video(clip) as video:
        assert (video.rate, video.count) == (RATE, FRAMES)
        frames = list(video.frames(stride=3))
    assert len(frames) == 14
    difference = np.abs(frames[2].astype(int) - scene(6))
    assert difference.mean() < 3  # MJPG loses a little, and channels are in their order


def test_shapes_keep_their_numbers_also_when_they_were_hidden(clip):
    with open_video(clip) as video:
        tracked = list(
            track(video.frames(), ColourDetector(), Tracker(0.3, RATE), 0.3, batch_size=4)
        )
    assert [frame.index for frame in tracked] == list(range(FRAMES))
    seen = {}
    for frame in tracked:
        for identity, found in zip(frame.identities.tolist(), frame.results, strict=True):
            seen.setdefault(identity, []).append((frame.index, found.name, found.box))
    assert len(seen) == 3
    assert {len({name for _, name, _ in track}) for track in seen.values()} == {1}
    (blue,) = [track for track in seen.values() if track[0][1] == "blue square"]
    indices = [index for index, _, _ in blue]
    assert min(indices) <= 2
    assert max(indices) >= 35  # though it was hidden from 15 to 19
    reds = [track for track in seen.values() if track[0][1] == "red square"]
    for place in reds:
        moves = np.diff([box[0] for _, _, box in place if 4 < box[0] < 100])
        assert np.abs(moves - np.sign(moves.sum()) * 2).max() <= 2  # each goes one way


def test_two_batches_of_frames_are_in_memory_at_most():
    alive, most, batch_size = set(), 0, 4

    def frames():
        nonlocal most
        for number in range(FRAMES):
            frame = scene(number)
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            most = max(most, len(alive))
            yield frame
            del frame

    for _ in track(frames(), ColourDetector(), Tracker(0.3, RATE), 0.3, batch_size=batch_size):
        pass
    assert batch_size <= most <= 2 * batch_size + 1


def test_the_detector_itself_keeps_two_batches_at_most(detector):
    alive, most = set(), 0

    def frames():
        nonlocal most
        for number in range(9):
            frame = scene(number)
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            most = max(most, len(alive))
            yield frame
            del frame

    options = {"classes": list(CLASSES), "batch_size": 2}
    tracked = track(frames(), detector, Tracker(0.3, RATE), 0.3, **options)
    assert sum(1 for _ in tracked) == 9
    assert most <= 5


def test_the_program_writes_a_video_and_its_tracks(clip, tmp_path, monkeypatch, capsys):
    detector = ColourDetector()
    monkeypatch.setattr(program, "build_detector", lambda *given, **options: detector)
    out = tmp_path / "new" / "out.mp4"
    arguments = [str(clip), str(out), "config.py", "--text", "red square . blue square", "-c"]
    program.main([*arguments, "--score-thr", "0.4", "--max-frames", "20"])
    assert detector.asked["threshold"] == 0.2
    assert detector.asked["classes"] == "red square . blue square"
    told = capsys.readouterr()
    assert "3 tracks: 2 red square, 1 blue square" in told.out
    assert "20/20" in told.err
    rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(20))
    assert rows[10]["seconds"] == 0.5
    assert {entry["name"] for entry in rows[10]["tracks"]} == set(CLASSES)
    with open_video(out) as video:
        assert (video.count, video.rate) == (20, RATE)
        assert next(video.frames()).shape == (SIDE, SIDE, 3)
    with pytest.raises(ConfigError, match=r"out\.mp4 exists: .* --overwrite"):
        program.main(arguments)


def test_ctrl_c_leaves_files_that_can_be_read(clip, tmp_path):
    def interrupted(frames):
        yield from (next(frames) for _ in range(5))
        raise KeyboardInterrupt

    writer = VideoWriter(tmp_path / "out.avi", RATE)
    with open_video(clip) as video, (tmp_path / "out.jsonl").open("w") as rows:
        frames = interrupted(video.frames())
        tracked = track(frames, ColourDetector(), Tracker(0.3, RATE), 0.3, batch_size=1)
        program.deliver(tracked, writer, rows, RATE)
    with open_video(tmp_path / "out.avi") as video:
        assert len(list(video.frames())) == 5


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for source, message in (
        (tmp_path / "none.mp4", "There is no video"),
        (tmp_path / "text.mp4", "is no video that OpenCV can open"),
        ("https://example.org/a.mp4", "is a URL"),
        ("99", "There is no camera 99"),
    ):
        with pytest.raises(DataError, match=message), open_video(source):
            pass
    with pytest.raises(ConfigError, match=r"ends in none of \.mp4"):
        VideoWriter(tmp_path / "out.gif", RATE)
