"""Files that the fast JPEG decoder accepts, and files that are left to Pillow."""

import contextlib
import io
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from tresnet_downstream.images import BadImageError, read_image
from tresnet_downstream.jpeg import decode_jpeg


def photograph(width=160, height=120):
    """Noise, gradients, edges and letters."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    gradients = np.stack([255 * y / height, 255 * x / width, 255 * (x + y) / (width + height)], axis=2)
    picture = Image.fromarray((gradients * 0.8 + draw.integers(0, 50, (height, width, 3))).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((width // 4, height // 4, width // 2, height // 2), fill=(250, 30, 40))
    pen.text((width // 3, height // 2), "Letters 123", fill=(255, 255, 255))
    return picture


def encoded(picture, **options):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


def with_pillow(content):
    with Image.open(io.BytesIO(content)) as picture:
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_pixels_are_those_of_pillow(mode, progressive, subsampling):
    options = {} if mode == "L" else {"subsampling": subsampling}
    content = encoded(photograph(163, 121).convert(mode), progressive=progressive, **options)
    difference = decode_jpeg(content).astype(int) - with_pillow(content)
    # Pillow and OpenCV each bring a libjpeg; of one release they agree to the bit.
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_at_full_and_at_reduced_size(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photograph(), exif=exif, quality=95)
    expected = with_pillow(content)
    assert np.abs(decode_jpeg(content).astype(int) - expected).max() <= 1
    half = decode_jpeg(content, (expected.shape[0] // 2, expected.shape[1] // 2))
    assert half.shape == (expected.shape[0] // 2, expected.shape[1] // 2, 3)
    small = np.asarray(Image.fromarray(expected).resize(half.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(half.astype(int) - small).mean() < 4


@pytest.mark.parametrize(
    ("at_least", "shape"),
    [
        (None, (120, 160)),
        ((61, 80), (120, 160)),
        ((60, 81), (120, 160)),
        ((60, 80), (60, 80)),
        ((31, 30), (60, 80)),
        ((30, 30), (30, 40)),
        ((15, 20), (15, 20)),
        ((1, 1), (15, 20)),
        ((500, 500), (120, 160)),
    ],
)
def test_reduced_size_never_falls_below_what_is_enough(at_least, shape):
    assert decode_jpeg(encoded(photograph()), at_least).shape[:2] == shape


def test_what_is_not_ordinary_is_left_to_pillow(tmp_path):
    content = encoded(photograph())
    assert decode_jpeg(encoded(photograph().convert("CMYK"))) is None
    assert decode_jpeg(b"") is None
    assert decode_jpeg(b"\x89PNG" + content) is None
    assert decode_jpeg(content + b"\0\0") is None
    (tmp_path / "padded.jpg").write_bytes(content + b"\0\0")
    assert np.array_equal(read_image(tmp_path / "padded.jpg"), with_pillow(content))


def test_restart_markers_belong_to_a_scan_and_others_do_not():
    content = encoded(photograph(), restart_marker_rows=1)
    assert content.count(b"\xff\xd0") > 0
    assert np.abs(decode_jpeg(content).astype(int) - with_pillow(content)).max() <= 1
    middle = len(content) // 2
    for plain in (content, encoded(photograph())):
        assert decode_jpeg(plain[:middle] + b"\xff\xda" + plain[middle:]) is None


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, progressive, part):
    content = encoded(photograph(), progressive=progressive)
    file = tmp_path / "short.jpg"
    file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(BadImageError, match=r"short\.jpg: unreadable image"):
        read_image(file)
    file.write_bytes(content[: int(part * len(content))].ljust(len(content), b"\0"))
    if part < 0.99:
        with pytest.raises(BadImageError, match=r"short\.jpg: unreadable image"):
            read_image(file)


@pytest.mark.parametrize("progressive", [False, True])
def test_no_damaged_file_is_taken_that_pillow_refuses(progressive):
    draw = random.Random(0)
    whole = encoded(photograph(), progressive=progressive)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 5))):
            content[draw.randrange(2, len(content) - 2)] = draw.choice((draw.randrange(256), 0xFF))
        try:
            with_pillow(bytes(content))
        except (OSError, SyntaxError, ValueError):
            refused += 1
            with contextlib.suppress(OSError, SyntaxError, ValueError):  # refused as well
                assert decode_jpeg(bytes(content)) is None
    assert refused > 20
