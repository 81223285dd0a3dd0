"""One ledger: right with several data loader workers, and with several ranks."""

import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from llmdet.datasets.coco_dataset import CocoDataset
from llmdet.datasets.ledger import BROKEN, Ledger, SharedLedger, dropped_totals
from llmdet.datasets.odvg import ODVGDataset
from llmdet.engine.drop_summary import DropSummaryHook
from llmdet.errors import DataError
from llmdet.testing.processes import run_processes


class Lossy(Dataset):
    """Drops as many boxes as the index says; the indices of `broken` are broken records."""

    def __init__(self, length: int = 8, broken: range = range(0), max_bad_rows: int = 0) -> None:
        self.length = length
        self.broken = broken
        self.dropped = SharedLedger("box too small", "no word", max_bad_rows=max_bad_rows)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.dropped.note("box too small", number=index)
        if index in self.broken:
            self.dropped.reject(DataError(f"rows.jsonl:{index}: broken"))
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_of_all_workers_are_seen_in_the_main_process(workers):
    dataset = Lossy()
    list(DataLoader(dataset, batch_size=2, num_workers=workers))
    assert dataset.dropped.counts == {"box too small": sum(range(8))}


def test_counts_survive_the_next_epoch_and_a_copy():
    dataset = Lossy()
    for _ in range(2):
        list(DataLoader(dataset, num_workers=1))
    assert dropped_totals(copy.deepcopy(dataset)) == {"box too small": 2 * sum(range(8))}


def test_totals_are_gathered_through_wrappers_and_transforms():
    first, second = Lossy(3), Lossy(3)
    second.pipeline = type("Pipeline", (), {"transforms": [Lossy()]})()
    second.pipeline.transforms[0].dropped.note("no word", number=5)
    both = ConcatDataset([first, second])
    for index in range(len(both)):
        both[index]
    assert dropped_totals(both) == {"box too small": 6, "no word": 5}


def test_an_unknown_cause_is_a_defect():
    with pytest.raises(ValueError, match="not in tuple"):
        SharedLedger("a").note("b")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_limit_is_for_all_workers_together_and_a_record_counts_once(workers):
    permitted = Lossy(broken=range(4), max_bad_rows=4)
    for _ in range(2):
        list(DataLoader(permitted, num_workers=workers))
    assert permitted.dropped.counts[BROKEN] == 4
    # Two workers meet two broken records each: none of them alone passes the limit.
    with pytest.raises(DataError, match="more than max_bad_rows=3"):
        list(DataLoader(Lossy(broken=range(4), max_bad_rows=3), num_workers=workers))


def test_a_local_ledger_reports_causes_and_the_first_place():
    ledger = Ledger(max_bad_rows=1)
    for _ in range(2):
        ledger.reject(DataError("a.json: image 3 is broken"))
    ledger.note("box outside", "a.json: image 4", number=2)
    assert ledger.report().splitlines() == [
        "         2  box outside (first: a.json: image 4)",
        f"         1  {BROKEN} (first: a.json: image 3 is broken)",
    ]
    with pytest.raises(DataError, match=r"image 5 .more than max_bad_rows=1"):
        ledger.reject(DataError("a.json: image 5"))
    with pytest.raises(DataError, match=r"^a.json: image 5$"):
        Ledger().reject(DataError("a.json: image 5"))


def row(box: object) -> dict:
    region = {"bbox": box, "phrase": "ball", "tokens_positive": [[0, 4]]}
    form = {"caption": "ball", "regions": [region]}
    return {"filename": "a.jpg", "width": 60, "height": 40, "grounding": form}


def coco() -> dict:
    """Two images, the first one's box too small to be used."""
    sizes = {1: 0.5, 2: 9}
    images = [{"id": id, "file_name": f"{id}.jpg", "width": 60, "height": 40} for id in sizes]
    boxes = [
        {"id": id, "image_id": id, "category_id": 1, "bbox": [1, 1, size, 9]}
        for id, size in sizes.items()
    ]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ball"}]}


def messages_of_a_rank(folder: Path, max_bad_rows: int) -> list[str]:
    """Read every other row with two workers, then let the hook report."""
    rows = ODVGDataset(
        ann_file=f"{folder}/rows.jsonl",
        max_bad_rows=max_bad_rows,
        pipeline=[lambda sample: sample["sample_idx"]],
    )
    rows._rand_another = lambda: len(rows) - 1  # instead of a broken row: a good one, not any
    dataset = ConcatDataset([rows, CocoDataset(ann_file=f"{folder}/coco.json")])
    messages: list[str] = []
    logger = SimpleNamespace(info=lambda text, *args: messages.append(text % args))
    runner = SimpleNamespace(
        iter=0, train_dataloader=SimpleNamespace(dataset=dataset), logger=logger
    )
    hook = DropSummaryHook(interval=1)
    hook.before_train(runner)
    indices = list(range(dist.get_rank(), len(rows), dist.get_world_size()))
    loader = DataLoader(
        rows, sampler=indices, num_workers=2, collate_fn=list, multiprocessing_context="fork"
    )
    try:
        list(loader)
        hook.after_train_iter(runner)
        hook.after_train(runner)
    except DataError as error:
        messages = [f"DataError: {error}"]
    return messages


@pytest.fixture
def folder(write_rows, write_json):
    """Eight rows: two are broken (one of them no JSON), three hold a tiny box."""
    tiny, broken, good = row([1, 1, 1.5, 9]), row("none"), row([1, 1, 9, 9])
    path = write_rows(tiny, tiny, tiny, broken, good, good, good)
    with path.open("a") as file:
        file.write("no json\n")
    write_json("coco.json", coco())
    return path.parent


def test_two_ranks_with_two_workers_each_count_what_one_process_counts(folder, tmp_path):
    for (message,) in run_processes(2, messages_of_a_rank, folder, 2, folder=tmp_path):
        # Four tiny boxes: three rows, and one of the COCO file that both ranks read whole.
        assert message.endswith(f"box under 1 pixel: 4; {BROKEN}: 2")


def test_broken_rows_of_all_ranks_count_against_one_limit(write_rows, write_json, tmp_path):
    folder = write_rows(row("none"), row("none"), row([1, 1, 9, 9]), row([1, 1, 9, 9])).parent
    write_json("coco.json", coco())
    for (message,) in run_processes(2, messages_of_a_rank, folder, 1, folder=tmp_path):
        assert message.startswith("DataError: 2 different records of the training data are broken")


def test_the_first_broken_records_are_named_in_the_log(caplog):
    ledger = Ledger(max_bad_rows=100)
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            ledger.reject(DataError(f"rows.jsonl:{number}: broken"))
    assert caplog.messages[0] == "skipped: rows.jsonl:0: broken"
    assert len(caplog.messages) == 10
