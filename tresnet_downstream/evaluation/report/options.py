"""What a report is asked to be."""

from dataclasses import dataclass

from tresnet_downstream.evaluation.thresholds import Thresholds
from tresnet_downstream.evaluation.tracking import Track, silently


@dataclass(frozen=True)
class Options:
    """What a report of any task is asked to be.

    Attributes:
        resamples: of the bootstrap over images, for 95% intervals; 0 for none.
        seed: of the resamples.
        thresholds: what a score must be above to count as predicted, in the place of the run's own.
        images: the folder of the images, if they no longer lie where they were scored.
        track: counts the work.
    """

    resamples: int = 1000
    seed: int = 0
    thresholds: Thresholds | None = None
    images: str | None = None
    track: Track = silently
