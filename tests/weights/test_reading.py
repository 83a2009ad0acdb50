"""Weight files are read without unpickling, whatever structure contains the weights."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from tresnet_downstream.errors import UserError
from tresnet_downstream.weights.reading import looks_like_weights, read_checkpoint, unwrap

WEIGHTS = {"w": torch.arange(5.0)}


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def save_zip(content, path):
    torch.save(content, path)


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def save_old_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=0))


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_both_forms_of_torch_save_are_read(tmp_path, save):
    save({"state_dict": WEIGHTS, "epoch": 3}, tmp_path / "a.pth.tar")
    checkpoint = read_checkpoint(tmp_path / "a.pth.tar")
    assert checkpoint["epoch"] == 3
    assert torch.equal(checkpoint["state_dict"]["w"], WEIGHTS["w"])


def test_safetensors_are_read_whatever_the_suffix(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.bin")
    assert torch.equal(read_checkpoint(tmp_path / "a.bin")["w"], WEIGHTS["w"])


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle, save_old_pickle])
def test_pickled_command_is_refused_by_name_and_does_not_run(tmp_path, save):
    path, harm = tmp_path / "evil.pth", tmp_path / "harm"
    save({"model": WEIGHTS, "meta": Harmful(harm)}, path)
    with pytest.raises(UserError, match=r"evil\.pth"):
        read_checkpoint(path)
    assert not harm.exists()
    os.system(Harmful(harm).__reduce__()[1][0])
    assert harm.exists(), "the command would not have shown"


def test_refused_object_is_named(tmp_path):
    save_zip({"meta": Harmful(tmp_path / "harm")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"object \w+\.system"):
        read_checkpoint(tmp_path / "evil.pth")


def test_log_history_of_mmengine_is_skipped_and_numpy_kept(tmp_path):
    history = HistoryBuffer([1.0], [1])
    meta = {"epoch": np.int64(3), "names": np.array(["cat", "dog"]), "values": np.arange(3.0)}
    save_zip({"state_dict": WEIGHTS, "message_hub": {"loss": history}, "meta": meta}, tmp_path / "detector.pth")
    checkpoint = read_checkpoint(tmp_path / "detector.pth")
    assert not isinstance(checkpoint["message_hub"]["loss"], HistoryBuffer)
    assert vars(checkpoint["message_hub"]["loss"]) == {}
    assert checkpoint["meta"]["epoch"] == 3
    assert checkpoint["meta"]["names"].tolist() == ["cat", "dog"]


class ThroughGetattr:
    def __reduce__(self):
        return getattr, (dict, "fromkeys")


def test_getattr_that_the_history_needs_reaches_nothing_else(tmp_path):
    save_zip({"meta": ThroughGetattr()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth"):
        read_checkpoint(tmp_path / "evil.pth")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"<html>no right to access</html>", "begins with '<html>"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
        (b"\x80\x02}q\x00.", "evil|truncated|contains"),
        ((40).to_bytes(8, "little") + b'{"w":{"dtype"', "truncated or damaged"),
    ],
)
def test_files_that_are_no_checkpoint_are_named(tmp_path, content, word):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"broken\.pth: .*({word})"):
        read_checkpoint(path)


@pytest.mark.parametrize("save", [save_zip, save_legacy])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_file_is_named(tmp_path, save, part):
    path = tmp_path / "cut.pth"
    save({"w": torch.randn(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"cut\.pth: is truncated or damaged"):
        read_checkpoint(path)


def test_error_page_does_not_look_like_weights(tmp_path):
    save_zip(WEIGHTS, tmp_path / "a.pth")
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    (tmp_path / "page").write_text("<html>403</html>")
    assert [looks_like_weights(tmp_path / name) for name in ("a.pth", "a.safetensors", "page")] == [True, True, False]


@pytest.mark.parametrize(
    ("checkpoint", "which"),
    [
        (WEIGHTS, "raw"),
        ({"model": WEIGHTS, "num_classes": 3}, "raw"),
        ({"state_dict": WEIGHTS, "epoch": 1}, "raw"),
        ({"model": {"state_dict": WEIGHTS}}, "raw"),
        ({"state_dict": {"w": torch.zeros(1)}, "state_dict_ema": WEIGHTS}, "averaged"),
        ({"state_dict": WEIGHTS, "averaged_state_dict": {}, "score": {"weights": "raw"}}, "raw"),
        ({"state_dict": {}, "averaged_state_dict": WEIGHTS, "score": {"weights": "averaged"}}, "averaged"),
    ],
)
def test_weights_are_found_in_every_wrapping(checkpoint, which):
    name, weights = unwrap(checkpoint)
    assert name == which
    assert weights.keys() == WEIGHTS.keys()
    assert torch.equal(weights["w"], WEIGHTS["w"])


def test_raw_and_averaged_weights_can_be_chosen():
    both = {"state_dict": WEIGHTS, "averaged_state_dict": {"w": torch.zeros(5)}}
    assert unwrap(both, "raw")[1]["w"][1] == 1
    assert unwrap(both, "averaged")[1]["w"][1] == 0
    with pytest.raises(UserError, match=r"a\.pth: has no averaged weights"):
        unwrap({"state_dict": WEIGHTS}, "averaged", "a.pth")


def test_wrapped_dicts_are_unwrapped_and_one_that_holds_itself_is_refused(tmp_path):
    weights = {"a": torch.ones(1)}
    assert unwrap({"state_dict": {"model": {"state_dict": weights}}}) == ("raw", weights)
    inner: dict = {}
    outer = {"state_dict": {"model": inner}}
    inner["state_dict"] = outer
    torch.save(outer, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: has no weights"):
        unwrap(read_checkpoint(tmp_path / "a.pth"), path=tmp_path / "a.pth")
