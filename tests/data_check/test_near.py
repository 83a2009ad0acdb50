"""The search for similar hashes equals the comparison of all pairs."""

import time

import numpy as np
import pytest
from PIL import Image

from tresnet_downstream.data_check import near


def random_hashes(count, seed=0):
    draw = np.random.default_rng(seed)
    return np.unique(draw.integers(0, 2**64, count, dtype=np.uint64))


def with_flipped_bits(hashes, count, seed=1):
    draw = np.random.default_rng(seed)
    flips = [sum(1 << int(bit) for bit in draw.choice(64, count, replace=False)) for _ in hashes]
    return hashes ^ np.array(flips, np.uint64)


@pytest.mark.parametrize("max_distance", [0, 1, 4, 7, 15])
def test_pairs_are_those_of_comparing_all_with_all(max_distance):
    some = random_hashes(300)
    hashes = np.unique(np.concatenate([some, *(with_flipped_bits(some[:40], count) for count in (1, 3, 4, 5, 9, 15))]))
    distances = near.popcount(hashes[:, None] ^ hashes[None])
    expected = {(i, j, distances[i, j]) for i, j in np.argwhere(distances <= max_distance) if i < j}
    assert set(zip(*(column.tolist() for column in near.near_pairs(hashes, max_distance)), strict=True)) == expected


def test_planted_pairs_among_120_000_hashes_are_found_in_seconds():
    hashes = random_hashes(120_000)
    planted = with_flipped_bits(hashes[:500], 4)
    start = time.perf_counter()
    one, other, distances = near.near_pairs(np.concatenate([hashes, planted]), 4)
    seconds = time.perf_counter() - start
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == [(i, len(hashes) + i) for i in range(500)]
    assert set(distances.tolist()) == {4}
    assert seconds < 20  # 0.1 on one core


def test_bits_are_counted_alike_without_numpys_own_count(monkeypatch):
    hashes = random_hashes(100)
    expected = [bin(number).count("1") for number in hashes.tolist()]
    assert near.popcount(hashes).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert near.popcount(hashes).tolist() == expected


def test_hash_hardly_changes_with_size_and_quality_and_flat_images_have_none(tmp_path):
    pytest.importorskip("imagehash", reason="needs the extra check")
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = small.resize((640, 480), Image.Resampling.BICUBIC)
    image.resize((500, 375)).save(tmp_path / "other.jpg", quality=60)
    one = near.perceptual_hash(np.array(image))
    other = near.perceptual_hash(np.array(Image.open(tmp_path / "other.jpg")))
    mirrored = near.perceptual_hash(np.array(image)[:, ::-1].copy())
    assert bin(one ^ other).count("1") <= 4
    assert bin(one ^ mirrored).count("1") > 10
    assert near.perceptual_hash(np.full((48, 64, 3), 200, np.uint8)) is None
