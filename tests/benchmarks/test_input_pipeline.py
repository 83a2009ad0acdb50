from collections import Counter

import input_pipeline
import numpy as np
import pytest
from PIL import Image

from tresnet_downstream.benchmark.interleaved import Timing
from tresnet_downstream.classification.rand_augment import NAMES, Step, apply_operation
from tresnet_downstream.classification.transforms import build_pipeline, cut_out
from tresnet_downstream.command_line import run
from tresnet_downstream.errors import UserError
from tresnet_downstream.images import read_image


def write_noise(file, width=64, height=48):
    Image.effect_noise((width, height), 60).convert("RGB").save(file)


def test_rows_name_every_way_and_compare_ours_with_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(input_pipeline, "IMAGES_AT_ONCE", 2)
    write_noise(tmp_path / "noise.jpg")
    compared = input_pipeline.compare_pipelines([str(tmp_path / "noise.jpg")], size=32, repeats=2)
    both = [(what, who) for what in ("training", "evaluation", "decoding") for who in ("release", "ours")]
    assert [(row.what, row.who) for row in compared.rows] == [*both, ("reduced decoding", "ours")]
    for row in compared.rows:
        assert (row.ratio is None) == (row.who == "release")
        assert (row.limit is None) == (row.who == "release" or "decoding" in row.what)
        assert 0 < row.quartiles[0] <= row.images_per_second <= row.quartiles[1]


def test_the_limit_is_the_releases_time_over_that_of_our_decoding():
    names = ("training release", "training ours", "evaluation release", "evaluation ours")
    seconds = dict(
        zip((*names, "decoding release", "decoding ours", "reduced decoding ours"), range(14, 0, -2), strict=True)
    )
    timings = {name: Timing((float(value),)) for name, value in seconds.items()}
    training, evaluation, reduced = (
        input_pipeline._row(f"{what} ours", 28, timings) for what in ("training", "evaluation", "reduced decoding")
    )
    assert (training.ratio.median, training.limit.median) == (14 / 12, 14 / 2)
    assert (evaluation.ratio.median, evaluation.limit.median) == (10 / 8, 10 / 4)
    assert (reduced.ratio.median, reduced.limit) == (6 / 2, None)
    assert evaluation.images_per_second == 28 / 8


def test_every_file_of_a_folder_is_read_in_every_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(input_pipeline, "IMAGES_AT_ONCE", 5)
    files = [tmp_path / f"{number}.jpg" for number in range(3)]
    for place, file in enumerate(files):
        write_noise(file, 32 + 16 * place, 32)
    read = []
    monkeypatch.setattr(input_pipeline, "read_image", lambda file, *size: read.append(file) or read_image(file, *size))
    compared = input_pipeline.compare_pipelines([str(tmp_path)], size=16, repeats=1)
    # Once before; then twice by each of four ways, in the round that warms up and in the repeat.
    assert Counter(read) == dict.fromkeys(files, 1 + 2 * 4 * 2)
    assert (compared.num_files, compared.size) == (3, 16)
    assert compared.mean_bytes == sum(file.stat().st_size for file in files) / 3
    text = compared.markdown().splitlines()
    assert text[0].startswith("files: 3; mean size: ")
    assert len(text) == 4 + len(compared.rows)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="no image"):
        input_pipeline.compare_pipelines([str(tmp_path)])


def test_peer_applies_the_same_operations():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for name in (*NAMES,):
        for sign in (1, -1):
            theirs = np.asarray(
                input_pipeline._apply_with_pillow(Image.fromarray(image), Step(name, 7, sign, (20, 10)))
            )
            ours = apply_operation(image, name, 7, sign, (20, 10))
            if name == "Cutout":  # whose far ends the peer paints too
                assert (theirs != ours).any(2).sum() == 2 * 16 + 1
            else:
                assert np.abs(theirs.astype(int) - ours).max() <= (1 if name.startswith("Shear") else 0)


def test_peer_cuts_out_what_the_pipeline_does_up_to_half_of_each_side():
    white = np.full((40, 40, 3), 255, np.uint8)
    for centre in ((20, 10), (0, 0), (39, 39), (3, 36)):
        theirs = np.asarray(input_pipeline._cut_out(Image.fromarray(white), centre, (1, 2, 3)))
        assert np.array_equal(theirs, cut_out(white, 0.5, centre, (1, 2, 3)))


def test_both_ways_draw_the_same_for_a_picture():
    pipeline = build_pipeline(
        [{"type": "SquashResize", "size": 40}, {"type": "Cutout", "factor": 0.5}, {"type": "RandAugment"}]
    )
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for number in range(20):
        centre, colour, steps = input_pipeline._draws(pipeline, number)
        expected = cut_out(image, 0.5, centre, colour)
        for step in steps:
            expected = apply_operation(expected, *step)
        input_pipeline._start_draws(pipeline, number)
        assert np.array_equal(pipeline(image=image)["image"], expected)


def test_the_command_takes_files_and_folders(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    files = [tmp_path / "folder" / "one.jpg", tmp_path / "folder" / "two.jpg", tmp_path / "three.jpg"]
    for file in files:
        write_noise(file, 40, 30)
    arguments = [str(tmp_path / "folder"), str(files[2]), "--size", "16", "--repeats", "1"]
    assert run(input_pipeline.main, arguments) == 0
    printed = capsys.readouterr().out
    assert "files: 3; mean size: 1 kB; images of 16 x 16" in printed.splitlines()
    assert "| evaluation | ours |" in printed
