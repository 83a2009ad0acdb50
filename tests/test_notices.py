"""Notices are printed, and written to the log of a run if there is one."""

from mmengine.logging import MMLogger

from tresnet_downstream.notices import tell


def test_a_notice_goes_to_the_log_of_a_run_and_is_printed_once(tmp_path, capfd):
    log = tmp_path / "run.log"
    MMLogger.get_instance("a_run", logger_name="a_run", log_file=str(log))
    tell("3 images are skipped")
    assert log.read_text().count("3 images are skipped") == 1
    assert "".join(capfd.readouterr()).count("3 images are skipped") == 1


def test_a_notice_without_a_run_is_one_plain_line_even_after_a_test_that_left_a_log(capsys):
    tell("3 images are skipped")
    assert capsys.readouterr().out == "3 images are skipped\n"
