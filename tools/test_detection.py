"""Scores a detector: python tools/test_detection.py CONFIG CHECKPOINT."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.command_line import config_parser, read_config, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, scores, prints the tables and writes scores, classes and predictions."""
    parser = config_parser("Scores a detector on the test data of its config, the validation data in most.")
    parser.add_argument("checkpoint", help="such as work_dirs/NAME/epoch_12.pth")
    options = parser.parse_args(arguments)

    from mmengine.dist import is_main_process

    from tresnet_downstream.evaluation import format_detection_table, write_detection_scores
    from tresnet_downstream.training.detection import score_detection

    config = read_config(options)
    scores, predictions = score_detection(config, options.checkpoint, options.launcher)
    if not is_main_process():
        return
    for kind, given in scores.items():
        print(format_detection_table(given, f"{options.checkpoint}, {kind}"))
    run_info = {"config": options.config, "checkpoint": options.checkpoint, "coco_eval": config.get("coco_eval")}
    for path in write_detection_scores(scores, predictions, Path(config.work_dir), run_info):
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(run(main))
