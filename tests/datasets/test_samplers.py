"""Batches of one orientation, equal on every rank, without parsing rows."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler as MMEngineDefaultSampler
from mmengine.dataset import InfiniteSampler as MMEngineInfiniteSampler
from torch.utils.data import ConcatDataset, Dataset, SequentialSampler

from llmdet.datasets.samplers import (
    AspectRatioBatchSampler,
    DefaultSampler,
    InfiniteSampler,
    ShareSampler,
    TaskBatchSampler,
    is_upright,
)
from llmdet.errors import ConfigError


class Shapes(Dataset):
    """Knows ratios, and refuses to parse a row."""

    def __init__(self, ratios):
        self.aspect_ratios = np.asarray(ratios, np.float32)

    def __len__(self):
        return len(self.aspect_ratios)

    def get_data_info(self, index):
        raise AssertionError("a row was parsed")


class Rows(Dataset):
    """Knows no ratios."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def get_data_info(self, index):
        width, height = self.sizes[index]
        return {"width": width, "height": height}


class Given(SequentialSampler):
    """Gives chosen indices of a dataset."""

    def __init__(self, dataset, indices=None):
        self.dataset = dataset
        self.indices = list(range(len(dataset)) if indices is None else indices)

    def __iter__(self):
        return iter(self.indices)

    def __len__(self):
        return len(self.indices)


RATIOS = st.lists(st.sampled_from([0.5, 0.99, 1.0, 2.0]), max_size=40)


@given(RATIOS, st.integers(1, 6), st.booleans())
def test_number_of_batches_depends_on_the_number_of_images_alone(ratios, size, drop_last):
    sampler = AspectRatioBatchSampler(Given(Shapes(ratios)), size, drop_last)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    expected = len(ratios) // size if drop_last else -(-len(ratios) // size)
    assert len(batches) == expected


@given(RATIOS, st.integers(1, 6))
def test_every_image_comes_once_and_all_but_the_last_batches_have_one_orientation(ratios, size):
    batches = list(AspectRatioBatchSampler(Given(Shapes(ratios)), size))
    assert sorted(itertools.chain(*batches)) == list(range(len(ratios)))
    assert all(len(batch) == size for batch in batches[:-1])
    mixed = [len({ratios[i] < 1 for i in batch}) > 1 for batch in batches]
    assert sum(mixed) <= 1


@given(RATIOS, RATIOS, RATIOS)
def test_concatenated_data_sets_are_looked_through(first, second, third):
    if not (first and second and third):
        return
    both = ConcatDataset([Shapes(first), ConcatDataset([Shapes(second), Shapes(third)])])
    expected = [ratio < 1 for ratio in first + second + third]
    assert [is_upright(both, index) for index in range(len(both))] == expected


def test_without_ratios_the_size_of_the_row_counts():
    rows = Rows([(10, 20), (20, 20), (30, 20)])
    assert [is_upright(rows, i) for i in range(3)] == [True, False, False]


def test_a_broken_off_epoch_leaves_nothing_for_the_next():
    sampler = AspectRatioBatchSampler(Given(Shapes([0.5, 2, 2, 2, 0.5, 2])), 2)
    expected = list(sampler)
    next(iter(sampler))
    assert list(sampler) == expected


def test_ranks_share_all_images_in_equally_many_batches(monkeypatch):
    dataset = Shapes(np.random.default_rng(0).uniform(0.5, 2, 21))
    seen = []
    for rank in range(2):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, 2))
        sampler = DefaultSampler(dataset, shuffle=True, seed=5)
        batches = list(AspectRatioBatchSampler(sampler, 4))
        assert len(batches) == 3
        seen += itertools.chain(*batches)
    assert set(seen) == set(range(21))


def test_order_depends_on_seed_and_epoch():
    dataset = Shapes(np.random.default_rng(0).uniform(0.5, 2, 30))

    def batches(seed, epoch):
        sampler = DefaultSampler(dataset, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return list(AspectRatioBatchSampler(sampler, 4))

    assert batches(1, 0) == batches(1, 0)
    assert batches(1, 0) != batches(1, 1)
    assert batches(1, 0) != batches(2, 0)


def test_an_endless_sampler_gives_endless_batches():
    sampler = InfiniteSampler(Shapes([0.5, 2.0, 2.0]), seed=0)
    batches = list(itertools.islice(AspectRatioBatchSampler(sampler, 2), 10))
    assert all(len(batch) == 2 for batch in batches)


def test_a_sampler_without_dataset_is_refused():
    with pytest.raises(ConfigError, match="SequentialSampler has not"):
        AspectRatioBatchSampler(SequentialSampler([1, 2]), 2)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("size", "ranks"), [(7, 1), (7, 3), (2, 5), (40_000, 3)])
