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
        resamples: of the bootstrap over images, for 95% intervals; 0 for none.
        seed: of the resamples.
        thresholds: a score above them counts as predicted; None for the run's own.
        images: the folder of the images, if they no longer lie where they were scored, or another account scored them.
        outside_paths: whether images may lie outside their folder.
        frequency_cutoffs: for head, middle and tail: the most training images of a class of the tail and of the middle;
            None for those of the runs.
        track: counts the work.
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
