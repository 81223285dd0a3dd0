"""The best detections of every class, kept while predictions arrive."""

import numpy as np

from llmdet.evaluation.detections import rank_in_runs

ROWS_BEFORE_CUT = 1 << 22
LARGEST_TABLE = 1 << 22  # ids below this index tables directly

Columns = tuple[np.ndarray, ...]


class TopDetections:
    """Keeps the ``limit`` best detections per class in arrays of bounded size.

    The result does not depend on the order in which images arrive: equal scores are ranked by
    image id, then by their place in the image.

    Args:
        limit: detections kept per class.
        rows_before_cut: arriving rows gathered before the kept ones are cut again.
    """

    def __init__(self, limit: int, rows_before_cut: int = ROWS_BEFORE_CUT) -> None:
        self.limit = limit
        self.rows_before_cut = rows_before_cut
        self._kept = empty_columns()
        self._pending: list[Columns] = []
        self._rows = 0
        self._floor = np.zeros(0, np.float32)  # lowest kept score of each full class, else -inf

    def add(self, image_id: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
        """Take the detections of one image.

        Args:
            image_id: id of the image.
            boxes: [N, 4] float32.
            scores: [N] float32.
            labels: [N] class indices.
        """
        place = np.arange(len(scores), dtype=np.int32)
        if labels.size and int(labels.max()) < len(self._floor):
            possible = scores >= self._floor[labels]
            boxes, scores, labels = boxes[possible], scores[possible], labels[possible]
            place = place[possible]
        images = np.full(len(scores), image_id, np.int64)
        self._pending.append((images, labels.astype(np.int32), boxes, scores, place))
        self._rows += len(scores)
        if self._rows >= max(self.rows_before_cut, len(self._kept[0])):
            self._cut()

    def arrays(self) -> Columns:
        """Image ids, labels, boxes [N, 4], scores and places in the image of what is kept."""
        self._cut()
        return self._kept

    def _cut(self) -> None:
        rows = join([self._kept, *self._pending])
        self._pending, self._rows = [], 0
        images, labels, _, scores, places = rows
        kept, self._floor = _best(labels, scores, self.limit, (places, images))
        self._kept = rows if kept.all() else tuple(column[kept] for column in rows)


def top_per_group(groups: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Mask of the rows that are among the ``limit`` best of their group: [N] bool.

    Args:
        groups: [N] number of each row's group, such as an image or category id.
        scores: [N] higher is better; equal scores are ranked by their order.
        limit: rows kept per group.
    """
    labels = groups
    if len(groups) and (groups.min() < 0 or groups.max() >= LARGEST_TABLE):
        _, labels = np.unique(groups, return_inverse=True)
    return _best(labels, scores, limit, (np.arange(len(scores)),))[0]


def join(parts: list[Columns]) -> Columns:
    """Concatenate tuples of columns."""
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def empty_columns() -> Columns:
    """Image ids, labels, boxes, scores and places of no detections."""
    return (
        np.zeros(0, np.int64),
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
    )


def _best(
    labels: np.ndarray, scores: np.ndarray, limit: int, ties: Columns
) -> tuple[np.ndarray, np.ndarray]:
    """Mask [N] of the best rows per class, and the lowest kept score of each class [K].

    Only the limit-th score of a class is searched, nothing is sorted but ties at that score;
    ``ties`` ranks them, the last key first. A class that is not full has the floor -inf.
    """
    counts = np.bincount(labels)
    floor = np.full(len(counts), -np.inf, scores.dtype)
    full = np.flatnonzero(counts > limit)
    if len(full) == 0:
        return np.ones(len(labels), bool), floor
    # numpy sorts 16-bit integers by radix, in linear time
    by_class = np.argsort(_narrow(labels, len(counts)), kind="stable")
    starts = np.cumsum(counts) - counts
    for label in full:
        group = scores[by_class[starts[label] : starts[label] + counts[label]]]
        floor[label] = np.partition(group, len(group) - limit)[len(group) - limit]
    threshold = floor[labels]
    kept = scores > threshold
    tied = np.flatnonzero(scores == threshold)
    tied = tied[np.lexsort((*(key[tied] for key in ties), labels[tied]))]
    room = limit - np.bincount(labels[kept], minlength=len(counts))
    kept[tied] = rank_in_runs(labels[tied]) < room[labels[tied]]
    return kept, floor


def _narrow(labels: np.ndarray, classes: int) -> np.ndarray:
    return labels.astype(np.uint16) if classes <= np.iinfo(np.uint16).max else labels
