import pickle

import numpy as np
import pytest
import torch
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image, ImageFile
from torch.utils.data import DataLoader, default_collate

from tresnet_downstream.classification import datasets
from tresnet_downstream.classification.datasets import EpochSampler, MultiLabelDataset, collate_images
from tresnet_downstream.errors import UserError
from tresnet_downstream.images import BadImageError, read_image
from tresnet_downstream.registry import DATA_SAMPLERS, DATASETS

PUBLISHED = [{"type": "SquashResize", "size": 16}, {"type": "Cutout"}, {"type": "RandAugment"}]
NUM_IMAGES = 12


@pytest.fixture
def root(tmp_path):
    """A data set of twelve images, every other one in a sub-folder, with three classes."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    draw = np.random.default_rng(0)
    lines = []
    for index in range(NUM_IMAGES):
        name = f"sub/{index}.png" if index % 2 else f"{index}.png"
        picture = draw.integers(0, 256, (20 + index, 30, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / name)
        lines.append(f"{name},{'abc'[index % 3]}\n")
    (tmp_path / "labels.csv").write_text("".join(lines))
    return tmp_path


def build(root, pipeline=PUBLISHED, **options):
    arguments = {"annotation_file": "labels.csv", "image_folder": "images", "data_root": str(root)}
    return MultiLabelDataset(**{**arguments, "pipeline": pipeline, **options})


def expect_error(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_sample_has_the_image_the_targets_and_the_name(root):
    dataset = build(root, pipeline=[])
    sample = dataset[4]
    assert (sample["image"], sample["skipped"]) == ("4.png", 0)
    assert sample["targets"].tolist() == [0, 1, 0]
    assert (sample["inputs"].dtype, sample["targets"].dtype) == (torch.uint8, torch.int8)
    assert sample["inputs"].permute(1, 2, 0).is_contiguous()
    expected = np.asarray(Image.open(root / "images" / "4.png"))
    assert np.array_equal(sample["inputs"].permute(1, 2, 0), expected)
    assert len(dataset) == len(list(dataset)) == NUM_IMAGES
    assert dataset.classes == dataset.metainfo["classes"] == ("a", "b", "c")


def test_batches_are_channels_last_and_equal_those_of_torch(root):
    samples = [build(root)[index] for index in range(4)]
    batch, expected = collate_images(samples), default_collate(samples)
    assert batch["inputs"].is_contiguous(memory_format=torch.channels_last)
    assert batch["inputs"].shape == (4, 3, 16, 16)
    assert torch.equal(batch["inputs"], expected["inputs"])
    assert torch.equal(batch["targets"], expected["targets"])
    assert (batch["image"], batch["skipped"].tolist()) == (expected["image"], [0] * 4)


def test_large_jpeg_files_are_decoded_smaller_only_for_training(root, monkeypatch):
    Image.effect_noise((80, 60), 90).convert("RGB").save(root / "images" / "4.png", format="JPEG")
    asked = []
    monkeypatch.setattr(datasets, "read_image", lambda file, enough: asked.append(enough) or read_image(file, enough))
    squash = [{"type": "SquashResize", "size": 16}]
    reduced = build(root, squash, reduced_decoding=True)[4]["inputs"]
    whole = build(root, squash)[4]["inputs"]
    build(root, [{"type": "RandomCrop", "height": 9, "width": 9}], reduced_decoding=True)[4]
    assert asked == [(16, 16), None, None]
    assert reduced.shape == whole.shape == (3, 16, 16)
    difference = (reduced.float() - whole.float()).abs()
    assert 0 < difference.mean() < 16


def test_registries_build_dataset_and_sampler(root):
    config = {"type": "MultiLabelDataset", "annotation_file": "labels.csv", "image_folder": "images"}
    dataset = DATASETS.build(dict(config, data_root=str(root), pipeline=PUBLISHED))
    sampler = DATA_SAMPLERS.build({"type": "EpochSampler"}, default_args={"dataset": dataset, "seed": 3})
    assert sorted(sampler) == [(0, index) for index in range(NUM_IMAGES)]


def test_absolute_paths_are_not_changed(root, tmp_path):
    dataset = build("nowhere", annotation_file=str(root / "labels.csv"), image_folder=str(root / "images"))
    assert len(dataset) == NUM_IMAGES


def test_draws_depend_only_on_seed_epoch_and_index(root):
    dataset = build(root)
    first = [dataset[0, index]["inputs"] for index in range(NUM_IMAGES)]
    for index in reversed(range(NUM_IMAGES)):
        assert torch.equal(dataset[index]["inputs"], first[index])
        assert not torch.equal(dataset[1, index]["inputs"], first[index])
    other = build(root, seed=1)
    assert not any(torch.equal(other[index]["inputs"], first[index]) for index in range(NUM_IMAGES))
    again = pickle.loads(pickle.dumps(build(root)))
    assert all(torch.equal(again[index]["inputs"], first[index]) for index in range(NUM_IMAGES))


def test_number_of_workers_does_not_matter_and_persistent_workers_learn_the_epoch(root):
    def epochs(workers):
        dataset = build(root)
        sampler = EpochSampler(dataset, seed=5)
        options = {"num_workers": workers, "persistent_workers": workers > 0}
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, **options)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            yield [(batch["image"], batch["inputs"]) for batch in loader]

    alone, shared = list(epochs(0)), list(epochs(2))
    for one, other in zip(alone, shared, strict=True):
        for (names, inputs), (other_names, other_inputs) in zip(one, other, strict=True):
            assert names == other_names
            assert torch.equal(inputs, other_inputs)
    assert not torch.equal(alone[0][0][1], alone[1][0][1])


def test_transforms_of_one_pipeline_draw_independently(root):
    flips = [{"type": "HorizontalFlip", "p": 0.5}, {"type": "VerticalFlip", "p": 0.5}]
    dataset = build(root, pipeline=flips)
    picture = torch.from_numpy(read_image(root / "images" / "0.png")).permute(2, 0, 1)
    counts = {(across, down): 0 for across in (False, True) for down in (False, True)}
    for epoch in range(800):
        for case in counts:
            dims = [axis for axis, flip in zip((2, 1), case, strict=True) if flip]
            counts[case] += torch.equal(dataset[epoch, 0]["inputs"], picture.flip(dims))
    assert sum(counts.values()) == 800
    assert all(abs(count - 200) < 4.5 * (800 * 3 / 16) ** 0.5 for count in counts.values())


def test_draws_of_neighbouring_samples_and_epochs_differ(root):
    dataset = build(root, pipeline=[{"type": "RandomCrop", "height": 4, "width": 4}])
    draws = {dataset[epoch, index]["inputs"].numpy().tobytes() for epoch in range(8) for index in range(8)}
    assert len(draws) > 50


def damage(root, kind):
    """Spoil the image 4.png and give its path."""
    file = root / "images" / "4.png"
    content = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "damaged":
        file.write_bytes(content[:200] + bytes(200) + content[400:])
    elif kind == "text":
        file.write_text("no image")
    elif kind == "32 bits":
        Image.fromarray(np.full((4, 4), 30000, np.float32)).save(file, format="TIFF")
    elif kind == "gone":
        file.unlink()
    return file


DAMAGES = ["truncated", "empty", "damaged", "text", "32 bits", "gone"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_bad_image_is_an_error_that_names_it_and_the_key(root, kind):
    dataset = build(root)
    damage(root, kind)
    expect_error(lambda: dataset[4], "4.png", "on_bad_image=skip")


@pytest.mark.parametrize("kind", DAMAGES)
def test_bad_image_can_be_skipped(root, kind):
    dataset = build(root, on_bad_image="skip")
    damage(root, kind)
    sample = dataset[4]
    assert (sample["image"], sample["skipped"]) == ("sub/5.png", 1)
    assert sample["targets"].tolist() == [0, 0, 1]
    assert (dataset[5]["image"], dataset[5]["skipped"]) == ("sub/5.png", 0)


def test_passing_over_bad_images_wraps_and_keeps_batches_full(root):
    dataset = build(root, on_bad_image="skip")
    for name in ("10.png", "sub/11.png", "0.png"):
        (root / "images" / name).write_bytes(b"")
    assert (dataset[10]["image"], dataset[10]["skipped"]) == ("sub/1.png", 3)
    batches = list(DataLoader(dataset, batch_size=6, sampler=EpochSampler(dataset)))
    assert [len(batch["inputs"]) for batch in batches] == [6, 6]
    assert sum(int(batch["skipped"].sum()) for batch in batches) == 6


def test_images_that_are_gone_can_be_skipped(root):
    (root / "images" / "2.png").unlink()
    expect_error(lambda: build(root), "2.png", "on_bad_image=skip")
    assert build(root, on_bad_image="skip")[2]["skipped"] == 1


def test_a_data_set_of_bad_images_alone_is_an_error(root):
    dataset = build(root, on_bad_image="skip")
    for file in (root / "images").rglob("*.png"):
        file.write_bytes(b"")
    expect_error(lambda: dataset[3], "none of the 12 images")


def test_truncated_images_are_refused_for_every_setting_of_pillow(root, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    file = damage(root, "truncated")
    with pytest.raises(BadImageError, match=r"4\.png"):
        read_image(file)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_missing_data_root_says_where_ms_coco_comes_from(tmp_path):
    words = ["data_root", "nowhere", "cocodataset.org", "train2014.zip", "`options` data_root="]
    expect_error(lambda: build(tmp_path / "nowhere"), *words)


def test_missing_file_folder_and_images_are_named_with_their_key(root):
    expect_error(lambda: build(root, annotation_file="none.csv"), "annotation_file", "none.csv")
    expect_error(lambda: build(root, image_folder="none"), "image_folder", "none")
    (root / "images" / "4.png").unlink()
    (root / "images" / "sub" / "7.png").unlink()
    expect_error(lambda: build(root), "image_folder", "2 of 12", "'4.png'")
    (root / "images" / "sub").rename(root / "images" / "other")
    expect_error(lambda: build(root), "7 of 12", "'sub/1.png'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_bad_image": "ignore"}, ["on_bad_image", "'ignore'", "'skip'"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"pipeline": [{"type": "Sqaush"}]}, ["'Sqaush'"]),
        ({"classes": ["a", "b"]}, ["labels.csv", "'c'"]),
    ],
)
def test_wrong_option_is_a_user_error(root, options, words):
    expect_error(lambda: build(root, **options), *words)


@pytest.mark.parametrize("transform", ["Normalize", "ToFloat", "ToTensorV2"])
def test_pipeline_that_does_not_end_in_a_uint8_image_is_refused(root, transform):
    dataset = build(root, pipeline=[{"type": transform}])
    expect_error(lambda: dataset[0], "pipeline", "Normalize")


def test_images_of_different_sizes_raise_an_error(root):
    loader = DataLoader(build(root, pipeline=[]), batch_size=2)
    with pytest.raises(RuntimeError, match="equal size"):
        next(iter(loader))


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(range(50), seed=seed)
        sampler.set_epoch(epoch)
        pairs = list(sampler)
        assert {pair[0] for pair in pairs} == {epoch}
        return [pair[1] for pair in pairs]

    orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert all(sorted(indices) == list(range(50)) for indices in orders.values())
    assert len({tuple(indices) for indices in orders.values()}) == 9
    assert order(2, 1) == orders[2, 1]
    assert [index for _, index in EpochSampler(range(50), shuffle=False)] == list(range(50))


@pytest.mark.parametrize(("length", "world"), [(10, 1), (10, 2), (10, 3), (2, 5)])
def test_processes_share_the_samples_evenly(monkeypatch, length, world):
    shares = []
    for rank in range(world):
        monkeypatch.setattr(datasets, "get_dist_info", lambda rank=rank: (rank, world))
        sampler = EpochSampler(range(length), seed=1)
        shares.append([index for _, index in sampler])
        assert len(shares[-1]) == len(sampler) == -(-length // world)
    together = [index for step in zip(*shares, strict=True) for index in step]
    monkeypatch.setattr(datasets, "get_dist_info", lambda: (0, 1))
    whole = [index for _, index in EpochSampler(range(length), seed=1)]
    assert together == [whole[place % length] for place in range(len(together))]


def test_mmengine_builds_the_loader_and_its_hook_sets_the_epoch(root):
    config = {
        "dataset": build(root),
        "sampler": {"type": "EpochSampler"},
        "batch_size": 4,
        "num_workers": 0,
        "collate_fn": {"type": "default_collate"},
    }
    with DefaultScope.overwrite_default_scope("tresnet_downstream"):
        loader = Runner.build_dataloader(config, seed=7)

    class FakeRunner:
        train_loop = type("Loop", (), {"dataloader": loader})
        epoch = 3

    DistSamplerSeedHook().before_train_epoch(FakeRunner())
    assert loader.sampler.seed == 7
    assert {epoch for epoch, _ in loader.sampler} == {3}
    batch = next(iter(loader))
    assert batch["inputs"].shape == (4, 3, 16, 16)
    assert batch["targets"].shape == (4, 3)


def test_user_error_in_a_worker_stays_a_user_error(root):
    (root / "images" / "0.png").write_bytes(b"")
    loader = DataLoader(build(root), batch_size=2, num_workers=1)
    with pytest.raises(UserError, match=r"0\.png"):
        next(iter(loader))


@pytest.mark.parametrize("kind", DAMAGES)
def test_bad_image_is_marked_for_scoring_and_no_neighbour_takes_its_place(root, kind):
    damage(root, kind)
    dataset = build(root, [{"type": "SquashResize", "size": 16}], on_bad_image="leave_out")
    sample = dataset[4]
    assert (sample["image"], sample["skipped"]) == ("4.png", 0)
    assert "4.png" in sample["unreadable"]
    assert sample["inputs"].shape == (3, 16, 16)
    assert sample["targets"].tolist() == [0, 1, 0]
    assert [dataset[index]["unreadable"] for index in (3, 5)] == ["", ""]
    assert dataset.num_missing == (kind == "gone")


@pytest.mark.parametrize("mode", ["error", "skip", "leave_out"])
def test_folder_without_any_of_the_images_is_refused(root, mode):
    for name in (root / "images").rglob("*.png"):
        name.unlink()
    expect_error(lambda: build(root, on_bad_image=mode), "image_folder", "none of the 12 images is in")


def test_image_size_is_that_of_the_pipeline(root):
    assert build(root).image_size() == (16, 16)
    assert build(root, [{"type": "RandomCrop", "height": 9, "width": 7}]).image_size() == (9, 7)
    assert build(root, []).image_size() is None
    assert build(root, [{"type": "RandomCrop", "height": 3000, "width": 3000}]).image_size() is None
