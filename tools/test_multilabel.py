"""Scores a checkpoint: python tools/test_multilabel.py CHECKPOINT --cfg-options val_annotations=... val_images=...

CONFIG CHECKPOINT takes the validation data of a config. Model and pipeline are the checkpoint's in both.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tresnet_downstream.command_line import add_report_option, config_parser, read_config, run, write_report_of
from tresnet_downstream.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, scores, prints the table and writes scores, the run folder and the report asked for."""
    parser = config_parser("Scores a multi-label classifier on the validation data of a config, or of its options.")
    parser.usage = "%(prog)s [CONFIG] CHECKPOINT [options]"
    parser.add_argument("checkpoint", nargs="?", help="such as work_dirs/NAME/best.pth; alone, it takes no config")
    parser.add_argument(
        "--weights", choices=["raw", "averaged"], help="by default those that scored better in validation"
    )
    add_report_option(parser)
    options = parser.parse_args(arguments)

    from tresnet_downstream.classification.training import score_multilabel
    from tresnet_downstream.evaluation import format_table, write_scored

    config, set_here = _config(options)
    scored = score_multilabel(config, options.checkpoint, options.weights, options.launcher, set_here)
    if scored is None:
        return
    scores, outcome = scored
    print(format_table(scores, f"{options.checkpoint}, {outcome.about['weights']} weights"))
    for name, value in outcome.about.get("metrics", {}).items():
        print(f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}")
    folder = Path(config.work_dir)
    for path in write_scored(scores, outcome, folder):
        print(f"wrote {path}")
    write_report_of(folder, options.report)


def _config(options: argparse.Namespace) -> tuple[Any, set[str]]:
    """The config, of a file or of the checkpoint alone, and the places that options set in it."""
    from tresnet_downstream.classification.descriptions import read_description
    from tresnet_downstream.classification.scoring_config import scoring_config
    from tresnet_downstream.running.config import read_config_file
    from tresnet_downstream.running.options import places_set_by, with_options
    from tresnet_downstream.weights import read_checkpoint

    changes = [*options.cfg_options, *([f"amp={options.amp}"] if options.amp else [])]
    if options.checkpoint is not None:
        return read_config(options), places_set_by(changes, read_config_file(options.config))
    if Path(options.config).suffix == ".py":
        raise UserError(f"{options.config}: is a config; name the checkpoint after it")
    checkpoint = options.checkpoint = Path(options.config)
    raw = scoring_config(read_description(checkpoint, read_checkpoint(checkpoint)), checkpoint)
    places = places_set_by(changes, raw)
    config = with_options(raw, changes)
    config.work_dir = options.work_dir or str(Path("work_dirs") / checkpoint.absolute().parent.name)
    return config, places


if __name__ == "__main__":
    sys.exit(run(main))
