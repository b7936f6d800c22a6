"""Tally: counts and lists that evaluations fill while they measure."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from robusttune.measuring.failures import Failure, worst


@dataclass
class Tally:
    """The images that an evaluation used, and the work that it did.

    Attributes:
        by_image: keep the hash and the label of each image.
        hashes, labels: hashes and labels of the images in the last pass over the loader, if `by_image`.
        work: numbers of images that went "forward" and "backward" through the model.
        failures: the images that an adversary fooled the model on most easily.
    """

    by_image: bool = False
    hashes: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    work: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def start_pass(self) -> None:
        """Forget the images of the pass before."""
        self.hashes.clear()
        self.labels.clear()

    def add_images(self, pixels: Tensor, labels: Tensor) -> None:
        """Keep the hashes and labels (N,) of images (N,C,H,W) on [0,1], if `by_image`."""
        if self.by_image:
            self.hashes += image_hashes(pixels)
            self.labels += labels.tolist()

    def add_failures(self, failures: Sequence[Failure]) -> None:
        """Keep the worst of the failures known so far and these."""
        self.failures[:] = worst([*self.failures, *failures])


def image_hashes(pixels: Tensor) -> list[str]:
    """Return a hash of each image (N,C,H,W) in 8 bits, the same in every batch and every order."""
    levels = (pixels * 255).round().clamp(0, 255).byte().cpu()
    return [hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest() for image in levels]
