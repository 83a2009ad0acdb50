"""Scores a detector: python tools/test_detection.py CONFIG CHECKPOINT; or an exported one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.cli.detector import ready_model
from tresnet_downstream.command_line import add_report_option, config_parser, read_config, run, write_report_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, scores, prints the tables and writes scores, the run folder and the report asked for."""
    parser = config_parser("Scores a detector on the test data of its config, the validation data in most.")
    parser.add_argument("checkpoint", help="such as work_dirs/NAME/epoch_12.pth, or an exported model.onnx")
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation, as in MMDetection: the config's tta_model and tta_pipeline, or else the boxes of "
        "each image and its mirror image, merged",
    )
    add_report_option(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.detection.training import score_detection
    from tresnet_downstream.evaluation import format_detection_table, write_scored

    config = read_config(options)
    scored = score_detection(
        config, options.checkpoint, options.launcher, options.tta, ready_model(options, "detector")
    )
    if scored is None:
        return
    scores, outcome = scored
    for kind, scores_of_kind in scores.items():
        print(format_detection_table(scores_of_kind, f"{options.checkpoint}, {kind}{', tta' if options.tta else ''}"))
    folder = Path(config.work_dir)
    for path in write_scored(scores, outcome, folder):
        print(f"wrote {path}")
    write_report_of(folder, options.report)


if __name__ == "__main__":
    sys.exit(run(main))
