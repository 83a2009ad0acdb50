"""Images that are too large, slow to decode, not files, or incomplete."""

import io
import os
import struct
import time
import zlib

import pytest
from PIL import Image
from test_jpeg import encoded, photograph

from tresnet_downstream.errors import UserError
from tresnet_downstream.images import BadImageError, read_image
from tresnet_downstream.limits import limit


def png_file(width, height, packed, bits=1, colours=0):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(BadImageError) as caught:
        read_image(path)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_a_pipe_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(BadImageError, match="not a regular file"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["EPS", "FITS"])
def test_formats_that_run_programs_or_unpack_without_a_limit_are_refused(tmp_path, name, monkeypatch):
    """Whatever the name of the file says: Pillow would give an EPS file, a program, to Ghostscript."""
    header = "SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0", "END"
    contents = {
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{} loop\n",
        "FITS": "".join(card.ljust(80) for card in header).ljust(2880).encode(),
    }
    Image.init()
    monkeypatch.setitem(Image.OPEN, name, (lambda *_: pytest.fail("was opened"), Image.OPEN[name][1]))
    assert "cannot identify" in refusal(tmp_path / "a.png", contents[name])


# Pillow warns of the image, which is then refused.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_limits_name_their_variable_and_are_raised_by_it(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    wide = png_file(60_000_000, 1, zlib.compress(bytes(7_500_001)))
    assert "TRESNET_MAX_ASPECT" in refusal(path, wide)
    assert "TRESNET_MAX_PIXELS" in refusal(path, png_file(170_000_000, 1, zlib.compress(bytes(21_250_001))))
    Image.new("RGB", (30, 20)).save(path)
    monkeypatch.setenv("TRESNET_MAX_PIXELS", "599")
    assert "600 pixels, above the limit of 599" in refusal(path, path.read_bytes())
    monkeypatch.setenv("TRESNET_MAX_PIXELS", "600")
    assert read_image(path).shape == (20, 30, 3)
    monkeypatch.setenv("TRESNET_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="TRESNET_MAX_PIXELS=many: give a whole number"):
        limit("pixels")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_raised_limit_holds_for_files_with_metadata_too(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**25)
    monkeypatch.setenv("TRESNET_MAX_PIXELS", str(2**27))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Image.new("L", (8200, 8200)).save(path, exif=exif)
    assert read_image(path).shape == (8200, 8200, 3)


def test_a_small_file_of_a_large_size_is_refused_before_it_is_decoded(tmp_path):
    assert "too few bytes" in refusal(tmp_path / "a.png", png_file(8000, 8000, zlib.compress(b"\0"), 16))


@pytest.mark.parametrize("value", [0, 200])
def test_png_whose_stream_ends_early_is_refused(tmp_path, value):
    rows = (b"\0" + bytes([value]) * 96) * 96
    path = tmp_path / "a.png"
    path.write_bytes(png_file(96, 96, zlib.compress(rows), 8))
    assert (read_image(path) == value).all()
    for count in (10, 95):
        assert "ends early" in refusal(path, png_file(96, 96, zlib.compress(rows[: count * 97]), 8))


def test_png_with_a_flipped_bit_or_without_an_end_is_refused(tmp_path):
    stream = io.BytesIO()
    photograph().save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[len(content) // 2] ^= 1
    assert "checksum" in refusal(tmp_path / "a.png", content)
    assert "truncated" in refusal(tmp_path / "a.png", stream.getvalue()[:-12])


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("after", [b"", b"\0\0"])
def test_part_of_a_jpeg_with_an_end_marker_is_refused(tmp_path, options, after):
    content = encoded(photograph(640, 480), **options)
    for part in (0.3, 0.5):
        message = refusal(tmp_path / "a.jpg", content[: int(part * len(content))] + b"\xff\xd9" + after)
        assert "truncated" in message
    (tmp_path / "a.jpg").write_bytes(content + after)
    assert read_image(tmp_path / "a.jpg").shape == (480, 640, 3)


def test_progressive_jpeg_without_its_last_scan_is_refused(tmp_path):
    content = encoded(photograph(640, 480), progressive=True)
    assert "last scans are missing" in refusal(tmp_path / "a.jpg", content[: content.rindex(b"\xff\xda")] + b"\xff\xd9")


def test_part_of_a_cmyk_jpeg_with_an_end_marker_is_refused(tmp_path):
    content = encoded(photograph(640, 480).convert("CMYK"))
    assert "truncated" in refusal(tmp_path / "a.jpg", content[: len(content) // 2] + b"\xff\xd9")


def test_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path):
    content = encoded(photograph(640, 480), progressive=True)
    last = content.rindex(b"\xff\xda")
    start = time.monotonic()
    message = refusal(tmp_path / "a.jpg", content[:-2] + content[last:-2] * 200 + b"\xff\xd9")
    assert "TRESNET_MAX_SCANS" in message
    assert time.monotonic() - start < 1


def test_a_message_has_500_characters_at_most_and_can_be_written(tmp_path):
    error = UserError(f"begin {'x' * 200_000} end \ud800")
    assert len(str(error)) <= 500
    assert str(error).startswith("begin ")
    assert str(error).endswith(r"end \ud800")
    with pytest.raises(BadImageError) as caught:
        read_image(str(tmp_path / ("a" * 5000)))
    assert len(str(caught.value)) <= 500
    assert str(caught.value).isprintable()
