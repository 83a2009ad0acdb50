"""Writes scores and the run folder that they are computed from, without overwriting another result."""

from collections.abc import Mapping
from pathlib import Path

from tresnet_downstream.errors import UserError
from tresnet_downstream.evaluation.detection_scores import DetectionScores
from tresnet_downstream.evaluation.detection_tables import write_detection_scores
from tresnet_downstream.evaluation.multilabel_scores import MultilabelScores
from tresnet_downstream.evaluation.multilabel_tables import write_scores
from tresnet_downstream.evaluation.outcomes import DetectionRun, MultilabelRun, Run, SingleLabelRun
from tresnet_downstream.evaluation.result_files import plain
from tresnet_downstream.evaluation.runs import (
    DESCRIPTION,
    LEFT_OUT,
    MAP_PAIRS,
    MAPS,
    RUN_FILES,
    describe,
    write_detection_run,
    write_multilabel_run,
    write_single_label_run,
)
from tresnet_downstream.evaluation.single_label_scores import SingleLabelScores
from tresnet_downstream.evaluation.single_label_tables import write_single_label_scores
from tresnet_downstream.files import Earlier
from tresnet_downstream.json_reading import parse_json
from tresnet_downstream.text_files import read_text

SCORE_FILES = ("scores.json", "per_class.csv")
# Keys that may differ between two runs with the same result: when and how it was computed, the paths of the files,
# and the loss of the model, which scoring does not use.
_NO_PART_OF_A_RESULT = ("date", "command", "versions", "checkpoint", "config", "loss", "origin")


def write_scored(
    scores: MultilabelScores | SingleLabelScores | Mapping[str, DetectionScores],
    run: Run,
    folder: str | Path,
) -> list[Path]:
    """Writes the scores and the run folder.

    Files of the same result (checkpoint, weights, data and settings) are replaced. Files of another result are moved to
    a folder ``earlier_N`` beside them, which is also a run folder, and a message says so.

    Args:
        scores: scores of a classifier, or of a detector by kind: ``bbox``, ``segm``.
        run: the run that they are computed from.
        folder: the folder to write to; it is created if it does not exist.

    Returns:
        the paths.

    Raises:
        UserError: if the folder cannot be written to, or a part of the run is not as its class describes.
    """
    folder = Path(folder)
    # A run that was not written by this toolkit does not state its weights.
    if "checkpoint_sha256" not in run.about or not same_result(folder / DESCRIPTION, describe(run)):
        Earlier(folder).keep(*SCORE_FILES, *RUN_FILES)
    if isinstance(run, MultilabelRun):
        assert isinstance(scores, MultilabelScores)
        paths = [*write_scores(scores, folder, run.about), write_multilabel_run(run, folder)]
    elif isinstance(run, SingleLabelRun):
        assert isinstance(scores, SingleLabelScores)
        paths = [*write_single_label_scores(scores, folder, run.about), write_single_label_run(run, folder)]
    else:
        assert isinstance(scores, Mapping)
        paths = [*write_detection_scores(scores, folder, run.about), write_detection_run(run, folder)]
    if not isinstance(run, DetectionRun) and run.explanations is not None:
        paths += [folder / MAPS, folder / MAP_PAIRS]
    return [*paths, folder / LEFT_OUT] if run.left_out else paths


def same_result(path: Path, content: Mapping[str, object]) -> bool:
    """Whether a JSON file has the same content, apart from the date, the command and the paths of files."""
    try:
        before = parse_json(read_text(path), path)
    except UserError:
        return False
    return _result_of(before) == _result_of(plain(content))


def _result_of(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _result_of(value) for key, value in content.items() if key not in _NO_PART_OF_A_RESULT}
    return [_result_of(item) for item in content] if isinstance(content, list) else content
