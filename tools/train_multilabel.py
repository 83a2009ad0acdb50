"""Trains a multi-label classifier: python tools/train_multilabel.py configs/coco_tresnet_l_448.py."""

import sys
from collections.abc import Sequence

from tresnet_downstream.command_line import config_parser, read_config, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and trains."""
    parser = config_parser("Trains a multi-label classifier.")
    parser.add_argument("--resume", action="store_true", help="goes on from the newest checkpoint in the work dir")
    parser.add_argument("--overwrite", action="store_true", help="moves a run that the work dir holds aside")
    options = parser.parse_args(arguments)

    from mmengine.dist import is_main_process

    from tresnet_downstream.classification.training import train_multilabel

    config = read_config(options)
    best = train_multilabel(config, options.resume, options.launcher, options.overwrite)
    if not is_main_process():
        return
    if "epoch" in best:
        step = f"step {best['step']}, " if "step" in best else ""
        name = config.default_hooks.checkpoint.get("save_best", "mAP")
        score = best[name] if name in best else best[f"{best['weights']}/{name}"]
        print(f"best val {name} {score:.2f} ({best['weights']} weights, {step}epoch {best['epoch']})")
    else:
        print("no val mAP: the validation data shows none of the classes")
    print(f"results are in {config.work_dir}")


if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