def test_orders_are_those_of_mmengine_on_every_rank(monkeypatch, shuffle, size, ranks):
    for rank in range(ranks):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda r=rank: (r, ranks))
        settings = dict(shuffle=shuffle, seed=3)
        for round_up in (True, False):
            ours = DefaultSampler(range(size), round_up=round_up, **settings)
            theirs = MMEngineDefaultSampler(range(size), round_up=round_up, **settings)
            for sampler in (ours, theirs):
                sampler.set_epoch(2)
            assert list(ours) == list(theirs)
        number = 2 * size // ranks + 3
        ours, theirs = (
            InfiniteSampler(range(size), **settings),
            MMEngineInfiniteSampler(range(size), **settings),
        )
        assert list(itertools.islice(ours, number)) == list(itertools.islice(theirs, number))


def test_an_order_holds_eight_bytes_an_index():
    size = 2_000_000
    for kind in (InfiniteSampler, DefaultSampler):
        indices = iter(kind(range(size), seed=0))
        tracemalloc.start()
        next(indices)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < size  # of Python's memory; a list of integers has 40 bytes each


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    weights=st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
    world_size=st.integers(1, 3),
)
def test_each_part_gives_its_share_of_any_number_of_images(sizes, weights, world_size):
    dataset = ConcatDataset([Shapes([1.0] * size) for size in sizes])
    shares = np.array(weights[: len(sizes)]) / sum(weights[: len(sizes)])
    ranks = []
    for rank in range(world_size):
        sampler = ShareSampler(dataset, shares.tolist(), seed=3)
        sampler.rank, sampler.world_size = rank, world_size
        ranks.append(np.array(list(itertools.islice(sampler, 60))))
        parts = np.searchsorted(dataset.cumulative_sizes, ranks[-1], side="right")
        given_so_far = (parts[:, None] == np.arange(len(sizes))).cumsum(0)
        wanted = shares * np.arange(1, 61)[:, None]
        assert (abs(given_so_far - wanted) <= 1 + 1e-6).all()
    first, size = np.stack(ranks, 1), sizes[0]
    of_first = first[first < size]
    # Row by row over the ranks, each round through a part has every image of it once.
    for start in range(0, len(of_first) - size + 1, size):
        assert sorted(of_first[start : start + size]) == list(range(size))


def test_another_round_through_a_part_has_another_order_and_a_seed_repeats_it():
    dataset = ConcatDataset([Shapes([1.0] * 50), Shapes([1.0] * 5)])

    def indices(seed):
        return list(itertools.islice(ShareSampler(dataset, [3, 1], seed=seed), 200))

    first = [index for index in indices(0) if index < 50]
    assert first[:50] != first[50:100]
    assert indices(0) == indices(0) != indices(1)


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.25, 0.25], [1.0, 0.0], [1.0, float("nan")]])
def test_shares_that_are_not_one_for_each_part_are_refused(shares):
    with pytest.raises(ConfigError, match="ShareSampler"):
        ShareSampler(ConcatDataset([Shapes([1.0]), Shapes([1.0])]), shares)


def share_sampler(sizes, shares, rank=0, world_size=1, **settings):
    """Of a rank, over parts of given sizes."""
    dataset = ConcatDataset([Shapes([1.0] * size) for size in sizes])
    sampler = ShareSampler(dataset, shares, **{"seed": 3, **settings})
    sampler.rank, sampler.world_size = rank, world_size
    return sampler


