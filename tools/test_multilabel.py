"""Scores a checkpoint: python tools/test_multilabel.py CONFIG CHECKPOINT."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tresnet_downstream.command_line import add_report_option, config_parser, read_config, run, write_report_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, scores, prints the table and writes scores, the run folder and the report asked for."""
    parser = config_parser("Scores a multi-label classifier on the validation data of its config.")
    parser.add_argument("checkpoint", help="such as work_dirs/NAME/best.pth")
    parser.add_argument(
        "--weights", choices=["raw", "averaged"], help="by default those that scored better in validation"
    )
    add_report_option(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.classification.training import score_multilabel
    from tresnet_downstream.evaluation import format_table, write_multilabel_run, write_scores

    config = read_config(options)
    scored = score_multilabel(config, options.checkpoint, options.weights, options.launcher)
    if scored is None:
        return
    scores, outcome = scored
    print(format_table(scores, f"{options.checkpoint}, {outcome.about['weights']} weights"))
    folder = Path(config.work_dir)
    for path in (*write_scores(scores, folder, outcome.about), write_multilabel_run(outcome, folder)):
        print(f"wrote {path}")
    write_report_of(folder, options.report)


if __name__ == "__main__":
    sys.exit(run(main))
