"""Gradient clipping by one config key: once per optimiser step, by the norm over all weights."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from running.recorded import two_lines
from running.small_data import refuses_to_train, train
from running.test_resume import assert_bit_for_bit_equal

NORMS = []


@HOOKS.register_module(force=True)
class RecordedNorms(Hook):
    """Keeps the norm of the gradients that each step of the optimiser has, and the largest weight."""

    def before_train(self, runner):
        def keep(optimiser, *_):
            gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
            NORMS.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)


def norms(data, folder, line, **changes):
    NORMS.clear()
    folder.mkdir()
    config = two_lines(folder, line)
    text = "custom_hooks = [*_base_.custom_hooks, dict(type='mmengine.RecordedNorms')]\n"
    config.write_text(config.read_text() + text)
    printed = train(data, folder / "run", config=config, **changes)
    return list(NORMS), printed


@pytest.mark.parametrize(
    "changes", [{"amp": None}, {"amp": "float16"}, {"amp": "bfloat16"}, {"accumulation": 2, "batch_size": 4}]
)
def test_each_step_has_at_most_the_norm_that_the_config_says(data, tmp_path, changes):
    free, _ = norms(data, tmp_path / "a", "clip_grad = None", max_epochs=1, **changes)
    clipped, _ = norms(data, tmp_path / "b", "clip_grad = 0.5", max_epochs=1, **changes)
    if changes.get("amp") == "float16":  # whose first step searches for a scale; unclipped gradients stay scaled
        assert len(clipped) >= 2
    else:
        assert len(free) == len(clipped) == 3
        assert min(free) > 0.5
    assert clipped == pytest.approx([0.5] * len(clipped), rel=1e-2)


def test_the_key_replaces_what_the_config_has_for_its_optimiser_and_a_line_says_so(data, tmp_path):
    line = "optim_wrapper = dict(clip_grad=dict(max_norm=0.25))"
    kept, printed = norms(data, tmp_path / "a", line, max_epochs=1)
    assert kept == pytest.approx([0.25] * 3, rel=1e-2)
    assert "clip_grad=" not in printed
    replaced, printed = norms(data, tmp_path / "b", f"{line}; clip_grad = 0.5", max_epochs=1)
    assert replaced == pytest.approx([0.5] * 3, rel=1e-2)
    assert "clip_grad=0.5 replaces optim_wrapper.clip_grad={'max_norm': 0.25}" in printed


def test_resumed_run_with_clipping_equals_the_uninterrupted_one(data, tmp_path):
    config = two_lines(tmp_path, "clip_grad = 0.5")
    train(data, tmp_path / "whole", config=config)
    train(data, tmp_path / "parts", config=config, stop_epoch=1)
    printed = train(data, tmp_path / "parts", "--resume", config=config)
    assert "change" not in printed
    assert_bit_for_bit_equal(tmp_path / "parts/epoch_2.pth", tmp_path / "whole/epoch_2.pth")


@pytest.mark.parametrize("value", ["0", "-1", "True", "'much'", "(1, 2)"])
def test_other_values_end_in_one_line(data, tmp_path, value):
    refuses_to_train(
        data, tmp_path / "run", "clip_grad=", "above 0", config=two_lines(tmp_path, f"clip_grad = {value}")
    )
