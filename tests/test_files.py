"""A file is there whole or not at all."""

import pytest

from tresnet_downstream.files import whole_file


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, OSError])
def test_interrupted_writing_leaves_the_old_file_and_no_part(tmp_path, interrupt):
    path = tmp_path / "best.pth"
    path.write_text("old")

    def write_half():
        with whole_file(path) as partial:
            partial.write_text("ne")
            raise interrupt

    with pytest.raises(interrupt):
        write_half()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("best.pth", "old")]


def test_whole_file_replaces_the_old_and_keeps_its_suffix_while_written(tmp_path):
    path = tmp_path / "best.pth"
    path.write_text("old")
    with whole_file(path) as partial:
        assert partial.suffix == ".pth"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("best.pth", "new")]
