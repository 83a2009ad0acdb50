"""The number of visits of each image in an epoch, which may be larger for images of rare classes.

Each image has a factor, the expected number of visits. :meth:`Visits.draw` rounds the factors up or down at random for
each epoch, such that the mean over epochs is the factor. One uniform random number determines the rounding of all
images (systematic sampling), so that the number of visits in an epoch differs by less than one from the sum of the
factors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tresnet_downstream.classification.class_labels import ClassLabels
from tresnet_downstream.errors import UserError

SAMPLINGS = ("repeat_factor", "class_balanced")
_DIGITS = 9  # factors are rounded to this number of digits, so that the square root of 4 is 2


@dataclass(frozen=True, eq=False)
class Visits:
    """The expected number of visits of each of N images in an epoch.

    Attributes:
        factors: expected number of visits, (N,), at least 0.
        length: number of samples in an epoch: the sum of the factors, rounded up.
        most: largest number of visits of an image in an epoch.
        notice: a line about the sampling, which is printed before a training.
    """

    factors: NDArray[np.float64]
    length: int
    most: int
    notice: str

    def draw(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draws the number of visits of each image in one epoch, (N,): its factor, rounded down or up.

        Their sum is ``length``, or one less if the sum of the factors is not an integer.
        """
        whole = np.floor(self.factors)
        order = generator.permutation(len(whole))
        ends = np.floor(np.cumsum((self.factors - whole)[order]) + generator.random())
        visits = whole.astype(np.int64)
        # The differences are at most 1, except for rounding errors.
        visits[order] += np.minimum(np.diff(ends, prepend=0), 1).astype(np.int64)
        return visits


def repeat_factors(labels: ClassLabels, threshold: float) -> NDArray[np.float64]:
    """Repeat factors of Gupta et al. (2019, arXiv:1908.03195, appendix B) for N images: (N,), at least 1.

    Let ``f_c`` be the share of the images that show class ``c``. The factor of the class is
    ``max(1, sqrt(threshold / f_c))``. The factor of an image is the largest factor of its classes, or 1.

    Args:
        labels: the labels of the N images.
        threshold: classes with a smaller share of the images are repeated; above 0, at most 1.

    Examples:
        >>> from tresnet_downstream.classification.class_labels import single_labels
        >>> labels = single_labels(("cat", "dog"), np.array([0, 0, 0, 1]))
        >>> repeat_factors(labels, 1.0)
        array([1.15470054, 1.15470054, 1.15470054, 2.        ])
    """
    shares = np.maximum(labels.positives(), 1) / len(labels)
    of_classes = np.maximum(1, np.sqrt(threshold / shares)).round(_DIGITS)
    factors = np.ones(len(labels))
    np.maximum.at(factors, _image_of(labels), of_classes[labels.indices])
    return factors


def balanced_factors(labels: ClassLabels) -> NDArray[np.float64]:
    """Expected visits of N images if a class is drawn uniformly, and then one of its images: (N,), with the sum N.

    An image with the classes ``c`` has ``M / K * sum(1 / n_c)`` visits, where ``n_c`` is the number of images that show
    ``c``, ``K`` the number of classes that are shown, and ``M`` the number of images with a class. Images without a
    class are visited once.
    """
    positives = labels.positives()
    sizes = np.diff(labels.indptr)
    share = int(np.count_nonzero(sizes)) / max(1, int(np.count_nonzero(positives)))
    of_labels = share / np.maximum(positives, 1)[labels.indices]
    sums = np.bincount(_image_of(labels), of_labels, minlength=len(labels))
    result: NDArray[np.float64] = np.where(sizes > 0, sums, 1.0).round(_DIGITS)
    return result


def visits_by(sampling: str, labels: ClassLabels, threshold: float | None) -> Visits:
    """The number of visits of each image for a kind of sampling.

    Args:
        sampling: one of :data:`SAMPLINGS`.
        labels: the labels of the images.
        threshold: threshold of :func:`repeat_factors`; None for the median frequency of the classes that are shown.

    Raises:
        UserError: for another ``sampling``, a threshold that is not a share, or if no image shows a class.
    """
    if sampling not in SAMPLINGS:
        raise UserError(f"sampling={sampling!r}: choose {', '.join(map(repr, SAMPLINGS))} or None")
    if threshold is not None and (type(threshold) not in (int, float) or not 0 < threshold <= 1):
        raise UserError(f"repeat_threshold={threshold!r}: give a share of the images, above 0 and at most 1, or None")
    positives = labels.positives()
    shown = np.flatnonzero(positives)
    if not len(shown):
        raise UserError(f"sampling={sampling!r}: no image shows a class")
    setting = ""
    if sampling == "repeat_factor":
        share = float(np.median(positives[shown])) / len(labels) if threshold is None else float(threshold)
        factors = repeat_factors(labels, share)
        source = "the median frequency of the classes" if threshold is None else "as set"
        setting = f" with repeat_threshold {share:.3g} ({source})"
    else:
        factors = balanced_factors(labels)
    length = int(np.ceil(np.sum(factors).round(_DIGITS - 3)))
    rarest = int(shown[np.argmin(positives[shown])])
    draws = factors[np.unique(_image_of(labels)[labels.indices == rarest])].sum()
    notice = (
        f"sampling: {sampling}{setting}: {length:,} draws of {len(labels):,} images in an epoch, each image "
        f"{factors.min():.3g} to {factors.max():.3g} times on average; the rarest class {labels.classes[rarest]!r} "
        f"{draws:,.0f} times, from {positives[rarest]:,} images"
    )
    return Visits(factors, length, int(np.ceil(factors.max())), notice)


def _image_of(labels: ClassLabels) -> NDArray[np.int64]:
    """The image of each label."""
    return np.repeat(np.arange(len(labels)), np.diff(labels.indptr))
