"""The programs of ``triton_kernels``. A program processes one tile: some pixels and channels of one image.

``PIXELS`` and ``COLUMNS`` are the size of the tile. If a pointer is None, the term that would read it is omitted.
"""

import triton
import triton.language as tl


@triton.jit
def line_kernel(
    x_ptr, slope_ptr, offset_ptr, shortcut_ptr, y_ptr, area, channels: tl.constexpr, stride,
    NEGATIVE_SLOPE: tl.constexpr, PIXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``leaky(slope * x + offset + shortcut)`` of one tile."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    image = tl.program_id(2).to(tl.int64)
    inside = (pixel[:, None] < area) & (column[None, :] < channels)
    # Only the offset of an image needs 64 bits.
    start = image * area * channels
    place = pixel[:, None] * channels + column[None, :]
    slope_ptr += image * stride
    offset_ptr += image * stride
    z = _line(x_ptr + start, slope_ptr, offset_ptr, place, inside, column, channels)
    if shortcut_ptr is not None:
        z += tl.load(shortcut_ptr + start + place, mask=inside, other=0.0).to(tl.float32)
    z = _leaky(z, z, NEGATIVE_SLOPE)
    tl.store(y_ptr + start + place, z.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def line_and_blur_kernel(
    x_ptr, slope_ptr, offset_ptr, y_ptr, blurred_ptr, height, width, channels: tl.constexpr,
    NEGATIVE_SLOPE: tl.constexpr, PIXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``y = leaky(slope * x + offset)`` and its blur for a tile of blurred pixels; each stores four of ``y``."""
    half_width = (width + 1) // 2
    blurred_area = ((height + 1) // 2) * half_width
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    image = tl.program_id(2).to(tl.int64)
    inside = (pixel[:, None] < blurred_area) & (column[None, :] < channels)
    start = image * height * width * channels
    blurred = tl.zeros([PIXELS, COLUMNS], tl.float32)
    for down in tl.static_range(3):
        for right in tl.static_range(3):
            row = 2 * (pixel // half_width) - 1 + down
            across = 2 * (pixel % half_width) - 1 + right
            read = _reflected(row, height) * width + _reflected(across, width)
            place = read[:, None] * channels + column[None, :]
            z = _line(x_ptr + start, slope_ptr, offset_ptr, place, inside, column, channels)
            # Rounded as it is stored, so that the blur is that of the stored output.
            y = _leaky(z, z, NEGATIVE_SLOPE).to(y_ptr.dtype.element_ty)
            if down > 0 and right > 0:
                # Each pixel is stored by one program. Pixels of the padding and of neighbouring tiles are only read.
                owned = (row < height) & (across < width)
                tl.store(y_ptr + start + place, y, mask=inside & owned[:, None])
            weight = (0.5 if down == 1 else 0.25) * (0.5 if right == 1 else 0.25)
            blurred += weight * y.to(tl.float32)
    blurred_ptr += image * blurred_area * channels
    place = pixel[:, None] * channels + column[None, :]
    tl.store(blurred_ptr + place, blurred.to(blurred_ptr.dtype.element_ty), mask=inside)


@triton.jit
def sums_kernel(
    grad_ptr, x_ptr, y_ptr, centre_ptr, passed_ptr, partial_ptr, area, channels: tl.constexpr, width,
    NEGATIVE_SLOPE: tl.constexpr, BLURRED: tl.constexpr,
    SPAN: tl.constexpr, PIXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums over ``SPAN`` pixels of one image of the gradient before the activation and its product with the source."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    image = tl.program_id(2).to(tl.int64)
    total_grad = tl.zeros([PIXELS, COLUMNS], tl.float32)
    total_product = tl.zeros([PIXELS, COLUMNS], tl.float32)
    centre = tl.zeros([COLUMNS], tl.float32)
    if centre_ptr is not None:
        centre = tl.load(centre_ptr + column, mask=column < channels, other=0.0)
    first = tl.program_id(1) * SPAN
    for start in range(0, SPAN, PIXELS):
        pixel = first + start + tl.arange(0, PIXELS)
        inside = (pixel[:, None] < area) & (column[None, :] < channels)
        grad, source = _grad_and_source(
            grad_ptr, x_ptr, y_ptr, image, pixel, column, inside, area, channels, width, NEGATIVE_SLOPE, BLURRED
        )
        if passed_ptr is not None:
            place = pixel[:, None] * channels + column[None, :]
            tl.store(passed_ptr + image * area * channels + place, grad.to(passed_ptr.dtype.element_ty), mask=inside)
        # Outside of the image, the gradient is 0.
        total_grad += grad
        total_product += grad * (source - centre[None, :])
    row = (image * tl.num_programs(1) + tl.program_id(1)) * 2 * channels
    tl.store(partial_ptr + row + column, tl.sum(total_grad, 0), mask=column < channels)
    tl.store(partial_ptr + row + channels + column, tl.sum(total_product, 0), mask=column < channels)


@triton.jit
def grad_line_kernel(
    grad_ptr, x_ptr, y_ptr, factor_ptr, bend_ptr, offset_ptr, grad_x_ptr, area, channels: tl.constexpr, stride, width,
    NEGATIVE_SLOPE: tl.constexpr, BLURRED: tl.constexpr, PIXELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``factor * gradient + bend * source + offset`` of one tile."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    image = tl.program_id(2).to(tl.int64)
    known = column < channels
    inside = (pixel[:, None] < area) & known[None, :]
    grad, source = _grad_and_source(
        grad_ptr, x_ptr, y_ptr, image, pixel, column, inside, area, channels, width, NEGATIVE_SLOPE, BLURRED
    )
    factor = tl.load(factor_ptr + image * stride + column, mask=known, other=0.0)
    offset = tl.load(offset_ptr + image * stride + column, mask=known, other=0.0)
    grad_x = factor[None, :] * grad + offset[None, :]
    if bend_ptr is not None:
        grad_x += tl.load(bend_ptr + column, mask=known, other=0.0)[None, :] * source
    place = pixel[:, None] * channels + column[None, :]
    tl.store(grad_x_ptr + image * area * channels + place, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _line(x_ptr, slope_ptr, offset_ptr, place, inside, column, channels: tl.constexpr):
    """``slope * x + offset`` of a tile."""
    slope = tl.load(slope_ptr + column, mask=column < channels, other=0.0)
    offset = tl.load(offset_ptr + column, mask=column < channels, other=0.0)
    return slope[None, :] * tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32) + offset[None, :]


@triton.jit
def _leaky(value, sign, SLOPE: tl.constexpr):
    """``value``, multiplied by the slope where ``sign`` is not positive. NaN stays NaN."""
    if SLOPE == 1:
        return value
    elif SLOPE == 0:
        return tl.where(sign <= 0, 0.0, value)
    else:
        return tl.where(sign <= 0, value * SLOPE, value)


@triton.jit
def _grad_and_source(
    grad_ptr, x_ptr, y_ptr, image, pixel, column, inside, area, channels: tl.constexpr, width,
    NEGATIVE_SLOPE: tl.constexpr, BLURRED: tl.constexpr,
):  # fmt: skip
    """A tile of the gradient before the activation (0 outside), and of the norm's input or its inverted output."""
    start = image * area * channels
    place = pixel[:, None] * channels + column[None, :]
    if BLURRED:
        grad = _unblurred(grad_ptr, image, pixel, column, inside, area // width, width, channels)
    else:
        grad = tl.load(grad_ptr + start + place, mask=inside, other=0.0).to(tl.float32)
    source = grad
    if y_ptr is not None:
        y = tl.load(y_ptr + start + place, mask=inside, other=0.0).to(tl.float32)
        grad = _leaky(grad, y, NEGATIVE_SLOPE)
        if x_ptr is None:
            source = _leaky(y, y, 1 / NEGATIVE_SLOPE)
    if x_ptr is not None:
        source = tl.load(x_ptr + start + place, mask=inside, other=0.0).to(tl.float32)
    return grad, source


@triton.jit
def _unblurred(grad_ptr, image, pixel, column, inside, height, width, channels: tl.constexpr):
    """The transposed blur: sums the gradients of the blurred pixels, at most 2 x 2, that depend on each pixel."""
    half_height = (height + 1) // 2
    half_width = (width + 1) // 2
    grad_ptr += image * half_height * half_width * channels
    grad = tl.zeros([pixel.shape[0], column.shape[0]], tl.float32)
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            row = pixel // width // 2 + down
            across = pixel % width // 2 + right
            weight = _weight(pixel // width, height, down) * _weight(pixel % width, width, right)
            read = row * half_width + across
            mask = inside & (weight > 0)[:, None]
            tile = tl.load(grad_ptr + read[:, None] * channels + column[None, :], mask=mask, other=0.0)
            grad += weight[:, None] * tile.to(tl.float32)
    return grad


@triton.jit
def _weight(place, size, SECOND: tl.constexpr):
    """Weight of the first or second blurred pixel along one side, with reflection to 1 and to ``size - 2``."""
    odd = place % 2 == 1
    if SECOND:
        there = odd & (place // 2 + 1 < (size + 1) // 2)
        return tl.where(there, tl.where(place == size - 2, 0.5, 0.25), 0.0)
    else:
        return tl.where(odd & (place != 1), 0.25, 0.5)


@triton.jit
def _reflected(place, size):
    """-1 becomes 1, and ``size`` becomes ``size - 2``."""
    place = tl.abs(place)
    return tl.where(place < size, place, 2 * size - 2 - place)
