"""Whether predictions are of all that is annotated: half a file gives a number, and a wrong one."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from llmdet.errors import DataError
from llmdet.evaluation.predictions import files_of, is_prediction_file

logger = logging.getLogger(__name__)


def check_complete(
    path: Path,
    predicted: Iterable[int],
    wanted: Collection[int],
    *,
    partial: bool,
    what: str = "images",
    others: str = "in the others nothing counts as found",
) -> None:
    """Refuse a prediction file that lacks some of what is annotated.

    Only the file of ``tools/test.py --out`` has a line for an image in which nothing was found; of
    other formats nobody can tell these from images that nobody looked at, so that they are refused
    as well.

    Args:
        path: the file.
        predicted: ids that it has.
        wanted: ids that are annotated.
        partial: log instead of raising.
        what: is counted by the ids.
        others: what becomes of those that are missing.
    Raises:
        DataError: the file lacks some, and ``partial`` is not given.
    """
    missing = sorted(set(wanted) - set(predicted))
    if not missing:
        return
    there = f"{len(set(wanted)) - len(missing)} of {len(set(wanted))} {what}"
    if partial:
        logger.warning("%s is of %s; %s", path, there, others)
        return
    first = f"{path} is of {there} (the first that is missing: {missing[0]})"
    if not is_prediction_file(path):
        raise DataError(
            f"{first}. Whether nothing was found in the others or nobody looked, its format does "
            f"not tell; if all were looked at, --partial evaluates it: {others}"
        )
    torn = ", and its last line is torn" if any(map(_is_torn, files_of(path))) else ""
    raise DataError(
        f"{first}{torn}: the test that wrote it did not end, or had other annotations. The same "
        f"command and --out complete it; --partial evaluates it as it is: {others}"
    )


def _is_torn(path: Path) -> bool:
    """Whether a killed program left half a line at the end."""
    with path.open("rb") as stream:
        stream.seek(0, 2)
        if stream.tell() == 0:
            return False
        stream.seek(-1, 2)
        return stream.read(1) != b"\n"
