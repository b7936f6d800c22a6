"""Mean corruption error of the ImageNet-C benchmark: errors divided by those of AlexNet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

# A corruption and its severity; None for a corruption without severities.
Key: TypeAlias = tuple[str, int | None]

CLASSES = 1000
SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET_CLEAN = 0.435
# By name, as orders differ: severities 1 to 5.
ALEXNET = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}


def missing(keys: Iterable[Key], baseline: Mapping[str, Sequence[float]] = ALEXNET) -> list[Key]:
    """List the keys of the baseline that are not among these."""
    present = set(keys)
    return [(name, severity) for name in baseline for severity in SEVERITIES if (name, severity) not in present]


def weights(baseline: Mapping[str, Sequence[float]] = ALEXNET, clean: float = 0.0) -> dict[Key, float]:
    """Return the weight of each error; the mean corruption error is the weighted sum, which is 1 for the baseline.

    With the baseline's `clean` error, the weights are those of the relative mean corruption error, which sums the
    excess of each error over the clean error.

    Args:
        baseline: for each corruption, five errors as shares.
        clean: the baseline's error on clean images.

    Raises:
        ValueError: a corruption of the baseline does not have five errors that exceed the clean error in sum.

    Source: Hendrycks and Dietterich, arXiv:1903.12261, section 4.2.
    """
    by_key: dict[Key, float] = {}
    for name, errors in baseline.items():
        excess = sum(error - clean for error in errors)
        if len(errors) != len(SEVERITIES) or not excess > 0:
            raise ValueError(
                f"the baseline's errors on {name} are {list(errors)}, but five shares, together above "
                f"{len(SEVERITIES) * clean:g}, are needed, for severities 1 to 5"
            )
        by_key.update({(name, severity): 1 / (len(baseline) * excess) for severity in SEVERITIES})
    return by_key
