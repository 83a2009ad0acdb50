"""Writes the page of results from the claims and the records of the stages."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tresnet_downstream.reproduction.claims import CLAIMS, Claim
from tresnet_downstream.reproduction.records import Record, Value, read
from tresnet_downstream.reproduction.stages import STAGES, Stage

START = """# Results

The table lists published claims about TResNet, ASL and ML-Decoder, and the results of small experiments on real images,
on a CPU. An experiment with a small network and few images can neither prove nor refute a claim about a large network.

`make reproduce TINY_IMAGENET=DIR VOC2007=DIR LITE0=FILE` repeats all experiments; `STAGE=NAME` runs one stage. An
interrupted stage is resumed from its newest checkpoints. This page is written from the records in `docs/results/` by
`tresnet reproduce --page docs/results.md --records docs/results`.

Differences are paired: both networks are scored on the same images. The interval in brackets is the 95% bootstrap
interval over images; it does not cover the seed of the training. *Agrees* means that the intervals of all seeds are
above 0, *contradicts* that all are below 0, and *not shown* anything else. *Not quoted* means that the source has no
single value for the claim, or that its value was not checked against the source.

Hours are those of training and scoring. The two networks of the stage `pretraining` were trained at the same time, so
their hours show that their speed is about equal.

Data: Tiny ImageNet with the first 200 training images of each class (40,000 of 100,000) and its validation images;
PASCAL VOC 2007 scaled to a short side of 256, trained on `train`, scored on `val`. Scores are not comparable with
published ones on the whole data sets. Configs: `tiny_imagenet_tresnet_64.py`, `tiny_imagenet_resnet18_64.py`,
`tiny_imagenet_ablation_64.py`, `voc07_tresnet_128.py`, `voc07_retinanet_tresnet_small.py` and
`voc07_efficientnet_lite0_224.py`.

