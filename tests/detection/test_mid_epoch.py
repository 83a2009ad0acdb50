"""A detector's training that is resumed within an epoch equals an uninterrupted training."""

import signal

import pytest
import torch

pytest.importorskip("mmdet", reason="needs the detection set-up")

from detection.small_boxes import call, flags
from detection.test_steps import STEPS, config_with, iterations, lines, run, scores
from running.test_mid_epoch import INTERRUPTING
from running.test_resume import leaves

from tresnet_downstream.running.signals import TrainingStopped

EMA = "dict(type='EMAHook', momentum=0.1)"


@pytest.mark.parametrize(
    ("batch", "place", "left"),
    [(1, "step", ["epoch_1_step_2.pth"]), (4, "validation", ["epoch_1.pth", "epoch_2_step_4.pth"])],
)
@pytest.mark.slow
def test_signal_ends_the_step_and_the_resumed_run_equals_the_uninterrupted_one(boxes, tmp_path, batch, place, left):
    exec(compile(INTERRUPTING, "interrupting", "exec"), {"__name__": "interrupting"})
    expected = lines(run(config_with(tmp_path, EMA), boxes, tmp_path / "whole"))
    hook = f"dict(type='mmengine.Interrupting', number={int(signal.SIGTERM)}, batch={batch}, place='{place}')"
    config = config_with(tmp_path, EMA, hook)
    with pytest.raises(TrainingStopped):
        call("train_detection", [config, "--work-dir", tmp_path / "parts", *flags(boxes, **STEPS)])
    assert sorted(path.name for path in (tmp_path / "parts").glob("epoch_*")) == left
    resumed = lines(run(config_with(tmp_path, EMA), boxes, tmp_path / "parts", "--resume"))
    assert list(map(scores, resumed)) == list(map(scores, expected))
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        one, other = (
            leaves(torch.load(tmp_path / name / "epoch_3.pth", weights_only=True)[part]) for name in ("whole", "parts")
        )
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key
    assert sorted(path.name for path in (tmp_path / "parts").glob("epoch_*")) == [f"epoch_{n}.pth" for n in (1, 2, 3)]


@pytest.mark.slow
def test_loop_over_iterations_ends_at_once_at_a_signal_and_keeps_its_checkpoints(boxes, tmp_path):
    """It does not look for signals after its steps, so they act as they would without a training."""
    exec(compile(INTERRUPTING, "interrupting", "exec"), {"__name__": "interrupting"})
    hook = f"dict(type='mmengine.Interrupting', number={int(signal.SIGINT)}, batch=4, place='step')"
    config = config_with(tmp_path, hook)
    status, _, err = call("train_detection", [config, "--work-dir", tmp_path / "run", *iterations(boxes)])
    assert (status, err.count("\n")) == (130, 1), err
    assert [path.name for path in (tmp_path / "run").glob("iter_*.pth")] == ["iter_3.pth"]
    config = config_with(tmp_path)
    status, out, err = call("train_detection", [config, "--work-dir", tmp_path / "run", "--resume", *iterations(boxes)])
    assert status == 0, err
    assert "iteration 6/6" in out
