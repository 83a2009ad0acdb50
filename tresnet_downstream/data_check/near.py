"""Similar images: perceptual hashes, and the search for hashes that differ in few bits."""

from importlib.util import find_spec
from itertools import pairwise

import numpy as np
from PIL import Image

BITS = 64
# In grey levels. An image with a smaller standard deviation is too uniform for a hash.
_FLAT = 4.0


def can_hash() -> bool:
    """Whether the package ImageHash is installed."""
    return find_spec("imagehash") is not None


def perceptual_hash(image: np.ndarray) -> int | None:
    """The ``phash`` of the package ImageHash: the signs of the lowest frequencies of the image at 32 x 32.

    Args:
        image: uint8 of shape (height, width, 3).

    Returns:
        64 bits; None for an image that is all of nearly one colour.
    """
    import imagehash

    grey = Image.fromarray(image).convert("L")
    # Averaging by integer factors first is several times faster and changes hardly any bit.
    grey = grey.reduce(max(1, min(grey.size) // 128))
    if np.asarray(grey).std() < _FLAT:
        return None
    bits = imagehash.phash(grey).hash.ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def near_pairs(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds all pairs of hashes that differ in few bits.

    The bits are cut into ``max_distance + 1`` bands. Two hashes that differ in no more than ``max_distance`` bits
    agree in one band at least, so only hashes that agree in a band are compared.

    Args:
        hashes: uint64 of shape (N,), all different.
        max_distance: largest number of differing bits, 0 to 15.

    Returns:
        positions of the first and of the second hash of each pair, int64 of shape (P,), the first below the second,
        and the number of bits in which they differ, uint8 of shape (P,).
    """
    pairs = [np.zeros((0, 2), np.int64)]
    edges = np.linspace(0, BITS, max_distance + 2).astype(int)
    for start, end in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        order = np.argsort(band, kind="stable")
        band, sorted_hashes = band[order], hashes[order]
        # Hashes with equal bands are adjacent: each is compared with the next one, the one after that, and so on.
        first, step = np.arange(len(hashes)), 1
        while len(first := first[first < len(hashes) - step]):
            first = first[band[first] == band[first + step]]
            is_near = popcount(sorted_hashes[first] ^ sorted_hashes[first + step]) <= max_distance
            pairs.append(np.stack([order[first[is_near]], order[first[is_near] + step]], axis=1))
            step += 1
    # A pair with several equal bands occurs several times.
    unique = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    one, other = unique[:, 0], unique[:, 1]
    return one, other, popcount(hashes[one] ^ hashes[other])


def popcount(numbers: np.ndarray) -> np.ndarray:
    """Counts the bits of uint64 numbers that are 1: uint8 of the same shape.

    Examples:
        >>> popcount(np.array([0, 1, 255], np.uint64)).tolist()
        [0, 1, 8]
    """
    if hasattr(np, "bitwise_count"):
        counts: np.ndarray = np.bitwise_count(numbers)
    else:  # numpy before 2.0
        counts = np.unpackbits(numbers[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.uint8)
    return counts
