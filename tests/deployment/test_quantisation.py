"""Int8 quantisation with calibration."""

import numpy as np
import openvino
import pytest
from deployment.small_networks import classifier, write_pictures

from tresnet_downstream import predict
from tresnet_downstream.deployment import classifier as classifier_module
from tresnet_downstream.deployment.classifier import ExportableClassifier
from tresnet_downstream.deployment.export import export
from tresnet_downstream.deployment.quantisation import MOST, calibration_images
from tresnet_downstream.errors import UserError
from tresnet_downstream.exported import ExportedClassifier
from tresnet_downstream.images import find_images


def resized(picture):
    return picture[:8, :8]


def passed_on(items, total, what):
    return items


@pytest.mark.slow
def test_convolutions_are_int8_and_probabilities_near(exported, pictures):
    model, paths = exported
    network = openvino.Core().read_model(paths["int8"])
    operations = network.get_ops()
    whole = [op for op in operations if op.get_type_name() == "Constant" and op.get_element_type().to_string() == "i8"]
    # Every convolution's weights and every linear layer's; the blurs' as well.
    assert len(whole) >= 1 + 6 + 9 + 3 + 3
    files = find_images([str(pictures)])
    difference = np.abs(predict(ExportedClassifier(paths["int8"]), files) - predict(model, files))
    assert 0 < difference.mean() < 0.03
    assert paths["int8"].with_suffix(".bin").stat().st_size < 0.4 * paths["xml"].with_suffix(".bin").stat().st_size


def test_too_few_pictures_are_refused(pictures):
    files = find_images([str(pictures)])
    prepared, unreadable = calibration_images(files[:32], resized, passed_on)
    assert [picture.shape for picture in prepared] == [(8, 8, 3)] * 32
    assert unreadable == []
    with pytest.raises(UserError, match="needs at least 32 images for calibration, got 31"):
        calibration_images(files[:31], resized, passed_on)


def test_many_pictures_are_thinned_from_first_to_last(pictures, monkeypatch):
    monkeypatch.setattr("tresnet_downstream.deployment.quantisation.MOST", 33)
    files = find_images([str(pictures)])
    seen = []
    calibration_images(files, resized, lambda items, total, what: seen.extend(items) or items)
    assert (len(seen), seen[0], seen[-1]) == (33, files[0], files[-1])
    assert len(set(seen)) == 33
    assert MOST == 300


def test_a_picture_that_cannot_be_read_is_left_out_while_enough_remain(tmp_path):
    folder = write_pictures(tmp_path / "pictures", 33)
    (folder / "007.png").write_text("no picture")
    prepared, unreadable = calibration_images(find_images([str(folder)]), resized, passed_on)
    assert len(prepared) == 32
    assert len(unreadable) == 1
    assert "007.png: unreadable image" in unreadable[0]
    (folder / "008.png").write_text("no picture")
    with pytest.raises(UserError, match=r"needs at least 32 images.*31 of 33 can be read.*007.png: unreadable image"):
        calibration_images(find_images([str(folder)]), resized, passed_on)


@pytest.mark.slow
def test_the_message_counts_pictures_that_were_left_out(tmp_path):
    folder = write_pictures(tmp_path / "pictures", 33)
    (folder / "007.png").write_text("no picture")
    written = export(ExportableClassifier(classifier()), tmp_path / "m.xml", find_images([str(folder)]))
    assert written.num_images == 32
    assert "unreadable images left out of the calibration: 1; the first: " in str(written)


@pytest.mark.slow
def test_a_network_that_is_inaccurate_in_int8_is_not_written(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier_module, "INT8_TOLERANCE", 1e-6)
    with pytest.raises(UserError, match="in int8 probabilities differ from torch's by"):
        export(ExportableClassifier(classifier()), tmp_path / "m.xml", find_images([str(pictures)]))
    assert not any(tmp_path.iterdir())
