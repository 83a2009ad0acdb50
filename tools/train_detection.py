"""Trains a detector: python tools/train_detection.py configs/retinanet_tresnet_m.py."""

import sys
from collections.abc import Sequence

from tresnet_downstream.command_line import config_parser, read_config, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and trains."""
    parser = config_parser("Trains a detector.")
    parser.add_argument("--resume", action="store_true", help="goes on from the newest checkpoint in the work dir")
    parser.add_argument("--overwrite", action="store_true", help="moves a run that the work dir holds aside")
    options = parser.parse_args(arguments)

    from mmengine.dist import is_main_process

    from tresnet_downstream.detection.training import train_detection

    config = read_config(options)
    best = train_detection(config, options.resume, options.launcher, options.overwrite)
    if not is_main_process():
        return
    if "last_AP" in best:
        print(f"last val AP {best['last_AP']:.2f}; the config keeps no best checkpoint (save_best)")
    elif best:
        print(f"best val AP {best['AP']:.2f}, in {best['checkpoint']}")
    else:
        print("no val AP: nothing was scored")
    print(f"results are in {config.work_dir}")


if __name__ == "__main__":
    sys.exit(run(main, resumable=True))
