"""TResNet with the tools that its users combine it with: a table of facilities, each compared with plain operators.

Every facility is used in training and in evaluation mode, without recomputation, with ``with_cp=True`` and with
``with_cp=2``, on the network as it is built and on the same network with ``norm='batchnorm'``, which runs its plain
modules. Results (outputs, gradients, buffers, whatever the facility returns) must agree to 1e-10 of each tensor's
largest value, in float64. The table also says how many of the six blocks must take their lean form: falling back
everywhere would be right, and would lose the memory.

A new facility is one function with ``@facility(lean=...)``.
"""

import copy
import sys
import warnings
from pathlib import Path

import pytest
import torch
from backbones.conformance import BLOCKS, Counted, assert_same_results, build, images, loss_of, numbers, step
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint
from torchvision import tv_tensors
from torchvision.models.feature_extraction import create_feature_extractor

from tresnet_downstream.backbones.lean import rules
from tresnet_downstream.backbones.tresnet import Bottleneck

FACILITIES = {}


def facility(lean=BLOCKS, modes=("train", "eval")):
    """Adds ``(network, images) -> dict of tensors`` to the table; so many blocks must be lean in its passes."""

    def add(function):
        FACILITIES[function.__name__] = (function, lean, modes)
        return function

    return add


@facility()
def nothing(network, x):
    return step(network, x)


@facility()
def mode_switched_before_the_backward_pass(network, x):
    features = network(x)
    network.train(not network.training)
    loss_of(features).backward()
    return numbers(network, features)


@facility()
def gradient_of_the_images(network, x):
    x = x.clone().requires_grad_()
    return step(network, x) | {"images": x.grad}


@facility()
def two_losses_of_one_graph(network, x):
    features = network(x)
    first = torch.autograd.grad(loss_of(features[:2]), network.parameters(), retain_graph=True, allow_unused=True)
    second = torch.autograd.grad(loss_of(features), network.parameters())
    return {f"first {i}": g for i, g in enumerate(first)} | {f"second {i}": g for i, g in enumerate(second)}


@facility(lean=2 * BLOCKS)
def accumulated_gradients(network, x):
    step(network, x)
    return step(network, x + 0.1)


@facility(lean=2 * BLOCKS)
def both_images_of_a_pair_before_the_backward_pass(network, x):
    (loss_of(network(x)) + loss_of(network(x.flip(0) + 0.2))).backward()
    return numbers(network)


@facility()
def some_stages_only(network, x):
    features = network(x)
    loss_of(features[1:2]).backward()
    return numbers(network, features)


