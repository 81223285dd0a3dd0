"""A data set that puts another sample in the place of one that cannot be used."""

from __future__ import annotations

from typing import Any

from mmdet.datasets import BaseDetDataset

from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError


class RefetchingDataset(BaseDetDataset):
    """mmdet's base class, which says why where no sample can be used.

    Attributes:
        dropped: what was left out, by cause.
    """

    dropped: Ledger
    _fully_initialized: bool

    def __getitem__(self, idx: int) -> Any:
        """The sample, or while training a random other one where ``prepare_data`` returns None.

        Raises:
            DataError: none of ``max_refetch`` samples can be used.
        """
        if not self._fully_initialized:
            self.full_init()
        if self.test_mode:
            return super().__getitem__(idx)
        for _ in range(self.max_refetch + 1):
            sample = self.prepare_data(idx)
            if sample is not None:
                return sample
            idx = self._rand_another()
        raise DataError(
            f"{self.ann_file}: none of {self.max_refetch + 1:,} samples can be used"
            f"{self.left_out()}; look at filter_cfg and at the pictures: "
            "tools/convert/data.py --check --images FOLDER lists what is wrong with them"
        )

    def left_out(self) -> str:
        """What was counted, in brackets, for messages; empty where nothing was."""
        counts = self.dropped.counts.most_common()
        causes = ", ".join(f"{cause}: {count:,}" for cause, count in counts)
        return f" ({causes})" if causes else ""
