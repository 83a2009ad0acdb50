"""What a training step of TResNet-M keeps, against timm's and against the release with the compiled package."""

import gc
import subprocess
import sys

import pytest
import torch
from torch import nn

from tresnet_downstream import TResNet

# MiB per picture of 224 x 224, float32: the release with inplace-abn 1.1.0.
RELEASE = 47.5


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = TResNet("m", out_indices=(3,))
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        return self.fc(self.backbone(x)[-1].mean((2, 3)))


def storages(tensors):
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def tensors_alive():
    gc.collect()
    # By exact type: isinstance would wake the lazy objects of other libraries.
    return [o for o in gc.get_objects() if type(o) in (torch.Tensor, nn.Parameter)]


@pytest.mark.slow
def test_keeps_less_than_the_release_with_the_compiled_package():
    network = Classifier().to(memory_format=torch.channels_last).train()
    x = torch.rand(2, 3, 224, 224).to(memory_format=torch.channels_last)
    before = storages(tensors_alive())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        result = network(x)
    after = storages([*kept, *tensors_alive()])
    mib = sum(size for pointer, size in after.items() if pointer not in before) / len(x) / 2**20
    assert result.requires_grad
    assert 30 < mib <= RELEASE


STEP = """
import resource, sys, torch
torch.set_num_threads(1)
if sys.argv[1] == "timm":
    import timm
    network = timm.create_model("tresnet_m")
else:
    sys.path.insert(0, sys.argv[3])
    from test_memory import Classifier
    network = Classifier()
network = network.to(memory_format=torch.channels_last).train()
x = torch.rand(int(sys.argv[2]), 3, 224, 224).to(memory_format=torch.channels_last)
network(x).square().mean().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak(network, batch_size):
    command = [sys.executable, "-c", STEP, network, str(batch_size), __file__.rpartition("/")[0]]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the peak is read from resource.getrusage")
def test_the_process_peak_bears_it_out():
    """Each further picture costs the process at least 10 MiB less than timm's TResNet-M does."""
    growth = {name: (peak(name, 5) - peak(name, 1)) / 4 / 2**20 for name in ("ours", "timm")}
    assert growth["ours"] < growth["timm"] - 10
