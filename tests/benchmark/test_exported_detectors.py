import numpy as np
import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from PIL import Image

from tresnet_downstream.benchmark.exported_detectors import compare_exported_detector
from tresnet_downstream.benchmark.exported_models import markdown
from tresnet_downstream.deployment import detector
from tresnet_downstream.errors import UserError


@pytest.mark.slow
def test_every_way_to_run_the_detector_is_timed_beside_mmdetection(trained_detector, boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(detector, "INT8_SCORE", 0.0)  # so short a training finds nothing above 0.3
    monkeypatch.setattr(detector, "INT8_LEAST_PAIRED", 0.0)
    for index in range(32):
        noise = np.random.RandomState(index).randint(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    rows = compare_exported_detector(trained_detector[0] / "epoch_2.pth", [str(tmp_path)], batch_size=2, repeats=1)
    assert [row.who for row in rows] == ["MMDetection, eager", "ONNX Runtime", "OpenVINO", "OpenVINO, int8"]
    assert all(row.images_per_second > 0 for row in rows)
    assert len(markdown(rows, "MMDetection, eager").splitlines()) == 2 + len(rows)


def test_more_pictures_than_there_are_are_refused(boxes):
    with pytest.raises(UserError, match="`batch_size` 99: give a whole number from 1 to"):
        compare_exported_detector("epoch_2.pth", [str(boxes / "pictures")], batch_size=99)
