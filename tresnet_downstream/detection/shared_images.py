"""Reports images that are in the training data and in a scored split, before a training or a scoring."""

import os
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.runner import BaseLoop, Runner

from tresnet_downstream.detection.adjusted_config import annotation_file, datasets_of, image_folder
from tresnet_downstream.errors import UserError
from tresnet_downstream.formats import read_file
from tresnet_downstream.running.split_overlap import is_small, paths_of, tell_overlap


def tell_shared_images(runner: Runner) -> None:
    """Prints the number of images of each scored split that are also training data.

    A training checks the validation and test data of its config. A scoring checks its own data against the training
    data of the config, if that exists and its annotation file is not large.

    Args:
        runner: a runner whose data sets are built; its attribute ``scored_split`` names the test data.
    """
    built = {split: _paths_of_loop(loop) for split, loop in _loops(runner)}
    training = built.get("train") or _paths_by_config(runner.cfg, "train")
    for split, paths in built.items():
        if split != "train":
            tell_overlap(getattr(runner, "scored_split", "test") if split == "test" else split, training, paths)
    if "train" in built and "test" not in built:
        files = {split: sorted(_files(runner.cfg, split)) for split in ("val", "test")}
        if files["test"] != files["val"]:
            tell_overlap("test", training, _paths_by_config(runner.cfg, "test"))


def _loops(runner: Runner) -> Iterator[tuple[str, BaseLoop]]:
    for split, loop in (("train", runner._train_loop), ("val", runner._val_loop), ("test", runner._test_loop)):
        if isinstance(loop, BaseLoop):
            yield split, loop


def _paths_of_loop(loop: BaseLoop) -> list[str] | None:
    return paths_of(loop.dataloader.dataset)


def _files(config: Config, split: str) -> Iterator[tuple[str, str]]:
    """The annotation file and the image folder of each data set of a split."""
    for each, dataset in datasets_of(config):
        if each == split:
            yield annotation_file(dataset), image_folder(dataset)


def _paths_by_config(config: Config, split: str) -> list[str] | None:
    """The image paths in the files of a split; None if a file is missing, large or malformed."""
    files = list(_files(config, split))
    if not files or not all(is_small(file) for file, _ in files):
        return None
    try:
        names = [(folder, read_file(file).names) for file, folder in files]
    except UserError:
        return None
    return [os.path.abspath(os.path.join(folder, name)) for folder, several in names for name in several]
