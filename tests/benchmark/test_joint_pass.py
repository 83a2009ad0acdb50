import pytest

pytest.importorskip("mmdet", reason="needs the detection set-up")

from joint.small_joint import train
from running.small_data import call

from tresnet_downstream.errors import UserError


@pytest.mark.slow
def test_a_joint_model_is_timed_beside_its_detector(boxes, trained_detector, tmp_path):
    train(boxes, tmp_path, train_cfg__max_epochs=1)
    arguments = ["joint", tmp_path / "epoch_1.pth", "--size", 64, "--batch-size", 2, "--repeats", 1]
    status, out, err = call("benchmark", arguments)
    assert status == 0, err
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith(("| inference", "| training"))]
    assert len(rows) == 2
    assert all(0.9 < float(row[-1].rstrip(" |")) < 1.2 for row in rows)
    status, _, err = call("benchmark", ["joint", trained_detector[0] / "epoch_2.pth"])
    assert status == 2
    assert "is a checkpoint of a detector" in err


def test_sizes_that_the_network_does_not_take_are_refused():
    from tresnet_downstream.benchmark.joint_pass import compare_joint

    with pytest.raises(UserError, match="a multiple of 32"):
        compare_joint("x.pth", size=100)
