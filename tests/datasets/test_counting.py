"""Counters see what data loader workers leave out."""

import pytest
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from llmdet.datasets.counting import DropCounter, dropped_totals


class Lossy(Dataset):
    def __init__(self, length: int = 8) -> None:
        self.length = length
        self.dropped = DropCounter("box too small", "row broken")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.dropped.add("box too small", index)
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_of_all_workers_are_seen_in_the_main_process(workers):
    dataset = Lossy()
    list(DataLoader(dataset, batch_size=2, num_workers=workers))
    assert dataset.dropped.totals() == {"box too small": sum(range(8))}


def test_counts_survive_the_next_epoch():
    dataset = Lossy()
    for _ in range(2):
        list(DataLoader(dataset, num_workers=1))
    assert dropped_totals(dataset) == {"box too small": 2 * sum(range(8))}


def test_totals_are_gathered_through_wrappers_and_transforms():
    first, second = Lossy(3), Lossy(3)
    second.pipeline = type("Pipeline", (), {"transforms": [Lossy()]})()
    second.pipeline.transforms[0].dropped.add("row broken", 5)
    both = ConcatDataset([first, second])
    for index in range(len(both)):
        both[index]
    assert dropped_totals(both) == {"box too small": 6, "row broken": 5}


def test_an_unknown_cause_is_a_defect():
    with pytest.raises(ValueError, match="not in tuple"):
        DropCounter("a").add("b")
