"""Reference statistics of images of the right kind, and the distance of a batch from them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

LEAST = 64  # reference images: fewer say nothing about the ends of a distribution
EXCEEDING = 100  # resampled batches above the threshold, which determine it to about a tenth
CHUNK = 2_000_000  # images drawn at once
LEAST_SPREAD = 1e-5  # far above the rounding of fp32, far below what an eye sees


class Reference:
    """Statistics of reference images, and how far the means of a batch may be from theirs.

    Args:
        values: by statistic, the value of each reference image (N,).
        false_alarms: the share of batches like the reference whose largest distance may exceed the threshold.
        seed: the seed of the batches drawn from the reference.

    Raises:
        ValueError: there are too few images, or values that are not finite.
    """

    def __init__(self, values: dict[str, Tensor], false_alarms: float, seed: int) -> None:
        count = len(next(iter(values.values())))
        if count < LEAST:
            raise ValueError(
                f"the reference has {count} images, but at least {LEAST} are needed: some hundreds are better"
            )
        broken = [name for name, each in values.items() if not bool(each.isfinite().all())]
        if broken:
            raise ValueError(
                f"{', '.join(broken)} of some reference images is NaN or infinite: look at the model's answers to them, which no "
                "batch could be compared with"
            )
        self.values, self.false_alarms, self.seed = values, false_alarms, seed
        columns = torch.stack(list(values.values()), 1).double()
        self._mean = columns.mean(0)
        # A statistic that is equal for all images, as the mean of an unused channel, has no scale, and its last bits follow from the
        # memory format and the number of images.
        self._scale = torch.maximum(columns.std(0), LEAST_SPREAD * self._mean.abs().clamp(min=1.0))
        self._standardised = (columns - self._mean) / self._scale
        self._thresholds: dict[int, float] = {}

    def distances(self, means: Mapping[str, float], images: int) -> dict[str, float]:
        """Return for each statistic the distance of a batch's mean from the reference's mean, in standard errors."""
        # The error of the difference of two means: the batch's and the reference's.
        error = self._scale * math.sqrt(1 / images + 1 / len(self._standardised))
        difference = torch.tensor(list(means.values()), dtype=torch.float64) - self._mean
        return dict(zip(means, (difference / error).tolist(), strict=True))

    def strange(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return for each image (N,), by its values (N,) of each statistic, whether it alone would raise an alarm."""
        columns = torch.stack([values[name] for name in self.values], 1).double()
        error = self._scale * math.sqrt(1 + 1 / len(self._standardised))
        return ~(((columns - self._mean) / error).abs().amax(1) <= self.threshold(1))  # NaN is strange

    def threshold(self, images: int) -> float:
        """Return the distance that only a share `false_alarms` of batches of this number of images exceeds.

        The distance is the largest over all statistics; the batches are drawn from the reference, with replacement.
        """
        if images not in self._thresholds:
            self._thresholds[images] = self._resampled_threshold(images)
        return self._thresholds[images]

    def _resampled_threshold(self, images: int) -> float:
        generator = torch.Generator().manual_seed(self.seed)
        left, largest = math.ceil(EXCEEDING / self.false_alarms), []
        while left > 0:
            batches = min(left, max(1, CHUNK // images))
            rows = torch.randint(len(self._standardised), (batches, images), generator=generator)
            sums = torch.stack([column[rows].sum(1) for column in self._standardised.T], 1)
            largest.append((sums / math.sqrt(images)).abs().amax(1))
            left -= batches
        return float(torch.quantile(torch.cat(largest), 1 - self.false_alarms))


def furthest(distances: Mapping[str, float]) -> str:
    """Return the statistic with the largest distance; one that is NaN, as of a broken model, before all others.

    Example:
        >>> furthest({"contrast": -2.0, "detail": 1.0}), furthest({"contrast": -2.0, "confidence": math.nan})
        ('contrast', 'confidence')
    """
    return max(distances, key=lambda name: math.inf if math.isnan(distances[name]) else abs(distances[name]))
