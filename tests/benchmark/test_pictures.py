import numpy as np
from PIL import Image

from tresnet_downstream.benchmark import pictures
from tresnet_downstream.classification.rand_augment import NAMES, Step, apply_operation
from tresnet_downstream.classification.transforms import build_pipeline, cut_out


def test_rows_name_every_way_and_compare_ours_with_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PICTURES_AT_ONCE", 2)
    Image.effect_noise((64, 48), 60).convert("RGB").save(tmp_path / "noise.jpg")
    rows = pictures.compare_pipelines(tmp_path / "noise.jpg", size=32, repeats=2)
    ways = [(row.what, row.who) for row in rows]
    assert ways == [(what, who) for what in ("training", "evaluation", "decoding") for who in ("release", "ours")]
    assert all((row.ratio is None) == (row.who == "release") for row in rows)
    assert all(0 < row.quartiles[0] <= row.images_per_second <= row.quartiles[1] for row in rows)


def test_peer_applies_the_same_operations():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for name in (*NAMES,):
        for sign in (1, -1):
            theirs = np.asarray(pictures._apply_with_pillow(Image.fromarray(image), Step(name, 7, sign, (20, 10))))
            ours = apply_operation(image, name, 7, sign, (20, 10))
            if name == "Cutout":  # whose far ends the peer paints too
                assert (theirs != ours).any(2).sum() == 2 * 16 + 1
            else:
                assert np.abs(theirs.astype(int) - ours).max() <= (1 if name.startswith("Shear") else 0)


def test_peer_cuts_out_what_the_pipeline_does_up_to_half_of_each_side():
    white = np.full((40, 40, 3), 255, np.uint8)
    for centre in ((20, 10), (0, 0), (39, 39), (3, 36)):
        theirs = np.asarray(pictures._cut_out(Image.fromarray(white), centre, (1, 2, 3)))
        assert np.array_equal(theirs, cut_out(white, 0.5, centre, (1, 2, 3)))


def test_both_ways_draw_the_same_for_a_picture():
    pipeline = build_pipeline(
        [{"type": "SquashResize", "size": 40}, {"type": "Cutout", "factor": 0.5}, {"type": "RandAugment"}]
    )
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for number in range(20):
        centre, colour, steps = pictures._draws(pipeline, number)
        expected = cut_out(image, 0.5, centre, colour)
        for step in steps:
            expected = apply_operation(expected, *step)
        pictures._start_draws(pipeline, number)
        assert np.array_equal(pipeline(image=image)["image"], expected)
