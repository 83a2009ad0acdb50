"""Image files: search, decoding, writing."""

import glob
import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from tresnet_downstream import png
from tresnet_downstream.errors import UserError
from tresnet_downstream.files import Earlier, named_if_unwritable, open_regular, whole_file
from tresnet_downstream.jpeg import START, decode_jpeg, without_end
from tresnet_downstream.limits import excess, limit

# A file, a Pillow image, or a uint8 array of shape (height, width, 3) in RGB.
ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray
SUFFIXES = tuple(sorted(set(Image.registered_extensions()) - {".pdf", ".mpo", ".ps", ".eps"}))
# Formats of Pillow that are refused, because they pass the file to another program, are unpacked without a limit, or
# contain files of other formats.
REFUSED_FORMATS = ("BUFR", "EPS", "FITS", "FPX", "GRIB", "HDF5", "IPTC", "MIC", "MPEG", "WMF")
# Exceptions that Pillow's decoders raise for damaged files.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    MemoryError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Number of threads that decode with Pillow, and the value of LOAD_TRUNCATED_IMAGES before the first one began.
_decoding, _truncated_before = 0, False
_decoding_lock = threading.Lock()


class BadImageError(UserError):
    """An image file that cannot be decoded completely."""


def read_image(file: str | os.PathLike[str], at_least: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes an image file to 8-bit RGB, and rotates it according to its EXIF orientation.

    Args:
        file: a file of any format of Pillow except `REFUSED_FORMATS`. Grey, palette and CMYK images are converted,
            16-bit values are scaled to 8 bits, and the first frame of an animation is used.
        at_least: required height and width. An ordinary JPEG file of at least twice the size is decoded at 1/2, 1/4 or
            1/8 of its size, which is much faster. None for full size.

    Returns:
        uint8 of shape (height, width, 3), 0 to 255.

    Raises:
        BadImageError: if the file is missing, not a regular file, empty, truncated, damaged or not an image, exceeds a
            limit of `limits.Limits`, or has 32-bit values, whose range is unknown.
    """
    try:
        _raise_limit_of_pillow()
        with open_regular(file) as stream:
            content = _start_and_content(stream)
            image = decode_jpeg(content, at_least)
            if image is None:
                return _decode_with_pillow(stream, content)
        _require_size((image.shape[1], image.shape[0]))
        return image
    except DECODING_ERRORS as error:
        raise BadImageError(f"{os.fspath(file)}: unreadable image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return "it does not fit in memory" if isinstance(error, MemoryError) else " ".join(str(error).split())


def _start_and_content(file: BinaryIO) -> bytes:
    """The content of a JPEG or PNG file; only the first bytes of other files."""
    start = file.read(len(png.SIGNATURE))
    if not (start.startswith(START) or start == png.SIGNATURE):
        return start
    file.seek(0)
    return file.read()


def _decode_with_pillow(file: BinaryIO, content: bytes) -> np.ndarray:
    stream: BinaryIO = file
    is_png = content.startswith(png.SIGNATURE)
    if is_png:
        stream = io.BytesIO(content)
    elif content.startswith(START):
        stream = io.BytesIO(without_end(content))
    stream.seek(0)
    formats = [name for name in Image.ID if name not in REFUSED_FORMATS]
    with _whole_images_only(), Image.open(stream, formats=formats) as image:
        _require_size(image.size)
        if is_png:
            png.require_whole_chunks(content)
        image.load()
        # Rows that were not decoded are black. The complete check is slow, so it runs only if the last row is black.
        if is_png and (png.is_interlaced(content) or not any(_last_row(image))):
            png.require_whole_stream(content)
        return _pixels_of(image, owned=True)


def _raise_limit_of_pillow() -> None:
    """Raises Pillow's limit if the user's limit is higher."""
    if Image.MAX_IMAGE_PIXELS is not None and limit("pixels") > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit("pixels")


def _last_row(image: Image.Image) -> bytes:
    return image.crop((0, image.height - 1, image.width, image.height)).tobytes()


def _require_size(size: tuple[int, int]) -> None:
    """Raises ValueError for an image that is too large, or too narrow to be resized by its short side."""
    width, height = size
    if width * height > limit("pixels"):
        raise ValueError(excess("pixels", f"{width} x {height} are {width * height} pixels"))
    if max(size) > limit("aspect") * max(min(size), 1):
        raise ValueError(
            excess("aspect", f"{width} x {height}: one side is {max(size) // max(min(size), 1)} times the other")
        )


def pixels_of(image: ImageInput) -> np.ndarray:
    """The pixels of an image. A Pillow image is converted like its file; an array is returned unchanged.

    Returns:
        uint8 of shape (height, width, 3), 0 to 255.

    Raises:
        BadImageError: if the file is missing or damaged, or has 32-bit values.
        UserError: if an array has another type or shape.

    Examples:
        >>> pixels_of(Image.new("L", (4, 2), 255)).shape
        (2, 4, 3)
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"an image must be uint8 of shape (height, width, 3), got {image.dtype} of {image.shape}")
        return image
    return pixels_of_pillow(image) if isinstance(image, Image.Image) else read_image(image)


