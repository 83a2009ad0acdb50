"""The operators behind mmcv's Python functions, compared with compiled mmcv: values, gradients, data types."""

import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

ops = pytest.importorskip("mmcv.ops", reason="needs the detection set-up", exc_type=ImportError)
import mmcv._ext  # noqa: E402

GOLDEN = json.loads(gzip.decompress((Path(__file__).parents[1] / "golden/mmcv_ops.json.gz").read_bytes()))
SHORT = [torch.float16, torch.bfloat16]


def cases(operator):
    return [pytest.param(case, id=f"{operator}{index}") for index, case in enumerate(GOLDEN[operator])]


def tensors(case, *names, **options):
    return [torch.tensor(case[name], **options) for name in names]


def assert_close(ours, expected, tolerance=1e-4):
    torch.testing.assert_close(ours, torch.as_tensor(expected, dtype=ours.dtype), rtol=tolerance, atol=tolerance)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def boxes():
    corners = torch.rand(40, 2) * 60
    return torch.cat([corners, corners + 5 + torch.rand(40, 2) * 30], 1), torch.rand(40)


@pytest.mark.parametrize("case", cases("nms"))
def test_nms_keeps_what_compiled_mmcv_keeps(case):
    given = [case[name] for name in ("iou_threshold", "offset", "score_threshold", "max_num")]
    dets, keep = ops.nms(*tensors(case, "boxes", "scores"), *given)
    assert keep.tolist() == case["keep"]
    assert_close(dets, case["dets"])


@pytest.mark.parametrize("case", cases("soft_nms"))
def test_soft_nms_gives_compiled_mmcvs_scores_and_order(case):
    given = [case[name] for name in ("iou_threshold", "sigma", "min_score", "method", "offset")]
    dets, keep = ops.soft_nms(*tensors(case, "boxes", "scores"), *given)
    assert keep.tolist() == case["keep"]
    assert_close(dets, case["dets"])


@pytest.mark.parametrize("case", cases("nms_match"))
def test_nms_match_gives_compiled_mmcvs_groups(case):
    groups = ops.nms_match(*tensors(case, "dets"), case["iou_threshold"])
    assert [group.tolist() for group in groups] == case["groups"]


@pytest.mark.parametrize("case", cases("batched_nms"))
def test_batched_nms_keeps_what_compiled_mmcv_keeps(case):
    config = {"type": "nms", "iou_threshold": case["iou_threshold"]}
    dets, keep = ops.batched_nms(*tensors(case, "boxes", "scores", "idxs"), config)
    assert keep.tolist() == case["keep"]
    assert_close(dets, case["dets"])


@pytest.mark.parametrize("case", cases("roi_align"))
def test_roi_align_gives_compiled_mmcvs_values_and_gradients(case):
    (x,) = tensors(case, "input", requires_grad=True)
    rois, upstream = tensors(case, "rois", "grad_output")
    given = [case[name] for name in ("output_size", "spatial_scale", "sampling_ratio", "pool_mode", "aligned")]
    output = ops.roi_align(x, rois, *given)
    assert_close(output, case["output"])
    output.backward(upstream)
    assert_close(x.grad, case["grad_input"])


@pytest.mark.parametrize("case", cases("deform_conv"))
def test_deformable_convolution_gives_compiled_mmcvs_values_and_gradients(case):
    names = ["input", "offset", *(["mask"] if case["modulated"] else []), "weight"]
    names += ["bias"] if case["modulated"] else []
    operands = tensors(case, *names, requires_grad=True)
    given = [case[name] for name in ("stride", "padding", "dilation", "groups", "deform_groups")]
    function = ops.modulated_deform_conv2d if case["modulated"] else ops.deform_conv2d
    output = function(*operands, *given)
    assert_close(output, case["output"])
    output.backward(*tensors(case, "grad_output"))
    for name, operand in zip(names, operands, strict=True):
        assert_close(operand.grad, case[f"grad_{name}"])