## Claims
"""


def page(records: Mapping[str, Record]) -> str:
    """Writes the page of results as Markdown.

    Args:
        records: the records of the finished stages, by name of the stage.

    Returns:
        The text of the page.

    Examples:
        >>> page({}).splitlines()[0]
        '# Results'
    """
    in_small, in_full = "difference in the small experiment", "command for the full experiment"
    header = ("claim", "published", "source", in_small, "verdict", in_full)
    parts = [START, *_table(header, (_claim_row(claim, records) for claim in CLAIMS))]
    for stage in STAGES.values():
        parts += _stage_section(stage, records.get(stage.name))
    return "\n".join(parts) + "\n"


def read_records(folder: str | Path) -> dict[str, Record]:
    """Reads all records in a folder, by name of the stage.

    Raises:
        UserError: if a file is not a record.

    Examples:
        >>> from tresnet_downstream.reproduction.records import write
        >>> path = write(Record("pretraining", 1000, {}, {}, ()), "records")
        >>> list(read_records("records"))
        ['pretraining']
    """
    return {record.stage: record for record in map(read, sorted(Path(folder).glob("*.json")))}


def verdict(differences: Sequence[Value]) -> str:
    """Judges the claim that all differences are positive by their intervals.

    Args:
        differences: differences with intervals, one for each seed.

    Returns:
        ``agrees`` if all intervals are above 0, ``**contradicts**`` if all are below 0, and ``not shown`` otherwise or
        if an interval is missing.

    Examples:
        >>> verdict([Value(2.0, low=0.5, high=3.5)])
        'agrees'
        >>> verdict([Value(2.0, low=0.5, high=3.5), Value(0.4, low=-1.0, high=1.8)])
        'not shown'
    """
    if all(each.low is not None and each.low > 0 for each in differences):
        return "agrees"
    if all(each.high is not None and each.high < 0 for each in differences):
        return "**contradicts**"
    return "not shown"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (header, ["---"] * len(header), *rows)]


def _claim_row(claim: Claim, records: Mapping[str, Record]) -> tuple[str, ...]:
    measured, judgement = claim.elsewhere or "not measured", ""
    if claim.in_small is not None:
        record = records.get(claim.in_small.stage)
        if record is None:
            measured = f"not measured yet: stage `{claim.in_small.stage}`"
        else:
            score = STAGES[claim.in_small.stage].score
            differences = [signed_difference(record, *pair, score) for pair in claim.in_small.pairs]
            measured = f"{claim.in_small.higher} minus {claim.in_small.lower}: " + ", ".join(
                f"{'+' if each.value > 0 else ''}{each}" for each in differences
            )
            measured += f" {STAGES[claim.in_small.stage].title}"
            judgement = verdict(differences)
    return claim.text, claim.published or "not quoted", claim.source, measured, judgement, claim.in_full


def signed_difference(record: Record, higher: str, lower: str, score: str) -> Value:
    """Returns the score of ``higher`` minus the score of ``lower``. Either may be the reference in the record.

    Args:
        record: the record of a stage.
        higher: name of the first training.
        lower: name of the second training.
        score: key of the score.

    Raises:
        ValueError: if the record does not compare the two trainings.

    Examples:
        >>> from tresnet_downstream.reproduction.records import Comparison
        >>> difference = Comparison("tresnet", "resnet", "top1", Value(2.0, low=0.5, high=3.5))
        >>> record = Record("pretraining", 1000, {}, {}, (difference,))
        >>> signed_difference(record, "resnet", "tresnet", "top1")
        Value(value=-2.0, low=-3.5, high=-0.5)
    """
    for each in record.comparisons:
        if each.score == score and (each.run, each.reference) == (higher, lower):
            return each.difference
        if each.score == score and (each.run, each.reference) == (lower, higher):
            value, low, high = each.difference
            return Value(-value, None if high is None else -high, None if low is None else -low)
    raise ValueError(f"{record.stage} has no difference of {higher} and {lower}")


def readable_command(command: str) -> str:
    """Puts arguments with single quotes between double quotes, where the shell reads both alike.

    Examples:
        >>> import shlex
        >>> command = shlex.join(["tresnet", "train", "a", "model.loss=dict(type='FocalLoss')"])
        >>> print(command)
        tresnet train a 'model.loss=dict(type='"'"'FocalLoss'"'"')'
        >>> print(readable_command(command))
        tresnet train a "model.loss=dict(type='FocalLoss')"
    """
    arguments = shlex.split(command)
    return " ".join(
        f'"{each}"' if "'" in each and not set(each) & set('"$`\\!') else shlex.quote(each) for each in arguments
    )


def _stage_section(stage: Stage, record: Record | None) -> list[str]:
    parts = ["", f"## Stage `{stage.name}`", f"{stage.summary}.", ""]
    if record is None:
        return [*parts, f"Not run yet: `make reproduce STAGE={stage.name}`."]
    rows = [
        (
            f"`{name}`",
            str(each.scores[stage.score]),
            f"{each.hours:.2f}",
            f"`{each.commit}`",
            f"`{each.sha256[:16]}`",
        )
        for name, each in record.trainings.items()
    ]
    parts += _table(("training", f"{stage.title} (95% interval)", "hours", "commit", "SHA-256 of the scores"), rows)
    differences = [
        (f"`{each.run}`", f"`{each.reference}`", f"{'+' if each.difference.value > 0 else ''}{each.difference}")
        for each in record.comparisons
        if each.score == stage.score
    ]
    parts += ["", *_table(("training", "minus", f"difference in {stage.title}"), differences)]
    machine = record.hardware
    packages = ", ".join(f"{name} {machine[name]}" for name in ("torch", "timm", "mmdet") if name in machine)
    parts += [
        "",
        f"Scored on {record.images:,} images. {machine['processor']}, {machine['cores']} cores, {machine['threads']} "
        f"thread(s) for each training; {packages}. Commands:",
        "",
        "```",
        *(readable_command(each.command) for each in record.trainings.values()),
        "```",
    ]
    return parts
