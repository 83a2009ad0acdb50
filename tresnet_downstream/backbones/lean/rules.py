"""Decides whether a pass and a module may run lean steps, which save less for the backward pass.

``docs/architecture.md`` has the whole rule as a table; ``execution.py`` adds the conditions on a block of TResNet. A
lean step uses the weights of a module without calling the module. It may therefore run only if the modules have exactly
the classes of this package and of torch, and nothing is attached to them. Otherwise the plain modules run.
"""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_modules
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

_WITHOUT_ACTIVATION = (nn.Identity, _NormBase, nn.GroupNorm, nn.LayerNorm)
PLAIN_TENSORS = (Tensor, nn.Parameter)

# From the attributes of a module to what they attach to it, as messages say it.
_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
_ATTACHED = _HOOKS | {"_compiled_call_impl": "a compiled form"}
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
                 "_global_backward_pre_hooks")  # fmt: skip


def reason_against_pass(x: object) -> str | None:
    """Why all blocks run their plain modules in this pass; None if lean steps are possible."""
    if (reason := reason_against_steps(x)) is not None:
        return reason
    if not torch.is_grad_enabled():
        return "no gradient is recorded"
    if any(getattr(torch_modules, name) for name in _GLOBAL_HOOKS):
        return "a hook on all modules is registered"
    return None


def reason_against_steps(x: object) -> str | None:
    """Why torch's operators must process ``x``, even for a single norm; None if lean steps are possible."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "a graph is captured"
    if type(x) not in PLAIN_TENSORS:
        return f"the input is a {type(x).__name__}"
    if torch._C._functorch.maybe_current_level() is not None:
        return "a transform of torch.func is active"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return None


def lost_activation(block: nn.Module) -> str | None:
    """Which norm of a block was replaced by a module without activation; None if none was.

    Tools that fold batch norms, such as mmcv's ``fuse_conv_bn``, replace them by ``nn.Identity``.
    """
    last = getattr(block, "last_norm", "")
    for name, part in block.named_children():
        bare = isinstance(part, _WITHOUT_ACTIVATION) and not hasattr(part, "slope")
        if name.startswith("norm") and name != last and bare:
            return f"{name} of a {type(block).__name__} was replaced by {type(part).__name__}"
    return None


def has_hooks(module: nn.Module) -> bool:
    """Whether the module or a part of it has a hook, or a hook on all modules is registered."""
    everywhere = any(getattr(torch_modules, name) for name in _GLOBAL_HOOKS)
    return everywhere or any(part.__dict__.get(name) for part in module.modules() for name in _HOOKS)


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether all are None or plain tensors of torch, of no subclass such as sharded or quantised ones."""
    return all(tensor is None or type(tensor) in PLAIN_TENSORS for tensor in tensors)


def reason_against_module(module: nn.Module, own_types: frozenset[type]) -> str | None:
    """Why lean steps may not use the module: its first part that is foreign or has something attached.

    Args:
        module: the module; all of its parts are checked.
        own_types: the classes of this package that lean steps support.
    """
    for name, part in module.named_modules():
        if (reason := _reason_against_part(part, own_types)) is not None:
            return f"{name} {reason}" if name else f"it {reason}"
    return None


def _reason_against_part(part: nn.Module, own_types: frozenset[type]) -> str | None:
    if type(part) not in own_types and type(part) is not nn.Conv2d:
        return f"is of class {type(part).__module__}.{type(part).__qualname__}"
    state = part.__dict__
    for attribute, words in _ATTACHED.items():
        if state.get(attribute):
            return f"has {words}"
    if "forward" in state:
        return "has a forward of its own"
    parameters = part._parameters
    if isinstance(part, nn.Conv2d | _BatchNorm) and parameters.keys() != {"weight", "bias"}:
        return "has a weight that is not a parameter"
    for name, parameter in parameters.items():
        if parameter is not None and type(parameter) not in PLAIN_TENSORS:
            return f"has a {type(parameter).__name__} as its {name}"
        if parameter is not None and not parameter.is_leaf:
            return f"has a {name} that is computed from other tensors"
    return None


def is_conv(conv: nn.Module, kernel: int, bias: bool = False) -> bool:
    """Whether this is a convolution with a square kernel, stride 1, one group, and the sides of its input."""
    padding = kernel // 2
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == (kernel, kernel)
        and conv.stride == (1, 1)
        and conv.padding == (padding, padding)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and (kernel == 1 or conv.padding_mode == "zeros")
        and (conv.bias is not None) == bias
    )