def test_soft_nms_discards_as_a_loop_over_swapped_boxes_does(boxes):
    """With ties and many that fall below the least score at once, against mmcv's procedure step by step."""
    corners, scores = boxes
    corners, scores = corners.repeat(2, 1), (scores * 8).round().repeat(2) / 8
    for method in ("naive", "linear", "gaussian"):
        dets, keep = ops.soft_nms(corners, scores, 0.3, 0.1, 0.2, method)
        expected_dets, expected_keep = soft_nms_by_swaps(corners.tolist(), scores.tolist(), 0.3, 0.1, 0.2, method)
        assert keep.tolist() == expected_keep
        assert_close(dets, expected_dets)


def soft_nms_by_swaps(corners, scores, threshold, sigma, least, method):
    rows = [[*box, score, index] for index, (box, score) in enumerate(zip(corners, scores, strict=True))]
    count, first = len(rows), 0
    while first < count:
        best = max(range(first, count), key=lambda i: (rows[i][4], -i))
        rows[first], rows[best] = rows[best], rows[first]
        place = first + 1
        while place < count:
            a, b = rows[first], rows[place]
            width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            inter = width * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
            overlap = inter / (sum(areas) - inter)
            if method == "gaussian":
                b[4] *= np.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                b[4] *= 0 if method == "naive" else 1 - overlap
            if b[4] < least:
                rows[place] = rows[count - 1]
                count -= 1
            else:
                place += 1
        first += 1
    return [row[:5] for row in rows[:count]], [row[5] for row in rows[:count]]


def test_bbox_overlaps_are_torchvisions(boxes):
    from torchvision.ops import box_iou

    first, second = boxes[0][:25], boxes[0][25:]
    assert_close(ops.bbox_overlaps(first, second), box_iou(first, second), 1e-6)
    assert_close(ops.bbox_overlaps(first[:15], second, aligned=True), box_iou(first[:15], second).diag(), 1e-6)
    shifted = first + torch.tensor([0, 0, 1, 1])
    assert_close(ops.bbox_overlaps(first, first, offset=1), box_iou(shifted, shifted), 1e-6)
    area = (first[:, 2:] - first[:, :2]).prod(1)
    inter = box_iou(first, first) * (area[:, None] + area) / (1 + box_iou(first, first))
    assert_close(ops.bbox_overlaps(first, first, mode="iof"), inter / area[:, None], 1e-5)


def test_roi_align_of_the_maximum_has_the_gradient_of_its_values():
    rois = torch.tensor([[0, 1.2, 2.1, 14.3, 11.7], [1, -3.0, 4, 9, 25], [0, 5, 5, 5.5, 5.2]], dtype=torch.float64)
    for sampling_ratio in (0, 2):
        pool = partial(ops.roi_align, rois=rois, output_size=(3, 2), spatial_scale=0.5)
        assert gradcheck(
            lambda x, r=sampling_ratio, f=pool: f.func(x, rois, (3, 2), 0.5, r, "max", True), double(2, 2, 8, 9)
        )


def test_roi_pool_takes_the_maximum_of_each_bins_pixels():
    """Bins are rounded outwards, as in mmcv, where torchvision rounds the region instead."""
    x, rois = double(2, 3, 9, 11), torch.tensor([[1, 1.3, 2.2, 15.0, 12.9], [0, 4, 4, 4, 4], [0, 40, 40, 50, 50.0]])
    rois, bins, scale = rois.double(), (2, 3), 0.6
    output = ops.roi_pool(x, rois, bins, scale)
    for k, (picture, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i in range(2):
            for j in range(3):
                rows, columns = pixels(y1 * scale, (y2 + 1) * scale, i, 2), pixels(x1 * scale, (x2 + 1) * scale, j, 3)
                window = x[int(picture), :, rows, columns].flatten(1)
                expected = window.max(1).values if window.numel() else torch.zeros(3).double()
                assert torch.equal(output[k, :, i, j], expected)
    assert gradcheck(lambda x: ops.roi_pool(x, rois, bins, scale), x)


def pixels(start, end, index, bins):
    side = (end - start) / bins
    return slice(int(np.floor(start + index * side)), int(np.ceil(start + (index + 1) * side)))


@pytest.mark.parametrize("with_weight", [False, True])
def test_sigmoid_focal_loss_is_that_of_its_formula(with_weight):
    logits, target = double(12, 5), torch.randint(0, 6, (12,))  # 5 is the background
    weight = torch.rand(5, dtype=torch.float64) if with_weight else None
    loss = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "none")
    positive = F.one_hot(target, 6)[:, :5].double()
    p = logits.sigmoid()
    factor = torch.where(positive > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2)
    expected = F.binary_cross_entropy_with_logits(logits, positive, reduction="none") * factor
    if with_weight:
        expected = expected * torch.cat([weight, torch.ones(1).double()])[target][:, None]
    assert_close(loss, expected, 1e-12)
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, "mean"), logits)


