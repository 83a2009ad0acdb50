"""A folder of images for each class."""

import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.formats.class_folders import read_class_folders


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "b/notes.txt", "a/deep/3.jpg", "a/.hidden.jpg", ".cache/4.jpg", "loose.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_images_belong_to_the_class_of_their_folder_in_the_order_of_names(folder):
    images = read_class_folders(folder)
    assert images.names == ["a/deep/3.jpg", "b/1.JPG", "b/2.png"]
    assert images.classes == ("a", "b")
    assert images.class_of.tolist() == [0, 1, 1]
    images = read_class_folders(folder, ["b", "a"])
    assert images.classes == ("b", "a")
    assert images.class_of.tolist() == [0, 0, 1]


def test_a_class_without_images_is_an_error_of_training_and_none_of_scoring(folder):
    (folder / "c").mkdir()
    with pytest.raises(UserError, match="has no image of the class 'c'"):
        read_class_folders(folder)
    assert read_class_folders(folder, ["a", "b", "c"]).class_of.tolist() == [0, 1, 1]


def test_other_folders_than_the_classes_are_reported(folder, tmp_path):
    with pytest.raises(UserError, match="has 1 folders that are not among the 2 classes, such as 'b'"):
        read_class_folders(folder, ["a", "z"])
    with pytest.raises(UserError, match="has no folder of the class 'z'"):
        read_class_folders(folder, ["a", "b", "z"])
    with pytest.raises(UserError, match="no such folder"):
        read_class_folders(folder / "none")
    with pytest.raises(UserError, match="has no folders"):
        read_class_folders(folder / "b")


def test_only_a_folder_within_is_a_class(folder):
    for name in ("", ".", "..", "a/deep", str(folder / "a"), ".cache"):
        with pytest.raises(UserError, match="has no folder of the class"):
            read_class_folders(folder, ["a", "b", name])


def test_a_class_that_is_given_twice_is_reported(folder):
    with pytest.raises(UserError, match="name in `classes`"):
        read_class_folders(folder, ["a", "b", "a"])
