"""Packaged configs: named without a path, listed, printed with the meaning of each key, and copied."""

import subprocess
import sys

import pytest
from mmengine.config import Config
from running.small_data import ROOT

from tresnet_downstream.cli.config_names import config_path, packaged_names
from tresnet_downstream.cli.main import main
from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config, read_config_file
from tresnet_downstream.running.config_keys import meanings_of

NAMES = packaged_names()
CLASSIFIER = "coco_tresnet_l_448"


def test_the_packaged_configs_are_those_of_the_folder_configs():
    assert sorted(path.stem for path in (ROOT / "configs").glob("*.py")) == NAMES


def test_a_name_finds_the_packaged_file():
    assert config_path(CLASSIFIER) == ROOT / "configs" / f"{CLASSIFIER}.py"


def test_a_path_finds_that_file(tmp_path):
    (tmp_path / "mine.py").write_text("a = 1\n")
    assert config_path(tmp_path / "mine.py") == tmp_path / "mine.py"


@pytest.mark.parametrize("name", ["best.pth", "model.onnx", "notes"])
def test_a_file_that_is_no_config_is_reported(name, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"\x80\x02")
    for command in ("config", "train", "check"):
        assert main([command, str(tmp_path / name)]) == 2
        assert f"{tmp_path / name}: is not a config" in capsys.readouterr().err


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UserError, match=r"coco_tresnet_l_44: no such config file; the nearest .* coco_tresnet_l_448"):
        config_path("coco_tresnet_l_44")
    with pytest.raises(UserError, match="tresnet config lists all packaged"):
        config_path("zzz")


@pytest.mark.parametrize(
    ("file", "notice"), [(f"{CLASSIFIER}.py", f"for the file, write ./{CLASSIFIER}.py"), (CLASSIFIER, "not the file")]
)
def test_a_file_with_the_name_of_a_packaged_config_is_reported(file, notice, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text("a = 1\n")
    assert config_path(CLASSIFIER) == ROOT / "configs" / f"{CLASSIFIER}.py"
    assert notice in capsys.readouterr().out
    if file.endswith(".py"):
        assert config_path(f"./{file}").resolve() == tmp_path / file


def test_the_list_has_a_line_of_each(capsys):
    assert main(["config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"{name}  ") and line != f"{name}  " for line in lines) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_packaged_config_has_a_meaning(name):
    path = config_path(name)
    if "mmdet::" in path.read_text() or "retinanet" in path.read_text():
        pytest.importorskip("mmdet", reason="needs the detection set-up")
    assert set(read_config_file(path)) - set(meanings_of(path)) == set()


def test_a_comment_in_a_users_config_is_the_meaning_of_its_key(tmp_path):
    (tmp_path / "base.py").write_text("size = 1  # of the base\nother = 2  # stays\n")
    (tmp_path / "mine.py").write_text("_base_ = ['base.py']\nsize = 2  # mine\n")
    meanings = meanings_of(tmp_path / "mine.py")
    assert (meanings["size"], meanings["other"]) == ("mine", "stays")


def test_what_is_printed_is_the_config_again(tmp_path, capsys):
    assert main(["config", CLASSIFIER, "--cfg-options", "image_size=64"]) == 0
    out = capsys.readouterr().out
    assert "image_size = 64 " in out
    (tmp_path / "printed.py").write_text(out)
    expected = load_config(config_path(CLASSIFIER), ["image_size=64"])
    assert Config.fromfile(tmp_path / "printed.py")._cfg_dict.to_dict() == expected._cfg_dict.to_dict()


def test_a_copy_is_the_same_config_and_a_second_copy_changes_nothing(tmp_path, capsys):
    assert main(["config", CLASSIFIER, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("wrote ") == 7
    copy = load_config(tmp_path / f"{CLASSIFIER}.py")
    assert copy._cfg_dict.to_dict() == load_config(config_path(CLASSIFIER))._cfg_dict.to_dict()
    assert main(["config", CLASSIFIER, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def test_a_copy_overwrites_nothing(tmp_path, capsys):
    (tmp_path / f"{CLASSIFIER}.py").write_text("mine = 1\n")
    assert main(["config", CLASSIFIER, "--out", str(tmp_path)]) == 2
    assert "exists with another content" in capsys.readouterr().err
    assert (tmp_path / f"{CLASSIFIER}.py").read_text() == "mine = 1\n"
    assert list(tmp_path.iterdir()) == [tmp_path / f"{CLASSIFIER}.py"]


@pytest.mark.parametrize(
    "arguments", [["--out", "folder"], ["digits_tresnet", "--out", "f", "--cfg-options", "seed=1"]]
)
def test_options_that_do_not_fit_are_refused(arguments, capsys):
    assert main(["config", *arguments]) == 2
    assert "--cfg-options" in capsys.readouterr().err


def test_a_config_is_printed_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tresnet_downstream.cli.main import main\n"
        "sys.exit(main(['config']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
