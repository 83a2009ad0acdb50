"""Calibrates the probabilities of labels on a scored run."""

from collections.abc import Sequence

from tresnet_downstream.command_line import Parser
from tresnet_downstream.errors import UserError


def parser() -> Parser:
    """The parser of ``tresnet calibrate``."""
    parser = Parser(
        description="Fits sigmoid(scale * logit + shift) to the labels of a run (Platt scaling). The config of a joint "
        "model takes the result as labels.rescore.",
        examples=("work_dirs/digits_tresnet", "work_dirs/digits_labels_and_boxes --apply scored/other"),
    )
    parser.add_argument("run", metavar="RUN", help="folder of a scored run of a multi-label classifier or joint model")
    parser.add_argument(
        "--apply", nargs="+", default=[], metavar="RUN", help="folders of runs on which the calibration is measured"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, fits scale and shift of the logits, and prints them."""
    options = parser().parse_args(arguments)

    import numpy as np

    from tresnet_downstream.evaluation.calibration import platt_scaling, reliability
    from tresnet_downstream.evaluation.outcomes import JointRun, MultilabelRun
    from tresnet_downstream.evaluation.runs import read_outcome

    scaling: tuple[float, float] | None = None
    is_joint = False
    for folder in (options.run, *options.apply):
        outcome = read_outcome(folder)
        is_joint = is_joint or isinstance(outcome, JointRun)
        labels = outcome.labels if isinstance(outcome, JointRun) else outcome
        if not isinstance(labels, MultilabelRun):
            raise UserError(f"{folder}: is not a run of a multi-label classifier or joint model")
        scaling = scaling or platt_scaling(labels.probabilities, labels.targets)
        p = np.clip(np.asarray(labels.probabilities, np.float64), 1e-9, 1 - 1e-9)
        after = 1 / (1 + np.exp(-(scaling[0] * np.log(p / (1 - p)) + scaling[1])))
        errors = [reliability(each, labels.targets).error for each in (labels.probabilities, after)]
        print(f"{folder}: expected calibration error {errors[0]:.2f}, calibrated {errors[1]:.2f}")
    assert scaling is not None
    print(f"calibrated probability: sigmoid({scaling[0]:.4f} * logit + {scaling[1]:.4f})")
    if is_joint:
        print(f"--cfg-options labels.rescore.scale={scaling[0]:.4f} labels.rescore.shift={scaling[1]:.4f}")
