"""Rows of batches, and many tensors in one transfer."""

import pytest
import torch

from llmdet.utils.tensors import copy_to_host, pack, take_rows, unpack

TENSORS = [torch.arange(12.0).view(3, 2, 2), torch.arange(3)]


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 2], [1], [2, 0, 2], [1, 2]])
def test_rows_are_those_of_indexing(rows):
    for taken, tensor in zip(take_rows(TENSORS, rows), TENSORS, strict=True):
        assert torch.equal(taken, tensor[rows])


@pytest.mark.parametrize(("rows", "copied"), [([0, 1, 2], 0), ([2, 2, 2, 2], 0), ([1, 0], 2)])
def test_all_rows_and_one_row_many_times_take_no_memory(rows, copied):
    storages = {tensor.untyped_storage().data_ptr() for tensor in TENSORS}
    taken = {tensor.untyped_storage().data_ptr() for tensor in take_rows(TENSORS, rows)}
    assert len(taken - storages) == copied


def test_tensors_of_any_dtype_and_shape_arrive_bit_by_bit():
    tensors = [
        torch.tensor([True, False, True]),  # what follows begins at an odd byte
        torch.tensor([2**62 + 1, -1]),
        torch.tensor([torch.nan, -0.0, 1e-45]),
        torch.empty(0, 4),
        torch.randn(2, 3).bfloat16().t(),
        torch.tensor(0.1, dtype=torch.float64),
    ]
    packed = pack(tensors)
    assert packed.dtype == torch.uint8
    for found, given in zip(unpack(packed, tensors), tensors, strict=True):
        assert found.dtype == given.dtype
        torch.testing.assert_close(found, given, rtol=0, atol=0, equal_nan=True)


def test_tensors_of_the_host_are_left_where_they_are():
    assert [x.data_ptr() for x in copy_to_host(TENSORS)] == [x.data_ptr() for x in TENSORS]