def test_sigmoid_focal_loss_is_finite_for_large_logits():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, "sum")
    loss.backward()
    assert_close(loss.detach(), 0.75 * 200 + 0.25 * 200)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_softmax_focal_loss_is_that_of_its_formula(gamma):
    logits, target, weight = double(12, 5), torch.randint(0, 5, (12,)), torch.rand(5, dtype=torch.float64)
    loss = ops.softmax_focal_loss(logits, target, gamma, 0.25, weight, "none")
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    assert_close(loss, -0.25 * (1 - p) ** gamma * p.log() * weight[target], 1e-12)
    assert gradcheck(lambda x: ops.softmax_focal_loss(x, target, gamma, 0.25, weight, "mean"), logits)


def test_multi_scale_attention_agrees_with_mmcvs_python_form():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    shapes = torch.tensor([[6, 4], [3, 2]])
    starts = torch.tensor([0, 24])
    value, weights = double(2, 30, 3, 4), double(2, 5, 3, 2, 2).softmax(-1)
    locations = (torch.rand(2, 5, 3, 2, 2, 2, dtype=torch.float64) * 1.2 - 0.1).requires_grad_()

    def attend(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 2)

    assert_close(
        attend(value, locations, weights), multi_scale_deformable_attn_pytorch(value, shapes, locations, weights), 1e-12
    )
    assert gradcheck(attend, (value, locations, weights.detach().requires_grad_()))


def carafe_by_unfold(features, masks, kernel_size, groups, scale):
    n, c, h, w = features.shape
    windows = F.unfold(features, kernel_size, padding=kernel_size // 2).view(
        n, groups, c // groups, kernel_size**2, h, w
    )
    windows = windows.repeat_interleave(scale, 4).repeat_interleave(scale, 5)
    return (windows * masks.view(n, groups, 1, kernel_size**2, h * scale, w * scale)).sum(3).flatten(1, 2)


@pytest.mark.parametrize("form", ["carafe", "carafe_naive"])
def test_carafe_is_a_sum_over_windows(form):
    from mmcv.ops import carafe as module

    features, masks = double(2, 6, 3, 4), double(2, 2 * 9, 6, 8)
    output = getattr(ops, form)(features, masks, 3, 2, 2)
    assert_close(output, carafe_by_unfold(features, masks, 3, 2, 2), 1e-12)
    # mmcv's naive form asserts a GPU in its backward, before it calls the operator.
    if form == "carafe":
        assert gradcheck(lambda f, m: module(f, m, 3, 2, 2), (features, masks))


def test_masked_convolution_is_convolution_where_the_mask_is_set():
    conv = ops.MaskedConv2d(3, 4, 3, padding=1).eval()
    x, mask = torch.randn(1, 3, 7, 6), (torch.rand(1, 7, 6) > 0.6).float()
    assert_close(conv(x, mask), conv(x) * mask, 1e-5)
    assert torch.equal(conv(x, torch.zeros(1, 7, 6)), torch.zeros(1, 4, 7, 6))