@pytest.fixture(autouse=True)
def _packages_beside(monkeypatch):
    """Packages of packages.txt, which ``make test`` installs beside the environment."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(sys.prefix) / "beside")])


# ------------------------------------------------------------------------------------------- adapters and weights


def lora(network, targets):
    pytest.importorskip("peft")
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, lora_dropout=0.0)
    return inject_adapter_in_model(config, network).double()


@facility(lean=BLOCKS - 1)
def lora_on_conv1(network, x):
    return step(lora(network, ["layer3.0.conv1"]), x)


@facility(lean=BLOCKS - 1)
def lora_on_conv3(network, x):
    return step(lora(network, ["layer3.1.conv3"]), x)


@facility()
def lora_on_the_stem(network, x):
    return step(lora(network, ["stem.conv"]), x)


@facility(lean=BLOCKS - 1)
def lora_on_a_shortcut(network, x):
    return step(lora(network, ["layer2.0.downsample.conv"]), x)


@facility(lean=BLOCKS - 3)
def lora_on_every_pointwise_convolution(network, x):
    return step(lora(network, r"layer[34]\.\d\.conv[13]"), x)


@facility(lean=BLOCKS - 1)
def quantisation_aware_convolution(network, x):
    from torch.ao.nn import qat
    from torch.ao.quantization import get_default_qat_qconfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = network.layer3[1]
        block.conv3.qconfig = get_default_qat_qconfig("x86")
        # torch's observers are of float32.
        network.float()
        block.conv3 = qat.Conv2d.from_float(block.conv3)
    return step(network, x.float())


@facility(lean=BLOCKS - 1)
def pruned_weight(network, x):
    prune.l1_unstructured(network.layer3[1].conv3, "weight", amount=0.5)
    return step(network, x)


@facility(lean=BLOCKS)
def pruning_made_permanent(network, x):
    prune.remove(prune.l1_unstructured(network.layer3[1].conv3, "weight", amount=0.5), "weight")
    return step(network, x)


@facility(lean=BLOCKS - 1)
def pruned_norm(network, x):
    prune.random_unstructured(network.layer3[1].norm1, "bias", amount=1)
    return step(network, x)


@facility(lean=BLOCKS - 1)
def weight_norm_of_old(network, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(network.layer3[1].conv3)
    return step(network, x)


@facility(lean=BLOCKS - 1)
def weight_norm(network, x):
    parametrizations.weight_norm(network.layer3[1].conv3)
    return step(network, x)


@facility(lean=2 * (BLOCKS - 1))
def spectral_norm_of_old_for_two_steps(network, x):
    torch.manual_seed(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.spectral_norm(network.layer3[1].conv3)
    step(network, x)
    return step(network, x)


@facility(lean=2 * (BLOCKS - 1))
def spectral_norm_for_two_steps(network, x):
    torch.manual_seed(4)
    parametrizations.spectral_norm(network.layer3[1].conv3)
    step(network, x)
    return step(network, x)


# --------------------------------------------------------------------------------------------------------- hooks


def recording(record, key):
    return lambda module, args, output: record.__setitem__(key, output.detach().clone())


@facility(lean=0)
def forward_hooks_on_every_layer(network, x):
    record = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(recording(record, name))
    result = step(network, x)
    assert len(record) == sum(not list(module.children()) for module in network.modules())
    return result | record


@facility(lean=BLOCKS - 2)
def forward_hooks_on_blocks(network, x):
    record = {}
    network.layer3[0].register_forward_hook(recording(record, "layer3.0"))
    network.layer4[0].register_forward_hook(recording(record, "layer4.0"))
    return step(network, x) | record


@facility()
def forward_hooks_on_stages(network, x):
    record = {}
    network.layer3.register_forward_hook(recording(record, "layer3"))
    return step(network, x) | record


@facility(lean=BLOCKS - 1)
def hook_that_changes_an_output(network, x):
    network.layer3[1].norm3.register_forward_hook(lambda module, args, output: 2 * output)
    return step(network, x)


@facility(lean=BLOCKS - 1)
def pre_hook_that_changes_an_input(network, x):
    network.layer1[1].se.fc1.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return step(network, x)


@facility(lean=BLOCKS - 2)
def backward_hooks(network, x):
    record = {}

    def record_gradient(module, grad_input, grad_output):
        record[type(module).__name__] = grad_output[0].clone()

    network.layer3[1].conv3.register_full_backward_hook(record_gradient)
    network.layer1[0].norm2.register_full_backward_hook(record_gradient)
    return step(network, x) | record


@facility(lean=0)
def hook_on_all_modules(network, x):
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    try:
        result = step(network, x)
    finally:
        handle.remove()
    assert len(calls) >= len(list(network.modules()))
    return result


@facility()
def tensor_hooks_on_parameters(network, x):
    calls = []
    for parameter in network.parameters():
        parameter.register_hook(lambda grad: calls.append(1) or 2 * grad)
    result = step(network, x)
    assert len(calls) == len(list(network.parameters()))
    return result


@facility(lean=BLOCKS - 1, modes=("eval",))
def grad_cam_on_conv3(network, x):
    return grad_cam(network, x, network.layer3[1].conv3)


@facility(lean=BLOCKS - 1, modes=("eval",))
def grad_cam_on_a_norm(network, x):
    return grad_cam(network, x, network.layer3[1].norm2)


@facility(lean=BLOCKS - 1, modes=("eval",))
def grad_cam_on_the_last_block(network, x):
    return grad_cam(network, x, network.layer4[-1])


@facility(lean=BLOCKS, modes=("eval",))
def grad_cam_on_the_last_stage(network, x):
    return grad_cam(network, x, network.layer4)


def grad_cam(network, x, layer):
    pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)[-1].mean((2, 3))

    with GradCAM(model=Pooled(), target_layers=[layer]) as cam:
        heat = cam(input_tensor=x, targets=[ClassifierOutputTarget(3)] * len(x))
        watched = cam.activations_and_grads
        result = {"activations": watched.activations[0], "gradients": watched.gradients[0]}
    assert heat.shape == (len(x), *x.shape[2:])
    return result


# ---------------------------------------------------------------------------------------------- other machinery


@facility()
def functional_call_with_other_parameters(network, x):
    generator = torch.Generator().manual_seed(5)
    others = {
        name: (p * (1 + 0.1 * torch.rand(p.shape, generator=generator, dtype=p.dtype))).detach().requires_grad_()
        for name, p in network.named_parameters()
    }
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    features = torch.func.functional_call(network, (others, buffers), (x,))
    loss_of(features).backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    result = {f"feature {i}": f.detach() for i, f in enumerate(features)} | buffers
    return result | {f"gradient of {name}": other.grad for name, other in others.items()}


@facility(lean=0)
def functional_call_with_computed_parameters(network, x):
    rate = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    others = {name: p * rate for name, p in network.named_parameters()}
    loss_of(torch.func.functional_call(network, others, (x,))).backward()
    return numbers(network) | {"rate": rate.grad}


@facility(lean=0, modes=("eval",))  # torch.func refuses running statistics that move, of torch's batch norm too
def gradients_by_torch_func(network, x):
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    return torch.func.grad(lambda p: loss_of(torch.func.functional_call(network, p, (x,))))(parameters)


@facility(lean=0, modes=("eval",))
def forward_mode_derivatives(network, x):
    _, tangent = torch.func.jvp(lambda images: network(images)[-1], (x,), (x.flip(0),))
    return {"tangent": tangent.detach()}


@facility(lean=0)
def compiled_step(network, x):
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = compiled(x)
        loss_of(features).backward()
    return numbers(network, features)


@facility(lean=0)
def symbolic_trace(network, x):
    return step(torch.fx.symbolic_trace(network), x)


@facility(lean=0)
def torchvisions_feature_extractor(network, x):
    nodes = {"layer2": "middle", "layer4.0.norm3": "end"}
    extractor = create_feature_extractor(network, nodes).train(network.training)
    features = extractor(x)
    loss_of(features).backward()
    result = {f"{name} gradient": p.grad for name, p in extractor.named_parameters()}
    return result | {f"{name} feature": f.detach() for name, f in features.items()}


@facility(lean=2 * BLOCKS)
def checkpointed_by_the_user(network, x):
    features = checkpoint(network, x.requires_grad_(), use_reentrant=False)
    loss_of(features).backward()
    return {f"gradient {i}": p.grad for i, p in enumerate(network.parameters())}


@facility()
def average_of_weights(network, x):
    average = AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.update_parameters(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    average.update_parameters(network)
    return step(average, x)


@facility()
def deep_copy(network, x):
    return step(copy.deepcopy(network), x)


@facility()
def offloading_by_saved_tensor_hooks(network, x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), torch.from_numpy):
        features = network(x)
    loss_of(features).backward()
    return numbers(network, features)


@facility(lean=2 * BLOCKS, modes=("train",))
def update_of_batch_norms(network, x):
    update_bn([x, x + 0.5, (x * 2, "label")], network)
    assert all(norm.momentum == pytest.approx(0.1) for norm in network.norms())
    result = {f"updated {name}": buffer.clone() for name, buffer in network.named_buffers()}
    step(network, x)
    return result | step(network, x)


@facility(modes=("train",))
def momentum_of_none(network, x):
    for norm in network.norms():
        norm.momentum = None
        norm.reset_running_stats()
    return step(network, x)


@facility(lean=0, modes=("train",))
def statistics_taken_away_by_functorch(network, x):
    torch.func.replace_all_batch_norm_modules_(network)
    return step(network, x)


@facility()
def images_of_a_subclass(network, x):
    return step(network, tv_tensors.Image(x))


@facility()
def backward_pass_in_another_thread(network, x):
    import threading

    features = network(x)
    thread = threading.Thread(target=lambda: loss_of(features).backward())
    thread.start()
    thread.join()
    return numbers(network, features)


# ------------------------------------------------------------------------------------- parts that a user replaced


@facility(lean=BLOCKS - 1)
def forward_of_a_layer_replaced(network, x):
    layer = network.layer3[1].conv3
    forward = layer.forward
    layer.forward = lambda x: forward(x) + 1
    return step(network, x)


@facility(lean=BLOCKS - 1)
def conv3_with_groups(network, x):
    torch.manual_seed(6)
    network.layer3[1].conv3 = nn.Conv2d(64, 256, 1, groups=4, bias=False).double()
    return step(network, x)


@facility(lean=BLOCKS - 1)
def conv3_with_bias(network, x):
    torch.manual_seed(6)
    network.layer3[1].conv3 = nn.Conv2d(64, 256, 1).double()
    return step(network, x)


@facility(lean=BLOCKS)
def dilated_conv2(network, x):
    conv = network.layer4[0].conv2
    conv.dilation, conv.padding = (2, 2), (2, 2)
    return step(network, x)


@facility(lean=BLOCKS - 1)
def another_activation_in_a_norm(network, x):
    network.layer3[1].norm3.slope = 0.5
    return step(network, x)


@facility(lean=BLOCKS)
def squeeze_excite_removed(network, x):
    network.layer1[0].se = network.layer3[0].se = None
    return step(network, x)


@facility(lean=BLOCKS - 1)
def squeeze_excite_of_ones_own(network, x):
    class Halved(nn.Module):
        def forward(self, x):
            return x.mean((2, 3), keepdim=True).sigmoid() / 2

    network.layer1[0].se = Halved()
    return step(network, x)


@facility(lean=BLOCKS - 1)
def block_of_ones_own(network, x):
    class Doubled(Bottleneck):
        def forward(self, x):
            return 2 * super().forward(x)

    network.layer3[1].__class__ = Doubled
    return step(network, x)


@facility(lean=BLOCKS)
def some_parameters_frozen(network, x):
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("conv" not in name)
    return step(network, x)


# --------------------------------------------------------------------------------------------------------- table


@pytest.mark.parametrize("with_cp", [False, True, 2])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "compiled_step")) for name in FACILITIES]
)
def test_equals_plain_operators(name, mode, with_cp, monkeypatch):
    use, lean, modes = FACILITIES[name]
    if mode not in modes:
        pytest.skip(f"{name} is for {modes[0]} mode")
    counted = Counted(monkeypatch)
    ours = use(build(with_cp=with_cp, mode=mode), images())
    assert counted.blocks == lean
    theirs = use(build("batchnorm", mode=mode), images())
    assert counted.blocks == lean
    assert_same_results(ours, theirs)


def test_the_reasons_of_plain_blocks_are_reported():
    network = build()
    assert network.plain_blocks() == {}
    network.layer1[0].conv1.register_forward_hook(lambda *_: None)
    prune.l1_unstructured(network.layer3[1].conv3, "weight", amount=0.5)
    lora(network, ["layer3.0.conv1", "stem.conv"])
    reasons = network.plain_blocks()
    assert reasons["layer1.0"] == "conv1 has a forward hook"
    assert reasons["layer3.1"] == "conv3 has a forward pre-hook"
    assert reasons["stem"] == "conv is of class peft.tuners.lora.layer.Conv2d"
    assert set(reasons) == {"stem", "layer1.0", "layer3.0", "layer3.1"}
    assert set(build("batchnorm").plain_blocks().values()) == {"norm='batchnorm'"}


@pytest.mark.parametrize("with_cp", [False, True, 2])
def test_a_backward_pass_within_autocast_is_that_outside(with_cp):
    results = []
    for within in (True, False):
        network = build(with_cp=with_cp).float()
        features = network(images().float())
        loss = loss_of(features)
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            loss.backward()
        results.append([p.grad for p in network.parameters()])
    for inside, outside in zip(*results, strict=True):
        assert torch.equal(inside, outside)


@pytest.mark.parametrize("keys", ["nothing", "a head alone", "adapters alone", "half"])
@pytest.mark.filterwarnings("ignore:none of the weights has a name of TResNet")
def test_parts_of_a_state_dict_load_without_strict(keys):
    model = nn.Sequential()
    model.backbone, model.head = build(), nn.Linear(4, 2)
    before = copy.deepcopy(model.state_dict())
    part = {
        "nothing": {},
        "a head alone": {"head.weight": torch.ones(2, 4)},
        "adapters alone": {"backbone.layer3.0.conv1.lora_A.weight": torch.ones(1)},
        "half": {name: value + 1 for name, value in before.items() if "layer1" in name},
    }[keys]
    done = model.load_state_dict(part, strict=False)
    # torch's batch norm counts from 0 where an older file has no count.
    assert {n for n in before.keys() - part.keys() if "num_batches" not in n} == set(done.missing_keys)
    assert set(done.unexpected_keys) == part.keys() - before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, part.get(name, before[name])), name
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(part)


def test_no_step_reads_a_number_back_from_a_gpu(monkeypatch):
    """A pass that reads numbers from the device cannot be captured as a CUDA graph; simulated on the CPU."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from tresnet_downstream.backbones.lean import invertibility

    class Watch(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.read = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                self.read.append(function)
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr(invertibility, "READ_AT_ONCE", [])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    network = build()
    with Watch() as watch:
        step(network, images())
    assert not watch.read


def test_rules_need_torchs_own_switches():
    """The rule reads some private attributes of torch: if one goes, this fails before a user's result is wrong."""
    assert torch._C._functorch.maybe_current_level() is None
    assert torch.autograd.forward_ad._current_level == -1
    module = nn.Conv2d(1, 1, 1)
    assert all(hasattr(module, name) for name in rules._ATTACHED)
    assert all(hasattr(nn.modules.module, name) for name in rules._GLOBAL_HOOKS)
