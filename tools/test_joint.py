"""Scores labels and boxes of one network: python tools/test_joint.py CONFIG CHECKPOINT."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.cli.detector import ready_model
from tresnet_downstream.command_line import add_report_option, config_parser, read_config, run, write_report_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, scores, prints the tables and writes both run folders and the report asked for."""
    parser = config_parser("Scores the labels and the boxes of one network on the test data of its config.")
    parser.add_argument("checkpoint", help="such as work_dirs/NAME/epoch_12.pth, or an exported model.onnx")
    add_report_option(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.evaluation import format_detection_table, format_table, write_scored
    from tresnet_downstream.evaluation.runs import PARTS
    from tresnet_downstream.joint.training import score_joint

    config = read_config(options)
    scored = score_joint(config, options.checkpoint, options.launcher, ready_model(options, "joint"))
    if scored is None:
        return
    labels, boxes = scored
    print(format_table(labels[0], f"{options.checkpoint}, labels"))
    for kind, scores_of_kind in boxes[0].items():
        print(format_detection_table(scores_of_kind, f"{options.checkpoint}, {kind}"))
    folder = Path(config.work_dir)
    for part, (scores, outcome) in zip(PARTS, scored, strict=True):
        for path in write_scored(scores, outcome, folder / part):
            print(f"wrote {path}")
    write_report_of(folder, options.report)


if __name__ == "__main__":
    sys.exit(run(main))
