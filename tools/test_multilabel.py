"""Scores a checkpoint: python tools/test_multilabel.py CONFIG CHECKPOINT."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.command_line import config_parser, read_config, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, scores, prints the table and writes scores.json and per_class.csv."""
    parser = config_parser("Scores a multi-label classifier on the validation data of its config.")
    parser.add_argument("checkpoint", help="such as work_dirs/NAME/best.pth")
    parser.add_argument(
        "--weights", choices=["raw", "averaged"], help="by default those that scored better in validation"
    )
    options = parser.parse_args(arguments)

    from mmengine.dist import is_main_process

    from tresnet_downstream.evaluation import format_table, write_scores
    from tresnet_downstream.training.multilabel import score_multilabel

    config = read_config(options)
    scores, weights = score_multilabel(config, options.checkpoint, options.weights, options.launcher)
    if not is_main_process():
        return
    print(format_table(scores, f"{options.checkpoint}, {weights} weights"))
    run_info = {"config": options.config, "checkpoint": options.checkpoint, "weights": weights}
    for path in write_scores(scores, Path(config.work_dir), run_info):
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(run(main))