@pytest.mark.parametrize("world_size", [1, 3])
def test_an_epoch_of_shares_ends_after_its_images_and_the_next_one_differs(world_size):
    epochs = []
    for rank in range(world_size):
        sampler = share_sampler([40, 4], [0.5, 0.5], rank, world_size, images=20)
        assert len(list(sampler)) == len(sampler) == -(-20 // world_size)
        first = list(sampler)
        sampler.set_epoch(1)
        epochs.append([first, list(sampler)])
        assert epochs[-1][0] != epochs[-1][1]
        sampler.set_epoch(0)
        assert list(sampler) == first
    large = [index for first, _ in epochs for index in first if index < 40]
    assert len(set(large)) == len(large)


def test_without_an_epoch_the_orders_go_on():
    sampler = share_sampler([5, 5], [0.5, 0.5])
    first = list(itertools.islice(sampler, 30))
    sampler.set_epoch(1)
    assert list(itertools.islice(sampler, 30)) == first


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 1), min_size=4, max_size=4),
    names=st.lists(st.sampled_from("abc"), min_size=4, max_size=4),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 3),
)
def test_batches_have_one_task_the_same_on_all_ranks_in_the_shares_of_the_tasks(
    sizes, weights, names, batch_size, world_size
):
    shares, tasks = weights[: len(sizes)], names[: len(sizes)]
    of_ranks = []
    for rank in range(world_size):
        sampler = share_sampler(sizes, shares, rank, world_size)
        batches = list(itertools.islice(TaskBatchSampler(sampler, batch_size, tasks), 40))
        assert all(len(batch) == batch_size for batch in batches)
        parts = np.searchsorted(sampler.dataset.cumulative_sizes, batches, side="right")
        named = np.array(tasks)[parts]
        assert (named == named[:, :1]).all()
        of_ranks.append(parts)
    assert all((parts == of_ranks[0]).all() for parts in of_ranks)
    for name in set(tasks):
        share = sum(s for s, task in zip(shares, tasks, strict=True) if task == name) / sum(shares)
        given_so_far = (named[:, 0] == name).cumsum()
        assert (abs(given_so_far - share * np.arange(1, 41)) <= 1 + 1e-6).all()


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_an_epoch_of_tasks_has_as_many_batches_as_it_says(images, size, world_size, drop_last):
    numbers = set()
    for rank in range(world_size):
        sampler = share_sampler([7, 3], [2, 1], rank, world_size, images=images)
        batches = TaskBatchSampler(sampler, size, ["a", "b"], drop_last)
        given_batches = list(batches)
        assert len(given_batches) == len(batches)
        assert sum(map(len, given_batches)) == (len(batches) * size if drop_last else len(sampler))
        numbers.add(len(batches))
    assert len(numbers) == 1


def test_batches_of_a_step_have_one_task():
    sampler = share_sampler([6, 2, 4], [3, 1, 2])
    batches = TaskBatchSampler(sampler, 2, ["a", "a", "b"], in_a_row=3)
    tasks = [
        {"aab"[index // 6 + (index > 7)] for index in b} for b in itertools.islice(batches, 36)
    ]
    steps = ["".join(sorted(set.union(*tasks[n : n + 3]))) for n in range(0, 36, 3)]
    assert sorted(steps) == ["a"] * 8 + ["b"] * 4
    with pytest.raises(ConfigError, match="in_a_row=0"):
        TaskBatchSampler(sampler, 2, ["a", "a", "b"], in_a_row=0)


def test_parts_of_one_task_share_a_batch_and_every_image_comes_before_any_comes_again():
    sampler = share_sampler([6, 2, 4], [0.5, 1 / 6, 1 / 3])
    batches = list(itertools.islice(TaskBatchSampler(sampler, 4, ["a", "a", "b"]), 3))
    assert sorted(itertools.chain(*batches)) == list(range(12))
    assert sum(max(batch) < 8 for batch in batches) == 2


@pytest.mark.parametrize(
    ("make", "tasks", "message"),
    [
        (lambda: DefaultSampler(range(4), seed=0), ["a"], "not of a DefaultSampler"),
        (lambda: share_sampler([1, 1], [1, 1]), ["a"], r"1 tasks for 2 data set\(s\)"),
        (lambda: share_sampler([1, 1], [1, 1], images=0), ["a"], "images=0; an epoch has"),
    ],
)
def test_tasks_without_shares_or_for_other_parts_are_refused(make, tasks, message):
    with pytest.raises(ConfigError, match=message):
        TaskBatchSampler(make(), 2, tasks)