def pixels_of_pillow(image: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image, equal to those that `read_image` returns for its file. The image is not modified.

    Raises:
        BadImageError: if its file is truncated or damaged, or it has 32-bit values.
    """
    try:
        with _whole_images_only():
            _require_size(image.size)
            return _pixels_of(image)
    except DECODING_ERRORS as error:
        name = getattr(image, "filename", "") or "the Pillow image"
        raise BadImageError(f"{name}: unreadable image: {_reason(error)}") from error


def _pixels_of(image: Image.Image, owned: bool = False) -> np.ndarray:
    """8-bit RGB, upright. An image that is ``owned`` is modified in place, which saves a copy."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"it has 32 bits per value (mode {image.mode}); convert it to 8 bits")
    upright: Image.Image = image
    if owned:
        ImageOps.exif_transpose(image, in_place=True)
    else:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # Pillow would clip 16-bit values to white. Converted row by row, because float32 needs more memory.
        grey = np.asarray(upright)
        rows = [np.rint(row.astype(np.float32) / 257).astype(np.uint8) for row in grey]
        return np.repeat(np.stack(rows)[:, :, None], 3, axis=2)
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


@contextmanager
def _whole_images_only() -> Iterator[None]:
    """A context in which Pillow refuses truncated files, even if another library has allowed them; thread-safe."""
    global _decoding, _truncated_before
    with _decoding_lock:
        if _decoding == 0:
            _truncated_before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _decoding += 1
    try:
        yield
    finally:
        with _decoding_lock:
            _decoding -= 1
            if _decoding == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _truncated_before


def find_images(patterns: Sequence[str]) -> list[str]:
    """Finds images by file names, folders (searched recursively) and patterns such as ``photos/*.jpg``, in order.

    Raises:
        UserError: if a file does not exist, or a folder or pattern contains no image.
    """
    images: list[str] = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            inside = sorted(str(path) for path in Path(pattern).rglob("*") if path.suffix.lower() in SUFFIXES)
        elif os.path.isfile(pattern):
            inside = [pattern]
        else:
            inside = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        if not inside:
            raise UserError(f"{pattern}: no image found; give files, folders or patterns such as 'photos/*.jpg'")
        images += inside
    return list(dict.fromkeys(images))


def drawn_names(images: Sequence[str]) -> dict[str, str]:
    """A unique JPEG file name for each image: its own name, with a number appended if the name is taken.

    Examples:
        >>> drawn_names(["a/cat.png", "b/cat.jpg"])
        {'a/cat.png': 'cat.jpg', 'b/cat.jpg': 'cat_2.jpg'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    last_number: dict[str, int] = {}
    for image in images:
        stem = Path(image).stem
        number = last_number.get(stem.lower(), 1)
        name = f"{stem}.jpg"
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}.jpg"
        last_number[stem.lower()] = number
        taken.add(name.lower())
        names[image] = name
    return names


def require_apart(images: Sequence[str], out: str | os.PathLike[str]) -> None:
    """Raises UserError if the folder for drawn images is the folder of an input image."""
    if not os.path.exists(out):
        return
    folders = {
        os.path.dirname(place) for image in images for place in (os.path.abspath(image), os.path.realpath(image))
    }
    for folder in sorted(folders):
        if os.path.isdir(folder) and os.path.samefile(folder, out):
            raise UserError(
                f"`out` {os.fspath(out)}: is the folder of the images themselves ({folder}), which would be "
                "overwritten; name another folder"
            )


def write_image(image: Image.Image, name: str, earlier: Earlier) -> None:
    """Writes an image as a JPEG file; folders are created.

    Args:
        image: the image.
        name: path relative to the folder of ``earlier``.
        earlier: moves an existing file of that name.

    Raises:
        UserError: if the file cannot be written.
    """
    path = earlier.folder / name
    with named_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            # Encoded in memory, because Pillow reports no error if the disk gets full while it writes.
            content = io.BytesIO()
            image.save(content, "JPEG", quality=92)
            partial.write_bytes(content.getvalue())
            earlier.keep_unless_same((partial, name))
