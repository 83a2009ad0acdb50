"""The check that kernels must pass before they are used, with kernels that run torch's operators on the CPU."""

import importlib.util
import threading
import time
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tresnet_downstream.backbones import use_triton
from tresnet_downstream.backbones.downsampling import BlurPool
from tresnet_downstream.backbones.lean import acceleration, kernel_proof

CPU = torch.device("cpu")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not there: torch brings it on Linux, with CUDA"
)


class Kernels:
    """The interface of triton_kernels. Results whose description contains ``broken`` are off, or raise."""

    def __init__(self, broken=None, off=1e-3, error=None):
        self.broken, self.off, self.error, self.results = broken, off, error, []

    def fits(self, x):
        return True

    def result(self, description, exact, dtype):
        self.results.append(description)
        rounded = exact.to(dtype)
        if exact.dim() == 4:
            rounded = rounded.contiguous(memory_format=torch.channels_last)
        if self.broken is not None and self.broken in description:
            if self.error is not None:
                raise self.error
            rounded[(-1,) * exact.dim()] += self.off
        return rounded

    def line(self, x, slope, offset, negative_slope=1.0, shortcut=None):
        description = f"line {slope.dim()}d slope={negative_slope} shortcut={shortcut is not None}"
        z = spread(slope) * x.double() + spread(offset) + (0 if shortcut is None else shortcut.double())
        return self.result(description, F.leaky_relu(z, negative_slope), x.dtype)

    def line_and_blur(self, x, slope, offset, negative_slope):
        y = F.leaky_relu(spread(slope) * x.double() + spread(offset), negative_slope)
        y = self.result("line_and_blur y", y, x.dtype)
        blurred = BlurPool(x.shape[1]).double()(y.double())
        return y, self.result("line_and_blur blurred", blurred, x.dtype)

    def OutputGradient(self, *arguments):  # noqa: N802
        return Gradient(self, *arguments)


class Gradient:
    def __init__(self, kernels, grad, x, y, negative_slope=1.0, blurred=False):
        self.kernels, self.grad, self.x, self.y = kernels, grad, x, y
        self.facts = f"x={x is not None} y={y is not None} slope={negative_slope} blurred={blurred}"
        self.behind = grad.double()
        if blurred:
            with torch.enable_grad():
                source = torch.zeros_like(x if y is None else y, dtype=torch.float64, requires_grad=True)
                pooled = BlurPool(grad.shape[1]).double()(source)
            (self.behind,) = torch.autograd.grad(pooled, source, self.behind)
        if y is not None:
            self.behind = torch.where(y > 0, self.behind, negative_slope * self.behind)
        self.source = x.double() if x is not None else F.leaky_relu(y.double(), 1 / negative_slope)

    def sums(self, centre):
        return self._sums(f"sums {self.facts}", 0 if centre is None else spread(centre))

    def _sums(self, description, centre):
        product = self.behind * (self.source - centre)
        return tuple(
            self.kernels.result(f"{description} {name}", values.sum((2, 3)), torch.float32)
            for name, values in (("gradient", self.behind), ("product", product))
        )

    def through_relu(self):
        passed = self.kernels.result(f"through_relu {self.facts} passed", self.behind, self.grad.dtype)
        return Gradient(self.kernels, passed, self.x, None), *self._sums(f"through_relu {self.facts}", 0)

    def line(self, factor, bend, offset):
        exact = spread(factor) * self.behind + spread(offset) + (0 if bend is None else spread(bend) * self.source)
        description = f"grad_line {factor.dim()}d bend={bend is not None} {self.facts}"
        return self.kernels.result(description, exact, self.grad.dtype)


def spread(values):
    return values.double()[..., None, None]


