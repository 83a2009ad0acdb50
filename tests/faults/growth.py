"""Whether a quantity that is read again and again grows: a straight line through the readings after a warm-up.

Memory of a process goes up and down as its allocator keeps and returns pages. A leak shows as a slope that is large
beside its standard error; the readings of the beginning, when caches are filled, are left out.
"""

from dataclasses import dataclass

import numpy as np

WARM_UP = 1 / 3  # of the readings, which are left out
# Neighbouring readings depend on each other, so the line goes through means of this many blocks.
BLOCKS = 16
# Standard errors; with 14 degrees of freedom, chance alone exceeds this in one of 400 soaks.
SIGNIFICANT = 3.3


@dataclass(frozen=True)
class Growth:
    """A line through readings.

    Attributes:
        start: the mean of the first block after the warm-up.
        total: the rise of the line from the end of the warm-up to the last reading.
        error: the standard error of ``total``.
    """

    start: float
    total: float
    error: float

    def is_growth(self, tolerance: float) -> bool:
        """Whether the rise is both larger than ``tolerance`` and more than chance."""
        return self.total > tolerance and self.total > SIGNIFICANT * self.error


def growth(positions, readings):
    """Fits the line.

    Args:
        positions: where the readings were taken, such as seconds, ascending.
        readings: as many numbers.
    """
    skipped = int(len(readings) * WARM_UP)
    if len(readings) - skipped < 2 * BLOCKS:
        raise ValueError(f"{len(readings)} readings are too few; at least {3 * BLOCKS} are needed")
    x, y = (
        np.array([block.mean() for block in np.array_split(np.asarray(values[skipped:], float), BLOCKS)])
        for values in (positions, readings)
    )
    slope, offset = np.polyfit(x, y, 1)
    residuals = y - slope * x - offset
    error = np.sqrt((residuals**2).sum() / (BLOCKS - 2) / ((x - x.mean()) ** 2).sum())
    length = positions[-1] - positions[skipped]
    return Growth(float(y[0]), float(slope * length), float(error * length))
