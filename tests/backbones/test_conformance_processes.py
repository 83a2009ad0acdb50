"""TResNet with the wrappers that train it on several processes: a table of facilities, as in ``test_conformance.py``.

Two processes on the CPU take two steps of training with each facility, in training and in evaluation mode, without
recomputation, with ``with_cp=True`` and with ``with_cp=2``. Each process has images of its own. Outputs, gradients
and buffers of both steps must be those of ``norm='batchnorm'`` under the same wrapper, to 1e-10 of each tensor's
largest value, in float64. The table says whether the blocks are lean under the wrapper, or plain.

A new facility is one line in ``FACILITIES``.
"""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from backbones.conformance import BLOCKS, Counted, assert_same_results, build, images, loss_of
from running.small_data import start
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tresnet_downstream.backbones.tresnet import BasicBlock, Bottleneck, Stem

PROCESSES = 2
STEPS = 2
# Half the time of the sizes in conformance.py; here too, stages 3 and 4 differ in whether outputs are kept.
WIDTH, SIDE = 0.125, 80
# After this time the processes are ended.
SECONDS = 180


def data_parallel(**options):
    # So small that the gradients fill several buckets.
    return partial(DistributedDataParallel, bucket_cap_mb=0.1, **options)


def fsdp1(parts=None, **options):
    """FSDP around the parts of the given classes, and around the network."""
    policy = None if parts is None else ModuleWrapPolicy(parts)
    return partial(FullyShardedDataParallel, auto_wrap_policy=policy, device_id=torch.device("cpu"), **options)


def fsdp2(parts=None, **options):
    """``fully_shard`` of the parts that ``parts(network)`` names, and of the network."""

    def shard(network):
        mesh = init_device_mesh("cpu", (PROCESSES,))
        # fully_shard refuses parameters in any other memory format.
        network.to(memory_format=torch.contiguous_format)
        for part in () if parts is None else parts(network):
            fully_shard(part, mesh=mesh, **options)
        return fully_shard(network, mesh=mesh, **options)

    return shard


BLOCK_TYPES = {Stem, BasicBlock, Bottleneck}


def blocks_of(network):
    return [module for module in network.modules() if type(module) in BLOCK_TYPES]


def stages_of(network):
    return network.stages


class EarlyFeatures(nn.Module):
    """Runs the whole network; in so many steps it gives the first stage's features alone, later all."""

    def __init__(self, network, steps):
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, x):
        features = self.network(x)
        self.steps -= 1
        return features[:1] if self.steps >= 0 else features


def frozen(network):
    """The same network, with a stem and two stages that take no part in the training."""
    network.frozen_stages = 2
    return network.train(network.training)


class Facility(NamedTuple):
    """``wrap(network)`` gives the module that is trained; so many of its blocks are lean in each pass."""

    wrap: Callable[[nn.Module], nn.Module]
    lean: int


LEAN, PLAIN = BLOCKS, 0
UNUSED = data_parallel(find_unused_parameters=True)
STATIC = data_parallel(static_graph=True)
FACILITIES = {
    "DDP": Facility(data_parallel(), LEAN),
    "DDP, static graph": Facility(STATIC, LEAN),
    "DDP, gradients as views of buckets": Facility(data_parallel(gradient_as_bucket_view=True), LEAN),
    "DDP, unused parameters": Facility(lambda network: UNUSED(EarlyFeatures(network, steps=1)), LEAN),
    "DDP, unused parameters of a static graph": Facility(lambda network: STATIC(EarlyFeatures(network, STEPS)), LEAN),
    "DDP, frozen stages": Facility(lambda network: UNUSED(frozen(network)), LEAN),
    "FSDP 1, each block": Facility(fsdp1(BLOCK_TYPES, use_orig_params=False), PLAIN),
    "FSDP 1, each block, original parameters": Facility(fsdp1(BLOCK_TYPES, use_orig_params=True), PLAIN),
    "FSDP 1, network alone": Facility(fsdp1(use_orig_params=False), PLAIN),
    "FSDP 1, network alone, original parameters": Facility(fsdp1(use_orig_params=True), PLAIN),
    "FSDP 2, each block": Facility(fsdp2(blocks_of), PLAIN),
    "FSDP 2, each stage": Facility(fsdp2(stages_of), LEAN),
    "FSDP 2, network alone": Facility(fsdp2(), LEAN),
    "FSDP 2, network alone, resharded after the forward pass": Facility(fsdp2(reshard_after_forward=True), LEAN),
}
MODES = ("train", "eval")
WITH_CP = (False, True, 2)


