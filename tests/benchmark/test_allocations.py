import torch

from tresnet_downstream.benchmark.allocations import Allocations

MIB = 2**20


def mib(count):
    return torch.empty(count * MIB, dtype=torch.uint8)


def test_peak_and_final_memory_of_a_block_exclude_earlier_allocations():
    before = [mib(7)]
    with Allocations() as allocations:
        first = mib(3)
        second = mib(5)
        del first
        before.clear()  # given back within, but not the block's
        third = mib(1)
    assert allocations.in_use() == len(second) + len(third) == 6 * MIB
    assert allocations.peak() == 8 * MIB


def test_tensors_of_the_end_can_be_left_out_of_the_peak():
    with Allocations() as allocations:
        mib(4)
        result = mib(4)  # at the address of the one before, as a rule
        other = mib(2)
    assert allocations.peak() == 6 * MIB
    assert allocations.peak([result]) == 4 * MIB
    assert allocations.peak([result, other]) == 4 * MIB
    assert allocations.peak([torch.empty(3)]) == 6 * MIB


def test_temporary_memory_of_an_operator_counts():
    x = torch.rand(512, 512)
    with Allocations() as allocations:
        x.exp().sum()
    assert allocations.peak() >= x.nbytes
    assert allocations.in_use() == 0
