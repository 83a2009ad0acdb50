"""``$name`` references of configs."""

import pytest

from tresnet_downstream.errors import UserError
from tresnet_downstream.running.config import load_config


def written(tmp_path, text, options=()):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return load_config(path, options)


def test_references_reach_into_lists_and_dicts_and_keep_their_type(tmp_path):
    config = written(
        tmp_path,
        "size = 448\n"
        "year = 2014\n"
        "pair = ('$size', 2)\n"
        "steps = [dict(type='A', size='$size'), ['$steps_of', dict(deep=dict(er='$flag'))]]\n"
        "steps_of = dict(length='$size')\n"
        "flag = None\n"
        "name = 'train${year}_${size}.json'\n"
        "link = '$name'\n",
    )
    assert config.steps[0].size == 448
    assert config.pair == (448, 2)
    assert config.steps[1][0] == {"length": 448}
    assert config.steps[1][1].deep.er is None
    assert config.name == config.link == "train2014_448.json"


def test_references_see_what_options_changed(tmp_path):
    config = written(tmp_path, "size = 448\nmodel = dict(size='$size', other='${size}px')\n", ["size=224"])
    assert config.model == {"size": 224, "other": "224px"}


def test_option_may_itself_refer_to_a_key(tmp_path):
    assert written(tmp_path, "size = 448\nmodel = dict(size=1)\n", ["model.size=$size"]).model.size == 448


@pytest.mark.parametrize(("text", "plain"), [("$$", "$"), ("5$$", "5$"), ("$$size", "$size"), ("$${size}", "${size}")])
def test_two_dollar_signs_stand_for_one(tmp_path, text, plain):
    assert written(tmp_path, f"size = 1\nprice = {text!r}\n").price == plain


@pytest.mark.parametrize("text", ["a = '$b'", "a = 'x${b}'", "a = [dict(c='$b')]"])
def test_reference_to_a_missing_key_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.py: .*'b'.*does not define"):
        written(tmp_path, text + "\n")


@pytest.mark.parametrize("text", ["a = '$a'", "a = '$b'\nb = dict(c='x${a}')", "a = ['$b']\nb = '$c'\nc = '$a'"])
def test_reference_to_itself_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.py: .* refers to .* itself"):
        written(tmp_path, text + "\n")