# --------------------------------------------------------------------------------------------------- each process


def two_steps(facility, **options):
    """What the steps leave behind in this process, by name."""
    model = facility.wrap(build(width=WIDTH, **options))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-5)
    result = {}
    for step in range(STEPS):
        optimiser.zero_grad()
        features = model(images(PROCESSES * step + dist.get_rank(), SIDE))
        loss_of(features).backward()
        left = {f"feature {i}": feature.detach() for i, feature in enumerate(features)}
        left |= {f"gradient of {name}": gradient for name, gradient in gradients_of(model).items()}
        left |= {f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}
        result |= {f"{name} of step {step}": value for name, value in left.items()}
        optimiser.step()
    return result


def gradients_of(model):
    """Gradients by name of parameter; those of sharded parameters are gathered."""
    if isinstance(model, FullyShardedDataParallel):
        return _gathered_by_fsdp1(model)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in gradients.items()}


def _gathered_by_fsdp1(model):
    # FSDP 1 gathers parameters by name, but not flattened gradients: these take the parameters' place for a moment.
    parameters = list(model.parameters())
    values = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.data.copy_(parameter.grad)
    with FullyShardedDataParallel.summon_full_params(model, writeback=False):
        gradients = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)
    return gradients


def run_cases(folder, rank):
    """Runs the whole table as one of the processes; leaves a line for each case in a file of its own."""
    warnings.simplefilter("ignore")
    store, timeout = (folder / "store").as_uri(), timedelta(seconds=SECONDS / 3)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES, timeout=timeout)
    for name, mode in product(FACILITIES, MODES):
        theirs = None
        for with_cp in WITH_CP:
            lean, error = None, ""
            try:
                theirs = theirs or two_steps(FACILITIES[name], norm="batchnorm", mode=mode)
                with pytest.MonkeyPatch.context() as patch:
                    counted = Counted(patch)
                    ours = two_steps(FACILITIES[name], with_cp=with_cp, mode=mode)
                lean = counted.blocks / STEPS
                assert_same_results(ours, theirs)
            except Exception:
                error = traceback.format_exc()
            with open(folder / f"results_{rank}.jsonl", "a") as file:
                print(json.dumps({"case": (name, mode, with_cp), "lean": lean, "error": error}), file=file)
    # None may leave while another still talks to it; and torch's threads, taken apart with the group or as an
    # interpreter ends, have aborted a process whose work was done.
    dist.barrier()
    os._exit(0)


# ---------------------------------------------------------------------------------------------------------- table


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The results of each process by case, and what they wrote to stderr; they are started once for all cases."""
    folder = tmp_path_factory.mktemp("two_processes")
    started = [start([__file__, folder, rank]) for rank in range(PROCESSES)]
    try:
        printed = "\n".join(process.communicate(timeout=SECONDS)[1] for process in started)
    finally:
        for process in started:
            process.kill()
    results = {}
    for file in folder.glob("results_*.jsonl"):
        for result in map(json.loads, file.read_text().splitlines()):
            results.setdefault(tuple(result["case"]), []).append(result)
    return results, printed


@pytest.mark.slow
@pytest.mark.parametrize("with_cp", WITH_CP)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FACILITIES)
def test_equals_plain_operators_on_two_processes(name, mode, with_cp, processes):
    results, printed = processes
    of_this_case = results.get((name, mode, with_cp), [])
    assert len(of_this_case) == PROCESSES, printed
    for result in of_this_case:
        assert not result["error"], result["error"]
        assert result["lean"] == FACILITIES[name].lean


if __name__ == "__main__":
    run_cases(Path(sys.argv[1]), int(sys.argv[2]))