def test_one_gradient_for_two_deformable_convolutions_gives_each_its_own():
    """The gradient by the weights waits between two calls of mmcv; what waits for another is not taken."""
    x, offset = torch.randn(1, 2, 5, 5), torch.randn(1, 18, 5, 5, requires_grad=True)
    first, second = (torch.randn(2, 2, 3, 3, requires_grad=True) for _ in range(2))
    convolve = lambda x, offset, weight: ops.deform_conv2d(x, offset, weight, 1, 1)  # noqa: E731
    upstream = torch.randn(1, 2, 5, 5)
    together = convolve(x, offset, first.detach()) + convolve(2 * x, offset.detach(), second)
    together.backward(upstream)
    (alone,) = torch.autograd.grad(convolve(2 * x, offset.detach(), second), second, upstream.clone())
    assert_close(second.grad, alone, 1e-6)


def test_deformable_convolution_has_no_gradient_by_shifts_of_samples_a_pixel_outside():
    """As compiled mmcv: with shifts of 0 and padding 1, the samples of the border are there."""
    x, weight, upstream = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3), torch.randn(2, 4, 5, 6)
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    mask = torch.rand(2, 9, 5, 6)
    for function in (
        lambda offset: ops.deform_conv2d(x, offset, weight, 1, 1),
        lambda offset: ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1),
    ):
        offset = torch.zeros(2, 18, 5, 6, requires_grad=True)
        function(offset).backward(upstream)
        near = torch.full((2, 18, 5, 6), 1e-3, requires_grad=True)  # torchvision's own where no sample is at the edge
        function(near).backward(upstream)
        gradient, inside = offset.grad.unflatten(1, (9, 2)), near.grad.unflatten(1, (9, 2))
        for tap in range(9):
            outside = (rows + tap // 3 - 1 <= -1) | (columns + tap % 3 - 1 <= -1)
            outside |= (rows + tap // 3 - 1 >= 5) | (columns + tap % 3 - 1 >= 6)
            assert not gradient[:, tap][:, :, outside].any()
            assert (gradient[:, tap] - inside[:, tap])[:, :, ~outside].abs().max() < 0.1
            assert gradient[:, tap][:, :, ~outside].any()


def test_modulated_convolution_takes_the_first_numbers_of_shifts_and_mask_of_a_larger_map():
    """As mmcv reads memory; MMDetection's DyHead gives the shifts of one level to the convolution of a smaller one."""
    x, weight = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3)
    offset, mask = torch.randn(2, 18, 10, 12, requires_grad=True), torch.rand(2, 9, 10, 12, requires_grad=True)
    cut_offset = offset.detach().flatten(1)[:, : 18 * 30].reshape(2, 18, 5, 6).requires_grad_()
    cut_mask = mask.detach().flatten(1)[:, : 9 * 30].reshape(2, 9, 5, 6).requires_grad_()
    output = ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    expected = ops.modulated_deform_conv2d(x, cut_offset, cut_mask, weight, None, 1, 1)
    assert torch.equal(output, expected)
    for result in (output, expected):
        result.square().sum().backward()
    for whole, cut in ((offset, cut_offset), (mask, cut_mask)):
        assert torch.equal(whole.grad.flatten(1)[:, : cut[0].numel()], cut.grad.flatten(1))
        assert not whole.grad.flatten(1)[:, cut[0].numel() :].any()
    with pytest.raises(RuntimeError):
        ops.modulated_deform_conv2d(x, offset[..., :3, :3], mask[..., :3, :3], weight, None, 1, 1)


def test_empty_input_gives_empty_output():
    none, no_scores = torch.zeros(0, 4), torch.zeros(0)
    for function in (ops.nms, ops.soft_nms):
        dets, keep = function(none, no_scores, 0.5)
        assert dets.shape == (0, 5)
        assert keep.shape == (0,)
        assert keep.dtype == torch.int64
    assert ops.nms_match(torch.zeros(0, 5), 0.5) == []
    assert ops.bbox_overlaps(none, torch.rand(3, 4)).shape == (0, 3)

    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    for output in (
        ops.roi_align(x, torch.zeros(0, 5), 2, 1.0, 0, "avg", True),
        ops.roi_align(x, torch.zeros(0, 5), 2, 1.0, 0, "max", True),
        ops.roi_pool(x, torch.zeros(0, 5), 2, 1.0),
    ):
        assert output.shape == (0, 3, 2, 2)
        output.sum().backward()
    assert not x.grad.any()
    for reduction, expected in (("none", (0, 4)), ("sum", ())):
        logits = torch.zeros(0, 4, requires_grad=True)
        loss = ops.sigmoid_focal_loss(logits, torch.zeros(0).long(), 2.0, 0.25, None, reduction)
        assert loss.shape == expected
        loss.sum().backward()


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_short_types_are_float32_rounded_once(dtype, boxes):
    corners, scores = boxes[0].to(dtype), boxes[1].to(dtype)
    dets, keep = ops.nms(corners, scores, 0.5)
    assert dets.dtype == dtype
    assert torch.equal(keep, ops.nms(corners.float(), scores.float(), 0.5)[1])
    assert torch.equal(ops.soft_nms(corners, scores)[1], ops.soft_nms(corners.float(), scores.float())[1])

    x = torch.randn(1, 2, 9, 9).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 1, 1, 7, 6.5]], dtype=dtype)
    weight = torch.randn(3, 2, 3, 3).to(dtype).requires_grad_()
    offset, mask = torch.randn(1, 18, 9, 9).to(dtype), torch.rand(1, 9, 9, 9).to(dtype)
    logits, target = torch.randn(4, 3).to(dtype), torch.tensor([0, 1, 2, 3])
    for function in (
        lambda x, _, to: ops.roi_align(x, to(rois), 2, 1.0, 0, "avg", True),
        lambda x, _, to: ops.roi_align(x, to(rois), 2, 1.0, 0, "max", True),
        lambda x, _, to: ops.roi_pool(x, to(rois), 2, 1.0),
        lambda x, w, to: ops.deform_conv2d(x, to(offset), w, 1, 1),
        lambda x, w, to: ops.modulated_deform_conv2d(x, to(offset), to(mask), w, None, 1, 1),
        lambda x, w, to: ops.sigmoid_focal_loss(to(logits), target, 2.0, 0.25, None, "none"),
    ):
        short = function(x, weight, lambda t: t)
        wide = function(x.detach().float(), weight.detach().float(), lambda t: t.float())
        assert short.dtype == dtype
        assert torch.equal(short, wide.to(dtype))


