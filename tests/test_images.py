import time

import numpy as np
import pytest
from PIL import Image, ImageFile

from tresnet_downstream.errors import UserError
from tresnet_downstream.images import (
    BadImageError,
    _whole_images_only,
    drawn_names,
    find_images,
    pixels_of,
    read_image,
)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "deeper/a.jpg"):
        Image.new("RGB", (7, 5)).save(folder / name)
    return folder


def test_exif_orientation_is_honoured(tmp_path):
    picture = Image.fromarray(np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, clockwise to be upright
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(np.asarray(picture), -1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_images_of_8_bits_become_rgb(tmp_path, mode):
    file = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new(mode, (5, 4)).save(file)
    image = read_image(file)
    assert (image.shape, image.dtype) == ((4, 5, 3), np.uint8)


def test_truncated_files_are_refused_until_the_last_thread_has_decoded(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    first, second = _whole_images_only(), _whole_images_only()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    second.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_grey_of_16_bits_is_scaled_to_8_and_not_clipped(tmp_path):
    values = np.array([[0, 257, 30000, 65535]], np.uint16)
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.dtype == np.uint8
        assert image[0].tolist() == [[grey] * 3 for grey in (0, 1, 117, 255)]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_first_frame_of_an_animation_is_taken(tmp_path, suffix):
    red, blue = (Image.new("RGB", (6, 4), colour) for colour in ("red", "blue"))
    red.save(
        tmp_path / f"moving.{suffix}",
        save_all=True,
        append_images=[blue],
        **({"lossless": True} if suffix == "webp" else {}),
    )
    assert (read_image(tmp_path / f"moving.{suffix}") == (255, 0, 0)).all()


def test_cmyk_is_shown_in_its_colours(tmp_path):
    Image.new("CMYK", (8, 8), (255, 255, 0, 0)).save(tmp_path / "print.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "print.jpg").reshape(-1, 3).mean(0)
    assert (red, green) < (10, 10)
    assert blue > 245


def test_picture_of_more_pixels_than_memory_is_refused_before_it_is_decoded(tmp_path):
    # 50,000 x 50,000 pixels of one bit: a small file, 7.5 GB as RGB.
    header = b"P4 50000 50000\n"
    (tmp_path / "huge.pbm").write_bytes(header)
    with pytest.raises(BadImageError, match=r"huge\.pbm.*2500000000 pixels"):
        read_image(tmp_path / "huge.pbm")


def test_files_folders_and_patterns_are_found_once_each(pictures):
    found = find_images([str(pictures), str(pictures / "*.jpg"), str(pictures / "b.png")])
    assert [path.removeprefix(str(pictures)) for path in found] == ["/a.jpg", "/b.png", "/deeper/a.jpg"]
    with pytest.raises(UserError, match="no image found"):
        find_images([str(pictures / "*.gif")])


def saved(folder, kind):
    draw = np.random.default_rng(0)
    if kind == "16 bits":
        path = folder / "deep.png"
        Image.fromarray(draw.integers(0, 65536, (20, 30), np.uint16)).save(path)
    elif kind == "rotated":
        path, exif = folder / "rotated.png", Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(path, exif=exif)
    else:
        path = folder / "palette.png"
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).quantize(16).save(path)
    return path


@pytest.mark.parametrize("kind", ["16 bits", "rotated", "palette"])
def test_pillow_image_gives_the_pixels_of_its_file_and_stays_as_it_is(tmp_path, kind):
    path = saved(tmp_path, kind)
    with Image.open(path) as image:
        size, mode = image.size, image.mode
        assert np.array_equal(pixels_of(image), read_image(path))
        assert np.array_equal(pixels_of(image), read_image(path))
        assert (image.size, image.mode) == (size, mode)
    assert read_image(path).shape == ((30, 20, 3) if kind == "rotated" else (20, 30, 3))


def test_pillow_image_of_32_bits_or_of_a_damaged_file_is_refused(tmp_path):
    with pytest.raises(BadImageError, match="32 bits"):
        pixels_of(Image.fromarray(np.zeros((4, 4), np.float32)))
    path = saved(tmp_path, "palette")
    path.write_bytes(path.read_bytes()[:-60])
    with Image.open(path) as image, pytest.raises(BadImageError, match=r"palette\.png"):
        pixels_of(image)


def test_drawn_pictures_of_one_name_in_many_folders_are_numbered_quickly():
    start = time.monotonic()
    names = drawn_names([f"{number}/Image.png" for number in range(20_000)])
    assert time.monotonic() - start < 3
    assert list(names.values()) == ["Image.jpg", *(f"Image_{number}.jpg" for number in range(2, 20_001))]
    assert list(drawn_names(["a.png", "a_2.png", "b/A.png", "c/a.png"]).values()) == [
        *("a.jpg", "a_2.jpg", "A_3.jpg", "a_4.jpg")
    ]
