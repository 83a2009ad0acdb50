"""The options of a report."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.evaluation.bootstrap import resample_weights
from tresnet_downstream.evaluation.progress import Track, silently
from tresnet_downstream.evaluation.thresholds import Thresholds


@dataclass(frozen=True)
class Options:
    """The options of a report of any task.

    Attributes:
        resamples: number of bootstrap resamples of the images, for 95% intervals; 0 for no intervals.
        seed: random seed of the resamples.
        thresholds: a class is predicted if its score is above its threshold; None for the thresholds of each run.
        images: the folder of the images, if they were moved after scoring, or if another account scored them.
        outside_paths: whether images may be outside their folder.
        frequency_cutoffs: for head, middle and tail, the greatest number of training images of a class of the tail and
            of the middle; None for those of the runs.
        track: progress bar of the work.
    """

    resamples: int = 1000
    seed: int = 0
    thresholds: Thresholds | None = None
    images: str | None = None
    outside_paths: bool = False
    frequency_cutoffs: tuple[int, int] | None = None
    track: Track = silently

    def weights(self, num_images: int) -> NDArray[np.int16] | None:
        """The resamples, (R, num_images); None without intervals."""
        return resample_weights(num_images, self.resamples, self.seed) if self.resamples else None
