"""The check reads VOC's lists and class folders completely."""

import pytest
from made_data import make_voc
from running.small_data import call
from running.small_folders import FOLDERS, make_class_folders

from tresnet_downstream.data_check import check_data
from tresnet_downstream.data_check.config_sources import sources_of_config
from tresnet_downstream.data_check.listing import Source
from tresnet_downstream.running.config import load_config


def kinds(listing):
    return [(finding.kind, finding.severity, finding.place) for finding in listing.findings]


@pytest.fixture
def voc(tmp_path):
    make_voc(tmp_path)
    return tmp_path


def of_voc(root, task="classification"):
    return Source("train", str(root / "ImageSets/Main/train.txt"), str(root / "JPEGImages"), task)


def edit(root, name, old, new):
    path = root / "Annotations" / f"{name}.xml"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_sound_lists_of_voc_have_no_findings(voc, task):
    (listing,) = check_data([of_voc(voc, task)]).listings
    assert not [kind for kind in kinds(listing) if kind[1] == "error"]
    assert listing.classes == ("cat", "dog")
    assert len(listing.images) == 6


def test_every_malformed_xml_file_of_voc_is_found(voc):
    edit(voc, "000001", "<size>", "<sizes>")
    (voc / "Annotations" / "000002.xml").unlink()
    (listing,) = check_data([of_voc(voc)]).listings
    assert {(kind, place) for kind, severity, place in kinds(listing) if severity == "error"} == {
        ("malformed-entry", "000001"),
        ("malformed-entry", "000002"),
    }
    assert len(listing.images) == 4


def test_boxes_of_voc_are_checked_for_a_detector(voc):
    edit(voc, "000001", "<xmax>30</xmax>", "<xmax>90</xmax>")
    edit(voc, "000002", "<xmax>30</xmax>", "<xmax>2</xmax>")
    (listing,) = check_data([of_voc(voc, "detection")]).listings
    found = {kind for kind, _, _ in kinds(listing)}
    assert {"box-beyond-edge", "box-without-area"} <= found


def test_class_of_difficult_objects_alone_is_unverified(voc):
    edit(voc, "000001", "<bndbox>", "<difficult>1</difficult><bndbox>")
    (listing,) = check_data([of_voc(voc)]).listings
    assert listing.images[0].unverified == {"cat"}
    assert not listing.images[0].shown


def test_class_folders_of_a_config_are_checked(tmp_path):
    data = make_class_folders(tmp_path / "data", (3, 2))
    config = load_config(FOLDERS, [f"data_root={data}"])
    report = check_data(sources_of_config(config))
    assert not report.has_errors
    assert [len(listing.images) for listing in report.listings] == [9, 6]
    (data / "val" / "red").rename(data / "val" / "pink")
    for image in (data / "train" / "green").iterdir():
        image.unlink()
    report = check_data(sources_of_config(config))
    errors = [(finding.split, finding.kind) for finding in report.findings if finding.severity == "error"]
    assert ("train", "malformed-entry") in errors
    assert ("val", "other-classes") in errors


def test_images_of_several_labels_are_found_where_each_has_one(tmp_path):
    data = make_class_folders(tmp_path / "data", (2, 2))
    (tmp_path / "train.csv").write_text("red/0.jpg,red;green\nred/1.jpg,red\n")
    config = load_config(FOLDERS, [f"data_root={data}", f"train_annotations={tmp_path / 'train.csv'}"])
    listing = check_data(sources_of_config(config)).listings[0]
    assert ("several-labels", "error", "red/0.jpg") in kinds(listing)


def test_only_coco_files_and_tables_are_cleaned(tmp_path):
    data = make_class_folders(tmp_path / "data", (2, 2))
    arguments = [FOLDERS, "--cfg-options", f"data_root={data}", "--fix", tmp_path / "out"]
    status, out, err = call("check_data", arguments)
    assert status == 2
    assert "only COCO files and tables can be cleaned" in err
    assert out == ""  # told before anything is read