def images(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(shape or (2, 3, 4, 4), dtype=dtype, device=device).to(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _one_thread():
    """Proofs run in threads of their own, where starting more for small tensors costs more than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def serve(monkeypatch):
    """Lets the CPU be served by the stand-in that is given; nothing is proven yet."""
    monkeypatch.setattr(acceleration, "DEVICES", ["cpu"])
    monkeypatch.setattr(acceleration, "_proofs", {})
    monkeypatch.setattr(acceleration._Switch, "on", True)

    def serve(kernels):
        monkeypatch.setattr(acceleration, "_module", lambda: kernels)
        return kernels

    return serve


@pytest.mark.parametrize("dtype", acceleration.TYPES)
def test_correct_kernels_are_used_without_a_warning(dtype, serve, recwarn):
    kernels = serve(Kernels())
    assert acceleration.kernels_for(images(dtype=dtype)) is kernels
    assert not recwarn


# What a network's passes ask of the kernels, by what decides which part of a kernel runs.
DESCRIPTIONS = [
    "line 1d slope=1.0 shortcut=False",
    "line 1d slope=0.25 shortcut=False",
    "line 2d slope=1.0 shortcut=False",
    "line 1d slope=0.0 shortcut=True",
    "line 2d slope=0.0 shortcut=True",
    "line_and_blur y",
    "line_and_blur blurred",
    *(
        f"{kernel} {facts}"
        for facts in (
            "x=True y=False slope=1.0 blurred=False",
            "x=False y=True slope=1.0 blurred=False",
            "x=False y=True slope=0.25 blurred=False",
            "x=True y=True slope=0.25 blurred=False",
            "x=False y=True slope=0.25 blurred=True",
            "x=True y=True slope=0.25 blurred=True",
        )
        for kernel in ("sums", "grad_line 1d bend=True")
    ),
    *(f"sums x=True y=False slope=1.0 blurred=False {name}" for name in ("gradient", "product")),
    "grad_line 2d bend=True",
    "grad_line 1d bend=False",
    *(f"through_relu x=True y=True slope=0.0 blurred=False {name}" for name in ("passed", "gradient", "product")),
    "through_relu x=True y=False slope=1.0",
]


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_every_slightly_wrong_result_is_detected(description):
    kernels = Kernels(broken=description)
    failure = kernel_proof.failure_of(kernels, CPU, torch.float32)
    name = description.split()[0].replace("grad_line", "line")
    assert name in failure
    assert "is off by 0.001, where" in failure
    assert any(description in result for result in kernels.results[-3:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_in_short_types_may_differ_only_by_rounding(dtype):
    eps = torch.finfo(dtype).eps
    assert kernel_proof.failure_of(Kernels("line 1d", off=eps / 20), CPU, dtype) is None
    assert "is off by" in kernel_proof.failure_of(Kernels("line 1d", off=20 * eps), CPU, dtype)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_detected(value):
    assert kernel_proof.failure_of(Kernels("blurred=True", off=value), CPU, torch.float32) is not None


def test_results_of_another_layout_shape_or_type_are_detected():
    for change, message in (
        (lambda y: y.contiguous(), "not channels-last"),
        (lambda y: y[:1], "expected"),
        (lambda y: y.double(), "float64"),
    ):
        kernels = Kernels()
        line = kernels.line
        kernels.line = lambda *arguments, line=line, change=change: change(line(*arguments))
        failure = kernel_proof.failure_of(kernels, CPU, torch.float32)
        assert failure.startswith("line ")
        assert message in failure


def test_a_wrong_result_gives_one_warning_and_torchs_operators_are_used(serve):
    serve(Kernels("grad_line 1d", off=0.5))
    message = r"cpu in torch.float32, torch's operators are used instead: OutputGradient.line \(input\) is off by 0.5, "
    with pytest.warns(UserWarning, match=message) as caught:
        modules = [acceleration.kernels_for(images()) for _ in range(2)]
    assert modules == [None, None]
    assert len(caught) == 1


def test_an_exception_in_a_kernel_gives_one_warning_and_torchs_operators_are_used(serve):
    serve(Kernels("sums", error=RuntimeError("no such instruction")))
    with pytest.warns(UserWarning, match=r"OutputGradient.sums.*raised RuntimeError: no such instruction") as caught:
        modules = [acceleration.kernels_for(images()) for _ in range(2)]
    assert modules == [None, None]
    assert len(caught) == 1


def test_the_check_is_not_repeated_if_warnings_are_errors(serve):
    kernels = serve(Kernels("line 1d"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="do not work"):
            acceleration.kernels_for(images())
    count = len(kernels.results)
    assert acceleration.kernels_for(images()) is None
    assert len(kernels.results) == count


def test_the_check_runs_once_per_device_and_type(serve, monkeypatch):
    kernels, calls = serve(Kernels()), []
    monkeypatch.setattr(acceleration, "DEVICES", ["cpu", "meta"])
    monkeypatch.setattr(acceleration, "failure_of", lambda *arguments: calls.append(arguments))
    for _ in range(2):
        for device in ("cpu", "meta"):
            for dtype in acceleration.TYPES:
                assert acceleration.kernels_for(images(dtype=dtype, device=device)) is kernels
    devices = [torch.device("cpu"), torch.device("meta")]
    assert calls == [(kernels, device, dtype) for device in devices for dtype in acceleration.TYPES]


def test_a_wrong_result_in_one_type_does_not_disable_the_other_types(serve, monkeypatch):
    kernels = serve(Kernels())
    monkeypatch.setattr(acceleration, "failure_of", lambda _1, _2, dtype: "x" if dtype == torch.float16 else None)
    with pytest.warns(UserWarning, match=r"torch\.float16"):
        assert acceleration.kernels_for(images(dtype=torch.float16)) is None
    assert acceleration.kernels_for(images()) is kernels


def test_threads_share_one_check(serve, monkeypatch):
    kernels, calls, results = serve(Kernels()), [], []

    def slow_proof(*arguments):
        calls.append(arguments)
        time.sleep(0.1)

    monkeypatch.setattr(acceleration, "failure_of", slow_proof)
    threads = [threading.Thread(target=lambda: results.append(acceleration.kernels_for(images()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [kernels] * 4
    assert len(calls) == 1


def test_during_graph_capture_torchs_operators_are_used_without_a_warning(serve, monkeypatch, recwarn):
    kernels = serve(Kernels())
    monkeypatch.setattr(acceleration, "_is_capturing", lambda device: True)
    assert acceleration.kernels_for(images()) is None
    assert not kernels.results
    monkeypatch.setattr(acceleration, "_is_capturing", lambda device: False)
    assert acceleration.kernels_for(images()) is kernels
    monkeypatch.setattr(acceleration, "_is_capturing", lambda device: True)
    assert acceleration.kernels_for(images()) is kernels
    assert not recwarn


def test_the_check_neither_depends_on_nor_changes_the_callers_state(serve):
    kernels, states = serve(Kernels()), []
    result = kernels.result

    def watched(*arguments):
        states.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), torch.get_default_device()))
        return result(*arguments)

    kernels.result = watched
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad(), torch.device("meta"):
        assert acceleration.kernels_for(images(device="cpu")) is kernels
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert set(states) == {(False, False, CPU)}


def test_a_check_takes_less_than_a_second():
    kernel_proof.failure_of(Kernels(), CPU, torch.bfloat16)
    start = time.process_time()
    kernel_proof.failure_of(Kernels(), CPU, torch.bfloat16)
    assert time.process_time() - start < 1


def test_kernels_that_are_turned_off_are_not_checked(serve):
    kernels = serve(Kernels())
    before = use_triton(False)
    try:
        assert acceleration.kernels_for(images()) is None
    finally:
        use_triton(before)
    assert not kernels.results


class Tagged(torch.Tensor):
    pass


def test_subclasses_of_tensors_take_torchs_operators(serve):
    kernels = serve(Kernels())
    assert acceleration.kernels_for(images().as_subclass(Tagged)) is None
    assert acceleration.kernels_for(images(), images().as_subclass(Tagged)) is None
    assert not kernels.results
    assert acceleration.kernels_for(torch.nn.Parameter(images())) is kernels


def test_fake_tensors_take_torchs_operators(serve):
    from torch._subclasses import FakeTensorMode

    kernels = serve(Kernels())
    with FakeTensorMode() as mode:
        fake = images()
        assert acceleration.kernels_for(fake) is None
    assert acceleration.kernels_for(fake) is None
    with mode:
        assert acceleration.kernels_for(torch.nn.Parameter(fake)) is None
    assert not kernels.results


def test_transforms_and_dispatch_modes_take_torchs_operators(serve):
    from torch.fx.experimental.proxy_tensor import make_fx

    kernels, results = serve(Kernels()), []

    def ask(x):
        results.append(acceleration.kernels_for(x))
        return x.sum()

    x = images()
    torch.func.vmap(ask)(x[None])
    torch.func.grad(ask)(x)
    torch.func.jvp(ask, (x,), (x,))
    # The feature map is no part of the transform; the norm's tables may be.
    torch.func.grad(lambda scale: ask(x) * scale)(torch.ones(()))
    make_fx(ask)(x)
    with FlopCounterMode(display=False):
        ask(x)
    assert results == [None] * 6
    assert acceleration.kernels_for(x) is kernels


def test_feature_maps_that_differ_take_torchs_operators(serve, monkeypatch):
    serve(Kernels())
    monkeypatch.setattr(acceleration, "DEVICES", ["cpu", "meta"])
    x = images()
    for other in (images(1, 3, 4, 4), images(dtype=torch.bfloat16), images(device="meta")):
        assert acceleration.kernels_for(x, other) is None
        assert acceleration.kernels_for(other, x) is None


@needs_triton
@pytest.mark.parametrize(
    ("shape", "serves"),
    [
        ((65535, 1, 1, 1), True),
        ((65536, 1, 1, 1), False),
        # 65,535 tiles of 32 pixels are 2,097,120.
        ((1, 1, 32, 65535), True),
        ((1, 1, 2097121, 1), False),
        ((1, 1024, 1448, 1448), True),
        ((1, 1025, 1448, 1448), False),
        ((2048, 1024, 32, 31), True),
        ((2048, 1024, 32, 32), False),
    ],
)
def test_feature_maps_too_large_for_grids_or_offsets_take_torchs_operators(shape, serves, monkeypatch):
    from tresnet_downstream.backbones.lean import triton_kernels

    monkeypatch.setattr(acceleration, "DEVICES", ["meta"])
    monkeypatch.setattr(acceleration, "_proofs", {(torch.device("meta"), torch.bfloat16): True})
    monkeypatch.setattr(acceleration._Switch, "on", True)
    x = torch.empty(shape, dtype=torch.bfloat16, device="meta", memory_format=torch.channels_last)
    assert acceleration.kernels_for(x) is (triton_kernels if serves else None)
    # No launch of what serves goes beyond the limits, whatever the tile.
    for tile in (triton_kernels._PIXELS, triton_kernels._PIXELS_AT_BLUR):
        grid = triton_kernels._launch(x, tile)[1]
        assert not serves or max(grid[1:]) <= 65535
