"""The table of images that a training leaves out."""

import pytest

from tresnet_downstream.running.left_out import read_left_out, write_left_out

REASONS = {"a.jpg": "has no labels", 'b,"c".jpg': "unreadable image: it is empty"}


def test_table_is_read_as_it_was_written(tmp_path):
    write_left_out(tmp_path, "left_out_val.csv", REASONS)
    assert read_left_out(tmp_path, "left_out_val.csv") == REASONS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"image\n",
        b"image,reason\na.jpg\n",
        b"image,reason\na.jpg,b,c\n",
        b'image,reason\n"a',
        b"name,why\na,b\n",
        b"\xff",
    ],
)
def test_damaged_table_names_no_image(tmp_path, content):
    (tmp_path / "left_out_val.csv").write_bytes(content)
    assert read_left_out(tmp_path, "left_out_val.csv") == {}