def test_tensors_need_not_be_contiguous(boxes):
    corners = boxes[0].t().contiguous().t()
    assert torch.equal(ops.nms(corners, boxes[1], 0.5)[1], ops.nms(boxes[0], boxes[1], 0.5)[1])
    x = torch.randn(1, 4, 8, 8)
    last = x.to(memory_format=torch.channels_last)
    rois, weight = torch.tensor([[0, 1, 1, 7, 6.5]]), torch.randn(2, 4, 3, 3)
    offset = torch.randn(1, 18, 8, 8)
    for function in (
        lambda x: ops.roi_align(x, rois, 2, 1.0, 0, "avg", True),
        lambda x: ops.roi_pool(x, rois, 2, 1.0),
        lambda x: ops.deform_conv2d(x, offset, weight, 1, 1),
    ):
        assert torch.equal(function(last), function(x))
        given = last.clone(memory_format=torch.preserve_format).requires_grad_()
        other = x.clone().requires_grad_()
        for operand in (given, other):
            function(operand).square().sum().backward()
        assert_close(given.grad, other.grad, 1e-5)


def test_errors_name_missing_operators_and_a_solution():
    with pytest.raises(NotImplementedError, match=r"mmcv\._ext\.box_iou_rotated is not among .*mmcv==2\.1\.0"):
        ops.box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))
    assert not hasattr(mmcv._ext, "__wrapped__")


def test_the_environment_report_names_the_implementation():
    from mmcv.utils.env import collect_env

    assert "mmcv-on-torchvision" in collect_env()["MMCV Compiler"]
    assert collect_env()["MMCV CUDA Compiler"] == (torch.version.cuda or "not available")
